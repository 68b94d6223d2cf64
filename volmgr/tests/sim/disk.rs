//! A disk with a volatile cache, in sectors of 512 bytes that hold a number each.

use super::Rng;
use std::collections::HashSet;

#[derive(Default)]
pub struct Disk {
    /// What a read returns.
    pub view: Vec<u64>,
    /// What a power cut leaves.
    stable: Vec<u64>,
    /// Writes that are not stable yet, with a number that grows.
    cache: Vec<(u64, usize, u64)>,
    next: u64,
    /// Fails everything.
    pub dead: bool,
    /// Cannot be read until written.
    pub bad: HashSet<usize>,
    /// Fails the next flush and loses its cache.
    pub fail_flush: bool,
    /// Fails the next write half way.
    pub fail_write: bool,
}

impl Disk {
    pub fn new(sectors: usize) -> Self {
        Self {
            view: vec![0; sectors],
            stable: vec![0; sectors],
            next: 1,
            ..Self::default()
        }
    }

    pub fn mark(&self) -> u64 {
        self.next
    }

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

    pub fn power_cut(&mut self, rng: &mut Rng) {
        for (_, sector, value) in self.cache.drain(..) {
            if rng.chance(50) {
                self.stable[sector] = value;
            }
        }
        self.view.clone_from(&self.stable);
    }

    /// A flush that failed: the cache is lost, as the kernel does it.
    pub fn lose_cache(&mut self, rng: &mut Rng) {
        self.power_cut(rng);
    }
}
