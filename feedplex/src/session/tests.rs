//! Two sessions against each other over a scripted pipe, with the connection cut, or a node
//! crashed, at every step.

use super::*;
use crate::generation::{Intent, Role};
use crate::wire::control::*;
use crate::wire::preamble::Token;
use std::collections::{BTreeMap, VecDeque};
use uuid::Uuid;

#[path = "tests_stories.rs"]
mod stories;

const REGIONS: usize = 8;
type Data = [u32; REGIONS];

fn id(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

/// What one node has on disk.
struct Node {
    record: Handshake,
    data: Data,
    map: [bool; REGIONS],
    points: BTreeMap<Uuid, Data>,
    /// Online restore: what is missing here, once it has begun.
    missing: Option<[bool; REGIONS]>,
    /// Online restore: nobody may write here.
    giving: bool,
    /// Sink: a point that is named must hold what the source had at its mark.
    rights: Rights,
}

impl Node {
    fn new(role: Role, known: bool) -> Self {
        let source = role == Role::Source;
        Self {
            record: Handshake {
                feed: id(1),
                target: "vgb/web".into(),
                create: true,
                volume: id(if source { 10 } else { 11 }),
                name: "vga/web".into(),
                size: 1 << 20,
                region_size: 65536,
                role,
                role_epoch: 0,
                swap: false,
                online: false,
                sync_mode: false,
                block: false,
                intent: Intent::Attached,
                known,
                fresh: !source,
                seeded: false,
                consistent: false,
                dirty: source,
                discard_peer: false,
                discard_local: false,
                epochs: Vec::new(),
                stamp: 0,
                seen: 0,
                generation: id(if source { 20 } else { 21 }),
                history: Vec::new(),
            },
            data: if source { [7; REGIONS] } else { [0; REGIONS] },
            map: [source; REGIONS],
            points: BTreeMap::new(),
            missing: None,
            giving: false,
            rights: Rights {
                feed: true,
                read: true,
            },
        }
    }

    fn local(&self) -> LocalFeed {
        let mut facts = self.record.clone();
        let told = self.missing.as_ref().unwrap_or(&self.map);
        facts.dirty = told.iter().any(|dirty| *dirty);
        facts.consistent &= self.missing.is_none_or(|m| !m.contains(&true));
        LocalFeed {
            facts,
            rights: self.rights,
            dirty_bytes: 0,
            restoring: self.missing.is_some(),
        }
    }

    fn commit(&mut self, change: RecordChange) {
        let record = &mut self.record;
        match change {
            RecordChange::Session {
                role,
                role_epoch,
                intent,
                epochs,
                content,
                online,
                generation,
                map,
            } => {
                record.online = online && role == Role::Sink;
                self.giving = online && role == Role::Source;
                if !record.online {
                    let left = self.missing.take();
                    assert!(left.is_none_or(|m| !m.contains(&true)), "given away half");
                }
                if map == MapChange::AllDirty {
                    self.map = [true; REGIONS];
                }
                record.known = true;
                record.fresh = false;
                record.swap = false;
                (record.role, record.role_epoch) = (role, role_epoch);
                (record.intent, record.epochs) = (intent, epochs);
                match content {
                    SinkContent::Keep => {}
                    SinkContent::Consistent => (record.seeded, record.consistent) = (true, true),
                    SinkContent::Inconsistent => {
                        (record.seeded, record.consistent) = (true, false);
                    }
                    SinkContent::Unseeded => (record.seeded, record.consistent) = (false, false),
                }
                if let Some(generation) = generation {
                    record.generation = generation.current;
                    record.history = generation.history;
                }
            }
            RecordChange::Confirmed { epochs, map } => {
                record.epochs = epochs;
                match map {
                    MapChange::Clear => self.map = [false; REGIONS],
                    MapChange::Missing => {
                        assert!(record.online && self.missing.is_none());
                        self.missing = Some(std::mem::take(&mut self.map));
                    }
                    MapChange::AllMissing => {
                        self.missing = Some([true; REGIONS]);
                        self.map = [false; REGIONS];
                    }
                    MapChange::Keep | MapChange::AllDirty => {}
                }
            }
            RecordChange::Inconsistent => record.consistent = false,
            RecordChange::Consistent { generation } => {
                (record.consistent, record.seeded) = (true, true);
                record.generation = generation.current;
                record.history = generation.history;
            }
            RecordChange::Seeded => record.seeded = true,
            RecordChange::Paused => record.intent = Intent::Paused,
            RecordChange::Detaching { point, name } => {
                record.intent = Intent::Detaching { point, name };
            }
            RecordChange::Split {
                point, generation, ..
            } => {
                // What has been in use while it was restored is no point.
                if record.role == Role::Sink && !record.online {
                    assert!(record.consistent);
                    self.points.insert(point, self.data);
                }
                record.intent = Intent::Split { point };
                record.generation = generation.current;
                record.history = generation.history;
            }
            RecordChange::Swapped { role_epoch, .. } => {
                (record.role, record.role_epoch) = (Role::Sink, role_epoch);
                (record.seeded, record.consistent) = (true, true);
                record.intent = Intent::Attached;
                self.giving = false;
            }
        }
    }
}

/// Something that waits for its turn at a node.
enum Work {
    Event(Event),
    Commit(CommitId, RecordChange),
}

struct World {
    nodes: [Node; 2],
    /// What the source had when each mark was made.
    marks: BTreeMap<Uuid, Data>,
    sessions: Option<[Session; 2]>,
    queues: [VecDeque<Work>; 2],
    online: bool,
    connections: u128,
    steps: usize,
    /// Cut (or crash both) before this step.
    cut_at: usize,
    crash: bool,
    closed: Vec<CloseReason>,
    /// What a client writes at node 0 as soon as an online restore has begun there.
    client: Option<(usize, u32)>,
}

impl World {
    fn new(cut_at: usize, crash: bool) -> Self {
        Self {
            nodes: [Node::new(Role::Source, true), Node::new(Role::Sink, false)],
            marks: BTreeMap::new(),
            sessions: None,
            queues: Default::default(),
            online: false,
            connections: 0,
            steps: 0,
            cut_at,
            crash,
            closed: Vec::new(),
            client: None,
        }
    }

    fn config(&self, side: u128) -> SessionConfig {
        let base = 1000 + self.connections * 10 + side * 5;
        SessionConfig {
            node: id(side),
            name: format!("node{side}"),
            fingerprint: String::new(),
            run: id(12),
            fresh: FreshIds {
                epoch: id(base),
                session: id(base + 1),
                token: Token([0; 32]),
                generations: [id(base + 2), id(base + 3)],
            },
            streams: 2,
            wall_time: 0,
        }
    }

    fn connect(&mut self) {
        self.connections += 1;
        self.closed.clear();
        let (first, actions) = Session::initiator(self.config(0), self.nodes[0].local(), 0);
        self.sessions = Some([first, Session::acceptor(self.config(1), 0)]);
        self.act(0, actions);
    }

    fn event(&mut self, side: usize, event: Event) {
        self.queues[side].push_back(Work::Event(event));
    }

    /// A client's write at the node that is the source.
    fn write(&mut self, region: usize, value: u32) {
        let source = self.source();
        self.nodes[source].data[region] = value;
        if self.online && !self.nodes[source].map[region] {
            self.nodes[1 - source].data[region] = value;
        } else {
            self.nodes[source].map[region] = true;
        }
    }

    fn source(&self) -> usize {
        usize::from(self.nodes[0].record.role != Role::Source)
    }

    fn disconnect(&mut self) {
        self.online = false;
        for side in 0..2 {
            let left = std::mem::take(&mut self.queues[side]);
            if !self.crash {
                // Without a crash what was asked of the disk is still done.
                for work in left {
                    if let Work::Commit(_, change) = work {
                        self.nodes[side].commit(change);
                    }
                }
            }
        }
        self.sessions = None;
    }

    /// A client writes half of a region at node 0 while that is being restored: what is missing of it
    /// is fetched first.
    fn use_restored(&mut self) {
        let Some(missing) = &mut self.nodes[0].missing else {
            return;
        };
        if let Some((region, value)) = self.client.take() {
            assert!(self.nodes[1].giving, "the other side could change");
            missing[region] = false;
            self.nodes[0].data[region] = value;
            self.nodes[0].map[region] = true;
        }
    }

    /// One step of either node; false when there is nothing left to do.
    fn step(&mut self) -> bool {
        self.use_restored();
        if self.steps == self.cut_at {
            self.steps += 1;
            self.disconnect();
            return false;
        }
        let side = usize::from(self.queues[0].is_empty());
        let Some(work) = self.queues[side].pop_front() else {
            return false;
        };
        self.steps += 1;
        let event = match work {
            Work::Event(event) => event,
            Work::Commit(commit, change) => {
                self.nodes[side].commit(change);
                Event::Committed(commit)
            }
        };
        let Some(sessions) = &mut self.sessions else {
            return false;
        };
        let actions = sessions[side].handle(event, 0);
        self.act(side, actions);
        true
    }

    fn act(&mut self, side: usize, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Send(message) => {
                    // Through the codec, as in life.
                    let bytes = message.encode().expect("encodes");
                    let (header, body) = bytes
                        .split_first_chunk::<CONTROL_HEADER_LEN>()
                        .expect("has a header");
                    let header = ControlHeader::decode(header).expect("header");
                    let message = Message::decode(&header, body).expect("decodes");
                    self.event(1 - side, Event::Message(message));
                }
                Action::Open(_) => {
                    let local = Box::new(self.nodes[side].local());
                    self.event(side, Event::Opened(local));
                }
                Action::Commit { id, change } => {
                    self.queues[side].push_back(Work::Commit(id, change));
                }
                Action::ExportMap => {
                    let node = &self.nodes[side];
                    let bits = node.missing.as_ref().unwrap_or(&node.map);
                    let bits = bits.iter().enumerate();
                    let bits = bits.fold(0, |byte, (i, dirty)| byte | (u8::from(*dirty) << i));
                    let chunk = Bitmap {
                        first_region: 0,
                        bits: vec![bits],
                    };
                    self.event(side, Event::MapChunk(chunk));
                    self.event(side, Event::MapEnd);
                }
                Action::MergeMap { bitmap, .. } => {
                    for region in 0..REGIONS {
                        self.nodes[side].map[region] |= bitmap.bits[0] >> region & 1 == 1;
                    }
                }
                Action::OpenStreams { .. } => self.event(side, Event::StreamsUp),
                Action::FeedOnline | Action::FeedResume => self.copy(side),
                Action::FeedOffline => self.online = false,
                Action::RequestMark { point } => {
                    self.marks.insert(point, self.nodes[side].data);
                    self.online = false;
                    self.event(1 - side, Event::MarkReached { point });
                }
                Action::Flush { flush, .. } => self.event(side, Event::Flushed { flush, ok: true }),
                Action::Close(reason) => self.closed.push(reason),
                Action::SetDirty(_)
                | Action::Acked(_)
                | Action::PeerWantsSwap
                | Action::Deliver(_)
                | Action::Report { .. } => {}
            }
        }
    }

    /// The whole copy at once; the sink must have said before that it is not consistent.
    fn copy(&mut self, side: usize) {
        assert_eq!(self.nodes[side].record.role, Role::Source);
        assert_eq!(self.nodes[1 - side].record.role, Role::Sink);
        assert_eq!(
            self.nodes[side].record.epochs,
            self.nodes[1 - side].record.epochs,
            "both have committed the epoch alone"
        );
        assert!(!self.nodes[1 - side].record.consistent);
        for region in 0..REGIONS {
            let sent = std::mem::take(&mut self.nodes[side].map[region]);
            let from = self.nodes[side].data[region];
            let sink = &mut self.nodes[1 - side];
            let taken = sink
                .missing
                .as_mut()
                .map(|m| std::mem::take(&mut m[region]));
            assert!(
                sent || taken != Some(true),
                "missing, and the source does not know"
            );
            if sent && taken != Some(false) {
                sink.data[region] = from;
            }
        }
        self.online = true;
        self.event(side, Event::CaughtUp { live_sequence: 3 });
    }

    fn check(&self) {
        for node in &self.nodes {
            for (point, data) in &node.points {
                assert_eq!(self.marks.get(point), Some(data), "point {point}");
            }
        }
        let source = self.source();
        let (from, to) = (&self.nodes[source], &self.nodes[1 - source]);
        if to.record.role == Role::Sink && to.record.seeded {
            for region in 0..REGIONS {
                let same = from.data[region] == to.data[region];
                assert!(
                    same || from.map[region]
                        || to.map[region]
                        || to.missing.is_some_and(|m| m[region]),
                    "region {region} differs and nobody knows"
                );
            }
        }
    }

    /// Runs until nothing moves.
    fn pump(&mut self) {
        while self.step() {
            self.check();
            assert!(self.steps < 10_000, "does not come to rest");
        }
        self.check();
    }

    fn states(&self) -> [FeedState; 2] {
        let sessions = self.sessions.as_ref().expect("connected");
        [sessions[0].state(), sessions[1].state()]
    }

    /// Connects, as often as it takes, until both are live.
    fn go_live(&mut self) {
        for _ in 0..4 {
            if self.sessions.is_none() {
                self.connect();
            }
            self.pump();
            if self.sessions.is_some() {
                assert_eq!(self.states(), [FeedState::Live; 2], "{:?}", self.closed);
                for region in (0..REGIONS).filter(|n| !self.nodes[0].map[*n]) {
                    let [a, b] = [0, 1].map(|n: usize| self.nodes[n].data[region]);
                    assert_eq!(a, b, "region {region}");
                }
                return;
            }
        }
        panic!("never live");
    }

    /// Detaches at a point, connecting again as often as it takes.
    fn detach(&mut self, point: Uuid) {
        let event = Event::Detach {
            point,
            name: "monday".into(),
            time: 5,
        };
        let source = self.source();
        self.event(source, event.clone());
        self.pump();
        for _ in 0..4 {
            match self.nodes[source].record.intent {
                Intent::Split { point: at } => {
                    assert_eq!(at, point);
                    self.disconnect();
                    let sink = &self.nodes[1 - source];
                    assert_eq!(sink.record.intent, Intent::Split { point });
                    assert!(sink.record.consistent);
                    assert_eq!(sink.record.generation, point);
                    assert_eq!(sink.data, self.marks[&point]);
                    return;
                }
                Intent::Detaching { .. } => {
                    assert!(self.sessions.is_none(), "stuck while connected");
                    self.write(4, 44);
                    self.connect();
                }
                _ => {
                    // The admin's word was lost in the crash: say it again.
                    self.go_live();
                    self.event(source, event.clone());
                }
            }
            self.pump();
        }
        panic!("never split");
    }

    fn swap_split(&mut self, online: bool) {
        for _ in 0..4 {
            if self.sessions.is_none() {
                if self.nodes[0].record.role == Role::Source {
                    self.nodes[0].record.swap = true;
                    self.nodes[0].record.discard_local = true;
                    self.nodes[0].record.online = online;
                }
                self.connect();
                // The word is the command's, not the record's: it does not survive.
                self.nodes[0].record.swap = false;
                self.nodes[0].record.discard_local = false;
                self.nodes[0].record.online &= self.nodes[0].record.role == Role::Sink;
            }
            self.pump();
            if self.sessions.is_some() {
                assert_eq!(self.states(), [FeedState::Live; 2], "{:?}", self.closed);
                assert_eq!(self.nodes[0].record.role, Role::Sink);
                assert_eq!(self.nodes[1].record.role, Role::Source);
                return;
            }
        }
        panic!("never swapped");
    }
}
