//! Disks that go while their group is in use, and what to make of them when they are back.
//!
//! What a disk misses is known only of the disk that went. Another file under the same name, or one
//! that was cut short meanwhile (the copy of the label at its end is damaged then), may lack
//! anything: what is on it is filled anew. A device is known by its hardware's name, if it has one:
//! what was pulled mostly comes back under another number.

use super::commit::Entry;
use super::scan::ScanOutcome;
use super::{Groups, News, Slot};
use crate::daemon::disks::{DiskKey, FilePv};
use crate::daemon::verbs::chain;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use uuid::Uuid;
use volmgr::metadata;
use volmgr::model::PlexState;
use volmgr::plan;

/// What the content of a disk that is back is worth.
pub(super) enum Content {
    /// It has what it had when it went.
    Kept,
    /// Nobody knows.
    Lost,
    /// The disk cannot be taken back, and why.
    Refused(&'static str),
}

/// What is at a disk's path.
enum Health {
    Here,
    /// The disk is there, but it was cut short or overwritten in part.
    Damaged,
    Gone,
}

fn health(disk: &FilePv, uuid: Uuid) -> Health {
    if !disk.still_there() {
        return Health::Gone;
    }
    let mut disk = disk.clone();
    if disk.refresh_size().is_err() || disk.forget_cached().is_err() {
        return Health::Gone;
    }
    let Ok(scan) = metadata::inspect(&mut disk) else {
        return Health::Gone;
    };
    match scan.chosen_label() {
        Some(label) if label.pv != uuid || disk.size() < label.pv_size => Health::Gone,
        Some(_) if scan.label.front.is_ok() && scan.label.back.is_ok() => Health::Here,
        Some(_) => Health::Damaged,
        None => Health::Gone,
    }
}

/// What a disk that was given up and is here again is worth. Mends its labels.
pub(super) fn content(entry: &Entry, disk: &FilePv, uuid: Uuid) -> Content {
    let other = entry
        .gone
        .get(&uuid)
        .is_some_and(|it| !it.is_same(&disk.identity()));
    let lost = match health(disk, uuid) {
        Health::Here => other,
        Health::Damaged => true,
        Health::Gone => return Content::Refused("it has gone again"),
    };
    if !lost {
        return Content::Kept;
    }
    // A volume that has nothing but this goes on with the disk that went, or stops; it must not go
    // on with other content.
    let only_copy = entry.group.volumes.iter().any(|volume| {
        volume.plexes.iter().any(|plex| {
            plex.state == PlexState::Active && plex.subdisks.iter().any(|s| s.pv == uuid)
        })
    });
    if only_copy {
        return Content::Refused(
            "it is another disk than the one that went, or damaged, and a volume has its only copy there",
        );
    }
    match metadata::mend_labels(&mut disk.clone()) {
        Ok(()) => Content::Lost,
        Err(error) => {
            tracing::warn!(path = %disk.path().display(), error = %chain(&error), "cannot mend the label");
            Content::Refused("its label cannot be written")
        }
    }
}

impl Groups {
    /// Forgets disks that are not where they were: deleted, pulled, cut short, or overwritten. Their
    /// groups go on without them, and the volumes in `changed` must be told before any other disk
    /// may take their place: [`Groups::scan`] comes after that. Blocks.
    pub fn drop_gone(&self) -> ScanOutcome {
        let mut outcome = ScanOutcome::default();
        let slots: Vec<Arc<Slot>> = self.read().groups.values().cloned().collect();
        for slot in &slots {
            drop_members(slot, &mut outcome);
        }
        self.write().orphans.retain(|_, orphan| {
            let there = !matches!(health(&orphan.disk, orphan.uuid), Health::Gone);
            if !there {
                outcome.warnings.push(format!(
                    "{}: the PV is not there any more",
                    orphan.disk.path().display()
                ));
            }
            there
        });
        outcome
    }

    /// Has a disk gone or been cut short? Only asks what the files are called and how long they are.
    pub fn any_gone(&self) -> bool {
        let slots: Vec<Arc<Slot>> = self.read().groups.values().cloned().collect();
        slots.iter().any(|slot| {
            let entry = slot.lock();
            let whole = |disk: &FilePv| {
                disk.still_there() && disk.size_now().is_ok_and(|now| now >= disk.size())
            };
            !entry.disks.values().all(whole)
        })
    }

    /// Places where a disk may be that a group in use is waiting for: which disk is there, and how
    /// long it is.
    pub fn waited_for(&self, places: &BTreeSet<PathBuf>) -> Vec<(PathBuf, DiskKey, u64)> {
        let waiting = self
            .views()
            .iter()
            .any(|view| !view.group.exported && !view.missing().is_empty());
        if !waiting {
            return Vec::new();
        }
        let place = |path: &PathBuf| {
            let key = DiskKey::of(path).ok()?;
            let free = self.known(key).is_none();
            let len = std::fs::metadata(path).ok()?.len();
            free.then(|| (path.clone(), key, len))
        };
        places.iter().filter_map(place).collect()
    }

    /// Tries disks again on which plexes of this volume have failed, or which are named: they are
    /// opened anew, and the plexes catch up. Says what happened, and why what did not.
    pub fn revive(&self, vg: &str, pvs: &BTreeSet<Uuid>) -> Result<Vec<News>, String> {
        let slot = self.slot(vg).ok_or("no such group")?;
        let mut entry = slot.lock();
        let mut news = Vec::new();
        let mut revived = Vec::new();
        for pv in pvs {
            let Some(disk) = entry.disks.get(pv).cloned() else {
                return Err(format!(
                    "disk {pv} is missing (`volmgr vgscan` looks for it)"
                ));
            };
            let path = disk.path().display().to_string();
            match content(&entry, &disk, *pv) {
                Content::Kept => revived.push((*pv, path, false)),
                Content::Lost => revived.push((*pv, path, true)),
                Content::Refused(why) => return Err(format!("{path}: {why}")),
            }
        }
        for (pv, path, lost) in &revived {
            if let Some(disk) = entry.disks.get_mut(pv) {
                disk.renew();
            }
            let how = if *lost {
                "; its content is not trusted"
            } else {
                ""
            };
            news.push((
                "pv-retried",
                path.clone(),
                format!("disk {pv} of {vg}{how}"),
            ));
        }
        let result = entry.commit(|group| {
            let revive = |group, (pv, _, lost): &(Uuid, String, bool)| {
                plan::revive_plexes(&group, *pv, *lost)
            };
            Ok::<_, std::convert::Infallible>(revived.iter().fold(group.clone(), revive))
        });
        self.archive.keep(&entry.group);
        slot.publish(&entry);
        news.extend(result.map_err(|error| error.to_string())?);
        Ok(news)
    }
}

fn drop_members(slot: &Slot, outcome: &mut ScanOutcome) {
    let mut entry = slot.lock();
    let gone: Vec<Uuid> = entry
        .disks
        .iter()
        .filter(|(uuid, disk)| matches!(health(disk, **uuid), Health::Gone))
        .map(|(uuid, _)| *uuid)
        .collect();
    if gone.is_empty() {
        return;
    }
    for uuid in &gone {
        if let Some(disk) = entry.disks.remove(uuid) {
            let path = disk.path().display().to_string();
            entry.gone.insert(*uuid, disk.identity());
            outcome.warnings.push(format!(
                "{path}: disk of group {} is not there any more",
                entry.group.name
            ));
            outcome.events.push((
                "pv-gone",
                path,
                format!("disk {uuid} of {}", entry.group.name),
            ));
        }
    }
    if entry.trouble.is_none() && !entry.group.exported {
        // Before anything is written that these disks miss.
        match entry.settle() {
            Ok(news) => outcome.events.extend(news),
            Err(why) => outcome
                .warnings
                .push(format!("group {}: {why}", entry.group.name)),
        }
        outcome.changed.push(entry.group.name.clone());
    }
    slot.publish(&entry);
}
