//! A queue's command for the ring.

use super::uapi;
use crate::CharDevice;
use crate::command::Payload;
use ringio::sys::Command;

/// Fetch or commit for `tag` of `queue`; `result` is the request's, for a commit.
///
/// # Panics
/// Where memory is given that has no room for the device's largest request.
pub(crate) fn build(
    device: &CharDevice,
    op: u32,
    queue: u16,
    tag: u16,
    result: i32,
    payload: Payload,
) -> Command {
    debug_assert!(op == uapi::IO_FETCH_REQ || op == uapi::IO_COMMIT_AND_FETCH_REQ);
    let mut bytes = [0u8; 16];
    bytes[0..2].copy_from_slice(&queue.to_ne_bytes());
    bytes[2..4].copy_from_slice(&tag.to_ne_bytes());
    bytes[4..8].copy_from_slice(&result.to_ne_bytes());
    let file = device.handle();
    // `struct ublk_auto_buf_reg`: the slot, and the flag that asks for the request all the same where
    // its pages cannot be registered.
    let register = match payload {
        Payload::Copied => 0,
        Payload::Slot(slot) => u64::from(slot) | u64::from(uapi::AUTO_BUF_REG_FALLBACK) << 16,
        Payload::Memory(memory) => {
            assert!(
                memory.len() >= device.max_io() as usize,
                "memory for a request of any size"
            );
            // SAFETY: the driver copies one request there or from there, which has `max_io` bytes at
            // most (it was made with that limit, and the assertion holds the memory to it), and only
            // while it owns the tag: from the submission of this command to its completion. The
            // other fields of `struct ublksrv_io_cmd` are numbers.
            return unsafe { Command::with_memory(file, op, bytes, memory) };
        }
    };
    // SAFETY: `struct ublksrv_io_cmd` ends in the only address the driver takes, and it stays zero:
    // with user copy and zero copy there is no buffer to name, and a device without them refuses the
    // command. The entry's `addr` is a number for the driver (`struct ublk_auto_buf_reg`), never an
    // address.
    unsafe { Command::new(file, op, bytes, register) }
}
