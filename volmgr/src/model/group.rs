//! Volume groups and their disks.

use super::{Handover, Volume, Volumes};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use uuid::Uuid;

/// A volume group: the unit of import, export and commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Identity; the name can change.
    pub uuid: Uuid,
    /// Name, valid by [`crate::names`].
    pub name: String,
    /// Allocation unit in bytes: a power of two, 64 KiB to 1 GiB.
    pub extent_size: u64,
    /// Number of the newest commit; grows by one with each.
    pub seqno: u64,
    /// Identity of the newest commit, to tell apart two histories of the same length.
    pub commit: Uuid,
    /// Exported groups are not activated here.
    pub exported: bool,
    /// Disks and volumes on their way to or from another group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handover: Option<Handover>,
    /// Tags, valid by [`crate::names::check_tag`]: an admin's own words to find it by.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub tags: BTreeSet<String>,
    /// The disks, present or not.
    pub pvs: Vec<Pv>,
    /// The volumes.
    pub volumes: Volumes,
}

/// A disk of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pv {
    /// Identity, also in the disk's label.
    pub uuid: Uuid,
    /// Size of the whole disk in bytes.
    pub size: u64,
    /// Offset in bytes of extent 0.
    pub data_start: u64,
    /// Number of whole extents from `data_start`.
    pub extent_count: u64,
    /// Where it was last seen; a hint, identity is the UUID.
    pub path_hint: String,
    /// Set while the group is used without this disk: the `seqno` of the commit that said so
    /// (stamped by [`crate::metadata::Store::commit`]). The disk's own metadata is not believed while this is set.
    pub missing_since: Option<u64>,
    /// Kept free for plexes that lose their disk; nothing else is put there unless it is named.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub spare: bool,
    /// Tags, as those of [`Group::tags`].
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub tags: BTreeSet<String>,
}

impl Group {
    /// Highest number of a commit: no group gets there by commits. What says so was forged, and is not believed, so
    /// that nothing has to care what comes after it.
    pub const SEQNO_MAX: u64 = u64::MAX >> 1;

    /// The volume of this name.
    pub fn volume(&self, name: &str) -> Option<&Volume> {
        self.volumes.named(name)
    }

    /// The volume of this UUID.
    pub fn volume_by_uuid(&self, uuid: Uuid) -> Option<&Volume> {
        self.volumes.of(uuid)
    }

    /// The PV of this UUID.
    pub fn pv(&self, uuid: Uuid) -> Option<&Pv> {
        self.pvs.iter().find(|p| p.uuid == uuid)
    }

    /// Extents of all PVs, used or not.
    pub fn extents_total(&self) -> u64 {
        self.pvs.iter().map(|p| p.extent_count).sum()
    }

    /// Extents in use on this PV.
    pub fn extents_used_on(&self, pv: Uuid) -> u64 {
        if let Some(disks) = self.volumes.disks() {
            return disks.get(&pv).map_or(0, |disk| disk.used());
        }
        let uses = self.volumes.iter().flat_map(Volume::extent_runs);
        uses.filter(|(on, _, _)| *on == pv).map(|(_, _, n)| n).sum()
    }

    /// Extents in use on all PVs.
    pub fn extents_used(&self) -> u64 {
        if let Some(disks) = self.volumes.disks() {
            return disks.iter().map(|(_, disk)| disk.used()).sum();
        }
        let uses = self.volumes.iter().flat_map(Volume::extent_runs);
        uses.map(|(_, _, n)| n).sum()
    }

    /// Size of a volume in bytes.
    pub fn bytes_of(&self, volume: &Volume) -> u64 {
        volume.extents.saturating_mul(self.extent_size)
    }
}
