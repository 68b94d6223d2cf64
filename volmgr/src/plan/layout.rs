//! What the engine needs to know of a volume: names resolved to numbers, extents to bytes.

use crate::engine::{
    DiskId, DiskRange, FeedId, FeedLayout, Piece, PlexId, PlexLayout, PointLayout, RestoreLayout,
    VolumeLayout,
};
use crate::model::{
    Direction, Feed, FeedMode, Group, Layout, Plex, PlexState, Point, Subdisk, Volume,
};
use blockio::ByteRange;
use thiserror::Error;
use uuid::Uuid;

/// Why a volume cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LayoutError {
    /// A disk of a plex that is in use is not here.
    #[error("plex{plex} is {state:?}, but its disk {pv} is not here")]
    DiskAbsent {
        /// The plex.
        plex: u32,
        /// Its state.
        state: PlexState,
        /// The disk.
        pv: Uuid,
    },
    /// No plex can be read.
    #[error("no active plex has all its disks")]
    NoActivePlex,
    /// No copy of the log is valid and here.
    #[error("no valid copy of the log is here")]
    NoLog,
    /// Extents that lead beyond what can be addressed.
    #[error("an extent on disk {pv} is out of range")]
    OutOfRange {
        /// The disk.
        pv: Uuid,
    },
}

/// Resolves a volume. `disk_ids` knows the disks that are open.
///
/// A plex that is not in use (`stale`, `failed`, `offline`, `empty`) and lacks a disk has an empty
/// map: what it misses is tracked all the same. Feeds for which nothing is tracked are left out
/// ([`Feed::is_tracked`]).
pub fn layout(
    group: &Group,
    volume: &Volume,
    disk_ids: impl Fn(Uuid) -> Option<DiskId>,
) -> Result<VolumeLayout, LayoutError> {
    let resolve = Resolve {
        group,
        disk_ids: &disk_ids,
    };
    let mut plexes = Vec::new();
    for plex in &volume.plexes {
        let map = match plex.subdisks.iter().find(|s| !resolve.here(s.pv)) {
            None => resolve.map(plex)?,
            Some(s) if matches!(plex.state, PlexState::Active | PlexState::Syncing) => {
                return Err(LayoutError::DiskAbsent {
                    plex: plex.number,
                    state: plex.state,
                    pv: s.pv,
                });
            }
            Some(_) => Vec::new(),
        };
        plexes.push(PlexLayout {
            id: PlexId(plex.number),
            state: plex.state,
            map_slot: plex.map_slot,
            map,
        });
    }
    if !plexes.iter().any(|p| p.state == PlexState::Active) {
        return Err(LayoutError::NoActivePlex);
    }
    let mut log = Vec::new();
    for copy in volume.log.iter().filter(|l| l.valid && resolve.here(l.pv)) {
        log.push(resolve.range(copy.pv, copy.pv_extent, copy.extents)?);
    }
    if log.is_empty() {
        return Err(LayoutError::NoLog);
    }
    let restore = volume.feeds.iter().find_map(|f| {
        f.missing_slot().map(|map_slot| RestoreLayout {
            feed: FeedId(f.map_slot),
            map_slot,
        })
    });
    Ok(VolumeLayout {
        size: group.bytes_of(volume),
        region_size: volume.region_size,
        plexes,
        feeds: volume
            .feeds
            .iter()
            .filter(|f| f.is_tracked())
            .map(feed)
            .chain(volume.points.iter().filter_map(point_map))
            .collect(),
        points: volume
            .points
            .iter()
            .filter_map(|p| {
                let map = FeedId(volume.changed_slot(p)?);
                Some(PointLayout { point: p.uuid, map })
            })
            .collect(),
        log,
        fed: volume.is_read_only(),
        whole: volume.is_whole(),
        restore,
    })
}

fn feed(feed: &Feed) -> FeedLayout {
    FeedLayout {
        id: FeedId(feed.map_slot),
        mode: feed.mode,
        // Without a session nothing has flowed; with one, the log knows what is missing.
        fresh: feed.direction == Direction::Out && feed.epochs.is_empty(),
        hold: feed.holds_writes(),
    }
}

/// A point with a map of its own is a target that is never connected.
fn point_map(point: &Point) -> Option<FeedLayout> {
    point.map_slot.map(|slot| FeedLayout {
        id: FeedId(slot),
        mode: FeedMode::Async,
        fresh: false,
        hold: false,
    })
}

pub(super) struct Resolve<'a, F> {
    pub group: &'a Group,
    pub disk_ids: &'a F,
}

impl<F: Fn(Uuid) -> Option<DiskId>> Resolve<'_, F> {
    /// Is the disk open, and believed?
    fn here(&self, pv: Uuid) -> bool {
        let listed = self.group.pv(pv);
        listed.is_some_and(|p| p.missing_since.is_none()) && (self.disk_ids)(pv).is_some()
    }

    pub fn range(&self, pv: Uuid, extent: u64, extents: u64) -> Result<DiskRange, LayoutError> {
        let size = self.group.extent_size;
        let bytes = |pv: &crate::model::Pv| {
            let start = extent.checked_mul(size)?.checked_add(pv.data_start)?;
            let range = ByteRange::checked(start, extents.checked_mul(size)?)?;
            (range.end() <= pv.size).then_some(range)
        };
        let range = self.group.pv(pv).and_then(bytes);
        match ((self.disk_ids)(pv), range) {
            (Some(disk), Some(range)) => Ok(DiskRange { disk, range }),
            _ => Err(LayoutError::OutOfRange { pv }),
        }
    }

    pub fn map(&self, plex: &Plex) -> Result<Vec<Piece>, LayoutError> {
        let range = |s: &Subdisk| self.range(s.pv, s.pv_extent, s.extents);
        match plex.layout {
            Layout::Concat => {
                let pieces = plex.subdisks.iter().map(|s| range(s).map(Piece::Concat));
                pieces.collect()
            }
            Layout::Striped {
                columns,
                stripe_size,
            } => plex
                .subdisks
                .chunks(columns.max(1) as usize)
                .map(|set| {
                    let columns = set.iter().map(range).collect::<Result<_, _>>()?;
                    Ok(Piece::Striped {
                        stripe_size,
                        columns,
                    })
                })
                .collect(),
        }
    }
}
