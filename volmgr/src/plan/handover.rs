//! `vgsplit` and `vgmerge`: whole disks with the volumes on them change groups.
//!
//! Two groups are two histories, and no commit spans both. So the group that lasts remembers what is on
//! its way ([`Handover`]), and [`handover_step`] says after a crash what is to be done.

use super::{PlanError, check_name};
use crate::model::{Group, Handover, HandoverSide, Volume, Volumes};
use crate::names;
use std::collections::BTreeSet;
use uuid::Uuid;

/// Where a split goes.
#[derive(Clone, Copy, Debug)]
pub struct Destination<'a> {
    /// UUID of the group, a new one where it is made.
    pub uuid: Uuid,
    /// Its name.
    pub name: &'a str,
    /// The group as it is, where it exists.
    pub group: Option<&'a Group>,
}

/// What is to be done about a handover.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HandoverStep {
    /// Nothing yet: these disks are not here, or, where there are none, the other group is not.
    Wait {
        /// The disks.
        pvs: Vec<Uuid>,
    },
    /// The other group gets disks and volumes ([`receive`], [`fresh_group`]); then [`end_handover`] here.
    Deliver,
    /// This group gets disks and volumes ([`receive`]).
    Receive,
    /// [`end_handover`]: it is done, or was never decided.
    End,
}

/// The disks that the volume is on; they go with it.
pub fn disks_of(volume: &Volume) -> BTreeSet<Uuid> {
    volume.extent_runs().map(|(pv, _, _)| pv).collect()
}

/// The group without these disks and the volumes on them, which are on their way to `to`.
pub fn split_group(group: &Group, pvs: &[Uuid], to: Destination) -> Result<Group, PlanError> {
    check_name(to.name)?;
    idle(group)?;
    let leaving: BTreeSet<Uuid> = pvs.iter().copied().collect();
    for pv in &leaving {
        let known = group.pv(*pv).ok_or_else(|| PlanError::NotFound {
            what: "disk",
            name: pv.to_string(),
        })?;
        if known.missing_since.is_some() {
            return Err(PlanError::Missing { pv: *pv });
        }
    }
    if leaving.len() == group.pvs.len()
        && let Some(pv) = group.pvs.first()
    {
        return Err(PlanError::LastPv { pv: pv.uuid });
    }
    let mut next = group.clone();
    let mut volumes = Volumes::new();
    for volume in &group.volumes {
        let disks = disks_of(volume);
        if disks.is_disjoint(&leaving) {
            continue;
        }
        if let Some(stays) = disks.difference(&leaving).next() {
            return Err(PlanError::Spans {
                volume: volume.name.clone(),
                pv: *stays,
            });
        }
        may_move(volume)?;
        volumes.push(volume.clone());
    }
    let moving = |volume: &Volume| volumes.iter().any(|v| v.uuid == volume.uuid);
    next.volumes.retain(|volume| !moving(volume));
    let (given, kept) = next
        .pvs
        .into_iter()
        .partition(|pv| leaving.contains(&pv.uuid));
    next.pvs = kept;
    if let Some(other) = to.group {
        fits(group, other, &volumes)?;
        idle(other)?;
    }
    next.handover = Some(Handover {
        side: HandoverSide::Giving,
        group: to.uuid,
        name: to.name.to_owned(),
        fresh: to.group.is_none(),
        tags: match to.group {
            None => group.tags.clone(),
            Some(_) => BTreeSet::new(),
        },
        pvs: given,
        volumes,
    });
    Ok(next)
}

/// The group that is to get all that `from` has, once that is removed.
pub fn merge_group(group: &Group, from: &Group) -> Result<Group, PlanError> {
    idle(group)?;
    idle(from)?;
    if let Some(pv) = from.pvs.iter().find(|pv| pv.missing_since.is_some()) {
        return Err(PlanError::Missing { pv: pv.uuid });
    }
    fits(from, group, &from.volumes)?;
    for volume in &from.volumes {
        may_move(volume)?;
    }
    let mut next = group.clone();
    next.handover = Some(Handover {
        side: HandoverSide::Taking,
        group: from.uuid,
        name: from.name.clone(),
        fresh: false,
        tags: BTreeSet::new(),
        pvs: from.pvs.clone(),
        volumes: from.volumes.clone(),
    });
    Ok(next)
}

/// The group with the handover's disks and volumes. Its own handover, if it is this one, is over.
pub fn receive(group: &Group, handover: &Handover) -> Result<Group, PlanError> {
    let mut next = group.clone();
    for volume in &handover.volumes {
        names::check(&volume.name).map_err(|error| PlanError::Name {
            name: volume.name.clone(),
            error,
        })?;
        if group.volume(&volume.name).is_some() {
            return Err(PlanError::Exists {
                what: "volume",
                name: format!("{}/{}", group.name, volume.name),
            });
        }
        next.volumes.push(volume.clone());
    }
    next.pvs.extend(handover.pvs.iter().cloned());
    next.handover = next.handover.filter(|own| own != handover);
    Ok(next)
}

/// The group that a split makes, without disks and volumes: those it gets by [`receive`].
pub fn fresh_group(handover: &Handover, extent_size: u64) -> Group {
    Group {
        uuid: handover.group,
        name: handover.name.clone(),
        extent_size,
        seqno: 0,
        commit: Uuid::nil(),
        exported: false,
        handover: None,
        tags: handover.tags.clone(),
        pvs: Vec::new(),
        volumes: Volumes::new(),
    }
}

/// The handover is over.
pub fn end_handover(group: &Group) -> Group {
    Group {
        handover: None,
        ..group.clone()
    }
}

/// What is to be done about the group's handover. `other` is the other group as it is known here, with
/// whether all its disks are here; `free` are the disks that are in no group, or whose group does not list
/// them any more.
pub fn handover_step(
    handover: &Handover,
    other: Option<(&Group, bool)>,
    free: &BTreeSet<Uuid>,
) -> HandoverStep {
    let away: Vec<Uuid> = handover
        .pvs
        .iter()
        .map(|pv| pv.uuid)
        .filter(|pv| !free.contains(pv))
        .collect();
    let arrived = |other: &Group| handover.pvs.iter().all(|pv| other.pv(pv.uuid).is_some());
    match (handover.side, other) {
        (HandoverSide::Giving, Some((other, _))) if arrived(other) => HandoverStep::End,
        (HandoverSide::Giving, Some(_)) if away.is_empty() => HandoverStep::Deliver,
        (HandoverSide::Giving, None) if handover.fresh && away.is_empty() => HandoverStep::Deliver,
        // The other group has not been removed, so this was not decided. With some of its disks away, they
        // may be those which know that it was.
        (HandoverSide::Taking, Some((_, true))) => HandoverStep::End,
        (HandoverSide::Taking, None) if away.is_empty() => HandoverStep::Receive,
        _ => HandoverStep::Wait { pvs: away },
    }
}

fn idle(group: &Group) -> Result<(), PlanError> {
    match &group.handover {
        None => Ok(()),
        Some(handover) => Err(PlanError::Handover {
            group: group.name.clone(),
            other: handover.name.clone(),
        }),
    }
}

/// May these volumes of `from` be in `to`?
fn fits(from: &Group, to: &Group, volumes: &Volumes) -> Result<(), PlanError> {
    if from.extent_size != to.extent_size {
        return Err(PlanError::ExtentSizes {
            groups: [from.name.clone(), to.name.clone()],
            sizes: [from.extent_size, to.extent_size],
        });
    }
    match volumes.iter().find(|v| to.volume(&v.name).is_some()) {
        None => Ok(()),
        Some(volume) => Err(PlanError::Exists {
            what: "volume",
            name: format!("{}/{}", to.name, volume.name),
        }),
    }
}

/// A feed's other side, and what it may do here, go by the volume's name, the group's included; and its log
/// must not be moved under a peer that may connect at any moment.
fn may_move(volume: &Volume) -> Result<(), PlanError> {
    match volume.feeds.first() {
        None => Ok(()),
        Some(feed) => Err(PlanError::HasFeed {
            volume: volume.name.clone(),
            peer: feed.peer.clone(),
        }),
    }
}
