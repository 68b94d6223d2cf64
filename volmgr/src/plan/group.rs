//! Groups and their disks.

use super::{PlanError, check_name, volume_index};
use crate::label::{Label, valid_extent_size};
use crate::model::{Group, PlexState, Pv, Volume, Volumes};
use crate::names;
use std::collections::BTreeSet;
use uuid::Uuid;

/// Most tags of one object.
const TAGS_MAX: usize = 64;

/// A disk that joins a group: its label says the rest.
#[derive(Clone, Debug)]
pub struct NewPv {
    /// The disk's label.
    pub label: Label,
    /// Where it is now.
    pub path: String,
}

impl NewPv {
    fn pv(self, extent_size: u64) -> Result<Pv, PlanError> {
        let extent_count = self.label.extent_count(extent_size);
        if extent_count == 0 {
            return Err(PlanError::Space {
                need: extent_size,
                have: self.label.extent_count(1),
            });
        }
        Ok(Pv {
            uuid: self.label.pv,
            size: self.label.pv_size,
            data_start: self.label.data_start,
            extent_count,
            path_hint: self.path,
            missing_since: None,
            spare: false,
            tags: Default::default(),
        })
    }
}

/// A new group. Its first commit gets number 1.
pub fn create_group(
    uuid: Uuid,
    name: &str,
    extent_size: u64,
    pvs: Vec<NewPv>,
) -> Result<Group, PlanError> {
    check_name(name)?;
    if !valid_extent_size(extent_size) {
        return Err(PlanError::Value {
            what: "the extent size",
            value: extent_size,
        });
    }
    if pvs.is_empty() {
        return Err(PlanError::Value {
            what: "the number of disks",
            value: 0,
        });
    }
    let group = Group {
        uuid,
        name: name.to_owned(),
        extent_size,
        seqno: 0,
        commit: Uuid::nil(),
        exported: false,
        handover: None,
        tags: Default::default(),
        pvs: Vec::new(),
        volumes: Volumes::new(),
    };
    extend_group(&group, pvs)
}

/// Adds disks.
pub fn extend_group(group: &Group, pvs: Vec<NewPv>) -> Result<Group, PlanError> {
    let mut next = group.clone();
    for pv in pvs {
        if next.pv(pv.label.pv).is_some() {
            return Err(PlanError::Exists {
                what: "disk",
                name: pv.label.pv.to_string(),
            });
        }
        next.pvs.push(pv.pv(group.extent_size)?);
    }
    Ok(next)
}

/// Takes unused disks out, missing ones too.
pub fn reduce_group(group: &Group, pvs: &[Uuid]) -> Result<Group, PlanError> {
    let mut next = group.clone();
    for uuid in pvs {
        find(&mut next, *uuid)?;
        let on = |v: &&crate::model::Volume| v.extent_runs().any(|(pv, _, _)| pv == *uuid);
        if let Some(volume) = group.volumes.iter().find(on) {
            return Err(PlanError::InUse {
                pv: *uuid,
                volume: volume.name.clone(),
            });
        }
        next.pvs.retain(|p| p.uuid != *uuid);
        if next.pvs.is_empty() {
            return Err(PlanError::LastPv { pv: *uuid });
        }
    }
    Ok(next)
}

/// Renames the group.
pub fn rename_group(group: &Group, name: &str) -> Result<Group, PlanError> {
    check_name(name)?;
    let mut next = group.clone();
    next.name = name.to_owned();
    Ok(next)
}

/// Adds tags to the group and takes tags off; one that is in both goes.
pub fn tag_group(group: &Group, add: &[String], del: &[String]) -> Result<Group, PlanError> {
    let mut next = group.clone();
    change_tags(&mut next.tags, add, del)?;
    Ok(next)
}

/// Adds tags to a disk and takes tags off; one that is in both goes.
pub fn tag_pv(
    group: &Group,
    uuid: Uuid,
    add: &[String],
    del: &[String],
) -> Result<Group, PlanError> {
    let mut next = group.clone();
    change_tags(&mut find(&mut next, uuid)?.tags, add, del)?;
    Ok(next)
}

/// Adds tags to a volume and takes tags off; one that is in both goes.
pub fn tag_volume(
    group: &Group,
    volume: &str,
    add: &[String],
    del: &[String],
) -> Result<Group, PlanError> {
    let index = volume_index(group, volume)?;
    let mut next = group.clone();
    change_tags(&mut next.volumes.at_mut(index).tags, add, del)?;
    Ok(next)
}

fn change_tags(
    tags: &mut BTreeSet<String>,
    add: &[String],
    del: &[String],
) -> Result<(), PlanError> {
    for tag in add {
        names::check_tag(tag).map_err(|error| PlanError::Name {
            name: tag.clone(),
            error,
        })?;
    }
    tags.extend(add.iter().cloned());
    tags.retain(|tag| !del.contains(tag));
    if tags.len() > TAGS_MAX {
        return Err(PlanError::Value {
            what: "the number of tags (64 are the most)",
            value: tags.len() as u64,
        });
    }
    Ok(())
}

/// Exports or imports the group.
pub fn set_exported(group: &Group, exported: bool) -> Group {
    Group {
        exported,
        ..group.clone()
    }
}

/// The disk has grown: takes its size from its label.
pub fn resize_pv(group: &Group, label: &Label) -> Result<Group, PlanError> {
    let mut next = group.clone();
    let extent_count = label.extent_count(group.extent_size);
    let pv = find(&mut next, label.pv)?;
    if extent_count < pv.extent_count {
        return Err(PlanError::Value {
            what: "the disk's size (it cannot shrink)",
            value: label.pv_size,
        });
    }
    pv.size = label.pv_size;
    pv.extent_count = extent_count;
    Ok(next)
}

/// The group goes on without this disk. Active and syncing plexes on it become stale and its logs
/// invalid, unless that would leave a volume without an active plex or log: then they stay as they
/// are, and the volume cannot be used until the disk returns.
pub fn mark_pv_missing(group: &Group, uuid: Uuid) -> Result<Group, PlanError> {
    let mut next = group.clone();
    let since = group.seqno + 1;
    let pv = find(&mut next, uuid)?;
    if pv.missing_since.is_some() {
        return Ok(next);
    }
    pv.missing_since = Some(since);
    let on = |volume: &Volume| volume.extent_runs().any(|(pv, _, _)| pv == uuid);
    next.volumes.update(on, |volume| {
        let on: Vec<bool> = volume
            .plexes
            .iter()
            .map(|p| volume.pvs_of(p).contains(&uuid))
            .collect();
        let active = |s: PlexState| s == PlexState::Active;
        let others = volume.plexes.iter().zip(&on);
        let spare = others.into_iter().any(|(p, on)| !on && active(p.state));
        for (plex, _) in volume.plexes.iter_mut().zip(on).filter(|(_, on)| *on) {
            let lost = match plex.state {
                PlexState::Active => spare,
                PlexState::Syncing => true,
                _ => false,
            };
            if lost {
                plex.state = PlexState::Stale;
            }
        }
        let spare = volume.log.iter().any(|l| l.valid && l.pv != uuid);
        for log in volume.log.iter_mut().filter(|l| l.pv == uuid) {
            log.valid &= !spare;
        }
    });
    Ok(next)
}

/// The disk is back: it is written to again. Its plexes stay stale until they are in step.
pub fn mark_pv_returned(group: &Group, uuid: Uuid, path: &str) -> Result<Group, PlanError> {
    let mut next = group.clone();
    let pv = find(&mut next, uuid)?;
    pv.missing_since = None;
    pv.path_hint = path.to_owned();
    Ok(next)
}

/// A disk can be used again: plexes on it that failed are stale now, and catch up. Where its content
/// cannot be relied on, they and all others that are not active are empty, and are filled anew; the
/// copies of logs on it are not valid.
pub fn revive_plexes(group: &Group, uuid: Uuid, content_lost: bool) -> Group {
    let mut next = group.clone();
    let on = |volume: &Volume| volume.extent_runs().any(|(pv, _, _)| pv == uuid);
    next.volumes.update(on, |volume| {
        let on: Vec<bool> = volume
            .plexes
            .iter()
            .map(|p| volume.pvs_of(p).contains(&uuid))
            .collect();
        for (plex, _) in volume.plexes.iter_mut().zip(on).filter(|(_, on)| *on) {
            plex.state = match plex.state {
                PlexState::Active => PlexState::Active,
                _ if content_lost => PlexState::Empty,
                PlexState::Failed => PlexState::Stale,
                other => other,
            };
        }
        let spare = volume.log.iter().any(|l| l.valid && l.pv != uuid);
        for log in volume.log.iter_mut().filter(|l| l.pv == uuid) {
            log.valid &= !(content_lost && spare);
        }
    });
    next
}

pub(super) fn find(group: &mut Group, uuid: Uuid) -> Result<&mut Pv, PlanError> {
    let found = group.pvs.iter_mut().find(|p| p.uuid == uuid);
    found.ok_or_else(|| PlanError::NotFound {
        what: "disk",
        name: uuid.to_string(),
    })
}
