//! A metadata record: raw, and with its checksums put right.

use super::put;
use volmgr::metadata::{HEADER_BYTES, RECORD_MAGIC, RECORD_VERSION, RecordHeader};

/// One execution.
pub fn run(data: &[u8]) {
    if let Ok(header) = RecordHeader::decode(data) {
        let _ = header.payload(data);
    }
    let mut bytes = data.to_vec();
    bytes.resize(bytes.len().max(HEADER_BYTES), 0);
    put(&mut bytes, 0, &RECORD_MAGIC);
    put(&mut bytes, 8, &RECORD_VERSION.to_le_bytes());
    // Where the length fits, the payload's checksum does.
    let len = u64::from_le_bytes(super::block(&bytes[72..80]));
    let payload = usize::try_from(len)
        .ok()
        .and_then(|len| bytes.get(HEADER_BYTES..HEADER_BYTES.checked_add(len)?));
    if let Some(crc) = payload.map(crc32c::crc32c) {
        put(&mut bytes, 80, &crc.to_le_bytes());
    }
    let crc = crc32c::crc32c(&bytes[..124]);
    put(&mut bytes, 124, &crc.to_le_bytes());
    if let Ok(header) = RecordHeader::decode(&bytes) {
        header.record_len();
        if let Ok(payload) = header.payload(&bytes) {
            let again = header.encode(payload);
            assert_eq!(RecordHeader::decode(&again).as_ref(), Ok(&header));
        }
    }
}
