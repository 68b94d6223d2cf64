//! The commands with which a queue's thread fetches and commits requests, as bytes for a
//! `uring_cmd` on the character device.

use crate::sys::uapi;
use blockio::IoError;

/// A command for the character device: operation code and command area.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoCommand {
    /// `cmd_op` of the submission entry.
    pub op: u32,
    /// The 16-byte command area.
    pub bytes: [u8; 16],
}

fn build(op: u32, queue: u16, tag: u16, result: i32) -> IoCommand {
    let mut bytes = [0u8; 16];
    bytes[0..2].copy_from_slice(&queue.to_ne_bytes());
    bytes[2..4].copy_from_slice(&tag.to_ne_bytes());
    bytes[4..8].copy_from_slice(&result.to_ne_bytes());
    // The address stays zero: with user copy there is no buffer to name.
    IoCommand { op, bytes }
}

/// Asks for the first request of `tag`.
pub fn fetch(queue: u16, tag: u16) -> IoCommand {
    build(uapi::IO_FETCH_REQ, queue, tag, 0)
}

/// Ends the request of `tag` and asks for the next. `Ok` carries the bytes done.
pub fn commit(queue: u16, tag: u16, result: Result<u32, IoError>) -> IoCommand {
    let result = match result {
        Ok(bytes) => i32::try_from(bytes).unwrap_or(i32::MAX),
        Err(e) => -e.errno(),
    };
    build(uapi::IO_COMMIT_AND_FETCH_REQ, queue, tag, result)
}

/// What a completed fetch or commit means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// A request is there.
    Request,
    /// The device is being stopped or quiesced: nothing will come for this tag.
    Aborted,
    /// The command itself failed with this errno.
    Failed(i32),
}

/// Reads the result of a fetch or commit command.
pub fn fetched(result: i32) -> Fetched {
    match result {
        0 => Fetched::Request,
        uapi::IO_RES_ABORT => Fetched::Aborted,
        r => Fetched::Failed(r.saturating_neg()),
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
        let c = commit(1, 2, Err(IoError::new(IoErrorKind::Medium)));
        assert_eq!(
            i32::from_ne_bytes([c.bytes[4], c.bytes[5], c.bytes[6], c.bytes[7]]),
            -libc::EIO
        );
    }

    #[test]
    fn payload_areas_do_not_overlap() {
        assert_eq!(payload_offset(0, 1) - payload_offset(0, 0), 32 << 20);
        assert!(payload_offset(1, 0) > payload_offset(0, u16::MAX));
    }

    #[test]
    fn results_are_classified() {
        assert_eq!(fetched(0), Fetched::Request);
        assert_eq!(fetched(-libc::ENODEV), Fetched::Aborted);
        assert_eq!(fetched(-libc::EINVAL), Fetched::Failed(libc::EINVAL));
    }
}
