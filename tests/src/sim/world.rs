//! The nodes, and what happens next.

use super::boot::disk_of;
use super::check::{Claim, Truth};
use super::disk::Disk;
use super::history::History;
use super::lane::{Asked, Job};
use super::net::Conn;
use super::record::Ask;
use super::rng::Rng;
use super::scrub::Scrub;
use super::session::Sess;
use super::storm::Storm;
use super::worn::Worn;
use blockio::IoError;
use feedplex::session::FeedState;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use uuid::Uuid;
use volmgr::engine::{Action, Engine, FeedId, IoId};
use volmgr::metadata::Store;
use volmgr::model::{Feed, Group, Volume};

/// Name of every node's group.
pub const VG: &str = "vg";
/// Name of every node's volume.
pub const LV: &str = "lv";

/// How often the things happened that a run is about.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    /// Steps taken.
    pub steps: u64,
    /// Operations that were carried out: disk I/O, log updates, commits, messages, frames, requests.
    pub operations: u64,
    /// Requests of clients that were answered.
    pub requests: u64,
    /// Nodes that crashed, and of those: in the middle of a metadata commit.
    pub crashes: u64,
    /// Crashes in the middle of a metadata commit.
    pub torn_commits: u64,
    /// Connections cut, or half open.
    pub cuts: u64,
    /// Sessions that got as far as data streams.
    pub sessions: u64,
    /// Sinks that became consistent.
    pub consistent: u64,
    /// Feeds that ended at a point.
    pub splits: u64,
    /// Roles exchanged.
    pub swaps: u64,
    /// Attempts that were refused because both sides had changed, or the sink had.
    pub diverged: u64,
    /// Full copies.
    pub full: u64,
    /// Plexes that caught up.
    pub synced: u64,
    /// Bad ranges rewritten from another plex.
    pub repaired: u64,
    /// Claims of consistency that were checked.
    pub claims: u64,
    /// Times that a feed fell behind.
    pub behind: u64,
    /// Volumes grown.
    pub grown: u64,
    /// Plexes taken out of service because too many of their reads failed.
    pub retired: u64,
    /// Walks over a volume whose plexes were compared.
    pub scrubs: u64,
    /// Sectors that rotted.
    pub rotten: u64,
    /// Blocks that a scrub found to differ.
    pub differences: u64,
    /// Blocks that a scrub made equal.
    pub mended: u64,
    /// Sectors that had rotted, and were to be replaced by a write that failed.
    pub torn: u64,
    /// Feeds whose sink was made equal where something had rotted.
    pub feeds_repaired: u64,
    /// Sectors in which the two sides of a feed differed at rest because something had rotted.
    pub feed_rot: u64,
    /// Bulk copies that read what a plex had lost.
    pub old_copies: u64,
    /// Copies for feeds that ended with regions clean, which were looked at over there.
    pub copied: u64,
    /// Disks that were full for a while.
    pub full_disks: u64,
    /// Disks that were slow for a while.
    pub slow_disks: u64,
    /// Disks that were gone and came back while their machine was down.
    pub reappeared: u64,
    /// Clocks that jumped.
    pub clock_jumps: u64,
}

impl Totals {
    /// Adds another run's.
    pub fn add(&mut self, other: &Self) {
        let mine = self.fields();
        for (mine, other) in mine.into_iter().zip(other.clone().fields()) {
            *mine += *other;
        }
    }

    fn fields(&mut self) -> [&mut u64; 31] {
        [
            &mut self.steps,
            &mut self.operations,
            &mut self.requests,
            &mut self.crashes,
            &mut self.torn_commits,
            &mut self.cuts,
            &mut self.sessions,
            &mut self.consistent,
            &mut self.splits,
            &mut self.swaps,
            &mut self.diverged,
            &mut self.full,
            &mut self.synced,
            &mut self.repaired,
            &mut self.claims,
            &mut self.behind,
            &mut self.grown,
            &mut self.retired,
            &mut self.scrubs,
            &mut self.rotten,
            &mut self.differences,
            &mut self.mended,
            &mut self.torn,
            &mut self.feeds_repaired,
            &mut self.feed_rot,
            &mut self.old_copies,
            &mut self.copied,
            &mut self.reappeared,
            &mut self.full_disks,
            &mut self.slow_disks,
            &mut self.clock_jumps,
        ]
    }
}

/// A feed as a daemon runs it.
pub struct Entry {
    /// The feed.
    pub feed: Uuid,
    /// The node at the other end.
    pub peer: usize,
    /// This side connects.
    pub initiator: bool,
    /// The next attempt asks for this.
    pub ask: Ask,
    /// Record of a first attempt, until it is committed.
    pub provisional: Option<Feed>,
    /// May connect by itself.
    pub enabled: bool,
    /// As reported.
    pub state: FeedState,
    /// The session that runs.
    pub session: Option<u64>,
}

/// A daemon, with all that dies with it.
pub struct Daemon {
    /// The group's metadata.
    pub store: Store,
    /// The volume's engine.
    pub engine: Engine,
    /// What the engine has asked for.
    pub jobs: Vec<Job>,
    /// What the engine has said and nobody has taken yet.
    pub out: VecDeque<Action>,
    /// Somebody takes it now.
    pub taking: bool,
    /// Answers that are due to the engine at once.
    pub results: VecDeque<(IoId, Result<(), IoError>)>,
    /// Requests that it has not answered.
    pub asked: HashMap<u64, Asked>,
    /// Bytes of requests and of the engine's own copies.
    pub payloads: HashMap<u64, Vec<u64>>,
    /// The feeds.
    pub entries: Vec<Entry>,
    /// The sessions.
    pub sessions: BTreeMap<u64, Sess>,
    /// Sessions whose streams take a feed's operations.
    pub outlets: HashMap<FeedId, u64>,
    /// Marks on their way: feed, point, the session that asked.
    pub marks: HashMap<IoId, (FeedId, Uuid, u64)>,
    /// Disks that have been given up.
    pub gone: Vec<usize>,
    /// How often each disk has come back: it has another place in the engine's table then.
    pub epochs: Vec<u32>,
    /// A plex to come: when the engine has written its map, and the map's slot.
    pub attaching: Option<(u64, u32)>,
    /// Plexes are being compared.
    pub scrub: Option<Scrub>,
    /// What its plexes have been through.
    pub worn: Worn,
}

/// A machine.
pub struct Node {
    /// Its name in the others' peer lists.
    pub name: String,
    /// Its disks; those in reserve have no metadata that matters yet.
    pub disks: Vec<Disk>,
    /// Their identities.
    pub pvs: Vec<Uuid>,
    /// What its volume may hold.
    pub history: History,
    /// The daemon, where the machine is up.
    pub up: Option<Daemon>,
    /// The last version of the group that a commit has reported durable.
    pub committed: Option<Group>,
    /// Every disk took it in both areas.
    pub twice: bool,
    /// Versions that a commit was begun for since.
    pub attempts: Vec<Group>,
    /// A client has the volume open.
    pub open: bool,
    /// Milliseconds that its clock is ahead of the world's.
    pub ahead: u64,
    /// Step of the last write of a client that was acknowledged.
    pub last_write: u64,
    /// Step in which a client last tried to write.
    pub last_try: u64,
    /// It has crashed before.
    pub crashed: bool,
}

/// Everything.
pub struct World {
    /// The seed.
    pub seed: u64,
    /// Chance, of the present step.
    pub rng: Rng,
    /// The machines.
    pub nodes: Vec<Node>,
    /// Who may feed whom at first.
    pub relations: Vec<(usize, usize)>,
    /// Connections.
    pub conns: BTreeMap<u64, Conn>,
    /// Counts everything that happens; the model's clock.
    pub step: u64,
    /// The nodes' clock in milliseconds.
    pub ms: u64,
    /// Next fresh number.
    pub next: u64,
    /// Faults may happen.
    pub faults: bool,
    /// Among them those that came later: full and slow disks, clocks that jump.
    pub more: bool,
    /// Much goes wrong at once.
    pub storm: Option<Storm>,
    /// This node crashes when so many steps, or events of a storm, have passed.
    pub doom: Option<(usize, u64)>,
    /// What sinks claim to hold, by feed.
    pub claims: BTreeMap<Uuid, Claim>,
    /// What points must hold.
    pub points: BTreeMap<Uuid, Truth>,
    /// What has rotted: node, sector of its volume, and what became of it.
    pub rot: BTreeSet<(usize, usize, u64)>,
    /// Up to which step a side's changes have been passed on, by feed and node.
    pub passed_on: BTreeMap<(Uuid, usize), u64>,
    /// Feeds whose first copy ended once on both sides.
    pub seeded: BTreeMap<Uuid, bool>,
    /// What happened, as text; empty unless asked for.
    pub trace: Option<Vec<String>>,
    /// Counters.
    pub totals: Totals,
}

/// Something that may happen next.
#[derive(Clone, Copy, Debug)]
enum Next {
    Job(usize, usize),
    Session(usize, u64),
    Sink(usize, u64),
    Bulk(usize, u64),
    Net(u64, usize),
    Data(u64, usize),
}

impl World {
    /// A number, or name, that was not used before.
    pub fn fresh(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// A UUID that was not used before.
    pub fn uuid(&mut self) -> Uuid {
        Uuid::from_u128(0x5117_0000_0000_0000_0000_0000_0000_0000 | u128::from(self.fresh()))
    }

    /// What a node's clock says, in milliseconds.
    pub fn now(&self, n: usize) -> u64 {
        self.ms + self.nodes[n].ahead
    }

    /// Notes what happens, for a trace.
    pub fn note(&mut self, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            let step = self.step;
            trace.push(format!("{step:6} {}", what()));
        }
    }

    /// The daemon of a node that is up.
    pub fn daemon(&mut self, n: usize) -> &mut Daemon {
        self.nodes[n].up.as_mut().expect("the node is up")
    }

    /// The volume as its group's metadata has it.
    pub fn volume(&self, n: usize) -> Option<&Volume> {
        self.nodes[n].up.as_ref()?.store.group().volume(LV)
    }

    /// The record of a feed.
    pub fn feed(&self, n: usize, feed: Uuid) -> Option<&Feed> {
        self.volume(n)?.feeds.iter().find(|f| f.uuid == feed)
    }

    /// Takes steps `steps` of the run.
    pub fn run(&mut self, steps: impl IntoIterator<Item = u32>) {
        for step in steps {
            self.rng = Rng::of_step(self.seed, step);
            self.totals.steps += 1;
            if self.storm.is_some() {
                self.storm_step();
                continue;
            }
            self.fate(50);
            match self.rng.below(1000) {
                0..=199 => self.client(),
                200..=874 => {
                    for _ in 0..5 {
                        self.progress();
                    }
                }
                875..=929 => {
                    self.tick();
                    self.supervise();
                }
                930..=984 => self.admin(),
                985..=988 => self.network_fault(),
                989..=993 => self.disk_fault(),
                994..=996 => self.crash_someone(),
                _ => {}
            }
        }
    }

    /// Lets one of the things in flight happen. False where nothing is.
    pub fn progress(&mut self) -> bool {
        let mut all = Vec::new();
        for (n, node) in self.nodes.iter().enumerate() {
            let Some(daemon) = &node.up else { continue };
            all.extend((0..daemon.jobs.len()).map(|j| Next::Job(n, j)));
            for (id, sess) in &daemon.sessions {
                if sess.has_work() {
                    all.extend([Next::Session(n, *id), Next::Session(n, *id)]);
                }
                if sess.sink.as_ref().is_some_and(|s| s.has_work()) {
                    all.push(Next::Sink(n, *id));
                }
                if sess.source.as_ref().is_some_and(|s| !s.bulk.is_empty()) {
                    all.push(Next::Bulk(n, *id));
                }
            }
        }
        for (id, conn) in &self.conns {
            for end in 0..2 {
                if conn.has_news(end) {
                    all.extend([Next::Net(*id, end), Next::Net(*id, end)]);
                }
            }
            for stream in 0..conn.data.len() {
                if conn.has_frame(stream) {
                    all.push(Next::Data(*id, stream));
                }
            }
        }
        if all.is_empty() {
            return false;
        }
        self.totals.operations += 1;
        match all[self.rng.index(all.len())] {
            Next::Job(n, j) if self.drags(n, j) || self.is_late(n, j) => {}
            Next::Job(n, j) => self.do_job(n, j),
            Next::Session(n, id) => self.drive(n, id),
            Next::Sink(n, id) => self.acknowledge(n, id),
            Next::Bulk(..) if self.storm.is_some() && self.faults && self.rng.chance(90) => {}
            Next::Bulk(n, id) => self.bulk(n, id),
            Next::Net(id, end) => self.deliver(id, end),
            Next::Data(..) if self.storm.is_some() && self.faults && self.rng.chance(70) => {}
            Next::Data(id, stream) => self.receive(id, stream),
        }
        true
    }

    /// Is this a job of a slow disk, and not its time yet?
    fn drags(&mut self, n: usize, job: usize) -> bool {
        let node = &self.nodes[n];
        let daemon = node.up.as_ref().expect("the node is up");
        let disk = match &daemon.jobs[job] {
            Job::Disk(io, _) => disk_of(&daemon.epochs, io.at.disk),
            _ => None,
        };
        disk.is_some_and(|disk| node.disks[disk].slow) && self.rng.chance(90)
    }

    /// Time passes: a little, or much at once.
    pub fn tick(&mut self) {
        self.ms += match self.rng.below(12) {
            0 => 500 + self.rng.below(6000),
            _ => 1 + self.rng.below(60),
        };
        if self.more && self.faults && self.rng.chance(1) {
            self.clock_jumps();
        }
        for n in 0..self.nodes.len() {
            if self.nodes[n].up.is_none() {
                continue;
            }
            let now = self.now(n);
            self.call(n, |engine, out| engine.tick(now, out));
            self.attach_plex(n);
            self.scrub_on(n);
            for sess in self.daemon(n).sessions.values_mut() {
                sess.push(feedplex::session::Event::Tick);
            }
        }
        self.prune();
    }

    /// Forgets what nobody will ask for any more.
    fn prune(&mut self) {
        for n in 0..self.nodes.len() {
            let mut floor = self.step;
            for claim in self.claims.values() {
                if let Truth::At(source, at) = claim.truth
                    && source == n
                {
                    floor = floor.min(at);
                }
            }
            if let Some(daemon) = &self.nodes[n].up {
                for asked in daemon.asked.values() {
                    floor = floor.min(asked.began());
                }
                for sess in daemon.sessions.values() {
                    if let Some(source) = &sess.source {
                        floor = floor.min(source.caught_at.unwrap_or(floor));
                    }
                }
            }
            for conn in self.conns.values() {
                floor = floor.min(conn.caught_at.unwrap_or(floor));
            }
            self.nodes[n].history.prune(floor);
        }
    }
}
