//! A state of the model, and what may happen in it.

use crate::sim::record::{self, Ask};
use feedplex::session::{CommitId, Event, RecordChange, Session};
use feedplex::wire::control::Message;
use std::cell::OnceCell;
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::{Debug, Write};
use std::hash::{Hash, Hasher};
use std::rc::Rc;
use uuid::Uuid;
use volmgr::model::{
    Direction, FeedIntent, FeedMode, Generation, Group, Role as VolumeRole, Volume,
};

/// Regions of a volume.
pub const REGIONS: usize = 2;
/// A value for each region; each write of a client has a value of its own.
pub type Data = [u8; REGIONS];
/// A bit for each region.
pub type Map = [bool; REGIONS];

/// What the machines of the product have no hash for, with the hash of what it shows.
#[derive(Clone, Debug)]
pub struct Shown<T>(pub Rc<T>, Rc<OnceCell<u64>>);

impl<T> Shown<T> {
    pub fn new(value: T) -> Self {
        Self(Rc::new(value), Rc::default())
    }
}

/// Hashes text without keeping it.
struct HashText(DefaultHasher);

impl std::fmt::Write for HashText {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

impl<T: Debug> Hash for Shown<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let hash = self.1.get_or_init(|| {
            let mut text = HashText(DefaultHasher::new());
            // Everything that a value is, it shows.
            write!(text, "{:?}", self.0).expect("hashing cannot fail");
            text.0.finish()
        });
        hash.hash(state);
    }
}

/// How often may happen what does not come by itself.
#[derive(Clone, Copy, Debug, Hash)]
pub struct Budget {
    /// Writes of clients.
    pub writes: u8,
    /// Connections cut.
    pub cuts: u8,
    /// Nodes that lose their power.
    pub crashes: u8,
    /// Words of admins: detach, attach again, swap.
    pub admin: u8,
    /// Connections of one feed, in all.
    pub connections: u8,
}

/// Who feeds whom.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Number of nodes.
    pub nodes: usize,
    /// The feeds: source and sink of each, to begin with.
    pub feeds: Vec<(usize, usize)>,
    /// The sinks have content that nobody gave them.
    pub foreign: bool,
    /// Clients are kept off a volume that may become a sink from before anybody looks at it.
    pub held: bool,
    /// Limits.
    pub budget: Budget,
}

/// A node: its volume, on disk and in the disk's cache.
#[derive(Clone, Debug, Hash)]
pub struct Node {
    pub volume: Shown<Volume>,
    pub data: Data,
    pub durable: Data,
    /// Values that have ever been here, a bit each.
    pub seen: u32,
}

/// Something in a data stream.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub enum Item {
    Write { region: usize, value: u8 },
    Mark(Uuid),
}

/// One end of a connection.
#[derive(Clone, Debug, Hash)]
pub struct Side {
    pub session: Shown<Session>,
    pub inbox: VecDeque<Shown<Message>>,
    pub commits: VecDeque<Shown<(CommitId, RecordChange)>>,
    /// A flush that is asked for, and up to which place in the live stream.
    pub flush: Option<(u64, Option<u64>)>,
    pub closed: bool,
}

/// A connection of a feed.
#[derive(Clone, Debug, Hash)]
pub struct Conn {
    pub sides: [Side; 2],
    /// The source's engine may send.
    pub online: bool,
    /// From the mark on it only tracks.
    pub marked: bool,
    /// A round of copying is under way.
    pub copying: bool,
    /// The volumes are kept from clients, for a swap.
    pub frozen: bool,
    /// The live stream, in order; the number of items sent and applied.
    pub live: VecDeque<Item>,
    pub sent: u64,
    pub applied: u64,
    /// The bulk stream, in no order.
    pub bulk: Vec<(usize, u8)>,
    /// What the source has sent and does not know to be durable over there.
    pub unacked: Map,
}

impl Conn {
    /// The first dirty region that nothing is under way to: two operations that overlap are never in two streams.
    pub fn region_to_copy(&self, map: Map) -> Option<usize> {
        let in_live = |r: usize| {
            let to = |item: &Item| matches!(item, Item::Write { region, .. } if *region == r);
            self.live.iter().any(to)
        };
        let in_bulk = |r: usize| self.bulk.iter().any(|(region, _)| *region == r);
        (0..REGIONS).find(|region| map[*region] && !in_live(*region) && !in_bulk(*region))
    }
}

/// A feed between two nodes.
#[derive(Clone, Debug, Hash)]
pub struct Link {
    pub ends: [usize; 2],
    /// Each end's map of what the other misses.
    pub maps: [Map; 2],
    pub conn: Option<Conn>,
    pub connections: u8,
    /// An admin has to decide something.
    pub refused: bool,
    /// The admin wants it attached again after a point; a daemon forgets it when it dies.
    pub attach: bool,
    /// What is at the sink may go: an admin's word, good for the connection it was said to.
    pub consent: bool,
    /// Values that the admin has agreed to lose, a bit each.
    pub given_up: u32,
    /// It has been live: both sides have had everything once.
    pub was_live: bool,
}

/// A state.
#[derive(Clone, Debug, Hash)]
pub struct World {
    pub(super) nodes: Vec<Node>,
    pub(super) links: Vec<Link>,
    pub(super) left: Budget,
    /// As in [`Setup::held`].
    pub(super) held: bool,
    /// The next client's value.
    pub(super) next: u8,
    pub(super) points: u8,
    /// What a source has had at some moment.
    pub(super) moments: Rc<BTreeSet<Data>>,
    /// What a source had when it put each mark into its stream.
    pub(super) marks: Rc<BTreeMap<Uuid, Data>>,
}

/// What may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The side that connects tries again by itself.
    Again(usize),
    /// An admin has it connect.
    Connect {
        /// The feed.
        link: usize,
        /// The roles are to be exchanged.
        swap: bool,
        /// What is at the sink-to-be may go.
        discard: bool,
    },
    /// A message of the feed arrives at this end.
    Deliver(usize, usize),
    /// This end notices that the other has hung up.
    Hangup(usize, usize),
    /// A commit of this end is made.
    Commit(usize, usize),
    /// The source copies a region.
    Copy(usize),
    /// The source has nothing left to copy.
    CaughtUp(usize),
    /// The sink takes the next item of the live stream.
    ApplyLive(usize),
    /// The sink takes this item of the bulk stream.
    ApplyBulk(usize, usize),
    /// A flush that this end has asked for is done.
    Flush(usize, usize),
    /// A client writes.
    Write {
        /// Where.
        node: usize,
        /// What.
        region: usize,
    },
    /// The connection of a feed is cut.
    Cut(usize),
    /// The power of a node fails.
    Crash {
        /// The node.
        node: usize,
        /// What stays of what its cache held, a bit for each region.
        keeps: u8,
    },
    /// An admin ends the feed at a point.
    Detach(usize),
    /// An admin exchanges the roles, at the source.
    Swap(usize),
    /// An admin exchanges the roles, at the sink.
    AskSwap(usize),
}

/// A name.
pub fn id(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

/// The group around a volume, as far as a handshake wants to know it.
pub fn group() -> Group {
    Group {
        uuid: id(3),
        name: "vg".into(),
        extent_size: 65536,
        seqno: 1,
        commit: id(4),
        exported: false,
        handover: None,
        tags: Default::default(),
        pvs: Vec::new(),
        volumes: Default::default(),
    }
}

/// The UUID of a feed.
pub fn feed(link: usize) -> Uuid {
    id(100 + link as u128)
}

impl World {
    /// The beginning: nothing is attached.
    pub fn new(setup: &Setup) -> Self {
        let sinks: BTreeSet<usize> = setup.feeds.iter().map(|(_, sink)| *sink).collect();
        let node = |n: usize| {
            let data = match sinks.contains(&n) {
                false => [1, 2],
                true if setup.foreign => [3, 0],
                true => [0; REGIONS],
            };
            let mut volume = Volume {
                uuid: id(10 + n as u128),
                name: "lv".into(),
                extents: REGIONS as u64,
                tags: Default::default(),
                active: true,
                frontend: "auto".into(),
                role: VolumeRole::Normal,
                region_size: 65536,
                generation: Generation {
                    current: id(20 + n as u128),
                    history: Vec::new(),
                },
                next_plex: 0,
                stable_copy: false,
                plexes: Vec::new(),
                log: Vec::new(),
                feeds: Vec::new(),
                points: Vec::new(),
            };
            for (link, ends) in setup.feeds.iter().enumerate() {
                let direction = match (ends.0 == n, ends.1 == n) {
                    (true, _) => Direction::Out,
                    (_, true) => Direction::In,
                    _ => continue,
                };
                let initiator = direction == Direction::Out;
                volume.feeds.push(record::provisional(
                    feed(link),
                    "peer",
                    "vg/lv",
                    direction,
                    initiator,
                    FeedMode::Async,
                    0,
                ));
            }
            Node {
                volume: Shown::new(volume),
                data,
                durable: data,
                seen: data.iter().fold(0, |seen, value| seen | 1 << value),
            }
        };
        let nodes: Vec<Node> = (0..setup.nodes).map(node).collect();
        let links = setup.feeds.iter().map(|(from, to)| Link {
            ends: [*from, *to],
            maps: [[true; REGIONS], [false; REGIONS]],
            conn: None,
            connections: 0,
            refused: false,
            attach: false,
            consent: false,
            given_up: 0,
            was_live: false,
        });
        let moments = nodes.iter().map(|node| node.data).collect();
        Self {
            links: links.collect(),
            nodes,
            left: setup.budget,
            held: setup.held,
            next: 4,
            points: 0,
            moments: Rc::new(moments),
            marks: Rc::default(),
        }
    }

    /// A node's record of a feed.
    pub fn record(&self, link: usize, side: usize) -> &volmgr::model::Feed {
        let node = &self.nodes[self.links[link].ends[side]];
        let found = node.volume.0.feeds.iter().find(|f| f.uuid == feed(link));
        found.expect("records are made at the start")
    }

    /// The side that sends, as far as the session that is there has decided; else as recorded.
    pub fn source(&self, link: usize) -> Option<usize> {
        let conn = self.links[link].conn.as_ref()?;
        (0..2).find(|side| {
            let session = &conn.sides[*side].session.0;
            session.role() == Some(feedplex::generation::Role::Source)
        })
    }

    /// May clients write here?
    pub fn is_writable(&self, node: usize) -> bool {
        let kept_off = |n: usize| {
            let link = &self.links[n];
            let side = link.ends.iter().position(|end| *end == node);
            let (Some(side), Some(conn)) = (side, &link.conn) else {
                return false;
            };
            let may_sink = self.record(n, side).direction == Direction::In
                && self.source(n) != Some(side)
                && !conn.sides[side].closed;
            conn.frozen || (self.held && may_sink)
        };
        let volume = &self.nodes[node].volume.0;
        !volume.is_read_only() && !(0..self.links.len()).any(kept_off)
    }

    /// What comes by itself.
    pub fn own_steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for (n, link) in self.links.iter().enumerate() {
            let Some(conn) = &link.conn else {
                let record = self.record(n, 0);
                let wanted = !record.epochs.is_empty()
                    && match record.intent {
                        FeedIntent::Attached | FeedIntent::Detaching { .. } => true,
                        FeedIntent::Split { .. } => link.attach,
                        FeedIntent::Paused => false,
                    };
                if wanted && !link.refused && link.connections < self.left.connections {
                    steps.push(Step::Again(n));
                }
                continue;
            };
            for (s, side) in conn.sides.iter().enumerate() {
                if !side.closed {
                    match side.inbox.is_empty() {
                        false => steps.push(Step::Deliver(n, s)),
                        true if conn.sides[1 - s].closed => steps.push(Step::Hangup(n, s)),
                        true => {}
                    }
                }
                if !side.commits.is_empty() {
                    steps.push(Step::Commit(n, s));
                }
                let reached = |upto: Option<u64>| upto.is_none_or(|upto| conn.applied >= upto);
                if side.flush.is_some_and(|(_, upto)| reached(upto)) {
                    steps.push(Step::Flush(n, s));
                }
            }
            let source = self.source(n);
            if let Some(source) = source
                && conn.online
                && !conn.marked
            {
                let map = link.maps[source];
                if conn.copying && conn.region_to_copy(map).is_some() {
                    steps.push(Step::Copy(n));
                }
                if conn.copying && !map.contains(&true) && conn.bulk.is_empty() {
                    steps.push(Step::CaughtUp(n));
                }
            }
            if !conn.live.is_empty() {
                steps.push(Step::ApplyLive(n));
            }
            steps.extend((0..conn.bulk.len()).map(|item| Step::ApplyBulk(n, item)));
        }
        steps
    }

    /// What clients, admins and bad luck may do.
    pub fn other_steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        if self.left.writes > 0 {
            for node in (0..self.nodes.len()).filter(|node| self.is_writable(*node)) {
                steps.extend((0..REGIONS).map(|region| Step::Write { node, region }));
            }
        }
        if self.left.crashes > 0 {
            for (node, here) in self.nodes.iter().enumerate() {
                let volatile = (0..REGIONS).filter(|r| here.data[*r] != here.durable[*r]);
                let volatile = volatile.fold(0u8, |bits, r| bits | 1 << r);
                let choices = (0..1 << REGIONS).filter(|keeps| keeps & !volatile == 0);
                steps.extend(choices.map(|keeps| Step::Crash { node, keeps }));
            }
        }
        for (n, link) in self.links.iter().enumerate() {
            if link.conn.is_some() && self.left.cuts > 0 {
                steps.push(Step::Cut(n));
            }
            if self.left.admin > 0 {
                self.admin_steps(n, link, &mut steps);
            }
        }
        steps
    }

    fn admin_steps(&self, n: usize, link: &Link, steps: &mut Vec<Step>) {
        let Some(_) = &link.conn else {
            if link.connections >= self.left.connections {
                return;
            }
            let split = matches!(self.record(n, 0).intent, FeedIntent::Split { .. });
            let first = self.record(n, 0).epochs.is_empty();
            for (swap, discard) in [(false, false), (false, true), (true, false), (true, true)] {
                if (split || first || link.refused) && !(first && swap) {
                    steps.push(Step::Connect {
                        link: n,
                        swap,
                        discard,
                    });
                }
            }
            return;
        };
        if let Some(source) = self.source(n) {
            // What is asked of a session that is not that far is refused or kept.
            steps.push(Step::Detach(n));
            let sink = &self.nodes[link.ends[1 - source]];
            if sink.volume.0.role == VolumeRole::Feed {
                steps.push(Step::Swap(n));
                steps.push(Step::AskSwap(n));
            }
        }
    }

    /// What an admin said, for a handshake.
    pub fn ask(attach: bool, swap: bool, discard: bool) -> Ask {
        Ask {
            create: true,
            discard_peer: discard && !swap,
            discard_local: discard && swap,
            swap,
            online: false,
            consent: false,
            attach,
        }
    }

    /// A name that no state before has used.
    pub fn point(&mut self) -> Uuid {
        self.points += 1;
        id(500 + u128::from(self.points))
    }

    /// The end of an admin's command.
    pub fn ending(&mut self) -> (Uuid, String) {
        let point = self.point();
        (point, format!("p{}", self.points))
    }

    /// Changes the volume of a node.
    pub fn change(&mut self, node: usize, change: impl FnOnce(&mut Volume)) {
        let mut volume = (*self.nodes[node].volume.0).clone();
        change(&mut volume);
        self.nodes[node].volume = Shown::new(volume);
    }

    /// Does this side keep a map for the feed?
    pub fn is_tracked(&self, link: usize, side: usize) -> bool {
        self.record(link, side).is_tracked()
    }

    /// Has it ended at a point, as recorded?
    pub fn is_split(&self, link: usize, side: usize) -> bool {
        matches!(self.record(link, side).intent, FeedIntent::Split { .. })
    }

    /// Is the session of this side there and not closed?
    pub fn is_open(&self, link: usize, side: usize) -> bool {
        let conn = self.links[link].conn.as_ref();
        conn.is_some_and(|conn| !conn.sides[side].closed)
    }

    /// An event for a side's session.
    pub fn admin_event(&mut self, link: usize, step: Step) -> Option<(usize, Event)> {
        let source = self.source(link)?;
        Some(match step {
            Step::Detach(_) => {
                let (point, name) = self.ending();
                let time = 0;
                (source, Event::Detach { point, name, time })
            }
            Step::Swap(_) => (source, self.swap_event(link)),
            _ => (1 - source, Event::AskSwap),
        })
    }

    /// The volumes are kept from clients, then the roles change.
    pub fn swap_event(&mut self, link: usize) -> Event {
        if let Some(conn) = &mut self.links[link].conn {
            conn.frozen = true;
        }
        let (point, name) = self.ending();
        let time = 0;
        Event::Swap { point, name, time }
    }
}
