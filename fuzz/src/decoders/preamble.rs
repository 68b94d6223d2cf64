//! The first bytes of a connection: raw, and with magic and checksum put right.

use super::{block, put};
use feedplex::wire::preamble::{MAGIC, PREAMBLE_LEN, Preamble};

/// One execution.
pub fn run(data: &[u8]) {
    Preamble::sniff(data);
    let mut bytes: [u8; PREAMBLE_LEN] = block(data);
    let _ = Preamble::decode(&bytes);
    put(&mut bytes, 0, &MAGIC);
    let crc = crc32c::crc32c(&bytes[..92]);
    put(&mut bytes, 92, &crc.to_be_bytes());
    if let Ok(preamble) = Preamble::decode(&bytes) {
        assert_eq!(preamble.encode(), bytes);
    }
}
