//! Online restore: the volume is in use while its content is still coming from a feed.
//!
//! The mirror image of a tracked target: a map of the regions that *this side* misses, in a slot of
//! the log of its own. Clients see what the other side has there.
//!
//! * What the feed writes goes to the plexes only where the region is still missing; the rest is
//!   dropped, as a client may have written there since.
//! * A read of a missing region waits until the region has arrived whole.
//! * A write that covers a missing region in part waits until the region has arrived *and the map on
//!   the disks says so*; one that covers it whole goes at once and is acknowledged when the map says
//!   so. Else, after a crash, the feed's old content would replace an acknowledged write.
//! * A region leaves the map on the disks as it leaves a plex's map: after a flush ([`super::cycle`]).
//!
//! Whoever waits asks for what it waits for ([`Note::FeedFetch`]), again every second, and gets an
//! error after [`EngineConfig::restore_wait_ms`]. The peer must not change what it has meanwhile.

use super::track::Track;
use super::*;
use regionmap::log::DRL_SLOT;
use std::ops::Range;

/// Milliseconds after which a region is asked for again.
const ASK_AGAIN_MS: u64 = 1000;

/// Most ranges in one note; what is left is asked for a second later.
const MAX_RANGES: usize = 64;

/// A request that waits for regions.
#[derive(Debug)]
struct Waiting {
    request: Request,
    since_ms: u64,
    asked_ms: u64,
}

#[derive(Debug)]
pub(super) struct Restore {
    pub feed: FeedId,
    pub slot: u32,
    /// `missing` is what the log is to hold, `todo` what has not arrived.
    pub track: Track,
    /// What the log on the disks may still hold.
    pub logged: RegionMap,
    /// Parts of regions that have arrived, by the region's start.
    partial: BTreeMap<u64, Vec<Range<u64>>>,
    waiting: VecDeque<Waiting>,
    /// Writes that are done but for the map on the disks.
    pub acks: Vec<Key>,
    /// Something arrived, or left the map on the disks, since those who wait were looked at.
    moved: bool,
    /// Somebody waits for the map on the disks.
    hurry: bool,
    /// Nobody waits any more: what is missing is an error.
    given_up: bool,
}

impl Restore {
    pub fn new(feed: FeedId, slot: u32, map: RegionMap) -> Self {
        Self {
            feed,
            slot,
            logged: map.clone(),
            track: Track {
                todo: map.clone(),
                missing: map,
            },
            partial: BTreeMap::new(),
            waiting: VecDeque::new(),
            acks: Vec::new(),
            moved: false,
            hurry: false,
            given_up: false,
        }
    }

    /// Does nobody wait?
    pub fn is_quiet(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The parts of `range` that have not arrived.
    pub fn wanted(&self, range: ByteRange) -> Vec<ByteRange> {
        let mut parts = Vec::new();
        let mut at = range.start();
        while let Some(run) = self.track.todo.next_run(at, u64::MAX) {
            let Some(part) = run.intersection(range) else {
                break;
            };
            parts.push(part);
            at = run.end();
        }
        parts
    }

    /// The regions that `range` covers in part: at most two.
    fn edges(&self, range: ByteRange) -> impl Iterator<Item = ByteRange> + use<> {
        let (unit, size) = (self.logged.region_size(), self.logged.size());
        let region = move |at: u64| {
            let start = at / unit * unit;
            ByteRange::new(start, unit.min(size - start))
        };
        let first = region(range.start());
        let last = region(range.end().max(1) - 1);
        [Some(first), Some(last).filter(|l| *l != first)]
            .into_iter()
            .flatten()
            .filter(move |edge| !range.contains(*edge))
    }

    /// What `request` cannot go on without.
    fn lacks(&self, request: &Request) -> Vec<ByteRange> {
        if request.op == Op::Read {
            return self.wanted(request.range);
        }
        let logged = |edge: &ByteRange| self.logged.any_in(*edge);
        self.edges(request.range).filter(logged).collect()
    }

    /// A part is being written to the plexes: until that has gone well it has not arrived, also where
    /// it had before, in a region whose other parts are still to come.
    pub fn coming(&mut self, part: ByteRange) {
        let touched = self.partial.range_mut(..part.end());
        for (start, parts) in touched.rev() {
            if start + self.logged.region_size() <= part.start() {
                break;
            }
            remove(parts, part.start()..part.end());
        }
    }

    /// A part has been written to the plexes.
    fn arrived(&mut self, part: ByteRange) {
        self.moved = true;
        let middle = self.middle(part);
        for edge in self.edges(part) {
            let Some(here) = edge.intersection(part) else {
                continue;
            };
            let parts = self.partial.entry(edge.start()).or_default();
            insert(parts, here.start()..here.end());
            // They neither overlap nor touch: whole means one.
            if parts.first() == Some(&(edge.start()..edge.end())) {
                self.partial.remove(&edge.start());
                self.track.todo.clear_range(edge);
            }
        }
        if let Some(middle) = middle {
            let gone: Vec<u64> = self
                .partial
                .range(middle.start()..middle.end())
                .map(|(start, _)| *start)
                .collect();
            for start in gone {
                self.partial.remove(&start);
            }
            self.track.todo.clear_range(middle);
        }
    }

    /// The regions that `range` covers whole.
    pub fn middle(&self, range: ByteRange) -> Option<ByteRange> {
        let (unit, size) = (self.logged.region_size(), self.logged.size());
        let start = range.start().div_ceil(unit) * unit;
        let end = match range.end() {
            end if end == size => size,
            end => end / unit * unit,
        };
        (start < end).then(|| ByteRange::new(start, end - start))
    }

    /// Has something arrived that the map on the disks does not know of?
    pub fn is_ahead(&self) -> bool {
        self.logged.count() != self.track.todo.count()
    }

    /// Does somebody wait for nothing but the map on the disks?
    pub fn is_urgent(&self) -> bool {
        let blocked = |w: &Waiting| {
            w.request.op != Op::Read
                && self
                    .lacks(&w.request)
                    .iter()
                    .any(|edge| !self.track.todo.any_in(*edge))
        };
        self.is_ahead() && (self.hurry || !self.acks.is_empty() || self.waiting.iter().any(blocked))
    }

    /// Those who may go on.
    fn ready(&mut self) -> Vec<Request> {
        let mut ready = Vec::new();
        for waiting in std::mem::take(&mut self.waiting) {
            if self.lacks(&waiting.request).is_empty() {
                ready.push(waiting.request);
            } else {
                self.waiting.push_back(waiting);
            }
        }
        ready
    }

    pub fn into_map(self) -> (u32, RegionMap, Vec<Request>) {
        let waiting = self.waiting.into_iter().map(|w| w.request).collect();
        (self.slot, self.track.missing, waiting)
    }

    pub fn grow(&mut self, size: u64) {
        self.track.grow(size);
        self.logged.grow(size);
    }
}

/// Adds a range to sorted ranges that neither overlap nor touch.
fn insert(parts: &mut Vec<Range<u64>>, new: Range<u64>) {
    let mut merged = new;
    parts.retain(|part| {
        let apart = part.end < merged.start || merged.end < part.start;
        if !apart {
            merged = merged.start.min(part.start)..merged.end.max(part.end);
        }
        apart
    });
    let at = parts.partition_point(|part| part.start < merged.start);
    parts.insert(at, merged);
}

/// Takes a range out of sorted ranges.
fn remove(parts: &mut Vec<Range<u64>>, gone: Range<u64>) {
    let cut = |part: Range<u64>| {
        let before = part.start..part.end.min(gone.start);
        let after = part.start.max(gone.end)..part.end;
        [before, after].into_iter().filter(|part| !part.is_empty())
    };
    *parts = std::mem::take(parts).into_iter().flat_map(cut).collect();
}

impl Engine {
    /// Keeps a request that lacks something; gives one back that does not.
    pub(super) fn wait_for_restore(&mut self, request: Request, out: Out<'_>) -> Option<Request> {
        let now = self.now_ms;
        let Some(restore) = &mut self.restore else {
            return Some(request);
        };
        // What the feed brings is what the others wait for.
        if request.origin == Origin::Feed && request.op != Op::Read
            || restore.lacks(&request).is_empty()
        {
            return Some(request);
        }
        if restore.given_up {
            let ticket = request.ticket;
            let result = Err(IoError::new(IoErrorKind::Gone));
            out.push(Action::Complete { ticket, result });
            return None;
        }
        restore.waiting.push_back(Waiting {
            request,
            since_ms: now,
            asked_ms: now,
        });
        let last = restore.waiting.len() - 1;
        self.ask_for_missing(last..last + 1, out);
        None
    }

    fn ask_for_missing(&mut self, who: Range<usize>, out: Out<'_>) {
        let Some(restore) = &self.restore else { return };
        let mut ranges: Vec<ByteRange> = Vec::new();
        let unit = self.region_size;
        for waiting in restore.waiting.range(who) {
            for lack in restore.lacks(&waiting.request) {
                for part in restore.wanted(lack) {
                    let end = part.align_outwards(unit).end().min(self.size);
                    let start = part.start() / unit * unit;
                    ranges.push(ByteRange::new(start, end - start));
                }
            }
        }
        ranges.sort_unstable();
        ranges.dedup();
        ranges.truncate(MAX_RANGES);
        if !ranges.is_empty() {
            let feed = restore.feed;
            out.push(Action::Note(Note::FeedFetch { feed, ranges }));
        }
    }

    /// Asks again, and lets those go who have waited too long.
    pub(super) fn tick_restore(&mut self, out: Out<'_>) {
        let (now, limit) = (self.now_ms, self.config.restore_wait_ms);
        let Some(restore) = &mut self.restore else {
            return;
        };
        let over = |w: &mut Waiting| now - w.since_ms >= limit;
        let late: Vec<Waiting> = extract(&mut restore.waiting, over);
        let mut again = false;
        for waiting in &mut restore.waiting {
            if now - waiting.asked_ms >= ASK_AGAIN_MS {
                waiting.asked_ms = now;
                again = true;
            }
        }
        let all = restore.waiting.len();
        for waiting in late {
            let ticket = waiting.request.ticket;
            let result = Err(IoError::new(IoErrorKind::Gone));
            out.push(Action::Complete { ticket, result });
        }
        if again {
            self.ask_for_missing(0..all, out);
        }
    }

    /// Lets those go on who have what they waited for.
    pub(super) fn pump_restore(&mut self, out: Out<'_>) {
        let Some(restore) = &mut self.restore else {
            return;
        };
        if !std::mem::take(&mut restore.moved) {
            return;
        }
        let ready = restore.ready();
        for request in ready {
            self.accept(request, out);
        }
        let acks = match &mut self.restore {
            Some(restore) => std::mem::take(&mut restore.acks),
            None => Vec::new(),
        };
        for key in acks {
            self.write_progress(key, out);
        }
    }

    /// Parts of a write have reached the plexes: of the feed's, or of a client's that covers
    /// regions whole.
    pub(super) fn restore_arrived(&mut self, parts: &[ByteRange]) {
        if let Some(restore) = &mut self.restore {
            for part in parts {
                restore.arrived(*part);
            }
        }
    }

    /// The map on the disks is what `missing` says.
    pub(super) fn restore_logged(&mut self, out: Out<'_>) {
        let Some(restore) = &mut self.restore else {
            return;
        };
        if restore.logged.count() == restore.track.missing.count() {
            return;
        }
        restore.logged.clone_from(&restore.track.missing);
        restore.moved = true;
        if restore.logged.is_empty() {
            restore.hurry = false;
            let feed = restore.feed;
            out.push(Action::Note(Note::FeedRestored { feed }));
        }
    }

    /// Who waits for something missing gets an error, now and from now on: the volume is going down.
    pub fn give_up_restore(&mut self, out: Out<'_>) {
        let Some(restore) = &mut self.restore else {
            return;
        };
        restore.given_up = true;
        for waiting in std::mem::take(&mut restore.waiting) {
            let ticket = waiting.request.ticket;
            let result = Err(IoError::new(IoErrorKind::Gone));
            out.push(Action::Complete { ticket, result });
        }
    }

    /// Brings the map on the disks up to date at once; [`Engine::restore_bytes`] says when.
    pub fn hurry_restore(&mut self, out: Out<'_>) {
        if let Some(restore) = &mut self.restore {
            restore.hurry = true;
        }
        self.pump(out);
    }

    /// Bytes that may still have to come from the feed, as the log on the disks says.
    pub fn restore_bytes(&self) -> u64 {
        self.restore.as_ref().map_or(0, |r| r.logged.bytes())
    }

    /// Does the range have bytes that are not here?
    pub fn is_missing(&self, range: ByteRange) -> bool {
        let restore = self.restore.as_ref();
        restore.is_some_and(|r| r.track.todo.any_in(range))
    }

    /// A write of the feed with exactly this range, in flight, did not bring what it promised.
    pub fn spoil(&mut self, range: ByteRange) {
        for holder in self.holders.iter_mut() {
            if let Holder::Write(write) = holder
                && write.range == range
            {
                write.brings.clear();
            }
        }
    }

    /// Prepares an online restore: `slot`, which belongs to nobody yet, gets what `from` misses, or
    /// everything. The other feeds miss that, too, as it will change here. On the disks when
    /// [`Engine::maps_written`].
    pub fn prepare_restore(&mut self, slot: u32, from: FeedId, all: bool, out: Out<'_>) {
        let mut map = RegionMap::new(self.size, self.region_size);
        match self.feed_map(from) {
            Some(own) if !all => map.union(own),
            _ => map.set_all(),
        }
        for feed in self.feeds.iter_mut().filter(|f| f.id != from) {
            feed.track.union(&map);
            feed.caught_up = false;
        }
        if slot > DRL_SLOT && slot < regionmap::log::SLOTS {
            let (size, unit) = (self.size, self.region_size);
            let spare = self.spare.entry(slot);
            let spare = spare.or_insert_with(|| RegionMap::new(size, unit));
            spare.clear_all();
            spare.union(&map);
        }
        self.queue_maps();
        self.pump(out);
    }

    /// Takes the layout's word on an online restore.
    pub(super) fn reconfigure_restore(&mut self, layout: &VolumeLayout, out: Out<'_>) {
        let same = |old: &Restore, new: &RestoreLayout| old.slot == new.map_slot;
        let kept = match (&self.restore, &layout.restore) {
            (Some(old), Some(new)) => same(old, new),
            (None, None) => true,
            _ => false,
        };
        if kept {
            return;
        }
        if let Some(old) = self.restore.take() {
            let acks = old.acks.clone();
            let (slot, map, waiting) = old.into_map();
            self.spare.insert(slot, map);
            for request in waiting {
                self.accept(request, out);
            }
            for key in acks {
                self.write_progress(key, out);
            }
        }
        if let Some(new) = &layout.restore {
            let (size, unit) = (self.size, self.region_size);
            let map = self.spare.remove(&new.map_slot);
            let map = map.unwrap_or_else(|| RegionMap::new(size, unit));
            self.restore = Some(Restore::new(new.feed, new.map_slot, map));
        }
    }
}

fn extract<T>(from: &mut VecDeque<T>, mut wanted: impl FnMut(&mut T) -> bool) -> Vec<T> {
    let mut out = Vec::new();
    for mut item in std::mem::take(from) {
        if wanted(&mut item) {
            out.push(item);
        } else {
            from.push_back(item);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn restore() -> Restore {
        // 10 regions of 16 bytes and one of 4.
        let mut map = RegionMap::new(164, 16);
        map.set_all();
        Restore::new(FeedId(8), 9, map)
    }

    #[test]
    fn a_region_arrives_when_all_its_parts_have() {
        let mut r = restore();
        r.arrived(ByteRange::new(4, 24));
        assert_eq!(r.track.todo.count(), 11, "two halves are no whole");
        r.arrived(ByteRange::new(0, 4));
        assert!(!r.track.todo.is_set(0) && r.track.todo.is_set(1));
        r.arrived(ByteRange::new(28, 60));
        assert_eq!(r.wanted(ByteRange::new(0, 164)), [ByteRange::new(80, 84)]);
        r.arrived(ByteRange::new(150, 14));
        assert!(!r.track.todo.is_set(10), "the last one is short");
        assert!(r.track.todo.is_set(9));
        r.arrived(ByteRange::new(80, 80));
        assert!(r.track.todo.is_empty() && r.partial.is_empty());
    }

    #[test]
    fn edges_are_what_is_covered_in_part() {
        let r = restore();
        let edges = |start, len| -> Vec<u64> {
            let range = ByteRange::new(start, len);
            r.edges(range).map(ByteRange::start).collect()
        };
        assert!(edges(16, 32).is_empty());
        assert_eq!(edges(16, 31), [32]);
        assert_eq!(edges(17, 31), [16]);
        assert_eq!(edges(17, 3), [16]);
        assert_eq!(edges(17, 100), [16, 112]);
        assert!(edges(144, 20).is_empty());
        assert_eq!(
            r.middle(ByteRange::new(17, 100)),
            Some(ByteRange::new(32, 80))
        );
        assert_eq!(r.middle(ByteRange::new(17, 20)), None);
        assert_eq!(r.middle(ByteRange::new(17, 10)), None);
        assert_eq!(
            r.middle(ByteRange::new(16, 20)),
            Some(ByteRange::new(16, 16))
        );
        assert_eq!(
            r.middle(ByteRange::new(20, 28)),
            Some(ByteRange::new(32, 16))
        );
    }

    #[test]
    fn parts_are_joined() {
        let mut parts = Vec::new();
        for part in [8..10, 0..2, 4..6, 2..4, 7..8] {
            insert(&mut parts, part);
        }
        assert_eq!(parts, [0..6, 7..10]);
        remove(&mut parts, 5..8);
        assert_eq!(parts, [0..5, 8..10]);
        remove(&mut parts, 1..2);
        assert_eq!(parts, [0..1, 2..5, 8..10]);
    }

    #[test]
    fn a_part_that_is_written_again_has_not_arrived() {
        let mut r = restore();
        r.arrived(ByteRange::new(0, 8));
        r.coming(ByteRange::new(0, 8));
        r.arrived(ByteRange::new(8, 8));
        assert!(r.track.todo.is_set(0));
        r.arrived(ByteRange::new(0, 8));
        assert!(!r.track.todo.is_set(0));
    }
}
