//! A set of numbers kept as intervals: which pages changed, also where that is all of them.

use std::collections::BTreeMap;

/// Disjoint, non-touching half-open intervals.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Intervals(BTreeMap<u64, u64>);

impl Intervals {
    /// Adds `[start, end)`.
    pub fn insert(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        let (mut start, mut end) = (start, end);
        if let Some((&s, &e)) = self.0.range(..=start).next_back()
            && e >= start
        {
            if e >= end {
                return;
            }
            start = s;
        }
        while let Some((&s, &e)) = self.0.range(start..=end).next() {
            self.0.remove(&s);
            end = end.max(e);
        }
        self.0.insert(start, end);
    }

    /// Takes the lowest number out.
    pub fn pop_first(&mut self) -> Option<u64> {
        let (start, end) = self.0.pop_first()?;
        if start + 1 < end {
            self.0.insert(start + 1, end);
        }
        Some(start)
    }

    /// Takes `n` out; says whether it was there.
    pub fn remove(&mut self, n: u64) -> bool {
        let Some((&s, &e)) = self.0.range(..=n).next_back() else {
            return false;
        };
        if e <= n {
            return false;
        }
        self.0.remove(&s);
        if s < n {
            self.0.insert(s, n);
        }
        if n + 1 < e {
            self.0.insert(n + 1, e);
        }
        true
    }

    /// Nothing in it?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn behaves_like_a_set(ops in prop::collection::vec((0u8..3, 0u64..40, 0u64..10), 0..60)) {
            let mut intervals = Intervals::default();
            let mut model = BTreeSet::new();
            for (op, a, len) in ops {
                match op {
                    0 => { intervals.insert(a, a + len); model.extend(a..a + len); }
                    1 => prop_assert_eq!(intervals.remove(a), model.remove(&a)),
                    _ => prop_assert_eq!(intervals.pop_first(), model.pop_first()),
                }
                prop_assert_eq!(intervals.is_empty(), model.is_empty());
            }
            while let Some(n) = intervals.pop_first() {
                prop_assert_eq!(Some(n), model.pop_first());
            }
            prop_assert!(model.is_empty());
        }
    }
}
