//! The feed: a plex whose other end is a socket.
//!
//! * [`wire`]: bytes on the network. Decoders are total.
//! * [`identity`]: who a node is.
//! * [`transport`]: connections between peers that pinned each other.
//! * [`streams`]: the threads that move frames between sockets and disks.
//! * [`device`]: what those ask of the volume behind them.
//! * [`counters`]: what they moved, and who touched it.
#![forbid(unsafe_code)]

pub mod counters;
pub mod device;
pub mod identity;
pub mod streams;
pub mod transport;
pub mod wire;
