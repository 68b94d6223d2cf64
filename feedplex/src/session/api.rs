//! The words between a session and its driver.

use super::FeedState;
use crate::generation::{Intent, Lineage, Role};
use crate::wire::control::{
    Ack, Bitmap, Handshake, Message, RefusalCode, Refused, StreamsOffer, WireRange,
};
use crate::wire::preamble::Token;
use uuid::Uuid;

/// Random names that the driver makes anew for each connection; a session makes none itself.
#[derive(Clone, Debug)]
pub struct FreshIds {
    /// The session epoch, used if this side is the source.
    pub epoch: Uuid,
    /// The session's name on data streams, used if this side is the source.
    pub session: Uuid,
    /// The secret of the data streams, used if this side is the source.
    pub token: Token,
    /// Names of new generations.
    pub generations: [Uuid; 2],
}

/// What a session is told about its node and connection.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// This node.
    pub node: Uuid,
    /// Its name.
    pub name: String,
    /// Its key's fingerprint.
    pub fingerprint: String,
    /// This run of its daemon.
    pub run: Uuid,
    /// Random names.
    pub fresh: FreshIds,
    /// Number of data streams to offer, the live stream included; at least 1.
    pub streams: u16,
    /// Seconds since 1970-01-01 UTC, for points that a cut detach left unfinished.
    pub wall_time: u64,
}

/// What the access list allows the peer to do with this volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    /// It may write it.
    pub feed: bool,
    /// It may read it.
    pub read: bool,
}

/// This side's feed as it is on disk, and what the admin asked for now.
///
/// `facts.consistent` must be false at a sink that was stopped uncleanly while attached: writes in
/// flight then are not a point of any order.
#[derive(Clone, Debug)]
pub struct LocalFeed {
    /// What the peer is told.
    pub facts: Handshake,
    /// What the peer may do; asked where the peer, not this node's admin, drives.
    pub rights: Rights,
    /// Bytes in this side's map, for display.
    pub dirty_bytes: u64,
    /// An online restore has begun here: the map that a source is told is that of what is missing
    /// here (`facts.dirty`), the other one is not the session's business.
    pub restoring: bool,
}

/// Names a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CommitId(pub u64);

/// What happens to this side's own map together with a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapChange {
    /// Nothing.
    Keep,
    /// All dirty, durably *before* the record is committed.
    AllDirty,
    /// Emptied, *after* the record is committed: the source has it all.
    Clear,
    /// Begins an online restore: what it says is missing here from now on, durably *before* the record
    /// is committed; emptied after.
    Missing,
    /// The same, but everything is missing.
    AllMissing,
}

/// What a sink's content is worth from a commit on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SinkContent {
    /// As recorded.
    Keep,
    /// Seeded and consistent: it was the source and has nothing that the new source has not.
    Consistent,
    /// Seeded, not consistent: its own changes are given up.
    Inconsistent,
    /// Neither: everything is copied anew.
    Unseeded,
}

/// A change of the feed's record and the volume, committed as one and durable before it is
/// answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordChange {
    /// A session is agreed on. Makes the record if there is none.
    Session {
        /// The role.
        role: Role,
        /// Its epoch.
        role_epoch: u64,
        /// What the admin wants, from now on.
        intent: Intent,
        /// Session epochs, newest first.
        epochs: Vec<Uuid>,
        /// At the sink.
        content: SinkContent,
        /// The sink's volume is in use while it is being restored; the source's must not change.
        online: bool,
        /// The volume's generation, where it changes.
        generation: Option<Lineage>,
        /// At the source: merged chunks are durable before this commit, too.
        map: MapChange,
    },
    /// Sink: the source has committed the session, too.
    Confirmed {
        /// Session epochs, newest first.
        epochs: Vec<Uuid>,
        /// The own map.
        map: MapChange,
    },
    /// Sink: content is not consistent from now on.
    Inconsistent,
    /// Sink: content is consistent (and seeded) and is this state of the source's data.
    Consistent {
        /// The volume's generation.
        generation: Lineage,
    },
    /// Source: the first full copy has ended.
    Seeded,
    /// The admin wants tracking only.
    Paused,
    /// Source: on the way to a point.
    Detaching {
        /// The point.
        point: Uuid,
        /// Its name.
        name: String,
    },
    /// The feed has ended at the point: intent `Split`, the point is listed.
    Split {
        /// The point.
        point: Uuid,
        /// Its name.
        name: String,
        /// Seconds since 1970-01-01 UTC.
        time: u64,
        /// The volume's generation from now on.
        generation: Lineage,
    },
    /// Source: it is the sink from now on, attached, seeded and consistent; the point is listed.
    Swapped {
        /// The epoch of the new role.
        role_epoch: u64,
        /// The point at which the roles change.
        point: Uuid,
        /// Its name.
        name: String,
        /// Seconds since 1970-01-01 UTC.
        time: u64,
    },
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A message came.
    Message(Message),
    /// The connection ended or failed.
    Disconnected,
    /// Nothing; time has passed. Once a second.
    Tick,
    /// Answer to [`Action::Open`].
    Opened(Box<LocalFeed>),
    /// Answer to [`Action::Open`].
    OpenRefused(Refused),
    /// Answer to [`Action::Commit`]: durable.
    Committed(CommitId),
    /// Answer to [`Action::Commit`]: it failed, and why.
    CommitFailed(CommitId, String),
    /// Answer to [`Action::ExportMap`]: a piece, any number of them. Empty pieces may be left out.
    MapChunk(Bitmap),
    /// Answer to [`Action::ExportMap`]: that was all.
    MapEnd,
    /// Answer to [`Action::OpenStreams`]: all data streams are connected.
    StreamsUp,
    /// Source: nothing is dirty or in bulk flight; the last live sequence number so far.
    CaughtUp {
        /// 0 for none.
        live_sequence: u64,
    },
    /// Source: the feed has become too slow and only tracks.
    Behind,
    /// Source: the mark did not get into the stream, because the feed is behind or congested. A
    /// mark that is asked for must either get in or fail.
    MarkFailed {
        /// The point.
        point: Uuid,
    },
    /// Sink: a stream's progress, to be told to the source.
    Progress(Ack),
    /// Sink: answer to [`Action::Flush`].
    Flushed {
        /// As asked.
        flush: u64,
        /// Durable, or an error.
        ok: bool,
    },
    /// Sink: a mark came in the live stream, all before it is submitted.
    MarkReached {
        /// The point.
        point: Uuid,
    },
    /// Admin, at the source: end the feed at a point.
    Detach {
        /// The point.
        point: Uuid,
        /// Its name.
        name: String,
        /// Seconds since 1970-01-01 UTC.
        time: u64,
    },
    /// Admin, at the source of a live feed whose volume nobody writes any more: exchange the roles.
    Swap {
        /// The point.
        point: Uuid,
        /// Its name.
        name: String,
        /// Seconds since 1970-01-01 UTC.
        time: u64,
    },
    /// Admin, at the sink: ask the source to exchange the roles.
    AskSwap,
    /// Answer to [`Action::PeerWantsSwap`]; the other answer is [`Event::Swap`].
    SwapRefused(Refused),
    /// Admin: tracking only.
    Pause,
    /// Source: send these again.
    Repair(Vec<WireRange>),
    /// What is no business of the state machine, for the peer: `HashRequest`, `HashReply`,
    /// `RepairRequest`, `FetchRequest`, `State`, `Stamp`.
    Relay(Message),
    /// The daemon stops.
    Stop,
}

/// Why a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The admin has to do something; do not reconnect.
    Refused(RefusalCode),
    /// The admin paused it here or there; do not reconnect from where it was paused, retry slowly
    /// from the other side.
    Paused,
    /// Ended at a point; do not reconnect.
    Split,
    /// The roles were exchanged: reconnect at once.
    Swapped,
    /// The connection is gone, silent, or the peer failed: reconnect with back-off.
    Lost,
    /// Something failed here: reconnect with back-off.
    Failed,
    /// The daemon stops.
    Stopped,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send it.
    Send(Message),
    /// Acceptor: find or make the volume of this handshake, check the peer's rights to create.
    Open(Box<Handshake>),
    /// Commit it.
    Commit {
        /// Comes back.
        id: CommitId,
        /// What.
        change: RecordChange,
    },
    /// Hand over the own map in chunks; at a sink where an online restore has begun that of what is
    /// missing.
    ExportMap,
    /// Add this piece, in regions of `region_size` bytes, to the feed's map.
    MergeMap {
        /// The sink's region size in bytes.
        region_size: u64,
        /// The piece.
        bitmap: Bitmap,
    },
    /// Connect the data streams, or expect them.
    OpenStreams {
        /// How they are known.
        offer: StreamsOffer,
        /// Connect; otherwise expect.
        connect: bool,
    },
    /// Source: the engine may copy and send live.
    FeedOnline,
    /// Source: the engine may go on after [`Event::Behind`].
    FeedResume,
    /// Source: the engine tracks only.
    FeedOffline,
    /// Source: mark these dirty.
    SetDirty(Vec<WireRange>),
    /// Source: put a mark into the live stream; from it on the engine tracks only.
    RequestMark {
        /// The point.
        point: Uuid,
    },
    /// Source: a stream's progress at the sink.
    Acked(Ack),
    /// Sink: once the live stream is applied up to the sequence number, make everything that has
    /// been applied durable.
    Flush {
        /// Comes back.
        flush: u64,
        /// Wait for this one; `None`: for all that has been submitted.
        live_sequence: Option<u64>,
    },
    /// Source: the sink's admin asks for exchanged roles.
    PeerWantsSwap,
    /// A verification or listing message, or the answer to a swap, from the peer.
    Deliver(Message),
    /// The state changed.
    Report {
        /// To this.
        state: FeedState,
        /// Why, for people; may be empty.
        reason: String,
    },
    /// End of the session; nothing comes after it.
    Close(CloseReason),
}
