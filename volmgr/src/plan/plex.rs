//! Data plexes: attached, detached, moved, their states and log copies.

use super::allocate::Want;
use super::volume::{add_plex, allocate, allowed, log_extents};
use super::{PlanError, Space, plex_index, volume_index};
use crate::model::{Group, Layout, Plex, PlexState, Volume};
use blockio::mutant;
use uuid::Uuid;

/// Adds a plex, in state `syncing`, on disks that no other plex of the volume uses. Before this is
/// committed the plex's map in the log must say durably that it has nothing: what is in its slot is
/// what another plex left there, or nobody. Its log copy is not valid until [`set_log_valid`] says so:
/// whoever writes the log's content there calls it.
pub fn attach_plex(
    group: &Group,
    volume: &str,
    layout: Layout,
    pvs: &[Uuid],
    uuid: Uuid,
) -> Result<Group, PlanError> {
    add(group, volume, layout, &allowed(group, pvs)?, uuid, None)
}

/// Begins to move a plex off a disk: adds one like it, as [`attach_plex`] does, that replaces it
/// when it is in step ([`finish_move`]). It may use the plex's other disks.
pub fn begin_move(
    group: &Group,
    volume: &str,
    number: u32,
    from: Uuid,
    pvs: &[Uuid],
    uuid: Uuid,
) -> Result<Group, PlanError> {
    let of = &group.volumes[volume_index(group, volume)?];
    let plex = &of.plexes[plex_index(of, number)?];
    not_moving(of, plex)?;
    let mut pool = allowed(group, pvs)?;
    pool.retain(|pv| *pv != from);
    add(group, volume, plex.layout, &pool, uuid, Some(plex.uuid))
}

/// A plex that replaces another one, or is being replaced, stays where it is.
pub(super) fn not_moving(of: &Volume, plex: &Plex) -> Result<(), PlanError> {
    let moving = |other: &Plex| other.replaces == Some(plex.uuid);
    if plex.replaces.is_some() || of.plexes.iter().any(moving) {
        return Err(PlanError::Exists {
            what: "a move of",
            name: format!("{}/{}", of.name, plex.name()),
        });
    }
    Ok(())
}

/// Ends a move whose new plex is in step: the plex that it replaces is taken off.
pub fn finish_move(group: &Group, volume: &str, number: u32) -> Result<Group, PlanError> {
    let of = &group.volumes[volume_index(group, volume)?];
    let plex = &of.plexes[plex_index(of, number)?];
    let old = of.plexes.iter().find(|p| Some(p.uuid) == plex.replaces);
    let Some(old) = old else {
        return Err(PlanError::NotFound {
            what: "move to",
            name: format!("{}/{}", of.name, plex.name()),
        });
    };
    if plex.state != PlexState::Active {
        return Err(PlanError::Transition {
            volume: of.name.clone(),
            plex: plex.name(),
            from: plex.state,
            to: PlexState::Active,
        });
    }
    detach_plex(group, volume, old.number)
}

/// Adds a plex on disks of the pool that no plex of the volume uses but the one that it `replaces`.
pub(super) fn add(
    group: &Group,
    volume: &str,
    layout: Layout,
    pool: &[Uuid],
    uuid: Uuid,
    replaces: Option<Uuid>,
) -> Result<Group, PlanError> {
    let index = volume_index(group, volume)?;
    let mut next = group.clone();
    let mut volume = next.volumes.at_mut(index);
    let columns = match layout {
        Layout::Concat => 1,
        Layout::Striped { columns, .. } => u64::from(columns),
    };
    if columns == 0 || !volume.extents.is_multiple_of(columns) {
        return Err(PlanError::Value {
            what: "the number of stripes (the volume's extents must be a multiple)",
            value: columns,
        });
    }
    if let Layout::Striped { stripe_size, .. } = layout
        && (columns < 2
            || !stripe_size.is_power_of_two()
            || !(4096..=group.extent_size).contains(&stripe_size))
    {
        return Err(PlanError::Value {
            what: "the stripe size",
            value: stripe_size,
        });
    }
    let log = log_extents(volume.extents, group.extent_size, volume.region_size);
    // All log copies have one length.
    let log = volume.log.iter().map(|l| l.extents).fold(log, u64::max);
    let mut pool = pool.to_vec();
    let others = volume.plexes.iter().filter(|p| Some(p.uuid) != replaces);
    let users: Vec<_> = others.map(|p| volume.pvs_of(p)).collect();
    pool.retain(|pv| !users.iter().any(|u| u.contains(pv)));
    if pool.is_empty() {
        return Err(PlanError::Disks {
            need: (volume.extents + log).saturating_mul(group.extent_size),
            pvs_need: columns,
            pvs_have: 0,
        });
    }
    let want = Want {
        data: volume.extents / columns,
        log,
        own: Vec::new(),
        tail: None,
    };
    let mut space = Space::of(group);
    for got in allocate(&mut space, &[want], layout, &pool, group.extent_size)? {
        let state = match mutant("new-plex-counts-as-filled") {
            true => PlexState::Active,
            false => PlexState::Syncing,
        };
        add_plex(&mut volume, uuid, state, layout, &got, log, false)?;
    }
    for plex in volume.plexes.iter_mut().filter(|p| p.uuid == uuid) {
        plex.replaces = replaces;
    }
    drop(volume);
    Ok(next)
}

/// Takes a plex off, with its log copy.
///
/// # Errors
/// [`PlanError::LastActivePlex`] and [`PlanError::LastLog`] where others would be left without.
pub fn detach_plex(group: &Group, volume: &str, number: u32) -> Result<Group, PlanError> {
    let index = volume_index(group, volume)?;
    let mut next = group.clone();
    let mut volume = next.volumes.at_mut(index);
    let index = plex_index(&volume, number)?;
    let plex = volume.plexes.remove(index);
    if !volume.plexes.iter().any(|p| p.state == PlexState::Active) {
        return Err(PlanError::LastActivePlex {
            volume: volume.name.clone(),
            plex: plex.name(),
        });
    }
    volume.next_plex = volume.next_plex.max(plex.number.saturating_add(1));
    for other in volume
        .plexes
        .iter_mut()
        .filter(|p| p.replaces == Some(plex.uuid))
    {
        other.replaces = None;
    }
    volume.log.retain(|l| l.plex != plex.uuid);
    if !volume.log.iter().any(|l| l.valid) {
        return Err(PlanError::LastLog {
            volume: volume.name.clone(),
            plex: plex.name(),
        });
    }
    drop(volume);
    Ok(next)
}

/// Sets a plex's state. A plex that becomes failed or offline loses its valid log copy, if the volume has
/// another.
///
/// # Errors
/// [`PlanError::Transition`], [`PlanError::LastActivePlex`]; [`PlanError::DiskMissing`] where a plex would be active
/// without all of its disks; and [`PlanError::LogNotValid`] where it would be without a log to go on from if it becomes
/// the last one.
pub fn set_plex_state(
    group: &Group,
    volume: &str,
    number: u32,
    state: PlexState,
) -> Result<Group, PlanError> {
    let index = volume_index(group, volume)?;
    let mut next = group.clone();
    let mut volume = next.volumes.at_mut(index);
    let index = plex_index(&volume, number)?;
    let (name, from, uuid) = {
        let plex = &volume.plexes[index];
        (plex.name(), plex.state, plex.uuid)
    };
    if !from.may_become(state) {
        return Err(PlanError::Transition {
            volume: volume.name.clone(),
            plex: name,
            from,
            to: state,
        });
    }
    let active = |s: PlexState| s == PlexState::Active;
    // A disk that another commit has given up meanwhile: whoever asks for this has not heard of it yet.
    let pvs = volume.pvs_of(&volume.plexes[index]);
    let away = |pv: &Uuid| group.pv(*pv).is_none_or(|p| p.missing_since.is_some());
    if active(state) && !active(from) && pvs.iter().any(away) {
        return Err(PlanError::DiskMissing {
            volume: volume.name.clone(),
            plex: name,
        });
    }
    let unready = volume.log.iter().any(|l| l.plex == uuid && !l.valid);
    if active(state) && !active(from) && unready && !mutant("active-before-its-log") {
        return Err(PlanError::LogNotValid {
            volume: volume.name.clone(),
            plex: name,
        });
    }
    volume.plexes[index].state = state;
    if active(from) && !volume.plexes.iter().any(|p| active(p.state)) {
        return Err(PlanError::LastActivePlex {
            volume: volume.name.clone(),
            plex: name,
        });
    }
    // The engine writes no log there from now on, also where an admin has taken the plex off. One that only
    // misses something keeps its log: were it called invalid, the copy of a plex that fails later would
    // stay as the last valid one, and it is not kept up any more.
    let lost = matches!(state, PlexState::Failed | PlexState::Offline) && from != state;
    if lost && volume.log.iter().any(|l| l.valid && l.plex != uuid) {
        for log in volume.log.iter_mut().filter(|l| l.plex == uuid) {
            log.valid = false;
        }
    }
    drop(volume);
    Ok(next)
}

/// Says whether a plex's log copy may be read.
pub fn set_log_valid(
    group: &Group,
    volume: &str,
    number: u32,
    valid: bool,
) -> Result<Group, PlanError> {
    let index = volume_index(group, volume)?;
    let mut next = group.clone();
    let mut volume = next.volumes.at_mut(index);
    let plex = &volume.plexes[plex_index(&volume, number)?];
    let (uuid, name) = (plex.uuid, plex.name());
    for log in volume.log.iter_mut().filter(|l| l.plex == uuid) {
        log.valid = valid;
    }
    if !volume.log.iter().any(|l| l.valid) {
        return Err(PlanError::LastLog {
            volume: volume.name.clone(),
            plex: name,
        });
    }
    drop(volume);
    Ok(next)
}
