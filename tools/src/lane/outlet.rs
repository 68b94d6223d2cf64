//! Where feed operations go: the lane knows these traits, not the streams behind them.

use blockio::{ByteRange, Flags, Op};
use ringio::{BufSlice, Handle};
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
    /// The bytes of a write.
    pub bytes: Option<LiveBytes>,
    /// This is a consistent point: everything before it in the stream belongs to it.
    pub mark: Option<Uuid>,
}

/// The bytes of a live write.
#[derive(Debug)]
pub enum LiveBytes {
    /// Memory of the lane. Drop it as soon as it is sent.
    Memory(BufSlice),
    /// So many bytes that the lane writes into the outlet's pipe, in the order of the operations.
    Piped(u64),
}

/// The way into a feed for bytes that are to stay in the kernel. Calls come from the lane's thread.
pub trait PayloadPipe: Send + Sync {
    /// Where the bytes are written, in one piece each; never blocks.
    fn file(&self) -> Handle;
    /// Makes room for one write; false where there is none.
    fn reserve(&self, len: u64) -> bool;
    /// Room that was reserved for an operation which then was not taken.
    fn release(&self, len: u64);
    /// A write failed or was short: the stream is out of step and has to end.
    fn set_broken(&self);
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
    /// Where payload can go that is not in memory; `None` where this feed needs it in memory.
    fn pipe(&self) -> Option<Arc<dyn PayloadPipe>>;
    /// Takes a bulk copy, or refuses it.
    fn copy(&mut self, op: BulkOp) -> Result<(), Congested>;
}
