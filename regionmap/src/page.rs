//! One page of a region map: the bits that fit into one log block.

/// Regions per page: the bits of one log block.
pub const PAGE_REGIONS: u64 = 32256;

/// 64-bit words per page.
pub const PAGE_WORDS: usize = (PAGE_REGIONS / 64) as usize;

/// The bits of a page; bit `n` is bit `n % 64` of word `n / 64`.
pub type PageBits = [u64; PAGE_WORDS];

/// A page in memory. `Full` means: every region of the page that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Page {
    Zero,
    Full,
    Bits { ones: u32, words: Box<PageBits> },
}

/// Calls `f(word index, mask)` for the words that cover bits `[first, end)`.
pub(crate) fn for_words(first: u64, end: u64, mut f: impl FnMut(usize, u64)) {
    let mut at = first;
    while at < end {
        let word = at / 64;
        let low = at % 64;
        let high = (end - word * 64).min(64);
        let mask = if high == 64 {
            u64::MAX << low
        } else {
            (u64::MAX << low) & ((1 << high) - 1)
        };
        f(word as usize, mask);
        at = word * 64 + high;
    }
}

/// A page's worth of bits with the first `len` set.
pub(crate) fn ones(len: u64) -> Box<PageBits> {
    let mut words = Box::new([0; PAGE_WORDS]);
    for_words(0, len, |i, mask| words[i] = mask);
    words
}

/// The first bit in `[first, end)` that equals `value`.
pub(crate) fn find(words: &PageBits, first: u64, end: u64, value: bool) -> Option<u64> {
    let mut at = first;
    while at < end {
        let word = words[(at / 64) as usize];
        let word = if value { word } else { !word } & (u64::MAX << (at % 64));
        let start = at / 64 * 64;
        if word != 0 {
            return Some(start + u64::from(word.trailing_zeros())).filter(|bit| *bit < end);
        }
        at = start + 64;
    }
    None
}
