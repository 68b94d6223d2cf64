//! The words between a connection and its driver.

use crate::wire::{DecodeError, Header, WireError};
use blockio::{ByteRange, Flags, Op};
use thiserror::Error;

/// Names a piece of a request, and its buffer. Not used twice on a connection (until 2³² others
/// have been).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(u64);

impl Token {
    pub(super) fn new(serial: u32, key: usize) -> Self {
        let key = u32::try_from(key).expect("pieces are bounded");
        Self(u64::from(serial) << 32 | u64::from(key))
    }

    pub(super) fn key(self) -> usize {
        (self.0 & u64::from(u32::MAX)) as usize
    }

    /// As a number, unique on its connection.
    pub fn get(self) -> u64 {
        self.0
    }
}

/// What the driver is to do, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Take the next `len` bytes from the client into a buffer, then call
    /// [`super::Connection::on_payload`].
    Receive {
        /// Names the buffer.
        token: Token,
        /// Bytes.
        len: u32,
    },
    /// Give this to the device, then call [`super::Connection::on_complete`]. A read's buffer, of
    /// `range.len()` bytes, begins here; a write's is the one received under the token.
    Submit {
        /// Comes back with the completion.
        token: Token,
        /// What.
        op: Op,
        /// Where; empty for a flush.
        range: ByteRange,
        /// How.
        flags: Flags,
    },
    /// Find out the state of a range in each context that was agreed on, then call
    /// [`super::Connection::on_extents`].
    QueryExtents {
        /// Comes back with the answer.
        token: Token,
        /// Where.
        range: ByteRange,
        /// More than the first extent of each context is not needed.
        one: bool,
    },
    /// The buffer is not needed any more.
    Release {
        /// Names the buffer.
        token: Token,
    },
    /// Send what was taken from [`super::Connection::next_send`], then close the socket. What has been
    /// submitted is still to be completed, and its buffers released, until
    /// [`super::Connection::is_idle`]; nothing else follows.
    Close {
        /// Why.
        reason: CloseReason,
    },
}

/// What is to be sent, in order, without anything between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outgoing {
    /// These bytes.
    Header(Header),
    /// The `len` bytes of a read's buffer; then call [`super::Connection::on_payload_sent`].
    Payload {
        /// Names the buffer.
        token: Token,
        /// Bytes.
        len: u32,
    },
}

/// What the connection is waiting for from the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wants {
    /// Bytes for [`super::Connection::on_bytes`].
    Bytes,
    /// The payload of the last [`Action::Receive`].
    Payload,
    /// Nothing until some request gets on: the client is held back.
    Nothing,
    /// Nothing any more.
    End,
}

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CloseReason {
    /// The client said that it is done.
    #[error("the client disconnected")]
    Disconnect,
    /// The client hung up between two requests, without a word.
    #[error("the client hung up")]
    HungUp,
    /// The client hung up within a request, or the socket failed.
    #[error("the connection broke")]
    Broken,
    /// What came is no request.
    #[error("not a request")]
    Protocol(#[source] DecodeError),
    /// A write too long to be drained.
    #[error("a write of {0} bytes")]
    PayloadTooLong(u32),
    /// A read failed after the first bytes of its simple reply had been sent.
    #[error("a read failed after its reply had begun ({0:?})")]
    ReadFailed(WireError),
    /// [`super::Connection::shutdown`].
    #[error("the export is shut down")]
    Shutdown,
}
