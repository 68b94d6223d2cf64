//! What goes into a lane and what comes out.

use super::{DiskSpec, FeedLag, FeedOutlet, UblkQueues};
use blockio::{ByteRange, Flags, IoError, IoErrorKind, Op};
use nbd_export::Negotiated;
use regionmap::RegionMap;
use ringio::{BufSlice, RingError};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use thiserror::Error;
use tokio::sync::oneshot;
use uuid::Uuid;
use volmgr::engine::{EngineConfig, EngineError, FeedId, IoId, Media, Note, PlexId, VolumeLayout};
use volmgr::model::PlexState;

/// What a lane is started with.
#[derive(Clone)]
pub struct LaneSpec {
    /// `VG/LV`, for the log and the thread's name.
    pub name: String,
    /// The volume. Its [`DiskId`](volmgr::engine::DiskId)s index `disks`.
    pub layout: VolumeLayout,
    /// The disks.
    pub disks: Vec<DiskSpec>,
    /// Memory for requests under way, in bytes.
    pub pool_bytes: usize,
    /// Memory for one copy of a resync, in bytes; at least a region is taken.
    pub bounce_bytes: usize,
    /// Copies of a resync at a time.
    pub bounces: usize,
    /// Failed reads within about an hour that take a plex out of service, where another one has none; 0: never.
    pub max_read_errors: u32,
    /// Milliseconds between looks for regions that may leave the dirty-region log.
    pub clear_interval_ms: u64,
    /// The volume has just been made: its plexes are equal whatever the log says.
    pub clean: bool,
    /// Copy each write once: see [`LaneHandle::set_stable_copy`](super::LaneHandle::set_stable_copy).
    pub stable_copy: bool,
}

impl LaneSpec {
    /// With the usual sizes.
    pub fn new(name: impl Into<String>, layout: VolumeLayout, disks: Vec<DiskSpec>) -> Self {
        Self {
            name: name.into(),
            layout,
            disks,
            pool_bytes: 8 << 20,
            bounce_bytes: 256 << 10,
            bounces: 4,
            max_read_errors: 64,
            clear_interval_ms: EngineConfig::default().clear_interval_ms,
            clean: false,
            stable_copy: false,
        }
    }
}

/// A lane could not be started, or a command failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LaneError {
    /// No io_uring, or no memory for it.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// A disk cannot be opened.
    #[error("cannot open {path}")]
    Open {
        /// The disk.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// No copy of the volume's log can be read.
    #[error("cannot read the volume log on {path}")]
    ReadLog {
        /// The disk.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The log's size makes no sense.
    #[error("the volume log is too large for this machine")]
    LogTooLarge,
    /// A new table of disks must begin with the old one.
    #[error("the new list of disks does not begin with the disks in use")]
    DiskTable,
    /// The layout names a disk that is not in the table, or a place behind a disk's end.
    #[error("the layout names a place that is on no disk of the list")]
    UnknownDisk,
    /// The engine refuses its volume.
    #[error("the volume cannot be run like this")]
    Engine(#[from] EngineError),
    /// The thread or its eventfd could not be made.
    #[error("cannot start the lane's thread")]
    Thread(#[source] io::Error),
    /// The lane has stopped.
    #[error("the volume has been stopped")]
    Stopped,
    /// The volume's I/O failed.
    #[error(transparent)]
    Io(#[from] IoError),
    /// The volume's log cannot be written (in time).
    #[error("the volume's log cannot be written")]
    LogStuck,
    /// The ring has no table of buffers for a device's requests.
    #[error("the io_uring of the volume cannot register request pages")]
    NoSlots,
    /// The lane serves a ublk device already.
    #[error("the volume has a block device already")]
    DeviceTwice,
    /// There is no such feed attached.
    #[error("no such feed is attached")]
    NoFeed,
}

/// News for the control plane.
#[derive(Debug)]
pub enum LaneEvent {
    /// Commit this state of a plex durably, then call `LaneHandle::commit_done(io, …)`. Requests
    /// wait for it.
    CommitPlexState {
        /// To be answered.
        io: IoId,
        /// The plex.
        plex: PlexId,
        /// Its new state.
        state: PlexState,
        /// Why.
        reason: &'static str,
    },
    /// Something the engine reports.
    Note(Note),
    /// The lane has ended, and why where it was not told to.
    Stopped {
        /// The failure.
        failure: Option<String>,
    },
}

/// Called on the lane's thread when a request is done; must not block.
pub type DoneFn = Box<dyn FnOnce(Result<(), IoError>) + Send>;

/// A [`DoneFn`] that is called in any case: one that is dropped says that the lane is gone.
pub(super) struct Done(Option<DoneFn>);

impl Done {
    pub fn new(done: DoneFn) -> Self {
        Self(Some(done))
    }

    pub fn call(mut self, result: Result<(), IoError>) {
        if let Some(done) = self.0.take() {
            done(result);
        }
    }
}

impl Drop for Done {
    fn drop(&mut self) {
        if let Some(done) = self.0.take() {
            done(Err(IoError::new(IoErrorKind::Gone)));
        }
    }
}

/// What a client may ask about ranges of the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NbdContext {
    /// What is allocated.
    Allocation,
    /// What has changed since a point in time.
    Changed(Uuid),
}

/// A client whose negotiation is over.
pub struct NbdClient {
    /// The socket; its blocking mode does not matter.
    pub socket: OwnedFd,
    /// What was agreed on.
    pub negotiated: Negotiated,
    /// What its contexts mean, in the order of [`Negotiated::contexts`].
    pub contexts: Vec<NbdContext>,
    /// Bytes received behind the negotiation.
    pub received: Vec<u8>,
    /// Who, for the log.
    pub peer: String,
}

/// Where a part of a delegated write goes.
#[derive(Clone, Debug)]
pub struct GrantSegment {
    /// Through the page cache. `/dev/null` where the plex does not want this part.
    pub file: Arc<File>,
    /// Where in it, in bytes; for `/dev/null` the offset means nothing.
    pub range: ByteRange,
}

/// Leave to write a range of the volume into its disks. Ended by `LaneHandle::end_write` or
/// `LaneHandle::abandon_write`; until then, overlapping writes wait.
#[derive(Debug)]
pub struct WriteGrant {
    /// Names it.
    pub id: u64,
    /// The range of the volume.
    pub range: ByteRange,
    /// For each plex the segments that cover the range, in order.
    pub plexes: Vec<Vec<GrantSegment>>,
}

/// Numbers for reports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LaneStats {
    /// NBD connections that are open.
    pub opens: u32,
    /// Requests completed.
    pub requests: u64,
    /// Requests under way.
    pub in_flight: u64,
    /// Bytes read by clients.
    pub read_bytes: u64,
    /// Bytes written by clients.
    pub write_bytes: u64,
    /// Failed operations by disk, in the table's order.
    pub disk_errors: Vec<u64>,
    /// Every disk is used with direct I/O.
    pub direct: bool,
    /// Why the buffers are not registered with the kernel, where they are not.
    pub unregistered: Option<String>,
    /// Bytes in which plexes may differ after an unclean stop, not yet made equal.
    pub recover_bytes: u64,
    /// What is known of each feed's progress.
    pub feeds: Vec<(FeedId, FeedLag)>,
    /// Bytes that each plex misses.
    pub plex_dirty: Vec<(PlexId, u64)>,
    /// How well each plex's disks read.
    pub plex_media: Vec<(PlexId, Media)>,
    /// Notes that found the control plane's queue full.
    pub notes_dropped: u64,
}

/// Answer to a command.
pub(super) type Reply<T> = oneshot::Sender<Result<T, LaneError>>;

/// Commands of the control plane. The lane takes them at once.
pub(super) enum LaneCommand {
    AddNbd(Box<NbdClient>),
    AddUblk {
        queues: Box<UblkQueues>,
        reply: Reply<()>,
    },
    /// Serve the ublk device no more, but leave it there.
    DropUblk {
        reply: Reply<()>,
    },
    Reconfigure {
        layout: Box<VolumeLayout>,
        disks: Vec<DiskSpec>,
        reply: Reply<()>,
    },
    FeedAttach {
        feed: FeedId,
        outlet: Box<dyn FeedOutlet>,
        reply: Reply<()>,
    },
    FeedOffline {
        feed: FeedId,
        reply: Reply<()>,
    },
    FeedBehind {
        feed: FeedId,
        reply: Reply<()>,
    },
    FeedResume {
        feed: FeedId,
        reply: Reply<()>,
    },
    SetWhole {
        whole: bool,
        reply: Reply<()>,
    },
    Mark {
        feed: FeedId,
        point: Uuid,
        detach: bool,
        reply: Reply<()>,
    },
    SetAllDirty {
        feed: FeedId,
        reply: Reply<()>,
    },
    ClearFeedMap {
        feed: FeedId,
        reply: Reply<()>,
    },
    PrepareSlot {
        slot: u32,
        reply: Reply<()>,
    },
    /// The other side waits for these.
    FeedFetch {
        feed: FeedId,
        ranges: Vec<ByteRange>,
        reply: Reply<()>,
    },
    /// What an online restore misses, into a slot that belongs to nobody yet.
    PrepareRestore {
        slot: u32,
        from: FeedId,
        all: bool,
        reply: Reply<()>,
    },
    /// What changed since a point, into a slot that belongs to nobody yet, as `from` has it.
    TrackPoint {
        slot: u32,
        from: FeedId,
        reply: Reply<()>,
    },
    /// It is to belong to nobody after all.
    UntrackPoint {
        slot: u32,
        reply: Reply<()>,
    },
    /// Answered when the map of what is missing is empty, on the disks, too.
    RestoreEnded {
        reply: Reply<()>,
    },
    FeedMap {
        feed: FeedId,
        reply: Reply<RegionMap>,
    },
    MergeFeedMap {
        feed: FeedId,
        map: Box<RegionMap>,
        reply: Reply<()>,
    },
    /// Answered when the dirty-region log holds nothing that was written before, or does not get there in time.
    CleanLog {
        reply: Reply<()>,
    },
    /// Answered when the log says that it has come further.
    TouchLog {
        reply: Reply<()>,
    },
    LogStamp {
        reply: Reply<u64>,
    },
    Dirty {
        feeds: Vec<FeedId>,
        plexes: Vec<PlexId>,
        reply: Reply<(Vec<u64>, Vec<u64>)>,
    },
    Stats {
        reply: Reply<LaneStats>,
    },
    /// Read at most `MAX_SLICE` bytes.
    Read {
        range: ByteRange,
        reply: Reply<BufSlice>,
    },
    /// Read a range from each of these plexes, with writes to it held: together at most
    /// `MAX_SLICE` bytes.
    ReadPlexes {
        range: ByteRange,
        plexes: Vec<PlexId>,
        reply: Reply<BufSlice>,
    },
    /// Write what one plex has in a range, at most `MAX_SLICE` bytes, to others, with writes to it held.
    Rewrite {
        range: ByteRange,
        from: PlexId,
        to: Vec<PlexId>,
        reply: Reply<BufSlice>,
    },
    /// Refuse clients' writes, until as many `Thaw`s.
    Freeze {
        reply: Reply<()>,
    },
    Thaw,
    /// Wait until every request submitted before is done, and flush.
    Quiesce {
        reply: Reply<()>,
    },
    Stop {
        reply: Reply<()>,
    },
    /// End without closing: what a crash leaves.
    #[cfg(test)]
    Crash,
}

/// Work of a feed's receivers: taken in order, and only as fast as it can be done.
pub(super) enum FeedWork {
    Submit {
        op: Op,
        range: ByteRange,
        flags: Flags,
        bytes: Vec<u8>,
        done: Done,
    },
    Begin {
        range: ByteRange,
        reply: Box<dyn FnOnce(Result<WriteGrant, IoError>) + Send>,
    },
}

/// Results from other threads, many of them.
pub(super) enum Outcome {
    /// Of a feed operation or a commit.
    Io(IoId, Result<(), IoError>),
    /// Of a delegated write: by plex, or nothing where it was given up half way.
    Grant {
        id: u64,
        results: Option<Vec<Result<(), IoError>>>,
        done: Done,
    },
}
