//! A set of sequence numbers as runs: what completes out of order is mostly in order.

use std::collections::BTreeMap;

/// Sequence numbers, as first → last of each run. Runs never touch.
#[derive(Debug, Default)]
pub(super) struct SequenceSet(BTreeMap<u64, u64>);

impl SequenceSet {
    /// Adds a number; one that is there stays.
    pub(super) fn insert(&mut self, sequence: u64) {
        let before = self.0.range(..=sequence).next_back();
        let before = before.map(|(first, last)| (*first, *last));
        if before.is_some_and(|(_, last)| last >= sequence) {
            return;
        }
        let mut last = sequence;
        if let Some(next) = sequence.checked_add(1)
            && let Some(joined) = self.0.remove(&next)
        {
            last = joined;
        }
        match before {
            Some((first, end)) if end + 1 == sequence => self.0.insert(first, last),
            _ => self.0.insert(sequence, last),
        };
    }

    /// The lowest number.
    pub(super) fn first(&self) -> Option<u64> {
        self.0.first_key_value().map(|(first, _)| *first)
    }

    /// Takes the run out that starts with this number, and returns its last number.
    pub(super) fn take_run_at(&mut self, first: u64) -> Option<u64> {
        self.0.remove(&first)
    }

    /// Removes all numbers up to this one.
    pub(super) fn remove_through(&mut self, sequence: u64) {
        while let Some((&first, &last)) = self.0.first_key_value() {
            if first > sequence {
                break;
            }
            self.0.remove(&first);
            if last > sequence {
                self.0.insert(sequence + 1, last);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn like_a_plain_set(steps in proptest::collection::vec((0u8..8, 0u64..30), 0..80)) {
            let mut set = SequenceSet::default();
            let mut model = BTreeSet::new();
            for (step, number) in steps {
                match step {
                    0 => {
                        set.remove_through(number);
                        model.retain(|n| *n > number);
                    }
                    1 if !model.contains(&number.wrapping_sub(1)) => {
                        let mut last = None;
                        let mut next = number;
                        while model.remove(&next) {
                            last = Some(next);
                            next += 1;
                        }
                        prop_assert_eq!(set.take_run_at(number), last);
                    }
                    _ => {
                        set.insert(number);
                        model.insert(number);
                    }
                }
                prop_assert_eq!(set.first(), model.first().copied());
                let mut expanded = BTreeSet::new();
                let mut end = None;
                for (first, last) in &set.0 {
                    prop_assert!(end.is_none_or(|end| first > &(end + 1)), "runs touch");
                    end = Some(*last);
                    expanded.extend(*first..=*last);
                }
                prop_assert_eq!(&expanded, &model);
            }
        }
    }
}
