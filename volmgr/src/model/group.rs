//! Volume groups and their disks.

use super::Volume;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A volume group: the unit of import, export and commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Identity; the name can change.
    pub uuid: Uuid,
    /// Name, valid by [`crate`]'s name rules.
    pub name: String,
    /// Allocation unit in bytes: a power of two, 64 KiB to 1 GiB.
    pub extent_size: u64,
    /// Number of the newest commit; grows by one with each.
    pub seqno: u64,
    /// Identity of the newest commit, to tell apart two histories of the same length.
    pub commit: Uuid,
    /// Exported groups are not activated here.
    pub exported: bool,
    /// The disks, present or not.
    pub pvs: Vec<Pv>,
    /// The volumes.
    pub volumes: Vec<Volume>,
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
    /// Set while the group is used without this disk: the `seqno` of the commit that said so. The
    /// disk's own metadata is not believed while this is set.
    pub missing_since: Option<u64>,
}
