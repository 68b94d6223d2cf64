//! What the data movers ask of the volume behind them.
//!
//! The daemon implements these on top of the volume's lane; the streams call them from threads of
//! their own.

use blockio::{ByteRange, Flags, IoError, Op};
use std::fmt;
use std::fs::File;
use std::sync::Arc;
use uuid::Uuid;

/// Bytes on a disk, where the kernel can move them to and from.
#[derive(Clone, Debug)]
pub struct FileSegment {
    /// The disk, opened *without* `O_DIRECT`: `splice` goes through the page cache.
    pub file: Arc<File>,
    /// Where on the disk, in bytes from its start.
    pub range: ByteRange,
}

/// Where one plex keeps the bytes of a range: segments in the order of the volume's bytes.
#[derive(Clone, Debug, Default)]
pub struct PlexSegments {
    /// Together as long as the range.
    pub segments: Vec<FileSegment>,
}

/// Leave to write a range of the volume, given by [`SinkDevice::begin_write`] and returned by
/// [`SinkDevice::end_write`].
#[derive(Debug)]
#[must_use = "a grant that is not returned blocks its range for ever"]
pub struct WriteGrant {
    /// The device's name for it.
    pub id: u64,
    /// The plexes that want the bytes. Empty where none does now: the bytes are then only received.
    pub plexes: Vec<PlexSegments>,
}

/// Called once, when an operation is done; durable, too, if it was a flush or had
/// [`Flags::FUA`].
pub type DoneFn = Box<dyn FnOnce(Result<(), IoError>) + Send>;

/// The volume at the sink of a feed.
///
/// Calls come from one thread per data stream. Operations that overlap take effect in the order in
/// which a thread called for them. A device that is being shut down answers with
/// [`blockio::IoErrorKind::Cancelled`] and lets no caller wait.
pub trait SinkDevice: Send + Sync {
    /// Blocks until this range may be written, and says where.
    fn begin_write(&self, range: ByteRange) -> Result<WriteGrant, IoError>;

    /// The bytes of a grant are written: one result per plex of the grant, in its order. All
    /// plexes whose result is `Ok` hold the same bytes.
    ///
    /// The connection may have broken in the middle of the payload. Then, too, plexes that did not
    /// fail hold the same bytes (new ones up to somewhere, old ones from there); the stream just
    /// never acknowledges the frame.
    fn end_write(&self, grant: WriteGrant, results: Vec<Result<(), IoError>>, done: DoneFn);

    /// An operation without a grant: a write with its bytes (`range.len()` of them), or a
    /// write-zeroes, discard or flush without. May block to hold the sender back.
    fn submit(&self, op: Op, range: ByteRange, flags: Flags, bytes: Option<Vec<u8>>, done: DoneFn);

    /// A point of the source's write order: everything before it in this stream has been
    /// submitted, not all of it is done. `sequence` is the mark's own number in the stream.
    fn mark(&self, point: Uuid, sequence: u64);
}

/// Bytes of a live write, kept alive by whoever received them from the front end. Dropped as soon
/// as they have been given to the kernel.
pub trait LivePayload: AsRef<[u8]> + Send {}

impl LivePayload for Vec<u8> {}

impl fmt::Debug for dyn LivePayload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LivePayload({} bytes)", self.as_ref().len())
    }
}
