//! Points in time: what changed here since, when the feed that made the point goes on.
//!
//! A point's map is that of the feed for as long as the feed stands at the point. When the feed is attached
//! again its map is used up, so the point gets a copy, as a target of its own that nobody ever connects:
//! every write marks it, the log keeps it, and crashes are recovered as for any other target.

use super::feed::Feed;
use super::track::Track;
use super::*;
use crate::model::FeedMode;
use regionmap::log::DRL_SLOT;

impl Engine {
    /// What the map of `from` says, and what changes from now on, into `slot` of the log, which belongs
    /// to nobody. It is on the disks when [`Engine::maps_written`]; only then a layout may name it.
    ///
    /// The slot is in service from now on, and no layout without it takes it out, until one has had it:
    /// so nothing is lost between the copy and the commit of who it belongs to.
    pub fn track_point(
        &mut self,
        slot: u32,
        from: FeedId,
        out: Out<'_>,
    ) -> Result<(), EngineError> {
        let used = self.plexes.iter().any(|p| p.slot == slot)
            || self.restore.as_ref().is_some_and(|r| r.slot == slot)
            || self.feeds.iter().any(|f| f.id.0 == slot && !f.unlisted);
        if used || slot == DRL_SLOT || slot >= regionmap::log::SLOTS {
            return Err(EngineError::Slot(slot));
        }
        self.feeds.retain(|f| f.id.0 != slot);
        let old = self.spare.remove(&slot);
        let mut track = Track::new(self.size, self.region_size);
        match self.feed_map(from) {
            Some(map) => track.union(&map.clone()),
            None => track.add_all(),
        }
        // The slot's old content may say more than the new one: that is written, too.
        match old {
            Some(old) => {
                for page in old.pages_not_clear() {
                    track.missing.mark_changed(page);
                }
            }
            None => (0..track.missing.page_count()).for_each(|p| track.missing.mark_changed(p)),
        }
        if let Some(cycle) = &mut self.cycle {
            // It has settled without this target what may leave the dirty-region log.
            cycle.aborted = true;
        }
        let mut target = Feed::new(FeedId(slot), FeedMode::Async, track);
        target.unlisted = true;
        self.feeds.push(target);
        self.queue_maps();
        self.pump(out);
        Ok(())
    }

    /// The commit that was to name the slot of [`Engine::track_point`] has failed.
    pub fn untrack_point(&mut self, slot: u32) {
        for gone in self
            .feeds
            .extract_if(.., |f| f.id.0 == slot && f.unlisted)
            .collect::<Vec<_>>()
        {
            self.spare.insert(slot, gone.track.missing);
        }
    }

    /// What of `range` has changed since a point: runs of whole regions, clipped to the range, in order;
    /// what an online restore has not brought counts as changed. `None` where nobody keeps track.
    pub fn changed(&self, map: FeedId, range: ByteRange) -> Option<Vec<ByteRange>> {
        let map = self.feed_map(map)?;
        let missing = self.restore.as_ref().map(|r| &r.track.missing);
        let mut found: Vec<ByteRange> = Vec::new();
        let mut at = range.start();
        while at < range.end() {
            let next = |m: &RegionMap| m.next_run(at, u64::MAX).filter(|r| r.start() < range.end());
            let runs = [next(map), missing.and_then(next)];
            let Some(run) = runs.into_iter().flatten().min_by_key(|r| r.start()) else {
                break;
            };
            let start = run.start().max(at);
            let end = run.end().min(range.end());
            match found.last_mut() {
                Some(last) if last.end() == start => {
                    *last = ByteRange::new(last.start(), end - last.start());
                }
                _ => found.push(ByteRange::new(start, end - start)),
            }
            at = end;
        }
        Some(found)
    }
}
