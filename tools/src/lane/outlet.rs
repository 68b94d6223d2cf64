//! Where feed operations go: the lane knows these traits, not the streams behind them.

use blockio::{ByteRange, Flags, Op};
use ringio::BufSlice;
use std::fs::File;
use std::sync::Arc;
use uuid::Uuid;
use volmgr::engine::IoId;

/// A live operation, in stream order.
#[derive(Debug)]
pub struct LiveOp {
    /// Report here with `LaneHandle::feed_done`: durable at the sink, or never known.
    pub io: IoId,
    /// Write, Flush, Discard or WriteZeroes. A mark is a Flush with `mark` set.
    pub op: Op,
    /// Range of the volume in bytes; empty for a flush.
    pub range: ByteRange,
    /// Modifiers.
    pub flags: Flags,
    /// The bytes of a write. Drop them as soon as they are sent: they are front-end memory.
    pub bytes: Option<BufSlice>,
    /// This is a consistent point: everything before it in the stream belongs to it.
    pub mark: Option<Uuid>,
}

/// A bulk copy, unordered with everything.
#[derive(Debug)]
pub struct BulkOp {
    /// Report here with `LaneHandle::feed_done`.
    pub io: IoId,
    /// Range of the volume in bytes.
    pub range: ByteRange,
    /// Where its bytes are now, in order, on buffered descriptors; together `range.len()` bytes.
    pub segments: Vec<(Arc<File>, ByteRange)>,
}

/// Not taken: the feed is over its bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Congested;

/// One attached feed. Called on the lane's thread: must not block.
///
/// What was taken is answered by `LaneHandle::feed_done` exactly once, from any thread. What was
/// taken before the outlet is dropped (the feed went offline) need not be: the engine has given it
/// up by then.
pub trait FeedOutlet: Send {
    /// Takes a live operation, or refuses it.
    fn try_live(&mut self, op: LiveOp) -> Result<(), Congested>;
    /// Takes a bulk copy, or refuses it.
    fn copy(&mut self, op: BulkOp) -> Result<(), Congested>;
}
