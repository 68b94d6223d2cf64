//! Who may touch which bytes: overlapping writes and copies go one after the other.

use super::slab::Key;
use blockio::{ByteRange, mutant};
use std::collections::{BTreeMap, VecDeque};

/// Ranges held exclusively, and those who wait for one, first come first served.
#[derive(Debug, Default)]
pub(crate) struct Order {
    /// By start; held ranges never overlap.
    held: BTreeMap<u64, u64>,
    waiting: VecDeque<(ByteRange, Key)>,
}

impl Order {
    /// Is any byte of the range held?
    pub fn is_held(&self, range: ByteRange) -> bool {
        let last = self.held.range(..range.end()).next_back();
        last.is_some_and(|(_, end)| *end > range.start())
    }

    /// Takes the range, or queues for it behind everyone who overlaps.
    pub fn acquire(&mut self, range: ByteRange, key: Key) -> bool {
        let behind = self.is_held(range) || self.waiting.iter().any(|(r, _)| r.overlaps(range));
        if behind && !mutant("overlapping-unordered") {
            self.waiting.push_back((range, key));
            return false;
        }
        self.held.insert(range.start(), range.end());
        true
    }

    /// Gives the range back.
    pub fn release(&mut self, range: ByteRange) {
        let end = self.held.remove(&range.start());
        debug_assert!(end == Some(range.end()) || mutant("overlapping-unordered"));
    }

    /// The next one whose turn it is; it holds its range from now on.
    pub fn next_ready(&mut self) -> Option<Key> {
        let mut at = 0;
        while let Some(&(range, key)) = self.waiting.get(at) {
            let before = self.waiting.iter().take(at);
            if !self.is_held(range) && !before.into_iter().any(|(r, _)| r.overlaps(range)) {
                self.waiting.remove(at);
                self.held.insert(range.start(), range.end());
                return Some(key);
            }
            at += 1;
        }
        None
    }
}

/// Ranges in flight that may overlap, by name.
#[derive(Debug, Default)]
pub(crate) struct Bag {
    ranges: BTreeMap<(u64, Key), u64>,
    /// Longest range since the bag was last empty: how far back a search must begin.
    longest: u64,
    /// Of all ranges together.
    bytes: u64,
}

impl Bag {
    pub fn insert(&mut self, range: ByteRange, key: Key) {
        self.longest = self.longest.max(range.len());
        let old = self.ranges.insert((range.start(), key), range.end());
        debug_assert_eq!(old, None, "a key is used once");
        self.bytes += range.len();
    }

    pub fn remove(&mut self, range: ByteRange, key: Key) {
        if let Some(end) = self.ranges.remove(&(range.start(), key)) {
            self.bytes -= end - range.start();
        }
        if self.ranges.is_empty() {
            self.longest = 0;
        }
    }

    pub fn overlaps(&self, range: ByteRange) -> bool {
        let from = range.start().saturating_sub(self.longest);
        self.ranges
            .range((from, 0)..(range.end(), 0))
            .any(|(_, end)| *end > range.start())
    }

    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Length of all ranges together, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn iter(&self) -> impl Iterator<Item = (ByteRange, Key)> + '_ {
        let range = |start: u64, end: u64| ByteRange::new(start, end - start);
        self.ranges
            .iter()
            .map(move |(&(start, key), &end)| (range(start, end), key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn overlapping_holders_take_turns_in_order(
            ops in prop::collection::vec((0u64..40, 1u64..12, any::<bool>()), 1..60)
        ) {
            let mut order = Order::default();
            let mut holding: Vec<(ByteRange, Key)> = Vec::new();
            let mut asked: Vec<ByteRange> = Vec::new();
            let mut got: Vec<Key> = Vec::new();
            let mut step = |order: &mut Order, holding: &mut Vec<(ByteRange, Key)>,
                            asked: &[ByteRange], key: Key| {
                let range = asked[key as usize];
                for (other, _) in holding.iter() { assert!(!other.overlaps(range)); }
                // Everyone who asked before and overlaps has had its turn.
                for (k, r) in asked.iter().enumerate().take(key as usize) {
                    assert!(!r.overlaps(range) || got.contains(&(k as Key)));
                }
                got.push(key);
                holding.push((range, key));
                assert!(order.is_held(range));
            };
            for (start, len, release) in ops {
                let range = ByteRange::new(start, len);
                let key = asked.len() as Key;
                asked.push(range);
                if order.acquire(range, key) { step(&mut order, &mut holding, &asked, key); }
                if release && !holding.is_empty() {
                    let (range, _) = holding.remove(holding.len() / 2);
                    order.release(range);
                    while let Some(k) = order.next_ready() { step(&mut order, &mut holding, &asked, k); }
                }
            }
            while let Some((range, _)) = holding.pop() {
                order.release(range);
                while let Some(k) = order.next_ready() { step(&mut order, &mut holding, &asked, k); }
            }
            prop_assert_eq!(got.len(), asked.len());
        }

        #[test]
        fn a_bag_finds_every_overlap(
            ranges in prop::collection::vec((0u64..100, 1u64..30), 0..20), probe in (0u64..100, 1u64..30),
        ) {
            let mut bag = Bag::default();
            for (key, (start, len)) in ranges.iter().enumerate() { bag.insert(ByteRange::new(*start, *len), key as Key); }
            if let Some((start, len)) = ranges.first() { bag.remove(ByteRange::new(*start, *len), 0); }
            let probe = ByteRange::new(probe.0, probe.1);
            let any = ranges.iter().skip(1).any(|(s, l)| ByteRange::new(*s, *l).overlaps(probe));
            prop_assert_eq!(bag.overlaps(probe), any);
            prop_assert_eq!(bag.len(), ranges.len().saturating_sub(1));
        }
    }
}
