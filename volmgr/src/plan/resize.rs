//! Volumes grown and cut.

use super::allocate::Want;
use super::volume::{allocate, allowed, append, extents_of, largest, log_extents};
use super::{PlanError, Space, volume_index};
use crate::model::{Group, Layout, Plex, Volume};
use std::collections::BTreeSet;
use uuid::Uuid;

/// A volume that was grown.
#[derive(Clone, Debug)]
pub struct Extension {
    /// The group with it.
    pub group: Group,
    /// A log was too short and has a new place: its content has to be written there anew before
    /// the group is committed.
    pub log_moved: bool,
}

/// The largest size in bytes to which [`extend_volume`] can grow the volume; its present size where
/// it cannot grow.
pub fn largest_extension(group: &Group, name: &str, pvs: &[Uuid]) -> Result<u64, PlanError> {
    let now = group.volumes[volume_index(group, name)?].extents;
    let fits = |extents: u64| {
        let size = extents.saturating_mul(group.extent_size);
        let extended = extend_volume(group, name, size, pvs).ok()?;
        extended.group.volume(name).map(|v| v.extents)
    };
    let most = now.saturating_add(Space::of(group).free());
    Ok(largest(most, fits)
        .max(now)
        .saturating_mul(group.extent_size))
}

/// Grows a volume to `size` bytes, rounded up to what all its layouts can do. Concatenated plexes
/// grow at their end, striped ones get another stripe set.
pub fn extend_volume(
    group: &Group,
    name: &str,
    size: u64,
    pvs: &[Uuid],
) -> Result<Extension, PlanError> {
    let index = volume_index(group, name)?;
    let mut next = group.clone();
    let mut volume = next.volumes.at_mut(index);
    let wanted = extents_of(group, size, 1)?;
    let wrong = PlanError::Value {
        what: "the new size (it is not larger)",
        value: size,
    };
    let step = volume
        .plexes
        .iter()
        .try_fold(1u64, |step, p| lcm(step, u64::from(p.columns()).max(1)));
    let grow = wanted
        .checked_sub(volume.extents)
        .filter(|g| *g > 0)
        .and_then(|g| g.checked_next_multiple_of(step?));
    let grow = grow.ok_or(wrong.clone())?;
    let extents = volume.extents.checked_add(grow).ok_or(wrong.clone())?;
    if extents.checked_mul(group.extent_size).is_none() {
        return Err(wrong);
    }
    let may = allowed(group, pvs)?;
    let mut space = Space::of(group);
    let need = log_extents(extents, group.extent_size, volume.region_size);
    let mut pool = may.clone();
    let users: Vec<BTreeSet<Uuid>> = volume.plexes.iter().map(|p| volume.pvs_of(p)).collect();
    pool.retain(|pv| !users.iter().any(|u| u.contains(pv)));
    let mut log_moved = false;
    for layout in layouts(&volume) {
        let chosen: Vec<usize> = (0..volume.plexes.len())
            .filter(|i| volume.plexes[*i].layout == layout)
            .collect();
        let wants: Vec<Want> = chosen
            .iter()
            .map(|i| {
                let plex = &volume.plexes[*i];
                let log = volume.log.iter().find(|l| l.plex == plex.uuid);
                let columns = u64::from(plex.columns()).max(1);
                Want {
                    data: grow / columns,
                    log: if log.is_some_and(|l| l.extents < need) {
                        need
                    } else {
                        0
                    },
                    own: own_disks(plex, &users[*i], &may),
                    tail: plex
                        .subdisks
                        .last()
                        .map(|s| (s.pv, s.pv_extent + s.extents)),
                }
            })
            .collect();
        let got = allocate(&mut space, &wants, layout, &pool, group.extent_size)?;
        for (i, got) in chosen.into_iter().zip(got) {
            pool.retain(|p| {
                got.data.iter().all(|(pv, _, _)| pv != p) && got.log.is_none_or(|(pv, _)| pv != *p)
            });
            let columns = volume.plexes[i].columns();
            append(&mut volume.plexes[i].subdisks, &got, columns);
            let plex = volume.plexes[i].uuid;
            if let Some((pv, pv_extent)) = got.log
                && let Some(log) = volume.log.iter_mut().find(|l| l.plex == plex)
            {
                (log.pv, log.pv_extent, log.extents) = (pv, pv_extent, need);
                log_moved = true;
            }
        }
    }
    volume.extents = extents;
    drop(volume);
    Ok(Extension {
        group: next,
        log_moved,
    })
}

/// A plex's disks that may be used; the one with its last subdisk first.
fn own_disks(plex: &Plex, users: &BTreeSet<Uuid>, may: &[Uuid]) -> Vec<Uuid> {
    let mut own: Vec<Uuid> = users.iter().copied().filter(|u| may.contains(u)).collect();
    if plex.columns() == 1 {
        let last = plex.subdisks.last().map(|s| s.pv);
        own.sort_by_key(|pv| Some(*pv) != last);
    } else {
        // Keep the columns where they are, as long as there is room.
        let columns: Vec<Uuid> = plex.subdisks.iter().map(|s| s.pv).collect();
        own.sort_by_key(|pv| columns.iter().position(|c| c == pv).unwrap_or(usize::MAX));
    }
    own
}

fn layouts(volume: &Volume) -> Vec<Layout> {
    let mut layouts: Vec<Layout> = Vec::new();
    for plex in &volume.plexes {
        if !layouts.contains(&plex.layout) {
            layouts.push(plex.layout);
        }
    }
    layouts
}

fn lcm(a: u64, b: u64) -> Option<u64> {
    let (mut x, mut y) = (a, b);
    while y != 0 {
        (x, y) = (y, x % y);
    }
    (a / x).checked_mul(b)
}

/// Cuts a volume to `size` bytes, rounded up to what all its layouts can do. What is behind is lost.
pub fn reduce_volume(group: &Group, name: &str, size: u64) -> Result<Group, PlanError> {
    let mut next = group.clone();
    let index = volume_index(group, name)?;
    let mut volume = next.volumes.at_mut(index);
    let wanted = extents_of(group, size, 1)?;
    if wanted >= volume.extents {
        return Err(PlanError::Value {
            what: "the new size (it is not smaller)",
            value: size,
        });
    }
    // The first size from there on at which every plex can be cut.
    let cut = |extents: u64| {
        let ok = |p: &Plex| cut_at(p, extents);
        volume.plexes.iter().all(ok)
    };
    let extents = (wanted..volume.extents).find(|e| cut(*e));
    let extents = extents.ok_or(PlanError::Value {
        what: "the new size (striped plexes cannot be cut there)",
        value: size,
    })?;
    for plex in &mut volume.plexes {
        let columns = u64::from(plex.columns()).max(1);
        plex.subdisks.retain(|s| s.plex_extent < extents);
        for subdisk in &mut plex.subdisks {
            let left = (extents - subdisk.plex_extent) / columns;
            subdisk.extents = subdisk.extents.min(left);
        }
    }
    volume.extents = extents;
    drop(volume);
    Ok(next)
}

/// Does a cut at this extent leave whole rows of stripes?
fn cut_at(plex: &Plex, extents: u64) -> bool {
    let columns = u64::from(plex.columns()).max(1);
    let set = plex.subdisks.iter().rev().find(|s| s.plex_extent < extents);
    set.is_some_and(|s| {
        let rows = extents - s.plex_extent;
        rows.is_multiple_of(columns) || rows >= s.extents * columns
    })
}
