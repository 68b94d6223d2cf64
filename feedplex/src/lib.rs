//! feedplex
#![forbid(unsafe_code)]

pub mod counters;
pub mod device;
pub mod identity;
pub mod streams;
pub mod transport;
pub mod wire;
