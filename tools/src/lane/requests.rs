//! Requests between those who ask and the engine, and memory for them.

use super::LaneError;
use super::command::Reply;
use super::meter::OpKind;
use super::thread::{Lane, Requester, Waiter};
use blockio::{ByteRange, Flags, IoError, Op, Origin, PayloadId, Request, Ticket};
use ringio::BufMut;
use std::sync::atomic::Ordering;
use std::time::Instant;
use tracing::Span;

/// A request under way.
pub(super) struct Pending {
    requester: Requester,
    serial: u64,
    op: Op,
    len: u64,
    since: Instant,
    /// For those who trace requests; else it costs nothing.
    span: Span,
}

impl Lane {
    /// Gives a request to the engine.
    pub fn submit(
        &mut self,
        requester: Requester,
        op: Op,
        range: ByteRange,
        flags: Flags,
        origin: Origin,
    ) {
        let payload = match &requester {
            Requester::Nbd { payload, .. }
            | Requester::Ublk { payload, .. }
            | Requester::Job { payload, .. } => *payload,
            Requester::Read { payload, .. } => Some(*payload),
            Requester::Grant { .. } | Requester::Quiesce { .. } => None,
        };
        self.submit_with(requester, op, range, flags, origin, payload);
    }

    /// The same, with a payload that the requester does not name.
    pub fn submit_with(
        &mut self,
        requester: Requester,
        op: Op,
        range: ByteRange,
        flags: Flags,
        origin: Origin,
        payload: Option<PayloadId>,
    ) {
        let request = self.request(requester, op, range, flags, origin, payload);
        self.engine.submit(request, &mut self.out);
        self.take_out();
    }

    /// A request on the books, for the engine.
    pub fn request(
        &mut self,
        requester: Requester,
        op: Op,
        range: ByteRange,
        flags: Flags,
        origin: Origin,
        payload: Option<PayloadId>,
    ) -> Request {
        self.serial += 1;
        if let Requester::Nbd { .. } | Requester::Ublk { .. } = requester
            && OpKind::of_request(op).is_some()
        {
            self.meters.shared.client_begins();
        }
        let span = tracing::trace_span!(
            target: "volmgr::request", parent: None, "request",
            volume = %self.name, ?op, offset = range.start(), bytes = range.len(), ?origin,
            error = tracing::field::Empty,
        );
        let key = self.requests.insert(Pending {
            requester,
            serial: self.serial,
            op,
            len: range.len(),
            since: self.now,
            span,
        });
        Request {
            ticket: Ticket::new(key as u64),
            op,
            range,
            flags,
            payload,
            origin,
        }
    }

    pub fn complete(&mut self, ticket: Ticket, result: Result<(), IoError>) {
        let key = ticket.complete() as usize;
        let pending = self.requests.remove(key);
        self.stats.requests += 1;
        if let Err(error) = &result {
            pending.span.record("error", tracing::field::display(error));
        }
        let meters = match pending.requester {
            Requester::Nbd { .. } | Requester::Ublk { .. } => Some(&self.meters.shared.clients),
            Requester::Job { .. } | Requester::Grant { .. } => Some(&self.meters.shared.fed),
            Requester::Read { .. } | Requester::Quiesce { .. } => None,
        };
        if let (Some(meters), Some(kind)) = (meters, OpKind::of_request(pending.op)) {
            let took = self.now.saturating_duration_since(pending.since);
            meters.op(kind).ended(pending.len, result.is_ok(), took);
        }
        if let Requester::Nbd { .. } | Requester::Ublk { .. } = pending.requester {
            match pending.op {
                Op::Read => self.stats.read_bytes += pending.len,
                Op::Write => self.stats.write_bytes += pending.len,
                _ => {}
            }
        }
        match pending.requester {
            Requester::Nbd {
                conn,
                token,
                read,
                payload,
            } => {
                self.copied(payload.map_or(0, |_| pending.len));
                self.nbd_done(conn, token, payload.filter(|_| read), result);
                self.forget(payload);
            }
            Requester::Ublk { tag, read, payload } => {
                self.ublk_done(tag, payload, read, pending.len, result);
                self.forget(payload);
            }
            Requester::Job { job, payload } => {
                self.forget(payload);
                self.job_done(job, result);
            }
            Requester::Read { payload, reply } => {
                self.read_done(payload, reply, result);
                self.forget(Some(payload));
            }
            Requester::Grant { id } => self.grant_done(id, result),
            Requester::Quiesce { reply } => self.answer(reply, result.map_err(LaneError::from)),
        }
        self.check_quiesces();
    }

    /// Payload has been copied through memory of this process.
    pub fn copied(&self, bytes: u64) {
        self.shared.copied.fetch_add(bytes, Ordering::Relaxed);
    }

    fn forget(&mut self, payload: Option<PayloadId>) {
        if let Some(payload) = payload {
            self.payloads.remove(payload);
        }
    }

    pub fn check_quiesces(&mut self) {
        if self.quiesces.is_empty() {
            return;
        }
        let serials = self.requests.iter().map(|(_, pending)| pending.serial);
        let oldest = serials.min().unwrap_or(u64::MAX);
        let (ready, waiting) = std::mem::take(&mut self.quiesces)
            .into_iter()
            .partition(|(serial, _)| oldest > *serial);
        self.quiesces = waiting;
        for (_, reply) in ready {
            let empty = ByteRange::default();
            let requester = Requester::Quiesce { reply };
            self.submit(
                requester,
                Op::Flush,
                empty,
                Flags::empty(),
                Origin::Internal,
            );
        }
    }

    /// Answers a command.
    pub fn answer<T>(&self, reply: Reply<T>, result: Result<T, LaneError>) {
        // Who asked may have given up.
        let _gone = reply.send(result);
    }

    /// Memory from the pool, in turn: `None` puts the asker into the line.
    pub fn alloc(&mut self, len: usize, waiter: Waiter) -> Option<BufMut> {
        let first = self.waiters.front().is_none_or(|front| *front == waiter);
        let buf = first.then(|| self.pool.alloc(len)).flatten();
        match &buf {
            Some(_) if self.waiters.front() == Some(&waiter) => {
                self.waiters.pop_front();
            }
            None if !self.waiters.contains(&waiter) => self.waiters.push_back(waiter),
            _ => {}
        }
        buf
    }

    /// Lets the first who waits for memory try again; says whether it got on.
    pub fn retry_waiter(&mut self) -> bool {
        match self.waiters.front().copied() {
            None => false,
            Some(waiter @ Waiter::Conn(key)) => {
                self.pump_conn(key);
                self.waiters.front() != Some(&waiter)
            }
            Some(waiter @ Waiter::Ublk) => {
                self.pump_ublk();
                self.waiters.front() != Some(&waiter)
            }
            Some(waiter @ Waiter::Feed) => {
                self.pump_work();
                self.waiters.front() != Some(&waiter)
            }
        }
    }
}
