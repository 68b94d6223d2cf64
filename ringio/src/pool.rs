//! Page-aligned buffers that come back by themselves.
//!
//! A pool is one anonymous mapping cut into blocks of 256 KiB, each managed as 64 pages in one
//! `u64`: a set bit is a free page. A slice takes a power of two of pages, aligned to its size, so
//! neighbours merge again without any bookkeeping. Each slice's count of users lives with its
//! first page.

use crate::RingError;
use std::fmt;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Smallest slice and alignment of every slice, in bytes.
pub const PAGE: usize = 4096;
/// Largest slice of a pool, in bytes.
pub const MAX_SLICE: usize = 64 * PAGE;

/// The memory and who uses it.
pub(crate) struct Region {
    base: NonNull<u8>,
    len: usize,
    /// Users of the slice that starts at this page; 0 for pages that start none.
    users: Box<[AtomicU32]>,
    /// Free pages, one word a block; empty for memory that is not a pool.
    free: Mutex<Vec<u64>>,
}

// SAFETY: `base` is a private mapping owned by the region; access to its bytes goes through
// `BufMut` (exclusive) and `BufSlice` (read only), everything else is atomic or locked.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    fn map(len: usize, slots: usize, free: Vec<u64>) -> Result<Self, RingError> {
        debug_assert!(len > 0 && len.is_multiple_of(PAGE));
        // SAFETY: a new anonymous private mapping, no address asked for; it overlaps nothing.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        let base = if base == libc::MAP_FAILED {
            None
        } else {
            NonNull::new(base.cast::<u8>())
        };
        let Some(base) = base else {
            return Err(RingError::Map {
                bytes: len,
                source: io::Error::last_os_error(),
            });
        };
        Ok(Self {
            base,
            len,
            users: (0..slots).map(|_| AtomicU32::new(0)).collect(),
            free: Mutex::new(free),
        })
    }

    /// Start and length of the mapping, for registration with a ring.
    pub(crate) fn extent(&self) -> (*mut u8, usize) {
        (self.base.as_ptr(), self.len)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<u64>> {
        // The words are valid after any panic: each update is one assignment.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `map`, and nobody refers to it: slices hold the region.
        let unmapped = unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
        debug_assert_eq!(unmapped, 0, "munmap of an own mapping");
    }
}

/// One counted use of a slice: `pages` pages from page `first`.
struct Hold {
    region: Arc<Region>,
    first: u32,
    pages: u32,
}

impl Clone for Hold {
    fn clone(&self) -> Self {
        let before = self.region.users[self.first as usize].fetch_add(1, Ordering::Relaxed);
        assert!(before > 0 && before < u32::MAX / 2, "count of slice users");
        Self {
            region: Arc::clone(&self.region),
            first: self.first,
            pages: self.pages,
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.region.users[self.first as usize].fetch_sub(1, Ordering::Release) != 1 {
            return;
        }
        // Everything that other users did with the bytes happened before they are free.
        fence(Ordering::Acquire);
        let mut free = self.region.lock();
        if let Some(word) = free.get_mut(self.first as usize / 64) {
            let mask = page_mask(self.pages) << (self.first % 64);
            debug_assert_eq!(*word & mask, 0, "slice freed twice");
            *word |= mask;
        }
    }
}

fn page_mask(pages: u32) -> u64 {
    if pages >= 64 {
        u64::MAX
    } else {
        (1 << pages) - 1
    }
}

/// A pool of buffers. Clones share it.
#[derive(Clone)]
pub struct BufPool {
    region: Arc<Region>,
}

impl BufPool {
    /// A pool of at least `bytes` (rounded up to whole blocks of 256 KiB).
    pub fn new(bytes: usize) -> Result<Self, RingError> {
        let blocks = bytes.max(1).div_ceil(MAX_SLICE);
        let region = Region::map(blocks * MAX_SLICE, blocks * 64, vec![u64::MAX; blocks])?;
        Ok(Self {
            region: Arc::new(region),
        })
    }

    pub(crate) fn region(&self) -> &Arc<Region> {
        &self.region
    }

    /// Size in bytes.
    pub fn capacity(&self) -> usize {
        self.region.len
    }

    /// Free bytes, in slices of any size.
    pub fn free(&self) -> usize {
        let free = self.region.lock();
        free.iter()
            .map(|word| word.count_ones() as usize)
            .sum::<usize>()
            * PAGE
    }

    /// A slice of `len` bytes (1 to [`MAX_SLICE`]), or `None` where none is free now. Its content
    /// is whatever its last user left.
    pub fn alloc(&self, len: usize) -> Option<BufMut> {
        if len == 0 || len > MAX_SLICE {
            return None;
        }
        let pages = len.div_ceil(PAGE).next_power_of_two() as u32;
        let first = {
            let mut free = self.region.lock();
            take(&mut free, pages)?
        };
        let users = self.region.users[first as usize].swap(1, Ordering::Relaxed);
        assert_eq!(users, 0, "a free slice has no users");
        Some(BufMut {
            start: first as usize * PAGE,
            len,
            hold: Hold {
                region: Arc::clone(&self.region),
                first,
                pages,
            },
        })
    }
}

/// Takes `pages` (a power of two up to 64) aligned pages; prefers blocks that are in use already.
fn take(free: &mut [u64], pages: u32) -> Option<u32> {
    let fits = |word: u64| {
        (0..64)
            .step_by(pages as usize)
            .find(|&at| word >> at & page_mask(pages) == page_mask(pages))
    };
    let mut best: Option<(u32, usize, u32)> = None;
    for (block, &word) in free.iter().enumerate() {
        if word.count_ones() < pages {
            continue;
        }
        if best.is_some_and(|(count, _, _)| count <= word.count_ones()) {
            continue;
        }
        if let Some(at) = fits(word) {
            best = Some((word.count_ones(), block, at));
        }
    }
    let (_, block, at) = best?;
    free[block] &= !(page_mask(pages) << at);
    Some(block as u32 * 64 + at)
}

/// Exclusive bytes: the kernel or the holder may write them.
pub struct BufMut {
    hold: Hold,
    /// In the region, in bytes.
    start: usize,
    len: usize,
}

impl BufMut {
    /// Zeroed memory of its own, not from a pool: for the few uses that must not wait for one.
    /// Page aligned, at most 4 GiB.
    pub fn standalone(len: usize) -> Result<Self, RingError> {
        let mapped = len.max(1).next_multiple_of(PAGE);
        let region = Region::map(mapped, 1, Vec::new())?;
        region.users[0].store(1, Ordering::Relaxed);
        Ok(Self {
            hold: Hold {
                region: Arc::new(region),
                first: 0,
                pages: 0,
            },
            start: 0,
            len,
        })
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// No bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Cuts off the first `at` bytes and returns them.
    ///
    /// # Panics
    /// Where `at` is more than the length.
    pub fn split_to(&mut self, at: usize) -> Self {
        assert!(at <= self.len, "split behind the end");
        let head = Self {
            hold: self.hold.clone(),
            start: self.start,
            len: at,
        };
        self.start += at;
        self.len -= at;
        head
    }

    /// Joins two neighbours that were split; gives both back where they are none.
    pub fn join(self, next: Self) -> Result<Self, (Self, Self)> {
        let neighbours = Arc::ptr_eq(&self.hold.region, &next.hold.region)
            && self.hold.first == next.hold.first
            && self.start + self.len == next.start;
        if !neighbours {
            return Err((self, next));
        }
        let len = self.len + next.len;
        Ok(Self { len, ..self })
    }

    /// From its first byte on, all of the slice that it was cut from; gives it back as it is where
    /// somebody else has a part of that.
    pub fn regrow(self) -> Result<Self, Self> {
        let Hold {
            region,
            first,
            pages,
        } = &self.hold;
        // Acquire pairs with the release of other users' drops.
        if region.users[*first as usize].load(Ordering::Acquire) != 1 {
            return Err(self);
        }
        let end = match *pages {
            // Not from a pool: the mapping is its own.
            0 => region.len,
            pages => (*first + pages) as usize * PAGE,
        };
        let len = end - self.start;
        Ok(Self { len, ..self })
    }

    /// Makes it shared and read only.
    pub fn freeze(self) -> BufSlice {
        BufSlice {
            hold: self.hold,
            start: self.start,
            len: self.len,
        }
    }

    pub(crate) fn region(&self) -> &Arc<Region> {
        &self.hold.region
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut u8 {
        debug_assert!(self.start + self.len <= self.hold.region.len);
        // SAFETY: `start` is within the mapping (or one past it for an empty slice).
        unsafe { self.hold.region.base.as_ptr().add(self.start) }
    }
}

impl AsRef<[u8]> for BufMut {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the bytes lie in the mapping, which `hold` keeps; they are initialised (the
        // kernel zeroes new mappings), and only this value may write them, which needs `&mut`.
        unsafe {
            std::slice::from_raw_parts(self.hold.region.base.as_ptr().add(self.start), self.len)
        }
    }
}

impl AsMut<[u8]> for BufMut {
    fn as_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_ref`; exclusive because slices of one hold are split, never copied,
        // while they are `BufMut`.
        unsafe { std::slice::from_raw_parts_mut(self.as_mut_ptr(), self.len) }
    }
}

impl fmt::Debug for BufMut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BufMut({:#x}+{:#x})", self.start, self.len)
    }
}

/// Shared, read-only bytes; a clone costs one count.
#[derive(Clone)]
pub struct BufSlice {
    hold: Hold,
    start: usize,
    len: usize,
}

impl BufSlice {
    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// No bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// `len` bytes of it, `skip` bytes on.
    ///
    /// # Panics
    /// Where they do not all exist.
    pub fn slice(&self, skip: usize, len: usize) -> Self {
        assert!(
            skip.checked_add(len).is_some_and(|end| end <= self.len),
            "slice of a slice"
        );
        Self {
            hold: self.hold.clone(),
            start: self.start + skip,
            len,
        }
    }

    /// Exclusive again where nobody else holds any part of it.
    pub fn try_into_mut(self) -> Result<BufMut, Self> {
        let users = &self.hold.region.users[self.hold.first as usize];
        // Acquire pairs with the release of other users' drops.
        if users.load(Ordering::Acquire) != 1 {
            return Err(self);
        }
        Ok(BufMut {
            hold: self.hold,
            start: self.start,
            len: self.len,
        })
    }

    pub(crate) fn region(&self) -> &Arc<Region> {
        &self.hold.region
    }
}

impl AsRef<[u8]> for BufSlice {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the bytes lie in the mapping, which `hold` keeps, and nobody writes them while a
        // `BufSlice` exists: `freeze` consumed the writer of these bytes.
        unsafe {
            std::slice::from_raw_parts(self.hold.region.base.as_ptr().add(self.start), self.len)
        }
    }
}

impl fmt::Debug for BufSlice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BufSlice({:#x}+{:#x})", self.start, self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_come_back_and_merge() {
        let pool = BufPool::new(MAX_SLICE).expect("pool");
        let small: Vec<_> = (0..64).map(|_| pool.alloc(1).expect("page")).collect();
        assert!(pool.alloc(1).is_none());
        assert_eq!(pool.free(), 0);
        drop(small);
        let all = pool.alloc(MAX_SLICE).expect("merged");
        assert_eq!(all.as_ref().as_ptr().addr() % PAGE, 0);
        assert!(pool.alloc(MAX_SLICE + 1).is_none() && pool.alloc(0).is_none());
    }

    #[test]
    fn small_slices_keep_whole_blocks_free() {
        let pool = BufPool::new(2 * MAX_SLICE).expect("pool");
        let _a = pool.alloc(PAGE).expect("a");
        let _b = pool.alloc(65536).expect("b");
        assert!(pool.alloc(MAX_SLICE).is_some());
    }

    #[test]
    fn the_last_clone_on_another_thread_frees() {
        let pool = BufPool::new(MAX_SLICE).expect("pool");
        let mut buf = pool.alloc(MAX_SLICE).expect("buf");
        buf.as_mut().fill(7);
        let shared = buf.freeze();
        let there = shared.slice(10, 20);
        let shared = shared.try_into_mut().expect_err("two users");
        drop(shared);
        assert!(pool.alloc(1).is_none());
        std::thread::spawn(move || assert_eq!(there.as_ref(), [7; 20]))
            .join()
            .expect("thread");
        assert!(pool.alloc(MAX_SLICE).is_some());
    }

    #[test]
    fn splits_are_disjoint_and_join_again() {
        let pool = BufPool::new(MAX_SLICE).expect("pool");
        let mut tail = pool.alloc(8192).expect("buf");
        let mut head = tail.split_to(4096);
        head.as_mut().fill(1);
        tail.as_mut().fill(2);
        let (tail, head) = tail.join(head).expect_err("wrong order");
        let whole = head.join(tail).expect("neighbours").freeze();
        assert_eq!((whole.as_ref()[4095], whole.as_ref()[4096]), (1, 2));
        assert!(whole.try_into_mut().is_ok());
        assert_eq!(pool.free(), MAX_SLICE);
    }

    #[test]
    fn a_part_grows_to_its_slice_again_when_it_is_alone() {
        let pool = BufPool::new(2 * MAX_SLICE).expect("pool");
        let _other = pool.alloc(PAGE).expect("other");
        let mut tail = pool.alloc(4 * PAGE).expect("buf");
        let mut head = tail.split_to(512);
        head.as_mut().fill(3);
        let head = head.regrow().expect_err("the tail is held");
        assert_eq!(head.len(), 512);
        drop(tail);
        let shared = head.freeze();
        let whole = shared.try_into_mut().expect("alone").regrow();
        let whole = whole.expect("alone");
        assert_eq!((whole.len(), whole.as_ref()[511]), (4 * PAGE, 3));
        let mut own = BufMut::standalone(5000).expect("memory");
        assert_eq!(own.split_to(8).regrow().expect_err("two").len(), 8);
        assert_eq!(own.regrow().expect("alone").len(), 2 * PAGE - 8);
    }

    #[test]
    fn standalone_memory_is_zeroed_and_outlives_no_pool() {
        let buf = BufMut::standalone(5000).expect("memory").freeze();
        assert!(buf.as_ref().iter().all(|&byte| byte == 0));
        assert_eq!(buf.clone().len(), 5000);
    }
}
