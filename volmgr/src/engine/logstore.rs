//! Writes pages of maps to all copies of the volume's log, one version of a page at a time.

use super::slab::Key;
use super::{DiskRange, IoId, LogIo};
use blockio::{ByteRange, mutant};
use regionmap::log::{BLOCK, DRL_SLOT, Geometry, HeaderError, PageState, SLOTS};
use regionmap::{PageBits, RegionMap};
use std::collections::{BTreeSet, HashMap};

/// A page of a slot.
pub(crate) type PageKey = (u32, u64);

/// Page updates in flight at once.
const MAX_IN_FLIGHT: usize = 64;

#[derive(Debug)]
struct Copy {
    number: u32,
    at: DiskRange,
    /// The block that holds the newest version of a page; absent where there is none.
    newest: HashMap<PageKey, u8>,
    /// Pages that a new copy does not have yet.
    lacks: BTreeSet<PageKey>,
}

#[derive(Debug)]
pub(crate) struct InFlight {
    pub bits: Box<PageBits>,
    pending: u32,
    written: u32,
}

#[derive(Debug)]
pub(crate) struct LogStore {
    geometry: Option<Geometry>,
    copies: Vec<Copy>,
    next_number: u32,
    sequence: HashMap<PageKey, u64>,
    in_flight: HashMap<PageKey, InFlight>,
    /// Pages to write; the dirty-region log, slot 0, comes first by nature of the order.
    pub queue: BTreeSet<PageKey>,
    /// No copy can be written: nothing that needs the log may go on.
    pub broken: bool,
    barriers: Vec<Barrier>,
    next_barrier: u64,
    /// See [`LogStore::stamp`].
    stamp: u64,
}

/// The page whose number is the log's stamp: every log has it, whatever the volume's size.
const STAMP_PAGE: PageKey = (DRL_SLOT, 0);

/// Pages that must be written once more for somebody; `true` where that write has begun.
#[derive(Debug)]
struct Barrier {
    number: u64,
    pages: HashMap<PageKey, bool>,
}

impl LogStore {
    /// Reads the images of the copies. `want(slot, page, bits)` is called for each page that was
    /// ever written, with `None` where all its versions are lost.
    pub fn load(
        size: u64,
        region_size: u64,
        copies: &[DiskRange],
        images: &[Vec<u8>],
        mut want: impl FnMut(u32, u64, Option<&PageBits>),
    ) -> Result<Self, HeaderError> {
        let mut store = Self {
            geometry: None,
            copies: Vec::new(),
            next_number: 0,
            sequence: HashMap::new(),
            in_flight: HashMap::new(),
            queue: BTreeSet::new(),
            broken: false,
            barriers: Vec::new(),
            next_barrier: 0,
            stamp: 0,
        };
        let mut error = HeaderError::Short;
        let mut good = Vec::new();
        for (at, image) in copies.iter().zip(images) {
            match Geometry::decode_header(image) {
                // A log may be larger than its volume: it is grown first.
                Ok(g) if g.size < size || g.region_size != region_size => {
                    error = HeaderError::Values;
                }
                Ok(g) if store.geometry.is_some_and(|first| first.volume != g.volume) => {
                    error = HeaderError::Values;
                }
                Ok(g) => {
                    store.geometry = Some(Geometry { size, ..g });
                    store.add_copy(*at);
                    good.push(image);
                }
                Err(e) => error = e,
            }
        }
        let Some(geometry) = store.geometry else {
            return Err(error);
        };
        for page in 0..geometry.pages() {
            for slot in 0..SLOTS {
                store.load_page(&geometry, (slot, page), &good, &mut want);
            }
        }
        store.stamp = store.sequence.get(&STAMP_PAGE).copied().unwrap_or(0);
        Ok(store)
    }

    fn load_page(
        &mut self,
        geometry: &Geometry,
        key: PageKey,
        images: &[&Vec<u8>],
        want: &mut impl FnMut(u32, u64, Option<&PageBits>),
    ) {
        let states: Vec<PageState> = images
            .iter()
            .map(|image| geometry.page_in_image(image, key.0, key.1))
            .collect();
        let mut best: Option<(u64, &PageBits)> = None;
        for (copy, state) in self.copies.iter_mut().zip(&states) {
            if let PageState::Valid {
                sequence,
                block,
                bits,
            } = state
            {
                copy.newest.insert(key, *block);
                if best.is_none_or(|(s, _)| s < *sequence) {
                    best = Some((*sequence, bits));
                }
            }
        }
        if let Some((sequence, bits)) = best {
            self.sequence.insert(key, sequence);
            want(key.0, key.1, Some(bits));
        } else if states.contains(&PageState::Lost) {
            want(key.0, key.1, None);
        } else {
            return;
        }
        let current = |s: &PageState| matches!(s, PageState::Valid { sequence, .. } if Some(*sequence) == best.map(|b| b.0));
        if !states.iter().all(current) {
            self.queue.insert(key);
        }
    }

    /// A store that writes nothing, for a volume that needs no log.
    pub fn none() -> Self {
        Self {
            geometry: None,
            copies: Vec::new(),
            next_number: 0,
            sequence: HashMap::new(),
            in_flight: HashMap::new(),
            queue: BTreeSet::new(),
            broken: true,
            barriers: Vec::new(),
            next_barrier: 0,
            stamp: 0,
        }
    }

    fn add_copy(&mut self, at: DiskRange) {
        self.copies.push(Copy {
            number: self.next_number,
            at,
            newest: HashMap::new(),
            lacks: BTreeSet::new(),
        });
        self.next_number += 1;
    }

    /// Was there a copy to start from?
    pub fn is_usable(&self) -> bool {
        self.geometry.is_some()
    }

    /// Where the copies are.
    pub fn places(&self) -> impl Iterator<Item = DiskRange> + '_ {
        self.copies.iter().map(|c| c.at)
    }

    /// Writes every page ever written again: a new copy needs them.
    pub fn add_formatted_copy(&mut self, at: DiskRange) {
        self.add_copy(at);
        self.queue.extend(self.sequence.keys().copied());
        if let Some(copy) = self.copies.last_mut() {
            copy.lacks.extend(self.sequence.keys().copied());
        }
        self.broken &= self.geometry.is_none();
    }

    /// Has every copy every page?
    pub fn is_whole(&self) -> bool {
        self.copies.iter().all(|c| c.lacks.is_empty())
    }

    /// Stops writing to a copy.
    pub fn drop_copy(&mut self, at: DiskRange) {
        self.copies.retain(|c| c.at != at);
        self.broken |= self.copies.is_empty();
    }

    /// The volume grew; the caller has grown the log areas.
    pub fn grow(&mut self, size: u64) {
        if let Some(geometry) = &mut self.geometry {
            geometry.size = size;
        }
    }

    /// A number that [`LogStore::is_written`] says yes to once all maps are in the log as they are
    /// now, or newer. What is written later does not put that off.
    pub fn barrier(&mut self) -> u64 {
        let is_map = |key: &&PageKey| key.0 != DRL_SLOT;
        let mut pages: HashMap<PageKey, bool> = HashMap::new();
        pages.extend(self.in_flight.keys().filter(is_map).map(|key| (*key, true)));
        pages.extend(self.queue.iter().filter(is_map).map(|key| (*key, false)));
        let number = self.next_barrier;
        self.next_barrier += 1;
        if !pages.is_empty() {
            self.barriers.push(Barrier { number, pages });
        }
        number
    }

    /// How far the log has durably come: grows with each update of the dirty-region log's first page, and
    /// never shrinks. So a log with a lower one than was told is an older copy.
    pub fn stamp(&self) -> u64 {
        self.stamp
    }

    /// Writes that page once more; the number is for [`LogStore::is_written`].
    pub fn touch(&mut self) -> u64 {
        self.queue.insert(STAMP_PAGE);
        let number = self.next_barrier;
        self.next_barrier += 1;
        let pages = HashMap::from([(STAMP_PAGE, false)]);
        self.barriers.push(Barrier { number, pages });
        number
    }

    /// Are the maps of that barrier in the log?
    pub fn is_written(&self, barrier: u64) -> bool {
        !self.broken && self.barriers.iter().all(|b| b.number != barrier)
    }

    fn written(&mut self, key: PageKey, counts: impl Fn(bool) -> bool) {
        self.barriers.retain_mut(|barrier| {
            if barrier.pages.get(&key).copied().is_some_and(&counts) {
                barrier.pages.remove(&key);
            }
            !barrier.pages.is_empty()
        });
    }

    /// Nothing to write and nothing being written in any slot but the dirty-region log's.
    pub fn maps_idle(&self) -> bool {
        self.queue.range((DRL_SLOT + 1, 0)..).next().is_none()
            && self.in_flight.keys().all(|k| k.0 == DRL_SLOT)
    }

    /// Nothing to write and nothing being written.
    pub fn is_idle(&self) -> bool {
        self.in_flight.is_empty() && (self.queue.is_empty() || self.broken)
    }

    /// Starts updates; `io(page, copy number)` names them.
    pub fn pump<'a>(
        &mut self,
        map: impl Fn(u32) -> Option<&'a RegionMap>,
        mut io: impl FnMut(PageKey, u32) -> Key,
        mut emit: impl FnMut(LogIo),
    ) {
        let Some(geometry) = self.geometry.filter(|_| !self.broken) else {
            return;
        };
        while self.in_flight.len() < MAX_IN_FLIGHT {
            let next = self.queue.iter().find(|k| !self.in_flight.contains_key(k));
            let Some(&key) = next else { return };
            self.queue.remove(&key);
            // A slot that belongs to nobody is left alone.
            let Some(bits) = map(key.0).map(|m| m.page_bits(key.1)) else {
                self.written(key, |_| true);
                for copy in &mut self.copies {
                    copy.lacks.remove(&key);
                }
                continue;
            };
            for barrier in &mut self.barriers {
                if let Some(begun) = barrier.pages.get_mut(&key) {
                    *begun = true;
                }
            }
            let sequence = self.sequence.entry(key).or_insert(0);
            *sequence = sequence.saturating_add(1);
            let bytes = geometry.encode_page(key.0, key.1, *sequence, &bits);
            let most = if mutant("log-first-copy-only") {
                1
            } else {
                usize::MAX
            };
            for copy in self.copies.iter().take(most) {
                let block = copy.newest.get(&key).map_or(0, |newest| 1 - newest);
                let start = copy.at.range.start() + geometry.page_offset(key.0, key.1, block);
                emit(LogIo {
                    io: IoId(io(key, copy.number)),
                    at: DiskRange {
                        disk: copy.at.disk,
                        range: ByteRange::new(start, BLOCK),
                    },
                    bytes: bytes.clone(),
                });
            }
            let pending = self.copies.len().min(most) as u32;
            let in_flight = InFlight {
                bits,
                pending,
                written: 0,
            };
            self.in_flight.insert(key, in_flight);
        }
    }

    /// A copy answered. Returns the copy's place where it failed.
    pub fn answered(&mut self, key: PageKey, number: u32, ok: bool) -> Option<DiskRange> {
        let flight = self.in_flight.get_mut(&key)?;
        flight.pending -= 1;
        let copy = self.copies.iter_mut().find(|c| c.number == number)?;
        if ok {
            flight.written += 1;
            let newest = copy.newest.entry(key).or_insert(1);
            *newest = 1 - *newest;
            copy.lacks.remove(&key);
            return None;
        }
        Some(copy.at)
    }

    /// After [`LogStore::answered`]: the update, where all copies have answered, and whether any
    /// copy that is still in use has it.
    pub fn finished(&mut self, key: PageKey) -> Option<(InFlight, bool)> {
        if self.in_flight.get(&key)?.pending > 0 {
            return None;
        }
        let flight = self.in_flight.remove(&key)?;
        let good = flight.written > 0 && !self.broken;
        if good {
            self.written(key, |begun| begun);
            if key == STAMP_PAGE {
                // One update of a page at a time: the last number given out is the one that is written.
                self.stamp = self.sequence.get(&key).copied().unwrap_or(0);
            }
        }
        Some((flight, good))
    }
}
