//! Requests of the admin, as pure functions from one [`Group`] to the next.
//!
//! Nothing here touches a disk: the caller commits the result with [`crate::metadata::Store`]. Every
//! result passes [`crate::model::check`].
//!
//! * groups and disks: [`create_group`], [`extend_group`], [`reduce_group`], [`mark_pv_missing`], …
//! * from one group to another: [`split_group`], [`merge_group`], [`handover_step`], [`receive`]
//! * tags: [`tag_group`], [`tag_pv`], [`tag_volume`]
//! * volumes: [`create_volume`], [`extend_volume`], [`reduce_volume`], [`remove_volume`], …
//! * plexes: [`attach_plex`], [`detach_plex`], [`set_plex_state`], [`set_log_valid`], [`begin_move`], [`finish_move`]
//! * feeds and points: [`add_feed`], [`remove_feed`], [`update_feed`], [`add_point`], [`remove_point`]
//! * [`layout`]: what the engine needs to know of a volume
//! * [`Space`]: the free extents
//!
//! # Example
//!
//! A volume grows as far as there is room; the group that was asked stays as it is.
//!
//! ```
//! use uuid::Uuid;
//! use volmgr::label::{Geometry, Label};
//! use volmgr::plan::{NewPv, PlanError, VolumeRequest, create_group, create_volume, extend_volume, largest_extension};
//!
//! let mut numbers = 0;
//! let mut fresh = || { numbers += 1; Uuid::from_u128(numbers) };
//! let label = Label::new(fresh(), &Geometry::plan(256 << 20, 4 << 20)?);
//! let disk = NewPv { label, path: "/dev/sdb".to_owned() };
//! let group = create_group(fresh(), "vg0", 4 << 20, vec![disk])?;
//! let group = create_volume(&group, &VolumeRequest::new("web", 10 << 20), &mut fresh)?;
//! let size = |group: &volmgr::model::Group| group.volume("web").map(|web| group.bytes_of(web));
//! assert_eq!(size(&group), Some(12 << 20), "whole extents");
//!
//! let largest = largest_extension(&group, "web", &[])?;
//! let grown = extend_volume(&group, "web", largest, &[])?.group;
//! assert_eq!(size(&grown), Some(largest));
//! let one_more = create_volume(&grown, &VolumeRequest::new("db", 4 << 20), &mut fresh);
//! assert!(matches!(one_more, Err(PlanError::Space { .. } | PlanError::LogSpace { .. })), "{one_more:?}");
//! assert_eq!(size(&group), Some(12 << 20));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod allocate;
mod feed;
mod group;
mod handover;
mod layout;
mod places;
mod plex;
mod resize;
mod space;
mod spare;
mod volume;

pub use feed::{add_feed, add_point, remove_feed, remove_point, update_feed};
pub use group::{
    NewPv, create_group, extend_group, mark_pv_missing, mark_pv_returned, reduce_group,
    rename_group, resize_pv, revive_plexes, set_exported, tag_group, tag_pv, tag_volume,
};
pub use handover::{
    Destination, HandoverStep, disks_of, end_handover, fresh_group, handover_step, merge_group,
    receive, split_group,
};
pub use layout::{LayoutError, layout};
pub use places::{Place, places};
pub use plex::{attach_plex, begin_move, detach_plex, finish_move, set_log_valid, set_plex_state};
pub use resize::{Extension, extend_volume, largest_extension, reduce_volume};
pub use space::Space;
pub use spare::{replace_by_spare, set_spare};
pub use volume::{
    VolumeRequest, create_volume, largest_volume, remove_volume, rename_volume, update_volume,
};

use crate::model::{Feed, Group, PlexState, Volume};
use crate::names::{self, NameError};
use thiserror::Error;
use uuid::Uuid;

/// Map slots in a volume's log: slot 0 is the dirty-region log, the others are handed out to plexes
/// and feeds.
pub const MAP_SLOTS: u32 = 16;
/// Unit of dirty tracking in bytes, where nobody says otherwise.
pub const REGION_DEFAULT: u64 = 64 << 10;
/// Regions whose bits fit into one page of a map.
const REGIONS_PER_PAGE: u64 = 32256;
/// Size in bytes of a page of a map, and of the log's header.
const PAGE_BYTES: u64 = 4096;

/// Size in bytes of the log of a volume of `volume_size` bytes: a header, then for each map slot
/// each page twice.
pub const fn log_bytes(volume_size: u64, region_size: u64) -> u64 {
    let regions = volume_size.div_ceil(region_size);
    let pages = regions.div_ceil(REGIONS_PER_PAGE);
    PAGE_BYTES + MAP_SLOTS as u64 * pages * 2 * PAGE_BYTES
}

/// Why a request cannot be done. Sizes are in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PlanError {
    /// A bad name.
    #[error("{name:?}: {error}")]
    Name {
        /// The name.
        name: String,
        /// Why.
        #[source]
        error: NameError,
    },
    /// It exists already.
    #[error("{what} {name} exists already")]
    Exists {
        /// Kind of thing.
        what: &'static str,
        /// Which.
        name: String,
    },
    /// It does not exist.
    #[error("there is no {what} {name}")]
    NotFound {
        /// Kind of thing.
        what: &'static str,
        /// Which.
        name: String,
    },
    /// A number that cannot be.
    #[error("{what} cannot be {value}")]
    Value {
        /// What.
        what: &'static str,
        /// The value.
        value: u64,
    },
    /// Not enough disks.
    #[error("needs {need} on {pvs_need} different disks; {pvs_have} have room")]
    Disks {
        /// Bytes needed on each of them.
        need: u64,
        /// Disks needed.
        pvs_need: u64,
        /// Disks that are here, allowed, not used by the other plexes, and have room.
        pvs_have: u64,
    },
    /// Not enough space.
    #[error("needs {need} bytes, {have} are free where it may go")]
    Space {
        /// Bytes needed.
        need: u64,
        /// Bytes free.
        have: u64,
    },
    /// The log needs a run of extents in a row.
    #[error("its log needs {need} bytes in a row on one disk, the longest free run has {have}")]
    LogSpace {
        /// Bytes needed.
        need: u64,
        /// Bytes in the longest run.
        have: u64,
    },
    /// The disk is in use.
    #[error("disk {pv} is in use by {volume}")]
    InUse {
        /// The disk.
        pv: Uuid,
        /// A volume on it.
        volume: String,
    },
    /// A group keeps a disk as long as it lives.
    #[error("disk {pv} is the last of its group")]
    LastPv {
        /// The disk.
        pv: Uuid,
    },
    /// All map slots are taken.
    #[error("{volume} has {MAP_SLOTS} maps already; take a plex or a feed off first")]
    Slots {
        /// The volume.
        volume: String,
    },
    /// The volume would be left without its data.
    #[error("{plex} is the last active plex of {volume}")]
    LastActivePlex {
        /// The volume.
        volume: String,
        /// The plex.
        plex: String,
    },
    /// The volume would be left without a log that can be read.
    #[error("{plex} has the last valid log of {volume}")]
    LastLog {
        /// The volume.
        volume: String,
        /// The plex.
        plex: String,
    },
    /// A plex is not called active before its log copy is valid: were the other plexes to fail then, theirs would
    /// stay as the last valid ones, and nobody keeps those up any more.
    #[error("the log copy of {plex} of {volume} is not valid yet")]
    LogNotValid {
        /// The volume.
        volume: String,
        /// The plex.
        plex: String,
    },
    /// A plex is not called active while a disk of it is missing: nobody could start the volume then.
    #[error("{plex} of {volume} lies on a disk that is missing")]
    DiskMissing {
        /// The volume.
        volume: String,
        /// The plex.
        plex: String,
    },
    /// A change of state that makes no sense.
    #[error("{plex} of {volume} cannot go from {from:?} to {to:?}")]
    Transition {
        /// The volume.
        volume: String,
        /// The plex.
        plex: String,
        /// State now.
        from: PlexState,
        /// State asked for.
        to: PlexState,
    },
    /// The volume would lie in two groups.
    #[error("{volume} also lies on disk {pv}, which stays")]
    Spans {
        /// The volume.
        volume: String,
        /// A disk of it that stays.
        pv: Uuid,
    },
    /// The volume cannot change groups while peers know it by its name.
    #[error("{volume} has a feed with {peer}")]
    HasFeed {
        /// The volume.
        volume: String,
        /// The peer.
        peer: String,
    },
    /// An earlier split or merge is not finished.
    #[error("disks are still on their way between {group} and {other}")]
    Handover {
        /// The group.
        group: String,
        /// The other one.
        other: String,
    },
    /// Volumes cannot be counted in another unit.
    #[error("{} has extents of {} bytes, {} of {}", groups[0], sizes[0], groups[1], sizes[1])]
    ExtentSizes {
        /// The groups.
        groups: [String; 2],
        /// Their extents, in bytes.
        sizes: [u64; 2],
    },
    /// The disk is missing.
    #[error("disk {pv} is missing")]
    Missing {
        /// The disk.
        pv: Uuid,
    },
}

fn check_name(name: &str) -> Result<(), PlanError> {
    names::check(name).map_err(|error| PlanError::Name {
        name: name.to_owned(),
        error,
    })
}

fn volume_index(group: &Group, name: &str) -> Result<usize, PlanError> {
    let found = group.volumes.place_of(name);
    found.ok_or_else(|| PlanError::NotFound {
        what: "volume",
        name: format!("{}/{name}", group.name),
    })
}

fn plex_index(volume: &Volume, number: u32) -> Result<usize, PlanError> {
    let found = volume.plexes.iter().position(|p| p.number == number);
    found.ok_or_else(|| PlanError::NotFound {
        what: "plex",
        name: format!("{}/plex{number}", volume.name),
    })
}

/// The lowest map slot that is free.
/// A slot of the volume's log that belongs to nothing.
pub fn free_slot(volume: &Volume) -> Result<u32, PlanError> {
    let plexes = volume.plexes.iter().map(|p| p.map_slot);
    let taken: Vec<u32> = plexes
        .chain(volume.feeds.iter().map(|f| f.map_slot))
        .chain(volume.feeds.iter().filter_map(Feed::missing_slot))
        .chain(volume.points.iter().filter_map(|p| p.map_slot))
        .collect();
    (1..MAP_SLOTS)
        .find(|slot| !taken.contains(slot))
        .ok_or_else(|| PlanError::Slots {
            volume: volume.name.clone(),
        })
}

#[cfg(test)]
mod tests;
