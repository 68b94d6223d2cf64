//! The bounds of one connection.

/// Bounds of a [`crate::Connection`]; sizes in bytes. Values too small to work with are raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionConfig {
    /// Largest payload of one [`crate::Action::Submit`]; requests are split into pieces of it.
    /// At least 64 KiB (what a client may ask for in one piece), a multiple of 4096.
    pub max_chunk: u32,
    /// Largest range of one write-zeroes, discard or prefetch. At least `max_chunk`, a multiple
    /// of 4096.
    pub max_range_chunk: u32,
    /// Requests read and not yet answered.
    pub max_requests: usize,
    /// Reads, write-zeroes, … submitted and not yet completed. (Writes are bounded by their
    /// payload and by `max_requests`.)
    pub max_operations: usize,
    /// Payload of reads: submitted, or waiting to be sent.
    pub max_read_bytes: u64,
    /// Payload of writes: being received, or submitted.
    pub max_write_bytes: u64,
    /// A simple (unstructured) reply of up to this size is held back until the whole read has
    /// succeeded. A larger one starts with its first piece, and a later error can only cut the
    /// connection. At most `max_read_bytes`.
    pub max_hold: u64,
    /// Extents in one block status reply.
    pub max_extents: usize,
}

impl Default for ConnectionConfig {
    fn default() -> Self {
        Self {
            max_chunk: 256 << 10,
            max_range_chunk: 64 << 20,
            max_requests: 128,
            max_operations: 128,
            max_read_bytes: 8 << 20,
            max_write_bytes: 8 << 20,
            max_hold: 4 << 20,
            max_extents: 2048,
        }
    }
}

impl ConnectionConfig {
    /// The smallest values with which every valid request can still be served.
    pub(crate) fn clamped(self) -> Self {
        let max_chunk = (self.max_chunk & !4095).max(64 << 10);
        let max_read_bytes = self.max_read_bytes.max(u64::from(max_chunk));
        Self {
            max_chunk,
            max_range_chunk: (self.max_range_chunk & !4095).max(max_chunk),
            max_requests: self.max_requests.max(1),
            max_operations: self.max_operations.max(1),
            max_read_bytes,
            max_write_bytes: self.max_write_bytes.max(u64::from(max_chunk)),
            max_hold: self.max_hold.min(max_read_bytes),
            max_extents: self.max_extents.max(1),
        }
    }
}
