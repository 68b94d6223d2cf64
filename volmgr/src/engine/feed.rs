//! Feeds: live operations in order, bulk copies of what is dirty, marks.

use super::heat::Heat;
use super::mapping::segments;
use super::order::Bag;
use super::track::{Track, next_free_run};
use super::*;
use crate::model::FeedMode;
use blockio::{Flags, Payload, mutant};

/// Regions looked at in search of the next bulk copy.
const ATTEMPTS: u32 = 64;
/// Most bytes of neighbouring hot regions that enter the live stream at once: they wait in its queue.
const INLINE_BYTES: u64 = 256 << 10;
/// Most ranges, and most regions of each, taken from one request of the other side.
const MAX_FETCH: usize = 64;

#[derive(Debug)]
pub(super) struct Feed {
    pub id: FeedId,
    pub mode: FeedMode,
    pub track: Track,
    pub online: bool,
    /// Over its bound: only tracks until it is told to resume.
    pub behind: bool,
    /// Ended at a mark: only tracks.
    pub detached: bool,
    /// No write is acknowledged that is not durable there.
    pub hold: bool,
    /// Writes that wait for that: all of them are durable there once nothing is missing.
    pub held: Vec<Key>,
    /// In service though no layout has had it yet.
    pub unlisted: bool,
    /// Misses nothing.
    pub caught_up: bool,
    /// Has caught up with content that is no moment of one write order: that is told later.
    pub untold: bool,
    /// Has caught up since it was connected. From then on writes wait for a `sync` feed, also while it is
    /// behind a peer that is slow: only one that is gone degrades it.
    in_step: bool,
    /// A bulk copy failed: no new ones until the next tick.
    pub backoff: bool,
    /// Live operations (and hot regions in the live stream) that are not durable there.
    pub live: Bag,
    /// Bytes of them.
    pub live_bytes: u64,
    /// Bulk copies in flight.
    pub bulk: Bag,
    /// Regions on their way into the live stream.
    pub inlining: Vec<ByteRange>,
    /// Regions that are in it, once for each time.
    pub inlined: Vec<ByteRange>,
    /// Flushes and marks in flight.
    others: Vec<IoId>,
    heat: Heat,
    cursor: u64,
}

impl Feed {
    pub fn new(id: FeedId, mode: FeedMode, track: Track) -> Self {
        let heat = Heat::new(track.todo.region_size());
        Self {
            id,
            mode,
            track,
            online: false,
            behind: false,
            detached: false,
            hold: false,
            held: Vec::new(),
            unlisted: false,
            caught_up: false,
            untold: false,
            in_step: false,
            backoff: false,
            live: Bag::default(),
            live_bytes: 0,
            bulk: Bag::default(),
            inlining: Vec::new(),
            inlined: Vec::new(),
            others: Vec::new(),
            heat,
            cursor: 0,
        }
    }

    /// Does it take operations, or only track?
    pub fn sends(&self) -> bool {
        self.online && !self.behind && !self.detached
    }

    /// Do writes wait until they are durable on the other side?
    pub fn waits(&self) -> bool {
        self.hold || self.mode == FeedMode::Sync && self.in_step
    }

    /// The other side misses the range.
    pub fn dirty(&mut self, range: ByteRange) {
        self.track.add(range);
        self.caught_up = false;
    }

    /// What is in bulk flight may be old: once more, all of it.
    pub fn doubt_bulk(&mut self) {
        for (range, _) in self.bulk.iter() {
            self.track.add(range);
            self.caught_up = false;
        }
    }

    /// The next hot regions that may enter the live stream, neighbours of together `most` bytes at most: nothing of them is in bulk
    /// flight. `missing` says of a region that it is not here to be sent.
    pub fn next_inline(
        &mut self,
        now_ms: u64,
        most: u64,
        missing: impl Fn(ByteRange) -> bool,
    ) -> Option<ByteRange> {
        if !self.sends() || self.heat.is_empty() {
            return None;
        }
        let unit = self.track.todo.region_size();
        let size = self.track.todo.size();
        self.heat.retain(|region| self.track.missing.is_set(region));
        let range = |region: u64| {
            let start = region * unit;
            ByteRange::new(start, unit.min(size - start))
        };
        let may = |region: u64| {
            let range = range(region);
            self.track.todo.is_set(region)
                && !self.bulk.overlaps(range)
                && !self.inlining.iter().any(|r| r.overlaps(range))
                && !missing(range)
        };
        let hot = self.heat.hot_regions(now_ms);
        let first = hot.filter(|region| may(*region)).min()?;
        let mut found = range(first);
        let most = most.min(INLINE_BYTES);
        for region in first + 1..size.div_ceil(unit) {
            let longer = range(region).end() - found.start();
            if longer > most || !self.heat.is_hot(region, now_ms) || !may(region) {
                break;
            }
            found = ByteRange::new(found.start(), longer);
        }
        self.inlining.push(found);
        Some(found)
    }
}

impl Engine {
    pub(super) fn feed(&self, id: FeedId) -> Option<&Feed> {
        self.feeds.iter().find(|f| f.id == id)
    }

    pub(super) fn feed_mut(&mut self, id: FeedId) -> Option<&mut Feed> {
        self.feeds.iter_mut().find(|f| f.id == id)
    }

    /// A write goes out to the plexes: and to each feed, or into its map. Returns how many feeds
    /// its completion waits for.
    pub(super) fn dispatch_feeds(
        &mut self,
        key: Key,
        op: Op,
        range: ByteRange,
        flags: Flags,
        payload: Option<PayloadId>,
        out: Out<'_>,
    ) -> u32 {
        let mut waits = 0;
        let now_ms = self.now_ms;
        for feed in &mut self.feeds {
            if feed.mode == FeedMode::Async
                && feed.sends()
                && feed.live_bytes > self.config.max_live_bytes
            {
                go_behind(feed, out);
            }
            match feed.bulk.overlaps(range) {
                true => feed.heat.spoilt(range, now_ms),
                false => feed.heat.written(range, now_ms),
            }
            let overtakes = feed.bulk.overlaps(range) && !mutant("live-overtakes-resync");
            if !feed.sends() || feed.track.todo.any_in(range) || overtakes {
                feed.dirty(range);
                if feed.waits() {
                    feed.held.push(key);
                    waits += 1;
                }
                continue;
            }
            let sync = feed.waits();
            waits += u32::from(sync);
            let io = IoId(self.tags.insert(Tag::Live {
                feed: feed.id,
                range,
                write: sync.then_some(key),
            }));
            feed.live.insert(range, io.0);
            feed.live_bytes += range.len();
            let keep = Flags::FUA | Flags::NO_UNMAP;
            out.push(Action::Feed(FeedIo {
                io,
                feed: feed.id,
                op,
                range,
                payload: payload.map(|id| Payload { id, skip: 0 }),
                flags: flags & keep | if sync { Flags::FUA } else { Flags::empty() },
            }));
        }
        waits
    }

    /// Nobody knows what the volume holds there: every feed misses it. One that has caught up leaves the
    /// write order with that, as a bulk copy has no place in it, and its sink must hear of it first.
    pub(super) fn doubt_feeds(&mut self, range: ByteRange, out: Out<'_>) {
        for feed in &mut self.feeds {
            if feed.caught_up {
                go_behind(feed, out);
            }
            feed.dirty(range);
        }
    }

    /// Something has come from one feed in an online restore: the others copy it when they can.
    pub(super) fn pass_on(&mut self, source: FeedId, parts: &[ByteRange]) {
        for feed in self.feeds.iter_mut().filter(|f| f.id != source) {
            for part in parts {
                feed.dirty(*part);
            }
        }
    }

    /// Sends a flush after the live operations; returns how many feeds its completion waits for.
    pub(super) fn flush_feeds(&mut self, key: Key, out: Out<'_>) -> u32 {
        let mut waits = 0;
        for feed in self.feeds.iter_mut().filter(|f| f.sends()) {
            let sync = feed.mode == FeedMode::Sync && feed.in_step;
            waits += u32::from(sync);
            let io = IoId(self.tags.insert(Tag::LiveFlush {
                feed: feed.id,
                flush: sync.then_some(key),
            }));
            feed.others.push(io);
            out.push(Action::Feed(FeedIo {
                io,
                feed: feed.id,
                op: Op::Flush,
                range: ByteRange::default(),
                payload: None,
                flags: Flags::empty(),
            }));
        }
        waits
    }

    pub(super) fn live_done(
        &mut self,
        io: IoId,
        id: FeedId,
        range: ByteRange,
        write: Option<Key>,
        result: Result<(), IoError>,
        out: Out<'_>,
    ) {
        if let Some(feed) = self.feed_mut(id) {
            feed.live.remove(range, io.0);
            feed.live_bytes = feed.live_bytes.saturating_sub(range.len());
            if let Err(error) = result {
                if !mutant("lost-live-write-forgotten") {
                    feed.dirty(range);
                }
                if error.kind() == IoErrorKind::Congested {
                    go_behind(feed, out);
                }
                if let Some(write) = write
                    && feed.waits()
                {
                    feed.held.push(write);
                    return;
                }
            }
        }
        if let Some(write) = write {
            self.sync_answered(write, out);
        }
    }

    pub(super) fn live_flush_done(
        &mut self,
        io: IoId,
        id: FeedId,
        flush: Option<Key>,
        result: Result<(), IoError>,
        out: Out<'_>,
    ) {
        if let Some(feed) = self.feed_mut(id) {
            feed.others.retain(|o| *o != io);
            if result.is_err_and(|e| e.kind() == IoErrorKind::Congested) {
                go_behind(feed, out);
            }
        }
        if let Some(flush) = flush {
            self.sync_flushed(flush, out);
        }
    }

    pub(super) fn bulk_done(
        &mut self,
        io: IoId,
        id: FeedId,
        range: ByteRange,
        since_ms: u64,
        result: Result<(), IoError>,
        out: Out<'_>,
    ) {
        let now_ms = self.now_ms;
        let Some(feed) = self.feed_mut(id) else {
            return;
        };
        feed.bulk.remove(range, io.0);
        let Err(error) = result else {
            feed.heat.copied(since_ms, now_ms);
            return feed.track.settled(range);
        };
        if !mutant("lost-copy-forgotten") {
            feed.dirty(range);
        }
        feed.backoff = true;
        match error.kind() {
            IoErrorKind::Congested => go_behind(feed, out),
            IoErrorKind::Gone | IoErrorKind::Cancelled => {}
            // The disk cannot read it: by way of memory another plex may be asked.
            _ => feed.heat.ask(range, now_ms),
        }
    }

    pub(super) fn pump_feeds(&mut self, out: Out<'_>) {
        for i in 0..self.feeds.len() {
            self.pump_bulk(i, out);
            let feed = &mut self.feeds[i];
            if feed.sends()
                && !feed.caught_up
                && feed.track.missing.is_empty()
                && feed.inlining.is_empty()
            {
                feed.caught_up = true;
                feed.untold = true;
                feed.in_step = true;
                feed.heat.clear();
                // Whether the content is whole or not: what waits here may be what makes it so.
                for key in std::mem::take(&mut feed.held) {
                    self.sync_answered(key, out);
                }
            }
            self.tell_caught_up(i, out);
        }
    }

    fn pump_bulk(&mut self, index: usize, out: Out<'_>) {
        let now_ms = self.now_ms;
        loop {
            let feed = &mut self.feeds[index];
            let full = feed.bulk.len() >= self.config.max_bulk_copies
                || feed.bulk.bytes() >= self.config.max_bulk_in_flight;
            if !feed.sends() || feed.backoff || full {
                return;
            }
            let (order, unit) = (&self.order, self.region_size);
            let restore = self.restore.as_ref();
            let (mut held, bounced) = (None, !self.config.bounce.is_empty());
            let run = next_free_run(
                &feed.track.todo,
                feed.cursor,
                self.config.bulk_bytes,
                ATTEMPTS,
                |region| {
                    let writing = order.is_held(region);
                    if writing {
                        held = held.or(Some(region));
                    }
                    writing
                        || restore.is_some_and(|r| r.track.todo.any_in(region))
                        || bounced && feed.heat.is_hot(region.start() / unit, now_ms)
                        || feed.live.overlaps(region)
                        || feed.bulk.overlaps(region)
                        || feed.inlining.iter().any(|r| r.overlaps(region))
                },
            );
            if let Some(region) = held {
                feed.heat.in_the_way(region, now_ms);
            }
            let Some(run) = run else { return };
            let feed = feed.id;
            let source = self.read_plex(run, 0);
            let Some(plex) = self.plexes.iter().find(|p| Some(p.id) == source) else {
                return;
            };
            let mut places = Vec::new();
            if !segments(&plex.map, run, |_, at| places.push(at)) {
                return;
            }
            let io = self.tag(Tag::Bulk {
                feed,
                range: run,
                since_ms: now_ms,
            });
            let feed = &mut self.feeds[index];
            feed.cursor = run.end();
            feed.track.todo.clear_range(run);
            feed.bulk.insert(run, io.0);
            self.stats.bulk_bytes += run.len();
            out.push(Action::FeedCopy(FeedCopy {
                io,
                feed: feed.id,
                range: run,
                segments: places,
            }));
        }
    }

    /// The feed is connected and in step about what is dirty: it sends from now on.
    pub fn feed_online(&mut self, feed: FeedId, out: Out<'_>) {
        if let Some(feed) = self.feed_mut(feed) {
            feed.online = true;
            feed.behind = false;
            feed.detached = false;
            feed.backoff = false;
            feed.caught_up = false;
            feed.cursor = 0;
        }
        self.pump(out);
    }

    /// The feed is cut off: everything in flight to it counts as missed. The driver has stopped
    /// all I/O of the feed before; late [`Engine::io_done`]s for it are ignored.
    pub fn feed_offline(&mut self, id: FeedId, out: Out<'_>) {
        let Some(feed) = self.feed_mut(id) else {
            return;
        };
        feed.online = false;
        feed.caught_up = false;
        feed.in_step = false;
        feed.heat.clear();
        let ios: Vec<IoId> = feed
            .live
            .iter()
            .chain(feed.bulk.iter())
            .map(|(_, key)| IoId(key))
            .chain(feed.others.drain(..))
            .collect();
        let gone = Err(IoError::new(IoErrorKind::Gone));
        for io in ios {
            match self.tags.remove(io.0) {
                Some(Tag::Live { feed, range, write }) => {
                    self.live_done(io, feed, range, write, gone, out);
                }
                Some(Tag::Inline {
                    feed,
                    range,
                    bounce,
                }) => {
                    self.inline_done(io, feed, range, bounce, gone, out);
                }
                Some(Tag::Bulk {
                    feed,
                    range,
                    since_ms,
                }) => {
                    self.bulk_done(io, feed, range, since_ms, gone, out);
                }
                Some(Tag::LiveFlush { feed, flush }) => {
                    self.live_flush_done(io, feed, flush, gone, out);
                }
                _ => {}
            }
        }
        self.release_held(id, out);
        self.pump(out);
    }

    /// The feed is over the driver's bound: it only tracks until [`Engine::feed_resume`].
    pub fn feed_behind(&mut self, feed: FeedId, out: Out<'_>) {
        if let Some(feed) = self.feed_mut(feed) {
            go_behind(feed, out);
        }
    }

    /// There is room again: the feed catches up.
    pub fn feed_resume(&mut self, feed: FeedId, out: Out<'_>) {
        if let Some(feed) = self.feed_mut(feed) {
            feed.behind = false;
        }
        self.pump(out);
    }

    /// Puts a mark into the feed's live stream: every write acknowledged before is before it. It
    /// names a consistent point only where the feed has caught up ([`Engine::is_caught_up`]).
    /// With `detach` the feed only tracks from there on: its map is the difference to the mark.
    /// An error of the mark cuts the feed off. `None` where the feed takes no operations now.
    pub fn mark(&mut self, id: FeedId, detach: bool, out: Out<'_>) -> Option<IoId> {
        self.feed(id).filter(|f| f.sends())?;
        let io = self.tag(Tag::Mark { feed: id });
        let feed = self.feed_mut(id)?;
        feed.others.push(io);
        feed.detached = detach;
        feed.caught_up &= !detach;
        feed.in_step &= !detach;
        out.push(Action::FeedMark { io, feed: id });
        self.release_held(id, out);
        Some(io)
    }

    pub(super) fn mark_done(
        &mut self,
        io: IoId,
        id: FeedId,
        result: Result<(), IoError>,
        out: Out<'_>,
    ) {
        if let Some(feed) = self.feed_mut(id) {
            feed.others.retain(|o| *o != io);
        }
        if result.is_err() {
            self.feed_offline(id, out);
        }
    }

    /// The other side waits for these ranges: what is dirty of them goes first, by the live stream,
    /// and copying goes on behind them.
    pub fn feed_fetch(&mut self, id: FeedId, ranges: &[ByteRange], out: Out<'_>) {
        let whole = ByteRange::new(0, self.size);
        let now_ms = self.now_ms;
        let Some(feed) = self.feed_mut(id) else {
            return;
        };
        for range in ranges.iter().take(MAX_FETCH) {
            let Some(range) = range.intersection(whole) else {
                continue;
            };
            let most = MAX_FETCH as u64 * feed.track.todo.region_size();
            let range = ByteRange::new(range.start(), range.len().min(most));
            if let Some(run) = feed.track.todo.next_run(range.start(), range.len())
                && let Some(dirty) = run.intersection(range)
            {
                feed.heat.ask(dirty, now_ms);
                feed.cursor = dirty.end();
            }
        }
        self.pump(out);
    }

    /// Is nothing dirty for the feed, nor in bulk flight?
    pub fn is_caught_up(&self, feed: FeedId) -> bool {
        self.feed(feed).is_some_and(|f| f.caught_up)
    }
}

pub(super) fn go_behind(feed: &mut Feed, out: Out<'_>) {
    if feed.online && !feed.behind {
        feed.behind = true;
        feed.caught_up = false;
        out.push(Action::Note(Note::FeedBehind { feed: feed.id }));
    }
}
