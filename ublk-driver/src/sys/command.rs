//! A queue's command for the ring.

use super::uapi;
use ringio::Handle;
use ringio::sys::Command;

/// Fetch or commit for `tag` of `queue`; `result` is the request's, for a commit. `slot` is the place
/// in the ring's table of buffers where the next request's pages go, for a device in zero-copy mode.
pub(crate) fn build(
    file: Handle,
    op: u32,
    queue: u16,
    tag: u16,
    result: i32,
    slot: Option<u16>,
) -> Command {
    debug_assert!(op == uapi::IO_FETCH_REQ || op == uapi::IO_COMMIT_AND_FETCH_REQ);
    let mut bytes = [0u8; 16];
    bytes[0..2].copy_from_slice(&queue.to_ne_bytes());
    bytes[2..4].copy_from_slice(&tag.to_ne_bytes());
    bytes[4..8].copy_from_slice(&result.to_ne_bytes());
    // `struct ublk_auto_buf_reg`: the slot, and the flag that asks for the request all the same where
    // its pages cannot be registered.
    let register = slot.map_or(0, |slot| {
        u64::from(slot) | u64::from(uapi::AUTO_BUF_REG_FALLBACK) << 16
    });
    // SAFETY: `struct ublksrv_io_cmd` ends in the only address the driver takes, and it stays zero:
    // with user copy and zero copy there is no buffer to name, and a device without them finds
    // nothing mapped there and fails the request. The entry's `addr` is a number for the driver
    // (`struct ublk_auto_buf_reg`), never an address.
    unsafe { Command::new(file, op, bytes, register) }
}
