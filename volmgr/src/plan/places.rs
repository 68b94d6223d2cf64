//! Where on the disks a range of a volume lies.

use super::layout::{LayoutError, Resolve};
use crate::engine::{DiskId, DiskRange, segments};
use crate::model::{Group, Plex};
use blockio::ByteRange;
use uuid::Uuid;

/// A part of a range, on one subdisk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The subdisk: its place in [`Plex::subdisks`].
    pub subdisk: usize,
    /// Its disk.
    pub pv: Uuid,
    /// Where on the disk, in bytes from its start.
    pub range: ByteRange,
}

/// Where a plex keeps a range of the volume: its parts in the order of the volume's bytes, what is in a row on one
/// subdisk in one. Disks that are not here count, too.
pub fn places(group: &Group, plex: &Plex, range: ByteRange) -> Result<Vec<Place>, LayoutError> {
    let number = |pv: Uuid| {
        let at = group.pvs.iter().position(|known| known.uuid == pv)?;
        u32::try_from(at).ok().map(DiskId)
    };
    let resolve = Resolve {
        group,
        disk_ids: &number,
    };
    let mut subdisks = Vec::new();
    for subdisk in &plex.subdisks {
        subdisks.push(resolve.range(subdisk.pv, subdisk.pv_extent, subdisk.extents)?);
    }
    let map = resolve.map(plex)?;
    let mut found: Vec<Place> = Vec::new();
    segments(&map, range, |_, at| {
        let holds = |subdisk: &DiskRange| {
            subdisk.disk == at.disk
                && subdisk.range.intersection(at.range).map(|r| r.len()) == Some(at.range.len())
        };
        let Some(subdisk) = subdisks.iter().position(holds) else {
            return;
        };
        match found.last_mut() {
            Some(last) if last.subdisk == subdisk && last.range.end() == at.range.start() => {
                last.range = ByteRange::new(last.range.start(), last.range.len() + at.range.len());
            }
            _ => found.push(Place {
                subdisk,
                pv: plex.subdisks[subdisk].pv,
                range: at.range,
            }),
        }
    });
    Ok(found)
}
