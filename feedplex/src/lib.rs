//! The feed: a plex whose other end is a socket.
//!
//! This crate holds what a feed says and what it decides; it owns no volume and opens no disk.
//!
//! * [`wire`]: bytes on the network. Decoders are total.

pub mod wire;
