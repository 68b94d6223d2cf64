//! The map in memory: a background of all clear or all set, and the pages that differ from it.

use crate::intervals::Intervals;
use crate::page::{PAGE_REGIONS, PAGE_WORDS, Page, PageBits, find, for_words, ones};
use blockio::ByteRange;
use std::collections::BTreeMap;

/// A set of regions of a volume.
///
/// Costs memory only for pages that are neither like the background nor uniform, so a map of 1 PiB
/// that is all set (a feed that starts) is as small as an empty one. Remembers which pages changed
/// since they were last taken by [`RegionMap::take_changed_page`], for writing them to the log.
#[derive(Clone, Debug)]
pub struct RegionMap {
    size: u64,
    region_size: u64,
    background: bool,
    pages: BTreeMap<u64, Page>,
    count: u64,
    changed: Intervals,
}

impl PartialEq for RegionMap {
    /// The same regions of the same volume; what changed when does not matter.
    fn eq(&self, other: &Self) -> bool {
        self.same_shape(other)
            && self.count == other.count
            && self
                .pages_not_clear()
                .all(|p| self.page(p) == other.page(p))
    }
}

impl Eq for RegionMap {}

impl RegionMap {
    /// An empty map of a volume of `size` bytes; `region_size` in bytes is a power of two.
    ///
    /// # Panics
    /// Where `region_size` is not a power of two.
    pub fn new(size: u64, region_size: u64) -> Self {
        assert!(region_size.is_power_of_two(), "region size {region_size}");
        Self {
            size,
            region_size,
            background: false,
            pages: BTreeMap::new(),
            count: 0,
            changed: Intervals::default(),
        }
    }

    /// Size of the volume in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes per region.
    pub fn region_size(&self) -> u64 {
        self.region_size
    }

    /// Number of regions of the volume, the last one may be shorter.
    pub fn regions(&self) -> u64 {
        self.size.div_ceil(self.region_size)
    }

    /// Number of pages.
    pub fn page_count(&self) -> u64 {
        self.regions().div_ceil(PAGE_REGIONS)
    }

    /// Number of regions in the map.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Nothing in it?
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Upper bound of the bytes covered by the map (the last region may be shorter).
    pub fn bytes(&self) -> u64 {
        self.count.saturating_mul(self.region_size).min(self.size)
    }

    fn same_shape(&self, other: &Self) -> bool {
        self.size == other.size && self.region_size == other.region_size
    }

    fn page_len(&self, page: u64) -> u64 {
        (self.regions() - page * PAGE_REGIONS).min(PAGE_REGIONS)
    }

    fn page(&self, page: u64) -> &Page {
        const BACK: [&Page; 2] = [&Page::Zero, &Page::Full];
        self.pages
            .get(&page)
            .unwrap_or(BACK[usize::from(self.background)])
    }

    fn ones_in(&self, page: u64) -> u64 {
        match self.page(page) {
            Page::Zero => 0,
            Page::Full => self.page_len(page),
            Page::Bits { ones, .. } => u64::from(*ones),
        }
    }

    /// Puts a page in place, in its cheapest form, and keeps the books.
    fn put(&mut self, page: u64, new: Page) {
        let len = self.page_len(page);
        let new = match new {
            Page::Bits { ones: 0, .. } => Page::Zero,
            Page::Bits { ones, .. } if u64::from(ones) == len => Page::Full,
            other => other,
        };
        let before = self.ones_in(page);
        let like_background = match new {
            Page::Zero => !self.background,
            Page::Full => self.background,
            Page::Bits { .. } => false,
        };
        if like_background {
            self.pages.remove(&page);
        } else {
            self.pages.insert(page, new);
        }
        self.count = self.count - before + self.ones_in(page);
        self.changed.insert(page, page + 1);
    }

    /// The indices of the regions that `range` touches, as `[first, end)`.
    fn indices(&self, range: ByteRange) -> (u64, u64) {
        let end = range.end().min(self.size);
        if range.is_empty() || range.start() >= end {
            return (0, 0);
        }
        (
            range.start() / self.region_size,
            end.div_ceil(self.region_size),
        )
    }

    fn fill(&mut self, first: u64, end: u64, value: bool) {
        if first == 0 && end == self.regions() && end > 0 {
            if self.count == if value { end } else { 0 } {
                return;
            }
            self.pages.clear();
            self.background = value;
            self.count = if value { end } else { 0 };
            self.changed.insert(0, self.page_count());
            return;
        }
        let mut at = first;
        while at < end {
            let page = at / PAGE_REGIONS;
            let base = page * PAGE_REGIONS;
            let len = self.page_len(page);
            let (low, high) = (at - base, (end - base).min(len));
            at = base + high;
            match (self.page(page), value) {
                (Page::Zero, false) | (Page::Full, true) => continue,
                _ => {}
            }
            if low == 0 && high == len {
                self.put(page, if value { Page::Full } else { Page::Zero });
                continue;
            }
            // The page is edited in place: this is the path of every write, it must not allocate.
            let background = self.background;
            let entry =
                self.pages
                    .entry(page)
                    .or_insert(if background { Page::Full } else { Page::Zero });
            match entry {
                Page::Zero => {
                    *entry = Page::Bits {
                        ones: 0,
                        words: Box::new([0; PAGE_WORDS]),
                    }
                }
                Page::Full => {
                    *entry = Page::Bits {
                        ones: len as u32,
                        words: ones(len),
                    }
                }
                Page::Bits { .. } => {}
            }
            let Page::Bits { ones, words } = entry else {
                unreachable!("made so above")
            };
            let before = *ones;
            for_words(low, high, |i, mask| {
                let old = words[i];
                words[i] = if value { old | mask } else { old & !mask };
                *ones = *ones - old.count_ones() + words[i].count_ones();
            });
            let after = *ones;
            if before == after {
                continue;
            }
            self.count = self.count - u64::from(before) + u64::from(after);
            self.changed.insert(page, page + 1);
            if after == 0 || u64::from(after) == len {
                self.put(page, if after == 0 { Page::Zero } else { Page::Full });
            }
        }
    }

    /// Adds every region that `range` touches.
    pub fn set_range(&mut self, range: ByteRange) {
        let (first, end) = self.indices(range);
        self.fill(first, end, true);
    }

    /// Removes every region that `range` touches.
    pub fn clear_range(&mut self, range: ByteRange) {
        let (first, end) = self.indices(range);
        self.fill(first, end, false);
    }

    /// Adds every region.
    pub fn set_all(&mut self) {
        self.fill(0, self.regions(), true);
    }

    /// Removes every region.
    pub fn clear_all(&mut self) {
        self.fill(0, self.regions(), false);
    }

    /// Removes the region with this index.
    pub fn clear_region(&mut self, region: u64) {
        if region < self.regions() {
            self.fill(region, region + 1, false);
        }
    }

    /// Is the region with this index in the map?
    pub fn is_set(&self, region: u64) -> bool {
        if region >= self.regions() {
            return false;
        }
        match self.page(region / PAGE_REGIONS) {
            Page::Zero => false,
            Page::Full => true,
            Page::Bits { words, .. } => {
                let bit = region % PAGE_REGIONS;
                words[(bit / 64) as usize] >> (bit % 64) & 1 == 1
            }
        }
    }

    /// The first region in `[first, end)` whose membership is `value`.
    fn find(&self, first: u64, end: u64, value: bool) -> Option<u64> {
        let mut at = first;
        while at < end {
            let page = at / PAGE_REGIONS;
            let base = page * PAGE_REGIONS;
            if self.background != value && !self.pages.contains_key(&page) {
                // Nothing to find in the background: on to the next page that differs from it.
                let next = self.pages.range(page..).next()?;
                at = next.0 * PAGE_REGIONS;
                continue;
            }
            let high = (end - base).min(self.page_len(page));
            match self.page(page) {
                Page::Zero if !value => return Some(at),
                Page::Full if value => return Some(at),
                Page::Bits { words, .. } => {
                    if let Some(bit) = find(words, at - base, high, value) {
                        return Some(base + bit);
                    }
                }
                _ => {}
            }
            at = base + PAGE_REGIONS;
        }
        None
    }

    /// Is any region that `range` touches in the map?
    pub fn any_in(&self, range: ByteRange) -> bool {
        let (first, end) = self.indices(range);
        self.find(first, end, true).is_some()
    }

    /// Is every region that `range` touches in the map? True for an empty range.
    pub fn all_in(&self, range: ByteRange) -> bool {
        let (first, end) = self.indices(range);
        self.find(first, end, false).is_none()
    }

    /// The first run of regions in the map at or after the region that holds byte `from`: whole
    /// regions, cut at `max_bytes` (at least one region) and at the end of the volume.
    pub fn next_run(&self, from: u64, max_bytes: u64) -> Option<ByteRange> {
        if from >= self.size {
            return None;
        }
        let regions = self.regions();
        let first = self.find(from / self.region_size, regions, true)?;
        let max = (max_bytes / self.region_size).max(1);
        let limit = regions.min(first.saturating_add(max));
        let end = self.find(first + 1, limit, false).unwrap_or(limit);
        let start = first * self.region_size;
        let stop = end.saturating_mul(self.region_size).min(self.size);
        Some(ByteRange::new(start, stop - start))
    }

    /// All runs in order, none longer than `max_bytes`.
    pub fn runs(&self, max_bytes: u64) -> impl Iterator<Item = ByteRange> + '_ {
        let mut from = 0;
        std::iter::from_fn(move || {
            let run = self.next_run(from, max_bytes)?;
            from = run.end();
            Some(run)
        })
        .fuse()
    }

    /// Adds all regions of `other`; where the volumes' sizes differ, by byte range.
    pub fn union(&mut self, other: &Self) {
        if !self.same_shape(other) {
            for run in other.runs(u64::MAX) {
                self.set_range(run);
            }
            return;
        }
        if other.count == other.regions() {
            return self.set_all();
        }
        for page in other.pages_not_clear().collect::<Vec<_>>() {
            let words = other.page_bits(page);
            self.merge_page(page, &words);
        }
    }

    /// Removes all regions of `other`, which must be a map of the same volume.
    pub fn subtract(&mut self, other: &Self) {
        debug_assert!(self.same_shape(other));
        for run in other.runs(u64::MAX) {
            self.clear_range(run);
        }
    }

    /// Adds the regions of a page as read from a log.
    pub fn merge_page(&mut self, page: u64, bits: &PageBits) {
        if page >= self.page_count() {
            return;
        }
        let len = self.page_len(page);
        let mut words = self.page_bits(page);
        let valid = ones(len);
        let mut ones = 0;
        let mut grew = false;
        for ((word, new), valid) in words.iter_mut().zip(bits).zip(valid.iter()) {
            grew |= new & valid & !*word != 0;
            *word |= new & valid;
            ones += word.count_ones();
        }
        if grew {
            self.put(page, Page::Bits { ones, words });
        }
    }

    /// The bits of a page, as they go into a log block.
    pub fn page_bits(&self, page: u64) -> Box<PageBits> {
        if page >= self.page_count() {
            return Box::new([0; PAGE_WORDS]);
        }
        match self.page(page) {
            Page::Zero => Box::new([0; PAGE_WORDS]),
            Page::Full => ones(self.page_len(page)),
            Page::Bits { words, .. } => words.clone(),
        }
    }

    /// The numbers of the pages that hold any region.
    pub fn pages_not_clear(&self) -> impl Iterator<Item = u64> + '_ {
        let all = if self.background {
            self.page_count()
        } else {
            0
        };
        let dense = (0..all).filter(|p| self.ones_in(*p) > 0);
        let sparse = self.pages.keys().copied();
        dense.chain(sparse.filter(move |_| all == 0))
    }

    /// The lowest page that changed since it was last taken; it counts as unchanged from now on.
    pub fn take_changed_page(&mut self) -> Option<u64> {
        self.changed.pop_first()
    }

    /// Takes this page off the changed ones; says whether it was one.
    pub fn take_changed(&mut self, page: u64) -> bool {
        self.changed.remove(page)
    }

    /// Did any page change that has not been taken?
    pub fn has_changes(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Counts the page as changed (its write to the log failed, or a new log copy needs it).
    pub fn mark_changed(&mut self, page: u64) {
        if page < self.page_count() {
            self.changed.insert(page, page + 1);
        }
    }

    /// Counts all pages as unchanged: the map is what the log says.
    pub fn forget_changes(&mut self) {
        self.changed = Intervals::default();
    }

    /// Grows the volume to `size` bytes; the new regions are not in the map.
    ///
    /// # Panics
    /// Where `size` is less than before.
    pub fn grow(&mut self, size: u64) {
        assert!(size >= self.size, "a map does not shrink");
        if self.background {
            // Back to a background of zeroes, so that what is new is clear.
            let old_pages = self.page_count();
            let tail = old_pages.saturating_sub(1);
            let bits = self.page_bits(tail);
            let mut pages = std::mem::take(&mut self.pages);
            for page in 0..tail {
                match pages.get(&page) {
                    None => {
                        pages.insert(page, Page::Full);
                    }
                    Some(Page::Zero) => {
                        pages.remove(&page);
                    }
                    Some(_) => {}
                }
            }
            pages.remove(&tail);
            self.pages = pages;
            self.background = false;
            self.size = size;
            self.count = (0..tail).map(|p| self.ones_in(p)).sum();
            self.merge_page(tail, &bits);
        } else {
            // Only the last page can mean something else than before: `Full` was shorter.
            let tail = self.page_count().saturating_sub(1);
            if self.pages.get(&tail) == Some(&Page::Full) {
                let words = self.page_bits(tail);
                let ones = self.page_len(tail) as u32;
                self.size = size;
                let page = if u64::from(ones) == self.page_len(tail) {
                    Page::Full
                } else {
                    Page::Bits { ones, words }
                };
                self.pages.insert(tail, page);
            }
            self.size = size;
        }
    }
}

#[cfg(test)]
#[path = "map_tests.rs"]
mod tests;
