//! Disks and volumes on their way from one group to another: `vgsplit`, `vgmerge`.

use super::{Group, Pv, Volumes};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use uuid::Uuid;

/// What a group remembers while disks and volumes change groups, so that a crash in between is made good
/// at the next start. The group that has it keeps a disk throughout.
///
/// | | step 1 | step 2 | step 3 |
/// | --- | --- | --- | --- |
/// | `vgsplit`: the source, [`Giving`](HandoverSide::Giving) | has let go of them and has this: **decided** | the other group has them | this is cleared |
/// | `vgmerge`: the destination, [`Taking`](HandoverSide::Taking) | has this | the other group is removed: **decided** | has them, this is cleared |
///
/// From `decided` on, what is left of the steps is done as soon as all the disks are here; before, the
/// handover is undone by clearing it. [`crate::plan::handover_step`] says which.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handover {
    /// Which side this group is.
    pub side: HandoverSide,
    /// UUID of the other group.
    pub group: Uuid,
    /// Name of the other group.
    pub name: String,
    /// Giving: the other group did not exist before, and is made of what it gets.
    #[serde(default)]
    pub fresh: bool,
    /// Tags of the other group, where it is made.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub tags: BTreeSet<String>,
    /// The disks. In no group's list until they have arrived.
    pub pvs: Vec<Pv>,
    /// The volumes, all of whose extents are on those disks.
    pub volumes: Volumes,
}

/// Which side of a [`Handover`] a group is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HandoverSide {
    /// Gives them away.
    Giving,
    /// Gets them.
    Taking,
}

impl Group {
    /// The handover of this group that is waiting for this disk.
    pub fn hands_over(&self, pv: Uuid) -> bool {
        let handover = self.handover.iter();
        handover.flat_map(|h| &h.pvs).any(|p| p.uuid == pv)
    }
}
