//! Spare disks: kept free, for plexes that lose theirs.

use super::plex::add;
use super::{PlanError, plex_index, volume_index};
use crate::model::Group;
use uuid::Uuid;

/// Keeps a disk free, or gives it up for use.
///
/// # Errors
/// [`PlanError::InUse`] where something is on a disk that is to be spare.
pub fn set_spare(group: &Group, pv: Uuid, spare: bool) -> Result<Group, PlanError> {
    let user = group
        .volumes
        .iter()
        .find(|volume| volume.extent_runs().any(|(on, _, _)| on == pv));
    if let Some(user) = user.filter(|_| spare) {
        return Err(PlanError::InUse {
            pv,
            volume: user.name.clone(),
        });
    }
    let mut next = group.clone();
    super::group::find(&mut next, pv)?.spare = spare;
    Ok(next)
}

/// Puts a plex like this one, that replaces it when it is in step
/// ([`finish_move`](super::finish_move)), on spare disks that no other plex of the volume uses. The disks that it
/// takes are spare no more. What [`attach_plex`](super::attach_plex) says of the log holds here, too.
///
/// # Errors
/// [`PlanError::Disks`] and [`PlanError::Space`] where the spare disks are too few or too small;
/// [`PlanError::Exists`] where the plex is being replaced already, or is itself the replacement.
pub fn replace_by_spare(
    group: &Group,
    volume: &str,
    number: u32,
    uuid: Uuid,
) -> Result<Group, PlanError> {
    let of = &group.volumes[volume_index(group, volume)?];
    let plex = &of.plexes[plex_index(of, number)?];
    super::plex::not_moving(of, plex)?;
    let here = group.pvs.iter().filter(|pv| pv.missing_since.is_none());
    let pool: Vec<Uuid> = here.filter(|pv| pv.spare).map(|pv| pv.uuid).collect();
    let mut next = add(group, volume, plex.layout, &pool, uuid, Some(plex.uuid))?;
    let taken: Vec<Uuid> = next
        .volume(volume)
        .into_iter()
        .flat_map(|volume| volume.plexes.iter().map(move |plex| (volume, plex)))
        .filter(|(_, plex)| plex.uuid == uuid)
        .flat_map(|(volume, plex)| volume.pvs_of(plex))
        .collect();
    for pv in next.pvs.iter_mut().filter(|pv| taken.contains(&pv.uuid)) {
        pv.spare = false;
    }
    Ok(next)
}
