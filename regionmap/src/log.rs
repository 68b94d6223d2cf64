//! The volume's log on disk: the dirty-region log and the maps of plexes and feeds.
//!
//! ```text
//! 0          4096                                   4096 + 131072
//! | header   | page 0: slot 0 | slot 1 | … slot 15  | page 1: slot 0 | …
//!                      |A |B |  A and B: 4 KiB each, written in turn
//! ```
//!
//! A page update goes to the block that does not hold the newest valid version, so an update that
//! is torn leaves the version before. Pages come first, slots within: a volume that grows appends
//! pages and moves none. Byte layouts are in `docs/formats.md`.

use crate::page::{PAGE_REGIONS, PAGE_WORDS, PageBits, ones};
use thiserror::Error;
use uuid::Uuid;

/// Bytes per block, the unit of every update.
pub const BLOCK: u64 = 4096;

/// Maps in a log.
pub const SLOTS: u32 = 16;

/// The slot of the dirty-region log; the others belong to plexes and feeds.
pub const DRL_SLOT: u32 = 0;

/// Bytes that one page of all slots takes.
pub const PAGE_STRIDE: u64 = SLOTS as u64 * 2 * BLOCK;

const VERSION: u32 = 1;
const HEADER_MAGIC: [u8; 8] = *b"VMGRLOG\0";
const PAGE_MAGIC: [u8; 8] = *b"VMGRLPG\0";
/// The header's checksum covers one 512-byte sector, so the header is never torn.
const HEADER_SUM: usize = 508;
const PAGE_HEADER: usize = 64;
const PAGE_SUM: usize = 60;

/// What a log belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// The volume.
    pub volume: Uuid,
    /// Its size in bytes.
    pub size: u64,
    /// Bytes per region, a power of two.
    pub region_size: u64,
}

/// Why a log's header is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HeaderError {
    /// Fewer bytes than a block.
    #[error("log is shorter than its header")]
    Short,
    /// Not a log, or damaged.
    #[error("no valid log header")]
    Damaged,
    /// Written by a newer program.
    #[error("log format version {0} is not supported")]
    Version(u32),
    /// Has another number of slots, or a region size that is no power of two.
    #[error("log header has impossible values")]
    Values,
}

/// What a pair of blocks says about a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PageState {
    /// Never written: clean.
    Unwritten,
    /// No version is intact: every region of the page counts as dirty.
    Lost,
    /// The newest intact version.
    Valid {
        /// Its number; grows with each update.
        sequence: u64,
        /// 0 for block A, 1 for block B.
        block: u8,
        /// The regions.
        bits: Box<PageBits>,
    },
}

enum Block {
    Zero,
    Damaged,
    Valid(u64, Box<PageBits>),
}

fn get<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    if let Some(from) = bytes.get(at..at + N) {
        out.copy_from_slice(from);
    }
    out
}

impl Geometry {
    /// Number of pages per slot.
    pub fn pages(&self) -> u64 {
        self.size.div_ceil(self.region_size).div_ceil(PAGE_REGIONS)
    }

    /// Bytes that the log needs: `4096 + 16 * pages * 2 * 4096`, or `None` where that overflows.
    pub fn log_bytes(&self) -> Option<u64> {
        self.pages().checked_mul(PAGE_STRIDE)?.checked_add(BLOCK)
    }

    /// Offset in bytes from the log's start of block A (`block` 0) or B (1) of a page.
    pub fn page_offset(&self, slot: u32, page: u64, block: u8) -> u64 {
        BLOCK + page * PAGE_STRIDE + (u64::from(slot) * 2 + u64::from(block & 1)) * BLOCK
    }

    /// The header block.
    pub fn encode_header(&self) -> Vec<u8> {
        let mut out = vec![0; BLOCK as usize];
        out[..8].copy_from_slice(&HEADER_MAGIC);
        out[8..12].copy_from_slice(&VERSION.to_le_bytes());
        out[12..16].copy_from_slice(&SLOTS.to_le_bytes());
        out[16..32].copy_from_slice(self.volume.as_bytes());
        out[32..40].copy_from_slice(&self.size.to_le_bytes());
        out[40..48].copy_from_slice(&self.region_size.to_le_bytes());
        let sum = crc32c::crc32c(&out[..HEADER_SUM]);
        out[HEADER_SUM..HEADER_SUM + 4].copy_from_slice(&sum.to_le_bytes());
        out
    }

    /// Reads a header block.
    pub fn decode_header(block: &[u8]) -> Result<Self, HeaderError> {
        if block.len() < BLOCK as usize {
            return Err(HeaderError::Short);
        }
        let sum = crc32c::crc32c(&block[..HEADER_SUM]);
        if get(block, 0) != HEADER_MAGIC || u32::from_le_bytes(get(block, HEADER_SUM)) != sum {
            return Err(HeaderError::Damaged);
        }
        let version = u32::from_le_bytes(get(block, 8));
        if version != VERSION {
            return Err(HeaderError::Version(version));
        }
        let geometry = Self {
            volume: Uuid::from_bytes(get(block, 16)),
            size: u64::from_le_bytes(get(block, 32)),
            region_size: u64::from_le_bytes(get(block, 40)),
        };
        let slots = u32::from_le_bytes(get(block, 12));
        if slots != SLOTS
            || !geometry.region_size.is_power_of_two()
            || geometry.log_bytes().is_none()
        {
            return Err(HeaderError::Values);
        }
        Ok(geometry)
    }

    /// One version of a page, as a block.
    pub fn encode_page(&self, slot: u32, page: u64, sequence: u64, bits: &PageBits) -> Vec<u8> {
        let mut out = vec![0; BLOCK as usize];
        out[..8].copy_from_slice(&PAGE_MAGIC);
        out[8..12].copy_from_slice(&VERSION.to_le_bytes());
        out[12..16].copy_from_slice(&slot.to_le_bytes());
        out[16..24].copy_from_slice(&page.to_le_bytes());
        out[24..32].copy_from_slice(&sequence.to_le_bytes());
        out[32..48].copy_from_slice(self.volume.as_bytes());
        for (chunk, word) in out[PAGE_HEADER..].chunks_exact_mut(8).zip(bits) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        let sum = crc32c::crc32c(&out);
        out[PAGE_SUM..PAGE_SUM + 4].copy_from_slice(&sum.to_le_bytes());
        out
    }

    fn decode_block(&self, slot: u32, page: u64, block: &[u8]) -> Block {
        if block.len() != BLOCK as usize {
            return Block::Damaged;
        }
        if block.iter().all(|b| *b == 0) {
            return Block::Zero;
        }
        let sum = u32::from_le_bytes(get(block, PAGE_SUM));
        let crc = crc32c::crc32c(&block[..PAGE_SUM]);
        let crc = crc32c::crc32c_append(crc, &[0; 4]);
        let crc = crc32c::crc32c_append(crc, &block[PAGE_HEADER..]);
        let fits = get(block, 0) == PAGE_MAGIC
            && u32::from_le_bytes(get(block, 8)) == VERSION
            && u32::from_le_bytes(get(block, 12)) == slot
            && u64::from_le_bytes(get(block, 16)) == page
            && get(block, 32) == *self.volume.as_bytes();
        if crc != sum || !fits {
            return Block::Damaged;
        }
        let mut bits = Box::new([0; PAGE_WORDS]);
        for (word, chunk) in bits.iter_mut().zip(block[PAGE_HEADER..].chunks_exact(8)) {
            *word = u64::from_le_bytes(get(chunk, 0));
        }
        Block::Valid(u64::from_le_bytes(get(block, 24)), bits)
    }

    /// What the two blocks of a page say. A block of the wrong length counts as damaged; a damaged
    /// block beside one that was never written counts as lost, since it may have been valid once.
    pub fn decode_pair(&self, slot: u32, page: u64, a: &[u8], b: &[u8]) -> PageState {
        let a = self.decode_block(slot, page, a);
        let b = self.decode_block(slot, page, b);
        let valid = |block, sequence, bits| PageState::Valid {
            sequence,
            block,
            bits,
        };
        match (a, b) {
            (Block::Valid(x, bits), Block::Valid(y, _)) if x > y => valid(0, x, bits),
            (_, Block::Valid(y, bits)) => valid(1, y, bits),
            (Block::Valid(x, bits), _) => valid(0, x, bits),
            (Block::Zero, Block::Zero) => PageState::Unwritten,
            _ => PageState::Lost,
        }
    }

    /// What a whole image of a log says about a page; bytes that are missing count as damaged.
    pub fn page_in_image(&self, image: &[u8], slot: u32, page: u64) -> PageState {
        let block = |block| {
            let at = usize::try_from(self.page_offset(slot, page, block)).ok()?;
            image.get(at..at.checked_add(BLOCK as usize)?)
        };
        self.decode_pair(slot, page, block(0).unwrap_or(&[]), block(1).unwrap_or(&[]))
    }

    /// The pages of all slots as they are in a fresh log: clean, except all dirty in
    /// `dirty_slots`. Goes to `page_offset(0, page, 0)`.
    fn fresh_page(&self, page: u64, dirty_slots: &[u32]) -> Vec<u8> {
        let mut out = vec![0; PAGE_STRIDE as usize];
        let regions = self.size.div_ceil(self.region_size);
        let len = regions.saturating_sub(page * PAGE_REGIONS);
        for &slot in dirty_slots.iter().filter(|s| **s < SLOTS) {
            let at = (u64::from(slot) * 2 * BLOCK) as usize;
            let block = self.encode_page(slot, page, 1, &ones(len.min(PAGE_REGIONS)));
            out[at..at + BLOCK as usize].copy_from_slice(&block);
        }
        out
    }

    /// The writes that make a log of an allocated area, in order, as (offset in bytes from the
    /// area's start, bytes). All must be durable before the log is used; the header comes last, so
    /// an area that is not finished is not taken for a log. The maps in `dirty_slots` start all
    /// dirty (a plex or feed that has nothing yet), the others clean.
    pub fn format<'a>(
        &'a self,
        dirty_slots: &'a [u32],
    ) -> impl Iterator<Item = (u64, Vec<u8>)> + 'a {
        (0..self.pages())
            .map(|page| {
                (
                    self.page_offset(0, page, 0),
                    self.fresh_page(page, dirty_slots),
                )
            })
            .chain(std::iter::once_with(|| (0, self.encode_header())))
    }

    /// The writes that extend a log to a volume that grew to `size` bytes, in order, as for
    /// [`Geometry::format`]. Before the engine is told of the new size they must be durable on
    /// every copy.
    pub fn grow(&self, size: u64) -> impl Iterator<Item = (u64, Vec<u8>)> + use<> {
        let new = Self { size, ..*self };
        (self.pages()..new.pages())
            .map(move |page| (new.page_offset(0, page, 0), new.fresh_page(page, &[])))
            .chain(std::iter::once_with(move || (0, new.encode_header())))
    }
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
