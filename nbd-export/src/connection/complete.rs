//! What comes back from the device.

use super::extents::reply_extents;
use super::{Action, CloseReason, Connection, Extent, Kind, Piece, Receive, Reply, Stage, Token};
use crate::wire::{WireError, block_status, error_chunk, offset_data, simple_reply};
use blockio::{Flags, IoError, IoErrorKind};

impl Connection {
    /// A submitted piece is done.
    ///
    /// # Panics
    /// Where the token is not at the device.
    pub fn on_complete(&mut self, token: Token, result: Result<(), IoError>) {
        let Some(piece) = self.take_back(token) else {
            return;
        };
        if let Err(error) = result {
            self.note_error(&piece, error);
        }
        if piece.kind == Kind::Read {
            self.read_done(&piece, result.is_ok());
        } else {
            self.remove(token);
        }
        if !self.dead {
            self.finish_if_done(piece.request);
        }
        self.make_progress();
    }

    /// The answer to [`Action::QueryExtents`]: for each context, in the order of
    /// [`crate::Negotiated::contexts`], extents in order, without overlaps, from the range's start. What
    /// is left out between them has no state (is data); they may end early, which tells the client to ask
    /// again for the rest.
    ///
    /// # Panics
    /// Where the token is not at the device, or there are more or fewer lists than contexts.
    pub fn on_extents(&mut self, token: Token, result: Result<&[Vec<Extent>], IoError>) {
        let Some(piece) = self.take_back(token) else {
            return;
        };
        self.remove(token);
        match result {
            Err(error) => {
                self.note_error(&piece, error);
                self.finish_if_done(piece.request);
            }
            Ok(known) => {
                let one = piece.kind == Kind::BlockStatus { one: true };
                let limit = if one { 1 } else { self.config.max_extents };
                assert_eq!(known.len(), self.contexts.len(), "a list for each context");
                let request = self.requests.remove(piece.request);
                let count = self.contexts.len();
                for (number, known) in known.iter().enumerate() {
                    let extents = reply_extents(known, piece.range, limit);
                    let last = number + 1 == count;
                    let id = self.contexts[number];
                    let header = block_status(request.cookie, id, &extents, last);
                    self.reply(header, None, last);
                }
            }
        }
        self.make_progress();
    }

    /// The payload has been sent, or never will be; its buffer is free.
    ///
    /// # Panics
    /// Where the token is not being sent.
    pub fn on_payload_sent(&mut self, token: Token) {
        assert_eq!(
            self.piece(token).stage,
            Stage::Sending,
            "{token:?} is not being sent"
        );
        self.remove(token);
        self.make_progress();
    }

    fn piece(&self, token: Token) -> Piece {
        match self.pieces.get(token.key()) {
            Some(piece) if piece.token == token => *piece,
            _ => panic!("{token:?} is not in flight"),
        }
    }

    /// Counts a piece off that was at the device. `None`: nobody waits for it any more.
    fn take_back(&mut self, token: Token) -> Option<Piece> {
        let piece = self.piece(token);
        assert_eq!(
            piece.stage,
            Stage::Submitted,
            "{token:?} is not at the device"
        );
        if piece.kind != Kind::Write {
            self.operations -= 1;
        }
        if self.dead {
            if piece.kind == Kind::Read {
                self.release(token);
            } else {
                self.remove(token);
            }
            return None;
        }
        self.requests[piece.request].in_flight -= 1;
        Some(piece)
    }

    /// Forgets a piece and its share of the bounds.
    fn remove(&mut self, token: Token) {
        let piece = self.pieces.remove(token.key());
        match piece.kind {
            Kind::Read => self.read_bytes -= piece.range.len(),
            Kind::Write => self.write_bytes -= piece.range.len(),
            _ => {}
        }
    }

    /// Forgets a piece whose buffer the driver still has.
    pub(super) fn release(&mut self, token: Token) {
        self.remove(token);
        self.actions.push_back(Action::Release { token });
    }

    fn make_progress(&mut self) {
        if self.dead {
            return;
        }
        if let Receive::AwaitRoom { request } = self.receive {
            self.cut_write(request);
        }
        self.pump();
    }

    /// Keeps the first error and makes no more pieces. (A write's payload is drained instead.)
    fn note_error(&mut self, piece: &Piece, error: IoError) {
        // A discard is a hint.
        if piece.kind == Kind::Trim && error.kind() == IoErrorKind::Unsupported {
            return;
        }
        let request = &mut self.requests[piece.request];
        let fast = request.flags.contains(Flags::FAST_ZERO);
        let error = WireError::from_io(error, fast);
        request.error.get_or_insert((error, piece.range.start()));
        if piece.kind != Kind::Write && !request.all_cut {
            request.all_cut = true;
            self.pending.retain(|key| *key != piece.request);
        }
    }

    fn read_done(&mut self, piece: &Piece, good: bool) {
        let key = piece.request;
        let request = &mut self.requests[key];
        let simple = &mut request.simple_read;
        if !good || simple.abandoned {
            // Where it fails nothing of it is sent.
            if simple.started && !simple.abandoned {
                let (error, _) = request.error.expect("it was noted");
                self.release(piece.token);
                self.die(CloseReason::ReadFailed(error));
            } else {
                simple.held.retain(|(token, _)| *token != piece.token);
                self.release(piece.token);
            }
            return;
        }
        self.pieces[piece.token.key()].stage = Stage::Done;
        if self.structured {
            let last = request.all_cut && request.in_flight == 0 && request.error.is_none();
            let len = piece.range.len() as u32;
            let header = offset_data(request.cookie, piece.range.start(), len, last);
            if last {
                self.requests.remove(key);
            }
            self.reply(header, Some((piece.token, len)), last);
            return;
        }
        for (token, done) in &mut simple.held {
            *done |= *token == piece.token;
        }
        let whole = request.all_cut && request.in_flight == 0;
        let stream = request.range.len() > self.config.max_hold;
        let first_done = simple.held.front().is_some_and(|(_, done)| *done);
        if request.error.is_none() && !simple.queued && (whole || (stream && first_done)) {
            simple.queued = true;
            self.replies.push_back(Reply::SimpleRead(key));
        }
    }

    /// Answers a request of which nothing is left to do, unless its answer is under way.
    pub(super) fn finish_if_done(&mut self, key: usize) {
        let Some(request) = self.requests.get(key) else {
            return;
        };
        if !request.all_cut || request.in_flight > 0 {
            return;
        }
        if request.simple_read.queued && !request.simple_read.abandoned {
            return;
        }
        let request = self.requests.remove(key);
        for (token, _) in &request.simple_read.held {
            self.release(*token);
        }
        if request.simple_read.abandoned {
            return;
        }
        let cookie = request.cookie;
        let has_data = matches!(request.kind, Kind::Read | Kind::BlockStatus { .. });
        let header = match request.error {
            Some((error, offset)) if has_data && self.structured => {
                let offset = (request.kind == Kind::Read && request.cut > 0).then_some(offset);
                error_chunk(cookie, error, offset)
            }
            error => simple_reply(cookie, error.map(|(error, _)| error)),
        };
        self.reply(header, None, true);
    }
}
