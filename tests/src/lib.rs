//! What the tests share: a simulator of whole nodes.
#![forbid(unsafe_code)]

pub mod sim;
