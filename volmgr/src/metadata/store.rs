//! Commits: a new version of the group on all its PVs, or the old one.
//!
//! Order of a commit, each step on all PVs before the next begins:
//!
//! 1. the record goes to the front areas, sync;
//! 2. the record goes to the back areas, sync;
//! 3. labels of PVs that join or leave (front copy, sync, back copy, sync).
//!
//! A crash in step 1 or 2 leaves each area with its old chain intact, plus perhaps the new record,
//! whole or torn; [`super::assemble`] takes the highest whole one. In step 3 the metadata is
//! there already and says who belongs to the group.

use super::assemble::{Assembly, MemberState};
use super::inspect::{read_areas, read_label};
use super::ring::{AreaState, Records, Write};
use super::setup::write_label;
use super::{AreaScan, MetadataError, PvIo, RecordKind};
use crate::label::Label;
use crate::model::{self, Group, Problem};
use blockio::mutant;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use thiserror::Error;
use uuid::Uuid;

/// What went wrong with one PV.
#[derive(Debug)]
pub struct PvFailure {
    /// The PV.
    pub pv: Uuid,
    /// The error.
    pub error: io::Error,
}

/// How a commit went.
#[derive(Debug)]
pub struct CommitReport {
    /// Sequence number of the new version.
    pub seqno: u64,
    /// PVs that do not have it. The caller marks them missing, with another commit.
    pub failed: Vec<PvFailure>,
    /// PVs that have it in one area only.
    pub degraded: Vec<PvFailure>,
    /// Whole snapshots were written, not deltas.
    pub snapshots: usize,
}

/// Why there is no new version; the old one stands.
#[derive(Debug, Error)]
pub enum CommitError {
    /// Nothing could be written anywhere.
    #[error("no disk of the group could be written ({} failed)", failed.len())]
    NothingWritten {
        /// Why, for each.
        failed: Vec<PvFailure>,
    },
    /// The version breaks the model's rules: a bug of the caller.
    #[error("the new version is not valid: {problem}")]
    Invalid {
        /// The first problem.
        problem: Problem,
    },
    /// A listed PV is neither given nor marked missing.
    #[error("disk {pv} is not here and not marked missing")]
    Absent {
        /// The PV.
        pv: Uuid,
    },
    /// The version is of another group, or its commit's identity was used before.
    #[error("the new version does not follow the present one")]
    NotNext,
    /// There is no number left for it: no group gets there but by forged metadata.
    #[error("the group has no number left for another commit: its metadata was tampered with")]
    NoNumberLeft,
    /// A given disk is another PV than the caller says, or belongs to another group.
    #[error("the disk given as {pv} is not that disk, or belongs to another group")]
    WrongDisk {
        /// The PV.
        pv: Uuid,
    },
    /// The group has outgrown a PV's metadata areas.
    #[error("metadata area full: disk {pv} has room for {have} bytes, {need} are needed")]
    AreaFull {
        /// The PV with the smallest area.
        pv: Uuid,
        /// Bytes needed.
        need: u64,
        /// Bytes there.
        have: u64,
    },
    /// A PV's label could not be read.
    #[error("disk {pv}: {error}")]
    Label {
        /// The PV.
        pv: Uuid,
        /// Why.
        #[source]
        error: MetadataError,
    },
}

#[derive(Clone, Debug)]
struct PvState {
    label: Label,
    areas: Vec<AreaState>,
}

/// Writes the versions of one group.
#[derive(Debug)]
pub struct Store {
    group: Group,
    /// Highest sequence number that may be on some disk, also from a commit that failed.
    seqno: u64,
    pvs: BTreeMap<Uuid, PvState>,
    settled: bool,
    /// The version that stands was checked here: of the next one only what has changed has to be.
    checked: bool,
}

impl Store {
    /// For a group that exists on no disk yet. Give it `seqno` 0: the first commit is 1.
    pub fn create(group: Group) -> Self {
        Self {
            seqno: group.seqno,
            group,
            pvs: BTreeMap::new(),
            settled: false,
            checked: false,
        }
    }

    /// For a group as assembled; `None` where no version was chosen.
    pub fn open<K>(assembly: &Assembly<K>) -> Option<Self> {
        let group = assembly.chosen()?.clone();
        let mut seqno = group.seqno;
        let mut settled = true;
        let mut pvs = BTreeMap::new();
        for member in &assembly.members {
            let Some(label) = member.scan.chosen_label() else {
                continue;
            };
            let scan = &member.scan;
            // What a disk holds is its own newest version, which need not be the one that was chosen.
            let newest = scan.version.as_ref().is_some_and(|v| v.group == group);
            let holds: &[u64] = if newest { &scan.holds } else { &[] };
            let state = PvState::new(
                label.clone(),
                &scan.areas,
                group.uuid,
                holds,
                &scan.bad_content,
            );
            let whole = state.areas.len() == 2
                && state.areas.iter().all(|a| a.tip.is_some_and(|t| t.holds));
            let labelled = label.group == Some(group.uuid)
                && member.scan.label.front == member.scan.label.back;
            if member.state != MemberState::Returning {
                seqno = seqno.max(taken(&scan.areas, group.uuid));
                settled &= whole && labelled && member.state == MemberState::Present;
            }
            pvs.insert(member.pv, state);
        }
        Some(Self {
            seqno,
            group,
            pvs,
            settled,
            checked: false,
        })
    }

    /// The version that stands.
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// Does every area of every present PV have the version that stands? Where not (after a crash),
    /// commit it again before anything relies on it, with the disks of all the assembly's members:
    /// it may be on one disk only.
    pub fn is_settled(&self) -> bool {
        self.settled
    }

    /// Forgets what is known of a disk; the next commit reads it again. For after [`super::grow_pv`]
    /// and [`super::initialise_pv`], and when a disk was away.
    pub fn forget(&mut self, pv: Uuid) {
        self.pvs.remove(&pv);
    }

    /// Makes `next` the group's version. `commit` is a fresh UUID; `seqno` and `commit` in `next`
    /// are set here. `pvs` holds the disks that are here: every PV that `next` lists and does not
    /// mark missing, and those that leave the group (they learn of it). PVs marked missing are not
    /// written to.
    ///
    /// # Errors
    /// The old version stands. Individual failures are no error as long as one PV was written.
    pub fn commit(
        &mut self,
        mut next: Group,
        commit: Uuid,
        pvs: &mut BTreeMap<Uuid, &mut dyn PvIo>,
    ) -> Result<CommitReport, CommitError> {
        if next.uuid != self.group.uuid || commit.is_nil() || commit == self.group.commit {
            return Err(CommitError::NotNext);
        }
        let targets = self.targets(&next, pvs)?;
        next.seqno = self.seqno + 1;
        if next.seqno > Group::SEQNO_MAX {
            return Err(CommitError::NoNumberLeft);
        }
        next.commit = commit;
        self.stamp_missing(&mut next);
        // Checked, so no two volumes share anything now, whatever was on the way here.
        next.volumes.look_again();
        let mut records = Records::new(&self.group, &next);
        let plan = self.plan(&targets, &mut records)?;

        // From here on the number may be on some disk.
        self.seqno = next.seqno;
        let mut failures: BTreeMap<Uuid, Vec<io::Error>> = BTreeMap::new();
        let areas = if mutant("second-copy-forgotten") {
            1
        } else {
            2
        };
        for area in 0..areas {
            self.write_areas(area, &plan, &records, pvs, &mut failures);
        }
        let snapshots = plan
            .values()
            .flatten()
            .filter(|w| w.kind == RecordKind::Snapshot)
            .count();
        let mut failed = Vec::new();
        let mut degraded = Vec::new();
        for (pv, mut errors) in failures {
            let Some(error) = errors.pop() else { continue };
            match errors.is_empty() {
                true => degraded.push(PvFailure { pv, error }),
                false => failed.push(PvFailure { pv, error }),
            }
        }
        let written = |failed: &[PvFailure]| targets.len() > failed.len();
        if !written(&failed) {
            return Err(CommitError::NothingWritten { failed });
        }
        self.write_labels(&next, &targets, pvs, &mut failed);
        if !written(&failed) {
            return Err(CommitError::NothingWritten { failed });
        }
        self.settled = failed.is_empty() && degraded.is_empty();
        self.checked = true;
        let report = CommitReport {
            seqno: next.seqno,
            failed,
            degraded,
            snapshots,
        };
        self.group = next;
        Ok(report)
    }

    /// A PV that is marked missing now misses this commit and those that follow, whatever number
    /// the planner expected.
    fn stamp_missing(&self, next: &mut Group) {
        let seqno = next.seqno;
        for pv in &mut next.pvs {
            let before = self.group.pv(pv.uuid).and_then(|p| p.missing_since);
            pv.missing_since = pv.missing_since.map(|_| before.unwrap_or(seqno));
        }
    }

    /// Checks the version and the disks; the PVs to be written.
    fn targets(
        &mut self,
        next: &Group,
        pvs: &mut BTreeMap<Uuid, &mut dyn PvIo>,
    ) -> Result<BTreeSet<Uuid>, CommitError> {
        let problems = match self.checked {
            true => model::check_change(&self.group, next),
            false => model::check(next),
        };
        if let Some(problem) = problems.into_iter().next() {
            return Err(CommitError::Invalid { problem });
        }
        let mut targets: BTreeSet<Uuid> = pvs.keys().copied().collect();
        for pv in &next.pvs {
            match pv.missing_since {
                Some(_) => {
                    targets.remove(&pv.uuid);
                }
                None if !targets.contains(&pv.uuid) => {
                    return Err(CommitError::Absent { pv: pv.uuid });
                }
                None => {}
            }
        }
        for pv in &targets {
            if let Some(io) = pvs.get_mut(pv) {
                self.learn(*pv, *io)?;
            }
        }
        Ok(targets)
    }

    /// Reads label and areas of a disk that is not known yet.
    fn learn(&mut self, pv: Uuid, io: &mut dyn PvIo) -> Result<(), CommitError> {
        if let Some(state) = self.pvs.get(&pv) {
            debug_assert_eq!(state.label.pv, pv);
            return Ok(());
        }
        let label = match read_label(io) {
            Ok(scan) => scan.chosen().cloned().ok_or(MetadataError::NoLabel),
            Err(error) => Err(error),
        };
        let label = label.map_err(|error| CommitError::Label { pv, error })?;
        if label.pv != pv || label.group.is_some_and(|g| g != self.group.uuid) {
            return Err(CommitError::WrongDisk { pv });
        }
        let areas = read_areas(io, &label);
        // A disk that was to join when the power went may have that commit, and nobody else: its number is
        // taken.
        self.seqno = self.seqno.max(taken(&areas, self.group.uuid));
        // What the chains hold was not looked at: a snapshot follows.
        let state = PvState::new(label, &areas, self.group.uuid, &[], &[]);
        self.pvs.insert(pv, state);
        Ok(())
    }

    /// Decides for each area of each target which record goes where.
    fn plan(
        &self,
        targets: &BTreeSet<Uuid>,
        records: &mut Records,
    ) -> Result<BTreeMap<Uuid, Vec<Write>>, CommitError> {
        let commit = records.next.commit;
        let mut plan = BTreeMap::new();
        for pv in targets {
            let mut writes = Vec::new();
            for area in &self.pvs[pv].areas {
                let delta_len = records.delta.as_ref().map(|d| d.len() as u64);
                let append = delta_len.and_then(|len| area.append(records.previous, commit, len));
                if let Some(write) = append {
                    writes.push(write);
                    continue;
                }
                let need = records.snapshot().len() as u64;
                let have = area.area.len / 2;
                if need > have {
                    return Err(CommitError::AreaFull {
                        pv: *pv,
                        need,
                        have,
                    });
                }
                writes.push(area.replace(commit, need));
            }
            plan.insert(*pv, writes);
        }
        Ok(plan)
    }

    /// One area (0 front, 1 back) of all PVs: write all, then sync all.
    fn write_areas(
        &mut self,
        area: usize,
        plan: &BTreeMap<Uuid, Vec<Write>>,
        records: &Records,
        pvs: &mut BTreeMap<Uuid, &mut dyn PvIo>,
        failures: &mut BTreeMap<Uuid, Vec<io::Error>>,
    ) {
        let mut results: BTreeMap<Uuid, io::Result<()>> = BTreeMap::new();
        for (pv, writes) in plan {
            if let (Some(io), Some(write)) = (pvs.get_mut(pv), writes.get(area)) {
                results.insert(*pv, io.write_at(write.at, records.get(write.kind)));
            }
        }
        for (pv, result) in results {
            let result = result.and_then(|()| match pvs.get_mut(&pv) {
                Some(_) if mutant("commit-not-synced") => Ok(()),
                Some(io) => io.sync(),
                None => Ok(()),
            });
            let state = self.pvs.get_mut(&pv).map(|s| &mut s.areas[area]);
            match (result, state) {
                (Ok(()), Some(state)) => {
                    state.tip = Some(plan[&pv][area].tip);
                    state.torn = false;
                }
                (Err(error), state) => {
                    if let Some(state) = state {
                        state.torn = true;
                    }
                    failures.entry(pv).or_default().push(error);
                }
                (Ok(()), None) => {}
            }
        }
    }

    /// Labels of PVs that join or leave.
    fn write_labels(
        &mut self,
        next: &Group,
        targets: &BTreeSet<Uuid>,
        pvs: &mut BTreeMap<Uuid, &mut dyn PvIo>,
        failed: &mut Vec<PvFailure>,
    ) {
        let listed: BTreeSet<Uuid> = next.pvs.iter().map(|p| p.uuid).collect();
        for pv in targets {
            let (Some(io), Some(state)) = (pvs.get_mut(pv), self.pvs.get_mut(pv)) else {
                continue;
            };
            if failed.iter().any(|f| f.pv == *pv) {
                continue;
            }
            let mut label = state.label.clone();
            let member = listed.contains(pv);
            label.group = member.then_some(next.uuid);
            label.extent_size = if member { next.extent_size } else { 0 };
            if label == state.label && self.settled {
                continue;
            }
            match write_label(*io, &label) {
                Ok(()) => state.label = label,
                Err(error) => failed.push(PvFailure { pv: *pv, error }),
            }
        }
        // A disk that left is another's now.
        self.pvs.retain(|pv, _| listed.contains(pv));
    }
}

/// The highest sequence number of the group in these areas, 0 for none; that of a record which a crash has torn counts, too. A
/// second attempt may write the same behind another header, and a second crash put together the first one's header and the
/// second one's rest: a commit that is whole, and must not have the number of another.
fn taken(areas: &[AreaScan], group: Uuid) -> u64 {
    let chains = areas.iter().flat_map(|area| &area.chains);
    let numbers = chains.flat_map(|chain| {
        let tip = chain.tip().map(|tip| (tip.group, tip.seqno));
        tip.into_iter().chain(chain.begun)
    });
    let ours = numbers.filter(|(of, _)| *of == group);
    ours.map(|(_, seqno)| seqno).max().unwrap_or(0)
}

impl PvState {
    /// `holds` and `bad` as in [`super::PvScan`].
    fn new(
        label: Label,
        areas: &[AreaScan],
        group: Uuid,
        holds: &[u64],
        bad: &[(u64, String)],
    ) -> Self {
        let areas = areas.iter().map(|a| AreaState::new(a, group, holds, bad));
        let areas = areas.collect();
        Self { label, areas }
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
