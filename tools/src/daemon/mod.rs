//! The control plane of `volmgrd`: verbs, groups, peers, activation. Tokio; the data path is the
//! lane's.
//!
//! Everything hangs on one [`Node`], shared as `Arc<Node>`. What other modules (the feeds above
//! all) need of it:
//!
//! | want | call |
//! | --- | --- |
//! | a volume and its group as of the last commit | [`Node::volume`], [`groups::Groups::view`] |
//! | change a group | [`Node::commit`]: a closure from the old [`Group`] to the new one; returns when it is durable |
//! | keep verbs out while doing several steps | [`Node::verb_lock`] |
//! | the data path of an active volume | [`Node::lane`] |
//! | after a commit that changed an active volume | [`Node::reconfigure`] |
//! | peers | [`Node::peers`] (`get`, `by_fingerprint`, `all`) |
//! | this node's name, UUID, location | [`Node::identity`] |
//! | tell the admin | [`Node::event`] |
//! | a task that ends with the daemon | [`Node::spawn`], [`Node::stop_signal`] |
//! | be called by the rest | implement [`FeedService`], register with [`Node::set_feeds`] |
//!
//! Locks, in the order in which they may be taken: the verb lock (async, for a whole verb), then a
//! group's own lock inside `commit` (blocking, for one commit). A lane's request to commit a plex
//! state takes only the second, so a verb may wait for a lane while it holds the first.
//!
//! [`Group`]: volmgr::model::Group

pub mod active;
pub mod config;
pub mod disks;
pub mod error;
pub mod events;
pub mod feed_hook;
pub mod feeds;
pub mod frontend;
pub mod groups;
pub mod hooks;
mod logging;
pub mod logs;
mod metrics;
mod nbd;
pub mod node;
pub mod peers;
mod process;
pub mod rows;
mod sample;
pub mod server;
pub mod settings;
mod socket;
mod spares;
mod start;
pub mod state;
mod sys;
mod tcp;
pub mod ublk;
pub mod verbs;

pub use config::{Config, Options};
pub use error::StartError;
pub use feed_hook::{BoxFuture, FeedService};
pub use node::{Node, StopSignal};
pub use start::run;
pub use ublk::print_ublk_owner;
