//! A queue's command for the ring.

use super::uapi;
use ringio::Handle;
use ringio::sys::Command;

/// Fetch or commit for `tag` of `queue`; `result` is the request's, for a commit.
pub(crate) fn build(file: Handle, op: u32, queue: u16, tag: u16, result: i32) -> Command {
    debug_assert!(op == uapi::IO_FETCH_REQ || op == uapi::IO_COMMIT_AND_FETCH_REQ);
    let mut bytes = [0u8; 16];
    bytes[0..2].copy_from_slice(&queue.to_ne_bytes());
    bytes[2..4].copy_from_slice(&tag.to_ne_bytes());
    bytes[4..8].copy_from_slice(&result.to_ne_bytes());
    // SAFETY: `struct ublksrv_io_cmd` ends in the only address the driver takes, and it stays zero:
    // with user copy there is no buffer to name, and a device without it finds nothing mapped there
    // and fails the request.
    unsafe { Command::new(file, op, bytes, 0) }
}
