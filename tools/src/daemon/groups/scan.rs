//! Looking for disks, and letting the groups have them.
//!
//! A scan looks at every candidate without a claim, claims those that carry a label, looks again,
//! and hands all scans, those of the disks in use included, to [`metadata::assemble`]. A group that
//! is in use stays as it is, whatever is found: new disks join it only where the assembly agrees
//! with the version that stands.

use super::commit::Entry;
use super::handover::Loose;
use super::returns::{self, Content};
use super::{Groups, Memory, News, Orphan, Slot};
use crate::daemon::disks::{ClaimError, DiskKey, FilePv};
use crate::daemon::verbs::chain;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use uuid::Uuid;
use volmgr::metadata::{self, Assembly, MemberState, PvScan, Store, Verdict};
use volmgr::model::Group;
use volmgr::plan;

/// What a scan has found out.
#[derive(Debug, Default)]
pub struct ScanOutcome {
    /// For the admin who asked.
    pub warnings: Vec<String>,
    /// For the event log.
    pub events: Vec<News>,
    /// Groups in use whose set of disks has changed: their volumes want to know.
    pub changed: Vec<String>,
}

/// A disk in an assembly: in use already, or found by this scan.
enum Key {
    Old,
    New(FilePv),
}

impl Groups {
    /// Looks at these paths; `known` are those where a PV was before. [`Groups::drop_gone`] comes
    /// first. Blocks.
    pub fn scan(&self, paths: &BTreeSet<PathBuf>, known: &BTreeSet<PathBuf>) -> ScanOutcome {
        let mut outcome = ScanOutcome::default();
        let slots: Vec<Arc<Slot>> = self.read().groups.values().cloned().collect();
        let mut scans: Vec<(Key, PvScan)> = Vec::new();
        let mut seen = BTreeSet::new();
        for path in paths {
            let before = known.contains(path);
            self.look(path, before, &mut seen, &mut scans, &mut outcome);
        }
        if scans.is_empty() {
            self.carry_on(Vec::new(), &mut outcome);
            return outcome;
        }
        let mut loose = Vec::new();
        // The groups stand still while the disks in use are read, or a half-written commit would
        // look like disagreement.
        let mut entries: BTreeMap<Uuid, _> = slots
            .iter()
            .map(|slot| (slot.view().group.uuid, slot))
            .map(|(uuid, slot)| (uuid, (slot, slot.lock())))
            .collect();
        for (_, entry) in entries.values_mut() {
            for disk in entry.disks.values_mut() {
                match metadata::inspect(disk) {
                    Ok(scan) => scans.push((Key::Old, scan)),
                    Err(error) => outcome.warnings.push(format!(
                        "{}: {}",
                        disk.path().display(),
                        chain(&error)
                    )),
                }
            }
        }
        let assembled = metadata::assemble(scans);
        for assembly in assembled.groups {
            let uuid = assembly.group;
            match entries.get_mut(&uuid) {
                Some((slot, entry)) if entry.store.is_some() => {
                    let changed = join(entry, assembly, &mut loose, &mut outcome);
                    slot.publish(entry);
                    if changed {
                        outcome.changed.push(entry.group.name.clone());
                    }
                }
                Some((slot, entry)) => {
                    let old = entry.disks.clone();
                    let found = open(assembly, old, &self.memory, &mut loose, &mut outcome);
                    if let Some(better) = found {
                        **entry = better;
                        slot.publish(entry);
                    }
                }
                None => {
                    let none = BTreeMap::new();
                    let found = open(assembly, none, &self.memory, &mut loose, &mut outcome);
                    if let Some(entry) = found {
                        self.insert(entry, &mut outcome);
                    }
                }
            }
        }
        for (key, scan) in assembled.free {
            if let (Key::New(disk), Some(label)) = (key, scan.chosen_label()) {
                let uuid = label.pv;
                self.put_orphan(Orphan { uuid, disk });
            }
        }
        drop(entries);
        self.carry_on(loose, &mut outcome);
        outcome
    }

    /// Looks at one path. What is not a PV is passed over silently, unless one was there before.
    fn look(
        &self,
        path: &Path,
        before: bool,
        seen: &mut BTreeSet<DiskKey>,
        scans: &mut Vec<(Key, PvScan)>,
        outcome: &mut ScanOutcome,
    ) {
        let mut complain = |why: &dyn std::fmt::Display| {
            if before {
                outcome.warnings.push(format!("{}: {why}", path.display()));
            } else {
                tracing::debug!(path = %path.display(), "{why}");
            }
        };
        let key = match DiskKey::of(path) {
            Ok(key) => key,
            Err(error) => return complain(&error),
        };
        // One disk has many names in /dev; two names are no two copies.
        if !seen.insert(key) || self.known(key).is_some() {
            return;
        }
        let inspect = |mut disk: FilePv| {
            let scan = metadata::inspect(&mut disk).map_err(|error| chain(&error))?;
            Ok::<_, String>((disk, scan))
        };
        let looked = FilePv::look(path)
            .map_err(|error| error.to_string())
            .and_then(inspect);
        let (look, scan) = match looked {
            Ok(looked) => looked,
            Err(why) => return complain(&why),
        };
        if scan.chosen_label().is_none() {
            return complain(&"no PV label");
        }
        let exported = scan.version.as_ref().is_some_and(|v| v.group.exported);
        if exported {
            scans.push((Key::New(look), scan));
            return;
        }
        let claimed = FilePv::claim(path).and_then(|disk| {
            disk.forget_cached()?;
            Ok(disk)
        });
        match claimed {
            Ok(disk) => match inspect(disk) {
                Ok((disk, scan)) => scans.push((Key::New(disk), scan)),
                Err(why) => complain(&why),
            },
            // Worth saying in any case: it is a PV, and someone else has it.
            Err(error @ ClaimError::InUse) => outcome
                .warnings
                .push(format!("{}: a PV, but {error}", path.display())),
            Err(error) => complain(&error),
        }
    }

    fn insert(&self, entry: Entry, outcome: &mut ScanOutcome) {
        let same_name = self.view(&entry.group.name).is_some();
        let mut entry = entry;
        if same_name && entry.trouble.is_none() {
            let why = format!(
                "another group has the name {}, too: rename one with the other's disks away",
                entry.group.name
            );
            outcome
                .warnings
                .push(format!("{}: {why}", entry.group.uuid));
            entry.trouble = Some(why);
        }
        let uuid = entry.group.uuid;
        self.write().groups.insert(uuid, Arc::new(Slot::new(entry)));
    }
}

/// A new group, as found. None where there is nothing to show for it.
fn open(
    assembly: Assembly<Key>,
    old: BTreeMap<Uuid, FilePv>,
    memory: &Arc<Memory>,
    loose: &mut Vec<Loose>,
    outcome: &mut ScanOutcome,
) -> Option<Entry> {
    let mut store = Store::open(&assembly);
    let (group, mut trouble) = match &assembly.verdict {
        Verdict::Chosen(group) => ((**group).clone(), None),
        Verdict::Removed => {
            let uuid = assembly.group;
            let warning = format!(
                "group {uuid} was removed; `pvcreate --force` makes its disks usable again"
            );
            loose.extend(assembly.members.into_iter().filter_map(|member| {
                let Key::New(disk) = member.key else {
                    return None;
                };
                Some(Loose {
                    uuid: member.pv,
                    disk,
                    seqno: seqno_of(&member.scan),
                    warning: warning.clone(),
                })
            }));
            return None;
        }
        Verdict::Conflict(conflict) => (placeholder(&assembly), Some(conflict.to_string())),
        Verdict::NoMetadata => (
            placeholder(&assembly),
            Some("no disk has readable metadata (see `volmgr pvck`)".into()),
        ),
    };
    let newer = newer_elsewhere(&assembly, memory).filter(|_| !group.exported);
    let older = newer.is_some();
    if let Some(why) = newer {
        store = None;
        trouble = Some(why);
    }
    if let Some(why) = &trouble {
        outcome
            .warnings
            .push(format!("group {}: {why}", group.name));
        outcome
            .events
            .push(("vg-trouble", group.name.clone(), why.clone()));
    }
    let mut old = old;
    let mut disks = BTreeMap::new();
    let mut returning = Vec::new();
    for member in assembly.members {
        // What a disk is that was here all the time may have changed by the one that came.
        let disk = match member.key {
            Key::New(disk) => disk,
            Key::Old => match old.remove(&member.pv) {
                Some(disk) => disk,
                None => continue,
            },
        };
        match member.state {
            MemberState::Orphan => {
                loose.push(taken_out(member.pv, disk, &member.scan, &group.name))
            }
            MemberState::Returning => returning.push((member.pv, disk)),
            _ => {
                for problem in member.scan.problems() {
                    outcome
                        .warnings
                        .push(format!("{}: {problem}", disk.path().display()));
                }
                disks.insert(member.pv, disk);
            }
        }
    }
    let mut entry = Entry {
        store,
        group,
        disks,
        trouble,
        older,
        memory: memory.clone(),
        gone: BTreeMap::new(),
    };
    if entry.trouble.is_none() && !entry.group.exported {
        take_back(&mut entry, returning, outcome);
        for pv in &entry.group.pvs {
            if !entry.disks.contains_key(&pv.uuid) {
                outcome.warnings.push(format!(
                    "group {}: disk {} is missing (last seen at {})",
                    entry.group.name, pv.uuid, pv.path_hint
                ));
            }
        }
        let all_here = entry
            .group
            .pvs
            .iter()
            .all(|pv| pv.missing_since.is_some() || entry.disks.contains_key(&pv.uuid));
        // With all disks here a commit that a crash cut short is completed at once. With some
        // away it waits until the group is used: they may come in a moment.
        if all_here {
            settle(&mut entry, outcome);
        }
    }
    Some(entry)
}

/// Why a group of which only disks are here that this node has gone on without is not used.
fn newer_elsewhere(assembly: &Assembly<Key>, memory: &Memory) -> Option<String> {
    let group = assembly.chosen()?;
    let here: Vec<Uuid> = assembly.members.iter().map(|member| member.pv).collect();
    let since = memory.newer_than(group, &here)?;
    let away: Vec<&str> = group
        .pvs
        .iter()
        .filter(|pv| !here.contains(&pv.uuid))
        .map(|pv| pv.path_hint.as_str())
        .collect();
    Some(format!(
        "what is here is older: it was given up at commit {since}, and the disk(s) last seen at {} went on without it",
        away.join(", ")
    ))
}

/// A group of these disks, looked at anew.
pub(super) fn reopen(
    group: Uuid,
    disks: Vec<FilePv>,
    memory: &Arc<Memory>,
    outcome: &mut ScanOutcome,
) -> Result<Entry, String> {
    let mut scans = Vec::new();
    for mut disk in disks {
        let scan = metadata::inspect(&mut disk).map_err(|error| chain(&error))?;
        scans.push((Key::New(disk), scan));
    }
    let mut loose = Vec::new();
    let reopened = metadata::assemble(scans)
        .groups
        .into_iter()
        .find(|assembly| assembly.group == group)
        .and_then(|assembly| open(assembly, BTreeMap::new(), memory, &mut loose, outcome))
        .ok_or_else(|| "its disks do not belong to it any more".into());
    outcome
        .warnings
        .extend(loose.into_iter().map(|l| l.warning));
    reopened
}

fn seqno_of(scan: &PvScan) -> u64 {
    scan.version.as_ref().map_or(0, |v| v.group.seqno)
}

fn taken_out(uuid: Uuid, disk: FilePv, scan: &PvScan, vg: &str) -> Loose {
    let warning = format!(
        "{}: was taken out of group {vg}; `pvcreate --force` makes it usable again",
        disk.path().display()
    );
    Loose {
        uuid,
        disk,
        seqno: seqno_of(scan),
        warning,
    }
}

/// New disks for a group in use. Returns whether any joined.
fn join(
    entry: &mut Entry,
    assembly: Assembly<Key>,
    loose: &mut Vec<Loose>,
    outcome: &mut ScanOutcome,
) -> bool {
    let new: Vec<String> = assembly
        .members
        .iter()
        .filter_map(|member| match &member.key {
            Key::New(disk) => Some(disk.path().display().to_string()),
            Key::Old => None,
        })
        .collect();
    if new.is_empty() {
        return false;
    }
    let vg = entry.group.name.clone();
    let agrees = assembly
        .chosen()
        .is_some_and(|group| group.commit == entry.group.commit);
    if !agrees {
        let why = match &assembly.verdict {
            Verdict::Conflict(conflict) => conflict.to_string(),
            _ => "its metadata does not fit the group in use".into(),
        };
        for path in new {
            outcome
                .warnings
                .push(format!("{path}: not taken into group {vg}: {why}"));
        }
        return false;
    }
    let mut returning = Vec::new();
    let mut joined = false;
    for member in assembly.members {
        let Key::New(disk) = member.key else { continue };
        match member.state {
            MemberState::Present | MemberState::Outdated => {
                let path = disk.path().display().to_string();
                if let Some(store) = &mut entry.store {
                    store.forget(member.pv);
                }
                outcome
                    .events
                    .push(("pv-found", path, format!("disk of group {vg}")));
                entry.disks.insert(member.pv, disk);
                joined = true;
            }
            MemberState::Returning => returning.push((member.pv, disk)),
            MemberState::Orphan => loose.push(taken_out(member.pv, disk, &member.scan, &vg)),
            MemberState::Undecided => outcome
                .warnings
                .push(taken_out(member.pv, disk, &member.scan, &vg).warning),
        }
    }
    joined |= take_back(entry, returning, outcome);
    if joined {
        settle(entry, outcome);
    }
    joined
}

/// Disks that were given up and are here again: their content is outdated, the plexes on them
/// resync; the disks themselves are used again.
fn take_back(entry: &mut Entry, returning: Vec<(Uuid, FilePv)>, outcome: &mut ScanOutcome) -> bool {
    if returning.is_empty() {
        return false;
    }
    let mut paths = Vec::new();
    for (uuid, disk) in returning {
        let lost = match returns::content(entry, &disk, uuid) {
            Content::Kept => false,
            Content::Lost => true,
            Content::Refused(why) => {
                outcome
                    .warnings
                    .push(format!("{}: not taken back: {why}", disk.path().display()));
                continue;
            }
        };
        if let Some(store) = &mut entry.store {
            store.forget(uuid);
        }
        paths.push((uuid, disk.path().display().to_string(), lost));
        entry.disks.insert(uuid, disk);
    }
    if paths.is_empty() {
        return false;
    }
    let result = entry.commit(|group| {
        paths
            .iter()
            .try_fold(group.clone(), |group, (uuid, path, lost)| {
                let group = plan::mark_pv_returned(&group, *uuid, path)?;
                Ok::<_, plan::PlanError>(plan::revive_plexes(&group, *uuid, *lost))
            })
    });
    match result {
        Ok(news) => {
            outcome.events.extend(news);
            for (uuid, path, lost) in paths {
                // The commit itself may have found that it takes no writes, and given it up again.
                if !entry.disks.contains_key(&uuid) {
                    outcome
                        .warnings
                        .push(format!("{path}: not taken back: it cannot be written"));
                    continue;
                }
                entry.gone.remove(&uuid);
                let how = if lost {
                    ", its content is not trusted"
                } else {
                    ""
                };
                let text = format!("disk {uuid} of {} is back{how}", entry.group.name);
                outcome.events.push(("pv-returned", path, text));
            }
            true
        }
        Err(error) => {
            for (uuid, path, _) in paths {
                entry.disks.remove(&uuid);
                outcome
                    .warnings
                    .push(format!("{path}: cannot be taken back: {error}"));
            }
            false
        }
    }
}

fn settle(entry: &mut Entry, outcome: &mut ScanOutcome) {
    match entry.settle() {
        Ok(news) => outcome.events.extend(news),
        Err(why) => outcome
            .warnings
            .push(format!("group {}: {why}", entry.group.name)),
    }
}

/// Something to list a group by of which no version was chosen.
fn placeholder(assembly: &Assembly<Key>) -> Group {
    assembly
        .members
        .iter()
        .find_map(|member| member.scan.version.as_ref())
        .map(|version| version.group.clone())
        .unwrap_or_else(|| Group {
            uuid: assembly.group,
            name: format!("unknown-{}", assembly.group),
            extent_size: volmgr::label::EXTENT_DEFAULT,
            seqno: 0,
            commit: Uuid::nil(),
            exported: false,
            handover: None,
            tags: Default::default(),
            pvs: Vec::new(),
            volumes: Default::default(),
        })
}
