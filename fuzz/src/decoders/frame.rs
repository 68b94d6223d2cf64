//! The header of a frame on a data stream: raw, and with magic and checksum put right.

use super::{block, put};
use feedplex::wire::frame::{FrameHeader, HEADER_LEN};

/// One execution.
pub fn run(data: &[u8]) {
    let mut bytes: [u8; HEADER_LEN] = block(data);
    let _ = FrameHeader::decode(&bytes);
    put(&mut bytes, 0, b"FPDX");
    let crc = crc32c::crc32c(&bytes[..36]);
    put(&mut bytes, 36, &crc.to_be_bytes());
    if let Ok(frame) = FrameHeader::decode(&bytes) {
        assert_eq!(frame.encode(), bytes);
        // A receiver makes room for this and computes with it.
        assert!(frame.payload_len() <= 32 << 20);
        assert!(frame.offset.checked_add(frame.length).is_some());
    }
}
