//! nbd-export
