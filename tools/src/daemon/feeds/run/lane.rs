//! The actions of a session that are the lane's, and maps between wire and engine.

use super::{Driver, Streams};
use crate::lane::{LaneError, LaneHandle};
use blockio::ByteRange;
use feedplex::session::{Action, Event};
use feedplex::wire::control::{BITMAP_CHUNK_MAX, Bitmap, WireRange};
use regionmap::RegionMap;
use volmgr::engine::FeedId;
use volmgr::model::{Feed, Restore};

impl Driver {
    /// The actions that are the lane's.
    pub(super) async fn engine(&mut self, action: Action) -> Vec<Event> {
        let Some(bound) = &self.bound else {
            return vec![Event::Disconnected];
        };
        let Some(feed) = self.feeds.feed_id(&bound.entry) else {
            return vec![Event::Disconnected];
        };
        let lane = bound.lane.clone();
        let record = self.feeds.record(&bound.entry).map(|(_, feed)| feed);
        let result = match action {
            Action::FeedOnline => match &self.streams {
                Streams::Source(source) => lane.feed_attach(feed, source.outlet()).await,
                _ => return vec![Event::Disconnected],
            },
            Action::FeedResume => lane.feed_resume(feed).await,
            Action::FeedOffline => lane.feed_offline(feed).await,
            Action::SetDirty(ranges) => {
                let map = self.map_of_ranges(&ranges);
                lane.merge_feed_map(feed, map).await
            }
            Action::MergeMap {
                region_size,
                bitmap,
            } => {
                let map = self.map_of_bitmap(region_size, &bitmap);
                lane.merge_feed_map(feed, map).await
            }
            Action::ExportMap => match own_map(&lane, feed, record).await {
                Ok(map) => return export(&map),
                Err(error) => Err(error),
            },
            Action::RequestMark { point } => {
                let events = self.events.clone();
                tokio::spawn(async move {
                    if let Err(error) = lane.mark(feed, point, true).await {
                        tracing::debug!(%error, "a mark failed");
                        // The session may be over.
                        let _gone = events.send(Event::MarkFailed { point });
                    }
                });
                Ok(())
            }
            other => {
                tracing::error!(?other, "an action that nobody carries out");
                Ok(())
            }
        };
        match result {
            Ok(()) => Vec::new(),
            Err(error) => {
                tracing::warn!(%error, peer = self.peer.name, "the volume's data path failed a feed");
                vec![Event::Disconnected]
            }
        }
    }

    fn empty_map(&self) -> RegionMap {
        let (size, region) = self
            .bound
            .as_ref()
            .and_then(|bound| self.feeds.geometry(&bound.entry))
            .unwrap_or((0, 65536));
        RegionMap::new(size, region)
    }

    fn map_of_ranges(&self, ranges: &[WireRange]) -> RegionMap {
        let mut map = self.empty_map();
        let whole = ByteRange::new(0, map.size());
        for range in ranges {
            let range = ByteRange::checked(range.offset, range.length);
            if let Some(inside) = range.and_then(|range| range.intersection(whole)) {
                map.set_range(inside);
            }
        }
        map
    }

    fn map_of_bitmap(&self, region_size: u64, bitmap: &Bitmap) -> RegionMap {
        let mut map = self.empty_map();
        let whole = ByteRange::new(0, map.size());
        for (index, byte) in bitmap.bits.iter().enumerate() {
            for bit in (0..8u64).filter(|bit| byte & (1 << bit) != 0) {
                let region = bitmap
                    .first_region
                    .saturating_add(index as u64 * 8)
                    .saturating_add(bit);
                let range = region
                    .checked_mul(region_size)
                    .and_then(|start| ByteRange::checked(start, region_size));
                if let Some(inside) = range.and_then(|range| range.intersection(whole)) {
                    map.set_range(inside);
                }
            }
        }
        map
    }
}

/// The map that a session tells the peer: what is dirty for it, or what an online restore misses.
async fn own_map(
    lane: &LaneHandle,
    feed: FeedId,
    record: Option<Feed>,
) -> Result<RegionMap, LaneError> {
    if record.as_ref().and_then(|feed| feed.restore) == Some(Restore::Giving) {
        // Nobody may write any more; what came before that is dirty once it is done.
        lane.quiesce().await?;
    }
    let missing = record.and_then(|feed| feed.missing_slot());
    lane.feed_map(missing.map_or(feed, FeedId)).await
}

fn export(map: &RegionMap) -> Vec<Event> {
    let per_chunk = BITMAP_CHUNK_MAX as u64 * 8;
    let mut events = Vec::new();
    let mut first = 0;
    while first < map.regions() {
        let count = per_chunk.min(map.regions() - first);
        let mut bits = vec![0u8; count.div_ceil(8) as usize];
        let mut any = false;
        for region in (first..first + count).filter(|region| map.is_set(*region)) {
            let at = region - first;
            bits[(at / 8) as usize] |= 1 << (at % 8);
            any = true;
        }
        if any {
            events.push(Event::MapChunk(Bitmap {
                first_region: first,
                bits,
            }));
        }
        first += count;
    }
    events.push(Event::MapEnd);
    events
}
