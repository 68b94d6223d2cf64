//! What breaks: disks, clocks, machines.

use super::disk::Disk;
use super::world::World;
use feedplex::session::RecordChange;
use volmgr::model::PlexState;
use volmgr::plan;

impl World {
    /// A node's clock goes on by much while nothing happens there: a machine that was suspended.
    pub fn clock_jumps(&mut self) {
        let n = self.rng.index(self.nodes.len());
        self.nodes[n].ahead += 1000 + self.rng.below(100_000);
        self.totals.clock_jumps += 1;
        self.note(|| format!("the clock of n{n} jumps"));
    }

    /// A disk fails, in one of the ways that the volume must survive.
    pub fn disk_fault(&mut self) {
        let n = self.rng.index(self.nodes.len());
        if self.nodes[n].up.is_none() {
            return;
        }
        let active = self.plexes_in_service(n);
        let daemon = self.daemon(n);
        let troubled = daemon.engine.recover_bytes() > 0 || !daemon.gone.is_empty();
        let troubled = troubled || self.commits_pending(n) || {
            let disks = &self.nodes[n].disks;
            !disks.iter().all(Disk::is_sound)
        };
        // One at a time: two failures at once may lose data.
        if troubled || active.is_empty() {
            return;
        }
        let plex = &active[self.rng.index(active.len())];
        let pv = plex.subdisks[0].pv;
        let Some(disk) = self.nodes[n].pvs.iter().position(|p| *p == pv) else {
            return;
        };
        // A plex that only catches up does not help.
        let other = active.iter().any(|p| p.subdisks.iter().all(|s| s.pv != pv));
        let sectors = self.nodes[n].history.sectors.len();
        let sector = self.rng.index(sectors);
        match self.rng.below(if self.more { 6 } else { 4 }) {
            4 => {
                self.totals.full_disks += 1;
                self.nodes[n].disks[disk].full = true;
            }
            5 => {
                self.totals.slow_disks += 1;
                self.nodes[n].disks[disk].slow = true;
            }
            0 if other => self.nodes[n].disks[disk].die(),
            1 if other => self.nodes[n].disks[disk].fail_flush = true,
            2 if other => {
                if let Some((disk, at)) = self.place(n, plex, sector) {
                    self.nodes[n].disks[disk].bad.insert(at);
                }
            }
            // The last plex's failure is the client's to hear of; nothing else is lost.
            _ => self.nodes[n].disks[disk].fail_write = true,
        }
        self.note(|| format!("n{n} disk {disk} fails"));
    }

    /// Disks that were given up, and plexes that have failed, come back.
    pub fn disk_returns(&mut self, n: usize) {
        if self.commits_pending(n) {
            return;
        }
        for disk in 0..self.nodes[n].disks.len() {
            self.nodes[n].disks[disk].recover();
            self.one_disk_returns(n, disk);
        }
    }

    /// The same for one disk; false where it was not away.
    pub(super) fn one_disk_returns(&mut self, n: usize, disk: usize) -> bool {
        let gone = self.daemon(n).gone.contains(&disk);
        let dead = self.nodes[n].disks[disk].dead;
        let pv = self.nodes[n].pvs[disk];
        let failed = self.volume(n).is_some_and(|v| {
            v.plexes
                .iter()
                .any(|p| p.state == PlexState::Failed && p.subdisks.iter().any(|s| s.pv == pv))
        });
        let listed = self
            .daemon(n)
            .store
            .group()
            .pv(pv)
            .and_then(|p| p.missing_since);
        if !gone && !failed && listed.is_none() {
            // A disk that nobody has missed yet heals by itself.
            if dead && !self.faults {
                self.nodes[n].disks[disk].revive();
            }
            return false;
        }
        self.note(|| format!("n{n} disk {disk} returns"));
        self.nodes[n].disks[disk].revive();
        let daemon = self.daemon(n);
        daemon.gone.retain(|d| *d != disk);
        daemon.epochs[disk] += 1;
        daemon.store.forget(pv);
        let back = self.commit(n, |group| {
            let group = plan::mark_pv_returned(group, pv, "disk")?;
            Ok(plan::revive_plexes(&group, pv, false))
        });
        if back.is_ok() {
            self.reconfigured(n);
            self.adopt(n);
        }
        true
    }

    /// A machine loses its power, or its daemon.
    pub fn crash_someone(&mut self) {
        let n = self.rng.index(self.nodes.len());
        if self.nodes[n].up.is_none() {
            return self.boot(n);
        }
        let power = self.rng.chance(50);
        self.crash(n, power);
        if self.rng.chance(70) {
            self.boot(n);
        }
    }

    /// A moment after which a log that is behind would be taken for something: the node may crash soon.
    pub fn tempts_fate(&mut self, n: usize, change: &RecordChange) {
        let turns = matches!(
            change,
            RecordChange::Swapped { .. } | RecordChange::Split { .. }
        );
        if turns && self.storm.is_none() && self.faults && self.rng.chance(10) {
            self.doom = Some((n, 1 + self.rng.below(40)));
        }
    }

    /// A step, or an event of a storm, has passed: has it come to that? In `power` cases of a hundred the power goes.
    pub fn fate(&mut self, power: u64) -> bool {
        self.doom = self.doom.map(|(n, left)| (n, left.saturating_sub(1)));
        if let Some((n, _)) = self.doom.take_if(|(_, left)| *left == 0)
            && self.nodes[n].up.is_some()
        {
            let power = self.rng.chance(power);
            self.crash(n, power);
            self.boot(n);
            return true;
        }
        false
    }
}
