//! The life of a feed's control connection, as a state machine without I/O.
//!
//! The driver hands [`Event`]s to [`Session::handle`] with the time and carries out the
//! [`Action`]s, in order. A session lives as long as its connection; what survives is what it
//! asked to [`Action::Commit`]. After [`Action::Close`] the driver sends what is queued, closes all
//! the session's connections, *waits until no I/O of its data streams is in flight on the sink*,
//! and only then may start the next session of that feed.
//!
//! ```text
//!      initiator                       acceptor
//!          | Hello ----------------------> |
//!          | <---------------------- Hello |
//!          | Handshake ------------------> |  Open: find or make the volume
//!          | <------------------ Handshake |  both: roles and verdict, from the same facts
//!
//!       source                           sink
//!          | Verdict(flow, epoch) -------> |  commit: role, epochs [new, old]
//!          | <-- Bitmap* (union), Accepted |
//!          |  commit: map, epochs [new]    |
//!          | StreamsOffer ---------------> |  commit: epochs [new], own map cleared
//!          | <---------------------- Ready |  data streams are opened by the initiator
//!          | SyncStarted(round) ---------> |  commit: not consistent
//!          | <---------- SyncReady(round)  |
//!          |  feed online: live and bulk   |  Ack*
//!          | CaughtUp(round, seq) -------> |  flush; commit: consistent
//!          | <------ ConsistentDone(round) |
//!          |  live                         |
//!          | PointPrepare, MARK in stream> |  flush; commit: point, generation, split
//!          | <------------------- MarkDone |
//!          |  commit: split                |
//!          | PointCommit ----------------> |
//! ```
//!
//! *Why two epochs at the sink*: payload flows only after both sides have committed the epoch
//! alone. Whoever is older than that has no epoch in common with the other any more, and a
//! handshake that was cut between the commits still has. What epochs cannot show is a disk that
//! went back to an earlier moment of the same session.
//!
//! *Why rounds*: control and data are different connections. A sink must have committed that it is
//! not consistent before the first byte of a copy arrives, and a late confirmation must not be
//! taken for the present round's.

mod api;
mod decide;
mod machine;
mod sink;
mod source;
mod state;

pub use api::{
    Action, CloseReason, CommitId, Event, FreshIds, LocalFeed, MapChange, RecordChange, Rights,
    SessionConfig, SinkContent,
};
pub use decide::{Decision, decide};
pub use machine::{DEAD_AFTER_MS, KEEPALIVE_EVERY_MS, RESUME_AFTER_MS, Session};
pub use state::FeedState;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_single;
