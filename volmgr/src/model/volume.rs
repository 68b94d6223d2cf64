//! Volumes, plexes and subdisks.

use super::{Feed, FeedIntent, Generation, Point, Restore};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use uuid::Uuid;

/// Who may write to a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Its users.
    Normal,
    /// Its feed only: the volume is the sink.
    Feed,
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Identity; the name can change.
    pub uuid: Uuid,
    /// Name within the group.
    pub name: String,
    /// Size in extents of the group.
    pub extents: u64,
    /// Tags, as those of [`super::Group::tags`].
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub tags: BTreeSet<String>,
    /// Should be served whenever the group is.
    pub active: bool,
    /// Front end asked for at activation: `ublk`, `nbd`, `both` or `auto`.
    pub frontend: String,
    /// Who may write.
    pub role: Role,
    /// Unit of dirty tracking in bytes, a power of two.
    pub region_size: u64,
    /// Which state of the data this is.
    pub generation: Generation,
    /// A plex gets at least this number: those of plexes that were detached are not given again.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub next_plex: u32,
    /// Writes are copied once before they go to plexes and feeds, even where that could be avoided.
    #[serde(default, skip_serializing_if = "is_false")]
    pub stable_copy: bool,
    /// The data plexes.
    pub plexes: Vec<Plex>,
    /// The copies of the volume's log (dirty-region log, maps of plexes and feeds).
    pub log: Vec<LogCopy>,
    /// The feeds.
    pub feeds: Vec<Feed>,
    /// Named points in time that this node knows of.
    pub points: Vec<Point>,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

fn is_false(flag: &bool) -> bool {
    !*flag
}

/// State of a data plex. The transitions are drawn in `docs/states.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PlexState {
    /// Never had content.
    Empty,
    /// Being filled from an active plex; gets all writes.
    Syncing,
    /// Has every acknowledged write.
    Active,
    /// Missed writes; its map says which regions.
    Stale,
    /// I/O errors.
    Failed,
    /// Taken off by the admin; its map collects what it misses.
    Offline,
}

/// How a plex's subdisks make up its address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Layout {
    /// One subdisk after the other.
    Concat,
    /// Stripes of `stripe_size` bytes dealt round over `columns` columns. A volume that was
    /// extended has several stripe sets, one behind the other: see [`Subdisk::plex_extent`].
    Striped {
        /// Number of columns, at least 2.
        columns: u32,
        /// Bytes per stripe, a power of two, at least 4 KiB, at most the extent size.
        stripe_size: u64,
    },
}

/// One complete copy of a volume's address space.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plex {
    /// Identity.
    pub uuid: Uuid,
    /// Number within the volume, never reused while the volume lives; the name is `plexN`.
    pub number: u32,
    /// State.
    pub state: PlexState,
    /// Layout.
    pub layout: Layout,
    /// The subdisks, by `plex_extent`, then `column`.
    pub subdisks: Vec<Subdisk>,
    /// Slot in the volume's log of the map of what this plex misses.
    pub map_slot: u32,
    /// The plex of the volume that is taken off when this one is active: its data is on the move.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<Uuid>,
}

/// A run of contiguous extents on one disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subdisk {
    /// The disk.
    pub pv: Uuid,
    /// First extent on the disk.
    pub pv_extent: u64,
    /// Length in extents.
    pub extents: u64,
    /// First extent of the plex that this subdisk (concatenated) or its stripe set (striped)
    /// serves. In a stripe set all columns have the same `plex_extent` and the same `extents`, and
    /// the set covers `extents * columns` extents of the plex.
    pub plex_extent: u64,
    /// Column in a stripe set; 0 in a concatenated plex.
    pub column: u32,
}

/// One copy of a volume's log, in its own subdisk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogCopy {
    /// The plex whose disk it shares, so that they live and die together.
    pub plex: Uuid,
    /// The disk.
    pub pv: Uuid,
    /// First extent on the disk.
    pub pv_extent: u64,
    /// Length in extents.
    pub extents: u64,
    /// False where this copy missed updates and must not be read.
    pub valid: bool,
}

impl Volume {
    /// May no client write: it is being fed, or a peer reads it for an online restore?
    pub fn is_read_only(&self) -> bool {
        let giving = |f: &Feed| f.restore == Some(Restore::Giving);
        let in_use = |f: &Feed| f.missing_slot().is_some();
        let fed = self.role == Role::Feed && !self.feeds.iter().any(in_use);
        fed || self.feeds.iter().any(giving)
    }

    /// Is the content a moment of one write order, as far as the metadata tells? It is not while a feed fills the
    /// volume; a feed that flows says more than the metadata.
    pub fn is_whole(&self) -> bool {
        let filled = |f: &&Feed| f.fills() && !f.epochs.is_empty();
        let mut filled = self.feeds.iter().filter(filled);
        filled.all(|f| f.consistent && f.settled)
    }

    /// Does the feed stand at this point: is the copy over there (or, at a sink, the content here) this
    /// point, but for what changed here since?
    pub fn holds(&self, point: &Point) -> bool {
        let ended = FeedIntent::Split { point: point.uuid };
        self.feeds
            .iter()
            .any(|f| f.uuid == point.feed && f.intent == ended)
    }

    /// Slot in the volume's log of the map of what changed here since the point; `None` where nobody
    /// has kept track.
    pub fn changed_slot(&self, point: &Point) -> Option<u32> {
        let feed = || self.feeds.iter().find(|f| f.uuid == point.feed);
        let feeds = || feed().filter(|_| self.holds(point)).map(|f| f.map_slot);
        point.map_slot.or_else(feeds)
    }

    /// The plex of this number (`plexN`).
    pub fn plex(&self, number: u32) -> Option<&Plex> {
        self.plexes.iter().find(|p| p.number == number)
    }

    /// Every run of extents that the volume uses, logs too: PV, first extent, length.
    pub fn extent_runs(&self) -> impl Iterator<Item = (Uuid, u64, u64)> + '_ {
        let subdisks = self.plexes.iter().flat_map(|p| &p.subdisks);
        let logs = self.log.iter().map(|l| (l.pv, l.pv_extent, l.extents));
        subdisks.map(|s| (s.pv, s.pv_extent, s.extents)).chain(logs)
    }

    /// The PVs that a plex uses, its log's too, each once.
    pub fn pvs_of(&self, plex: &Plex) -> BTreeSet<Uuid> {
        let logs = self.log.iter().filter(|l| l.plex == plex.uuid);
        let logs = logs.map(|l| l.pv);
        plex.subdisks.iter().map(|s| s.pv).chain(logs).collect()
    }
}

impl Plex {
    /// `plexN`.
    pub fn name(&self) -> String {
        format!("plex{}", self.number)
    }

    /// Columns of a stripe set; 1 for a concatenated plex.
    pub fn columns(&self) -> u32 {
        match self.layout {
            Layout::Concat => 1,
            Layout::Striped { columns, .. } => columns,
        }
    }
}

impl PlexState {
    /// May a plex go from this state to that one? Staying is always allowed.
    ///
    /// | from \\ to | empty | syncing | active | stale | failed | offline |
    /// | --- | :-: | :-: | :-: | :-: | :-: | :-: |
    /// | empty | = | yes | yes | | yes | yes |
    /// | syncing | | = | yes | yes | yes | yes |
    /// | active | yes | | = | yes | yes | yes |
    /// | stale | | yes | yes | = | yes | yes |
    /// | failed | | yes | | yes | = | yes |
    /// | offline | | yes | | yes | yes | = |
    ///
    /// Besides, any plex becomes empty that is not active, where the content of its disk cannot be relied
    /// on any more ([`crate::plan::revive_plexes`]).
    pub fn may_become(self, to: Self) -> bool {
        use PlexState::{Active, Empty, Failed, Offline, Stale, Syncing};
        self == to
            || matches!(
                (self, to),
                (_, Failed | Offline)
                    | (Empty, Syncing | Active)
                    | (Syncing, Active | Stale)
                    | (Active, Empty | Stale)
                    | (Stale, Syncing | Active)
                    | (Failed | Offline, Syncing | Stale)
            )
    }
}
