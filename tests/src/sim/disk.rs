//! A disk with a volatile cache. Metadata is bytes; data sectors hold a number each, so that a
//! model can tell every write from every other; log areas are bytes that are written through.

use super::rng::Rng;
use blockio::ByteRange;
use std::collections::{BTreeMap, HashSet};
use volmgr::metadata::{MemPv, PowerLoss};

/// Bytes in a sector.
pub const SECTOR: u64 = 512;

/// One disk.
pub struct Disk {
    /// Label and metadata areas.
    pub meta: MemPv,
    /// Where the data sectors begin, in bytes.
    pub data_start: u64,
    /// What a read returns.
    pub view: Vec<u64>,
    /// What a power cut leaves.
    stable: Vec<u64>,
    /// Writes that are not stable yet, with a number that grows.
    cache: Vec<(u64, usize, u64)>,
    next: u64,
    /// Copies of volume logs, by where they begin in bytes.
    pub logs: BTreeMap<u64, Vec<u8>>,
    /// Fails everything.
    pub dead: bool,
    /// Cannot be read until written.
    pub bad: HashSet<usize>,
    /// Fails the next flush and loses its cache.
    pub fail_flush: bool,
    /// Fails the next write half way.
    pub fail_write: bool,
    /// Has no room for what is written.
    pub full: bool,
    /// Takes its time.
    pub slow: bool,
}

impl Disk {
    /// A disk whose metadata is `meta`, with room for `sectors` from `data_start` (bytes) on.
    pub fn new(meta: MemPv, data_start: u64, sectors: usize) -> Self {
        Self {
            meta,
            data_start,
            view: vec![0; sectors],
            stable: vec![0; sectors],
            cache: Vec::new(),
            next: 1,
            logs: BTreeMap::new(),
            dead: false,
            bad: HashSet::new(),
            fail_flush: false,
            fail_write: false,
            full: false,
            slow: false,
        }
    }

    /// The sector at this byte of the disk.
    pub fn sector(&self, byte: u64) -> usize {
        ((byte - self.data_start) / SECTOR) as usize
    }

    /// Works, and nothing waits to go wrong.
    pub fn is_sound(&self) -> bool {
        let waits = self.fail_flush || self.fail_write || self.full || self.slow;
        !self.dead && !waits && self.bad.is_empty()
    }

    /// Names the moment: a flush asked for now covers what was written before.
    pub fn mark(&self) -> u64 {
        self.next
    }

    /// Writes a sector.
    pub fn write(&mut self, sector: usize, value: u64, fua: bool) {
        self.view[sector] = value;
        self.bad.remove(&sector);
        if fua {
            self.cache.retain(|c| c.1 != sector);
            self.stable[sector] = value;
        } else {
            self.cache.push((self.next, sector, value));
            self.next += 1;
        }
    }

    /// Only what was written before the flush was asked for becomes stable for certain.
    pub fn flush(&mut self, mark: u64) {
        let stable = &mut self.stable;
        self.cache.retain(|(n, sector, value)| {
            if *n < mark {
                stable[*sector] = *value;
            }
            *n >= mark
        });
    }

    /// The cache is lost, sector by sector or not; so it is after a flush that failed.
    pub fn lose_cache(&mut self, rng: &mut Rng) {
        for (_, sector, value) in self.cache.drain(..) {
            if rng.chance(50) {
                self.stable[sector] = value;
            }
        }
        self.view.clone_from(&self.stable);
    }

    /// The power goes.
    pub fn power_cut(&mut self, rng: &mut Rng) {
        self.lose_cache(rng);
        let loss = match rng.below(4) {
            0 => PowerLoss::DropAll,
            1 => PowerLoss::KeepAll,
            _ => PowerLoss::Torn(rng.draw()),
        };
        self.meta.power_loss(loss);
        self.settle_faults();
    }

    /// What a sector may have after a power cut, now.
    pub fn may_have(&self, at: usize) -> Vec<u64> {
        let cached = self.cache.iter().filter(|(_, sector, _)| *sector == at);
        let cached = cached.map(|(_, _, value)| *value);
        [self.stable[at]].into_iter().chain(cached).collect()
    }

    /// The process has died, the power is still there.
    pub fn process_died(&mut self) {
        self.meta.power_loss(PowerLoss::KeepAll);
        self.settle_faults();
    }

    /// A dead disk stays dead; failures that nobody has met yet are forgotten: a cache that is lost
    /// while nobody is there to hear of it cannot be told from data that was always so.
    fn settle_faults(&mut self) {
        self.fail_flush = false;
        self.fail_write = false;
        if self.dead {
            self.meta.break_down();
        }
    }

    /// Fails everything from now on.
    pub fn die(&mut self) {
        self.dead = true;
        self.meta.break_down();
    }

    /// Has room again, and keeps up.
    pub fn recover(&mut self) {
        (self.full, self.slow) = (false, false);
    }

    /// Works again, with what it had.
    pub fn revive(&mut self) {
        self.dead = false;
        self.fail_flush = false;
        self.fail_write = false;
        self.meta.repair();
    }
}

/// Sectors of a range of a volume.
pub fn sectors(range: ByteRange) -> std::ops::Range<usize> {
    (range.start() / SECTOR) as usize..(range.end() / SECTOR) as usize
}
