//! The world around one engine: disks, log copies, metadata, clients, feeds and their sinks.

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
    /// Bulk copies asked for so far.
    bulks: u64,
    session: u64,
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
    jobs: Vec<Job>,
    asked: HashMap<u64, Asked>,
    payloads: HashMap<u64, Vec<u64>>,
    history: History,
    step: u64,
    ms: u64,
    next: u64,
    faults: bool,
    closing: bool,
    tracing: bool,
    pub crashes: u32,
    pub caught_up: u32,
    pub marks: u32,
    pub synced: u32,
    pub repaired: u32,
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
            .map(|i| Sink {
                id: FeedId(8 + i as u32),
                mode: if rng.chance(30) {
                    FeedMode::Sync
                } else {
                    FeedMode::Async
                },
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
            jobs: Vec::new(),
            asked: HashMap::new(),
            payloads: HashMap::new(),
            history: History::new(SECTORS),
            step: 1,
            ms: 0,
            next: 1000,
            faults: true,
            closing: false,
            tracing: std::env::var_os("TRACE").is_some(),
            crashes: 0,
            caught_up: 0,
            marks: 0,
            synced: 0,
            repaired: 0,
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
        VolumeLayout {
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
                })
                .collect(),
            log: log
                .map(|p| at(p.disk, LOG_AT, self.geometry.log_bytes().unwrap()))
                .collect(),
            fed: false,
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
            bulk_bytes: 3 * REGION,
            max_live_bytes: 12 * REGION,
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
            Action::Note(Note::PlexError { .. } | Note::LogCopyFailed { .. }) => {}
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
        }
    }

    fn look(&self, map: &[Piece], sector: usize) -> u64 {
        let (disk, sector) = place(map, sector);
        self.disks[disk].view[sector]
    }

    fn submit(&mut self) {
        let token = self.next;
        self.next += 1;
        let hot = self.rng.chance(40);
        let start = self.rng.below(if hot { 12 } else { SECTORS as u64 });
        let long = self.rng.chance(20);
        let len = 1 + self.rng.below(if long { 40 } else { 6 });
        let len = len.min(SECTORS as u64 - start);
        let range = ByteRange::new(start * SECTOR, len * SECTOR);
        let mut flags = Flags::empty();
        flags.set(Flags::FUA, self.rng.chance(20));
        let payload = PayloadId(token);
        let at = self.step;
        let op = match self.rng.below(20) {
            0..=5 => Op::Read,
            6..=15 => Op::Write,
            16 => Op::WriteZeroes,
            17 => Op::Discard,
            _ => Op::Flush,
        };
        let mut request = Request {
            ticket: Ticket::new(token),
            op,
            range,
            flags,
            payload: None,
            origin: Origin::Client,
        };
        match op {
            Op::Read => {
                self.payloads
                    .insert(token, vec![u64::MAX - 2; len as usize]);
                request.payload = Some(payload);
                self.asked.insert(token, Asked::Read { range, at, payload });
            }
            Op::Flush => {
                request.range = ByteRange::default();
                self.asked.insert(token, Asked::Flush { at });
            }
            _ => {
                let value = if op == Op::Write { token } else { 0 };
                if op == Op::Write {
                    self.payloads.insert(token, vec![token; len as usize]);
                    request.payload = Some(payload);
                }
                if op == Op::WriteZeroes {
                    request.flags.set(Flags::FAST_ZERO, self.rng.chance(50));
                }
                self.history.submit(sectors(range), value, token, at);
                self.asked.insert(token, Asked::Write { op, flags });
            }
        }
        self.trace(|| format!("submit {request:?}"));
        self.call(|engine, out| engine.submit(request, out));
    }

    /// Lets one of the things in flight happen.
    fn progress(&mut self) {
        let live: Vec<usize> = (0..self.sinks.len())
            .filter(|i| !self.sinks[*i].queue.is_empty())
            .collect();
        let n = self.rng.below((self.jobs.len() + live.len()) as u64) as usize;
        if n >= self.jobs.len() {
            if let Some(&sink) = live.get(n - self.jobs.len()) {
                self.receive(sink);
            }
            return;
        }
        let job = self.jobs.swap_remove(n);
        self.trace(|| match &job {
            Job::Disk(io, _) => format!("  does {:?}", io.io),
            Job::Log(io) => format!("  does {:?}", io.io),
            Job::Commit(io, ..) | Job::Ack(io, _) => format!("  does {io:?}"),
            Job::Bulk(copy, data, _) => format!("  does {:?} {}", copy.io, data.is_some()),
        });
        match job {
            Job::Disk(io, mark) => {
                let result = self.disk_io(&io, mark, 100);
                self.call(|engine, out| engine.io_done(io.io, result, out));
            }
            Job::Log(io) => {
                let result = self.log_io(&io, 8);
                self.call(|engine, out| engine.io_done(io.io, result, out));
            }
            Job::Commit(io, plex, state) => {
                let result = if self.faults && self.rng.chance(10) {
                    Err(IoError::new(IoErrorKind::Medium))
                } else {
                    self.commit(plex, state);
                    Ok(())
                };
                self.call(|engine, out| engine.io_done(io, result, out));
            }
            Job::Bulk(copy, data, session) => self.bulk(copy, data, session),
            Job::Ack(io, _) => self.call(|engine, out| engine.io_done(io, Ok(()), out)),
        }
    }

    fn commit(&mut self, plex: PlexId, state: PlexState) {
        let plex = self
            .plexes
            .iter_mut()
            .find(|p| p.id == plex)
            .expect("a plex");
        plex.state = state;
        if state == PlexState::Failed {
            plex.log_valid = false;
        }
    }

    /// Performs it, each sector with this chance (less than 100 where a crash cuts it short).
    fn disk_io(&mut self, io: &DiskIo, mark: u64, percent: u64) -> Result<(), IoError> {
        let medium = Err(IoError::new(IoErrorKind::Medium));
        let disk = &mut self.disks[io.at.disk.0 as usize];
        let fua = io.flags.contains(Flags::FUA);
        let skip = io.payload.map_or(0, |p| (p.skip / SECTOR) as usize);
        if disk.dead {
            return medium;
        }
        match io.op {
            DiskOp::Flush => {
                if std::mem::take(&mut disk.fail_flush) {
                    disk.lose_cache(&mut self.rng);
                    return medium;
                }
                if percent == 100 {
                    disk.flush(mark);
                }
            }
            DiskOp::Read => {
                let id = io.payload.expect("a payload").id;
                let into = self.payloads.get_mut(&id.0).expect("payload is alive");
                for (i, sector) in sectors(io.at.range).enumerate() {
                    into[skip + i] = disk.view[sector];
                    if disk.bad.contains(&sector) {
                        return medium;
                    }
                }
            }
            DiskOp::Write => {
                let id = io.payload.expect("a payload").id;
                for (i, sector) in sectors(io.at.range).enumerate() {
                    let value = self.payloads[&id.0][skip + i];
                    if self.rng.chance(percent) {
                        disk.write(sector, value, fua);
                    }
                }
            }
            DiskOp::WriteZeroes => {
                // Disk 1 writes zeroes out.
                if io.at.disk.0 == 1 && io.flags.contains(Flags::FAST_ZERO) {
                    return Err(IoError::new(IoErrorKind::Unsupported));
                }
                for sector in sectors(io.at.range) {
                    if self.rng.chance(percent) {
                        disk.write(sector, 0, fua);
                    }
                }
            }
            DiskOp::Discard => {
                for sector in sectors(io.at.range) {
                    if self.rng.chance(50) {
                        disk.write(sector, 0, false);
                    }
                }
            }
            DiskOp::Prefetch => {}
        }
        Ok(())
    }

    fn log_io(&mut self, io: &LogIo, sectors: usize) -> Result<(), IoError> {
        if self.disks[io.at.disk.0 as usize].dead {
            return Err(IoError::new(IoErrorKind::Medium));
        }
        let plex = self.plexes.iter().position(|p| p.disk == io.at.disk.0);
        let image = &mut self.logs[plex.expect("a log copy")];
        let from = (io.at.range.start() - LOG_AT) as usize;
        let len = (sectors * 512).min(io.bytes.len());
        image[from..from + len].copy_from_slice(&io.bytes[..len]);
        Ok(())
    }

    fn bulk(&mut self, copy: FeedCopy, data: Option<Vec<u64>>, session: u64) {
        let io = copy.io;
        if self.sink(copy.feed).session != session {
            return;
        }
        if self.faults && self.rng.chance(3) {
            let kind = [IoErrorKind::Congested, IoErrorKind::Gone][self.rng.below(2) as usize];
            return self.call(|e, out| e.io_done(io, Err(IoError::new(kind)), out));
        }
        let Some(data) = data else {
            let mut data = Vec::new();
            for at in &copy.segments {
                let disk = &self.disks[at.disk.0 as usize];
                for sector in sectors(at.range) {
                    if disk.dead || disk.bad.contains(&sector) {
                        let error = Err(IoError::new(IoErrorKind::Medium));
                        return self.call(|e, out| e.io_done(io, error, out));
                    }
                    data.push(disk.view[sector]);
                }
            }
            assert_eq!(data.len() as u64 * SECTOR, copy.range.len());
            return self.jobs.push(Job::Bulk(copy, Some(data), session));
        };
        let sink = self.sink(copy.feed);
        sink.data[sectors(copy.range)].copy_from_slice(&data);
        let feed = copy.feed;
        self.jobs.push(Job::Ack(io, feed));
    }

    /// The sink takes the next live operation.
    fn receive(&mut self, index: usize) {
        let congested = self.faults && self.rng.chance(1);
        let sink = &mut self.sinks[index];
        let feed = sink.id;
        match sink.queue.pop_front() {
            Some(Live::Op(op)) => {
                if congested {
                    // Never sent; nor is anything after it that overlaps, as the engine must not
                    // rely on it.
                    let error = Err(IoError::new(IoErrorKind::Congested));
                    return self.call(|e, out| e.io_done(op.io, error, out));
                }
                match op.op {
                    Op::Write => {
                        let payload = op.payload.expect("a payload");
                        let data = &self.payloads[&payload.id.0];
                        sink.data[sectors(op.range)].copy_from_slice(data_of(data, op.range));
                    }
                    Op::WriteZeroes | Op::Discard => sink.data[sectors(op.range)].fill(0),
                    _ => {}
                }
                self.jobs.push(Job::Ack(op.io, feed));
            }
            Some(Live::Mark(io, step, bulks)) => {
                // A bulk copy since then may have brought something newer.
                if sink.bulks == bulks {
                    self.marks += 1;
                    for sector in 0..SECTORS {
                        let value = self.sinks[index].data[sector];
                        assert!(
                            self.history.legal(sector, value, step, false),
                            "a mark of step {step}: sector {sector} has {value}"
                        );
                    }
                }
                self.jobs.push(Job::Ack(io, feed));
            }
            None => {}
        }
    }

    /// The connection breaks: some of what was sent has arrived.
    fn cut(&mut self, index: usize) {
        let feed = self.sinks[index].id;
        let arrived = self.rng.below(self.sinks[index].queue.len() as u64 + 1);
        let was = std::mem::replace(&mut self.faults, false);
        for _ in 0..arrived {
            self.receive(index);
        }
        self.faults = was;
        let sink = &mut self.sinks[index];
        sink.queue.clear();
        sink.online = false;
        sink.behind = false;
        sink.session += 1;
        for job in std::mem::take(&mut self.jobs) {
            match job {
                Job::Bulk(copy, data, _) if copy.feed == feed => {
                    if let Some(data) = data
                        && self.rng.chance(50)
                    {
                        self.sink(feed).data[sectors(copy.range)].copy_from_slice(&data);
                    }
                }
                Job::Ack(_, f) if f == feed => {}
                other => self.jobs.push(other),
            }
        }
    }

    fn feed_event(&mut self) {
        if self.sinks.is_empty() {
            return;
        }
        let index = self.rng.below(self.sinks.len() as u64) as usize;
        let (id, online) = (self.sinks[index].id, self.sinks[index].online);
        if !online {
            self.sinks[index].online = true;
            return self.call(|engine, out| engine.feed_online(id, out));
        }
        match self.rng.below(8) {
            0 => {
                self.cut(index);
                self.call(|engine, out| engine.feed_offline(id, out));
            }
            1 => self.call(|engine, out| engine.feed_behind(id, out)),
            2..=4 if self.engine().is_caught_up(id) => {
                self.call(|engine, out| {
                    engine.mark(id, false, out).expect("a mark");
                });
            }
            _ if self.sinks[index].behind => {
                self.sinks[index].behind = false;
                self.call(|engine, out| engine.feed_resume(id, out));
            }
            _ => {}
        }
    }

    fn fault(&mut self) {
        let active: Vec<usize> = (0..self.plexes.len())
            .filter(|i| self.plexes[*i].state == PlexState::Active)
            .collect();
        let troubled = self.disks.iter().any(|d| d.dead || d.fail_flush)
            || self.jobs.iter().any(|j| matches!(j, Job::Commit(..)));
        match self.rng.below(4) {
            // One disk at a time, with another active plex, and not while recovering: two failures
            // at once lose data.
            0 | 1 if active.len() > 1 && !troubled && self.engine().recover_bytes() == 0 => {
                let plex = active[self.rng.below(active.len() as u64) as usize];
                let disk = self.plexes[plex].disk as usize;
                if self.disks.iter().all(|d| d.bad.is_empty()) {
                    self.trace(|| format!("disk {disk} fails"));
                    if self.rng.chance(50) {
                        self.disks[disk].dead = true;
                    } else {
                        self.disks[disk].fail_flush = true;
                    }
                }
            }
            2 if active.len() > 1 && !troubled && self.engine().recover_bytes() == 0 => {
                let disk = self.plexes[active[0]].disk as usize;
                let others_bad = (0..4).any(|d| d != disk && !self.disks[d].bad.is_empty());
                if !others_bad {
                    let sector = self.rng.below((EXTENT / 2 / SECTOR).min(60)) as usize;
                    self.disks[disk].bad.insert(sector);
                }
            }
            _ => self.replace(),
        }
    }

    /// Failed plexes get a good disk again.
    fn replace(&mut self) {
        if self.jobs.iter().any(|j| matches!(j, Job::Commit(..))) {
            return;
        }
        let failed = |p: &PlexMeta| p.state == PlexState::Failed;
        let Some(index) = self.plexes.iter().position(failed) else {
            return;
        };
        let disk = self.plexes[index].disk;
        let pending = |j: &Job| match j {
            Job::Disk(io, _) => io.at.disk.0 == disk,
            Job::Log(io) => io.at.disk.0 == disk,
            _ => false,
        };
        if self.jobs.iter().any(pending) {
            return;
        }
        self.trace(|| format!("replace disk {disk}"));
        self.disks[disk as usize].dead = false;
        self.disks[disk as usize].fail_flush = false;
        self.format_log(index);
        self.plexes[index].state = PlexState::Stale;
        self.plexes[index].log_valid = true;
        let layout = self.layout();
        self.call(|engine, out| engine.reconfigure(layout, out).expect("a good layout"));
    }

    /// The process dies, with or without the power.
    fn crash(&mut self) {
        // A flush that failed and was not yet known to the metadata has lost what a power cut may.
        let unknown = self.plexes.iter().any(|p| {
            p.state == PlexState::Active
                && self.engine().plex_state(p.id) == Some(PlexState::Failed)
        });
        let power = self.rng.chance(50) || unknown;
        self.crashes += 1;
        for disk in &mut self.disks {
            // A cache that is lost while nobody is there to hear of it cannot be told from data
            // that was always so.
            disk.fail_flush = false;
        }
        self.trace(|| format!("crash, power cut {power}"));
        for index in 0..self.sinks.len() {
            // What the sink takes now it takes from the dying source; nobody hears of it.
            let arrived = self.rng.below(self.sinks[index].queue.len() as u64 + 1);
            for _ in 0..arrived {
                if let Some(Live::Mark(..)) = self.sinks[index].queue.front() {
                    break;
                }
                let was = std::mem::replace(&mut self.faults, false);
                self.receive(index);
                self.faults = was;
            }
            let sink = &mut self.sinks[index];
            sink.queue.clear();
            sink.online = false;
            sink.behind = false;
            sink.session += 1;
        }
        for job in std::mem::take(&mut self.jobs) {
            match job {
                Job::Disk(io, mark) if io.op != DiskOp::Read => {
                    let percent = [0, 30, 100][self.rng.below(3) as usize];
                    let _ = self.disk_io(&io, mark, percent);
                }
                Job::Log(io) => {
                    let sectors = self.rng.below(9) as usize;
                    let _ = self.log_io(&io, sectors);
                }
                Job::Commit(_, plex, state) if self.rng.chance(50) => self.commit(plex, state),
                Job::Bulk(copy, Some(data), _) if self.rng.chance(50) => {
                    self.sink(copy.feed).data[sectors(copy.range)].copy_from_slice(&data);
                }
                _ => {}
            }
        }
        if power {
            for disk in &mut self.disks {
                disk.power_cut(&mut self.rng);
            }
        }
        self.history.crash(power, self.step);
        self.asked.clear();
        self.payloads.clear();
        // Its requests die with it: their tickets are nobody's duty any more.
        std::mem::forget(self.engine.take());
        self.step += 1;
        self.start();
    }

    fn tick(&mut self) {
        self.ms += 1 + self.rng.below(40);
        let ms = self.ms;
        self.call(|engine, out| engine.tick(ms, out));
    }

    pub fn run(&mut self, events: u32) {
        for _ in 0..events {
            match self.rng.below(1000) {
                0..=349 if self.asked.len() < 14 => self.submit(),
                350..=869 => self.progress(),
                870..=939 => self.tick(),
                940..=979 => self.feed_event(),
                980..=991 => self.fault(),
                992..=995 => self.crash(),
                _ => {}
            }
        }
    }

    /// Everything heals and comes to rest; then all copies must be equal.
    pub fn settle(&mut self) {
        self.faults = false;
        for disk in &mut self.disks {
            disk.fail_flush = false;
        }
        for round in 0..4000 {
            for _ in 0..20 {
                self.progress();
            }
            self.tick();
            for i in 0..self.sinks.len() {
                let (id, online, behind) =
                    (self.sinks[i].id, self.sinks[i].online, self.sinks[i].behind);
                if !online {
                    self.sinks[i].online = true;
                    self.call(|engine, out| engine.feed_online(id, out));
                } else if behind {
                    self.sinks[i].behind = false;
                    self.call(|engine, out| engine.feed_resume(id, out));
                }
            }
            self.replace();
            if !self.disks.iter().any(|d| d.dead) {
                // A disk died whose plex nothing has touched since: nothing to heal.
            } else if round > 200 {
                for disk in &mut self.disks {
                    disk.dead = false;
                }
            }
            let engine = self.engine();
            if self.jobs.is_empty()
                && self.asked.is_empty()
                && engine.is_idle()
                && engine.recover_bytes() == 0
                && engine.logged_bytes() == 0
                && self.plexes.iter().all(|p| p.state == PlexState::Active)
                && self
                    .sinks
                    .iter()
                    .all(|s| s.queue.is_empty() && engine.is_caught_up(s.id))
            {
                self.inline += engine.stats().inline_bytes;
                return self.check_equal();
            }
        }
        let engine = self.engine();
        panic!(
            "no rest: {} jobs, {} requests, idle {}, recover {}, logged {}, plexes {:?}, feeds {:?}",
            self.jobs.len(),
            self.asked.len(),
            engine.is_idle(),
            engine.recover_bytes(),
            engine.logged_bytes(),
            self.plexes.iter().map(|p| p.state).collect::<Vec<_>>(),
            self.sinks
                .iter()
                .map(|s| engine.dirty_bytes(s.id))
                .collect::<Vec<_>>(),
        );
    }

    fn check_equal(&self) {
        for sector in 0..SECTORS {
            let first = self.look(&self.plexes[0].map, sector);
            assert!(
                self.history.legal(sector, first, self.step + 1, false),
                "sector {sector} has {first}: {:?}",
                self.history.sectors[sector]
            );
            for plex in &self.plexes[1..] {
                let value = self.look(&plex.map, sector);
                assert_eq!(value, first, "{:?} differs in sector {sector}", plex.id);
            }
            for sink in &self.sinks {
                let value = sink.data[sector];
                assert_eq!(value, first, "{:?} differs in sector {sector}", sink.id);
            }
        }
    }

    /// Closes in good order; a new engine then has nothing to recover and misses nothing.
    pub fn close_and_reopen(&mut self) {
        self.closing = true;
        for i in 0..self.sinks.len() {
            self.cut(i);
        }
        self.call(|engine, out| engine.close(out));
        for _ in 0..2000 {
            if self.engine().is_idle() && self.jobs.is_empty() {
                break;
            }
            self.progress();
        }
        assert!(self.engine().is_idle(), "close does not end");
        self.closing = false;
        self.engine = None;
        self.start();
        assert_eq!(self.engine().recover_bytes(), 0);
        assert_eq!(self.engine().logged_bytes(), 0);
        for sink in &self.sinks {
            assert_eq!(self.engine().dirty_bytes(sink.id), 0, "a needless resync");
        }
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
