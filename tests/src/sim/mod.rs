//! Whole nodes in a hostile, deterministic world.
//!
//! The product's own state machines run here: `volmgr`'s engine, plans and metadata store,
//! `regionmap`'s log, `feedplex`'s sessions, acknowledgement books and control messages, and the
//! daemon's record keeping (`tools/src/daemon/feeds/record.rs`, taken in as it is). Disks, network,
//! clients, admins and the clock are simulated. What the daemon does between those machines is
//! tokio code that cannot be driven step by step; [`boot`], [`lane`], [`session`], [`stream`] and
//! [`admin`] model it thinly, in the daemon's order.
//!
//! A run is a seed. Each step of a run has a chance of its own ([`rng::Rng::of_step`]), so that a
//! run that fails can be cut down to the steps that matter ([`shrink`]).
//!
//! | file | subject |
//! | --- | --- |
//! | `world` | the nodes, and what happens next |
//! | `setup` | disks, groups and volumes of a new world |
//! | `boot` | a node starts, crashes, commits metadata |
//! | `lane` | the engine's actions, clients |
//! | `session`, `stream` | what drives a feed's session, and its data streams |
//! | `target`, `maps` | the volume for a handshake; maps between wire and engine |
//! | `ending` | how sessions end |
//! | `net` | connections: delayed, cut, half open |
//! | `admin` | attach, detach, swap, plexes |
//! | `faults` | what breaks |
//! | `scrub` | blocks that rot, plexes compared and made equal |
//! | `verify` | what rot makes of a feed, and `feedverify --repair` |
//! | `worn` | plexes that are retired, and writes that fail on what has rotted |
//! | `storm` | much of that at once, aimed at what is under way |
//! | `check` | claims of consistency and of who may overwrite what |
//! | `copied` | what counts as copied is at the sink |
//! | `history`, `disk` | the model of a volume's content; a disk |
//! | `rest` | everything heals: all copies must be equal |
//! | `shrink` | from a failing run to a short one |

pub mod admin;
pub mod boot;
pub mod check;
pub mod copied;
pub mod disk;
pub mod ending;
pub mod faults;
pub mod history;
pub mod lane;
pub mod maps;
pub mod net;
pub mod rest;
pub mod rng;
pub mod scrub;
pub mod session;
pub mod setup;
pub mod shrink;
pub mod storm;
pub mod stream;
pub mod target;
pub mod verify;
pub mod world;
pub mod worn;

/// Between metadata and sessions: the daemon's own.
#[path = "../../../tools/src/daemon/feeds/record.rs"]
pub mod record;

pub use shrink::{Outcome, STEPS, run, shrink};
pub use storm::is_storm;
pub use world::{Totals, World};
