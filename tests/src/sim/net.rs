//! Connections between two nodes: a control stream and data streams, each in order, none with
//! another; delayed at will, cut, or half open.

use super::history::History;
use super::world::World;
use blockio::{ByteRange, Op};
use feedplex::session::Event;
use feedplex::wire::control::{CONTROL_HEADER_LEN, ControlHeader, Message};
use std::collections::VecDeque;
use std::rc::Rc;
use uuid::Uuid;

/// What a frame does at the sink.
#[derive(Clone, Debug)]
pub enum Body {
    /// A write, write-zeroes, discard or flush.
    Op(Op, ByteRange, Vec<u64>),
    /// A mark.
    Mark(Uuid),
}

/// A frame of a data stream.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Its number in its stream, from 1.
    pub sequence: u64,
    /// Durable when it is done.
    pub fua: bool,
    /// What.
    pub body: Body,
    /// Step in which the source's engine gave it.
    pub at: u64,
}

/// One session's connections, by session at either end: 0 connected, 1 was connected to.
pub struct Conn {
    /// Node and session of each end.
    pub ends: [(usize, u64); 2],
    /// Control messages on their way to each end.
    control: [VecDeque<Vec<u8>>; 2],
    /// The other side will send no more to this end, and this end will notice.
    eof: [bool; 2],
    /// What goes to this end is lost without a sign.
    silent: [bool; 2],
    /// Data streams are up: frames on their way to the sink.
    pub data: Vec<VecDeque<Frame>>,
    /// The data streams have been expected by the side that does.
    pub expected: bool,
    /// The end that receives data.
    pub sink: usize,
    /// When the source told that all is sent, by its write order.
    pub caught_at: Option<u64>,
    /// The source's history as it was when the source crashed.
    pub old: Option<Rc<History>>,
}

impl Conn {
    /// A new connection.
    pub fn new(ends: [(usize, u64); 2]) -> Self {
        Self {
            ends,
            control: Default::default(),
            eof: [false; 2],
            silent: [false; 2],
            data: Vec::new(),
            expected: false,
            sink: 1,
            caught_at: None,
            old: None,
        }
    }

    /// Will this end see something: a message, or the end of the connection?
    pub fn has_news(&self, end: usize) -> bool {
        !self.control[end].is_empty() || self.eof[end]
    }

    /// Is there a frame on this stream?
    pub fn has_frame(&self, stream: usize) -> bool {
        self.data
            .get(stream)
            .is_some_and(|frames| !frames.is_empty())
    }

    /// Sends a control message from this end.
    pub fn send(&mut self, from: usize, message: &Message) {
        let to = 1 - from;
        if !self.eof[to] && !self.silent[to] {
            // Through the codec, as in life.
            self.control[to].push_back(message.encode().expect("encodes"));
        }
    }

    /// Sends a frame.
    pub fn send_frame(&mut self, stream: usize, frame: Frame) {
        if !self.eof[self.sink] && !self.silent[self.sink] {
            self.data[stream].push_back(frame);
        }
    }
}

impl World {
    /// The end of this session at its connection.
    pub fn end_of(&self, n: usize, sess: u64) -> Option<(u64, usize)> {
        let id = self.nodes[n].up.as_ref()?.sessions.get(&sess)?.conn;
        let conn = self.conns.get(&id)?;
        let end = conn.ends.iter().position(|e| *e == (n, sess))?;
        Some((id, end))
    }

    /// The next message, or the end of the connection, reaches this end.
    pub fn deliver(&mut self, id: u64, end: usize) {
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        let (node, sess) = conn.ends[end];
        let event = match conn.control[end].pop_front() {
            Some(bytes) => {
                let (header, body) = bytes
                    .split_first_chunk::<CONTROL_HEADER_LEN>()
                    .expect("has a header");
                let header = ControlHeader::decode(header).expect("a good header");
                let message = Message::decode(&header, body).expect("a good message");
                Event::Message(message)
            }
            None => {
                conn.eof[end] = false;
                conn.silent[end] = true;
                Event::Disconnected
            }
        };
        self.note(|| format!("n{node} gets {event:?}"));
        match &self.nodes[node].up {
            Some(daemon) if daemon.sessions.contains_key(&sess) => {}
            // The preamble: a connection that nobody has taken yet.
            Some(_) if matches!(event, Event::Message(Message::Hello(_))) && end == 1 => {
                self.accept(node, sess, id);
            }
            _ => return,
        }
        if let Some(sess) = self.daemon(node).sessions.get_mut(&sess) {
            sess.push(event);
        }
        self.forget_dead();
    }

    /// A node is no more: what it had sent may arrive, in part; what was for it does not.
    pub fn drop_connections(&mut self, n: usize, power: bool, old: &Rc<History>) {
        let mut conns = std::mem::take(&mut self.conns);
        for conn in conns.values_mut() {
            let Some(end) = conn.ends.iter().position(|(node, _)| *node == n) else {
                continue;
            };
            self.lose(conn, 1 - end);
            conn.control[end].clear();
            if conn.sink == end {
                conn.data.iter_mut().for_each(VecDeque::clear);
            } else {
                conn.old.get_or_insert_with(|| old.clone());
            }
            conn.silent = [true; 2];
            // Without power nobody says goodbye.
            conn.eof[1 - end] = !power || self.rng.chance(50);
            conn.ends[end] = (n, 0);
        }
        self.conns = conns;
        self.forget_dead();
    }

    /// What is on its way to this end is lost from some point on.
    fn lose(&mut self, conn: &mut Conn, end: usize) {
        let keep = self.rng.index(conn.control[end].len() + 1);
        conn.control[end].truncate(keep);
        if conn.sink == end {
            for frames in &mut conn.data {
                let keep = self.rng.index(frames.len() + 1);
                frames.truncate(keep);
            }
        }
    }

    /// A session closes its end: what it has said arrives, or most of it.
    pub fn hang_up(&mut self, n: usize, sess: u64) {
        let Some((id, end)) = self.end_of(n, sess) else {
            return;
        };
        let mut conn = self.conns.remove(&id).expect("it is there");
        let other = 1 - end;
        if conn.sink == other {
            // Frames that wait in the sender are dropped with it.
            for frames in &mut conn.data {
                let keep = self.rng.index(frames.len() + 1);
                frames.truncate(keep);
            }
        } else {
            conn.data.iter_mut().for_each(VecDeque::clear);
        }
        conn.control[end].clear();
        conn.silent[end] = true;
        conn.eof[end] = false;
        if !conn.silent[other] {
            conn.eof[other] = true;
        }
        conn.ends[end] = (n, 0);
        self.conns.insert(id, conn);
        self.forget_dead();
    }

    /// A connection is cut, or one direction of it falls silent.
    pub fn network_fault(&mut self) {
        if self.conns.is_empty() {
            return;
        }
        let ids: Vec<u64> = self.conns.keys().copied().collect();
        let id = ids[self.rng.index(ids.len())];
        let mut conn = self.conns.remove(&id).expect("it is there");
        self.totals.cuts += 1;
        match self.rng.below(4) {
            0 => {
                let end = self.rng.index(2);
                self.lose(&mut conn, end);
                conn.silent[end] = true;
            }
            how => {
                for end in 0..2 {
                    self.lose(&mut conn, end);
                    if !conn.silent[end] {
                        // One side may notice long before the other.
                        conn.eof[end] = how != 1 || end == 0;
                    }
                    conn.silent[end] = true;
                }
            }
        }
        self.note(|| format!("connection {id} is cut: eof {:?}", conn.eof));
        self.conns.insert(id, conn);
    }

    fn forget_dead(&mut self) {
        self.conns
            .retain(|_, conn| conn.ends.iter().any(|(_, sess)| *sess != 0));
    }
}
