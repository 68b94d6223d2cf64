//! A request, and the proof that it is completed exactly once.

use crate::ByteRange;
use bitflags::bitflags;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// Fill the payload from the range.
    Read,
    /// Store the payload in the range.
    Write,
    /// Make every completed write durable; the range is empty.
    Flush,
    /// The content of the range is no longer needed.
    Discard,
    /// The range reads as zeroes from now on.
    WriteZeroes,
    /// The range will be read soon; may do nothing.
    Prefetch,
}

impl Op {
    /// Does the operation change what a later read returns?
    pub fn modifies(self) -> bool {
        matches!(self, Op::Write | Op::Discard | Op::WriteZeroes)
    }
}

bitflags! {
    /// Modifiers of an operation.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
    pub struct Flags: u32 {
        /// Complete only when durable.
        const FUA = 1;
        /// Write-zeroes must leave the space allocated.
        const NO_UNMAP = 1 << 1;
        /// Write-zeroes must fail with `Unsupported` where it would have to write the zeroes out.
        const FAST_ZERO = 1 << 2;
        /// The payload can be moved only once (bytes in a socket or pipe): a read that fails is
        /// not retried elsewhere.
        const DELEGATED = 1 << 3;
    }
}

/// Names the bytes of a request; whoever made the name knows where they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PayloadId(pub u64);

/// A place in a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Payload {
    /// The payload.
    pub id: PayloadId,
    /// Bytes of it that come before.
    pub skip: u64,
}

/// Who asks. A feed volume that is being fed refuses writes from anyone but its feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// A front end, for its client.
    Client,
    /// The feed that fills this volume.
    Feed,
    /// The volume manager's own work (resync, verify).
    Internal,
}

/// The duty to complete a request: consumed by [`Ticket::complete`], dropping it is a bug.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct Ticket {
    token: u64,
    open: bool,
}

impl Ticket {
    /// A ticket; `token` means something to the issuer only.
    pub fn new(token: u64) -> Self {
        Self { token, open: true }
    }

    /// What the issuer called it, for looking only.
    pub fn token(&self) -> u64 {
        self.token
    }

    /// Discharges the duty and returns the token.
    pub fn complete(mut self) -> u64 {
        self.open = false;
        self.token
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.open && !std::thread::panicking() {
            panic!("request {} was dropped without being completed", self.token);
        }
    }
}

/// One request to a device.
#[derive(Debug)]
pub struct Request {
    /// Completed exactly once.
    pub ticket: Ticket,
    /// What to do.
    pub op: Op,
    /// Where; empty for [`Op::Flush`].
    pub range: ByteRange,
    /// How.
    pub flags: Flags,
    /// The bytes, for [`Op::Read`] and [`Op::Write`]: exactly `range.len()` of them.
    pub payload: Option<PayloadId>,
    /// Who asks.
    pub origin: Origin,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_completed_ticket_returns_its_token() {
        assert_eq!(Ticket::new(7).complete(), 7);
    }

    #[test]
    #[should_panic(expected = "request 7 was dropped")]
    fn a_dropped_ticket_panics() {
        drop(Ticket::new(7));
    }
}
