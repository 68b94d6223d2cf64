//! A disk with a volatile cache. Metadata is bytes; data sectors hold a number each, so that a
//! model can tell every write from every other; log areas are bytes that are written through.

use super::rng::Rng;
use blockio::{ByteRange, Flags, IoError, IoErrorKind};
use std::collections::{BTreeMap, HashMap, HashSet};
use volmgr::engine::{DiskIo, DiskOp, LogIo};
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

    /// Works and loses nothing, though it may be slow.
    pub fn is_harmless(&self) -> bool {
        let waits = self.fail_flush || self.fail_write || self.full;
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

    /// Would a power cut take something away from these sectors?
    pub fn has_cached(&self, sectors: std::ops::Range<usize>) -> bool {
        self.cache.iter().any(|(_, at, _)| sectors.contains(at))
    }

    /// A sector comes to hold something else, in silence; false where it is in the cache, or cannot be read anyway.
    pub fn rot(&mut self, sector: usize, value: u64) -> bool {
        let cached = self.cache.iter().any(|(_, at, _)| *at == sector);
        if self.dead || cached || self.bad.contains(&sector) {
            return false;
        }
        (self.view[sector], self.stable[sector]) = (value, value);
        true
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

/// The bytes of a sector of a volume.
pub fn range_of(sector: usize) -> ByteRange {
    ByteRange::new(sector as u64 * SECTOR, SECTOR)
}

/// A disk does not work.
pub fn medium() -> IoError {
    IoError::new(IoErrorKind::Medium)
}

impl Disk {
    /// Performs an operation, each sector with this chance (less than 100 where a crash cuts it
    /// short).
    pub fn perform(
        &mut self,
        io: &DiskIo,
        mark: u64,
        percent: u64,
        payloads: &mut HashMap<u64, Vec<u64>>,
        rng: &mut Rng,
    ) -> Result<(), IoError> {
        if self.dead {
            return Err(medium());
        }
        let fua = io.flags.contains(Flags::FUA);
        let skip = io.payload.map_or(0, |p| (p.skip / SECTOR) as usize);
        let count = (io.at.range.len() / SECTOR) as usize;
        let first = match io.op {
            DiskOp::Flush => 0,
            _ => self.sector(io.at.range.start()),
        };
        match io.op {
            DiskOp::Flush => {
                if std::mem::take(&mut self.fail_flush) {
                    self.lose_cache(rng);
                    return Err(medium());
                }
                if percent == 100 {
                    self.flush(mark);
                }
            }
            DiskOp::Read => {
                let id = io.payload.expect("a payload").id;
                let into = payloads.get_mut(&id.0).expect("payload is alive");
                for i in 0..count {
                    into[skip + i] = self.view[first + i];
                    if self.bad.contains(&(first + i)) {
                        return Err(medium());
                    }
                }
            }
            DiskOp::Write | DiskOp::WriteZeroes if self.full => {
                return Err(IoError::new(IoErrorKind::NoSpace));
            }
            DiskOp::Write => {
                let id = io.payload.expect("a payload").id;
                let fails = std::mem::take(&mut self.fail_write);
                let percent = if fails { 50 } else { percent };
                for i in 0..count {
                    if rng.chance(percent) {
                        self.write(first + i, payloads[&id.0][skip + i], fua);
                    }
                }
                if fails {
                    return Err(medium());
                }
            }
            DiskOp::WriteZeroes => {
                if io.flags.contains(Flags::FAST_ZERO) {
                    return Err(IoError::new(IoErrorKind::Unsupported));
                }
                for i in 0..count {
                    if rng.chance(percent) {
                        self.write(first + i, 0, fua);
                    }
                }
            }
            DiskOp::Discard => {
                for i in 0..count {
                    if rng.chance(50) {
                        self.write(first + i, 0, false);
                    }
                }
            }
            DiskOp::Prefetch => {}
        }
        Ok(())
    }

    /// Performs an update of the log; with `torn`, any of its sectors, as a crash leaves it.
    pub fn write_log(&mut self, io: &LogIo, torn: Option<&mut Rng>) -> Result<(), IoError> {
        if self.dead {
            return Err(medium());
        }
        let at = io.at.range.start();
        let (start, image) = self.logs.range_mut(..=at).next_back().ok_or(medium())?;
        let from = (at - start) as usize;
        let mut torn = torn;
        for (i, sector) in io.bytes.chunks(SECTOR as usize).enumerate() {
            let keep = torn.as_mut().is_none_or(|rng| rng.chance(50));
            let to = from + i * SECTOR as usize;
            if keep {
                image[to..to + sector.len()].copy_from_slice(sector);
            }
        }
        Ok(())
    }
}
