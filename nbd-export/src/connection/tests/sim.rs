//! A driver with a disk in memory around the state machine, and a client that reads its answers.

use super::super::*;
use crate::wire::{CommandFlags, SIMPLE_REPLY_MAGIC, STRUCTURED_REPLY_MAGIC};
use crate::{Context, ExportInfo};
use blockio::{IoError, IoErrorKind};
use std::collections::HashMap;
use std::sync::LazyLock;

pub(super) const KIB: u32 = 1 << 10;
pub(super) const SIZE: usize = 4 << 20;
/// Reads and writes that touch this byte fail.
pub(super) const BAD: u64 = 1 << 20;

pub(super) fn negotiated(structured: bool) -> Negotiated {
    Negotiated {
        export: ExportInfo {
            name: "vg/lv".into(),
            description: String::new(),
            limits: Limits {
                size: SIZE as u64,
                logical_block: 512,
                physical_block: 4096,
                minimum_io: 0,
                optimal_io: 0,
                read_only: false,
                discard: true,
                fast_zero: true,
                rotational: false,
            },
            multi_conn: true,
            contexts: Vec::new(),
        },
        structured,
        contexts: [(1, "base:allocation"), (3, "qemu:dirty-bitmap:monday")]
            .map(|(id, name)| Context {
                id,
                name: name.into(),
            })
            .into_iter()
            .filter(|_| structured)
            .collect(),
        no_zeroes: true,
    }
}

pub(super) fn small() -> ConnectionConfig {
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
pub(super) fn pattern(at: usize) -> u8 {
    (at / 512 % 251) as u8
}

pub(super) static DISK: LazyLock<Vec<u8>> = LazyLock::new(|| (0..SIZE).map(pattern).collect());

pub(super) struct Sim {
    pub(super) connection: Connection,
    pub(super) config: ConnectionConfig,
    pub(super) disk: Vec<u8>,
    /// What the client has sent and nobody has taken.
    pub(super) input: Vec<u8>,
    pub(super) receiving: Option<(Token, u32)>,
    pub(super) at_device: Vec<Action>,
    pub(super) submitted: Vec<Action>,
    pub(super) buffers: HashMap<Token, Vec<u8>>,
    /// What the client gets.
    pub(super) output: Vec<u8>,
    pub(super) closed: Option<CloseReason>,
}

impl Sim {
    pub(super) fn new(structured: bool, config: ConnectionConfig) -> Self {
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

    pub(super) fn actions(&mut self) {
        while let Some(action) = self.connection.next_action() {
            let release = matches!(action, Action::Release { .. });
            assert!(release || self.closed.is_none(), "{action:?} after the end");
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
        }
        self.check_bounds();
    }

    pub(super) fn check_bounds(&self) {
        let (read, write) = self.connection.held_bytes();
        assert!(read <= self.config.max_read_bytes && write <= self.config.max_write_bytes);
        let held: usize = self.buffers.values().map(Vec::len).sum();
        assert!(held as u64 <= read + write, "{held} bytes in buffers");
        assert!(self.connection.requests.len() <= self.config.max_requests);
        let last = self.connection.last_replies;
        assert!(self.connection.requests.len() + last <= self.config.max_requests);
    }

    /// Gives the connection up to `step` bytes of input; false: it took none.
    pub(super) fn feed(&mut self, step: usize) -> bool {
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

    pub(super) fn complete(&mut self, index: usize) {
        match self.at_device.remove(index) {
            Action::QueryExtents { token, range, .. } => {
                let extents = [
                    vec![Extent::allocation(range, true, true)],
                    vec![Extent::changed(range, true)],
                ];
                self.connection.on_extents(token, Ok(&extents));
            }
            Action::Submit {
                token, op, range, ..
            } => {
                let at = range.start() as usize..range.end() as usize;
                let mut result = Ok(());
                match op {
                    Op::Read | Op::Write if range.contains(ByteRange::new(BAD, 1)) => {
                        if op == Op::Write {
                            assert!(self.buffers.remove(&token).is_some());
                        }
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

    pub(super) fn send(&mut self) -> bool {
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
    pub(super) fn settle(&mut self) {
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

pub(super) fn header(
    command: u16,
    flags: CommandFlags,
    cookie: u64,
    offset: u64,
    len: u32,
) -> Vec<u8> {
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

pub(super) fn request(command: u16, cookie: u64, offset: u64, len: u32) -> Vec<u8> {
    header(command, CommandFlags::empty(), cookie, offset, len)
}

pub(super) fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// Everything that was answered: by cookie, the error or the data (of a block status: the raw
/// chunk). `reads`: `(offset, length)` by cookie. A message that is cut off counts as no answer.
pub(super) fn answers(
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
                    // One after the other, a chunk for each context.
                    5 => {
                        let (states, _) = partial.entry(cookie).or_default();
                        states.extend_from_slice(body);
                        Ok(states.clone())
                    }
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
