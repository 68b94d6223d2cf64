//! From what is on many PVs to groups: which version is right, and who is in it.
//!
//! Let W be the version with the highest sequence number and V any other. V and W are judged by
//! the first row that fits:
//!
//! | row | same seqno | V among W's ancestors | W marks V's PV missing since m | V marks W's PV missing since m | neither lists the other's PVs | verdict |
//! | --- | :-: | :-: | :-: | :-: | :-: | --- |
//! | a | yes | | | | | conflict: two histories of one length |
//! | b | no | yes | | | | V is older |
//! | c | no | no | m ≤ V's seqno | | | conflict: V went on after W had given it up |
//! | d | no | no | all, m > V's seqno | | | V is older (its PVs are returning) |
//! | e | no | no | no | m ≤ W's seqno | | conflict: W went on after V had given it up |
//! | f | no | no | no | no | yes | conflict: each took the other out |
//! | g | no | no | no | no | no | V is older |
//!
//! Legend. *V's PVs* are those whose newest good record is V. *Missing since m*: the commit m was
//! the first that was not written to the PV, so a PV that was merely away has a version below m.
//! Row b comes before the marks because a commit that takes a returned PV back descends from one
//! that marks it. Row d comes before e because two PVs can each have been away at another time.

use super::{PvScan, Version};
use crate::model::{Group, Pv};
use blockio::mutant;
use std::collections::{BTreeMap, BTreeSet};
use thiserror::Error;
use uuid::Uuid;

/// Why no version of a group can be chosen. The admin has to take one side's disks away.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Conflict {
    /// Row a.
    #[error("two histories have reached commit {seqno}: {commits:?}")]
    SameSeqno {
        /// The sequence number.
        seqno: u64,
        /// The two commits.
        commits: [Uuid; 2],
    },
    /// Rows c and e.
    #[error(
        "disk {pv} was given up at commit {since} and has gone on without the others to commit {seqno}"
    )]
    WentOn {
        /// The disk that was given up.
        pv: Uuid,
        /// When, by the others.
        since: u64,
        /// What it has.
        seqno: u64,
    },
    /// Row f.
    #[error("commits {seqnos:?} each know nothing of the other's disks")]
    Disjoint {
        /// The two sequence numbers.
        seqnos: [u64; 2],
    },
    /// Two disks are the same PV: a copy made block by block, or one disk under two paths.
    #[error(
        "several disks carry the PV UUID {pv}: all but one are copies (take those away, or pvcreate --force makes them free)"
    )]
    Duplicate {
        /// The UUID.
        pv: Uuid,
    },
}

/// What to make of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// This version.
    Chosen(Box<Group>),
    /// The group was removed; its labels were not all cleared yet.
    Removed,
    /// It cannot be decided.
    Conflict(Conflict),
    /// Labels name the group, but no readable metadata does.
    NoMetadata,
}

/// How a disk stands to the chosen version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberState {
    /// Belongs to it and has it.
    Present,
    /// Belongs to it and has an older version, or none that can be read; the next commit mends it.
    Outdated,
    /// Was given up by it and is here again. Nothing on it is believed.
    Returning,
    /// Its label names the group, the version does not list it: free to be used again.
    Orphan,
    /// Nothing is known, because there is no chosen version.
    Undecided,
}

/// A disk of a group.
#[derive(Clone, Debug)]
pub struct Member<K> {
    /// What the caller calls it.
    pub key: K,
    /// Its PV UUID.
    pub pv: Uuid,
    /// How it stands to the chosen version.
    pub state: MemberState,
    /// What is on it.
    pub scan: PvScan,
}

/// One group.
#[derive(Clone, Debug)]
pub struct Assembly<K> {
    /// The group.
    pub group: Uuid,
    /// What to make of it.
    pub verdict: Verdict,
    /// The disks that are here.
    pub members: Vec<Member<K>>,
    /// PVs that the chosen version lists and that are not here (or are returning and not believed:
    /// those are in `members`).
    pub missing: Vec<Uuid>,
}

/// All groups, and what is left.
#[derive(Clone, Debug)]
pub struct Assembled<K> {
    /// The groups, by UUID.
    pub groups: Vec<Assembly<K>>,
    /// PVs that belong to no group.
    pub free: Vec<(K, PvScan)>,
    /// Disks without a readable label.
    pub unlabelled: Vec<(K, PvScan)>,
}

impl<K> Assembly<K> {
    /// The chosen version; where there is none, the verdict says why.
    pub fn chosen(&self) -> Option<&Group> {
        match &self.verdict {
            Verdict::Chosen(group) => Some(group),
            _ => None,
        }
    }
}

/// A version and the PVs whose newest it is.
struct Candidate<'a> {
    version: &'a Version,
    holders: BTreeSet<Uuid>,
}

/// Sorts disks into groups and decides which version of each is right.
pub fn assemble<K>(scans: Vec<(K, PvScan)>) -> Assembled<K> {
    let mut by_group: BTreeMap<Uuid, Vec<(K, Uuid, PvScan)>> = BTreeMap::new();
    let mut free = Vec::new();
    let mut unlabelled = Vec::new();
    for (key, scan) in scans {
        match scan.chosen_label().map(|l| (l.pv, l.group)) {
            None => unlabelled.push((key, scan)),
            Some((pv, None)) => free.push((key, pv, scan)),
            Some((pv, Some(group))) => by_group.entry(group).or_default().push((key, pv, scan)),
        }
    }
    let mut groups = Vec::new();
    for (group, mut disks) in by_group {
        let verdict = judge(&disks);
        if let Verdict::Chosen(chosen) = &verdict {
            // A disk that was being added when the machine stopped: listed, its label not written.
            let listed: BTreeSet<Uuid> = chosen.pvs.iter().map(|p| p.uuid).collect();
            let (joining, rest) = free.into_iter().partition(|(_, pv, _)| listed.contains(pv));
            free = rest;
            disks.extend::<Vec<_>>(joining);
        }
        groups.push(finish(group, verdict, disks));
    }
    let free = free.into_iter().map(|(key, _, scan)| (key, scan)).collect();
    Assembled {
        groups,
        free,
        unlabelled,
    }
}

fn judge<K>(disks: &[(K, Uuid, PvScan)]) -> Verdict {
    let mut seen = BTreeSet::new();
    if let Some((_, pv, _)) = disks.iter().find(|(_, pv, _)| !seen.insert(*pv)) {
        return Verdict::Conflict(Conflict::Duplicate { pv: *pv });
    }
    let mut candidates: BTreeMap<(u64, Uuid), Candidate> = BTreeMap::new();
    for (_, pv, scan) in disks {
        if let Some(version) = &scan.version {
            candidates
                .entry((version.group.seqno, version.group.commit))
                .or_insert_with(|| Candidate {
                    version,
                    holders: BTreeSet::new(),
                })
                .holders
                .insert(*pv);
        }
    }
    let winner = match mutant("outdated-disk-believed") {
        true => candidates.pop_first(),
        false => candidates.pop_last(),
    };
    let Some((_, winner)) = winner else {
        return Verdict::NoMetadata;
    };
    for other in candidates.values() {
        if let Some(conflict) = compare(&winner, other) {
            return Verdict::Conflict(conflict);
        }
    }
    match &winner.version.group {
        group if group.pvs.is_empty() => Verdict::Removed,
        group => Verdict::Chosen(Box::new(group.clone())),
    }
}

/// The truth table: `None` where V is older than W.
fn compare(w: &Candidate, v: &Candidate) -> Option<Conflict> {
    let (wg, vg) = (&w.version.group, &v.version.group);
    if wg.seqno == vg.seqno {
        return Some(Conflict::SameSeqno {
            seqno: wg.seqno,
            commits: [wg.commit, vg.commit],
        });
    }
    if w.version.ancestors.contains(&vg.commit) {
        return None;
    }
    let marks = marks(wg, &v.holders);
    let went_on = |marks: &[(Uuid, u64)], seqno| {
        marks
            .iter()
            .find(|(_, since)| *since <= seqno)
            .map(|(pv, since)| Conflict::WentOn {
                pv: *pv,
                since: *since,
                seqno,
            })
    };
    if let Some(conflict) = went_on(&marks, vg.seqno) {
        return Some(conflict);
    }
    if marks.len() == v.holders.len() {
        return None;
    }
    if let Some(conflict) = went_on(&self::marks(vg, &w.holders), wg.seqno) {
        return Some(conflict);
    }
    let lists =
        |group: &Group, pvs: &BTreeSet<Uuid>| group.pvs.iter().any(|p| pvs.contains(&p.uuid));
    if !wg.pvs.is_empty() && !lists(wg, &v.holders) && !lists(vg, &w.holders) {
        return Some(Conflict::Disjoint {
            seqnos: [vg.seqno, wg.seqno],
        });
    }
    None
}

/// Which of these PVs the version marks missing, and since when.
fn marks(group: &Group, pvs: &BTreeSet<Uuid>) -> Vec<(Uuid, u64)> {
    group
        .pvs
        .iter()
        .filter(|p| pvs.contains(&p.uuid))
        .filter_map(|p| Some((p.uuid, p.missing_since?)))
        .collect()
}

fn finish<K>(group: Uuid, verdict: Verdict, disks: Vec<(K, Uuid, PvScan)>) -> Assembly<K> {
    let chosen = match &verdict {
        Verdict::Chosen(chosen) => Some(chosen.as_ref()),
        _ => None,
    };
    let listed: BTreeMap<Uuid, &Pv> = chosen
        .iter()
        .flat_map(|g| &g.pvs)
        .map(|p| (p.uuid, p))
        .collect();
    let here: BTreeSet<Uuid> = disks.iter().map(|(_, pv, _)| *pv).collect();
    let missing = listed
        .keys()
        .filter(|pv| !here.contains(pv))
        .copied()
        .collect();
    let state = |pv: &Uuid, scan: &PvScan| match (&verdict, listed.get(pv)) {
        (Verdict::Conflict(_) | Verdict::NoMetadata, _) => MemberState::Undecided,
        (_, None) => MemberState::Orphan,
        (_, Some(listed)) if listed.missing_since.is_some() => MemberState::Returning,
        _ => {
            let version = scan.version.as_ref().map(|v| &v.group);
            match version.is_some() && version == chosen {
                true => MemberState::Present,
                false => MemberState::Outdated,
            }
        }
    };
    let states: Vec<_> = disks.iter().map(|(_, pv, scan)| state(pv, scan)).collect();
    let members = disks
        .into_iter()
        .zip(states)
        .map(|((key, pv, scan), state)| Member {
            key,
            pv,
            state,
            scan,
        })
        .collect();
    Assembly {
        group,
        verdict,
        members,
        missing,
    }
}

#[cfg(test)]
#[path = "assemble_tests.rs"]
mod tests;
