//! What comes from the client: request headers, and the places where payload begins and ends.

use super::check::Kind;
use super::{
    Action, CloseReason, Connection, NEXT_HEADER, Receive, Request, SimpleRead, Stage, Token,
};
use crate::wire::{RequestHeader, cmd};
use blockio::{ByteRange, Flags, Op};

impl Connection {
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
    pub(super) fn cut_write(&mut self, key: usize) {
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
}
