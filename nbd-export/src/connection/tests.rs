//! A whole client and a whole driver around the state machine: scripts, and hostile bytes.

use super::*;
use crate::ExportInfo;
use crate::wire::{CommandFlags, SIMPLE_REPLY_MAGIC, STRUCTURED_REPLY_MAGIC};
use blockio::{IoError, IoErrorKind};
use proptest::prelude::*;
use std::collections::HashMap;
use std::sync::LazyLock;

const KIB: u32 = 1 << 10;
const SIZE: usize = 4 << 20;
/// Reads that touch this byte fail.
const BAD: u64 = 1 << 20;

fn negotiated(structured: bool) -> Negotiated {
    Negotiated {
        export: ExportInfo {
            name: "vg/lv".into(),
            description: String::new(),
            limits: Limits {
                size: SIZE as u64,
                logical_block: 512,
                physical_block: 4096,
                optimal_io: 0,
                read_only: false,
                discard: true,
                fast_zero: true,
                rotational: false,
            },
            multi_conn: true,
        },
        structured,
        base_allocation: structured,
        no_zeroes: true,
    }
}

fn small() -> ConnectionConfig {
    ConnectionConfig {
        max_chunk: 64 * KIB,
        max_range_chunk: 128 * KIB,
        max_requests: 6,
        max_operations: 4,
        max_read_bytes: 192 << 10,
        max_write_bytes: 128 << 10,
        max_hold: 128 << 10,
        max_extents: 8,
    }
}

/// What the disk holds at first.
fn pattern(at: usize) -> u8 {
    (at / 512 % 251) as u8
}

static DISK: LazyLock<Vec<u8>> = LazyLock::new(|| (0..SIZE).map(pattern).collect());

struct Sim {
    connection: Connection,
    config: ConnectionConfig,
    disk: Vec<u8>,
    /// What the client has sent and nobody has taken.
    input: Vec<u8>,
    receiving: Option<(Token, u32)>,
    at_device: Vec<Action>,
    submitted: Vec<Action>,
    buffers: HashMap<Token, Vec<u8>>,
    /// What the client gets.
    output: Vec<u8>,
    closed: Option<CloseReason>,
}

impl Sim {
    fn new(structured: bool, config: ConnectionConfig) -> Self {
        Self {
            connection: Connection::new(&negotiated(structured), config),
            config,
            disk: DISK.clone(),
            input: Vec::new(),
            receiving: None,
            at_device: Vec::new(),
            submitted: Vec::new(),
            buffers: HashMap::new(),
            output: Vec::new(),
            closed: None,
        }
    }

    fn actions(&mut self) {
        while let Some(action) = self.connection.next_action() {
            assert!(self.closed.is_none(), "{action:?} after the end");
            match action {
                Action::Receive { token, len } => {
                    assert!(self.receiving.replace((token, len)).is_none());
                    assert!(self.buffers.insert(token, Vec::new()).is_none());
                }
                Action::Submit {
                    token, op, range, ..
                } => {
                    if op == Op::Read {
                        let buffer = vec![0; range.len() as usize];
                        assert!(self.buffers.insert(token, buffer).is_none());
                    }
                    self.at_device.push(action);
                    self.submitted.push(action);
                }
                Action::QueryExtents { .. } => self.at_device.push(action),
                Action::Release { token } => {
                    assert!(self.buffers.remove(&token).is_some(), "{token:?}");
                    self.receiving.take_if(|(receiving, _)| *receiving == token);
                }
                Action::Close { reason } => self.closed = Some(reason),
            }
            self.check_bounds();
        }
    }

    fn check_bounds(&self) {
        let (read, write) = self.connection.held_bytes();
        assert!(read <= self.config.max_read_bytes && write <= self.config.max_write_bytes);
        let held: usize = self.buffers.values().map(Vec::len).sum();
        assert!(held as u64 <= read + write, "{held} bytes in buffers");
        assert!(self.connection.requests.len() <= self.config.max_requests);
        let last = self.connection.last_replies;
        assert!(self.connection.requests.len() + last <= self.config.max_requests);
    }

    /// Gives the connection up to `step` bytes of input; false: it took none.
    fn feed(&mut self, step: usize) -> bool {
        self.actions();
        let here = self.input.len().min(step);
        let taken = match self.connection.wants() {
            Wants::Bytes => self.connection.on_bytes(&self.input[..here]),
            Wants::Payload => {
                let (token, len) = self.receiving.expect("an action said so");
                let buffer = self.buffers.get_mut(&token).unwrap();
                let here = here.min(len as usize - buffer.len());
                buffer.extend_from_slice(&self.input[..here]);
                if buffer.len() == len as usize {
                    self.receiving = None;
                    self.connection.on_payload(token);
                }
                here
            }
            Wants::Nothing | Wants::End => 0,
        };
        self.input.drain(..taken);
        self.actions();
        taken > 0
    }

    fn complete(&mut self, index: usize) {
        match self.at_device.remove(index) {
            Action::QueryExtents { token, range, .. } => {
                let extents = [Extent {
                    range,
                    hole: true,
                    zero: true,
                }];
                self.connection.on_extents(token, Ok(&extents));
            }
            Action::Submit {
                token, op, range, ..
            } => {
                let at = range.start() as usize..range.end() as usize;
                let mut result = Ok(());
                match op {
                    Op::Read if range.contains(ByteRange::new(BAD, 1)) => {
                        result = Err(IoError::new(IoErrorKind::Medium));
                    }
                    Op::Read => {
                        let buffer = self.buffers.get_mut(&token).unwrap();
                        buffer.copy_from_slice(&self.disk[at]);
                    }
                    // A write's buffer ends with its completion.
                    Op::Write => {
                        self.disk[at].copy_from_slice(&self.buffers.remove(&token).unwrap())
                    }
                    Op::WriteZeroes => self.disk[at].fill(0),
                    Op::Discard => result = Err(IoError::new(IoErrorKind::Unsupported)),
                    Op::Flush | Op::Prefetch => {}
                }
                self.connection.on_complete(token, result);
            }
            other => panic!("{other:?} is not at the device"),
        }
        self.actions();
    }

    fn send(&mut self) -> bool {
        let Some(outgoing) = self.connection.next_send() else {
            return false;
        };
        match outgoing {
            Outgoing::Header(header) => self.output.extend_from_slice(&header),
            Outgoing::Payload { token, len } => {
                let buffer = self.buffers.remove(&token).expect("a buffer");
                assert_eq!(buffer.len(), len as usize);
                self.output.extend_from_slice(&buffer);
                self.connection.on_payload_sent(token);
            }
        }
        self.actions();
        true
    }

    /// Everything, in order, until nothing moves.
    fn settle(&mut self) {
        loop {
            let mut moved = self.feed(usize::MAX);
            if !self.at_device.is_empty() {
                self.complete(0);
                moved = true;
            }
            if !(moved | self.send()) {
                return;
            }
        }
    }
}

fn header(command: u16, flags: CommandFlags, cookie: u64, offset: u64, len: u32) -> Vec<u8> {
    RequestHeader {
        flags,
        command,
        cookie,
        offset,
        len,
    }
    .encode()
    .to_vec()
}

fn request(command: u16, cookie: u64, offset: u64, len: u32) -> Vec<u8> {
    header(command, CommandFlags::empty(), cookie, offset, len)
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// Everything that was answered: by cookie, the error or the data (of a block status: the raw
/// chunk). `reads`: `(offset, length)` by cookie. A message that is cut off counts as no answer.
fn answers(
    mut output: &[u8],
    reads: &HashMap<u64, (u64, u32)>,
) -> HashMap<u64, Result<Vec<u8>, u32>> {
    let mut found = HashMap::new();
    let mut partial: HashMap<u64, (Vec<u8>, usize)> = HashMap::new();
    while output.len() >= 16 {
        let cookie = u64::from_be_bytes(output[8..16].try_into().unwrap());
        let mut done = true;
        let (len, answer) = match word(output, 0) {
            SIMPLE_REPLY_MAGIC => match (word(output, 4), reads.get(&cookie)) {
                (0, Some((_, len))) => {
                    let end = 16 + *len as usize;
                    let Some(data) = output.get(16..end) else {
                        break;
                    };
                    (end, Ok(data.to_vec()))
                }
                (0, None) => (16, Ok(Vec::new())),
                (error, _) => (16, Err(error)),
            },
            STRUCTURED_REPLY_MAGIC => {
                let end = 20 + word(output, 16) as usize;
                let Some(body) = output.get(20..end) else {
                    break;
                };
                done = output[5] & 1 == 1;
                let answer = match u16::from_be_bytes([output[6], output[7]]) {
                    1 => {
                        let (start, len) = reads[&cookie];
                        let at = u64::from_be_bytes(body[..8].try_into().unwrap()) - start;
                        let (data, count) = partial
                            .entry(cookie)
                            .or_insert_with(|| (vec![0; len as usize], 0));
                        data[at as usize..at as usize + body.len() - 8].copy_from_slice(&body[8..]);
                        *count += body.len() - 8;
                        assert!(!done || *count == len as usize, "all of the data, once");
                        Ok(data.clone())
                    }
                    5 => Ok(body.to_vec()),
                    _ => Err(word(body, 0)),
                };
                (end, answer)
            }
            other => panic!("{other:#x} is no reply"),
        };
        output = &output[len..];
        if done {
            assert!(found.insert(cookie, answer).is_none(), "answered twice");
        }
    }
    found
}

#[test]
fn a_write_and_a_read_have_the_documented_bytes() {
    let mut sim = Sim::new(false, ConnectionConfig::default());
    sim.input = request(cmd::WRITE, 0x11, 512, 512);
    sim.input.extend_from_slice(&[0xaa; 512]);
    sim.settle();
    assert_eq!(
        sim.output,
        [
            &[0x67, 0x44, 0x66, 0x98, 0, 0, 0, 0][..],
            &0x11u64.to_be_bytes()
        ]
        .concat()
    );
    assert_eq!(sim.disk[512..1024], [0xaa; 512]);
    sim.output.clear();
    sim.input = request(cmd::READ, 0x12, 512, 512);
    sim.settle();
    assert_eq!(word(&sim.output, 4), 0);
    assert_eq!(sim.output[16..], [0xaa; 512]);
    assert!(sim.connection.is_idle());
}

#[test]
fn flags_reach_the_device() {
    let mut sim = Sim::new(true, ConnectionConfig::default());
    let all = CommandFlags::FUA | CommandFlags::NO_HOLE | CommandFlags::FAST_ZERO;
    sim.input = header(cmd::WRITE_ZEROES, all, 1, 0, 4096);
    sim.input
        .extend(header(cmd::TRIM, CommandFlags::FUA, 2, 0, 4096));
    sim.input.extend(request(cmd::FLUSH, 3, 0, 0));
    sim.input.extend(request(cmd::CACHE, 4, 0, 4096));
    sim.settle();
    let seen: Vec<_> = sim
        .submitted
        .iter()
        .map(|action| match action {
            Action::Submit { op, flags, .. } => (*op, *flags),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        seen,
        [
            (
                Op::WriteZeroes,
                Flags::FUA | Flags::NO_UNMAP | Flags::FAST_ZERO
            ),
            (Op::Discard, Flags::FUA),
            (Op::Flush, Flags::empty()),
            (Op::Prefetch, Flags::empty()),
        ]
    );
    // A discard that the device does not know is no error.
    let answers = answers(&sim.output, &HashMap::new());
    assert!((1..=4).all(|cookie| answers[&cookie] == Ok(Vec::new())));
}

#[test]
fn a_refused_write_is_drained() {
    let mut sim = Sim::new(false, ConnectionConfig::default());
    sim.input = request(cmd::WRITE, 1, SIZE as u64, 4096);
    sim.input.extend(vec![0x25; 4096]);
    sim.input.extend(request(cmd::FLUSH, 2, 0, 0));
    sim.settle();
    let answers = answers(&sim.output, &HashMap::new());
    assert_eq!(answers[&1], Err(WireError::NoSpace as u32));
    assert_eq!(answers[&2], Ok(Vec::new()));
}

#[test]
fn disconnect_waits_for_what_was_asked_and_ignores_the_rest() {
    let mut sim = Sim::new(true, ConnectionConfig::default());
    sim.input = request(cmd::READ, 1, 0, 4096);
    sim.input.extend(request(cmd::DISC, 2, 0, 0));
    sim.input.extend(request(cmd::FLUSH, 3, 0, 0));
    sim.feed(usize::MAX);
    assert_eq!(sim.connection.wants(), Wants::End);
    sim.connection.on_eof();
    assert_eq!(sim.closed, None);
    sim.settle();
    assert_eq!(sim.closed, Some(CloseReason::Disconnect));
    let answers = answers(&sim.output, &HashMap::from([(1, (0, 4096))]));
    assert_eq!(answers.keys().collect::<Vec<_>>(), [&1]);
}

#[test]
fn shutdown_finishes_a_write_that_is_half_received() {
    let mut sim = Sim::new(false, ConnectionConfig::default());
    sim.input = request(cmd::WRITE, 1, 0, 4096);
    sim.feed(usize::MAX);
    sim.connection.shutdown();
    sim.actions();
    assert_eq!(sim.closed, None);
    sim.input = vec![1; 4096];
    sim.settle();
    assert_eq!(sim.closed, Some(CloseReason::Shutdown));
    assert_eq!(sim.output.len(), 16);
}

#[test]
fn nonsense_ends_the_connection_and_releases_buffers_as_they_come_back() {
    let mut sim = Sim::new(true, ConnectionConfig::default());
    sim.input = request(cmd::READ, 1, 0, 4096);
    sim.input.extend(request(cmd::READ, 2, 0, 4096));
    sim.input.extend([0; 28]);
    sim.feed(28 * 2);
    sim.complete(0);
    sim.feed(28);
    assert!(matches!(sim.closed, Some(CloseReason::Protocol(_))));
    assert!(!sim.connection.is_idle() && sim.buffers.len() == 1);
    sim.closed = None;
    sim.complete(0);
    assert!(sim.connection.is_idle() && sim.buffers.is_empty());
    assert_eq!(sim.output, []);
}

#[test]
fn a_client_that_takes_no_answers_is_held_back() {
    let config = small();
    let mut sim = Sim::new(true, config);
    for cookie in 0..100 {
        sim.input.extend(request(cmd::READ, cookie, 0, 64 * KIB));
    }
    loop {
        let moved = sim.feed(usize::MAX);
        if !sim.at_device.is_empty() {
            sim.complete(0);
        } else if !moved {
            break;
        }
    }
    assert_eq!(sim.connection.wants(), Wants::Nothing);
    assert_eq!(sim.connection.held_bytes().0, config.max_read_bytes);
    assert_eq!(sim.input.len(), (100 - config.max_requests) * 28);
    sim.settle();
    let reads = (0..100).map(|cookie| (cookie, (0, 64 * KIB))).collect();
    assert_eq!(answers(&sim.output, &reads).len(), 100);
}

#[test]
fn a_long_simple_read_streams_and_an_error_in_it_cuts_the_connection() {
    let mut sim = Sim::new(false, small());
    sim.input = request(cmd::READ, 1, 0, 2 << 20);
    sim.settle();
    // Everything before the bad piece has been sent, then the end.
    assert_eq!(sim.closed, Some(CloseReason::ReadFailed(WireError::Io)));
    assert_eq!(sim.output.len() as u64, 16 + BAD - 2 * 64 * 1024);
    assert!(sim.buffers.is_empty() && sim.connection.is_idle());
}

#[test]
fn a_short_simple_read_fails_in_good_order() {
    let mut sim = Sim::new(false, small());
    sim.input = request(cmd::READ, 1, BAD - 64 * 1024, 128 * KIB);
    sim.input.extend(request(cmd::READ, 2, 0, 512));
    sim.settle();
    let reads = HashMap::from([(1, (BAD - 64 * 1024, 128 * KIB)), (2, (0, 512))]);
    let answers = answers(&sim.output, &reads);
    assert_eq!(answers[&1], Err(WireError::Io as u32));
    assert!(answers[&2].is_ok());
    assert!(sim.buffers.is_empty() && sim.connection.is_idle());
}

#[test]
fn a_structured_read_names_the_piece_that_failed() {
    let mut sim = Sim::new(true, small());
    let start = BAD - 64 * 1024;
    sim.input = request(cmd::READ, 1, start, 128 * KIB);
    sim.settle();
    let tail = &sim.output[sim.output.len() - 34..];
    assert_eq!(tail[4..8], [0, 1, 0x80, 2], "done, error with offset");
    assert_eq!(tail[26..], BAD.to_be_bytes());
    // The good piece had been sent before.
    assert_eq!(sim.output.len(), 28 + 64 * 1024 + 34);
}

#[derive(Clone, Copy, Debug)]
struct Wish {
    command: u16,
    offset: u64,
    len: u32,
    flags: u16,
}

fn wish() -> impl Strategy<Value = Wish> {
    let len = prop_oneof![
        Just(512u32),
        Just(64 * KIB),
        (1u32..800).prop_map(|n| n * 512),
        0u32..9
    ];
    let flags = prop_oneof![8 => Just(0u16), 1 => 0u16..64];
    (0u16..10, 0u64..4100, len, flags).prop_map(|(command, block, len, flags)| Wish {
        // No DISC in the middle.
        command: if command == cmd::DISC { 77 } else { command },
        offset: block * 512,
        len,
        flags,
    })
}

/// Writes go to the upper half, each to a place of its own, so that what the disk holds in the
/// end does not depend on their order; reads and the rest stay in the lower.
fn place(wish: Wish, index: usize) -> Wish {
    let len = wish.len.min(128 * KIB);
    match wish.command {
        cmd::WRITE => Wish {
            offset: (SIZE / 2 + index * 128 * 1024) as u64,
            len,
            ..wish
        },
        cmd::WRITE_ZEROES => Wish {
            offset: (SIZE * 5 / 8 + index * 64 * 1024) as u64 + (1 << 20),
            len: wish.len.min(64 * KIB),
            ..wish
        },
        cmd::FLUSH => Wish {
            offset: 0,
            len: 0,
            ..wish
        },
        _ => wish,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// Whatever is asked, and however bytes, completions and sends interleave: each request is
    /// answered once and rightly, and nothing is left behind.
    #[test]
    fn every_request_is_answered_once(
        structured: bool,
        wishes in proptest::collection::vec(wish(), 1..9),
        schedule in proptest::collection::vec((0u8..3, any::<prop::sample::Index>(), 1usize..100_000), 0..200),
    ) {
        let mut sim = Sim::new(structured, small());
        let rules = Rules { max_chunk: 64 * KIB, ..sim.connection.rules };
        let mut reads = HashMap::new();
        let mut expected = HashMap::new();
        let mut disk = sim.disk.clone();
        for (index, wish) in wishes.iter().enumerate() {
            let wish = place(*wish, index);
            let cookie = index as u64;
            let head = RequestHeader {
                flags: CommandFlags::from_bits_retain(wish.flags),
                command: wish.command, cookie, offset: wish.offset, len: wish.len,
            };
            sim.input.extend_from_slice(&head.encode());
            if wish.command == cmd::READ {
                reads.insert(cookie, (wish.offset, wish.len));
            }
            let fill = vec![index as u8 + 1; wish.len as usize];
            if wish.command == cmd::WRITE {
                sim.input.extend_from_slice(&fill);
            }
            let at = wish.offset as usize..wish.offset as usize + wish.len as usize;
            let touches_bad = at.contains(&(BAD as usize));
            let answer = match rules.check(&head) {
                Err(error) => Err(error as u32),
                Ok(_) if wish.command == cmd::READ && touches_bad => Err(WireError::Io as u32),
                Ok(_) => Ok(match wish.command {
                    cmd::READ => disk[at].to_vec(),
                    cmd::WRITE => { disk[at].copy_from_slice(&fill); vec![] }
                    cmd::WRITE_ZEROES => { disk[at].fill(0); vec![] }
                    cmd::BLOCK_STATUS => [1u32, wish.len, 3].map(u32::to_be_bytes).concat(),
                    _ => vec![],
                }),
            };
            expected.insert(cookie, answer);
        }
        sim.input.extend(request(cmd::DISC, 0, 0, 0));
        for (what, index, step) in schedule {
            match what {
                0 => { sim.feed(step); }
                1 if !sim.at_device.is_empty() => sim.complete(index.index(sim.at_device.len())),
                _ => { sim.send(); }
            }
        }
        sim.settle();
        prop_assert!(sim.buffers.is_empty() && sim.at_device.is_empty());
        prop_assert!(sim.connection.is_idle());
        let found = answers(&sim.output, &reads);
        if let Some(CloseReason::ReadFailed(_)) = sim.closed {
            prop_assert!(!structured);
            for (cookie, answer) in found {
                prop_assert_eq!(Some(&answer), expected.get(&cookie));
            }
        } else {
            prop_assert_eq!(sim.closed, Some(CloseReason::Disconnect));
            prop_assert_eq!(&found, &expected);
            prop_assert!(sim.disk == disk, "the disk differs");
        }
    }

    /// Bytes that are almost requests: no panic, bounds held (the harness checks), buffers freed.
    #[test]
    fn hostile_bytes_never_panic(
        structured: bool,
        pieces in proptest::collection::vec(
            (wish(), any::<u64>(), proptest::collection::vec(any::<u8>(), 0..600), any::<bool>()), 0..12),
        flip in proptest::option::of((any::<prop::sample::Index>(), 0u8..8)),
        schedule in proptest::collection::vec((0u8..3, any::<prop::sample::Index>(), 1usize..5000), 0..60),
        broken: bool,
    ) {
        let mut sim = Sim::new(structured, small());
        for (wish, wild, garbage, is_wild) in pieces {
            let offset = if is_wild { wild } else { wish.offset };
            let len = if is_wild { wild as u32 } else { wish.len };
            let flags = CommandFlags::from_bits_retain(wish.flags);
            sim.input.extend(header(wish.command, flags, wild, offset, len));
            sim.input.extend(garbage);
        }
        if let Some((at, bit)) = flip && !sim.input.is_empty() {
            let at = at.index(sim.input.len());
            sim.input[at] ^= 1 << bit;
        }
        for (what, index, step) in schedule {
            match what {
                0 => { sim.feed(step); }
                1 if !sim.at_device.is_empty() => sim.complete(index.index(sim.at_device.len())),
                _ => { sim.send(); }
            }
        }
        if broken { sim.connection.on_broken() } else { sim.settle(); sim.connection.on_eof() }
        sim.actions();
        prop_assert!(sim.closed.take().is_some());
        while !sim.at_device.is_empty() {
            sim.complete(0);
        }
        prop_assert!(sim.connection.is_idle() && sim.buffers.is_empty());
    }
}
