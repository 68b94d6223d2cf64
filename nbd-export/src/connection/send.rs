//! What goes to the client.

use super::{Connection, Outgoing, Reply, Stage, Token};
use crate::wire::{Header, simple_reply};

impl Connection {
    pub(super) fn reply(&mut self, header: Header, payload: Option<(Token, u32)>, last: bool) {
        self.last_replies += usize::from(last);
        self.replies.push_back(Reply::Ready {
            header,
            payload,
            last,
        });
    }

    /// The next thing to send. Take it only when it can be sent soon: what stays here counts
    /// against the client's bounds. Everything that is taken must be sent in this order.
    pub fn next_send(&mut self) -> Option<Outgoing> {
        if let Some((token, len)) = self.half_sent.take() {
            return Some(self.send_payload(token, len));
        }
        match self.replies.front()? {
            Reply::SimpleRead(key) => self.next_of_simple_read(*key),
            Reply::Ready { .. } => {
                let Some(Reply::Ready {
                    header,
                    payload,
                    last,
                }) = self.replies.pop_front()
                else {
                    unreachable!("it is the front");
                };
                self.last_replies -= usize::from(last);
                self.half_sent = payload;
                Some(Outgoing::Header(header))
            }
        }
    }

    fn send_payload(&mut self, token: Token, len: u32) -> Outgoing {
        let piece = &mut self.pieces[token.key()];
        assert_eq!(piece.stage, Stage::Done, "{token:?} has no data");
        piece.stage = Stage::Sending;
        Outgoing::Payload { token, len }
    }

    /// Header, then each piece when its turn has come; nothing else in between.
    fn next_of_simple_read(&mut self, key: usize) -> Option<Outgoing> {
        let request = &mut self.requests[key];
        let simple = &mut request.simple_read;
        if !simple.started {
            if let Some((error, _)) = request.error {
                // Something failed after it was queued, but before a byte of it was sent.
                let header = simple_reply(request.cookie, Some(error));
                simple.abandoned = true;
                let held = std::mem::take(&mut simple.held);
                self.replies.pop_front();
                for (token, _) in held.into_iter().filter(|(_, done)| *done) {
                    self.release(token);
                }
                self.finish_if_done(key);
                return Some(Outgoing::Header(header));
            }
            simple.started = true;
            return Some(Outgoing::Header(simple_reply(request.cookie, None)));
        }
        let (token, done) = *simple.held.front()?;
        if !done {
            return None;
        }
        simple.held.pop_front();
        if request.all_cut && simple.held.is_empty() {
            self.replies.pop_front();
            self.requests.remove(key);
        }
        let len = self.pieces[token.key()].range.len() as u32;
        Some(self.send_payload(token, len))
    }
}
