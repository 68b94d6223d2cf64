//! Which regions are written so often that a bulk copy of them is in vain.
//!
//! A write to what is being copied spoils the copy: the region is missing again, and where that happens each time it would be
//! missing for ever. A region whose copies were spoiled a few times is hot: it goes through the live stream, in its place in the
//! order of writes. That is dear, so it stays hot only as long as it is written at least as often as copies take.

use blockio::ByteRange;
use std::collections::HashMap;

/// A region this hot goes through the live stream.
const HOT: u8 = 8;
/// Heat of a write that spoils a bulk copy: two of them make a region hot.
const SPOILT: u8 = 4;
/// Heat of being asked for: it does not pass.
const ASKED: u8 = u8::MAX;
/// Most regions whose heat is known.
const MAX_REGIONS: usize = 4096;
/// A region that has not been written for so long is not hot any more, in milliseconds; for longer where copies take longer.
const COOL_MS: u64 = 1000;

#[derive(Clone, Copy, Debug)]
struct Warmth {
    level: u8,
    /// When it was last written, in the engine's milliseconds.
    written_ms: u64,
}

/// Heat of the regions of one feed.
#[derive(Debug)]
pub(super) struct Heat {
    /// Bytes of a region.
    unit: u64,
    regions: HashMap<u64, Warmth>,
    /// Milliseconds that copies take from start to durable; of those that took long the longest is what counts for a while.
    flight_ms: u64,
}

impl Heat {
    pub fn new(unit: u64) -> Self {
        Self {
            unit,
            regions: HashMap::new(),
            flight_ms: 0,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.regions.is_empty()
    }

    pub fn clear(&mut self) {
        self.regions.clear();
    }

    /// A write spoils a copy of the range.
    pub fn spoilt(&mut self, range: ByteRange, now_ms: u64) {
        self.warm(range, SPOILT, now_ms);
    }

    /// The range could not be copied, as it is being written.
    pub fn in_the_way(&mut self, range: ByteRange, now_ms: u64) {
        self.warm(range, 1, now_ms);
    }

    /// The range must go through the live stream, whether it is written or not.
    pub fn ask(&mut self, range: ByteRange, now_ms: u64) {
        self.warm(range, ASKED, now_ms);
    }

    /// Something is written that is not being copied.
    pub fn written(&mut self, range: ByteRange, now_ms: u64) {
        if self.regions.is_empty() {
            return;
        }
        for region in self.of(range) {
            if let Some(warmth) = self.regions.get_mut(&region) {
                warmth.written_ms = now_ms;
            }
        }
    }

    /// A copy that began at `since_ms` is durable.
    pub fn copied(&mut self, since_ms: u64, now_ms: u64) {
        let took = now_ms.saturating_sub(since_ms);
        self.flight_ms = took.max(self.flight_ms - self.flight_ms.div_ceil(8));
    }

    /// Forgets regions that `keep` says no to.
    pub fn retain(&mut self, keep: impl Fn(u64) -> bool) {
        self.regions.retain(|region, _| keep(*region));
    }

    pub fn is_hot(&self, region: u64, now_ms: u64) -> bool {
        self.regions
            .get(&region)
            .is_some_and(|warmth| self.hot(warmth, now_ms))
    }

    /// The hot regions, in no order.
    pub fn hot_regions(&self, now_ms: u64) -> impl Iterator<Item = u64> {
        self.regions
            .iter()
            .filter(move |(_, warmth)| self.hot(warmth, now_ms))
            .map(|(region, _)| *region)
    }

    fn hot(&self, warmth: &Warmth, now_ms: u64) -> bool {
        // Of two copies that take half as long as the time since the last write one was not spoilt.
        let cool_ms = self.flight_ms.saturating_mul(2).max(COOL_MS);
        let lately = now_ms.saturating_sub(warmth.written_ms) < cool_ms;
        warmth.level == ASKED || warmth.level >= HOT && lately
    }

    fn of(&self, range: ByteRange) -> std::ops::Range<u64> {
        range.start() / self.unit..range.end().div_ceil(self.unit)
    }

    fn warm(&mut self, range: ByteRange, by: u8, now_ms: u64) {
        for region in self.of(range) {
            if self.regions.len() < MAX_REGIONS || self.regions.contains_key(&region) {
                let warmth = self.regions.entry(region).or_insert(Warmth {
                    level: 0,
                    written_ms: 0,
                });
                let most = if by == ASKED { ASKED } else { ASKED - 1 };
                warmth.level = warmth.level.saturating_add(by).min(most.max(warmth.level));
                warmth.written_ms = now_ms;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: u64 = 65536;

    fn region(n: u64) -> ByteRange {
        ByteRange::new(n * UNIT, UNIT)
    }

    #[test]
    fn a_region_is_hot_when_two_copies_were_in_vain_and_cools_when_nobody_writes_it() {
        let mut heat = Heat::new(UNIT);
        heat.spoilt(ByteRange::new(UNIT - 1, 2), 0);
        assert!(!heat.is_hot(0, 0));
        heat.spoilt(region(1), 10);
        assert!(!heat.is_hot(0, 10) && heat.is_hot(1, 10));
        assert_eq!(heat.hot_regions(10).collect::<Vec<_>>(), [1]);
        heat.written(region(1), 900);
        assert!(heat.is_hot(1, 1899) && !heat.is_hot(1, 1900));
        // Written again, it need not be spoilt twice more.
        heat.written(ByteRange::new(UNIT, 1), 5000);
        assert!(heat.is_hot(1, 5999));
        heat.retain(|region| region != 1);
        assert!(!heat.is_hot(1, 5000) && !heat.is_empty());
    }

    #[test]
    fn where_copies_take_long_it_takes_longer_to_cool() {
        let mut heat = Heat::new(UNIT);
        heat.copied(0, 4000);
        heat.spoilt(region(3), 4000);
        heat.spoilt(region(3), 4000);
        assert!(heat.is_hot(3, 11_999) && !heat.is_hot(3, 12_000));
        // Copies take no time any more.
        for _ in 0..100 {
            heat.copied(4000, 4000);
        }
        assert!(!heat.is_hot(3, 5000));
    }

    #[test]
    fn what_was_asked_for_does_not_cool() {
        let mut heat = Heat::new(UNIT);
        for _ in 0..1000 {
            heat.spoilt(region(1), 0);
        }
        heat.ask(region(2), 0);
        heat.in_the_way(region(2), 0);
        assert!(!heat.is_hot(1, 1_000_000));
        assert!(heat.is_hot(2, 1_000_000));
    }

    #[test]
    fn memory_is_bounded() {
        let mut heat = Heat::new(UNIT);
        heat.ask(ByteRange::new(0, UNIT * (MAX_REGIONS as u64 + 100)), 0);
        assert_eq!(heat.hot_regions(0).count(), MAX_REGIONS);
    }
}
