//! A control message: type, version and body of the fuzzer's choice under a good checksum.

use super::{Input, block, put};
use feedplex::wire::control::{CONTROL_HEADER_LEN, ControlHeader, Message};

/// One execution.
pub fn run(data: &[u8]) {
    if let Ok(header) = ControlHeader::decode(&block(data)) {
        assert!(header.body_len() <= 1 << 20);
        let _ = Message::decode(&header, data.get(CONTROL_HEADER_LEN..).unwrap_or_default());
    }
    let mut input = Input(data);
    let mut kind = input.array::<4>();
    // The highest bit of the type stretches the body: limits of lengths lie beyond what a fuzzer writes out.
    let stretched = kind[0] & 0x80 != 0;
    kind[0] &= 0x7f;
    if !stretched {
        return message(kind, input.0);
    }
    let at = usize::from(input.byte());
    let len = usize::from(input.u16()) % 8192;
    let (head, tail) = input.0.split_at(at.min(input.0.len()));
    message(kind, &[head, &vec![b'x'; len], tail].concat());
}

fn message(kind: [u8; 4], body: &[u8]) {
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
}
