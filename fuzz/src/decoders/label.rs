//! The PV label: raw, and with magic, version and checksum put right.

use super::{block, put};
use volmgr::label::{LABEL_BYTES, LABEL_MAGIC, LABEL_VERSION, Label};

/// One execution.
pub fn run(data: &[u8]) {
    let _ = Label::decode(data);
    let mut bytes: [u8; LABEL_BYTES] = block(data);
    let _ = Label::decode(&bytes);
    put(&mut bytes, 0, &LABEL_MAGIC);
    put(&mut bytes, 8, &LABEL_VERSION.to_le_bytes());
    put(&mut bytes, 12, &[0; 4]);
    let crc = crc32c::crc32c(&bytes);
    put(&mut bytes, 12, &crc.to_le_bytes());
    if let Ok(label) = Label::decode(&bytes) {
        assert_eq!(label.encode(), bytes);
        // What a label says of itself may be relied on.
        assert!(label.areas[0].end() <= label.data_start);
        assert!(label.areas[1].end() <= label.pv_size);
        label.extent_count(label.extent_size);
    }
}
