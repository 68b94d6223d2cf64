//! A volume in use while its content is still coming from a peer: an online restore, with cuts, kills
//! and power cuts. A restore changes nothing that a client can see, so only clients' writes are in the
//! history; whatever the peer sends, sends twice or sends late must not show.

mod events;

use super::Rng;
use super::disk::Disk;
use super::history::{History, Record};
use blockio::{ByteRange, Flags, IoError, Op, Origin, PayloadId, Request, Ticket};
use regionmap::log::Geometry;
use std::collections::{BTreeSet, HashMap, VecDeque};
use uuid::Uuid;
use volmgr::engine::*;
use volmgr::model::{FeedMode, PlexState};

const SECTOR: u64 = 512;
const REGION: u64 = 4096;
const PER_REGION: u64 = REGION / SECTOR;
const SIZE: u64 = 18 * REGION + 3 * SECTOR;
const SECTORS: usize = (SIZE / SECTOR) as usize;
const LOG_AT: u64 = 1 << 30;
const FEED: FeedId = FeedId(8);
const SLOT: u32 = 9;

enum Job {
    Disk(DiskIo, u64),
    Log(LogIo),
    Commit(IoId),
}

enum Asked {
    Read {
        range: ByteRange,
        at: u64,
        payload: PayloadId,
    },
    Write {
        flags: Flags,
    },
    Flush {
        at: u64,
    },
    /// A part of a region, in this session of the peer.
    Brought {
        region: u64,
        session: u64,
        delegated: Option<ByteRange>,
    },
    /// These regions have been written to the caches.
    PeerFlush {
        regions: BTreeSet<u64>,
        session: u64,
    },
}

/// What the peer still has to send.
#[derive(Default)]
struct Peer {
    session: u64,
    online: bool,
    /// Not known to be durable here; lives as long as the peer.
    map: BTreeSet<u64>,
    /// Not sent in this session.
    todo: BTreeSet<u64>,
    /// Asked for.
    first: VecDeque<u64>,
    /// Parts on their way by region, and whether all went well.
    parts: HashMap<u64, (u64, bool)>,
    written: BTreeSet<u64>,
}

pub struct RestoreWorld {
    rng: Rng,
    engine: Option<Engine>,
    disks: Vec<Disk>,
    logs: Vec<Vec<u8>>,
    geometry: Geometry,
    jobs: Vec<Job>,
    asked: HashMap<u64, Asked>,
    payloads: HashMap<u64, Vec<u64>>,
    history: History,
    /// What the peer has: it never changes.
    remote: Vec<u64>,
    peer: Peer,
    step: u64,
    ms: u64,
    next: u64,
    pub crashes: u32,
    pub fetched: u32,
    pub refused: u32,
    pub dropped: u32,
}

fn sectors(range: ByteRange) -> std::ops::Range<usize> {
    (range.start() / SECTOR) as usize..(range.end() / SECTOR) as usize
}

fn region(n: u64) -> ByteRange {
    let start = n * REGION;
    ByteRange::new(start, REGION.min(SIZE - start))
}

impl RestoreWorld {
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let geometry = Geometry {
            volume: Uuid::from_u128(7),
            size: SIZE,
            region_size: REGION,
        };
        let regions = SIZE.div_ceil(REGION);
        let missing: BTreeSet<u64> = (0..regions).filter(|_| rng.chance(70)).collect();
        let remote: Vec<u64> = (0..SECTORS as u64).map(|s| 1_000_000 + s).collect();
        let count = 1 + rng.below(2) as usize;
        let mut disks: Vec<Disk> = (0..count).map(|_| Disk::new(SECTORS + 40)).collect();
        for disk in &mut disks {
            for (s, there) in remote.iter().enumerate() {
                let here = match missing.contains(&(s as u64 / PER_REGION)) {
                    true => 2_000_000 + s as u64,
                    false => *there,
                };
                disk.write(s, here, true);
            }
        }
        let mut history = History::new(SECTORS);
        for (records, value) in history.sectors.iter_mut().zip(&remote) {
            *records = vec![Record {
                value: *value,
                write: 0,
                from: 0,
                done: Some(0),
                good: false,
                durable: true,
                hidden: false,
            }];
        }
        let mut image = vec![0; geometry.log_bytes().unwrap() as usize];
        for (at, bytes) in geometry.format(&[]) {
            image[at as usize..at as usize + bytes.len()].copy_from_slice(&bytes);
        }
        let mut world = Self {
            rng,
            engine: None,
            logs: vec![image; count],
            disks,
            geometry,
            jobs: Vec::new(),
            asked: HashMap::new(),
            payloads: HashMap::new(),
            history,
            remote,
            peer: Peer::default(),
            step: 1,
            ms: 0,
            next: 1000,
            crashes: 0,
            fetched: 0,
            refused: 0,
            dropped: 0,
        };
        world.prepare(&missing);
        world
    }

    /// As the control plane begins a restore: what the feed's map says becomes what is missing.
    fn prepare(&mut self, missing: &BTreeSet<u64>) {
        self.start(None);
        let mut map = regionmap::RegionMap::new(SIZE, REGION);
        for n in missing {
            map.set_range(region(*n));
        }
        self.call(|e, out| e.clear_feed_map(FEED, out));
        self.call(|e, out| e.merge_feed_map(FEED, &map, out));
        self.call(|e, out| e.prepare_restore(SLOT, FEED, false, out));
        self.drain();
        self.call(|e, out| e.clear_feed_map(FEED, out));
        self.drain();
        let layout = self.layout(Some(SLOT));
        self.call(|e, out| e.reconfigure(layout, out).expect("a layout"));
        assert_eq!(self.engine().dirty_bytes(FEED), 0);
    }

    fn drain(&mut self) {
        let barrier = self.engine.as_mut().expect("an engine").maps_barrier();
        while !self.jobs.is_empty() {
            self.progress();
        }
        assert!(self.engine().maps_written(barrier));
    }

    fn layout(&self, slot: Option<u32>) -> VolumeLayout {
        let place = |disk: usize, start, len| DiskRange {
            disk: DiskId(disk as u32),
            range: ByteRange::new(start, len),
        };
        let all = 0..self.disks.len();
        VolumeLayout {
            points: Vec::new(),
            size: SIZE,
            region_size: REGION,
            plexes: all
                .clone()
                .map(|i| PlexLayout {
                    id: PlexId(i as u32),
                    state: PlexState::Active,
                    map_slot: 1 + i as u32,
                    map: vec![Piece::Concat(place(i, 0, 20 * REGION))],
                })
                .collect(),
            feeds: vec![FeedLayout {
                id: FEED,
                mode: FeedMode::Async,
                fresh: false,
                hold: false,
            }],
            log: all
                .map(|i| place(i, LOG_AT, self.geometry.log_bytes().unwrap()))
                .collect(),
            fed: false,
            whole: true,
            restore: slot.map(|map_slot| RestoreLayout {
                feed: FEED,
                map_slot,
            }),
        }
    }

    fn start(&mut self, slot: Option<u32>) {
        let config = EngineConfig {
            max_in_flight: 10,
            bounce: vec![PayloadId(0)],
            bounce_bytes: 2 * REGION,
            block: SECTOR,
            restore_wait_ms: 5000,
            clear_interval_ms: 50,
            ..EngineConfig::default()
        };
        let engine = Engine::new(self.layout(slot), config, self.logs.clone());
        self.engine = Some(engine.expect("the engine starts"));
        self.payloads.insert(0, vec![0; 2 * PER_REGION as usize]);
    }

    fn engine(&self) -> &Engine {
        self.engine.as_ref().expect("an engine runs")
    }

    fn call(&mut self, f: impl FnOnce(&mut Engine, &mut Vec<Action>)) {
        let mut out = Vec::new();
        f(self.engine.as_mut().expect("an engine runs"), &mut out);
        self.step += 1;
        for action in out {
            match action {
                Action::Disk(io) => {
                    let mark = self.disks[io.at.disk.0 as usize].mark();
                    self.jobs.push(Job::Disk(io, mark));
                }
                Action::Log(io) => self.jobs.push(Job::Log(io)),
                Action::CommitPlexState { io, .. } => self.jobs.push(Job::Commit(io)),
                Action::Complete { ticket, result } => self.complete(ticket.complete(), result),
                Action::Note(Note::FeedFetch { feed, ranges }) => {
                    assert_eq!(feed, FEED);
                    for range in ranges {
                        assert!(range.start() % REGION == 0 && range.end() <= SIZE);
                        let all = range.start() / REGION..range.end().div_ceil(REGION);
                        self.peer.first.extend(all);
                        self.fetched += 1;
                    }
                }
                Action::Note(_) => {}
                other => panic!("{other:?} in a restore"),
            }
        }
    }

    fn complete(&mut self, token: u64, result: Result<(), IoError>) {
        let now = self.step;
        match self.asked.remove(&token).expect("completed twice") {
            Asked::Read { range, at, payload } => {
                let data = self.payloads.remove(&payload.0).expect("payload");
                if result.is_err() {
                    self.refused += 1;
                    return;
                }
                for (value, sector) in data.into_iter().zip(sectors(range)) {
                    assert!(
                        self.history.legal(sector, value, at, false),
                        "step {now}: sector {sector} read {value}: {:?}",
                        self.history.sectors[sector]
                    );
                    self.history.seen(sector, value);
                }
            }
            Asked::Write { flags } => {
                self.refused += u32::from(result.is_err());
                let durable = flags.contains(Flags::FUA);
                self.history.complete(token, result.is_ok(), durable, now);
            }
            Asked::Flush { at } => self.history.flushed(at),
            Asked::Brought {
                region,
                session,
                delegated: _,
            } => {
                if session == self.peer.session
                    && let Some((left, good)) = self.peer.parts.get_mut(&region)
                {
                    *left -= 1;
                    *good &= result.is_ok();
                    if *left == 0 {
                        let (_, good) = self.peer.parts.remove(&region).expect("parts");
                        if good {
                            self.peer.written.insert(region);
                        } else {
                            self.peer.todo.insert(region);
                        }
                    }
                }
            }
            Asked::PeerFlush { regions, session } => {
                if session == self.peer.session && result.is_ok() {
                    for region in regions {
                        // Sent again since? Then it is not known what of it is durable.
                        if !self.peer.todo.contains(&region)
                            && !self.peer.parts.contains_key(&region)
                        {
                            self.peer.map.remove(&region);
                        }
                    }
                }
            }
        }
    }

    fn progress(&mut self) {
        if self.jobs.is_empty() {
            return;
        }
        let n = self.rng.below(self.jobs.len() as u64) as usize;
        match self.jobs.remove(n) {
            Job::Disk(io, mark) => {
                self.disk_io(&io, mark, 100);
                self.call(|e, out| e.io_done(io.io, Ok(()), out));
            }
            Job::Log(io) => {
                self.log_io(&io, 8);
                self.call(|e, out| e.io_done(io.io, Ok(()), out));
            }
            Job::Commit(io) => self.call(|e, out| e.io_done(io, Ok(()), out)),
        }
    }

    fn disk_io(&mut self, io: &DiskIo, mark: u64, percent: u64) {
        let disk = &mut self.disks[io.at.disk.0 as usize];
        let fua = io.flags.contains(Flags::FUA);
        let skip = io.payload.map_or(0, |p| (p.skip / SECTOR) as usize);
        let data = io.payload.map(|p| p.id.0);
        match (io.op, data) {
            (DiskOp::Flush, _) if percent == 100 => disk.flush(mark),
            (DiskOp::Read, Some(id)) => {
                let into = self.payloads.get_mut(&id).expect("payload is alive");
                for (i, sector) in sectors(io.at.range).enumerate() {
                    into[skip + i] = disk.view[sector];
                }
            }
            (DiskOp::Write, Some(id)) => {
                for (i, sector) in sectors(io.at.range).enumerate() {
                    if self.rng.chance(percent) {
                        disk.write(sector, self.payloads[&id][skip + i], fua);
                    }
                }
            }
            (DiskOp::WriteZeroes | DiskOp::Discard, _) => {
                for sector in sectors(io.at.range) {
                    if self.rng.chance(percent) {
                        disk.write(sector, 0, fua);
                    }
                }
            }
            _ => {}
        }
    }

    fn log_io(&mut self, io: &LogIo, sectors: usize) {
        let image = &mut self.logs[io.at.disk.0 as usize];
        let from = (io.at.range.start() - LOG_AT) as usize;
        let len = (sectors * 512).min(io.bytes.len());
        image[from..from + len].copy_from_slice(&io.bytes[..len]);
    }

    fn request(&mut self, op: Op, range: ByteRange, origin: Origin, flags: Flags) -> Request {
        self.next += 1;
        let payload = matches!(op, Op::Read | Op::Write).then_some(PayloadId(self.next));
        Request {
            ticket: Ticket::new(self.next),
            op,
            range,
            flags,
            payload,
            origin,
        }
    }

    pub fn run(&mut self, events: u32) {
        for _ in 0..events {
            match self.rng.below(1000) {
                0..=249 if self.asked.len() < 14 => self.client(),
                250..=749 => self.progress(),
                750..=819 => self.tick(),
                820..=979 => self.serve(),
                980..=989 => self.cut(),
                990..=995 => self.crash(),
                _ => {}
            }
        }
    }

    /// The restore ends; then the plexes are equal, what clients saw is there, and the map for the
    /// way back knows of all that differs from the peer.
    pub fn settle(&mut self) {
        for round in 0..4000 {
            for _ in 0..20 {
                self.progress();
            }
            self.serve();
            self.tick();
            if round % 50 == 49 {
                self.call(|e, out| e.hurry_restore(out));
                if self.peer.todo.is_empty()
                    && self.engine().restore_bytes() > 0
                    && self.asked.is_empty()
                {
                    self.cut();
                }
            }
            let engine = self.engine();
            let rest = self.jobs.is_empty() && self.asked.is_empty() && engine.is_idle();
            if rest && engine.restore_bytes() == 0 && engine.recover_bytes() == 0 {
                return self.check();
            }
        }
        let left = self.engine().restore_bytes();
        panic!(
            "no rest: {left} bytes missing, {} asked, {} jobs",
            self.asked.len(),
            self.jobs.len()
        );
    }

    fn check(&self) {
        let map = self.engine().feed_map(FEED).expect("a map");
        for sector in 0..SECTORS {
            let value = self.disks[0].view[sector];
            assert!(
                self.history.legal(sector, value, self.step + 1, false),
                "sector {sector} has {value}: {:?}",
                self.history.sectors[sector]
            );
            for disk in &self.disks {
                assert_eq!(disk.view[sector], value, "plexes differ in sector {sector}");
            }
            let tracked = map.is_set(sector as u64 / PER_REGION);
            assert!(
                tracked || value == self.remote[sector],
                "sector {sector} differs from the peer and nobody knows"
            );
        }
    }
}
