//! The actions of a session that are the lane's, and maps between wire and engine.

use super::session::Work;
use super::setup::REGION;
use super::world::World;
use blockio::ByteRange;
use feedplex::session::{Action, Event};
use feedplex::wire::control::{BITMAP_CHUNK_MAX, Bitmap, WireRange};
use regionmap::RegionMap;

impl World {
    /// Carries out an action that is the engine's.
    pub fn engine_action(&mut self, n: usize, id: u64, action: Action) {
        let feed = self.sess(n, id).feed;
        let slot = feed.and_then(|feed| self.feed_id(n, feed));
        let Some(slot) = slot else {
            return self.handle(n, id, Event::Disconnected, self.now(n));
        };
        match action {
            Action::FeedOnline => {
                if self.sess(n, id).source.is_none() {
                    return self.handle(n, id, Event::Disconnected, self.now(n));
                }
                if self.daemon(n).outlets.insert(slot, id).is_some() {
                    self.call(n, |engine, out| engine.feed_offline(slot, out));
                }
                self.call(n, |engine, out| engine.feed_online(slot, out));
            }
            Action::FeedResume => self.call(n, |engine, out| engine.feed_resume(slot, out)),
            Action::FeedOffline => self.feed_offline(n, slot),
            Action::SetDirty(ranges) => {
                let map = self.map_of(n, &ranges);
                let work = [Work::Merge(map), Work::MapsWritten(None)];
                self.sess(n, id).work.extend(work);
            }
            Action::MergeMap {
                region_size,
                bitmap,
            } => {
                let ranges = ranges_of(region_size, &bitmap);
                let map = self.map_of(n, &ranges);
                let work = [Work::Merge(map), Work::MapsWritten(None)];
                self.sess(n, id).work.extend(work);
            }
            Action::ExportMap => {
                let map = self.daemon(n).engine.feed_map(slot).cloned();
                let Some(map) = map else {
                    return self.handle(n, id, Event::Disconnected, self.now(n));
                };
                for event in export(&map) {
                    self.handle(n, id, event, self.now(n));
                }
            }
            Action::RequestMark { point } => self.request_mark(n, id, slot, point),
            other => panic!("an action that nobody carries out: {other:?}"),
        }
    }

    fn map_of(&self, n: usize, ranges: &[WireRange]) -> RegionMap {
        let size = self.nodes[n].history.sectors.len() as u64 * super::disk::SECTOR;
        let mut map = RegionMap::new(size, REGION);
        let whole = ByteRange::new(0, size);
        for range in ranges {
            let range = ByteRange::checked(range.offset, range.length);
            if let Some(inside) = range.and_then(|range| range.intersection(whole)) {
                map.set_range(inside);
            }
        }
        map
    }
}

fn ranges_of(region_size: u64, bitmap: &Bitmap) -> Vec<WireRange> {
    let mut ranges = Vec::new();
    for (index, byte) in bitmap.bits.iter().enumerate() {
        for bit in (0..8u64).filter(|bit| byte & (1 << bit) != 0) {
            let region = bitmap.first_region + index as u64 * 8 + bit;
            ranges.push(WireRange {
                offset: region * region_size,
                length: region_size,
            });
        }
    }
    ranges
}

fn export(map: &RegionMap) -> Vec<Event> {
    debug_assert!(map.regions() < BITMAP_CHUNK_MAX as u64 * 8);
    let mut bits = vec![0u8; map.regions().div_ceil(8) as usize];
    for region in (0..map.regions()).filter(|region| map.is_set(*region)) {
        bits[(region / 8) as usize] |= 1 << (region % 8);
    }
    let chunk = Event::MapChunk(Bitmap {
        first_region: 0,
        bits,
    });
    vec![chunk, Event::MapEnd]
}
