//! Starting an engine, and changing its layout.

use super::feed::Feed;
use super::plex::Plex;
use super::track::Track;
use super::*;
use blockio::mutant;
use regionmap::log::{DRL_SLOT, HeaderError};
use thiserror::Error;

/// Bounds and means of an engine.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Most writes (and copies) in flight; more wait in a queue.
    pub max_in_flight: usize,
    /// Payloads of `bounce_bytes` bytes each that the engine may use for copies, for ever. Their
    /// number bounds the copies in flight; without any there is no resync and no read repair.
    pub bounce: Vec<PayloadId>,
    /// Bytes per bounce payload, at least one region.
    pub bounce_bytes: u64,
    /// Smallest unit of I/O of the disks, in bytes.
    pub block: u64,
    /// Most bulk copies in flight per feed.
    pub max_bulk_copies: usize,
    /// A feed with so many bytes or more in bulk copies in flight starts none.
    pub max_bulk_in_flight: u64,
    /// Most bytes per bulk copy.
    pub bulk_bytes: u64,
    /// An `async` feed with more bytes than this in live flight falls behind.
    pub max_live_bytes: u64,
    /// Milliseconds that a request waits at most for what an online restore has not brought.
    pub restore_wait_ms: u64,
    /// A plex with so many failed reads within about an hour is taken out of service, where another one has none; 0: never.
    pub max_read_errors: u32,
    /// Milliseconds between two attempts to clear the dirty-region log.
    pub clear_interval_ms: u64,
    /// All plexes are known to be equal whatever the dirty-region log says (a volume that was just
    /// created). Never set for a volume that has been written to.
    pub clean: bool,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            max_in_flight: 1024,
            bounce: Vec::new(),
            bounce_bytes: 1 << 20,
            block: 512,
            // What has changed is often scattered: then a copy is one region, and takes as long to be durable.
            max_bulk_copies: 1024,
            max_bulk_in_flight: 64 << 20,
            bulk_bytes: 4 << 20,
            max_live_bytes: 64 << 20,
            restore_wait_ms: 30_000,
            max_read_errors: 64,
            clear_interval_ms: 2000,
            clean: false,
        }
    }
}

/// Why an engine cannot be made, or a layout not be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EngineError {
    /// The region size is not a power of two.
    #[error("region size {0} is not a power of two")]
    RegionSize(u64),
    /// Bounce payloads hold less than a region.
    #[error("bounce payloads are smaller than a region")]
    BounceSize,
    /// A plex does not cover the volume, or its stripes have no size or unequal columns.
    #[error("the map of plex{} does not fit the volume", .0.0)]
    PlexMap(PlexId),
    /// Two maps share a slot of the log, or one lies outside.
    #[error("slot {0} of the log is used twice or does not exist")]
    Slot(u32),
    /// The volume has several copies, but no copy of the log can be read. Formatting one with all
    /// slots dirty is the way out; it costs a full resync.
    #[error("no usable copy of the volume's log: {0}")]
    Log(HeaderError),
    /// The map of what an online restore has not brought is damaged: nobody knows what of the volume is
    /// here and what is not.
    #[error("the map of what is still to be restored is damaged")]
    RestoreMap,
    /// A volume or its regions cannot become smaller while in use.
    #[error("the new layout changes what cannot change in use")]
    Change,
}

/// Counters since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Read requests.
    pub reads: u64,
    /// Writes, discards and write-zeroes.
    pub writes: u64,
    /// Flush requests.
    pub flushes: u64,
    /// Ranges rewritten after a read error.
    pub repairs: u64,
    /// Bytes copied between plexes.
    pub copied_bytes: u64,
    /// Bytes handed to bulk copies of feeds.
    pub bulk_bytes: u64,
    /// Bytes of hot regions put into live streams.
    pub inline_bytes: u64,
}

fn check(layout: &VolumeLayout) -> Result<(), EngineError> {
    if !layout.region_size.is_power_of_two() {
        return Err(EngineError::RegionSize(layout.region_size));
    }
    let mut slots = vec![DRL_SLOT];
    let all = layout.plexes.iter().map(|p| p.map_slot);
    let restore = layout.restore.iter().map(|r| r.map_slot);
    for slot in all
        .chain(layout.feeds.iter().map(|f| f.id.0))
        .chain(restore)
    {
        if slot >= regionmap::log::SLOTS || slots.contains(&slot) {
            return Err(EngineError::Slot(slot));
        }
        slots.push(slot);
    }
    for plex in &layout.plexes {
        // Its disks are away: what it misses is tracked, nothing is read or written there.
        let out = matches!(plex.state, PlexState::Offline | PlexState::Failed);
        if out && plex.map.is_empty() {
            continue;
        }
        let good = plex.map.iter().all(|piece| match piece {
            Piece::Concat(_) => true,
            Piece::Striped {
                stripe_size,
                columns,
            } => columns.first().is_some_and(|first| {
                let len = first.range.len();
                let equal = columns.iter().all(|c| c.range.len() == len);
                *stripe_size > 0 && equal && len % stripe_size == 0
            }),
        });
        let len: Option<u64> = plex
            .map
            .iter()
            .try_fold(0u64, |sum, piece| sum.checked_add(piece.len()));
        if !good || len.is_none_or(|len| len < layout.size) {
            return Err(EngineError::PlexMap(plex.id));
        }
    }
    Ok(())
}

fn new_plex(layout: &PlexLayout, track: Track) -> Plex {
    Plex {
        id: layout.id,
        state: layout.state,
        slot: layout.map_slot,
        map: layout.map.clone(),
        track,
        reads: 0,
        cursor: 0,
        busy: Vec::new(),
        epoch: 0,
        activating: false,
        media: Media::default(),
    }
}

impl Engine {
    /// An engine for a volume, with the images of its log's copies (`logs[i]` is `layout.log[i]`).
    ///
    /// What the log says decides: regions in the dirty-region log are recovered from the first
    /// active plex before reads are spread, and count as missed by every other target.
    pub fn new(
        layout: VolumeLayout,
        config: EngineConfig,
        logs: Vec<Vec<u8>>,
    ) -> Result<Self, EngineError> {
        check(&layout)?;
        let (size, unit) = (layout.size, layout.region_size);
        if !config.bounce.is_empty() && config.bounce_bytes < unit {
            return Err(EngineError::BounceSize);
        }
        let mut slots: Vec<RegionMap> = (0..regionmap::log::SLOTS)
            .map(|_| RegionMap::new(size, unit))
            .collect();
        let page_bytes = regionmap::PAGE_REGIONS * unit;
        let mut restore_lost = false;
        let log = LogStore::load(size, unit, &layout.log, &logs, |slot, page, bits| {
            let map = &mut slots[slot as usize];
            match bits {
                Some(bits) => {
                    map.merge_page(page, bits);
                    map.take_changed(page);
                }
                // Nobody knows: all of it, and to be written again.
                None => {
                    restore_lost |= layout.restore.is_some_and(|r| r.map_slot == slot);
                    let start = page * page_bytes;
                    map.set_range(ByteRange::new(start, page_bytes.min(size - start)));
                }
            }
        });
        let needs_log = layout.plexes.len() > 1 || !layout.feeds.is_empty();
        let log = match log {
            Ok(log) => log,
            Err(error) if needs_log => return Err(EngineError::Log(error)),
            Err(_) => LogStore::none(),
        };
        if restore_lost {
            return Err(EngineError::RestoreMap);
        }
        let mut slot =
            |n: u32| std::mem::replace(&mut slots[n as usize], RegionMap::new(size, unit));
        let mut drl = slot(DRL_SLOT);
        let logged = drl.clone();
        if config.clean {
            drl.clear_all();
        }
        let track = |map: RegionMap, all: bool| {
            let mut track = Track {
                todo: map.clone(),
                missing: map,
            };
            if !mutant("log-not-added-to-maps") {
                track.union(&drl);
            }
            if all {
                track.add_all();
            }
            track
        };
        let mut plexes = Vec::new();
        for plex in &layout.plexes {
            let map = slot(plex.map_slot);
            let track = if plex.state == PlexState::Active {
                Track::new(size, unit)
            } else {
                track(map, plex.state == PlexState::Empty)
            };
            plexes.push(new_plex(plex, track));
        }
        let restore = layout.restore.map(|r| {
            let map = slot(r.map_slot);
            Restore::new(r.feed, r.map_slot, map)
        });
        let mut feeds = Vec::new();
        for feed in &layout.feeds {
            let map = slot(feed.id.0);
            let restored = restore.as_ref().filter(|r| r.feed == feed.id);
            let track = match restored {
                None => track(map, feed.fresh),
                Some(restore) => {
                    // What is missing here comes again: it is no change of this side's.
                    let mut changed = drl.clone();
                    changed.subtract(&restore.logged);
                    let mut track = Track {
                        todo: map.clone(),
                        missing: map,
                    };
                    track.union(&changed);
                    track
                }
            };
            let mut target = Feed::new(feed.id, feed.mode, track);
            target.hold = feed.hold;
            feeds.push(target);
        }
        let spare = (DRL_SLOT + 1..regionmap::log::SLOTS)
            .filter(|n| layout.restore.is_none_or(|r| r.map_slot != *n))
            .filter(|n| !layout.plexes.iter().any(|p| p.map_slot == *n))
            .filter(|n| !layout.feeds.iter().any(|f| f.id.0 == *n))
            .map(|n| (n, slot(n)))
            .collect();
        let several = plexes.iter().filter(|p| p.is_active()).count() > 1;
        let recover = if several && !mutant("no-recovery-after-crash") {
            drl.clone()
        } else {
            RegionMap::new(size, unit)
        };
        let mut drl_durable = logged;
        if config.clean {
            drl_durable.clear_all();
        }
        Ok(Self {
            size,
            region_size: unit,
            fed: layout.fed,
            whole: layout.whole,
            frozen: 0,
            restore,
            bounce_free: config.bounce.clone(),
            config,
            plexes,
            feeds,
            drl,
            drl_durable,
            recover,
            recover_cursor: 0,
            recover_busy: Vec::new(),
            log,
            spare,
            tags: Slab::default(),
            holders: Slab::default(),
            order: Order::default(),
            reads: Slab::default(),
            flushes: Slab::default(),
            wait_log: Vec::new(),
            wait_commit: Vec::new(),
            gates: 0,
            retry_commits: Vec::new(),
            backlog: VecDeque::new(),
            repairs: VecDeque::new(),
            streams: [u64::MAX; 4],
            cycle: None,
            now_ms: 0,
            last_cycle_ms: 0,
            copy_backoff: false,
            stopping: false,
            closing: false,
            final_cycle_done: false,
            stats: Stats::default(),
        })
    }

    /// Takes a changed layout: plexes and feeds that came, went or changed state, a volume that
    /// grew. The metadata already says so. Before the volume grows, the caller has zeroed what it grows by and grown every copy
    /// of the log ([`regionmap::log::Geometry::grow`]); a copy that is new here has been formatted.
    ///
    /// Plex states: `offline` and `failed` take a plex out; `stale`, `syncing` and `empty` put one
    /// that is out back in, to be resynced, and take one out that is active here. Others keep their
    /// state: the engine commits those transitions itself.
    pub fn reconfigure(&mut self, layout: VolumeLayout, out: Out<'_>) -> Result<(), EngineError> {
        check(&layout)?;
        if layout.region_size != self.region_size || layout.size < self.size {
            return Err(EngineError::Change);
        }
        let needs = layout.plexes.len() > 1 || !layout.feeds.is_empty();
        if needs && !self.log.is_usable() {
            return Err(EngineError::Log(HeaderError::Damaged));
        }
        if let Some(cycle) = &mut self.cycle {
            cycle.aborted = true;
        }
        let logged_before = self.needs_log();
        self.fed = layout.fed;
        // A session that runs knows better than metadata that say no.
        self.whole |= layout.whole;
        self.reconfigure_log(&layout);
        self.grow(layout.size);
        self.set_back(out);
        self.reconfigure_plexes(&layout, out);
        self.reconfigure_feeds(&layout, out);
        self.reconfigure_restore(&layout, out);
        if self.needs_log() && !logged_before {
            // Writes in flight that went out without the log.
            for range in self.ranges_written().collect::<Vec<_>>() {
                self.drl.set_range(range);
            }
        }
        self.pump(out);
        Ok(())
    }

    fn reconfigure_log(&mut self, layout: &VolumeLayout) {
        let old: Vec<DiskRange> = self.log.places().collect();
        let same =
            |a: &DiskRange, b: &DiskRange| a.disk == b.disk && a.range.start() == b.range.start();
        for at in old
            .iter()
            .filter(|a| !layout.log.iter().any(|b| same(a, b)))
        {
            self.log.drop_copy(*at);
        }
        for at in &layout.log {
            if !old.iter().any(|o| same(o, at)) {
                self.log.add_formatted_copy(*at);
            }
        }
    }

    /// Nobody knows what is in the new part, and plexes may differ there: it is recovered like
    /// after a crash.
    fn grow(&mut self, size: u64) {
        if size == self.size {
            return;
        }
        let new = ByteRange::new(self.size, size - self.size);
        self.size = size;
        self.log.grow(size);
        for map in [&mut self.drl, &mut self.drl_durable, &mut self.recover] {
            map.grow(size);
        }
        let several = self.plexes.iter().filter(|p| p.is_active()).count() > 1;
        for plex in &mut self.plexes {
            plex.track.grow(size);
            if !plex.is_active() {
                plex.track.add(new);
            }
        }
        // The caller has zeroed it on the plexes, and the other side of a feed zeroes what it grows by:
        // that is no change, least of all one of the sink's own.
        for feed in &mut self.feeds {
            feed.track.grow(size);
        }
        if several {
            self.recover.set_range(new);
            self.drl.set_range(new);
        }
        for map in self.spare.values_mut() {
            map.grow(size);
        }
        if let Some(restore) = &mut self.restore {
            restore.grow(size);
        }
        if let Some(cycle) = &mut self.cycle {
            cycle.grow(size);
        }
    }

    fn reconfigure_plexes(&mut self, layout: &VolumeLayout, out: Out<'_>) {
        let kept = |p: &Plex| layout.plexes.iter().any(|l| l.id == p.id);
        for gone in self.plexes.extract_if(.., |p| !kept(p)) {
            self.spare.insert(gone.slot, gone.track.missing);
        }
        let mut unbelieved = Vec::new();
        for new in &layout.plexes {
            let Some(plex) = self.plex_mut(new.id) else {
                let mut track = Track::new(self.size, self.region_size);
                if new.state != PlexState::Active {
                    track.add_all();
                }
                self.spare.remove(&new.map_slot);
                self.plexes.push(new_plex(new, track));
                continue;
            };
            plex.map.clone_from(&new.map);
            plex.slot = new.map_slot;
            let served = plex.is_active() || plex.is_syncing();
            match new.state {
                PlexState::Offline | PlexState::Failed if served => {
                    self.take_out(new.id, new.state, out);
                }
                PlexState::Offline | PlexState::Failed => plex.state = new.state,
                PlexState::Stale | PlexState::Syncing if !served => {
                    plex.state = new.state;
                    plex.cursor = 0;
                }
                PlexState::Empty if !served => {
                    plex.state = new.state;
                    plex.track.add_all();
                }
                PlexState::Stale | PlexState::Syncing | PlexState::Empty if plex.is_active() => {
                    unbelieved.push((new.id, new.state));
                }
                _ => {}
            }
        }
        for (id, state) in unbelieved {
            self.set_aside(id, state, out);
        }
    }

    fn reconfigure_feeds(&mut self, layout: &VolumeLayout, out: Out<'_>) {
        let gone: Vec<FeedId> = self
            .feeds
            .iter()
            .filter(|f| !f.unlisted)
            .map(|f| f.id)
            .filter(|id| !layout.feeds.iter().any(|l| l.id == *id))
            .collect();
        for id in gone {
            self.feed_offline(id, out);
            self.set_hold(id, false, out);
            if let Some(at) = self.feeds.iter().position(|f| f.id == id) {
                let feed = self.feeds.swap_remove(at);
                self.spare.insert(id.0, feed.track.missing);
            }
        }
        for new in &layout.feeds {
            if let Some(feed) = self.feed_mut(new.id) {
                feed.mode = new.mode;
                feed.unlisted = false;
                self.set_hold(new.id, new.hold, out);
                continue;
            }
            let mut track = Track::new(self.size, self.region_size);
            if let Some(map) = self.spare.remove(&new.id.0) {
                track.todo = map.clone();
                track.missing = map;
            }
            if new.fresh {
                track.add_all();
            }
            let mut feed = Feed::new(new.id, new.mode, track);
            feed.hold = new.hold;
            self.feeds.push(feed);
            self.queue_maps();
        }
    }
}
