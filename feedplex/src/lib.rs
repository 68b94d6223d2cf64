//! The feed: a plex whose other end is a socket.
//!
//! This crate holds what a feed says and what it decides; it owns no volume and opens no disk.
//!
//! * [`wire`]: bytes on the network. Decoders are total.
//! * [`generation`]: who may feed whom, and how much has to flow.
//! * [`access`]: what a peer may do with which volume.
//! * [`session`]: the life of one control connection, as a state machine without I/O.

pub mod access;
pub mod generation;
pub mod session;
pub mod wire;
