//! What `volmgr` and `volmgrd` say to each other: one JSON object a line over a unix socket.
//!
//! The client sends one [`Request`]; the daemon answers with any number of [`Reply`] lines, the
//! last of which is [`Reply::Done`] or [`Reply::Failed`]. Closing the socket stops the waiting, not
//! the work.

mod command;
mod reply;
mod sample;
mod tree;

/// Longest request, in bytes, with the end of its line. Who sends more is not a client.
pub const REQUEST_LINE_MAX: usize = 1 << 20;

/// Longest reply line, in bytes. Longer listings are sent in several [`Reply::Report`]s.
pub const REPLY_LINE_MAX: usize = 64 << 20;

pub use command::*;
pub use reply::*;
pub use sample::*;
pub use tree::*;
