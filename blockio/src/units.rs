//! Byte ranges, with the arithmetic that must not overflow.

use std::fmt;

/// `len` bytes from `start`. `start + len` never overflows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteRange {
    start: u64,
    len: u64,
}

impl ByteRange {
    /// The range, or `None` where its end would pass `u64::MAX`.
    pub fn checked(start: u64, len: u64) -> Option<Self> {
        start.checked_add(len).map(|_| Self { start, len })
    }

    /// The range.
    ///
    /// # Panics
    /// Where the end would pass `u64::MAX`: for values already validated. Decoders of foreign
    /// bytes use [`ByteRange::checked`].
    pub fn new(start: u64, len: u64) -> Self {
        Self::checked(start, len).expect("byte range overflows")
    }

    /// First byte.
    pub fn start(self) -> u64 {
        self.start
    }

    /// Length in bytes.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(self) -> u64 {
        self.len
    }

    /// One past the last byte.
    pub fn end(self) -> u64 {
        self.start + self.len
    }

    /// No bytes at all.
    pub fn is_empty(self) -> bool {
        self.len == 0
    }

    /// Do the two share a byte?
    pub fn overlaps(self, other: Self) -> bool {
        self.start < other.end() && other.start < self.end()
    }

    /// Is every byte of `other` in `self`?
    pub fn contains(self, other: Self) -> bool {
        self.start <= other.start && other.end() <= self.end()
    }

    /// The shared bytes, or `None` where there are none.
    pub fn intersection(self, other: Self) -> Option<Self> {
        let start = self.start.max(other.start);
        let end = self.end().min(other.end());
        (start < end).then(|| Self {
            start,
            len: end - start,
        })
    }

    /// Grown outwards to multiples of `unit` (a power of two); saturates at `u64::MAX`.
    pub fn align_outwards(self, unit: u64) -> Self {
        debug_assert!(unit.is_power_of_two());
        let start = self.start & !(unit - 1);
        let end = self
            .end()
            .checked_next_multiple_of(unit)
            .unwrap_or(u64::MAX);
        Self {
            start,
            len: end - start,
        }
    }

    /// Are both ends multiples of `unit` (a power of two)?
    pub fn is_aligned(self, unit: u64) -> bool {
        debug_assert!(unit.is_power_of_two());
        (self.start | self.len) & (unit - 1) == 0
    }
}

impl fmt::Debug for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}+{:#x}", self.start, self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overflow_is_refused() {
        assert!(ByteRange::checked(u64::MAX, 1).is_none());
        assert!(ByteRange::checked(u64::MAX, 0).is_some());
    }

    #[test]
    fn empty_ranges_overlap_nothing() {
        let r = ByteRange::new(10, 0);
        assert!(!r.overlaps(ByteRange::new(0, 10)));
        assert!(!r.overlaps(ByteRange::new(10, 10)));
    }

    #[test]
    fn alignment_grows_outwards() {
        let r = ByteRange::new(5, 10).align_outwards(8);
        assert_eq!((r.start(), r.end()), (0, 16));
        assert!(r.is_aligned(8));
        assert_eq!(ByteRange::new(8, 8).align_outwards(8), ByteRange::new(8, 8));
    }

    #[test]
    fn intersection_is_symmetric() {
        let (a, b) = (ByteRange::new(0, 10), ByteRange::new(5, 10));
        assert_eq!(a.intersection(b), Some(ByteRange::new(5, 5)));
        assert_eq!(b.intersection(a), a.intersection(b));
        assert_eq!(a.intersection(ByteRange::new(10, 1)), None);
    }
}
