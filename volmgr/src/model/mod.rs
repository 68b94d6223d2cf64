//! The configuration of a volume group, as stored in its metadata.
//!
//! Plain data: sizes in bytes or extents as named, identities as UUIDs. Everything that can be
//! configured lives here, so that it can be listed, exported and re-created.

mod check;
mod extents;
mod feed;
mod group;
mod handover;
mod index;
mod sorted;
mod volume;
mod volumes;

pub use check::{Problem, check, check_change};
pub(crate) use extents::{DiskUse, FreeRuns};
pub use feed::{
    Direction, Feed, FeedIntent, FeedMode, Generation, OnDisconnect, Point, Restore, VerifyPlan,
};
pub use group::{Group, Pv};
pub use handover::{Handover, HandoverSide};
pub use volume::{Layout, LogCopy, Plex, PlexState, Role, Subdisk, Volume};
pub use volumes::{Changes, VolumeMut, Volumes};
