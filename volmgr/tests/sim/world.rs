//! The world around one engine: disks, log copies, metadata, clients, feeds and their sinks.

mod devices;
mod events;
mod rest;

use super::Rng;
use super::disk::Disk;
use super::history::History;
use blockio::{ByteRange, Flags, IoError, IoErrorKind, Op, Origin, PayloadId, Request, Ticket};
use regionmap::log::Geometry;
use std::collections::{HashMap, VecDeque};
use uuid::Uuid;
use volmgr::engine::*;
use volmgr::model::{FeedMode, PlexState};

pub const SECTOR: u64 = 512;
const REGION: u64 = 4096;
const SIZE: u64 = 18 * REGION + 3 * SECTOR;
const EXTENT: u64 = 20 * REGION;
const SECTORS: usize = (SIZE / SECTOR) as usize;
/// Log areas lie here on their disks.
const LOG_AT: u64 = 1 << 30;
const BOUNCES: u64 = 3;
const BOUNCE_SECTORS: usize = (2 * REGION / SECTOR) as usize;

/// The slot of a point's own map.
const POINT: FeedId = FeedId(11);

/// Something the driver has been asked to do.
enum Job {
    Disk(DiskIo, u64),
    Log(LogIo),
    Commit(IoId, PlexId, PlexState),
    /// A bulk copy: being read, or on its way.
    Bulk(FeedCopy, Option<Vec<u64>>, u64),
    /// The sink has it; the acknowledgement is on its way.
    Ack(IoId, FeedId),
}

enum Asked {
    /// Plexes made equal to one of them.
    Rewrite {
        payload: PayloadId,
    },
    Read {
        range: ByteRange,
        at: u64,
        payload: PayloadId,
    },
    Write {
        op: Op,
        flags: Flags,
    },
    Flush {
        at: u64,
    },
}

enum Live {
    Op(FeedIo),
    /// The mark, the step it was asked for, the bulk copies before it.
    Mark(IoId, u64, u64),
}

struct Sink {
    id: FeedId,
    mode: FeedMode,
    data: Vec<u64>,
    online: bool,
    queue: VecDeque<Live>,
    behind: bool,
    fresh: bool,
    /// Nothing is acknowledged that it has not.
    hold: bool,
    /// Bulk copies asked for so far.
    bulks: u64,
    session: u64,
}

/// A point in time: what a sink that was cut off had, and the map of what changed since.
struct Mark {
    data: Vec<u64>,
    /// Until its map is on the disks.
    barrier: Option<u64>,
    /// The metadata names its slot.
    listed: bool,
}

struct PlexMeta {
    id: PlexId,
    state: PlexState,
    map: Vec<Piece>,
    disk: u32,
    log_valid: bool,
}

pub struct World {
    pub rng: Rng,
    engine: Option<Engine>,
    disks: Vec<Disk>,
    logs: Vec<Vec<u8>>,
    geometry: Geometry,
    plexes: Vec<PlexMeta>,
    sinks: Vec<Sink>,
    point: Option<Mark>,
    jobs: Vec<Job>,
    asked: HashMap<u64, Asked>,
    payloads: HashMap<u64, Vec<u64>>,
    history: History,
    step: u64,
    ms: u64,
    next: u64,
    faults: bool,
    closing: bool,
    /// When a read last met a bad sector.
    met_bad: u64,
    tracing: bool,
    pub crashes: u32,
    pub caught_up: u32,
    pub marks: u32,
    pub points: u32,
    pub synced: u32,
    pub repaired: u32,
    pub rewritten: u32,
    pub retired: u32,
    pub inline: u64,
}

fn at(disk: u32, start: u64, len: u64) -> DiskRange {
    DiskRange {
        disk: DiskId(disk),
        range: ByteRange::new(start, len),
    }
}

fn sectors(range: ByteRange) -> std::ops::Range<usize> {
    (range.start() / SECTOR) as usize..(range.end() / SECTOR) as usize
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let maps = [
            vec![Piece::Concat(at(0, 0, EXTENT))],
            vec![Piece::Striped {
                stripe_size: 2048,
                columns: vec![at(1, 0, EXTENT / 2), at(2, 4096, EXTENT / 2)],
            }],
            vec![
                Piece::Concat(at(3, EXTENT / 2, EXTENT / 2)),
                Piece::Concat(at(3, 0, EXTENT / 2)),
            ],
        ];
        let count = 1 + rng.below(3) as usize;
        let geometry = Geometry {
            volume: Uuid::from_u128(7),
            size: SIZE,
            region_size: REGION,
        };
        let plexes = maps
            .into_iter()
            .zip([0, 1, 3])
            .take(count)
            .enumerate()
            .map(|(i, (map, disk))| PlexMeta {
                id: PlexId(i as u32),
                state: if i > 0 && rng.chance(20) {
                    PlexState::Empty
                } else {
                    PlexState::Active
                },
                map,
                disk,
                log_valid: true,
            })
            .collect();
        let sinks = (0..rng.below(3))
            .map(|i| (i, rng.chance(30)))
            .map(|(i, sync)| Sink {
                id: FeedId(8 + i as u32),
                mode: if sync {
                    FeedMode::Sync
                } else {
                    FeedMode::Async
                },
                hold: sync && seed.is_multiple_of(2),
                data: vec![u64::MAX; SECTORS],
                online: false,
                queue: VecDeque::new(),
                behind: false,
                fresh: true,
                bulks: 0,
                session: 0,
            })
            .collect();
        let disks = (0..4)
            .map(|_| Disk::new((EXTENT / SECTOR) as usize + 8))
            .collect();
        let mut world = Self {
            rng,
            engine: None,
            disks,
            logs: Vec::new(),
            geometry,
            plexes,
            sinks,
            point: None,
            jobs: Vec::new(),
            asked: HashMap::new(),
            payloads: HashMap::new(),
            history: History::new(SECTORS),
            step: 1,
            ms: 0,
            next: 1000,
            faults: true,
            closing: false,
            met_bad: 0,
            tracing: std::env::var_os("TRACE").is_some(),
            crashes: 0,
            caught_up: 0,
            marks: 0,
            points: 0,
            synced: 0,
            repaired: 0,
            rewritten: 0,
            retired: 0,
            inline: 0,
        };
        for i in 0..count {
            world.logs.push(Vec::new());
            world.format_log(i);
        }
        world.start();
        world
    }

    fn format_log(&mut self, plex: usize) {
        let mut image = vec![0xee; self.geometry.log_bytes().unwrap() as usize];
        for (at, bytes) in self.geometry.format(&[]) {
            image[at as usize..at as usize + bytes.len()].copy_from_slice(&bytes);
        }
        self.logs[plex] = image;
    }

    fn layout(&self) -> VolumeLayout {
        let log = self.plexes.iter().filter(|p| p.log_valid);
        let listed = self.point.iter().filter(|p| p.listed);
        VolumeLayout {
            points: Vec::new(),
            size: SIZE,
            region_size: REGION,
            plexes: self
                .plexes
                .iter()
                .map(|p| PlexLayout {
                    id: p.id,
                    state: p.state,
                    map_slot: 1 + p.id.0,
                    map: p.map.clone(),
                })
                .collect(),
            feeds: self
                .sinks
                .iter()
                .map(|s| FeedLayout {
                    id: s.id,
                    mode: s.mode,
                    fresh: s.fresh,
                    hold: s.hold,
                })
                .chain(listed.map(|_| FeedLayout {
                    id: POINT,
                    mode: FeedMode::Async,
                    fresh: false,
                    hold: false,
                }))
                .collect(),
            log: log
                .map(|p| at(p.disk, LOG_AT, self.geometry.log_bytes().unwrap()))
                .collect(),
            fed: false,
            whole: true,
            restore: None,
        }
    }

    /// Starts an engine on what is on the disks.
    fn start(&mut self) {
        let images = self
            .plexes
            .iter()
            .zip(&self.logs)
            .filter(|(p, _)| p.log_valid)
            .map(|(_, image)| image.clone())
            .collect();
        let config = EngineConfig {
            max_in_flight: 10,
            bounce: (0..BOUNCES).map(PayloadId).collect(),
            bounce_bytes: 2 * REGION,
            block: SECTOR,
            max_bulk_copies: 2,
            max_bulk_in_flight: 64 << 20,
            bulk_bytes: 3 * REGION,
            max_live_bytes: 12 * REGION,
            restore_wait_ms: 1000,
            max_read_errors: 2,
            clear_interval_ms: 50,
            clean: false,
        };
        let engine = Engine::new(self.layout(), config, images).expect("the engine starts");
        self.engine = Some(engine);
        for bounce in 0..BOUNCES {
            self.payloads
                .insert(bounce, vec![u64::MAX - 1; BOUNCE_SECTORS]);
        }
    }

    fn call(&mut self, f: impl FnOnce(&mut Engine, &mut Vec<Action>)) {
        let mut out = Vec::new();
        let mut engine = self.engine.take().expect("an engine runs");
        f(&mut engine, &mut out);
        self.engine = Some(engine);
        self.step += 1;
        for action in out {
            self.take(action);
        }
    }

    /// With TRACE set, says what happens.
    fn trace(&self, what: impl FnOnce() -> String) {
        if self.tracing {
            eprintln!("{:5} {}", self.step, what());
        }
    }

    /// The engine is within a call while its actions are taken: then nobody knows.
    fn known_active(&self, id: PlexId) -> bool {
        let engine = self.engine.as_ref();
        engine.is_some_and(|e| e.plex_state(id) == Some(PlexState::Active))
    }

    fn engine(&self) -> &Engine {
        self.engine.as_ref().expect("an engine runs")
    }

    fn take(&mut self, action: Action) {
        self.trace(|| match &action {
            Action::Log(io) => format!("log {:?} {:?}", io.io, io.at),
            action => format!("{action:?}"),
        });
        match action {
            Action::Disk(io) => {
                let mark = self.disks[io.at.disk.0 as usize].mark();
                self.jobs.push(Job::Disk(io, mark));
            }
            Action::Log(io) => self.jobs.push(Job::Log(io)),
            Action::CommitPlexState {
                io, plex, state, ..
            } => {
                self.jobs.push(Job::Commit(io, plex, state));
            }
            Action::Feed(io) => {
                let sink = self.sink(io.feed);
                assert!(sink.online, "a live operation for a feed that is cut off");
                sink.queue.push_back(Live::Op(io));
            }
            Action::FeedMark { io, feed } => {
                let step = self.step;
                let sink = self.sink(feed);
                let bulks = sink.bulks;
                sink.queue.push_back(Live::Mark(io, step, bulks));
            }
            Action::FeedCopy(copy) => {
                let sink = self.sink(copy.feed);
                assert!(sink.online, "a bulk copy for a feed that is cut off");
                for live in &sink.queue {
                    if let Live::Op(op) = live {
                        assert!(!op.range.overlaps(copy.range), "bulk overtakes live");
                    }
                }
                sink.bulks += 1;
                let session = sink.session;
                self.jobs.push(Job::Bulk(copy, None, session));
            }
            Action::Complete { ticket, result } => self.complete(ticket.complete(), result),
            Action::Note(Note::FeedCaughtUp { feed }) => {
                self.caught_up += 1;
                // From here on the sink could do without a full copy.
                self.sink(feed).fresh = false;
            }
            Action::Note(Note::FeedBehind { feed }) => self.sink(feed).behind = true,
            Action::Note(Note::PlexSynced { .. }) => self.synced += 1,
            Action::Note(Note::ReadRepaired { .. }) => self.repaired += 1,
            Action::Note(Note::PlexRetired { plex, errors }) => {
                self.trace(|| format!("{plex:?} is retired after {errors} errors"));
                self.retired += 1;
            }
            Action::Note(Note::PlexError { .. } | Note::LogCopyFailed { .. }) => {}
            Action::Note(note @ (Note::FeedFetch { .. } | Note::FeedRestored { .. })) => {
                panic!("{note:?} without a restore")
            }
        }
    }

    fn sink(&mut self, id: FeedId) -> &mut Sink {
        self.sinks.iter_mut().find(|s| s.id == id).expect("a sink")
    }

    fn complete(&mut self, token: u64, result: Result<(), IoError>) {
        let now = self.step;
        match self.asked.remove(&token).expect("completed twice") {
            Asked::Read { range, at, payload } => {
                let data = self.payloads.remove(&payload.0).expect("payload");
                if result.is_err() {
                    let whole = self.plexes.iter().any(|p| {
                        p.state == PlexState::Active
                            && self.known_active(p.id)
                            && sectors(range).all(|s| {
                                let (disk, sector) = place(&p.map, s);
                                let disk = &self.disks[disk];
                                !disk.dead && !disk.bad.contains(&sector)
                            })
                    });
                    assert!(
                        !whole || self.closing,
                        "a read failed that a plex could serve"
                    );
                    return;
                }
                for (i, sector) in sectors(range).enumerate() {
                    let value = data[i];
                    assert!(
                        self.history.legal(sector, value, at, false),
                        "step {now}: sector {sector} read {value}: {:?}",
                        self.history.sectors[sector]
                    );
                    self.history.seen(sector, value);
                }
            }
            Asked::Write { op, flags } => {
                let durable = flags.contains(Flags::FUA);
                // A discard of a lone plex leaves what it likes.
                let exact = op != Op::Discard || self.plexes.len() > 1 || !self.sinks.is_empty();
                let good = result.is_ok();
                self.history.complete(token, good && exact, durable, now);
                if good && exact {
                    self.check_acknowledged(token, now);
                }
            }
            Asked::Rewrite { payload } => {
                self.payloads.remove(&payload.0);
                self.rewritten += u32::from(result.is_ok());
            }
            Asked::Flush { at } => {
                if result.is_ok() {
                    self.history.flushed(at);
                }
            }
        }
    }

    /// Invariant 1: whatever the metadata calls active has the write.
    fn check_acknowledged(&self, write: u64, now: u64) {
        for (sector, records) in self.history.sectors.iter().enumerate() {
            if !records.iter().any(|r| r.write == write) {
                continue;
            }
            for plex in self.plexes.iter().filter(|p| p.state == PlexState::Active) {
                let value = self.look(&plex.map, sector);
                assert!(
                    self.history.legal(sector, value, now + 1, false),
                    "step {now}: write {write} acknowledged, {:?} sector {sector} has {value}",
                    plex.id
                );
            }
            for sink in self.sinks.iter().filter(|s| s.hold) {
                assert!(
                    self.history
                        .legal(sector, sink.data[sector], now + 1, false),
                    "step {now}: write {write} acknowledged, {:?} sector {sector} has {}",
                    sink.id,
                    sink.data[sector]
                );
            }
        }
    }

    fn look(&self, map: &[Piece], sector: usize) -> u64 {
        let (disk, sector) = place(map, sector);
        self.disks[disk].view[sector]
    }
}

fn data_of(data: &[u64], range: ByteRange) -> &[u64] {
    &data[..(range.len() / SECTOR) as usize]
}

/// Where a sector of the volume lies: an own reckoning, not the engine's.
fn place(map: &[Piece], sector: usize) -> (usize, usize) {
    let mut at = sector as u64 * SECTOR;
    for piece in map {
        match piece {
            Piece::Concat(d) => {
                if at < d.range.len() {
                    return (
                        d.disk.0 as usize,
                        ((d.range.start() + at) / SECTOR) as usize,
                    );
                }
                at -= d.range.len();
            }
            Piece::Striped {
                stripe_size,
                columns,
            } => {
                let row = stripe_size * columns.len() as u64;
                let d = columns[(at % row / stripe_size) as usize];
                let offset = at / row * stripe_size + at % stripe_size;
                return (
                    d.disk.0 as usize,
                    ((d.range.start() + offset) / SECTOR) as usize,
                );
            }
        }
    }
    panic!("sector {sector} is not mapped");
}
