//! The cycle that lets regions leave the dirty-region log:
//!
//! 1. take the regions in the log that nobody writes and no feed has in flight;
//! 2. flush every plex: what was written to those regions is durable;
//! 3. write the changed pages of all maps: what targets miss of those regions is on the disks;
//! 4. drop the regions that nobody has touched meanwhile.
//!
//! The same flush is what takes a copied region off a plex's map. A plex that fails, or a change of
//! the layout, voids the cycle; the next one begins afresh.

use super::*;
use blockio::{IoError, mutant};
use regionmap::log::DRL_SLOT;

#[derive(Debug)]
pub(super) struct Cycle {
    /// Flushes in flight.
    pending: u32,
    /// The maps are being written.
    maps: bool,
    candidates: RegionMap,
    /// Regions that something happened to since the cycle began.
    pub touched: RegionMap,
    /// Regions that were copied to these plexes before the flush.
    copied: Vec<(PlexId, RegionMap)>,
    /// Regions of an online restore that arrived before the flush.
    arrived: Option<RegionMap>,
    pub aborted: bool,
    last: bool,
}

impl Engine {
    /// Begins a cycle where there is something to gain.
    pub(super) fn start_cycle(&mut self, out: Out<'_>) {
        if self.cycle.is_some() || self.gates > 0 || !self.retry_commits.is_empty() {
            return;
        }
        self.last_cycle_ms = self.now_ms;
        let last = self.closing && self.quiet();
        let mut touched = self.recover.clone();
        for range in self.ranges_written() {
            touched.set_range(range);
        }
        for feed in &self.feeds {
            for (range, _) in feed.live.iter() {
                touched.set_range(range);
            }
        }
        let mut candidates = self.drl.clone();
        candidates.subtract(&touched);
        let mut copied = Vec::new();
        for plex in self.plexes.iter().filter(|p| p.is_syncing()) {
            let mut done = plex.track.missing.clone();
            done.subtract(&plex.track.todo);
            if !done.is_empty() {
                copied.push((plex.id, done));
            }
        }
        let ahead = self.restore.as_ref().filter(|restore| restore.is_ahead());
        let arrived = ahead.map(|restore| {
            let mut arrived = restore.track.missing.clone();
            arrived.subtract(&restore.track.todo);
            arrived
        });
        let changed = self.tracks().any(|map| map.has_changes());
        let idle = candidates.is_empty() && copied.is_empty() && arrived.is_none();
        if idle && !changed && !last {
            return;
        }
        let mut disks = self.flush_disks();
        if mutant("log-cleared-unflushed") {
            disks.clear();
        }
        self.cycle = Some(Cycle {
            pending: disks.len() as u32,
            maps: false,
            candidates,
            touched,
            copied,
            arrived,
            aborted: false,
            last,
        });
        for disk in disks {
            self.emit_flush(disk, Tag::CycleFlush { disk }, out);
        }
    }

    /// Lets the dirty-region log hold no more than what is being written: what was written before is no change of those after a
    /// crash who begin to track now. `None` where it still does: ask again, a few times a second. Then a number for
    /// [`Engine::maps_written`].
    pub fn clean_log(&mut self, out: Out<'_>) -> Option<u64> {
        if self.drl.is_empty() {
            self.pump_log(out);
            return Some(self.log.barrier());
        }
        self.start_cycle(out);
        self.pump(out);
        None
    }

    fn tracks(&self) -> impl Iterator<Item = &RegionMap> {
        let plexes = self.plexes.iter().map(|p| &p.track.missing);
        let restore = self.restore.iter().map(|r| &r.track.missing);
        plexes
            .chain(self.feeds.iter().map(|f| &f.track.missing))
            .chain(restore)
    }

    pub(super) fn cycle_flush_done(
        &mut self,
        disk: DiskId,
        result: Result<(), IoError>,
        out: Out<'_>,
    ) {
        if let Err(error) = result {
            // Where it is the last active plex there is no client to tell; its regions stay in the
            // log, and the note says so.
            let _ = self.flush_error(disk, error, out);
            if let Some(cycle) = &mut self.cycle {
                cycle.aborted = true;
            }
        }
        if let Some(cycle) = &mut self.cycle {
            cycle.pending -= 1;
        }
    }

    /// Hands the changed pages of all maps to the log.
    pub(super) fn queue_maps(&mut self) {
        let plexes = self.plexes.iter_mut();
        let plexes = plexes.map(|p| (p.slot, &mut p.track.missing));
        let feeds = self.feeds.iter_mut();
        let feeds = feeds.map(|f| (f.id.0, &mut f.track.missing));
        let spare = self.spare.iter_mut().map(|(slot, map)| (*slot, map));
        let restore = self.restore.iter_mut();
        let restore = restore.map(|r| (r.slot, &mut r.track.missing));
        for (slot, map) in plexes.chain(feeds).chain(spare).chain(restore) {
            while let Some(page) = map.take_changed_page() {
                self.log.queue.insert((slot, page));
            }
        }
    }

    pub(super) fn pump_cycle(&mut self, out: Out<'_>) {
        if self.cycle.is_none() {
            let closing = self.closing && self.quiet() && !self.final_cycle_done;
            let synced = |p: &Plex| {
                p.is_syncing()
                    && p.busy.is_empty()
                    && p.track.todo.is_empty()
                    && !p.track.missing.is_empty()
            };
            let urgent = |r: &Restore| r.is_urgent();
            let wanted =
                self.plexes.iter().any(synced) || self.restore.as_ref().is_some_and(urgent);
            if closing || !self.copy_backoff && wanted {
                self.start_cycle(out);
            }
        }
        let Some(cycle) = &mut self.cycle else { return };
        if cycle.pending > 0 {
            return;
        }
        if !cycle.maps && !cycle.aborted {
            cycle.maps = true;
            for (id, copied) in std::mem::take(&mut cycle.copied) {
                if let Some(plex) = self.plexes.iter_mut().find(|p| p.id == id) {
                    for run in copied.runs(u64::MAX) {
                        plex.track.settled(run);
                    }
                }
            }
            if let (Some(arrived), Some(restore)) = (cycle.arrived.take(), &mut self.restore) {
                for run in arrived.runs(u64::MAX) {
                    restore.track.settled(run);
                }
            }
            if !mutant("log-cleared-before-maps") {
                self.queue_maps();
            }
            self.pump_log(out);
        }
        let Some(cycle) = &self.cycle else { return };
        if !cycle.aborted && !self.log.broken && !self.log.maps_idle() {
            return;
        }
        let Some(cycle) = self.cycle.take() else {
            return;
        };
        if cycle.aborted || self.log.broken {
            self.copy_backoff = true;
        } else {
            let mut clean = cycle.candidates;
            if !mutant("log-cleared-under-write") {
                clean.subtract(&cycle.touched);
            }
            self.drl.subtract(&clean);
            self.drl_durable.subtract(&clean);
            self.restore_logged(out);
            self.pump_restore(out);
        }
        self.final_cycle_done |= cycle.last;
    }

    /// Writes what there is to write to the log.
    pub(super) fn pump_log(&mut self, out: Out<'_>) {
        while let Some(page) = self.drl.take_changed_page() {
            self.log.queue.insert((DRL_SLOT, page));
        }
        let (drl, plexes, feeds) = (&self.drl, &self.plexes, &self.feeds);
        let spare = &self.spare;
        let restore = self.restore.as_ref();
        let tags = &mut self.tags;
        self.log.pump(
            |slot| match slot {
                DRL_SLOT => Some(drl),
                _ => {
                    let plex = plexes.iter().find(|p| p.slot == slot);
                    let feed = feeds.iter().find(|f| f.id.0 == slot);
                    plex.map(|p| &p.track.missing)
                        .or(feed.map(|f| &f.track.missing))
                        .or(restore.filter(|r| r.slot == slot).map(|r| &r.track.missing))
                        .or(spare.get(&slot))
                }
            },
            |page, copy| tags.insert(Tag::Log { page, copy }),
            |io| out.push(Action::Log(io)),
        );
        if self.log.broken && !self.wait_log.is_empty() {
            self.log_progress(out);
        }
    }

    pub(super) fn log_done(
        &mut self,
        key: PageKey,
        copy: u32,
        result: Result<(), IoError>,
        out: Out<'_>,
    ) {
        if let Some(at) = self.log.answered(key, copy, result.is_ok()) {
            self.log.drop_copy(at);
            out.push(Action::Note(Note::LogCopyFailed { at }));
            let error = result.err().unwrap_or(IoError::new(IoErrorKind::Medium));
            // A copy that missed an update must never be read again: it goes with its plex. Where
            // that is the last one, nothing may rely on the log any more.
            for plex in self.plexes_on(at.disk) {
                if !self.plex_error(plex, DiskOp::Write, ByteRange::default(), error, out) {
                    self.log.broken = true;
                }
            }
        }
        let Some((flight, good)) = self.log.finished(key) else {
            return;
        };
        if !good {
            self.log.queue.insert(key);
        } else if key.0 == DRL_SLOT {
            let mut bits = flight.bits;
            for (bit, now) in bits.iter_mut().zip(self.drl.page_bits(key.1).iter()) {
                *bit &= now;
            }
            self.drl_durable.merge_page(key.1, &bits);
        }
        self.log_progress(out);
    }
}

impl Cycle {
    /// A copy to a plex has ended. Where the range had been copied before the cycle began, too, and was missed again since,
    /// the cycle's flush does not cover what is there now.
    pub(super) fn copied_since(&mut self, id: PlexId, range: ByteRange) {
        for (_, copied) in self.copied.iter_mut().filter(|(plex, _)| *plex == id) {
            copied.clear_range(range);
        }
    }

    /// The volume grew; the cycle is void, but its books must fit.
    pub(super) fn grow(&mut self, size: u64) {
        self.touched.grow(size);
        self.candidates.grow(size);
    }
}
