//! The common part of both roles: handshake, commits, clock, end.

use super::FeedState;
use super::api::*;
use super::decide::{Decision, decide};
use super::sink::Sink;
use super::source::Source;
use crate::generation::{Intent, Role};
use crate::wire::control::{
    Empty, FEATURE_STREAM_ACKS, Handshake, Hello, Message, Nonce, PROTOCOL_VERSION, RefusalCode,
    Refused,
};
use std::collections::VecDeque;

/// A side that has sent nothing for so long sends a keepalive; milliseconds.
pub const KEEPALIVE_EVERY_MS: u64 = 5_000;

/// A peer that has sent nothing for so long is dead; milliseconds.
pub const DEAD_AFTER_MS: u64 = 15_000;

/// A feed that fell behind is tried again after so long; milliseconds.
pub const RESUME_AFTER_MS: u64 = 500;

/// What a commit that succeeded leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum After {
    Accepted,
    Confirmed,
    SyncReady(u64),
    Consistent(u64),
    SinkSplit,
    SourceSession,
    Nothing,
    Detaching,
    SourceSplit,
    Swapped,
    Paused,
}

/// Where the connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The peer's hello is awaited.
    Hello,
    /// The peer's handshake is awaited.
    Handshake,
    /// Acceptor: the driver looks for the volume.
    Open,
    /// Roles are known; the role's own part goes on.
    Decided,
    /// Closed.
    Closed,
}

/// The role's own part.
#[derive(Clone, Debug)]
pub(super) enum Part {
    Undecided,
    Source(Box<Source>),
    Sink(Box<Sink>),
}

/// What both roles need.
#[derive(Clone, Debug)]
pub(super) struct Core {
    pub config: SessionConfig,
    pub initiator: bool,
    pub phase: Phase,
    pub state: FeedState,
    pub local: Option<LocalFeed>,
    pub peer: Option<Handshake>,
    /// The peer's capabilities, of its hello.
    pub peer_features: u64,
    pub now_ms: u64,
    sent_ms: u64,
    received_ms: u64,
    nonce: u64,
    next_commit: u64,
    commits: VecDeque<(CommitId, RecordChange, After)>,
    committing: bool,
    pub out: Vec<Action>,
}

/// One control connection of one feed.
#[derive(Clone, Debug)]
pub struct Session {
    core: Core,
    part: Part,
}

impl Session {
    /// The side that connected, and what it wants.
    pub fn initiator(config: SessionConfig, local: LocalFeed, now_ms: u64) -> (Self, Vec<Action>) {
        let mut session = Self::new(config, Some(local), now_ms);
        let hello = session.core.hello();
        session.core.send(hello);
        let actions = std::mem::take(&mut session.core.out);
        (session, actions)
    }

    /// The side that was connected to.
    pub fn acceptor(config: SessionConfig, now_ms: u64) -> Self {
        Self::new(config, None, now_ms)
    }

    fn new(config: SessionConfig, local: Option<LocalFeed>, now_ms: u64) -> Self {
        assert!(config.streams >= 1, "a feed has at least its live stream");
        Self {
            core: Core {
                initiator: local.is_some(),
                config,
                phase: Phase::Hello,
                state: FeedState::Connecting,
                local,
                peer: None,
                peer_features: 0,
                now_ms,
                sent_ms: now_ms,
                received_ms: now_ms,
                nonce: 0,
                next_commit: 1,
                commits: VecDeque::new(),
                committing: false,
                out: Vec::new(),
            },
            part: Part::Undecided,
        }
    }

    /// What the feed is doing.
    pub fn state(&self) -> FeedState {
        self.core.state
    }

    /// This side's role, once it is decided.
    pub fn role(&self) -> Option<Role> {
        match self.part {
            Part::Undecided => None,
            Part::Source(_) => Some(Role::Source),
            Part::Sink(_) => Some(Role::Sink),
        }
    }

    /// The peer's handshake, once it is here.
    pub fn peer(&self) -> Option<&Handshake> {
        self.core.peer.as_ref()
    }

    /// What this side has said of itself, once it knows which feed it is.
    pub fn ours(&self) -> Option<&Handshake> {
        self.core.local.as_ref().map(|local| &local.facts)
    }

    /// Do both sides take acknowledgements on the live stream?
    pub fn stream_acks(&self) -> bool {
        self.core.peer_features & FEATURE_STREAM_ACKS != 0
    }

    /// Has [`Action::Close`] been given?
    pub fn is_closed(&self) -> bool {
        self.core.phase == Phase::Closed
    }

    /// Takes an event; the actions are to be carried out in order. A closed session ignores
    /// everything.
    pub fn handle(&mut self, event: Event, now_ms: u64) -> Vec<Action> {
        if self.is_closed() {
            return Vec::new();
        }
        self.core.now_ms = self.core.now_ms.max(now_ms);
        match event {
            Event::Message(message) => {
                self.core.received_ms = self.core.now_ms;
                self.message(message);
            }
            Event::Tick => self.tick(),
            Event::Disconnected => self.close(CloseReason::Lost, "the connection is gone"),
            Event::Stop => {
                self.core.send(Message::Bye(Empty {}));
                self.close(CloseReason::Stopped, "stopped");
            }
            Event::Opened(local) if self.core.phase == Phase::Open => {
                self.core.send(Message::Handshake(local.facts.clone()));
                self.core.local = Some(*local);
                self.decide();
            }
            Event::OpenRefused(refused) if self.core.phase == Phase::Open => {
                self.refuse(refused.code, refused.text);
            }
            Event::Committed(id) => self.committed(id),
            Event::CommitFailed(id, why) => {
                if self.core.commits.front().is_some_and(|c| c.0 == id) {
                    self.fail(RefusalCode::Local, format!("commit failed: {why}"));
                }
            }
            Event::Pause => {
                let change = RecordChange::Paused;
                self.core.commit(change, After::Paused);
            }
            Event::Relay(message) => self.relay(message),
            other => match &mut self.part {
                Part::Source(source) => source.event(&mut self.core, other),
                Part::Sink(sink) => sink.event(&mut self.core, other),
                // Whatever it was, there is no feed to do it to yet.
                Part::Undecided => {}
            },
        }
        std::mem::take(&mut self.core.out)
    }

    fn message(&mut self, message: Message) {
        match (self.core.phase, message) {
            (_, Message::Keepalive(nonce)) => self.core.send(Message::KeepaliveReply(nonce)),
            (_, Message::KeepaliveReply(_)) => {}
            (_, Message::Refused(Refused { code, text })) => {
                self.core.leave(&mut self.part, FeedState::Refused, text);
                self.core.end(CloseReason::Refused(code));
            }
            (_, Message::Error(Refused { code, text })) => match code {
                RefusalCode::Paused => self.pause(text),
                _ => self.close(CloseReason::Lost, &text),
            },
            (_, Message::Bye(_)) => self.close(CloseReason::Lost, "the peer said goodbye"),
            (Phase::Hello, Message::Hello(hello)) => self.hello(&hello),
            (Phase::Handshake, Message::Handshake(facts)) => {
                self.core.peer = Some(facts.clone());
                if self.core.initiator {
                    self.decide();
                } else {
                    self.core.phase = Phase::Open;
                    self.core.out.push(Action::Open(Box::new(facts)));
                }
            }
            (Phase::Decided, message) if is_relayed(&message) => {
                self.core.out.push(Action::Deliver(message));
            }
            (Phase::Decided, message) => {
                let name = message.name();
                let fine = match &mut self.part {
                    Part::Source(source) => source.message(&mut self.core, message),
                    Part::Sink(sink) => sink.message(&mut self.core, message),
                    Part::Undecided => false,
                };
                if !fine {
                    self.fail(RefusalCode::Protocol, format!("unexpected {name}"));
                }
            }
            (_, message) => {
                let text = format!("unexpected {}", message.name());
                self.fail(RefusalCode::Protocol, text);
            }
        }
    }

    fn hello(&mut self, hello: &Hello) {
        if hello.version_min > PROTOCOL_VERSION || hello.version_max < PROTOCOL_VERSION {
            let (min, max) = (hello.version_min, hello.version_max);
            let text = format!("peer speaks versions {min} to {max}, not {PROTOCOL_VERSION}");
            return self.refuse(RefusalCode::Version, text);
        }
        if hello.node == self.core.config.node {
            let text = "the peer has this node's own UUID: one's state directory is a copy of the other's \
                        (start that node with an empty one, then peeradd)";
            return self.refuse(RefusalCode::Twin, text.into());
        }
        self.core.peer_features = hello.features;
        self.core.phase = Phase::Handshake;
        match &self.core.local {
            Some(local) => {
                let facts = local.facts.clone();
                self.core.send(Message::Handshake(facts));
            }
            None => {
                let hello = self.core.hello();
                self.core.send(hello);
            }
        }
    }

    /// Both handshakes are here.
    fn decide(&mut self) {
        let (Some(local), Some(peer)) = (self.core.local.clone(), self.core.peer.clone()) else {
            return self.fail(RefusalCode::Protocol, "no handshake".into());
        };
        if local.facts.intent == Intent::Paused || peer.intent == Intent::Paused {
            return self.pause("paused by the admin".into());
        }
        match decide(&local.facts, &peer, local.rights, self.core.initiator) {
            Err(code) => self.refuse(code, code.to_string()),
            Ok(Decision { claim, flow }) => {
                self.core.phase = Phase::Decided;
                self.part = match claim.role {
                    Role::Source => {
                        let mut source = Source::new(claim.epoch, flow, &local.facts, &peer);
                        source.start(&mut self.core);
                        Part::Source(Box::new(source))
                    }
                    Role::Sink => Part::Sink(Box::new(Sink::new(claim.epoch, flow, &local, &peer))),
                };
            }
        }
    }

    fn committed(&mut self, id: CommitId) {
        if self.core.commits.front().is_none_or(|c| c.0 != id) {
            return;
        }
        let Some((_, _, after)) = self.core.commits.pop_front() else {
            return;
        };
        match (after, &mut self.part) {
            (After::Paused, _) => {
                let text = "paused by the admin";
                self.core.send(Message::Error(Refused {
                    code: RefusalCode::Paused,
                    text: text.into(),
                }));
                self.pause(text.into());
            }
            (after, Part::Source(source)) => source.committed(&mut self.core, after),
            (after, Part::Sink(sink)) => sink.committed(&mut self.core, after),
            (_, Part::Undecided) => {}
        }
        self.core.committing = false;
        self.core.next_in_queue();
    }

    fn tick(&mut self) {
        let core = &mut self.core;
        if core.now_ms - core.received_ms >= DEAD_AFTER_MS {
            return self.close(CloseReason::Lost, "the peer is silent");
        }
        if core.now_ms - core.sent_ms >= KEEPALIVE_EVERY_MS {
            core.nonce += 1;
            let nonce = core.nonce;
            core.send(Message::Keepalive(Nonce { nonce }));
        }
        if let Part::Source(source) = &mut self.part {
            source.tick(core);
        }
    }

    fn relay(&mut self, message: Message) {
        let may = is_relayed(&message);
        debug_assert!(may, "{} is the session's own", message.name());
        if may && self.core.phase == Phase::Decided {
            self.core.send(message);
        }
    }

    fn refuse(&mut self, code: RefusalCode, text: String) {
        self.core.send(Message::Refused(Refused {
            code,
            text: text.clone(),
        }));
        self.core.leave(&mut self.part, FeedState::Refused, text);
        self.core.end(CloseReason::Refused(code));
    }

    fn fail(&mut self, code: RefusalCode, text: String) {
        self.core.fail(code, &text);
        self.core
            .leave(&mut self.part, FeedState::Disconnected, text);
        self.core.end(CloseReason::Failed);
    }

    fn pause(&mut self, text: String) {
        self.core.leave(&mut self.part, FeedState::Paused, text);
        self.core.end(CloseReason::Paused);
    }

    fn close(&mut self, reason: CloseReason, text: &str) {
        self.core
            .leave(&mut self.part, FeedState::Disconnected, text.into());
        self.core.end(reason);
    }
}

impl Core {
    fn hello(&self) -> Message {
        Message::Hello(Hello {
            version_min: PROTOCOL_VERSION,
            version_max: PROTOCOL_VERSION,
            features: FEATURE_STREAM_ACKS,
            node: self.config.node,
            name: self.config.name.clone(),
            fingerprint: self.config.fingerprint.clone(),
            run: self.config.run,
        })
    }

    pub fn send(&mut self, message: Message) {
        self.sent_ms = self.now_ms;
        self.out.push(Action::Send(message));
    }

    /// Queues a commit: they are made one after the other, in order.
    pub fn commit(&mut self, change: RecordChange, after: After) {
        let id = CommitId(self.next_commit);
        self.next_commit += 1;
        self.commits.push_back((id, change, after));
        self.next_in_queue();
    }

    /// A session that has closed commits nothing any more: what came before may have been the
    /// last word on the record.
    fn next_in_queue(&mut self) {
        if self.committing || self.phase == Phase::Closed {
            return;
        }
        if let Some((id, change, _)) = self.commits.front() {
            self.committing = true;
            self.out.push(Action::Commit {
                id: *id,
                change: change.clone(),
            });
        }
    }

    /// The one place where the state changes.
    ///
    /// # Panics
    /// Where the diagram in [`super::state`] has no such transition.
    pub fn transition(&mut self, to: FeedState, reason: impl Into<String>) {
        if self.state == to {
            return;
        }
        let from = self.state;
        assert!(FeedState::is_valid(from, to), "from {from:?} to {to:?}");
        self.state = to;
        self.out.push(Action::Report {
            state: to,
            reason: reason.into(),
        });
    }

    /// The feed stops flowing; a feed that ended at a point stays so.
    fn leave(&mut self, part: &mut Part, to: FeedState, reason: String) {
        if let Part::Source(source) = part {
            source.leave(self);
        }
        let to = match (self.state, to) {
            (FeedState::Split, _) => return,
            // A refusal in the middle of a session is a failure of the peer.
            (from, to) if FeedState::is_valid(from, to) => to,
            _ => FeedState::Disconnected,
        };
        self.transition(to, reason);
    }

    /// Tells the peer that it failed here.
    pub fn fail(&mut self, code: RefusalCode, text: &str) {
        self.send(Message::Error(Refused {
            code,
            text: text.into(),
        }));
    }

    /// Closes.
    pub fn end(&mut self, reason: CloseReason) {
        if self.phase != Phase::Closed {
            self.phase = Phase::Closed;
            self.out.push(Action::Close(reason));
        }
    }
}

/// Is it passed through between the drivers, whatever the state?
fn is_relayed(message: &Message) -> bool {
    matches!(
        message,
        Message::HashRequest(_)
            | Message::HashReply(_)
            | Message::RepairRequest(_)
            | Message::FetchRequest(_)
            | Message::State(_)
            | Message::Stamp(_)
    )
}
