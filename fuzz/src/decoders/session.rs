//! A feed's session against a peer that says anything at any time, on both sides and in both roles.
//!
//! The driver behaves; commits, flushes and admins come when the fuzzer wants them. What is checked: no
//! panic, states follow each other as documented, nothing after the end, and a sink never commits that it is
//! consistent before a flush has made it so.

use super::{Input, put};
use feedplex::generation::{Intent, Role};
use feedplex::session::{
    Action, Event, FeedState, FreshIds, LocalFeed, MapChange, RecordChange, Rights, Session,
    SessionConfig,
};
use feedplex::wire::control::{
    Ack, Bitmap, CONTROL_HEADER_LEN, ControlHeader, Handshake, Message, RefusalCode, Refused,
};
use feedplex::wire::preamble::Token;
use std::collections::VecDeque;
use uuid::Uuid;

const fn id(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

/// A name of one byte, so that the fuzzer hits those in use.
fn name(input: &mut Input) -> Uuid {
    id(u128::from(input.byte() % 32))
}

fn handshake(input: &mut Input, role: Role) -> Handshake {
    let bits = input.u16();
    let bit = |n: u32| bits >> n & 1 == 1;
    Handshake {
        feed: id(1),
        target: "vgb/web".into(),
        create: bit(0),
        volume: name(input),
        name: "vga/web".into(),
        size: if bit(1) { 1 << 20 } else { input.u64() },
        region_size: if bit(2) { 65536 } else { input.u64() },
        role,
        role_epoch: u64::from(input.byte() % 4),
        swap: bit(3),
        online: bit(4),
        sync_mode: bit(5),
        block: bit(14),
        intent: match input.byte() % 8 {
            0 => Intent::Paused,
            1 => Intent::Detaching {
                point: name(input),
                name: "p".into(),
            },
            2 => Intent::Split { point: name(input) },
            _ => Intent::Attached,
        },
        known: bit(6),
        fresh: bit(7),
        seeded: bit(8),
        consistent: bit(9),
        dirty: bit(10),
        stamp: u64::from(input.byte() % 4),
        seen: u64::from(input.byte() % 4),
        discard_peer: bit(11),
        discard_local: bit(12),
        epochs: if bit(13) { vec![id(5)] } else { Vec::new() },
        generation: name(input),
        history: vec![name(input)],
    }
}

fn local(input: &mut Input, role: Role) -> LocalFeed {
    let mut facts = handshake(input, role);
    // What is on this side's disks is sound.
    facts.size = 1 << 20;
    facts.region_size = 65536;
    let rights = input.byte();
    LocalFeed {
        facts,
        rights: Rights {
            feed: rights & 1 == 0,
            read: rights & 2 == 0,
        },
        dirty_bytes: 0,
        restoring: rights & 28 == 28,
    }
}

/// A message of the fuzzer's words, as it would come off the wire.
fn decoded(input: &mut Input) -> Option<Message> {
    let kind = u16::from(input.byte() % 30);
    let version: u16 = match kind {
        1 => 2,
        2 => 3,
        _ => 1,
    };
    let len = usize::from(input.byte());
    let body = input.bytes(len);
    let mut bytes = [0; CONTROL_HEADER_LEN];
    put(&mut bytes, 0, &(body.len() as u32).to_be_bytes());
    put(&mut bytes, 4, &kind.to_be_bytes());
    put(&mut bytes, 6, &version.to_be_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..8]), body);
    put(&mut bytes, 8, &crc.to_be_bytes());
    Message::decode(&ControlHeader::decode(&bytes).ok()?, body).ok()
}

struct Driver {
    session: Session,
    /// What the driver owes the session.
    answers: VecDeque<Event>,
    open: bool,
    closed: bool,
    flushed: bool,
    now: u64,
}

impl Driver {
    fn handle(&mut self, event: Event) {
        let before = self.session.state();
        let actions = self.session.handle(event, self.now);
        assert!(
            !self.closed || actions.is_empty(),
            "after the end: {actions:?}"
        );
        self.carry_out(actions, before);
    }

    fn carry_out(&mut self, actions: Vec<Action>, mut state: FeedState) {
        assert!(actions.len() < 64, "{} actions", actions.len());
        for action in actions {
            assert!(!self.closed, "after the end: {action:?}");
            match action {
                Action::Commit { id, change } => {
                    self.check(&change);
                    self.answers.push_back(Event::Committed(id));
                }
                Action::Open(_) => self.open = true,
                Action::ExportMap => self.answers.push_back(Event::MapEnd),
                Action::OpenStreams { .. } => self.answers.push_back(Event::StreamsUp),
                Action::Flush { flush, .. } => {
                    self.answers.push_back(Event::Flushed { flush, ok: true })
                }
                Action::Report { state: next, .. } => {
                    assert!(
                        state == next || FeedState::is_valid(state, next),
                        "{state:?} to {next:?}"
                    );
                    state = next;
                }
                Action::Close(_) => self.closed = true,
                Action::Send(message) => {
                    message.encode().expect("what is sent can be encoded");
                }
                _ => {}
            }
        }
    }

    fn check(&self, change: &RecordChange) {
        match change {
            RecordChange::Consistent { .. } => assert!(self.flushed, "consistent without a flush"),
            RecordChange::Session {
                map: MapChange::Clear,
                role,
                ..
            } => assert_eq!(*role, Role::Sink),
            _ => {}
        }
    }
}

/// One execution.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let flags = input.byte();
    let role = if flags & 1 == 0 {
        Role::Source
    } else {
        Role::Sink
    };
    let config = SessionConfig {
        node: id(100),
        name: "here".into(),
        fingerprint: "SHA256:00".into(),
        run: id(105),
        fresh: FreshIds {
            epoch: id(101),
            session: id(102),
            token: Token([7; 32]),
            generations: [id(103), id(104)],
        },
        streams: 2,
        wall_time: 1,
    };
    let mut driver = Driver {
        session: Session::acceptor(config.clone(), 0),
        answers: VecDeque::new(),
        open: false,
        closed: false,
        flushed: false,
        now: 0,
    };
    if flags & 2 == 0 {
        let (session, actions) = Session::initiator(config, local(&mut input, role), 0);
        driver.session = session;
        driver.carry_out(actions, FeedState::Connecting);
    }
    // A peer that begins as it should, unless the fuzzer wants it otherwise.
    if flags & 4 == 0 {
        driver.handle(Event::Message(Message::Hello(
            feedplex::wire::control::Hello {
                version_min: 1,
                version_max: 9,
                features: u64::MAX,
                node: id(200),
                name: "there".into(),
                fingerprint: "SHA256:01".into(),
                run: id(201),
            },
        )));
        if flags & 8 == 0 {
            let theirs = if flags & 16 == 0 { role.other() } else { role };
            let theirs = handshake(&mut input, theirs);
            driver.handle(Event::Message(Message::Handshake(theirs)));
        }
    }
    for _ in 0..64 {
        if input.is_empty() || driver.closed {
            break;
        }
        driver.now += u64::from(input.byte()) * 4;
        let event = match input.byte() % 24 {
            0..8 => match decoded(&mut input) {
                Some(message) => Event::Message(message),
                None => continue,
            },
            8..14 => match driver.answers.pop_front() {
                Some(Event::Flushed { flush, .. }) => {
                    let ok = input.byte() & 7 != 7;
                    driver.flushed |= ok;
                    Event::Flushed { flush, ok }
                }
                Some(Event::Committed(id)) if input.byte() == 255 => {
                    Event::CommitFailed(id, "no".into())
                }
                Some(event) => event,
                None => continue,
            },
            14 if driver.open => {
                driver.open = false;
                if input.byte() == 255 {
                    Event::OpenRefused(Refused {
                        code: RefusalCode::NoVolume,
                        text: "no".into(),
                    })
                } else {
                    // An acceptor takes the role that the initiator leaves.
                    Event::Opened(Box::new(local(&mut input, role)))
                }
            }
            15 => Event::Tick,
            16 => Event::Detach {
                point: name(&mut input),
                name: "p".into(),
                time: 1,
            },
            17 => Event::Swap {
                point: name(&mut input),
                name: "p".into(),
                time: 1,
            },
            18 => Event::AskSwap,
            19 if driver.session.role() == Some(Role::Source) => match input.byte() % 3 {
                0 => Event::CaughtUp {
                    live_sequence: u64::from(input.byte()),
                },
                1 => Event::Behind,
                _ => Event::MarkFailed {
                    point: name(&mut input),
                },
            },
            20 if driver.session.role() == Some(Role::Sink) => match input.byte() % 2 {
                0 => Event::MarkReached {
                    point: name(&mut input),
                },
                _ => Event::Progress(Ack {
                    stream: 0,
                    applied: 2,
                    durable: 1,
                }),
            },
            21 if driver.session.role() == Some(Role::Sink) => Event::MapChunk(Bitmap {
                first_region: 0,
                bits: vec![input.byte(); 2],
            }),
            22 => match input.byte() {
                0 => Event::Disconnected,
                1 => Event::Stop,
                2 => Event::Pause,
                _ => continue,
            },
            _ => continue,
        };
        driver.handle(event);
    }
}
