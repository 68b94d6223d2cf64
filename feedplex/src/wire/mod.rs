//! What goes over the wire, as bytes: `docs/formats-feed.md` is the reference.
//!
//! A connection starts with a [`preamble`]. On a control connection [`control`] messages follow,
//! their bodies written by [`codec`]; on a data stream, [`frame`]s. Everything is in network byte
//! order, every decoder is total: foreign bytes give an error, never a panic and never more memory
//! than the documented limits.

pub mod codec;
pub mod control;
pub mod frame;
pub mod preamble;
