//! A safe io_uring: typed user data, owned buffers, fixed files, a registered pool.
//!
//! The contract that makes it safe:
//!
//! * Every operation given to [`Ring::push`] *owns* its buffers and a reference to its file from
//!   submission until its completion is handed out by [`Ring::completions`]; the caller gets both
//!   back there.
//! * Dropping a [`Ring`] cancels what is in flight and waits for the kernel to let go of every
//!   buffer; where it cannot wait, it leaks them rather than free memory that the kernel may write.
//! * Memory the kernel writes is [`BufMut`] (exclusive), memory it reads is [`BufSlice`] (shared,
//!   counted). Both come from a [`BufPool`] and go back to it when the last user drops them, on
//!   whatever thread that is.
//!
//! `unsafe` lives in `ring.rs`, `pool.rs` and `sys` only.
#![deny(unsafe_code)]

mod error;
mod op;
#[allow(unsafe_code)]
mod pool;
#[allow(unsafe_code)]
mod ring;
#[allow(unsafe_code)]
pub mod sys;

pub use error::RingError;
pub use op::{Completed, FallocateMode, Handle, KernelSlot, Op, OpToken, SendPart, Source, Target};
pub use pool::{BufMut, BufPool, BufSlice, MAX_SLICE, PAGE};
pub use ring::{Ring, RingConfig};
