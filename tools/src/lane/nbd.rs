//! NBD connections in their transmission phase, on the lane's ring.
//!
//! For each connection at most one receive and one send are in flight. Headers come in through a
//! small staging buffer; payload goes straight into pool slices, except for the part of it that
//! came along with a header. A connection that finds the pool empty waits in turn with the others.
//! One whose client neither sends the rest of its payload nor takes its answers for
//! [`STALL_MAX`] is cut off, if others wait for the memory it holds.

use super::NbdContext;
use super::command::NbdClient;
use super::thread::{Lane, Requester, Tag, Waiter};
use blockio::{IoError, Op as DeviceOp, Origin, PayloadId};
use nbd_export::{Action, CloseReason, Connection, ConnectionConfig, Outgoing, Token, Wants};
use nix::sys::socket::{Shutdown, shutdown};
use ringio::{BufMut, BufSlice, Completed, Handle, MAX_SLICE, Op, SendPart};
use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Most bytes received at once when a header is expected: with small writes, several requests come in
/// one operation, and to copy their payload is cheaper than operations of its own for each.
const STAGING: usize = 64 << 10;
/// The same after a large payload: what comes along with its header would have to be copied.
const STAGING_LARGE: usize = 4096;
/// Payloads up to this many bytes are small.
const SMALL: usize = 16 << 10;
/// Parts of one message to a client: header and payload alternate.
const PARTS_MAX: usize = 64;
/// How long a client may keep others waiting.
const STALL_MAX: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 10 });

/// The buffer of a piece.
enum Held {
    /// Payload is being received: `have` of `len` bytes are there. The buffer is absent while the
    /// kernel has it.
    Receiving {
        buf: Option<BufMut>,
        have: usize,
        len: usize,
    },
    /// With the engine.
    Submitted,
    /// Read, to be sent.
    Data(BufSlice),
}

/// What a receive is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum NbdStep {
    /// Headers, into the staging buffer.
    Headers,
    /// Payload of this piece.
    Payload(Token),
    /// An answer.
    Send,
}

/// One connection.
pub(super) struct Conn {
    proto: Connection,
    contexts: Vec<NbdContext>,
    socket: Handle,
    peer: String,
    /// Absent while the kernel has it.
    staging: Option<BufMut>,
    /// Of it: received, and of those: consumed.
    received: usize,
    consumed: usize,
    /// The last payload was small.
    small: bool,
    /// Bytes that came behind the negotiation; before anything in `staging`.
    early: VecDeque<u8>,
    receiving: bool,
    sending: bool,
    /// Pieces whose payload is in the message being sent.
    in_message: Vec<Token>,
    held: HashMap<Token, Held>,
    /// Needs memory first; what comes behind it waits, too.
    blocked: Option<Action>,
    closing: Option<CloseReason>,
    hung_up: bool,
    pub queued: bool,
    /// When bytes last moved.
    progress: Instant,
}

impl Lane {
    pub(super) fn add_nbd(&mut self, client: NbdClient) {
        if self.stopping() {
            // Dropping the socket hangs up.
            return;
        }
        let Ok(staging) = BufMut::standalone(STAGING) else {
            tracing::warn!(volume = %self.name, peer = %client.peer, "no memory for a client");
            return;
        };
        let share = (self.pool.capacity() / 8).max(2 * MAX_SLICE) as u64;
        let config = ConnectionConfig {
            max_chunk: MAX_SLICE as u32,
            max_read_bytes: share,
            max_write_bytes: share,
            max_hold: share,
            ..ConnectionConfig::default()
        };
        let mut proto = Connection::new(&client.negotiated, config);
        proto.set_limits(self.limits());
        let key = self.conns.insert(Conn {
            proto,
            contexts: client.contexts,
            socket: Arc::new(client.socket).into(),
            peer: client.peer,
            staging: Some(staging),
            received: 0,
            consumed: 0,
            small: false,
            early: client.received.into(),
            receiving: false,
            sending: false,
            in_message: Vec::new(),
            held: HashMap::new(),
            blocked: None,
            closing: None,
            hung_up: false,
            queued: false,
            progress: Instant::now(),
        });
        self.shared.opens.fetch_add(1, Ordering::Relaxed);
        self.queue_conn(key);
    }

    /// The connection has something to do.
    pub(super) fn queue_conn(&mut self, key: usize) {
        if let Some(conn) = self.conns.get_mut(key)
            && !conn.queued
        {
            conn.queued = true;
            self.dirty_conns.push_back(key);
        }
    }

    /// Does what there is to do for a connection.
    pub(super) fn pump_conn(&mut self, key: usize) {
        if let Some(conn) = self.conns.get_mut(key) {
            conn.queued = false;
        }
        self.conn_actions(key);
        while self.conn_consume(key) {
            self.conn_actions(key);
        }
        self.conn_receive(key);
        self.conn_send(key);
        self.conn_end(key);
    }

    fn conn_actions(&mut self, key: usize) {
        loop {
            let Some(conn) = self.conns.get_mut(key) else {
                return;
            };
            let Some(action) = conn.blocked.take().or_else(|| conn.proto.next_action()) else {
                return;
            };
            if !self.conn_action(key, action) {
                self.conns[key].blocked = Some(action);
                return;
            }
        }
    }

    /// False where it must wait for memory.
    fn conn_action(&mut self, key: usize, action: Action) -> bool {
        match action {
            Action::Receive { token, len } => {
                let len = len as usize;
                self.conns[key].small = len <= SMALL;
                let Some(buf) = self.alloc(len, Waiter::Conn(key)) else {
                    return false;
                };
                let held = Held::Receiving {
                    buf: Some(buf),
                    have: 0,
                    len,
                };
                self.conns[key].held.insert(token, held);
            }
            Action::Submit {
                token,
                op,
                range,
                flags,
            } => {
                let payload = match op {
                    DeviceOp::Read => {
                        let Some(buf) = self.alloc(range.len() as usize, Waiter::Conn(key)) else {
                            return false;
                        };
                        self.conns[key].held.insert(token, Held::Submitted);
                        Some(self.payloads.add_empty(buf))
                    }
                    DeviceOp::Write => {
                        let held = self.conns[key].held.insert(token, Held::Submitted);
                        let Some(Held::Receiving { buf: Some(buf), .. }) = held else {
                            unreachable!("a write is submitted once its payload is there");
                        };
                        Some(self.payloads.add_ready(buf.freeze()))
                    }
                    _ => None,
                };
                let requester = Requester::Nbd {
                    conn: key,
                    token,
                    read: op == DeviceOp::Read,
                    payload,
                };
                self.submit(requester, op, range, flags, Origin::Client);
            }
            Action::QueryExtents { token, range, one } => {
                let (engine, layout, disks) = (&self.engine, &self.layout, &self.disks);
                let conn = &mut self.conns[key];
                let extents = conn.contexts.iter().map(|context| {
                    super::extents::query(engine, layout, disks, *context, range, one)
                });
                let extents: Result<Vec<_>, _> = extents.collect();
                conn.proto
                    .on_extents(token, extents.as_deref().map_err(|error| *error));
            }
            Action::Release { token } => {
                self.conns[key].held.remove(&token);
            }
            Action::Close { reason } => self.conns[key].closing = Some(reason),
        }
        true
    }

    /// Gives bytes that are here to the protocol; says whether any were taken.
    fn conn_consume(&mut self, key: usize) -> bool {
        let Some(conn) = self.conns.get_mut(key) else {
            return false;
        };
        if conn.blocked.is_some() {
            return false;
        }
        let wants = conn.proto.wants();
        let early = !conn.early.is_empty();
        let input: &[u8] = match (&conn.staging, early) {
            (_, true) => conn.early.make_contiguous(),
            (Some(staging), false) => &staging.as_ref()[conn.consumed..conn.received],
            (None, false) => &[],
        };
        if input.is_empty() {
            return false;
        }
        let taken = match wants {
            Wants::Bytes => conn.proto.on_bytes(input),
            Wants::Payload => {
                let receiving = conn.held.iter_mut().find_map(|(token, held)| match held {
                    Held::Receiving {
                        buf: Some(buf),
                        have,
                        len,
                    } => Some((*token, buf, have, *len)),
                    _ => None,
                });
                let Some((token, buf, have, len)) = receiving else {
                    return false;
                };
                let here = input.len().min(len - *have);
                buf.as_mut()[*have..*have + here].copy_from_slice(&input[..here]);
                *have += here;
                if *have == len {
                    conn.proto.on_payload(token);
                }
                here
            }
            Wants::Nothing | Wants::End => 0,
        };
        if early {
            conn.early.drain(..taken);
        } else {
            conn.consumed += taken;
        }
        taken > 0
    }

    /// Starts a receive where the protocol waits for one.
    fn conn_receive(&mut self, key: usize) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        if conn.receiving || conn.hung_up || conn.blocked.is_some() {
            return;
        }
        let empty = conn.early.is_empty() && conn.consumed == conn.received;
        match conn.proto.wants() {
            Wants::Bytes if empty => {
                let Some(into) = conn.staging.take() else {
                    return;
                };
                // Less room at the end of the buffer is how a receive is kept short.
                let done = if conn.small {
                    0
                } else {
                    STAGING - STAGING_LARGE
                };
                (conn.received, conn.consumed) = (done, done);
                conn.receiving = true;
                let socket = conn.socket.clone();
                let op = Op::Recv { socket, into, done };
                self.ring.push(op, Tag::Nbd(key, NbdStep::Headers));
            }
            Wants::Payload => {
                let found = conn.held.iter_mut().find_map(|(token, held)| match held {
                    Held::Receiving { buf, have, .. } => Some((*token, buf.take()?, *have)),
                    _ => None,
                });
                let Some((token, into, done)) = found else {
                    return;
                };
                conn.receiving = true;
                let socket = conn.socket.clone();
                let op = Op::Recv { socket, into, done };
                self.ring.push(op, Tag::Nbd(key, NbdStep::Payload(token)));
            }
            _ => {}
        }
    }

    /// Sends what there is to send, in one message.
    fn conn_send(&mut self, key: usize) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        if conn.sending || conn.hung_up {
            return;
        }
        let mut parts = Vec::new();
        while parts.len() < PARTS_MAX {
            match conn.proto.next_send() {
                None => break,
                Some(Outgoing::Header(header)) => parts.push(SendPart::Owned(header.to_vec())),
                Some(Outgoing::Payload { token, .. }) => {
                    let Some(Held::Data(slice)) = conn.held.get(&token) else {
                        unreachable!("what is sent has been read");
                    };
                    parts.push(SendPart::Pool(slice.clone()));
                    conn.in_message.push(token);
                }
            }
        }
        if parts.is_empty() {
            return;
        }
        conn.sending = true;
        conn.progress = Instant::now();
        let op = Op::SendMsg {
            socket: conn.socket.clone(),
            parts,
            done: 0,
        };
        self.ring.push(op, Tag::Nbd(key, NbdStep::Send));
    }

    /// Ends a connection that is through.
    fn conn_end(&mut self, key: usize) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        if conn.closing.is_none() {
            return;
        }
        if !conn.sending && !conn.hung_up {
            conn.hang_up();
        }
        let quiet = !conn.sending && !conn.receiving && conn.in_message.is_empty();
        if !quiet || !conn.proto.is_idle() {
            return;
        }
        let conn = self.conns.remove(key);
        self.waiters.retain(|waiter| *waiter != Waiter::Conn(key));
        self.shared.opens.fetch_sub(1, Ordering::Relaxed);
        let reason = conn.closing.map(|reason| reason.to_string());
        tracing::debug!(volume = %self.name, peer = %conn.peer, ?reason, "client gone");
    }

    pub(super) fn nbd_completed(&mut self, completed: Completed<Tag>, key: usize, step: NbdStep) {
        let Some(conn) = self.conns.get_mut(key) else {
            unreachable!("a connection outlives its operations");
        };
        let Completed { op, result, .. } = completed;
        let moved = result.map(|bytes| bytes as usize);
        if let Ok(1..) = moved {
            conn.progress = Instant::now();
        }
        match (step, op) {
            (NbdStep::Headers, Op::Recv { into, .. }) => {
                conn.receiving = false;
                conn.staging = Some(into);
                match moved {
                    Ok(0) => conn.proto.on_eof(),
                    Ok(bytes) => conn.received += bytes,
                    Err(_) => conn.proto.on_broken(),
                }
            }
            (NbdStep::Payload(token), Op::Recv { into, .. }) => {
                conn.receiving = false;
                let mut complete = false;
                if let Some(Held::Receiving { buf, have, len }) = conn.held.get_mut(&token) {
                    *have += moved.unwrap_or(0);
                    *buf = Some(into);
                    complete = *have == *len;
                }
                match moved {
                    Ok(0) => conn.proto.on_eof(),
                    Ok(_) if complete => conn.proto.on_payload(token),
                    Ok(_) => {}
                    Err(_) => conn.proto.on_broken(),
                }
            }
            (
                NbdStep::Send,
                Op::SendMsg {
                    socket,
                    parts,
                    done,
                },
            ) => {
                let total: usize = parts.iter().map(|part| part.as_ref().len()).sum();
                match moved {
                    Ok(bytes @ 1..) if done + bytes < total => {
                        let done = done + bytes;
                        let op = Op::SendMsg {
                            socket,
                            parts,
                            done,
                        };
                        self.ring.push(op, Tag::Nbd(key, NbdStep::Send));
                        return;
                    }
                    Ok(1..) => {}
                    Ok(0) | Err(_) => conn.proto.on_broken(),
                }
                conn.sending = false;
                for token in std::mem::take(&mut conn.in_message) {
                    conn.held.remove(&token);
                    conn.proto.on_payload_sent(token);
                }
            }
            (step, op) => unreachable!("{step:?} completed as {op:?}"),
        }
        self.queue_conn(key);
    }

    /// A request of a connection is done.
    pub(super) fn nbd_done(
        &mut self,
        key: usize,
        token: Token,
        read: Option<PayloadId>,
        mut result: Result<(), IoError>,
    ) {
        let Some(conn) = self.conns.get_mut(key) else {
            unreachable!("a connection outlives its requests");
        };
        conn.held.remove(&token);
        if let (Some(payload), Ok(())) = (read, result) {
            match self.payloads.share(payload) {
                Ok(slice) => {
                    conn.held.insert(token, Held::Data(slice));
                }
                Err(error) => result = Err(error),
            }
        }
        conn.proto.on_complete(token, result);
        self.queue_conn(key);
    }

    /// Cuts off clients that hold memory, do not move, and keep others waiting.
    pub(super) fn cut_off_stalled(&mut self) {
        if self.waiters.is_empty() {
            return;
        }
        let stalled: Vec<usize> = self
            .conns
            .iter()
            .filter(|(_, conn)| conn.waits_for_client() && conn.progress.elapsed() > STALL_MAX)
            .map(|(key, _)| key)
            .collect();
        for key in stalled {
            tracing::warn!(
                volume = %self.name, peer = %self.conns[key].peer,
                "client stalled while others waited for memory: cut off"
            );
            self.conns[key].break_off();
            self.queue_conn(key);
        }
    }

    /// Takes no more requests from clients; `force` does not wait for them either.
    pub(super) fn shut_down_clients(&mut self, force: bool) {
        let keys: Vec<usize> = self.conns.iter().map(|(key, _)| key).collect();
        for key in keys {
            if force {
                self.conns[key].break_off();
            } else {
                self.conns[key].proto.shutdown();
            }
            self.queue_conn(key);
        }
    }
}

impl Conn {
    /// Ends whatever the kernel is doing with the socket.
    fn hang_up(&mut self) {
        self.hung_up = true;
        // A client that is gone already is fine.
        let _gone = shutdown(self.socket.as_fd().as_raw_fd(), Shutdown::Both);
    }

    fn break_off(&mut self) {
        self.proto.on_broken();
        self.hang_up();
    }

    fn waits_for_client(&self) -> bool {
        self.sending || (self.receiving && self.proto.wants() == Wants::Payload)
    }

    /// New limits of the volume.
    pub fn set_limits(&mut self, limits: blockio::Limits) {
        self.proto.set_limits(limits);
    }
}
