//! A tracked target: a plex or a feed, and the regions that it misses.

use blockio::ByteRange;
use regionmap::RegionMap;

/// What a target misses.
#[derive(Clone, Debug)]
pub(crate) struct Track {
    /// Not known to be durable there; this is what the log holds for the target.
    pub missing: RegionMap,
    /// The part of `missing` that nobody is copying and that is not copied.
    pub todo: RegionMap,
}

impl Track {
    pub fn new(size: u64, region_size: u64) -> Self {
        let map = RegionMap::new(size, region_size);
        Self {
            missing: map.clone(),
            todo: map,
        }
    }

    pub fn add(&mut self, range: ByteRange) {
        self.missing.set_range(range);
        self.todo.set_range(range);
    }

    pub fn add_all(&mut self) {
        self.missing.set_all();
        self.todo.set_all();
    }

    pub fn union(&mut self, map: &RegionMap) {
        self.missing.union(map);
        self.todo.union(map);
    }

    pub fn grow(&mut self, size: u64) {
        self.missing.grow(size);
        self.todo.grow(size);
    }

    /// What was copied counts no more where it is not durable: all that is missing is copied again.
    pub fn start_over(&mut self) {
        self.todo.clone_from(&self.missing);
    }

    /// The range is durable there, but for regions that were dirtied again since.
    pub fn settled(&mut self, range: ByteRange) {
        let unit = self.missing.region_size();
        let mut at = range.start() / unit * unit;
        while at < range.end() {
            match self.todo.next_run(at, u64::MAX) {
                Some(run) if run.start() <= at => at = run.end(),
                run => {
                    let end = run.map_or(range.end(), |r| r.start()).min(range.end());
                    self.missing.clear_range(ByteRange::new(at, end - at));
                    at = end;
                }
            }
        }
    }
}

/// The next run of `map` at or after `cursor`, then from the start, that overlaps nothing `busy`
/// says yes to. `busy` gives the end of what is in the way of a range, region by region.
pub(crate) fn next_free_run(
    map: &RegionMap,
    cursor: u64,
    max: u64,
    attempts: u32,
    mut busy: impl FnMut(ByteRange) -> bool,
) -> Option<ByteRange> {
    let unit = map.region_size();
    let mut at = cursor;
    for _ in 0..attempts {
        let Some(run) = map.next_run(at, max) else {
            if at == 0 {
                return None;
            }
            at = 0;
            continue;
        };
        let mut end = run.start();
        while end < run.end() {
            let region = ByteRange::new(end, unit.min(run.end() - end));
            if busy(region) {
                break;
            }
            end = region.end();
        }
        if end > run.start() {
            return Some(ByteRange::new(run.start(), end - run.start()));
        }
        at = run.start() + unit;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_copied_but_is_not_durable_is_copied_again() {
        let mut track = Track::new(4 * 65536, 65536);
        track.add_all();
        track.todo.clear_range(ByteRange::new(0, 2 * 65536));
        track.settled(ByteRange::new(0, 65536));
        track.start_over();
        assert!(track.todo == track.missing);
        assert_eq!(track.missing.count(), 3);
    }

    #[test]
    fn what_was_dirtied_again_stays_missing() {
        let mut track = Track::new(100, 16);
        track.add(ByteRange::new(0, 100));
        track.todo.clear_all();
        track.add(ByteRange::new(20, 1));
        track.settled(ByteRange::new(0, 100));
        assert!(track.missing == track.todo);
        assert_eq!(track.missing.count(), 1);
        assert!(track.missing.is_set(1));
    }

    #[test]
    fn a_run_ends_before_what_is_busy() {
        let mut map = RegionMap::new(160, 16);
        map.set_all();
        let busy = |r: ByteRange| r.overlaps(ByteRange::new(48, 16));
        let run = |cursor| next_free_run(&map, cursor, 1000, 9, busy);
        assert_eq!(run(0), Some(ByteRange::new(0, 48)));
        assert_eq!(run(48), Some(ByteRange::new(64, 96)));
        assert_eq!(next_free_run(&map, 32, 1000, 99, |_| true), None);
    }
}
