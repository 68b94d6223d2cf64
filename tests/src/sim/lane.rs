//! The engine's actions, and the clients of its volume.

use super::boot::disk_of;
use super::disk::{SECTOR, medium, sectors};
use super::scrub::rotten;
use super::setup::EXTENT;
use super::stream::{Finished, Flushed};
use super::world::{LV, World};
use blockio::{ByteRange, Flags, IoError, IoErrorKind, Op, Origin, PayloadId, Request, Ticket};
use feedplex::session::Event;
use volmgr::engine::{Action, DiskIo, DiskOp, Engine, IoId, LogIo, Note, PlexId};
use volmgr::model::{Layout, Plex, PlexState, Subdisk};
use volmgr::plan;

/// Something the engine has asked for.
pub enum Job {
    /// Disk I/O, and the moment it was asked for ([`Disk::mark`]).
    Disk(DiskIo, u64),
    /// An update of the log.
    Log(LogIo),
    /// A commit of a plex's state.
    Commit(IoId, PlexId, PlexState),
    /// This disk has done it well; the engine has not heard of it.
    Late(IoId, usize),
}

/// Who waits for a request.
#[derive(Clone, Debug)]
pub enum Owner {
    /// A client.
    Client,
    /// A frame of a session's stream: session, stream, sequence number.
    Frame(u64, usize, u64),
    /// A flush of a session.
    Flush(u64, Flushed),
    /// New copies of the log, of these plexes, become valid behind this flush.
    Adopt(Vec<u32>),
}

/// A request that has not been answered.
pub enum Asked {
    /// A read.
    Read {
        /// Where.
        range: ByteRange,
        /// When it was asked for.
        at: u64,
    },
    /// A write, discard or write-zeroes.
    Write {
        /// Where.
        range: ByteRange,
        /// Durable when answered.
        fua: bool,
        /// When it was asked for.
        at: u64,
        /// Who waits.
        owner: Owner,
    },
    /// A flush.
    Flush {
        /// When it was asked for.
        at: u64,
        /// Who waits.
        owner: Owner,
    },
    /// A look at several plexes.
    Compare {
        /// Where.
        range: ByteRange,
        /// At which.
        plexes: Vec<PlexId>,
        /// When it was asked for.
        at: u64,
    },
    /// Plexes made equal to one of them.
    Rewrite {
        /// Where.
        range: ByteRange,
        /// Whose content it is.
        source: PlexId,
        /// Who gets it.
        targets: Vec<PlexId>,
        /// When it was asked for.
        at: u64,
    },
}

impl Asked {
    /// When it was asked for.
    pub fn began(&self) -> u64 {
        match self {
            Self::Read { at, .. } | Self::Write { at, .. } | Self::Flush { at, .. } => *at,
            Self::Compare { at, .. } | Self::Rewrite { at, .. } => *at,
        }
    }
}

impl World {
    /// Calls the engine and takes what it says.
    pub fn call(&mut self, n: usize, f: impl FnOnce(&mut Engine, &mut Vec<Action>)) {
        let mut out = Vec::new();
        let daemon = self.daemon(n);
        f(&mut daemon.engine, &mut out);
        daemon.out.extend(out);
        self.step += 1;
        self.take_out(n);
    }

    /// Carries out what the engine wants, in its order: what comes of that on the way comes after.
    pub fn take_out(&mut self, n: usize) {
        if std::mem::replace(&mut self.daemon(n).taking, true) {
            return;
        }
        let mut calls = 0u32;
        loop {
            calls += 1;
            assert!(
                calls < 20_000,
                "n{n}: the engine does not come to an end by itself"
            );
            let daemon = self.daemon(n);
            if let Some(action) = daemon.out.pop_front() {
                self.take(n, action);
            } else if let Some((io, result)) = daemon.results.pop_front() {
                self.answer(n, io, result);
            } else {
                daemon.taking = false;
                return;
            }
        }
    }

    /// One operation has ended.
    fn answer(&mut self, n: usize, io: IoId, result: Result<(), IoError>) {
        let mut out = Vec::new();
        let daemon = self.daemon(n);
        daemon.engine.io_done(io, result, &mut out);
        daemon.out.extend(out);
        let mark = daemon.marks.remove(&io);
        self.step += 1;
        if let Some(mark) = mark {
            self.mark_done(n, mark, result.is_ok());
        }
    }

    /// One operation has ended; the engine and those who wait for it go on.
    pub fn io_done(&mut self, n: usize, io: IoId, result: Result<(), IoError>) {
        self.daemon(n).results.push_back((io, result));
        self.take_out(n);
    }

    fn take(&mut self, n: usize, action: Action) {
        self.note(|| match &action {
            Action::Log(io) => format!("n{n} log {:?} {:?}", io.io, io.at),
            action => format!("n{n} {action:?}"),
        });
        match action {
            Action::Disk(io) => {
                let disk = disk_of(&self.daemon(n).epochs, io.at.disk);
                let mark = disk.map_or(0, |disk| self.nodes[n].disks[disk].mark());
                self.daemon(n).jobs.push(Job::Disk(io, mark));
            }
            Action::Log(io) => self.daemon(n).jobs.push(Job::Log(io)),
            Action::CommitPlexState {
                io, plex, state, ..
            } => self.daemon(n).jobs.push(Job::Commit(io, plex, state)),
            Action::Feed(io) => self.send_live(n, io),
            Action::FeedMark { io, feed } => self.send_mark(n, io, feed),
            Action::FeedCopy(copy) => self.send_bulk(n, copy),
            Action::Complete { ticket, result } => {
                let token = ticket.complete();
                self.complete(n, token, result);
            }
            Action::Note(note) => self.noted(n, note),
        }
    }

    fn noted(&mut self, n: usize, note: Note) {
        match note {
            Note::FeedCaughtUp { feed } => {
                self.check_whole(n);
                let step = self.step;
                if let Some(sess) = self.session_of(n, feed) {
                    if let Some(source) = &mut sess.source {
                        source.caught_at = Some(step);
                    }
                    sess.push(Event::CaughtUp { live_sequence: 0 });
                }
            }
            Note::FeedBehind { feed } => {
                self.totals.behind += 1;
                if let Some(sess) = self.session_of(n, feed) {
                    sess.push(Event::Behind);
                }
            }
            Note::PlexSynced { plex } => {
                self.totals.synced += 1;
                self.plex_synced(n, plex);
                if let Some(storm) = &mut self.storm {
                    storm.omen = Some(n);
                }
            }
            Note::ReadRepaired { .. } => self.totals.repaired += 1,
            Note::PlexRetired { plex, .. } => self.check_retired(n, plex),
            Note::PlexError {
                plex, op, range, ..
            } => match op {
                DiskOp::Read => self.read_failed(n, plex),
                DiskOp::Flush => {}
                _ => self.write_failed(n, plex, range),
            },
            Note::LogCopyFailed { .. } => {}
            Note::FeedFetch { .. } | Note::FeedRestored { .. } => {
                panic!("n{n}: nobody asks for an online restore here: {note:?}")
            }
        }
    }

    /// Lets a job of a node happen. Commits happen in order.
    pub fn do_job(&mut self, n: usize, job: usize) {
        let jobs = &mut self.daemon(n).jobs;
        let job = match jobs[job] {
            Job::Commit(..) => jobs.iter().position(|j| matches!(j, Job::Commit(..))),
            _ => Some(job),
        };
        let job = jobs.remove(job.expect("there is one"));
        match job {
            Job::Disk(io, mark) => {
                self.note(|| format!("n{n}   does {:?}", io.io));
                let node = &mut self.nodes[n];
                let daemon = node.up.as_mut().expect("the node is up");
                let disk = disk_of(&daemon.epochs, io.at.disk);
                let result = match disk {
                    None => Err(IoError::new(IoErrorKind::Gone)),
                    Some(disk) => node.disks[disk].perform(
                        &io,
                        mark,
                        100,
                        &mut daemon.payloads,
                        &mut self.rng,
                    ),
                };
                if let (Ok(()), Some(disk)) = (result, disk)
                    && self.answers_late()
                {
                    return self.daemon(n).jobs.push(Job::Late(io.io, disk));
                }
                self.io_done(n, io.io, result);
            }
            Job::Late(io, _) => self.io_done(n, io, Ok(())),
            Job::Log(io) => {
                let node = &mut self.nodes[n];
                let daemon = node.up.as_mut().expect("the node is up");
                let result = match disk_of(&daemon.epochs, io.at.disk) {
                    None => Err(IoError::new(IoErrorKind::Gone)),
                    Some(disk) => node.disks[disk].write_log(&io, None),
                };
                self.io_done(n, io.io, result);
            }
            Job::Commit(io, plex, state) => {
                let change = move |group: &volmgr::model::Group| {
                    plan::set_plex_state(group, LV, plex.0, state)
                };
                if self.faults && self.rng.chance(4) {
                    return self.crash_in_commit(n, change);
                }
                let result = self.commit(n, change).map_err(|_| medium());
                self.note(|| format!("n{n}   plex{} is {state:?}: {result:?}", plex.0));
                self.io_done(n, io, result);
            }
        }
    }

    /// A client does something.
    pub fn client(&mut self) {
        let n = self.rng.index(self.nodes.len());
        if !self.nodes[n].open || self.nodes[n].up.is_none() || self.daemon(n).asked.len() > 12 {
            return;
        }
        let size = self.nodes[n].history.sectors.len() as u64;
        let hot = self.rng.chance(40);
        let used = self.storm.as_ref().map_or(size, |s| s.used.min(size));
        let start = self.rng.below(if hot { 12 } else { used });
        let long = self.rng.chance(20);
        let len = 1 + self.rng.below(if long { 40 } else { 6 });
        let range = ByteRange::new(start * SECTOR, len.min(size - start) * SECTOR);
        let mut flags = Flags::empty();
        flags.set(Flags::FUA, self.rng.chance(20));
        match self.rng.below(20) {
            0..=5 => self.read(n, range),
            6..=15 => {
                let value = self.fresh();
                let values = vec![value; (range.len() / SECTOR) as usize];
                self.write(n, Op::Write, range, values, flags, Owner::Client);
            }
            16 | 17 => {
                flags.set(Flags::FAST_ZERO, self.rng.chance(30));
                let values = vec![0; (range.len() / SECTOR) as usize];
                self.write(n, Op::WriteZeroes, range, values, flags, Owner::Client);
            }
            _ => self.flush(n, Owner::Client),
        }
    }

    fn read(&mut self, n: usize, range: ByteRange) {
        let (token, at) = (self.fresh(), self.step);
        let empty = vec![u64::MAX - 2; (range.len() / SECTOR) as usize];
        let daemon = self.daemon(n);
        daemon.payloads.insert(token, empty);
        daemon.asked.insert(token, Asked::Read { range, at });
        self.submit(n, token, Op::Read, range, Flags::empty(), Origin::Client);
    }

    /// Submits a write of these values (zeroes for anything but a write).
    pub fn write(
        &mut self,
        n: usize,
        op: Op,
        range: ByteRange,
        values: Vec<u64>,
        flags: Flags,
        owner: Owner,
    ) {
        let (token, at) = (self.fresh(), self.step);
        let origin = match owner {
            Owner::Client => {
                // It may be on the disks before it is acknowledged.
                self.client_wrote(n);
                Origin::Client
            }
            _ => Origin::Feed,
        };
        let first = sectors(range).start;
        self.nodes[n].history.submit(first, &values, token, at);
        let fua = flags.contains(Flags::FUA);
        let daemon = self.daemon(n);
        if op == Op::Write {
            daemon.payloads.insert(token, values);
        }
        let asked = Asked::Write {
            range,
            fua,
            at,
            owner,
        };
        daemon.asked.insert(token, asked);
        self.submit(n, token, op, range, flags, origin);
    }

    /// Submits a flush.
    pub fn flush(&mut self, n: usize, owner: Owner) {
        let (token, at) = (self.fresh(), self.step);
        let origin = match owner {
            Owner::Client => Origin::Client,
            _ => Origin::Internal,
        };
        self.daemon(n)
            .asked
            .insert(token, Asked::Flush { at, owner });
        let nothing = ByteRange::default();
        self.submit(n, token, Op::Flush, nothing, Flags::empty(), origin);
    }

    fn submit(
        &mut self,
        n: usize,
        token: u64,
        op: Op,
        range: ByteRange,
        flags: Flags,
        origin: Origin,
    ) {
        let payload = matches!(op, Op::Read | Op::Write).then_some(PayloadId(token));
        let request = Request {
            ticket: Ticket::new(token),
            op,
            range,
            flags,
            payload,
            origin,
        };
        self.note(|| format!("n{n} submit {request:?}"));
        self.call(n, |engine, out| engine.submit(request, out));
    }

    fn complete(&mut self, n: usize, token: u64, result: Result<(), IoError>) {
        let now = self.step;
        self.totals.requests += 1;
        let daemon = self.daemon(n);
        match daemon.asked.remove(&token).expect("completed twice") {
            Asked::Read { range, at } => {
                let data = daemon.payloads.remove(&token).expect("payload");
                self.check_read(n, range, at, &data, result);
            }
            Asked::Compare { range, .. } => {
                let data = daemon.payloads.remove(&token).expect("payload");
                self.compared(n, range, &data, result);
            }
            Asked::Rewrite {
                range,
                source,
                targets,
                ..
            } => {
                daemon.payloads.remove(&token);
                self.rewritten(n, range, source, &targets, result);
            }
            Asked::Write {
                range, fua, owner, ..
            } => {
                let good = result.is_ok();
                self.nodes[n].history.complete(token, good, fua, now);
                if good {
                    self.check_acknowledged(n, range);
                }
                match owner {
                    Owner::Client if good => {
                        self.nodes[n].last_write = now;
                        self.client_wrote(n);
                    }
                    Owner::Client => {}
                    owner if fua => self.frame_done(n, owner, Finished::Durable, result),
                    owner => self.frame_done(n, owner, Finished::Write, result),
                }
            }
            Asked::Flush { at, owner } => {
                if result.is_ok() {
                    self.nodes[n].history.flushed(at);
                }
                match owner {
                    Owner::Client => {}
                    Owner::Flush(sess, purpose) => self.flushed(n, sess, purpose, result),
                    Owner::Adopt(plexes) if result.is_ok() => self.adopted(n, &plexes),
                    Owner::Adopt(_) => {}
                    owner => self.frame_done(n, owner, Finished::Flush, result),
                }
            }
        }
    }

    /// Invariants 1 and 4: a read returns what was acknowledged last, and fails only where no plex
    /// has the data.
    fn check_read(
        &mut self,
        n: usize,
        range: ByteRange,
        at: u64,
        data: &[u64],
        result: Result<(), IoError>,
    ) {
        let now = self.step;
        if result.is_err() {
            let whole = self.plexes_in_service(n).iter().any(|plex| {
                sectors(range).all(|s| {
                    self.place(n, plex, s).is_some_and(|(disk, sector)| {
                        let disk = &self.nodes[n].disks[disk];
                        !disk.dead && !disk.bad.contains(&sector)
                    })
                })
            });
            assert!(!whole, "n{n}: a read failed that a plex could serve");
            return;
        }
        for (sector, value) in sectors(range).zip(data) {
            assert!(
                self.is_fine(n, sector, *value, at),
                "n{n} step {now}: sector {sector} read {value}: {:?}",
                self.nodes[n].history.sectors[sector]
            );
            if !rotten(*value) {
                self.nodes[n].history.seen(sector, *value);
            }
        }
    }

    /// Invariant 1: whatever the metadata calls active has the write.
    fn check_acknowledged(&self, n: usize, range: ByteRange) {
        let now = self.step;
        for plex in self.plexes_recorded_active(n) {
            for sector in sectors(range) {
                let Some(value) = self.look(n, &plex, sector) else {
                    continue;
                };
                assert!(
                    self.is_fine(n, sector, value, now + 1),
                    "n{n} step {now}: acknowledged, but an active plex has {value} in sector {sector}"
                );
            }
        }
    }

    /// The plexes that both the metadata and the engine call active.
    pub fn plexes_in_service(&self, n: usize) -> Vec<Plex> {
        let Some(daemon) = &self.nodes[n].up else {
            return Vec::new();
        };
        let mut plexes = self.plexes_recorded_active(n);
        plexes.retain(|p| daemon.engine.plex_state(PlexId(p.number)) == Some(PlexState::Active));
        plexes
    }

    /// The plexes that the metadata calls active.
    pub fn plexes_recorded_active(&self, n: usize) -> Vec<Plex> {
        let plexes = self.volume(n).into_iter().flat_map(|v| &v.plexes);
        plexes
            .filter(|p| p.state == PlexState::Active)
            .cloned()
            .collect()
    }

    /// Where a sector of a plex lies: an own reckoning, not the product's. `None` where that disk is
    /// marked missing.
    pub fn place(&self, n: usize, plex: &Plex, sector: usize) -> Option<(usize, usize)> {
        let group = self.nodes[n].up.as_ref()?.store.group();
        let byte = sector as u64 * SECTOR;
        let (columns, stripe) = match plex.layout {
            Layout::Concat => (1, EXTENT),
            Layout::Striped {
                columns,
                stripe_size,
            } => (u64::from(columns), stripe_size),
        };
        let set = |s: &&Subdisk| {
            let begin = s.plex_extent * EXTENT;
            (begin..begin + s.extents * columns * EXTENT).contains(&byte)
        };
        let begin = plex.subdisks.iter().find(set)?.plex_extent * EXTENT;
        let (chunk, rest) = ((byte - begin) / stripe, (byte - begin) % stripe);
        let (row, column) = match columns {
            1 => (0, 0),
            n => (chunk / n, chunk % n),
        };
        let offset = if columns == 1 {
            byte - begin
        } else {
            row * stripe + rest
        };
        let subdisk = plex
            .subdisks
            .iter()
            .filter(set)
            .find(|s| u64::from(s.column) == column)?;
        let here = group.pv(subdisk.pv)?.missing_since.is_none();
        let disk = self.nodes[n].pvs.iter().position(|p| *p == subdisk.pv)?;
        let first = (subdisk.pv_extent * EXTENT + offset) / SECTOR;
        here.then_some((disk, first as usize))
    }

    /// What a sector of a plex holds now.
    pub fn look(&self, n: usize, plex: &Plex, sector: usize) -> Option<u64> {
        let (disk, at) = self.place(n, plex, sector)?;
        Some(self.nodes[n].disks[disk].view[at])
    }
}
