//! The transmission phase of one connection.
//!
//! ```text
//!  socket --headers--> on_bytes --+                      +--> next_action: Receive, Submit, …
//!         --payload--> on_payload-+--> requests, pieces -+
//!  device -----------> on_complete+                      +--> next_send: Header, Payload --> socket
//! ```
//!
//! A *request* is the client's; it is cut into *pieces* that the driver can buffer, and answered
//! when they are done. A piece is named by a [`Token`], and so is its buffer:
//!
//! * a write's buffer begins with [`Action::Receive`], and ends with the piece's completion;
//! * a read's begins with [`Action::Submit`], and ends when [`Outgoing::Payload`] has been sent;
//! * either ends early with [`Action::Release`].
//!
//! The way in:
//!
//! ```text
//!              +---------------- all received --------------+
//!              v                                            |
//!   Header --WRITE--> AwaitRoom --room--> Payload --on_payload (more to come: AwaitRoom)
//!     |  ^                  | an earlier piece failed
//!     |  +------------------+-- Drain <--- refused WRITE
//!     +--DISC, shutdown--> Stopped
//! ```
//!
//! Bounds, all from [`ConnectionConfig`]: requests (until the last header of the answer is taken),
//! pieces, payload of reads and of writes. They are separate on purpose: writes never wait for the
//! client to take its answers, and a read that waits for room gets it from reads before it.

mod api;
mod check;
mod complete;
mod extents;
mod receive;
mod send;
#[cfg(test)]
mod tests;

pub use api::{Action, CloseReason, Outgoing, Token, Wants};
pub use extents::Extent;

use crate::wire::{Header, MAX_PAYLOAD, RequestHeader, WireError};
use crate::{ConnectionConfig, Negotiated};
use blockio::{ByteRange, Flags, Limits, Op};
use check::{Kind, Rules};
use slab::Slab;
use std::collections::VecDeque;

#[derive(Debug)]
struct Request {
    cookie: u64,
    kind: Kind,
    range: ByteRange,
    flags: Flags,
    /// Bytes of the range that have pieces.
    cut: u64,
    /// No more pieces will be made.
    all_cut: bool,
    /// Pieces submitted and not completed.
    in_flight: u32,
    /// The first error, and where.
    error: Option<(WireError, u64)>,
    simple_read: SimpleRead,
}

/// A read that is answered by a simple reply: one header, then all the data in order.
#[derive(Debug, Default)]
struct SimpleRead {
    /// Its pieces that are not sent yet, in order, and whether they have been completed.
    held: VecDeque<(Token, bool)>,
    queued: bool,
    started: bool,
    /// Answered with an error; what is in flight is awaited only to be released.
    abandoned: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Receiving,
    Submitted,
    /// A read's data, waiting for its turn to be sent.
    Done,
    Sending,
}

#[derive(Clone, Copy, Debug)]
struct Piece {
    token: Token,
    /// Means something as long as the stage is not `Sending`, or `Done` of a structured reply.
    request: usize,
    kind: Kind,
    range: ByteRange,
    stage: Stage,
}

#[derive(Clone, Copy, Debug)]
enum Receive {
    Header {
        bytes: [u8; RequestHeader::LEN],
        have: usize,
    },
    AwaitRoom {
        request: usize,
    },
    Payload {
        token: Token,
    },
    Drain {
        request: usize,
        left: u32,
    },
    Stopped,
}

const NEXT_HEADER: Receive = Receive::Header {
    bytes: [0; RequestHeader::LEN],
    have: 0,
};

#[derive(Debug)]
enum Reply {
    /// A header with its payload. `last`: nothing follows for its request.
    Ready {
        header: Header,
        payload: Option<(Token, u32)>,
        last: bool,
    },
    /// The simple reply of this read.
    SimpleRead(usize),
}

/// One connection in its transmission phase.
#[derive(Debug)]
pub struct Connection {
    config: ConnectionConfig,
    rules: Rules,
    /// The numbers of the contexts that block status is about.
    contexts: Vec<u32>,
    structured: bool,
    receive: Receive,
    requests: Slab<Request>,
    pieces: Slab<Piece>,
    serial: u32,
    /// Requests that are not all cut into pieces, writes excepted; first come, first served.
    pending: VecDeque<usize>,
    operations: usize,
    read_bytes: u64,
    write_bytes: u64,
    replies: VecDeque<Reply>,
    /// Of these, the ones with `last`.
    last_replies: usize,
    /// Payload whose header has been taken.
    half_sent: Option<(Token, u32)>,
    actions: VecDeque<Action>,
    closing: Option<CloseReason>,
    /// Closed without answering what was asked.
    dead: bool,
    close_told: bool,
}

impl Connection {
    /// A write that is refused may be this long, in bytes, and is drained; with a longer one the
    /// client loses its connection.
    pub const MAX_DRAIN: u32 = 2 * MAX_PAYLOAD;

    /// A connection that has just been negotiated.
    pub fn new(negotiated: &Negotiated, config: ConnectionConfig) -> Self {
        let config = config.clamped();
        Self {
            rules: Rules {
                limits: negotiated.export.limits,
                flags: negotiated.export.transmission_flags(negotiated.structured),
                block_status: !negotiated.contexts.is_empty(),
                max_chunk: config.max_chunk,
            },
            contexts: negotiated.contexts.iter().map(|c| c.id).collect(),
            config,
            structured: negotiated.structured,
            receive: NEXT_HEADER,
            requests: Slab::new(),
            pieces: Slab::new(),
            serial: 0,
            pending: VecDeque::new(),
            operations: 0,
            read_bytes: 0,
            write_bytes: 0,
            replies: VecDeque::new(),
            last_replies: 0,
            half_sent: None,
            actions: VecDeque::new(),
            closing: None,
            dead: false,
            close_told: false,
        }
    }

    /// What to take from the socket. Ask again after every other call.
    pub fn wants(&self) -> Wants {
        match self.receive {
            Receive::Stopped => Wants::End,
            Receive::Payload { .. } => Wants::Payload,
            Receive::AwaitRoom { .. } => Wants::Nothing,
            Receive::Header { .. } if !self.can_accept() => Wants::Nothing,
            Receive::Header { .. } | Receive::Drain { .. } => Wants::Bytes,
        }
    }

    /// Is there room for one more request?
    pub fn can_accept(&self) -> bool {
        self.requests.len() + self.last_replies < self.config.max_requests
    }

    /// Nothing is in flight and no buffer is held: the connection may be dropped.
    pub fn is_idle(&self) -> bool {
        self.pieces.is_empty() && self.requests.is_empty() && self.replies.is_empty()
    }

    /// Payload bytes held now, of reads and of writes: never more than the configured bounds.
    pub fn held_bytes(&self) -> (u64, u64) {
        (self.read_bytes, self.write_bytes)
    }

    /// The next thing to do.
    pub fn next_action(&mut self) -> Option<Action> {
        if let Some(action) = self.actions.pop_front() {
            return Some(action);
        }
        let reason = self.closing?;
        let quiet = matches!(self.receive, Receive::Stopped)
            && self.requests.is_empty()
            && self.replies.is_empty()
            && self.half_sent.is_none();
        if self.close_told || !(quiet || self.dead) {
            return None;
        }
        self.close_told = true;
        Some(Action::Close { reason })
    }

    /// The device has another size, or is now (not) read-only.
    pub fn set_limits(&mut self, limits: Limits) {
        self.rules.limits = limits;
    }

    fn new_piece(&mut self, request: usize, kind: Kind, range: ByteRange, stage: Stage) -> Token {
        let entry = self.pieces.vacant_entry();
        let token = Token::new(self.serial, entry.key());
        self.serial = self.serial.wrapping_add(1);
        entry.insert(Piece {
            token,
            request,
            kind,
            range,
            stage,
        });
        token
    }

    /// Submits pieces of pending requests as far as the bounds allow.
    fn pump(&mut self) {
        while let Some(&key) = self.pending.front() {
            if self.operations >= self.config.max_operations {
                return;
            }
            let request = &mut self.requests[key];
            let left = request.range.len() - request.cut;
            let len = left.min(match request.kind {
                Kind::Read | Kind::Write => self.config.max_chunk.into(),
                Kind::Trim | Kind::Zeroes | Kind::Cache => self.config.max_range_chunk.into(),
                Kind::Flush | Kind::BlockStatus { .. } => u64::MAX,
            });
            let is_read = request.kind == Kind::Read;
            if is_read && self.read_bytes + len > self.config.max_read_bytes {
                return;
            }
            let range = ByteRange::new(request.range.start() + request.cut, len);
            request.cut += len;
            request.in_flight += 1;
            request.all_cut = len == left;
            if request.all_cut {
                self.pending.pop_front();
            }
            let (kind, flags) = (request.kind, request.flags);
            self.operations += 1;
            let token = self.new_piece(key, kind, range, Stage::Submitted);
            if is_read {
                self.read_bytes += len;
                if !self.structured {
                    let held = &mut self.requests[key].simple_read.held;
                    held.push_back((token, false));
                }
            }
            let op = match kind {
                Kind::Read => Op::Read,
                Kind::Write => Op::Write,
                Kind::Flush => Op::Flush,
                Kind::Trim => Op::Discard,
                Kind::Zeroes => Op::WriteZeroes,
                Kind::Cache => Op::Prefetch,
                Kind::BlockStatus { one } => {
                    self.actions
                        .push_back(Action::QueryExtents { token, range, one });
                    continue;
                }
            };
            self.actions.push_back(Action::Submit {
                token,
                op,
                range,
                flags,
            });
        }
    }

    /// The client sends nothing more. Expected after it disconnected; otherwise it is gone.
    pub fn on_eof(&mut self) {
        let between = matches!(self.receive, Receive::Header { have: 0, .. });
        if !matches!(self.receive, Receive::Stopped) {
            self.die(if between {
                CloseReason::HungUp
            } else {
                CloseReason::Broken
            });
        }
    }

    /// The socket failed.
    pub fn on_broken(&mut self) {
        self.die(CloseReason::Broken);
    }

    /// Takes no more requests, answers the ones there are (one that is half received included),
    /// then closes.
    pub fn shutdown(&mut self) {
        self.closing.get_or_insert(CloseReason::Shutdown);
        if matches!(self.receive, Receive::Header { .. }) {
            self.receive = Receive::Stopped;
        }
    }

    /// Closes at once: nothing more is answered. What is at the device stays there; what holds a
    /// buffer otherwise is released.
    fn die(&mut self, reason: CloseReason) {
        if self.dead {
            return;
        }
        self.dead = true;
        self.closing = Some(reason);
        self.receive = Receive::Stopped;
        self.requests.clear();
        self.pending.clear();
        self.replies.clear();
        self.last_replies = 0;
        self.half_sent = None;
        let idle = |piece: &Piece| matches!(piece.stage, Stage::Receiving | Stage::Done);
        let released: Vec<_> = self.pieces.iter().map(|(_, piece)| *piece).collect();
        for piece in released.into_iter().filter(idle) {
            self.release(piece.token);
        }
    }
}
