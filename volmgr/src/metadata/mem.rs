//! A PV in memory with a volatile write cache, for tests: power loss at any step, torn at 512.

use super::PvIo;
use std::io;

/// Unit in which a write is torn, in bytes.
const SECTOR: usize = 512;

/// What becomes of writes that were not synced when the power goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerLoss {
    /// None of them reached the medium.
    DropAll,
    /// All of them did.
    KeepAll,
    /// Each sector of each did or did not, by this seed.
    Torn(u64),
}

/// A disk in memory. Writes are volatile until [`PvIo::sync`].
#[derive(Clone, Debug)]
pub struct MemPv {
    durable: Vec<u8>,
    current: Vec<u8>,
    /// Writes since the last sync: offset and bytes.
    unsynced: Vec<(usize, Vec<u8>)>,
    /// Steps (writes and syncs) left before everything fails, if that is wanted.
    budget: Option<u64>,
    steps: u64,
    broken: bool,
}

impl MemPv {
    /// A disk of `size` bytes, all zero.
    pub fn new(size: usize) -> Self {
        Self {
            durable: vec![0; size],
            current: vec![0; size],
            unsynced: Vec::new(),
            budget: None,
            steps: 0,
            broken: false,
        }
    }

    /// After so many more writes and syncs everything fails; the write that exceeds the budget is
    /// handed to the cache nevertheless, so that it can be torn.
    pub fn fail_after(&mut self, steps: u64) {
        self.budget = Some(steps);
    }

    /// Everything fails from now on, reads too, until [`MemPv::repair`].
    pub fn break_down(&mut self) {
        self.broken = true;
    }

    /// Nothing fails any more.
    pub fn repair(&mut self) {
        self.broken = false;
        self.budget = None;
    }

    /// Writes and syncs so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The power goes and comes back.
    pub fn power_loss(&mut self, loss: PowerLoss) {
        let mut seed = match loss {
            PowerLoss::Torn(seed) => seed | 1,
            _ => 0,
        };
        for (at, bytes) in std::mem::take(&mut self.unsynced) {
            for (index, sector) in bytes.chunks(SECTOR).enumerate() {
                // xorshift: a coin for each sector.
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                let keep = match loss {
                    PowerLoss::DropAll => false,
                    PowerLoss::KeepAll => true,
                    PowerLoss::Torn(_) => seed & 4 != 0,
                };
                if keep {
                    let start = at + index * SECTOR;
                    self.durable[start..start + sector.len()].copy_from_slice(sector);
                }
            }
        }
        self.current = self.durable.clone();
        self.repair();
    }

    /// The bytes as a reader sees them; changing them changes the medium.
    pub fn scribble(&mut self, at: usize, bytes: &[u8]) {
        self.current[at..at + bytes.len()].copy_from_slice(bytes);
        self.durable[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// The bytes as a reader sees them.
    pub fn bytes(&self) -> &[u8] {
        &self.current
    }

    /// The disk becomes this long, cut or filled with zeroes.
    pub fn set_len(&mut self, size: usize) {
        self.current.resize(size, 0);
        self.durable.resize(size, 0);
    }

    fn step(&mut self) -> io::Result<()> {
        self.steps += 1;
        let spent = match &mut self.budget {
            None => false,
            Some(0) => true,
            Some(left) => {
                *left -= 1;
                false
            }
        };
        if spent || self.broken {
            return Err(io::Error::other("injected failure"));
        }
        Ok(())
    }

    fn range(&self, at: u64, len: usize) -> io::Result<std::ops::Range<usize>> {
        usize::try_from(at)
            .ok()
            .and_then(|at| Some(at..at.checked_add(len)?))
            .filter(|range| range.end <= self.current.len())
            .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

impl PvIo for MemPv {
    fn size(&self) -> u64 {
        self.current.len() as u64
    }

    fn read_at(&mut self, at: u64, buf: &mut [u8]) -> io::Result<()> {
        if self.broken {
            return Err(io::Error::other("injected failure"));
        }
        let range = self.range(at, buf.len())?;
        buf.copy_from_slice(&self.current[range]);
        Ok(())
    }

    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let range = self.range(at, bytes.len())?;
        let result = self.step();
        if !self.broken {
            self.current[range.clone()].copy_from_slice(bytes);
            self.unsynced.push((range.start, bytes.to_vec()));
        }
        result
    }

    fn sync(&mut self) -> io::Result<()> {
        self.step()?;
        for (at, bytes) in self.unsynced.drain(..) {
            self.durable[at..at + bytes.len()].copy_from_slice(&bytes);
        }
        Ok(())
    }
}
