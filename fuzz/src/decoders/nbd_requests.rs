//! NBD's transmission: requests of the fuzzer's choice, completions and sends in an order of its choice; bounds are checked throughout.

use super::Input;
use blockio::{IoError, IoErrorKind, Limits, Op};
use nbd_export::{
    Action, Connection, ConnectionConfig, Context, ExportInfo, Extent, Negotiated, Outgoing, Token,
    Wants, wire,
};
use std::collections::BTreeMap;

const CONFIG: ConnectionConfig = ConnectionConfig {
    max_chunk: 64 << 10,
    max_range_chunk: 128 << 10,
    max_requests: 6,
    max_operations: 4,
    max_read_bytes: 192 << 10,
    max_write_bytes: 128 << 10,
    max_hold: 128 << 10,
    max_extents: 8,
};
const SIZE: u64 = 4 << 20;

/// What clients write: the longest payload in one piece.
static ZEROES: [u8; 64 << 10] = [0; 64 << 10];

fn negotiated(flags: u8) -> Negotiated {
    let context = |id, name: &str| Context {
        id,
        name: name.into(),
    };
    Negotiated {
        export: ExportInfo {
            name: "vg/lv".into(),
            description: String::new(),
            limits: Limits {
                size: SIZE,
                logical_block: 512,
                physical_block: 4096,
                minimum_io: 0,
                optimal_io: 0,
                read_only: flags & 2 != 0,
                discard: flags & 4 == 0,
                fast_zero: flags & 8 == 0,
                rotational: false,
            },
            multi_conn: true,
            contexts: Vec::new(),
        },
        structured: flags & 1 == 0,
        contexts: if flags & 1 == 0 {
            vec![
                context(wire::BASE_ALLOCATION_ID, wire::BASE_ALLOCATION),
                context(3, "qemu:dirty-bitmap:monday"),
            ]
        } else {
            Vec::new()
        },
        no_zeroes: true,
    }
}

/// The driver: what is held and under way.
struct Driver {
    connection: Connection,
    /// The payload that is awaited: whose, and how much is still to come.
    receiving: Option<(Token, u32)>,
    device: Vec<Action>,
    held: BTreeMap<Token, u64>,
    closed: bool,
}

impl Driver {
    fn actions(&mut self) {
        while let Some(action) = self.connection.next_action() {
            match action {
                Action::Receive { token, len } => {
                    assert!(self.receiving.replace((token, len)).is_none());
                    assert!(self.held.insert(token, u64::from(len)).is_none());
                }
                Action::Submit {
                    token, op, range, ..
                } => {
                    assert!(range.end() <= SIZE, "past the end of the device");
                    if op == Op::Read {
                        assert!(self.held.insert(token, range.len()).is_none());
                    }
                    self.device.push(action);
                }
                Action::QueryExtents { range, .. } => {
                    assert!(range.end() <= SIZE);
                    self.device.push(action);
                }
                Action::Release { token } => {
                    assert!(self.held.remove(&token).is_some(), "released twice");
                    self.receiving.take_if(|(receiving, _)| *receiving == token);
                }
                Action::Close { .. } => self.closed = true,
            }
        }
        let (read, write) = self.connection.held_bytes();
        assert!(read <= CONFIG.max_read_bytes && write <= CONFIG.max_write_bytes);
        assert!(self.held.values().sum::<u64>() <= read + write);
        assert!(self.device.len() <= CONFIG.max_operations + CONFIG.max_requests);
    }

    fn complete(&mut self, which: u8) {
        if self.device.is_empty() {
            return;
        }
        let at = usize::from(which >> 2) % self.device.len();
        let fails = which & 3 == 3;
        match self.device.swap_remove(at) {
            Action::Submit { token, op, .. } => {
                if op == Op::Write {
                    assert!(self.held.remove(&token).is_some());
                }
                let result = if fails {
                    Err(IoError::new(IoErrorKind::Medium))
                } else {
                    Ok(())
                };
                self.connection.on_complete(token, result);
            }
            Action::QueryExtents { token, range, .. } => {
                let extents = [
                    vec![Extent::allocation(range, which & 4 == 0, which & 8 == 0)],
                    vec![Extent::changed(range, true)],
                ];
                let result = if fails {
                    Err(IoError::new(IoErrorKind::Medium))
                } else {
                    Ok(&extents[..])
                };
                self.connection.on_extents(token, result);
            }
            _ => unreachable!("only these are kept"),
        }
        self.actions();
    }

    fn send(&mut self) {
        if let Some(Outgoing::Payload { token, .. }) = self.connection.next_send() {
            assert!(self.held.remove(&token).is_some());
            self.connection.on_payload_sent(token);
        }
        self.actions();
    }

    fn feed(&mut self, bytes: &mut &[u8]) {
        match self.connection.wants() {
            Wants::Bytes => {
                let taken = self.connection.on_bytes(bytes);
                assert!(taken <= bytes.len());
                *bytes = &bytes[taken..];
            }
            Wants::Payload => {
                let Some((token, left)) = &mut self.receiving else {
                    panic!("waits for a payload that it has not asked for");
                };
                let here = bytes.len().min(*left as usize);
                *bytes = &bytes[here..];
                *left -= here as u32;
                if *left == 0 {
                    let token = *token;
                    self.receiving = None;
                    self.connection.on_payload(token);
                }
            }
            Wants::Nothing | Wants::End => {}
        }
        self.actions();
    }
}

/// One execution.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let mut driver = Driver {
        connection: Connection::new(&negotiated(input.byte()), CONFIG),
        receiving: None,
        device: Vec::new(),
        held: BTreeMap::new(),
        closed: false,
    };
    for _ in 0..200 {
        if input.is_empty() || driver.closed {
            break;
        }
        match input.byte() % 8 {
            0 | 1 => {
                let mut request = Vec::with_capacity(28);
                request.extend_from_slice(&wire::REQUEST_MAGIC.to_be_bytes());
                request.extend_from_slice(&u16::from(input.byte() % 64).to_be_bytes());
                request.extend_from_slice(&u16::from(input.byte() % 10).to_be_bytes());
                request.extend_from_slice(&u64::from(input.byte()).to_be_bytes());
                let wild = input.byte();
                let offset = if wild == 255 {
                    input.u64()
                } else {
                    u64::from(input.u16() % 8448) * 512
                };
                request.extend_from_slice(&offset.to_be_bytes());
                let len = match wild {
                    254 => u32::MAX >> (input.byte() % 32),
                    253 => u32::from(input.u16()),
                    _ => u32::from(input.u16() % 1024) * 512,
                };
                request.extend_from_slice(&len.to_be_bytes());
                let mut rest = &request[..];
                for _ in 0..4 {
                    driver.feed(&mut rest);
                }
            }
            2 => {
                for _ in 0..usize::from(input.byte() % 64) {
                    let mut rest = &ZEROES[..4096];
                    driver.feed(&mut rest);
                    if driver.closed {
                        break;
                    }
                }
            }
            // A payload in one piece.
            3 => {
                let mut rest = &ZEROES[..];
                driver.feed(&mut rest);
            }
            4 => driver.complete(input.byte()),
            5 => driver.send(),
            6 => {
                let len = usize::from(input.byte());
                let mut rest = input.bytes(len);
                driver.feed(&mut rest);
            }
            _ => match input.byte() {
                250 => driver.connection.on_eof(),
                251 => driver.connection.on_broken(),
                252 => driver.connection.shutdown(),
                n => driver.complete(n),
            },
        }
        driver.actions();
    }
    driver.connection.on_broken();
    driver.actions();
    while !driver.device.is_empty() {
        driver.complete(0);
    }
    assert!(driver.closed || driver.connection.is_idle());
    assert!(
        driver.connection.is_idle() && driver.held.is_empty(),
        "something is left behind"
    );
}
