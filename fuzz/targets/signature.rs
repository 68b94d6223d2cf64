//! What is on a disk already: foreign superblocks and partition tables.
#![no_main]

use libfuzzer_sys::fuzz_target;
use volmgr::signature::{HEAD_BYTES, TAIL_BYTES, find};
use volmgr_fuzz::{Input, put};

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let size = input.u64() >> (input.byte() % 64);
    // Pieces at places, so that the fuzzer need not write 128 KiB to reach a superblock.
    let mut head = vec![0; HEAD_BYTES.min(usize::try_from(size).unwrap_or(HEAD_BYTES))];
    let mut tail = vec![0; TAIL_BYTES.min(head.len())];
    while !input.is_empty() {
        let place = input.byte();
        let at = usize::from(input.u16()) * if place & 2 == 0 { 1 } else { 2 };
        let len = usize::from(input.byte());
        let bytes = input.bytes(len);
        let target = if place & 1 == 0 { &mut head } else { &mut tail };
        let at = at % target.len().max(1);
        let len = bytes.len().min(target.len() - at.min(target.len()));
        put(target, at, &bytes[..len]);
    }
    if let Some(found) = find(&head, &tail, size) {
        assert!(!found.name.is_empty());
    }
    let _ = find(data, data, size);
});
