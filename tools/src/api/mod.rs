//! What `volmgr` and `volmgrd` say to each other: one JSON object a line over a unix socket.
//!
//! The client sends one [`Request`]; the daemon answers with any number of [`Reply`] lines, the
//! last of which is [`Reply::Done`] or [`Reply::Failed`]. Closing the socket stops the waiting, not
//! the work.

mod command;
mod reply;

pub use command::*;
pub use reply::*;
