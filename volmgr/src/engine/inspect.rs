//! Looking into an engine, and changing maps from outside.

use super::*;

impl Engine {
    /// The feed misses nothing; also for a feed that is not in the layout (then its slot is
    /// cleared). On the disks when [`Engine::maps_written`].
    pub fn clear_feed_map(&mut self, feed: FeedId, out: Out<'_>) {
        if let Some(feed) = self.feed_mut(feed) {
            feed.track.missing.clear_all();
            feed.track.todo.clear_all();
        } else if let Some(map) = self.spare.get_mut(&feed.0) {
            map.clear_all();
        }
        self.queue_maps();
        self.pump(out);
    }

    /// Adds the regions of `map` to what the feed misses, or its slot holds where it is not in the layout,
    /// and writes that to the log.
    pub fn merge_feed_map(&mut self, feed: FeedId, map: &RegionMap, out: Out<'_>) {
        if let Some(feed) = self.feed_mut(feed) {
            feed.track.union(map);
            feed.caught_up = false;
        } else if let Some(own) = self.spare.get_mut(&feed.0) {
            own.union(map);
        }
        self.queue_maps();
        self.pump(out);
    }

    /// The feed misses everything; for one that is not in the layout (a sink that becomes the source), its
    /// slot says so from now on.
    pub fn set_all_dirty(&mut self, feed: FeedId, out: Out<'_>) {
        let size = self.size;
        if let Some(feed) = self.feed_mut(feed) {
            feed.track.add_all();
            feed.caught_up = false;
        } else if let Some(map) = self.spare.get_mut(&feed.0) {
            map.set_range(ByteRange::new(0, size));
        }
        self.queue_maps();
        self.pump(out);
    }

    /// What the feed misses, including what is in bulk flight; for a feed that is not in the layout,
    /// what its slot in the log holds; for the slot of an online restore, what may be missing here.
    /// `None` for a number that is no slot of a feed.
    pub fn feed_map(&self, feed: FeedId) -> Option<&RegionMap> {
        let here = self.feed(feed).map(|f| &f.track.missing);
        let restore = self.restore.as_ref().filter(|r| r.slot == feed.0);
        here.or(restore.map(|r| &r.logged))
            .or(self.spare.get(&feed.0))
    }

    /// For a plex that is to come: its map, in a slot that nobody has now, says that it misses
    /// everything. A slot in use is written as it is now.
    pub fn prepare_slot(&mut self, slot: u32, out: Out<'_>) {
        if let Some(map) = self.spare.get_mut(&slot) {
            map.set_range(ByteRange::new(0, self.size));
        }
        self.queue_maps();
        self.pump(out);
    }

    /// A number for [`Engine::maps_written`]: every change of a map made so far by
    /// [`Engine::merge_feed_map`], [`Engine::set_all_dirty`], [`Engine::clear_feed_map`] or
    /// [`Engine::prepare_slot`]. (Changes by writes come with the next cycle; until then the dirty-region log covers
    /// them.)
    pub fn maps_barrier(&mut self) -> u64 {
        self.log.barrier()
    }

    /// Writes to the log that it has come further, whatever else has happened; done when
    /// [`Engine::maps_written`] says yes to the number.
    pub fn touch_log(&mut self, out: Out<'_>) -> u64 {
        let barrier = self.log.touch();
        self.pump_log(out);
        barrier
    }

    /// How far the log has durably come. Never shrinks: a log that has not come as far as it was once told
    /// is an older copy of it.
    pub fn log_stamp(&self) -> u64 {
        self.log.stamp()
    }

    /// Are those changes on the disks? Changes made later do not put that off.
    pub fn maps_written(&self, barrier: u64) -> bool {
        self.log.is_written(barrier)
    }

    /// Bytes that the feed misses; 0 for an unknown one.
    pub fn dirty_bytes(&self, feed: FeedId) -> u64 {
        self.feed_map(feed).map_or(0, RegionMap::bytes)
    }

    /// Bytes that the plex misses; 0 for an unknown one.
    pub fn plex_dirty_bytes(&self, plex: PlexId) -> u64 {
        self.plex(plex).map_or(0, |p| p.track.missing.bytes())
    }

    /// The state of a plex as the engine has it.
    pub fn plex_state(&self, plex: PlexId) -> Option<PlexState> {
        self.plex(plex).map(|p| p.state)
    }

    /// Bytes that are still to be recovered after an unclean stop.
    pub fn recover_bytes(&self) -> u64 {
        self.recover.bytes()
    }

    /// Bytes covered by the dirty-region log.
    pub fn logged_bytes(&self) -> u64 {
        self.drl.bytes()
    }

    /// Counters.
    pub fn stats(&self) -> Stats {
        self.stats
    }
}
