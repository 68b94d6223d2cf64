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

mod check;
mod complete;
mod extents;
mod send;
#[cfg(test)]
mod tests;

pub use extents::Extent;

use crate::wire::{DecodeError, Header, MAX_PAYLOAD, RequestHeader, WireError, cmd};
use crate::{ConnectionConfig, Negotiated};
use blockio::{ByteRange, Flags, Limits, Op};
use check::{Kind, Rules};
use slab::Slab;
use std::collections::VecDeque;
use thiserror::Error;

/// Names a piece of a request, and its buffer. Not used twice on a connection (until 2³² others
/// have been).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(u64);

impl Token {
    fn new(serial: u32, key: usize) -> Self {
        let key = u32::try_from(key).expect("pieces are bounded");
        Self(u64::from(serial) << 32 | u64::from(key))
    }

    fn key(self) -> usize {
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
    /// [`Connection::on_payload`].
    Receive {
        /// Names the buffer.
        token: Token,
        /// Bytes.
        len: u32,
    },
    /// Give this to the device, then call [`Connection::on_complete`]. A read's buffer, of
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
    /// Find out what is allocated, then call [`Connection::on_extents`].
    QueryExtents {
        /// Comes back with the answer.
        token: Token,
        /// Where.
        range: ByteRange,
        /// More than the first extent is not needed.
        one: bool,
    },
    /// The buffer is not needed any more.
    Release {
        /// Names the buffer.
        token: Token,
    },
    /// Send what was taken from [`Connection::next_send`], then close the socket. What has been
    /// submitted is still to be completed, until [`Connection::is_idle`].
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
    /// The `len` bytes of a read's buffer; then call [`Connection::on_payload_sent`].
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
    /// Bytes for [`Connection::on_bytes`].
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
    /// [`Connection::shutdown`].
    #[error("the export is shut down")]
    Shutdown,
}

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
                base_allocation: negotiated.base_allocation,
                max_chunk: config.max_chunk,
            },
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

    /// Takes bytes from the client and returns how many. It stops early where payload begins (the
    /// rest is the payload's beginning) and where the client is to be held back (the rest is to be
    /// offered again); see [`Connection::wants`].
    pub fn on_bytes(&mut self, input: &[u8]) -> usize {
        let mut consumed = 0;
        loop {
            let rest = &input[consumed..];
            let room = self.can_accept();
            match &mut self.receive {
                Receive::Header { .. } if !room => return consumed,
                Receive::Header { bytes, have } => {
                    let here = rest.len().min(bytes.len() - *have);
                    bytes[*have..*have + here].copy_from_slice(&rest[..here]);
                    *have += here;
                    consumed += here;
                    if *have < bytes.len() {
                        return consumed;
                    }
                    let header = RequestHeader::decode(bytes);
                    self.receive = NEXT_HEADER;
                    match header {
                        Ok(header) => self.on_header(&header),
                        Err(error) => self.die(CloseReason::Protocol(error)),
                    }
                }
                Receive::Drain { request, left } => {
                    let here = u32::try_from(rest.len()).unwrap_or(u32::MAX).min(*left);
                    *left -= here;
                    consumed += here as usize;
                    if *left > 0 {
                        return consumed;
                    }
                    let request = *request;
                    self.message_ends();
                    self.requests[request].all_cut = true;
                    self.finish_if_done(request);
                }
                Receive::AwaitRoom { .. } | Receive::Payload { .. } | Receive::Stopped => {
                    return consumed;
                }
            }
        }
    }

    fn on_header(&mut self, header: &RequestHeader) {
        if header.command == cmd::DISC {
            self.receive = Receive::Stopped;
            self.closing.get_or_insert(CloseReason::Disconnect);
            return;
        }
        let has_payload = header.command == cmd::WRITE && header.len > 0;
        let checked = self.rules.check(header);
        let mut request = Request {
            cookie: header.cookie,
            // For refused ones, only the form of the answer depends on it.
            kind: match header.command {
                cmd::READ => Kind::Read,
                cmd::BLOCK_STATUS => Kind::BlockStatus { one: false },
                _ => Kind::Write,
            },
            range: ByteRange::default(),
            flags: Flags::empty(),
            cut: 0,
            all_cut: false,
            in_flight: 0,
            error: None,
            simple_read: SimpleRead::default(),
        };
        match checked {
            Ok(accepted) => {
                request.kind = accepted.kind;
                request.range = accepted.range;
                request.flags = accepted.flags;
                let key = self.requests.insert(request);
                if accepted.kind == Kind::Write {
                    self.cut_write(key);
                } else {
                    self.pending.push_back(key);
                    self.pump();
                }
            }
            Err(_) if has_payload && header.len > Self::MAX_DRAIN => {
                self.die(CloseReason::PayloadTooLong(header.len));
            }
            Err(error) => {
                request.error = Some((error, header.offset));
                let key = self.requests.insert(request);
                if has_payload {
                    self.receive = Receive::Drain {
                        request: key,
                        left: header.len,
                    };
                } else {
                    self.requests[key].all_cut = true;
                    self.finish_if_done(key);
                }
            }
        }
    }

    /// The payload of the last [`Action::Receive`] is in its buffer.
    ///
    /// # Panics
    /// Where the token is not the one being received.
    pub fn on_payload(&mut self, token: Token) {
        if self.dead {
            return;
        }
        assert!(
            matches!(self.receive, Receive::Payload { token: expected } if expected == token),
            "payload that was not asked for"
        );
        let piece = &mut self.pieces[token.key()];
        piece.stage = Stage::Submitted;
        let (key, range) = (piece.request, piece.range);
        let request = &mut self.requests[key];
        request.in_flight += 1;
        self.actions.push_back(Action::Submit {
            token,
            op: Op::Write,
            range,
            flags: request.flags,
        });
        self.cut_write(key);
    }

    /// Asks for a write's next piece of payload, or is done with receiving it.
    fn cut_write(&mut self, key: usize) {
        let request = &mut self.requests[key];
        let left = request.range.len() - request.cut;
        if left == 0 {
            request.all_cut = true;
            self.message_ends();
            self.finish_if_done(key);
            return;
        }
        if request.error.is_some() {
            let left = u32::try_from(left).expect("a write is no longer than its header says");
            self.receive = Receive::Drain { request: key, left };
            return;
        }
        let len = left.min(self.config.max_chunk.into());
        if self.write_bytes + len > self.config.max_write_bytes {
            self.receive = Receive::AwaitRoom { request: key };
            return;
        }
        let range = ByteRange::new(request.range.start() + request.cut, len);
        request.cut += len;
        self.write_bytes += len;
        let token = self.new_piece(key, Kind::Write, range, Stage::Receiving);
        self.receive = Receive::Payload { token };
        self.actions.push_back(Action::Receive {
            token,
            len: len as u32,
        });
    }

    fn message_ends(&mut self) {
        self.receive = if self.closing.is_some() {
            Receive::Stopped
        } else {
            NEXT_HEADER
        };
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
