//! The commands with which a queue's thread fetches and commits requests, for its io_uring.

use crate::CharDevice;
use crate::sys::command::build;
use crate::sys::uapi;
use blockio::IoError;
use ringio::BufMut;
use ringio::sys::Command;

/// Where the payload of a tag's next request is to be.
#[derive(Debug)]
pub enum Payload {
    /// In the kernel, to be copied by [`CharDevice::read_payload`] and `write_payload`.
    Copied,
    /// Its pages in this slot of the table of buffers of the ring that the command is given to; the
    /// request's commit must go to the same ring.
    Slot(u16),
    /// The kernel copies what a write brings into this memory before the command completes. It must
    /// have room for the device's largest request.
    Memory(BufMut),
}

/// Asks for the first request of `tag`.
pub fn fetch(device: &CharDevice, queue: u16, tag: u16, payload: Payload) -> Command {
    build(device, uapi::IO_FETCH_REQ, queue, tag, 0, payload)
}

/// Ends the request of `tag` and asks for the next, as [`fetch`] does. `Ok` carries the bytes done.
///
/// The kernel empties the request's slot first. Operations of the ring that use it and have been
/// submitted keep the pages until they are done, and the request open as long. Of memory it first
/// copies what a read gets.
pub fn commit(
    device: &CharDevice,
    queue: u16,
    tag: u16,
    payload: Payload,
    result: Result<u32, IoError>,
) -> Command {
    let op = uapi::IO_COMMIT_AND_FETCH_REQ;
    build(device, op, queue, tag, result_code(result), payload)
}

fn result_code(result: Result<u32, IoError>) -> i32 {
    match result {
        Ok(bytes) => i32::try_from(bytes).unwrap_or(i32::MAX),
        Err(e) => -e.errno(),
    }
}

/// What a completed fetch or commit means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// A request is there.
    Request,
    /// The device is being stopped or quiesced: nothing will come for this tag.
    Aborted,
    /// The command itself failed.
    Failed(IoError),
}

/// Reads the result of a fetch or commit command.
pub fn fetched(result: Result<u32, IoError>) -> Fetched {
    match result {
        Ok(_) => Fetched::Request,
        Err(error) if error.errno() == -uapi::IO_RES_ABORT => Fetched::Aborted,
        Err(error) => Fetched::Failed(error),
    }
}

/// Where on the character device the payload of a request is (user copy).
pub fn payload_offset(queue: u16, tag: u16) -> u64 {
    uapi::IO_BUF_OFFSET
        + (u64::from(queue) << (uapi::IO_BUF_BITS + uapi::TAG_BITS))
        + (u64::from(tag) << uapi::IO_BUF_BITS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use blockio::IoErrorKind;

    #[test]
    fn commit_carries_the_errno() {
        assert_eq!(
            result_code(Err(IoError::new(IoErrorKind::Medium))),
            -libc::EIO
        );
        assert_eq!(result_code(Ok(4096)), 4096);
    }

    #[test]
    fn payload_areas_do_not_overlap() {
        assert_eq!(payload_offset(0, 1) - payload_offset(0, 0), 32 << 20);
        assert!(payload_offset(1, 0) > payload_offset(0, u16::MAX));
    }

    #[test]
    fn results_are_classified() {
        let failed = IoError::from_errno(libc::EINVAL);
        assert_eq!(fetched(Ok(0)), Fetched::Request);
        assert_eq!(
            fetched(Err(IoError::from_errno(libc::ENODEV))),
            Fetched::Aborted
        );
        assert_eq!(fetched(Err(failed)), Fetched::Failed(failed));
    }
}
