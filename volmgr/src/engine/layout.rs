//! What the engine is told about its volume.

use super::{DiskId, DiskRange, FeedId, PlexId};
use crate::model::{FeedMode, PlexState};

/// One volume as the engine sees it: names resolved to numbers, extents to bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeLayout {
    /// Size in bytes.
    pub size: u64,
    /// Unit of dirty tracking in bytes, a power of two.
    pub region_size: u64,
    /// The data plexes.
    pub plexes: Vec<PlexLayout>,
    /// The feeds.
    pub feeds: Vec<FeedLayout>,
    /// Points in time, and where it is tracked what changed since.
    pub points: Vec<PointLayout>,
    /// The valid copies of the log; all have the same length.
    pub log: Vec<DiskRange>,
    /// Refuse writes that do not come from the feed.
    pub fed: bool,
    /// The content is a moment of one write order: no feed fills the volume, or the one that does has ended well and
    /// left it consistent. [`Engine::set_whole`](super::Engine::set_whole) says what becomes of that while it flows.
    pub whole: bool,
    /// The volume is in use while its content is still coming from a feed.
    pub restore: Option<RestoreLayout>,
}

/// An online restore. The feed is in the layout, too: its map says what clients have changed here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestoreLayout {
    /// Where the content comes from.
    pub feed: FeedId,
    /// The slot in the log of the map of what is missing here.
    pub map_slot: u32,
}

/// One data plex.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlexLayout {
    /// Which.
    pub id: PlexId,
    /// Its state in the metadata.
    pub state: PlexState,
    /// Its map's slot in the log.
    pub map_slot: u32,
    /// Where its address space lies, in order and without gaps; together the volume's size
    /// (rounded up to whole extents).
    pub map: Vec<Piece>,
}

/// A piece of a plex's address space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Bytes in a row.
    Concat(DiskRange),
    /// Stripes of `stripe_size` bytes, dealt round over the columns, which have equal lengths.
    Striped {
        /// Bytes per stripe.
        stripe_size: u64,
        /// The columns.
        columns: Vec<DiskRange>,
    },
}

/// One feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedLayout {
    /// Which; also its map's slot in the log.
    pub id: FeedId,
    /// When writes are acknowledged.
    pub mode: FeedMode,
    /// The other side has nothing yet: the map starts all dirty.
    pub fresh: bool,
    /// No write is acknowledged that the other side has not durable, however long that takes.
    pub hold: bool,
}

/// A point in time for which it is tracked what changed since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PointLayout {
    /// Which.
    pub point: uuid::Uuid,
    /// The map: that of the feed which ended there, or one of its own, which is in
    /// [`VolumeLayout::feeds`] as a target that nobody ever connects.
    pub map: FeedId,
}

/// Number of a disk in the tables above.
impl From<u32> for DiskId {
    fn from(value: u32) -> Self {
        Self(value)
    }
}
