//! What a block device *is* in this project: the narrow waist.
//!
//! Front ends (ublk, NBD) and the feed's sink speak these types towards a volume; the volume
//! engine speaks them towards plexes. The crates on either side know this crate and not each
//! other; `tools` alone wires them together.
//!
//! The contract of a device:
//!
//! * **Units** are bytes in [`ByteRange`]; offsets and lengths are multiples of the device's
//!   logical block size ([`Limits::logical_block`]).
//! * **Completion**: every [`Request`] carries a [`Ticket`] that is completed exactly once.
//! * **Payload** is named, not held: a [`PayloadId`] stands for bytes that some thread keeps
//!   (pinned memory, a slot of a ring's registered-buffer table, bytes waiting in a socket).
//! * **Flush**: when a flush completes, every write *completed before the flush was submitted* is
//!   durable. A write with [`Flags::FUA`] is durable when it completes.
//! * **Discard** makes content undefined but stable; **write-zeroes** makes it zero, and keeps the
//!   space allocated when [`Flags::NO_UNMAP`] is set.
//! * **Order**: overlapping writes in flight together may land in either order, but in the *same*
//!   order on every plex.
#![forbid(unsafe_code)]

mod error;
mod limits;
mod mutant;
mod request;
mod units;

pub use error::{IoError, IoErrorKind};
pub use limits::Limits;
pub use mutant::mutant;
#[cfg(feature = "mutants")]
pub use mutant::set_mutant;
pub use request::{Flags, Op, Origin, Payload, PayloadId, Request, Ticket};
pub use units::ByteRange;
