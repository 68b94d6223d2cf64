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
//!
//! # Examples
//!
//! What a peer may do here:
//!
//! ```
//! use feedplex::access::{Right, Rules};
//!
//! let list = Rules::parse(["all:vgb/*", "!all:vgb/secret*"])?;
//! assert!(list.allows(Right::Feed, "vgb/web"));
//! assert!(!list.allows(Right::Feed, "vgb/secret-plans"));
//! assert!(!list.allows(Right::Read, "vga/web"));
//! # Ok::<(), feedplex::access::RuleError>(())
//! ```
//!
//! A write as it stands on a data stream, before its payload:
//!
//! ```
//! use feedplex::wire::frame::{Command, FrameFlags, FrameHeader};
//!
//! let header = FrameHeader {
//!     command: Command::Write,
//!     flags: FrameFlags::empty(),
//!     sequence: 1,
//!     offset: 65536,
//!     length: 4096,
//!     aux: 0,
//! };
//! let mut bytes = header.encode();
//! assert_eq!(FrameHeader::decode(&bytes)?, header);
//! bytes[20] ^= 1;
//! assert!(FrameHeader::decode(&bytes).is_err(), "a damaged header is never believed");
//! # Ok::<(), feedplex::wire::frame::FrameError>(())
//! ```
//!
//! Who a node is, and by what its peers know it:
//!
//! ```
//! use feedplex::identity::Identity;
//!
//! let state = tempfile::tempdir()?;
//! let made = Identity::load_or_create(state.path())?;
//! let again = Identity::load_or_create(state.path())?;
//! assert_eq!(made.fingerprint(), again.fingerprint());
//! println!("volmgr peeradd NAME ADDR:PORT --fingerprint {}", made.fingerprint());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
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
