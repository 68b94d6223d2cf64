//! The free extents of a group, by disk, as runs indexed by place and by length.

use crate::model::{DiskUse, FreeRuns, Group, Pv};
use std::collections::BTreeMap;
use uuid::Uuid;

/// Free extents of the disks that are not missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Space {
    pvs: BTreeMap<Uuid, FreeRuns>,
}

impl Space {
    /// What the group's volumes leave over.
    pub fn of(group: &Group) -> Self {
        let Some(disks) = group.volumes.disks() else {
            return Self::counted(group);
        };
        let free = |pv: &Pv| match disks.get(&pv.uuid) {
            Some(disk) => disk.free(pv.extent_count),
            None => DiskUse::default().free(pv.extent_count),
        };
        let here = group.pvs.iter().filter(|p| p.missing_since.is_none());
        let pvs = here.map(|pv| (pv.uuid, free(pv))).collect();
        Self { pvs }
    }

    /// The same, counted: where volumes share extents, what is free is not kept up to date.
    pub(super) fn counted(group: &Group) -> Self {
        let mut used: BTreeMap<Uuid, Vec<(u64, u64)>> = BTreeMap::new();
        for (pv, start, len) in group.volumes.iter().flat_map(|v| v.extent_runs()) {
            used.entry(pv).or_default().push((start, len));
        }
        let mut pvs = BTreeMap::new();
        for pv in group.pvs.iter().filter(|p| p.missing_since.is_none()) {
            let mut runs = used.remove(&pv.uuid).unwrap_or_default();
            runs.sort_unstable();
            let mut space = FreeRuns::default();
            let mut next = 0;
            for (start, len) in runs {
                space.insert(next, start.saturating_sub(next));
                next = next.max(start.saturating_add(len));
            }
            space.insert(next, pv.extent_count.saturating_sub(next));
            pvs.insert(pv.uuid, space);
        }
        Self { pvs }
    }

    /// Free extents on a disk.
    pub fn free_on(&self, pv: Uuid) -> u64 {
        self.pvs.get(&pv).map_or(0, FreeRuns::free)
    }

    /// Free extents on all disks.
    pub fn free(&self) -> u64 {
        self.pvs.values().map(FreeRuns::free).sum()
    }

    /// Extents in the longest free run on a disk.
    pub fn longest_on(&self, pv: Uuid) -> u64 {
        self.pvs.get(&pv).map_or(0, FreeRuns::longest)
    }

    /// Takes `len` extents in a row from the shortest run that has them; their start.
    pub fn take_run(&mut self, pv: Uuid, len: u64) -> Option<u64> {
        let space = self.pvs.get_mut(&pv)?;
        let start = space.shortest_with(len)?;
        space.take_head(start, len);
        Some(start)
    }

    /// Takes up to `len` extents that begin exactly at `start`; how many.
    pub fn take_at(&mut self, pv: Uuid, start: u64, len: u64) -> u64 {
        let Some(space) = self.pvs.get_mut(&pv) else {
            return 0;
        };
        let Some(run) = space.starting_at(start) else {
            return 0;
        };
        let len = len.min(run);
        space.take_head(start, len);
        len
    }

    /// Takes up to `len` extents in as few runs as possible.
    pub fn take_most(&mut self, pv: Uuid, mut len: u64) -> Vec<(u64, u64)> {
        let mut taken = Vec::new();
        while len > 0 {
            let longest = self.longest_on(pv);
            let part = len.min(longest);
            match self.take_run(pv, part).filter(|_| part > 0) {
                Some(start) => taken.push((start, part)),
                None => break,
            }
            len -= part;
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn space(runs: &[(u64, u64)]) -> (Space, Uuid) {
        let pv = Uuid::from_u128(1);
        let mut pv_space = FreeRuns::default();
        for (start, len) in runs {
            pv_space.insert(*start, *len);
        }
        let pvs = BTreeMap::from([(pv, pv_space)]);
        (Space { pvs }, pv)
    }

    #[test]
    fn the_shortest_run_that_fits_is_taken() {
        let (mut space, pv) = space(&[(0, 10), (20, 4), (30, 6)]);
        assert_eq!(space.take_run(pv, 5), Some(30));
        assert_eq!(space.take_run(pv, 4), Some(20));
        assert_eq!(space.take_run(pv, 11), None);
        assert_eq!(space.take_at(pv, 0, 3), 3);
        assert_eq!(space.take_at(pv, 0, 3), 0);
        assert_eq!(space.take_most(pv, 8), vec![(3, 7), (35, 1)]);
        assert_eq!(space.free(), 0);
    }

    proptest! {
        /// Nothing is handed out twice, and the count is right.
        #[test]
        fn taken_once(ops in proptest::collection::vec((0u8..3, 0u64..30, 1u64..20), 1..40)) {
            let (mut space, pv) = space(&[(0, 40), (50, 7), (60, 100)]);
            let mut taken = [false; 160];
            let mut total = 0;
            for (op, at, len) in ops {
                let got = match op {
                    0 => space.take_run(pv, len).map(|start| (start, len)).into_iter().collect(),
                    1 => vec![(at, space.take_at(pv, at, len))],
                    _ => space.take_most(pv, len),
                };
                for (start, len) in got {
                    for extent in start..start + len {
                        prop_assert!(!std::mem::replace(&mut taken[extent as usize], true));
                        total += 1;
                    }
                }
                prop_assert_eq!(space.free(), 147 - total);
            }
        }
    }
}
