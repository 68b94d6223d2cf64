//! The lane: one thread and one io_uring that run one active volume.
//!
//! It owns the volume's [`Engine`](volmgr::engine::Engine) and does what the engine's actions say:
//! disk I/O on the ring, feed operations into [`FeedOutlet`]s, state changes as [`LaneEvent`]s to
//! the control plane. It also serves the volume's clients, the queues of its ublk device and the
//! transmission phase of its NBD connections, and hands out delegated writes to the receivers of a feed.
//!
//! * Towards the rest of the daemon there is [`LaneHandle`]: commands in, answers by oneshot.
//! * Inside, everything belongs to the one thread; there are no locks.
//! * A request holds its bytes in a slice of the lane's pool, [`payload`] knows which. When the
//!   pool is empty, those who want memory wait in turn; nothing that is needed to make others let
//!   go of theirs (log writes, zeroes, resync) waits for it.
//!
//! A command that changes something is in force when its answer comes.

mod command;
mod control;
mod delegate;
mod disk;
mod exec;
mod extents;
mod external;
mod feeds;
mod handle;
mod meter;
mod nbd;
mod outlet;
mod payload;
mod requests;
mod start;
mod thread;
mod ublk;
mod ublk_memory;
mod wake;

pub use command::{
    DoneFn, GrantSegment, LaneError, LaneEvent, LaneSpec, LaneStats, NbdClient, NbdContext,
    WriteGrant,
};
pub use disk::DiskSpec;
pub use handle::{Frozen, LaneHandle, UsersFn};
pub use meter::{FeedLag, MeterValues};
pub use outlet::{BulkOp, Congested, FeedOutlet, LiveBytes, LiveOp, PayloadPipe};
pub use ublk::{UBLK_MAX_IO, UBLK_SLOTS, UblkQueues};

#[cfg(test)]
mod tests;
