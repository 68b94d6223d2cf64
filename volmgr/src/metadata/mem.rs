//! A PV in memory with a volatile write cache, for tests: power loss at any step, torn at 512.

use super::PvIo;
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

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

/// Bytes per page of the sparse store.
const PAGE: usize = 4096;

/// Content, as far as it is not zero.
#[derive(Clone, Debug, Default)]
struct Pages {
    size: u64,
    pages: BTreeMap<u64, Arc<[u8; PAGE]>>,
}

impl Pages {
    /// Calls `part` for each page that the range touches: page number, place in it, place in the
    /// caller's buffer.
    fn each(at: u64, len: usize, mut part: impl FnMut(u64, Range<usize>, Range<usize>)) {
        let mut done = 0;
        while done < len {
            let offset = at + done as u64;
            let from = (offset % PAGE as u64) as usize;
            let count = (PAGE - from).min(len - done);
            part(offset / PAGE as u64, from..from + count, done..done + count);
            done += count;
        }
    }

    fn read(&self, at: u64, buf: &mut [u8]) {
        Self::each(at, buf.len(), |page, from, to| {
            match self.pages.get(&page) {
                Some(bytes) => buf[to].copy_from_slice(&bytes[from]),
                None => buf[to].fill(0),
            }
        });
    }

    fn write(&mut self, at: u64, bytes: &[u8]) {
        Self::each(at, bytes.len(), |page, to, from| {
            let page = self
                .pages
                .entry(page)
                .or_insert_with(|| Arc::new([0; PAGE]));
            Arc::make_mut(page)[to].copy_from_slice(&bytes[from]);
        });
    }

    fn set_len(&mut self, size: u64) {
        if size < self.size {
            let cut = size / PAGE as u64;
            self.pages.retain(|page, _| *page <= cut);
            let rest = (size % PAGE as u64) as usize;
            if let Some(page) = self.pages.get_mut(&cut) {
                Arc::make_mut(page)[rest..].fill(0);
            }
        }
        self.size = size;
    }
}

/// A disk in memory, sparse and cheap to clone. Writes are volatile until [`PvIo::sync`].
#[derive(Clone, Debug)]
pub struct MemPv {
    durable: Pages,
    current: Pages,
    /// Writes since the last sync: offset and bytes.
    unsynced: Vec<(u64, Vec<u8>)>,
    /// Steps (writes and syncs) left before everything fails, if that is wanted.
    budget: Option<u64>,
    broken: bool,
}

impl MemPv {
    /// A disk of `size` bytes, all zero.
    pub fn new(size: u64) -> Self {
        let pages = Pages {
            size,
            pages: BTreeMap::new(),
        };
        Self {
            durable: pages.clone(),
            current: pages,
            unsynced: Vec::new(),
            budget: None,
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
                    self.durable.write(at + (index * SECTOR) as u64, sector);
                }
            }
        }
        self.current = self.durable.clone();
        self.repair();
    }

    /// Changes the medium behind everyone's back.
    pub fn scribble(&mut self, at: u64, bytes: &[u8]) {
        self.current.write(at, bytes);
        self.durable.write(at, bytes);
    }

    /// The disk becomes this long, cut or filled with zeroes.
    pub fn set_len(&mut self, size: u64) {
        self.current.set_len(size);
        self.durable.set_len(size);
    }

    fn step(&mut self) -> io::Result<()> {
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

    fn check_range(&self, at: u64, len: usize) -> io::Result<()> {
        let end = at.checked_add(len as u64);
        match end.is_some_and(|end| end <= self.current.size) {
            true => Ok(()),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

impl PvIo for MemPv {
    fn size(&self) -> u64 {
        self.current.size
    }

    fn read_at(&mut self, at: u64, buf: &mut [u8]) -> io::Result<()> {
        if self.broken {
            return Err(io::Error::other("injected failure"));
        }
        self.check_range(at, buf.len())?;
        self.current.read(at, buf);
        Ok(())
    }

    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.check_range(at, bytes.len())?;
        let result = self.step();
        if !self.broken {
            self.current.write(at, bytes);
            self.unsynced.push((at, bytes.to_vec()));
        }
        result
    }

    fn sync(&mut self) -> io::Result<()> {
        self.step()?;
        for (at, bytes) in self.unsynced.drain(..) {
            self.durable.write(at, &bytes);
        }
        Ok(())
    }
}
