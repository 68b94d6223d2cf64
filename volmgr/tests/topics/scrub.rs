//! Plexes that silently differ: compared, and made equal to the one that is believed.

use super::*;
use proptest::prelude::*;
use std::collections::HashMap;
use volmgr::scrub::{Word, believed, classes};

fn request(ticket: u64, start: u64, len: u64) -> Request {
    Request {
        ticket: Ticket::new(ticket),
        op: Op::Write,
        range: ByteRange::new(start, len),
        flags: Flags::empty(),
        payload: Some(PayloadId(ticket)),
        origin: Origin::Internal,
    }
}

#[test]
fn writes_wait_for_a_rewrite_and_what_it_writes_is_what_was_read() {
    let mut lane = Lane::new(layout(3, &[]));
    let others = vec![PlexId(0), PlexId(2)];
    lane.engine
        .rewrite(request(1, UNIT, UNIT), PlexId(1), others, &mut lane.out);
    let write = lane.ask(Op::Write, UNIT, 512);
    lane.logged();
    let reads = lane.disk(DiskOp::Read);
    assert_eq!(reads.len(), 1);
    assert_eq!(reads[0].at, at(1, UNIT, UNIT));
    assert!(lane.disk(DiskOp::Write).is_empty());
    lane.good(reads[0].io);
    let writes = lane.disk(DiskOp::Write);
    let places: Vec<_> = writes.iter().map(|io| io.at).collect();
    assert_eq!(places, [at(0, UNIT, UNIT), at(2, UNIT, UNIT)]);
    assert!(
        writes
            .iter()
            .all(|io| io.payload.map(|p| p.id) == Some(PayloadId(1)))
    );
    lane.good(writes[0].io);
    assert_eq!(lane.result(1), None);
    lane.good(writes[1].io);
    assert_eq!(lane.result(1), Some(Ok(())));
    lane.logged();
    assert_eq!(lane.disk(DiskOp::Write).len(), 3, "the write goes on");
    assert_eq!(lane.result(write), None);
    finish(lane);
}

#[test]
fn what_cannot_be_read_from_the_believed_plex_is_not_written() {
    let mut lane = Lane::new(layout(2, &[]));
    lane.engine.rewrite(
        request(1, 0, UNIT),
        PlexId(0),
        vec![PlexId(1)],
        &mut lane.out,
    );
    let reads = lane.disk(DiskOp::Read);
    lane.answer(reads[0].io, medium());
    assert_eq!(lane.result(1), Some(medium()));
    assert!(lane.disk(DiskOp::Read).is_empty(), "nobody else is asked");
    assert!(lane.disk(DiskOp::Write).is_empty());
    finish(lane);
}

#[test]
fn a_plex_out_of_service_is_neither_believed_nor_written() {
    let mut stale = layout(3, &[]);
    stale.plexes[2].state = PlexState::Offline;
    let mut lane = Lane::new(stale);
    let gone = Err(IoError::new(IoErrorKind::Gone));
    lane.engine.rewrite(
        request(1, 0, UNIT),
        PlexId(2),
        vec![PlexId(0)],
        &mut lane.out,
    );
    assert_eq!(lane.result(1), Some(gone));
    lane.engine.rewrite(
        request(2, 0, UNIT),
        PlexId(0),
        vec![PlexId(2)],
        &mut lane.out,
    );
    assert_eq!(lane.result(2), Some(gone));
    let invalid = Err(IoError::new(IoErrorKind::Invalid));
    for targets in [vec![], vec![PlexId(0)]] {
        lane.engine
            .rewrite(request(3, 0, UNIT), PlexId(0), targets, &mut lane.out);
        assert_eq!(lane.result(3), Some(invalid));
        lane.done.clear();
    }
    assert!(lane.disk(DiskOp::Read).is_empty() && lane.disk(DiskOp::Write).is_empty());
}

/// A disk that fails the rewrite holds neither the old nor the new: the plex misses that range.
#[test]
fn a_rewrite_that_fails_is_missing_there() {
    let mut lane = Lane::new(layout(2, &[]));
    lane.engine.rewrite(
        request(1, 0, UNIT),
        PlexId(0),
        vec![PlexId(1)],
        &mut lane.out,
    );
    let reads = lane.disk(DiskOp::Read);
    lane.good(reads[0].io);
    let writes = lane.disk(DiskOp::Write);
    lane.answer(writes[0].io, medium());
    assert_eq!(lane.result(1), Some(medium()));
    assert_eq!(lane.engine.plex_state(PlexId(1)), Some(PlexState::Failed));
    assert_eq!(lane.engine.plex_dirty_bytes(PlexId(1)), UNIT);
    finish(lane);
}

/// Three disks in memory, one byte a block of 512 bytes.
struct Memory {
    lane: Lane,
    disks: Vec<Vec<u8>>,
    payloads: HashMap<u64, Vec<u8>>,
    /// What clients wrote: the truth.
    truth: Vec<u8>,
}

const BLOCK: u64 = 512;

fn blocks(range: ByteRange) -> std::ops::Range<usize> {
    (range.start() / BLOCK) as usize..(range.end() / BLOCK) as usize
}

impl Memory {
    fn new() -> Self {
        Self {
            lane: Lane::new(layout(3, &[])),
            disks: vec![vec![0; (SIZE / BLOCK) as usize]; 3],
            payloads: HashMap::new(),
            truth: vec![0; (SIZE / BLOCK) as usize],
        }
    }

    fn write(&mut self, block: u64, len: u64, value: u8) {
        let len = len.min(SIZE / BLOCK - block);
        let token = self.lane.ask(Op::Write, block * BLOCK, len * BLOCK);
        self.payloads.insert(token, vec![value; len as usize]);
        // Writes that overlap go in the order in which they came.
        self.truth[blocks(ByteRange::new(block * BLOCK, len * BLOCK))].fill(value);
    }

    /// One of the things under way happens.
    fn step(&mut self, choice: usize) -> bool {
        let under_way = |a: &Action| matches!(a, Action::Disk(_) | Action::Log(_));
        let ready: Vec<usize> = (0..self.lane.out.len())
            .filter(|i| under_way(&self.lane.out[*i]))
            .collect();
        if ready.is_empty() {
            return false;
        }
        match self.lane.out.remove(ready[choice % ready.len()]) {
            Action::Log(io) => self.lane.good(io.io),
            Action::Disk(io) => {
                let disk = &mut self.disks[io.at.disk.0 as usize];
                let range = blocks(io.at.range);
                if let Some(payload) = io.payload {
                    let skip = (payload.skip / BLOCK) as usize;
                    let bytes = self.payloads.get_mut(&payload.id.0).expect("its payload");
                    let part = &mut bytes[skip..skip + range.len()];
                    match io.op {
                        DiskOp::Read => part.copy_from_slice(&disk[range]),
                        _ => disk[range].copy_from_slice(part),
                    }
                }
                self.lane.good(io.io);
            }
            other => panic!("{other:?}"),
        }
        true
    }

    /// Compares a region and has it repaired by majority, as the verb does.
    fn scrub(&mut self, ticket: u64, region: u64, choices: &mut impl FnMut() -> usize) {
        let range = ByteRange::new(region * UNIT, UNIT);
        let count = blocks(range).len();
        self.payloads.insert(ticket, vec![0; 3 * count]);
        let all: Vec<PlexId> = (0..3).map(PlexId).collect();
        let mut read = request(ticket, range.start(), range.len());
        read.op = Op::Read;
        self.lane.engine.read_plexes(read, all, &mut self.lane.out);
        while self.lane.result(ticket).is_none() {
            assert!(self.step(choices()), "a comparison that does not end");
        }
        let bytes = self.payloads.remove(&ticket).expect("its payload");
        for block in 0..count {
            let copies: Vec<&[u8]> = (0..3)
                .map(|plex| &bytes[plex * count + block..][..1])
                .collect();
            let classes = classes(&copies);
            let Some(best) = believed(&classes, Word::Majority) else {
                panic!("one plex alone was damaged");
            };
            let targets: Vec<PlexId> = (0..3)
                .filter(|i| classes[*i] != classes[best])
                .map(|i| PlexId(i as u32))
                .collect();
            if targets.is_empty() {
                continue;
            }
            let ticket = ticket + 1 + block as u64;
            let start = range.start() + block as u64 * BLOCK;
            self.payloads.insert(ticket, vec![0; 1]);
            let request = request(ticket, start, BLOCK);
            let source = PlexId(best as u32);
            self.lane
                .engine
                .rewrite(request, source, targets, &mut self.lane.out);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Blocks rot on any one plex each, while clients write all the time and everything ends in any order: after a scrub all
    /// plexes have what the clients wrote.
    #[test]
    fn what_rots_on_one_plex_is_mended_under_load(
        rot in prop::collection::vec((0u64..512, 0usize..3), 0..20),
        writes in prop::collection::vec((0u64..512, 1u64..20), 0..80),
        choices in prop::collection::vec(any::<u16>(), 1..200),
    ) {
        let mut memory = Memory::new();
        let mut turn = 0;
        let mut choice = move || {
            turn += 1;
            usize::from(choices[turn % choices.len()])
        };
        for (n, (block, len)) in writes.iter().take(20).enumerate() {
            memory.write(*block, *len, n as u8 + 1);
        }
        while memory.step(choice()) {}
        let mut rotten = std::collections::HashSet::new();
        for (block, plex) in &rot {
            // On two plexes it would be a majority, or none.
            if rotten.insert(*block) { memory.disks[*plex][*block as usize] = 0xff; }
        }
        let mut writes = writes.iter().enumerate().skip(20);
        for region in 0..SIZE / UNIT {
            if let Some((n, (block, len))) = writes.next() {
                memory.write(*block, *len, n as u8 + 1);
            }
            memory.scrub(10_000 + region * 100, region, &mut choice);
        }
        while memory.step(choice()) {}
        memory.lane.result(0);
        for disk in &memory.disks { prop_assert_eq!(disk, &memory.truth); }
        finish(memory.lane);
    }
}
