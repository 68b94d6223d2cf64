//! The volume engine: the data path of one active volume, without I/O.
//!
//! Requests and completions go in, [`Action`]s come out; whoever drives it performs them.

mod api;
mod layout;

pub use api::*;
pub use layout::*;
