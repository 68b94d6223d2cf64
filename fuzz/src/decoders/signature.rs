//! What is on a disk already: foreign superblocks and partition tables.

use super::{Input, put};
use std::cell::RefCell;
use volmgr::signature::{HEAD_BYTES, TAIL_BYTES, find};

thread_local! {
    /// The ends of a disk, all zeroes between two inputs: to make them anew would take longer than to look at them.
    static ENDS: RefCell<[Vec<u8>; 2]> = RefCell::new([vec![0; HEAD_BYTES], vec![0; TAIL_BYTES]]);
}

/// One execution.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let size = input.u64() >> (input.byte() % 64);
    ENDS.with_borrow_mut(|ends| look(input, ends, size));
    let _ = find(data, data, size);
}

fn look(mut input: Input, ends: &mut [Vec<u8>; 2], size: u64) {
    let len = HEAD_BYTES.min(usize::try_from(size).unwrap_or(HEAD_BYTES));
    let lens = [len, len.min(TAIL_BYTES)];
    let mut written = Vec::new();
    // Pieces at places, so that the fuzzer need not write 128 KiB to reach a superblock.
    while !input.is_empty() {
        let place = input.byte();
        let end = usize::from(place & 1);
        let at = usize::from(input.u16()) << (place >> 1 & 1);
        let len = usize::from(input.byte());
        let bytes = input.bytes(len);
        let room = &mut ends[end][..lens[end]];
        let at = at % room.len().max(1);
        let len = bytes.len().min(room.len() - at);
        put(room, at, &bytes[..len]);
        written.push((end, at, len));
    }
    let [head, tail] = ends;
    if let Some(found) = find(&head[..lens[0]], &tail[..lens[1]], size) {
        assert!(!found.name.is_empty() && found.offset < size);
    }
    for (end, at, len) in written {
        ends[end][at..at + len].fill(0);
    }
}
