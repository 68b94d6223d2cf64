//! Maps of dirty regions: hierarchical in memory, in checksummed blocks on disk.
#![forbid(unsafe_code)]
