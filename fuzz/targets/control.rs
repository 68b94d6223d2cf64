//! A control message: type, version and body of the fuzzer's choice under a good checksum.
#![no_main]

use feedplex::wire::control::{CONTROL_HEADER_LEN, ControlHeader, Message};
use libfuzzer_sys::fuzz_target;
use volmgr_fuzz::{Input, block, put};

fuzz_target!(|data: &[u8]| {
    if let Ok(header) = ControlHeader::decode(&block(data)) {
        assert!(header.body_len() <= 1 << 20);
        let _ = Message::decode(&header, data.get(CONTROL_HEADER_LEN..).unwrap_or_default());
    }
    let mut input = Input(data);
    let kind = input.array::<4>();
    let body = input.0;
    let mut bytes = [0; CONTROL_HEADER_LEN];
    let Ok(length) = u32::try_from(body.len()) else {
        return;
    };
    put(&mut bytes, 0, &length.to_be_bytes());
    put(&mut bytes, 4, &kind);
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..8]), body);
    put(&mut bytes, 8, &crc.to_be_bytes());
    let Ok(header) = ControlHeader::decode(&bytes) else {
        return;
    };
    if let Ok(message) = Message::decode(&header, body) {
        let again = message.encode().expect("was decoded");
        assert_eq!(&again[CONTROL_HEADER_LEN..], body, "{message:?}");
    }
});
