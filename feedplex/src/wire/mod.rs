//! What goes over the wire, as bytes: `docs/formats-feed.md` is the reference.

pub mod frame;
