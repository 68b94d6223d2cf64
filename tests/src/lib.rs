//! What the tests share: a simulator of whole nodes, and an exhaustive model of feeds.
#![forbid(unsafe_code)]

pub mod model;
pub mod sim;
