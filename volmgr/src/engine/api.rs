//! The words that go into and come out of the engine.

use crate::model::PlexState;
use blockio::{ByteRange, Flags, IoError, Op, Payload, Ticket};

/// A data plex of the volume, by its number (`plexN`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PlexId(pub u32);

/// A feed plex of the volume; the number is the feed's map slot in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FeedId(pub u32);

/// A disk, by its place in the driver's table of open disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DiskId(pub u32);

/// Names one piece of work between action and completion. Never reused while in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IoId(pub u64);

/// Bytes on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DiskRange {
    /// The disk.
    pub disk: DiskId,
    /// Where on it, in bytes from its start.
    pub range: ByteRange,
}

/// What to do with a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DiskOp {
    /// Fill the payload.
    Read,
    /// Store the payload.
    Write,
    /// Make completed writes durable.
    Flush,
    /// Discard; failing with `Unsupported` is fine.
    Discard,
    /// Write zeroes by the disk's own means, or by writing them where it has none (unless
    /// [`Flags::FAST_ZERO`]).
    WriteZeroes,
    /// Read ahead.
    Prefetch,
}

/// I/O on a data plex's disk. Completed by `Engine::io_done`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskIo {
    /// Completion goes here.
    pub io: IoId,
    /// What.
    pub op: DiskOp,
    /// Where; the range is empty for a flush.
    pub at: DiskRange,
    /// The bytes, for reads and writes.
    pub payload: Option<Payload>,
    /// FUA, NO_UNMAP, FAST_ZERO.
    pub flags: Flags,
}

/// A live operation for a feed, in stream order: the order in which these actions are emitted for
/// one feed is the order in which the sink must apply them.
///
/// Completed by `Engine::io_done` when the sink has it *durable*, or with an error when it will
/// never be known (cut off, congested): the engine then tracks the range as dirty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedIo {
    /// Completion goes here.
    pub io: IoId,
    /// The feed.
    pub feed: FeedId,
    /// Write, Flush, Discard or WriteZeroes.
    pub op: Op,
    /// Range of the volume; empty for a flush.
    pub range: ByteRange,
    /// The bytes of a write. The driver keeps them alive until they are sent: it may be later than
    /// the completion of the request they came with.
    pub payload: Option<Payload>,
    /// FUA where the source's client or the `sync` mode wants it durable at once.
    pub flags: Flags,
}

/// Bulk copy of a range to a feed, straight from a disk; unordered with live operations, because
/// nothing else that overlaps it is in flight to that feed. Completed like [`FeedIo`].
///
/// The disks may be written while the driver reads: then the engine copies the range again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedCopy {
    /// Completion goes here.
    pub io: IoId,
    /// The feed.
    pub feed: FeedId,
    /// Range of the volume.
    pub range: ByteRange,
    /// Where its bytes are, in order; together `range.len()` bytes.
    pub segments: Vec<DiskRange>,
}

/// An update of the volume's log: write `bytes` at the range and make it durable (as with FUA).
/// Completed by `Engine::io_done`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogIo {
    /// Completion goes here.
    pub io: IoId,
    /// Where.
    pub at: DiskRange,
    /// What: `at.range.len()` bytes, a multiple of 4096.
    pub bytes: Vec<u8>,
}

/// What the engine wants done.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Disk I/O.
    Disk(DiskIo),
    /// Live feed operation.
    Feed(FeedIo),
    /// Bulk feed copy.
    FeedCopy(FeedCopy),
    /// A mark in the feed's live stream, after every live operation emitted before. Completed by
    /// `Engine::io_done` when the sink has everything up to it durable.
    FeedMark {
        /// Completion goes here; also what [`super::Engine::mark`] returned.
        io: IoId,
        /// The feed.
        feed: FeedId,
    },
    /// Log update.
    Log(LogIo),
    /// Commit this state of a plex to the group's metadata, durably, then answer with
    /// `Engine::io_done(io, …)`. Requests that depend on it wait. Commits of one plex are made in
    /// the order they are asked for. With the state `failed` the
    /// same commit must mark the log copies that share the plex's disks invalid.
    CommitPlexState {
        /// Completion goes here.
        io: IoId,
        /// The plex.
        plex: PlexId,
        /// Its new state.
        state: PlexState,
        /// Why, for the log and the admin.
        reason: &'static str,
    },
    /// The request is done.
    Complete {
        /// Its ticket.
        ticket: Ticket,
        /// How it went.
        result: Result<(), IoError>,
    },
    /// Something the admin or the control plane wants to know.
    Note(Note),
}

/// News from the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// A plex's disk failed an operation.
    PlexError {
        /// The plex.
        plex: PlexId,
        /// The operation.
        op: DiskOp,
        /// Where on the volume.
        range: ByteRange,
        /// The error.
        error: IoError,
    },
    /// A bad range of a plex was rewritten from another.
    ReadRepaired {
        /// The plex.
        plex: PlexId,
        /// Where on the volume.
        range: ByteRange,
    },
    /// A plex is out of service: too many of its reads failed.
    PlexRetired {
        /// The plex.
        plex: PlexId,
        /// How many, lately.
        errors: u32,
    },
    /// A plex is in step again; its state has been committed.
    PlexSynced {
        /// The plex.
        plex: PlexId,
    },
    /// Nothing is dirty or in bulk flight for this feed any more: with the next mark the sink is
    /// consistent.
    FeedCaughtUp {
        /// The feed.
        feed: FeedId,
    },
    /// A copy of the volume's log is no longer written; the commit that takes its plex out of
    /// service must also mark it invalid.
    LogCopyFailed {
        /// Where it is.
        at: DiskRange,
    },
    /// Requests wait for these ranges, which the feed's other side is to send first. Said again every
    /// second while that is so.
    FeedFetch {
        /// The feed.
        feed: FeedId,
        /// Whole regions of the volume.
        ranges: Vec<ByteRange>,
    },
    /// Nothing is missing any more of what an online restore brings.
    FeedRestored {
        /// The feed.
        feed: FeedId,
    },
    /// The feed was live or catching up and now only tracks.
    FeedBehind {
        /// The feed.
        feed: FeedId,
    },
}
