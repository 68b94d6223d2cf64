//! Runs of extents: which are free on a disk, kept up to date with each volume that comes or goes.

use super::sorted::Sorted;

/// Free runs, indexed by place and by length. Copies share what they have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FreeRuns {
    /// Start to length.
    runs: Sorted<u64, u64>,
    /// Length and start of the same runs.
    by_len: Sorted<(u64, u64), ()>,
    free: u64,
}

impl FreeRuns {
    /// Extents in all runs.
    pub fn free(&self) -> u64 {
        self.free
    }

    /// Extents in the longest run.
    pub fn longest(&self) -> u64 {
        self.by_len.last().map_or(0, |((len, _), ())| *len)
    }

    /// Start of the shortest run that has so many extents.
    pub fn shortest_with(&self, len: u64) -> Option<u64> {
        let ((_, start), ()) = self.by_len.first_from(&(len, 0))?;
        Some(*start)
    }

    /// Length of the run that begins here.
    pub fn starting_at(&self, start: u64) -> Option<u64> {
        self.runs.get(&start).copied()
    }

    /// Adds a run that touches no other; none where it has no extents.
    pub fn insert(&mut self, start: u64, len: u64) {
        if len > 0 {
            self.runs.insert(start, len);
            self.by_len.insert((len, start), ());
            self.free += len;
        }
    }

    fn remove(&mut self, start: u64) -> u64 {
        let len = self.runs.remove(&start).unwrap_or(0);
        self.by_len.remove(&(len, start));
        self.free -= len;
        len
    }

    /// Takes the first `len` extents of the run at `start`.
    pub fn take_head(&mut self, start: u64, len: u64) {
        let whole = self.remove(start);
        debug_assert!(len <= whole);
        self.insert(start + len, whole - len);
    }
}

/// The use of one disk, however large it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiskUse {
    /// Free runs before `end`.
    free: FreeRuns,
    /// Behind the last extent in use: all that follows is free.
    end: u64,
    used: u64,
}

impl DiskUse {
    /// Extents in use.
    pub fn used(&self) -> u64 {
        self.used
    }

    /// What is free on a disk of so many extents.
    pub fn free(&self, extent_count: u64) -> FreeRuns {
        let mut free = self.free.clone();
        free.insert(self.end, extent_count.saturating_sub(self.end));
        free
    }

    /// These extents are in use from now on. False, and nothing is changed, where one of them is
    /// already, or it is no run at all.
    #[must_use]
    pub fn take(&mut self, start: u64, len: u64) -> bool {
        let Some(end) = start.checked_add(len).filter(|_| len > 0) else {
            return false;
        };
        if start >= self.end {
            self.free.insert(self.end, start - self.end);
            self.end = end;
        } else {
            let around = self.free.runs.get(&start).map(|len| (start, *len));
            let around = around.or_else(|| self.free.runs.last_before(&start).copied());
            let Some((free, free_end)) = around.map(|(free, len)| (free, free + len)) else {
                return false;
            };
            if free_end < end {
                return false;
            }
            self.free.remove(free);
            self.free.insert(free, start - free);
            self.free.insert(end, free_end - end);
        }
        self.used += len;
        true
    }

    /// Extents that [`DiskUse::take`] has taken are free again.
    pub fn give(&mut self, start: u64, len: u64) {
        let end = start + len;
        let before = self.free.runs.last_before(&start).copied();
        let before = before.filter(|(free, len)| free + len == start);
        let mut from = start;
        if let Some((free, _)) = before {
            self.free.remove(free);
            from = free;
        }
        if end == self.end {
            self.end = from;
        } else {
            let behind = self.free.remove(end);
            self.free.insert(from, end + behind - from);
        }
        self.used -= len;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// As a flag for each extent says.
        #[test]
        fn as_counted(ops in proptest::collection::vec((any::<bool>(), 0u64..60, 0u64..9), 0..80)) {
            let mut flags = [false; 80];
            let mut disk = DiskUse::default();
            let mut taken: Vec<(u64, u64)> = Vec::new();
            for (give, start, len) in ops {
                if give && !taken.is_empty() {
                    let (start, len) = taken.swap_remove(start as usize % taken.len());
                    disk.give(start, len);
                    flags[start as usize..(start + len) as usize].fill(false);
                } else {
                    let run = &mut flags[start as usize..(start + len) as usize];
                    let ok = len > 0 && run.iter().all(|used| !used);
                    prop_assert_eq!(disk.take(start, len), ok);
                    if ok {
                        run.fill(true);
                        taken.push((start, len));
                    }
                }
                let mut naive = FreeRuns::default();
                let mut from = 0;
                for run in flags.chunk_by(|a, b| a == b) {
                    if !run[0] {
                        naive.insert(from, run.len() as u64);
                    }
                    from += run.len() as u64;
                }
                prop_assert_eq!(disk.free(80), naive);
                prop_assert_eq!(disk.used(), flags.iter().filter(|used| **used).count() as u64);
            }
            for (start, len) in taken {
                disk.give(start, len);
            }
            prop_assert_eq!(disk, DiskUse::default());
        }
    }

    #[test]
    fn what_is_no_run_is_refused() {
        let mut disk = DiskUse::default();
        assert!(!disk.take(5, 0) && !disk.take(u64::MAX, 1));
        assert!(disk.take(u64::MAX - 1, 1) && !disk.take(u64::MAX - 1, 1));
        assert_eq!(disk.free(10).free(), u64::MAX - 1);
    }
}
