//! Plexes whose disks wear out: retired in time, and not the last good one; what a write that failed was to put right is
//! right when the plex is back.

use super::boot::STORM_READ_ERRORS;
use super::disk::{SECTOR, sectors};
use super::lane::Owner;
use super::scrub::rotten;
use super::world::World;
use blockio::{ByteRange, Flags, Op};
use std::collections::HashMap;
use uuid::Uuid;
use volmgr::engine::PlexId;
use volmgr::model::{Plex, PlexState, Subdisk};

/// What a daemon's plexes have been through, by an own reckoning.
#[derive(Default)]
pub struct Worn {
    /// Reads that failed since the plex came into service.
    read_errors: HashMap<PlexId, u32>,
    /// What plexes had, in which sector, when a write that was to replace it failed.
    torn: Vec<(PlexId, usize, u64)>,
}

impl World {
    /// A read of a plex in service has failed. Where reads of it fail again and again, and another plex in service has
    /// failed none, it is in service no more.
    pub(super) fn read_failed(&mut self, n: usize, plex: PlexId) {
        let storm = self.storm.is_some();
        let daemon = self.daemon(n);
        let errors = daemon.worn.read_errors.entry(plex).or_insert(0);
        *errors += 1;
        let many = storm && *errors >= STORM_READ_ERRORS;
        let daemon = self.nodes[n].up.as_ref().expect("the node is up");
        let (engine, worn) = (&daemon.engine, &daemon.worn);
        let active = |p: PlexId| engine.plex_state(p) == Some(PlexState::Active);
        if !many || engine.recover_bytes() > 0 || !active(plex) {
            return;
        }
        let reads = |p: &PlexId| !worn.read_errors.contains_key(p);
        let plexes = self.volume(n).into_iter().flat_map(|v| &v.plexes);
        let others = plexes.map(|p| PlexId(p.number)).filter(|p| *p != plex);
        let good = others.filter(|p| active(*p)).find(reads);
        assert!(
            good.is_none(),
            "n{n}: a plex is not retired, though its reads fail again and again and {good:?} is good"
        );
    }

    /// A write to a plex has failed. What it leaves of what has rotted there is looked at again when the plex is back.
    pub(super) fn write_failed(&mut self, n: usize, id: PlexId, range: ByteRange) {
        let plexes = self.volume(n).into_iter().flat_map(|v| &v.plexes);
        let Some(plex) = plexes.clone().find(|p| p.number == id.0) else {
            return;
        };
        let daemon = self.nodes[n].up.as_ref().expect("the node is up");
        if daemon.engine.plex_state(id) == Some(PlexState::Active) {
            return;
        }
        let left = sectors(range).filter_map(|s| Some((id, s, self.look(n, plex, s)?)));
        let left: Vec<_> = left.filter(|(.., value)| rotten(*value)).collect();
        self.totals.torn += left.len() as u64;
        self.daemon(n).worn.torn.extend(left);
    }

    /// A disk is about to fail a write where a repair writes to one of these plexes, if the volume can do without it.
    pub(super) fn strike_repair(&mut self, n: usize, targets: &[PlexId]) {
        if self.storm.is_none() || !self.faults || !self.rng.chance(30) {
            return;
        }
        let in_service = self.plexes_in_service(n);
        let mended = |p: &&Plex| targets.contains(&PlexId(p.number));
        let disks = in_service.iter().filter(mended);
        let disks: Vec<usize> = disks.flat_map(|p| self.disks_of(n, p)).collect();
        let Some(&disk) = disks.get(self.rng.index(disks.len().max(1))) else {
            return;
        };
        if self.nodes[n].disks[disk].is_sound() && self.can_do_without(n, disk) {
            self.note(|| format!("n{n} disk {disk} is struck while it is mended"));
            self.nodes[n].disks[disk].fail_write = true;
        }
    }

    /// A client writes where plexes are being made equal.
    pub(super) fn write_meanwhile(&mut self, n: usize, range: ByteRange) {
        let storm = self.storm.is_some() && self.faults;
        if !storm || !self.nodes[n].open || !self.rng.chance(40) {
            return;
        }
        let (all, value) = (sectors(range), self.fresh());
        let first = all.start + self.rng.index(all.len());
        let values = vec![value; 1 + self.rng.index(all.end - first)];
        let len = values.len() as u64 * SECTOR;
        let range = ByteRange::new(first as u64 * SECTOR, len);
        self.write(n, Op::Write, range, values, Flags::empty(), Owner::Client);
    }

    /// A plex is in step: what failed writes left of what has rotted there is gone, if not all the others have that.
    pub(super) fn plex_synced(&mut self, n: usize, id: PlexId) {
        let worn = &mut self.daemon(n).worn;
        worn.read_errors.remove(&id);
        let torn = worn.torn.extract_if(.., |torn| torn.0 == id);
        let torn: Vec<_> = torn.collect();
        let (own, others): (Vec<_>, Vec<_>) = self
            .plexes_in_service(n)
            .into_iter()
            .partition(|p| p.number == id.0);
        for (_, sector, value) in torn {
            let has = |p| self.look(n, p, sector) == Some(value);
            assert!(
                !own.iter().any(has) || others.iter().any(has),
                "n{n}: plex{} is in step, but has in sector {sector} what a failed write was to replace",
                id.0
            );
        }
    }

    /// Invariant 4: a plex whose reads fail too often is taken out of service only where another one has everything, on
    /// disks that work, and one has failed no read since it came into service.
    pub(super) fn check_retired(&mut self, n: usize, plex: PlexId) {
        self.totals.retired += 1;
        let node = &self.nodes[n];
        let disk = |pv: Uuid| node.pvs.iter().position(|p| *p == pv);
        let works = |s: &Subdisk| disk(s.pv).is_some_and(|d| node.disks[d].is_harmless());
        let mut others = self.plexes_in_service(n);
        others.retain(|p| p.number != plex.0);
        let daemon = self.nodes[n].up.as_ref().expect("the node is up");
        let failed = &daemon.worn.read_errors;
        let reads = |p: &Plex| !failed.contains_key(&PlexId(p.number));
        assert!(
            others.iter().any(|p| p.subdisks.iter().all(works)) && others.iter().any(reads),
            "n{n}: plex{} is retired though it was the last good one",
            plex.0
        );
    }
}
