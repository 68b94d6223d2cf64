//! A picture of a group as of its last commit.

use crate::daemon::disks::DiskKey;
use std::collections::BTreeMap;
use std::path::PathBuf;
use uuid::Uuid;
use volmgr::model::{Group, Pv, Volume};

/// Where a disk of a group is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskPlace {
    /// Path under which it was opened.
    pub path: PathBuf,
    /// Which disk it is.
    pub key: DiskKey,
    /// Number of this opening: a disk that went and came back has another one.
    pub epoch: u64,
}

/// A group, and which of its disks are here.
#[derive(Clone, Debug)]
pub struct GroupView {
    /// The version that stands. Where there is trouble: one of those found, for its name.
    pub group: Group,
    /// The disks that are here, by PV UUID.
    pub disks: BTreeMap<Uuid, DiskPlace>,
    /// Why the group cannot be used.
    pub trouble: Option<String>,
}

impl GroupView {
    /// PVs that are not here.
    pub fn missing(&self) -> Vec<&Pv> {
        self.group
            .pvs
            .iter()
            .filter(|pv| !self.disks.contains_key(&pv.uuid))
            .collect()
    }

    /// Free extents by PV UUID.
    pub fn free_extents(&self) -> BTreeMap<Uuid, u64> {
        let free = |pv: &Pv| {
            let used = self.group.extents_used_on(pv.uuid);
            (pv.uuid, pv.extent_count.saturating_sub(used))
        };
        self.group.pvs.iter().map(free).collect()
    }

    /// Path of a PV, or where it was last seen.
    pub fn disk_name(&self, pv: Uuid) -> String {
        if let Some(place) = self.disks.get(&pv) {
            return place.path.display().to_string();
        }
        match self.group.pvs.iter().find(|known| known.uuid == pv) {
            Some(known) => format!("[missing {}]", known.path_hint),
            None => format!("[unknown {pv}]"),
        }
    }

    /// The volume of that name.
    pub fn volume(&self, lv: &str) -> Option<&Volume> {
        self.group.volume(lv)
    }
}
