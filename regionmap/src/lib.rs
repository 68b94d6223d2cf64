//! Maps of dirty regions: paged in memory ([`RegionMap`]), in checksummed blocks on disk ([`log`]).
#![forbid(unsafe_code)]

mod intervals;
pub mod log;
mod map;
mod page;

pub use map::RegionMap;
pub use page::{PAGE_REGIONS, PAGE_WORDS, PageBits};
