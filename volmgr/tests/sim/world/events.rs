//! What happens to the world: requests, cuts, faults, crashes.

use super::*;

impl World {
    pub(super) fn submit(&mut self) {
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

    /// Any plex is believed, and others are made equal to it: where nothing is wrong, nothing changes, whatever else
    /// goes on.
    pub(super) fn rewrite(&mut self) {
        let mut all: Vec<PlexId> = self.plexes.iter().map(|p| p.id).collect();
        if all.len() < 2 {
            return;
        }
        let source = all.remove(self.rng.below(all.len() as u64) as usize);
        if self.rng.chance(50) {
            all.truncate(1);
        }
        let token = self.next;
        self.next += 1;
        let start = self.rng.below(SECTORS as u64);
        let len = (1 + self.rng.below(20)).min(SECTORS as u64 - start);
        let payload = PayloadId(token);
        self.payloads
            .insert(token, vec![u64::MAX - 3; len as usize]);
        self.asked.insert(token, Asked::Rewrite { payload });
        let request = Request {
            ticket: Ticket::new(token),
            op: Op::Write,
            range: ByteRange::new(start * SECTOR, len * SECTOR),
            flags: Flags::empty(),
            payload: Some(payload),
            origin: Origin::Internal,
        };
        self.trace(|| format!("rewrite {request:?} from {source:?} to {all:?}"));
        self.call(|engine, out| engine.rewrite(request, source, all, out));
    }

    /// The connection breaks: some of what was sent has arrived.
    pub(super) fn cut(&mut self, index: usize) {
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

    pub(super) fn feed_event(&mut self) {
        if self.sinks.is_empty() {
            return;
        }
        let index = self.rng.below(self.sinks.len() as u64) as usize;
        let (id, online) = (self.sinks[index].id, self.sinks[index].online);
        if !online && self.point.is_none() && self.rng.chance(50) {
            return self.take_point(index);
        }
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

    /// What this sink has, which is cut off, becomes a point: from now on its map says what changed since.
    fn take_point(&mut self, index: usize) {
        let (from, data) = (self.sinks[index].id, self.sinks[index].data.clone());
        let mut barrier = 0;
        self.call(|engine, out| {
            engine.track_point(POINT.0, from, out).expect("a free slot");
            barrier = engine.maps_barrier();
        });
        self.points += 1;
        self.point = Some(Mark {
            data,
            barrier: Some(barrier),
            listed: false,
        });
    }

    /// A point gets on: its map is durable, so it is committed; the engine hears of that later.
    pub(super) fn point_event(&mut self) {
        let Some(point) = &mut self.point else { return };
        let engine = self.engine.as_ref().expect("an engine runs");
        match point.barrier {
            Some(barrier) if engine.maps_written(barrier) => {
                point.barrier = None;
                point.listed = true;
            }
            Some(_) => {}
            None if self.rng.chance(70) => {
                let layout = self.layout();
                self.call(|engine, out| engine.reconfigure(layout, out).expect("a good layout"));
            }
            None => {
                self.point = None;
                let layout = self.layout();
                self.call(|engine, out| engine.reconfigure(layout, out).expect("a good layout"));
            }
        }
    }

    /// What differs from the point is in its map.
    pub(super) fn check_point(&self) {
        let Some(point) = &self.point else { return };
        let plex = |p: &&PlexMeta| p.state == PlexState::Active && self.known_active(p.id);
        let Some(plex) = self.plexes.iter().find(plex) else {
            return;
        };
        let changed = self.engine().changed(POINT, ByteRange::new(0, SIZE));
        let changed = changed.expect("somebody keeps track");
        for sector in 0..SECTORS {
            let at = sector as u64 * SECTOR;
            if !changed.iter().any(|r| (r.start()..r.end()).contains(&at)) {
                let value = self.look(&plex.map, sector);
                let then = point.data[sector];
                assert_eq!(value, then, "sector {sector} changed since the point");
            }
        }
    }

    pub(super) fn fault(&mut self) {
        let active: Vec<usize> = (0..self.plexes.len())
            .filter(|i| {
                let plex = &self.plexes[*i];
                let known = self.engine().plex_state(plex.id);
                plex.state == PlexState::Active && known == Some(PlexState::Active)
            })
            .collect();
        let troubled = self
            .disks
            .iter()
            .any(|d| d.dead || d.fail_flush || d.fail_write)
            || self.jobs.iter().any(|j| matches!(j, Job::Commit(..)))
            // A read that one disk has failed needs the other, though the bad sector is mended by now.
            || self
                .asked
                .values()
                .any(|a| matches!(a, Asked::Read { at, .. } if *at <= self.met_bad));
        match self.rng.below(5) {
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
            // A write that fails on the last plex is the client's to hear of; nothing else is lost.
            3 if !active.is_empty() && !troubled && self.engine().recover_bytes() == 0 => {
                let disk = self.plexes[active[0]].disk as usize;
                if self.disks.iter().all(|d| d.bad.is_empty()) {
                    self.disks[disk].fail_write = true;
                }
            }
            _ => self.replace(),
        }
    }

    /// Failed plexes get a good disk again.
    pub(super) fn replace(&mut self) {
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
    pub(super) fn crash(&mut self) {
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
            disk.fail_write = false;
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
        self.point.take_if(|p| !p.listed);
        self.start();
        self.check_point();
    }

    pub(super) fn tick(&mut self) {
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
                980..=989 => self.fault(),
                990..=991 => self.point_event(),
                992..=995 => self.crash(),
                996..=999 if self.asked.len() < 14 => self.rewrite(),
                _ => {}
            }
        }
    }
}
