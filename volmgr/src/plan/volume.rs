//! Volumes: made, renamed, removed.

use super::allocate::{Got, Want, concat, striped};
use super::{PlanError, REGION_DEFAULT, Space, check_name, log_bytes, volume_index};
use crate::model::{
    Generation, Group, Layout, LogCopy, Plex, PlexState, Pv, Role, Subdisk, Volume,
};
use uuid::Uuid;

/// A volume to be made.
#[derive(Clone, Debug)]
pub struct VolumeRequest {
    /// Its name.
    pub name: String,
    /// Size in bytes; rounded up to whole extents (of each column).
    pub size: u64,
    /// Further copies: 0 for one plex, 1 for two.
    pub mirrors: u32,
    /// Columns of each plex: 1 for a concatenated one.
    pub stripes: u32,
    /// Bytes per stripe; ignored with one column.
    pub stripe_size: u64,
    /// Unit of dirty tracking in bytes.
    pub region_size: u64,
    /// Disks that may be used; all, where there are none.
    pub pvs: Vec<Uuid>,
}

impl VolumeRequest {
    /// A plain volume: one plex, one column, any disks.
    pub fn new(name: &str, size: u64) -> Self {
        Self {
            name: name.to_owned(),
            size,
            mirrors: 0,
            stripes: 1,
            stripe_size: 64 << 10,
            region_size: REGION_DEFAULT,
            pvs: Vec::new(),
        }
    }

    fn layout(&self) -> Layout {
        match self.stripes {
            0 | 1 => Layout::Concat,
            columns => Layout::Striped {
                columns,
                stripe_size: self.stripe_size,
            },
        }
    }
}

/// Extents that the log of a volume of so many extents needs.
pub(super) fn log_extents(extents: u64, extent_size: u64, region_size: u64) -> u64 {
    log_bytes(extents.saturating_mul(extent_size), region_size).div_ceil(extent_size)
}

/// The size in extents, checked.
pub(super) fn extents_of(group: &Group, size: u64, columns: u64) -> Result<u64, PlanError> {
    let wrong = PlanError::Value {
        what: "the size",
        value: size,
    };
    let extents = size
        .div_ceil(group.extent_size)
        .checked_next_multiple_of(columns)
        .filter(|e| e.checked_mul(group.extent_size).is_some());
    match extents {
        Some(extents) if extents > 0 => Ok(extents),
        _ => Err(wrong),
    }
}

/// The disks that may be used, in the group's order: those named, or all but the spare ones.
pub(super) fn allowed(group: &Group, pvs: &[Uuid]) -> Result<Vec<Uuid>, PlanError> {
    for uuid in pvs {
        match group.pv(*uuid) {
            None => {
                return Err(PlanError::NotFound {
                    what: "disk",
                    name: uuid.to_string(),
                });
            }
            Some(pv) if pv.missing_since.is_some() => {
                return Err(PlanError::Missing { pv: *uuid });
            }
            Some(_) => {}
        }
    }
    let may = |pv: &Pv| pvs.contains(&pv.uuid) || pvs.is_empty() && !pv.spare;
    let here = group.pvs.iter().filter(|p| p.missing_since.is_none());
    Ok(here.filter(|pv| may(pv)).map(|pv| pv.uuid).collect())
}

/// Appends what was got to a plex's subdisks; runs that touch become one.
pub(super) fn append(subdisks: &mut Vec<Subdisk>, got: &Got, columns: u32) {
    let last = subdisks.last();
    let mut plex_extent = last.map_or(0, |s| s.plex_extent + s.extents * u64::from(columns));
    for (index, (pv, start, len)) in got.data.iter().enumerate() {
        let column = (index as u64 % u64::from(columns)) as u32;
        match subdisks.last_mut() {
            Some(last)
                if columns == 1 && last.pv == *pv && last.pv_extent + last.extents == *start =>
            {
                last.extents += len;
            }
            _ => subdisks.push(Subdisk {
                pv: *pv,
                pv_extent: *start,
                extents: *len,
                plex_extent,
                column,
            }),
        }
        if column + 1 == columns {
            plex_extent += len * u64::from(columns);
        }
    }
}

/// Space for the plexes of one volume that get so many extents each: `wants` of one layout.
pub(super) fn allocate(
    space: &mut Space,
    wants: &[Want],
    layout: Layout,
    pool: &[Uuid],
    extent_size: u64,
) -> Result<Vec<Got>, PlanError> {
    let Layout::Striped { columns, .. } = layout else {
        return concat(space, wants, pool, extent_size);
    };
    let mut pool = pool.to_vec();
    let mut all = Vec::new();
    for want in wants {
        let got =
            striped(space, want, columns, &pool, extent_size).map_err(|error| match error {
                // Say what all plexes need, not only this one.
                PlanError::Disks { need, pvs_have, .. } => PlanError::Disks {
                    need,
                    pvs_need: u64::from(columns) * wants.len() as u64,
                    pvs_have: pvs_have + u64::from(columns) * all.len() as u64,
                },
                other => other,
            })?;
        let used = |p: &Uuid| got.data.iter().any(|(pv, _, _)| pv == p);
        pool.retain(|p| !used(p) && got.log.is_none_or(|(pv, _)| pv != *p));
        all.push(got);
    }
    Ok(all)
}

/// Makes a volume. Plex 0 is `active`, further ones are `syncing`: who makes them equal (by
/// zeroing them all, say) may set them active. `uuids` gives fresh UUIDs.
pub fn create_volume(
    group: &Group,
    request: &VolumeRequest,
    uuids: &mut dyn FnMut() -> Uuid,
) -> Result<Group, PlanError> {
    let (extents, allocation) = allocate_new(group, request)?;
    let layout = request.layout();
    let log_len = log_extents(extents, group.extent_size, request.region_size);
    let mut volume = Volume {
        uuid: uuids(),
        name: request.name.clone(),
        extents,
        active: false,
        frontend: "auto".into(),
        role: Role::Normal,
        region_size: request.region_size,
        generation: Generation {
            current: uuids(),
            history: Vec::new(),
        },
        next_plex: 0,
        stable_copy: false,
        tags: Default::default(),
        plexes: Vec::new(),
        log: Vec::new(),
        feeds: Vec::new(),
        points: Vec::new(),
    };
    for (got, number) in allocation.iter().zip(0..) {
        let state = match number {
            0 => PlexState::Active,
            _ => PlexState::Syncing,
        };
        add_plex(&mut volume, uuids(), state, layout, got, log_len, true)?;
    }
    let mut next = group.clone();
    next.volumes.push(volume);
    Ok(next)
}

/// Adds a plex with its log copy.
pub(super) fn add_plex(
    volume: &mut Volume,
    uuid: Uuid,
    state: PlexState,
    layout: Layout,
    got: &Got,
    log_len: u64,
    log_valid: bool,
) -> Result<(), PlanError> {
    let map_slot = super::free_slot(volume)?;
    let above = volume.plexes.iter().map(|p| p.number.saturating_add(1));
    let number = above.fold(volume.next_plex, u32::max);
    let mut subdisks = Vec::new();
    let columns = match layout {
        Layout::Concat => 1,
        Layout::Striped { columns, .. } => columns,
    };
    append(&mut subdisks, got, columns);
    volume.plexes.push(Plex {
        uuid,
        number,
        state,
        layout,
        subdisks,
        map_slot,
        replaces: None,
    });
    if let Some((pv, pv_extent)) = got.log {
        volume.log.push(LogCopy {
            plex: uuid,
            pv,
            pv_extent,
            extents: log_len,
            valid: log_valid,
        });
    }
    Ok(())
}

fn allocate_new(group: &Group, request: &VolumeRequest) -> Result<(u64, Vec<Got>), PlanError> {
    check_name(&request.name)?;
    if group.volume(&request.name).is_some() {
        return Err(PlanError::Exists {
            what: "volume",
            name: format!("{}/{}", group.name, request.name),
        });
    }
    let value = |what, value| Err(PlanError::Value { what, value });
    let region = request.region_size;
    if !region.is_power_of_two() || !(4096..=1 << 30).contains(&region) {
        return value("the region size", region);
    }
    if request.mirrors >= super::MAP_SLOTS - 1 {
        return value("the number of mirrors", request.mirrors.into());
    }
    let columns = u64::from(request.stripes.max(1));
    let stripe = request.stripe_size;
    if columns > 1 && (!stripe.is_power_of_two() || !(4096..=group.extent_size).contains(&stripe)) {
        return value("the stripe size", stripe);
    }
    let extents = extents_of(group, request.size, columns)?;
    let want = Want {
        data: extents / columns,
        log: log_extents(extents, group.extent_size, region),
        own: Vec::new(),
        tail: None,
    };
    let wants = vec![want; request.mirrors as usize + 1];
    let pool = allowed(group, &request.pvs)?;
    let mut space = Space::of(group);
    let layout = request.layout();
    let got = allocate(&mut space, &wants, layout, &pool, group.extent_size)?;
    Ok((extents, got))
}

/// The largest size in bytes for which this request can be done; `request.size` is ignored. 0 where
/// none can.
pub fn largest_volume(group: &Group, request: &VolumeRequest) -> u64 {
    let fits = |extents: u64| {
        let size = extents.saturating_mul(group.extent_size);
        let request = VolumeRequest {
            size,
            ..request.clone()
        };
        match allocate_new(group, &request) {
            Ok((extents, _)) => Some(extents),
            Err(_) => None,
        }
    };
    largest(group.extents_total(), fits).saturating_mul(group.extent_size)
}

/// The largest result of `fits` for arguments up to `most`; it is monotonous.
pub(super) fn largest(most: u64, fits: impl Fn(u64) -> Option<u64>) -> u64 {
    let (mut low, mut high, mut best) = (1, most, 0);
    while low <= high {
        let middle = low + (high - low) / 2;
        match fits(middle) {
            Some(extents) => {
                best = best.max(extents);
                low = middle + 1;
            }
            None => high = middle - 1,
        }
    }
    best
}

/// Removes a volume.
pub fn remove_volume(group: &Group, name: &str) -> Result<Group, PlanError> {
    let mut next = group.clone();
    next.volumes.remove(volume_index(group, name)?);
    Ok(next)
}

/// Renames a volume.
pub fn rename_volume(group: &Group, name: &str, new: &str) -> Result<Group, PlanError> {
    check_name(new)?;
    if group.volume(new).is_some() {
        return Err(PlanError::Exists {
            what: "volume",
            name: format!("{}/{new}", group.name),
        });
    }
    update_volume(group, name, |v| v.name = new.to_owned())
}

/// Changes what has no rules of its own: `active`, `frontend`, `role`, `generation`.
pub fn update_volume(
    group: &Group,
    name: &str,
    change: impl FnOnce(&mut Volume),
) -> Result<Group, PlanError> {
    let mut next = group.clone();
    let index = volume_index(group, name)?;
    change(&mut next.volumes.at_mut(index));
    Ok(next)
}
