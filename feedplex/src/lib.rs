//! The feed: a plex whose other end is a socket.
//!
//! This crate holds what a feed says and what it decides, and moves its bytes.
//!
//! * [`wire`]: bytes on the network. Decoders are total.
//! * [`generation`]: who may feed whom, and how much has to flow.
//! * [`access`]: what a peer may do with which volume.
//! * [`session`]: the life of one control connection, as a state machine without I/O.
//! * [`identity`]: who a node is.
//! * [`transport`]: connections between peers that pinned each other.
//! * [`streams`]: the threads that move frames between sockets and disks.
//! * [`device`]: what those ask of the volume behind them.
//! * [`counters`]: what they moved, and who touched it.
#![forbid(unsafe_code)]

pub mod access;
pub mod counters;
pub mod device;
pub mod generation;
pub mod identity;
pub mod session;
pub mod streams;
pub mod transport;
pub mod wire;
