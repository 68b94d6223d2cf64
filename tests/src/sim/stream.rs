//! Data streams: the source's books of what the sink has, the sink's of what it has done. The books
//! are `feedplex`'s own; the threads around them are modelled.

use super::boot::disk_of;
use super::lane::Owner;
use super::net::{Body, Frame};
use super::world::World;
use blockio::{ByteRange, Flags, IoError, IoErrorKind, Op};
use feedplex::generation::Role;
use feedplex::session::Event;
use feedplex::streams::{AckTracker, StreamProgress};
use feedplex::wire::control::Ack;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use uuid::Uuid;
use volmgr::engine::{FeedCopy, FeedId, FeedIo, IoId};

/// Frames of the live stream that may wait for the network.
const LIVE_QUEUE: usize = 12;

/// Tokens of operations that have ended.
type Done = Arc<Mutex<Vec<(u64, Result<(), IoError>)>>>;

/// The streams of a session at the source.
pub struct SourceStreams {
    /// Of the live stream.
    pub live_acks: Arc<AckTracker>,
    /// Of the bulk stream.
    pub bulk_acks: Arc<AckTracker>,
    done: Done,
    /// Copies that wait to be read, or were read and wait to be sent.
    pub bulk: VecDeque<(FeedCopy, Option<Vec<u64>>)>,
    /// Copies that are on their way: what the engine calls each, and where.
    sent: Vec<(u64, FeedId, ByteRange)>,
    /// When the engine last said that nothing is missing.
    pub caught_at: Option<u64>,
}

/// What a flush at the sink was for.
#[derive(Clone, Debug)]
pub enum Flushed {
    /// To tell the source: streams were applied so far when it was asked for.
    Progress([u64; 2]),
    /// The session asked for it.
    Session(u64, [u64; 2]),
    /// The session has ended.
    Settle,
    /// The volume is about to become a sink.
    Own,
}

/// What a frame has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finished {
    /// Written.
    Write,
    /// Written, durably.
    Durable,
    /// Flushed what came before it.
    Flush,
}

/// The streams of a session at the sink.
pub struct SinkStreams {
    progress: [Arc<StreamProgress>; 2],
    told: [(u64, u64); 2],
    /// Operations that the volume has not answered.
    pub under_way: usize,
    /// The session's flush, not submitted yet: its name, and the live frame that it waits for.
    pub asked_flush: Option<(u64, Option<u64>)>,
    flushing: bool,
    /// Step at which the source's engine gave the last live frame that has come.
    pub last_at: u64,
}

impl SinkStreams {
    fn applied(&self) -> [u64; 2] {
        [self.progress[0].applied(), self.progress[1].applied()]
    }

    /// Has the volume failed a frame?
    pub fn has_failed(&self) -> bool {
        self.progress.iter().any(|p| p.failure().is_some())
    }

    /// Something is applied and not durable, or durable and not told, or to be flushed.
    pub fn has_work(&self) -> bool {
        let news = |(p, told): (&Arc<StreamProgress>, &(u64, u64))| {
            p.applied() > p.durable() || p.durable() != told.1
        };
        self.progress.iter().zip(&self.told).any(news) || self.asked_flush.is_some()
    }
}

impl World {
    /// The side that connects makes the data streams.
    pub fn connect_streams(&mut self, n: usize, id: u64) {
        let role = self.daemon(n).sessions[&id].role();
        let Some((conn, end)) = self.end_of(n, id) else {
            return;
        };
        let peer = {
            let conn = self.conns.get_mut(&conn).expect("it is there");
            let broken = !conn.expected || conn.ends[1 - end].1 == 0;
            if broken {
                None
            } else {
                conn.data = vec![VecDeque::new(); 2];
                conn.sink = match role {
                    Some(Role::Source) => 1 - end,
                    _ => end,
                };
                Some(conn.ends[1 - end])
            }
        };
        match peer {
            Some((peer, other)) => {
                for (node, sess) in [(n, id), (peer, other)] {
                    let daemon = self.nodes[node].up.as_mut();
                    if let Some(sess) = daemon.and_then(|d| d.sessions.get_mut(&sess)) {
                        sess.push_streams();
                    }
                }
            }
            None => {
                let sess = self.daemon(n).sessions.get_mut(&id);
                sess.into_iter().for_each(|s| s.push(Event::Disconnected));
            }
        }
    }

    /// The streams' threads start.
    pub fn start_streams(&mut self, n: usize, id: u64) {
        self.totals.sessions += 1;
        let sess = self.daemon(n).sessions.get_mut(&id);
        let sess = sess.expect("the session runs");
        match sess.role() {
            Some(Role::Source) => {
                let done = Done::default();
                let tracker = || {
                    let done = done.clone();
                    Arc::new(AckTracker::new(Box::new(move |token, result| {
                        let mut done = done.lock().unwrap_or_else(|e| e.into_inner());
                        done.push((token, result));
                    })))
                };
                sess.source = Some(SourceStreams {
                    live_acks: tracker(),
                    bulk_acks: tracker(),
                    done: done.clone(),
                    bulk: VecDeque::new(),
                    sent: Vec::new(),
                    caught_at: None,
                });
            }
            _ => {
                let progress = || Arc::new(StreamProgress::new(|_| {}));
                sess.sink = Some(SinkStreams {
                    progress: [progress(), progress()],
                    told: [(0, 0); 2],
                    under_way: 0,
                    asked_flush: None,
                    flushing: false,
                    last_at: 0,
                });
            }
        }
    }

    /// The streams' threads end.
    pub fn end_streams(&mut self, n: usize, id: u64) {
        let sess = self.daemon(n).sessions.get_mut(&id);
        let sess = sess.expect("the session runs");
        if let Some(source) = &mut sess.source {
            let gone = IoError::new(IoErrorKind::Gone);
            source.bulk.clear();
            source.live_acks.close(gone);
            source.bulk_acks.close(gone);
        }
        self.tell_done(n, id);
        let daemon = self.daemon(n);
        daemon.outlets.retain(|_, sess| *sess != id);
    }

    /// Passes what the streams' books say on to the engine.
    pub fn tell_done(&mut self, n: usize, id: u64) {
        let source = self
            .daemon(n)
            .sessions
            .get_mut(&id)
            .and_then(|s| s.source.as_mut());
        let Some(source) = source else {
            return;
        };
        let ended = std::mem::take(&mut *source.done.lock().unwrap_or_else(|e| e.into_inner()));
        let mut copies = Vec::new();
        for (token, result) in &ended {
            let copy = source.sent.extract_if(.., |sent| sent.0 == *token);
            copies.extend(copy.filter(|_| result.is_ok()));
        }
        let at = self.step;
        for (token, result) in ended {
            self.io_done(n, IoId(token), result);
        }
        for (_, feed, range) in copies {
            self.check_copied(n, id, feed, range, at);
        }
    }

    fn outlet(&mut self, n: usize, feed: FeedId) -> Option<(u64, u64)> {
        let id = *self.daemon(n).outlets.get(&feed)?;
        let conn = self.daemon(n).sessions.get(&id)?.conn;
        Some((id, conn))
    }

    /// A live operation goes into the live stream, or is refused.
    pub fn send_live(&mut self, n: usize, io: FeedIo) {
        let Some((id, conn)) = self.outlet(n, io.feed) else {
            return self.refuse(n, io.io, IoErrorKind::Gone);
        };
        let daemon = self.daemon(n);
        let count = (io.range.len() / super::disk::SECTOR) as usize;
        let values = match io.payload {
            Some(payload) => {
                let skip = (payload.skip / super::disk::SECTOR) as usize;
                daemon.payloads[&payload.id.0][skip..skip + count].to_vec()
            }
            None => vec![0; count],
        };
        let body = Body::Op(io.op, io.range, values);
        let fua = io.flags.contains(Flags::FUA);
        self.push_live(n, id, conn, io.io, fua, body);
    }

    /// A mark goes into the live stream.
    pub fn send_mark(&mut self, n: usize, io: IoId, feed: FeedId) {
        let mark = self.daemon(n).marks.get(&io).copied();
        match (mark, self.outlet(n, feed)) {
            (Some((_, point, _)), Some((id, conn))) => {
                self.marked(n, point);
                self.push_live(n, id, conn, io, false, Body::Mark(point));
            }
            _ => self.refuse(n, io, IoErrorKind::Gone),
        }
    }

    fn refuse(&mut self, n: usize, io: IoId, kind: IoErrorKind) {
        let error = Err(IoError::new(kind));
        self.daemon(n).results.push_back((io, error));
    }

    fn push_live(&mut self, n: usize, id: u64, conn: u64, io: IoId, fua: bool, body: Body) {
        let full = self
            .conns
            .get(&conn)
            .is_some_and(|c| c.data.first().is_some_and(|d| d.len() >= LIVE_QUEUE));
        let unlucky = self.faults && self.rng.chance(1);
        if full || unlucky {
            return self.refuse(n, io, IoErrorKind::Congested);
        }
        let source = self
            .daemon(n)
            .sessions
            .get(&id)
            .and_then(|s| s.source.as_ref());
        let Some(Ok(sequence)) = source.map(|s| s.live_acks.open_with_sequence(io.0)) else {
            return self.refuse(n, io, IoErrorKind::Congested);
        };
        let frame = Frame {
            sequence,
            fua,
            body,
            at: self.step,
        };
        if let Some(conn) = self.conns.get_mut(&conn) {
            conn.send_frame(0, frame);
        }
    }

    /// A bulk copy waits for the thread that reads and sends it.
    pub fn send_bulk(&mut self, n: usize, copy: FeedCopy) {
        let io = copy.io;
        let Some((id, _)) = self.outlet(n, copy.feed) else {
            return self.refuse(n, io, IoErrorKind::Gone);
        };
        let sess = self.daemon(n).sessions.get_mut(&id);
        let source = sess.and_then(|s| s.source.as_mut());
        match source {
            Some(source) if source.bulk_acks.open(io.0).is_ok() => {
                source.bulk.push_back((copy, None));
            }
            _ => self.refuse(n, io, IoErrorKind::Congested),
        }
    }

    /// The bulk thread reads the disks, then sends.
    pub fn bulk(&mut self, n: usize, id: u64) {
        let unlucky = self.faults && self.rng.chance(2);
        let node = &mut self.nodes[n];
        let daemon = node.up.as_mut().expect("the node is up");
        let epochs = &daemon.epochs;
        let sess = daemon.sessions.get_mut(&id);
        let Some(source) = sess.and_then(|s| s.source.as_mut()) else {
            return;
        };
        let Some((copy, data)) = source.bulk.pop_front() else {
            return;
        };
        let Some(data) = data else {
            let mut data = Vec::new();
            for at in &copy.segments {
                let disk = disk_of(epochs, at.disk).map(|d| &node.disks[d]);
                let count = (at.range.len() / super::disk::SECTOR) as usize;
                let first = disk.map_or(0, |d| d.sector(at.range.start()));
                match disk {
                    Some(disk)
                        if !unlucky
                            && !disk.dead
                            && !(first..first + count).any(|s| disk.bad.contains(&s)) =>
                    {
                        data.extend_from_slice(&disk.view[first..first + count]);
                    }
                    _ => {
                        let error = IoError::new(IoErrorKind::Medium);
                        source.bulk_acks.fail(copy.io.0, error);
                        return self.tell_done(n, id);
                    }
                }
            }
            let (read, range) = (data.clone(), copy.range);
            let disks = copy
                .segments
                .iter()
                .filter_map(|at| disk_of(epochs, at.disk));
            let disks: Vec<usize> = disks.collect();
            source.bulk.push_front((copy, Some(data)));
            let old = self.is_old(n, range, &read, &disks);
            self.totals.old_copies += u64::from(old);
            return;
        };
        let sequence = source.bulk_acks.next_sequence();
        let conn = daemon.sessions[&id].conn;
        let frame = Frame {
            sequence,
            fua: false,
            body: Body::Op(Op::Write, copy.range, data),
            at: self.step,
        };
        if let Some(conn) = self.conns.get_mut(&conn) {
            conn.send_frame(1, frame);
        }
        let source = self
            .daemon(n)
            .sessions
            .get_mut(&id)
            .and_then(|s| s.source.as_mut());
        if let Some(source) = source {
            source.sent.push((copy.io.0, copy.feed, copy.range));
            source.bulk_acks.seal(copy.io.0, sequence);
        }
        self.tell_done(n, id);
    }

    /// The session whose streams take this feed's operations.
    pub fn session_of(&mut self, n: usize, feed: FeedId) -> Option<&mut super::session::Sess> {
        let daemon = self.daemon(n);
        let id = *daemon.outlets.get(&feed)?;
        daemon.sessions.get_mut(&id)
    }

    /// The lane takes the feed's streams away.
    pub fn feed_offline(&mut self, n: usize, feed: FeedId) {
        self.daemon(n).outlets.remove(&feed);
        self.call(n, |engine, out| engine.feed_offline(feed, out));
        let lost = self.daemon(n).marks.extract_if(|_, mark| mark.0 == feed);
        let lost: Vec<_> = lost.collect();
        for (_, mark) in lost {
            self.mark_done(n, mark, false);
        }
    }

    /// A mark for the live stream.
    pub fn request_mark(&mut self, n: usize, id: u64, feed: FeedId, point: Uuid) {
        let mut out = Vec::new();
        let daemon = self.daemon(n);
        match daemon.engine.mark(feed, true, &mut out) {
            Some(io) => {
                daemon.marks.insert(io, (feed, point, id));
                daemon.out.extend(out);
                self.take_out(n);
            }
            None => {
                let sess = daemon.sessions.get_mut(&id);
                sess.into_iter()
                    .for_each(|s| s.push(Event::MarkFailed { point }));
            }
        }
    }

    /// A mark is durable at the sink, or never was.
    pub fn mark_done(&mut self, n: usize, mark: (FeedId, Uuid, u64), good: bool) {
        let (feed, point, sess) = mark;
        if good {
            self.daemon(n).outlets.remove(&feed);
        } else if let Some(sess) = self.daemon(n).sessions.get_mut(&sess) {
            sess.push(Event::MarkFailed { point });
        }
    }

    /// The sink takes the next frame of a stream.
    pub fn receive(&mut self, conn: u64, stream: usize) {
        let Some(c) = self.conns.get_mut(&conn) else {
            return;
        };
        let (n, id) = c.ends[c.sink];
        let daemon = self.nodes[n].up.as_mut();
        let sess = daemon.and_then(|d| d.sessions.get_mut(&id));
        let Some(sink) = sess.and_then(|s| s.sink.as_mut()) else {
            return;
        };
        let Some(frame) = c.data[stream].front() else {
            return;
        };
        // A stream that has failed takes nothing any more; a flush waits for what is before it.
        let progress = sink.progress[stream].clone();
        let waits = matches!(&frame.body, Body::Op(Op::Flush, ..))
            && progress.applied() < frame.sequence - 1;
        if progress.failure().is_some() || waits {
            return;
        }
        let frame = c.data[stream].pop_front().expect("there is one");
        if stream == 0 {
            sink.last_at = frame.at;
        }
        self.note(|| format!("n{n} stream {stream} gets {frame:?}"));
        self.claim_moves(conn, stream, frame.at);
        let owner = Owner::Frame(id, stream, frame.sequence);
        let mut flags = Flags::empty();
        flags.set(Flags::FUA, frame.fua);
        match frame.body {
            Body::Mark(point) => {
                progress.complete(frame.sequence, true);
                let sess = self.daemon(n).sessions.get_mut(&id);
                sess.into_iter()
                    .for_each(|s| s.push(Event::MarkReached { point }));
            }
            Body::Op(op, range, values) => {
                self.count(n, id, 1);
                match op {
                    Op::Flush => self.flush(n, owner),
                    op => self.write(n, op, range, values, flags, owner),
                }
            }
        }
    }

    fn count(&mut self, n: usize, id: u64, more: isize) {
        let sess = self.daemon(n).sessions.get_mut(&id);
        if let Some(sink) = sess.and_then(|s| s.sink.as_mut()) {
            sink.under_way = sink.under_way.saturating_add_signed(more);
        }
    }

    /// What a frame asked for is done.
    pub fn frame_done(
        &mut self,
        n: usize,
        owner: Owner,
        what: Finished,
        result: Result<(), IoError>,
    ) {
        let Owner::Frame(id, stream, sequence) = owner else {
            return;
        };
        self.count(n, id, -1);
        let sess = self.daemon(n).sessions.get_mut(&id);
        let Some(sess) = sess else { return };
        let Some(sink) = &sess.sink else { return };
        match result {
            Ok(()) => {
                if what == Finished::Flush {
                    sink.progress[stream].flushed(sequence - 1);
                }
                sink.progress[stream].complete(sequence, what != Finished::Write);
            }
            Err(error) => {
                sink.progress[stream].fail(error);
                sess.push(Event::Disconnected);
            }
        }
    }

    /// The sink makes durable what is applied, and tells the source.
    pub fn acknowledge(&mut self, n: usize, id: u64) {
        let sess = self.daemon(n).sessions.get_mut(&id);
        let sess = sess.expect("the session runs");
        let closing = sess.is_closing();
        let sink = sess.sink.as_mut().expect("it is a sink");
        if closing {
            sink.asked_flush = None;
            sink.told = [0, 1].map(|s| (0, sink.progress[s].durable()));
            if sink.progress.iter().all(|p| p.applied() == p.durable()) || sink.flushing {
                return;
            }
        }
        let applied = sink.applied();
        if let Some((flush, sequence)) = sink.asked_flush {
            let ready = match sequence {
                Some(sequence) => applied[0] >= sequence,
                None => sink.under_way == 0,
            };
            if ready {
                sink.asked_flush = None;
                let owner = Owner::Flush(id, Flushed::Session(flush, applied));
                return self.flush(n, owner);
            }
        }
        if self.rng.chance(40)
            && !self.daemon(n).sessions[&id]
                .sink
                .as_ref()
                .is_some_and(|s| s.flushing)
        {
            let sess = self.daemon(n).sessions.get_mut(&id);
            let sink = sess.and_then(|s| s.sink.as_mut()).expect("it is a sink");
            if sink.progress.iter().any(|p| p.applied() > p.durable()) {
                sink.flushing = true;
                let owner = Owner::Flush(id, Flushed::Progress(applied));
                return self.flush(n, owner);
            }
        }
        let sess = self.daemon(n).sessions.get_mut(&id).expect("it runs");
        let sink = sess.sink.as_mut().expect("it is a sink");
        let mut news = Vec::new();
        for (stream, (p, told)) in (0u16..).zip(sink.progress.iter().zip(&mut sink.told)) {
            let durable = p.durable();
            let now = (p.applied().max(durable), durable);
            if now.1 != told.1 {
                *told = now;
                news.push(Event::Progress(Ack {
                    stream,
                    applied: now.0,
                    durable: now.1,
                }));
            }
        }
        news.into_iter().for_each(|event| sess.push(event));
    }

    /// A flush of a sink is done.
    pub fn flushed(&mut self, n: usize, id: u64, purpose: Flushed, result: Result<(), IoError>) {
        let sess = self.daemon(n).sessions.get_mut(&id);
        let Some(sess) = sess else { return };
        let good = result.is_ok();
        if let Flushed::Own | Flushed::Settle = purpose {
            sess.settled = Some(good);
            return;
        }
        let Some(sink) = &mut sess.sink else { return };
        if let Flushed::Progress(applied) | Flushed::Session(_, applied) = purpose
            && good
        {
            for (progress, applied) in sink.progress.iter().zip(applied) {
                progress.flushed(applied);
            }
        }
        match purpose {
            Flushed::Progress(_) => {
                sink.flushing = false;
                if let Err(error) = result {
                    // A later flush may succeed though this one's data is lost.
                    sink.progress.iter().for_each(|p| p.fail(error));
                    sess.push(Event::Disconnected);
                }
            }
            Flushed::Session(flush, _) => sess.push(Event::Flushed { flush, ok: good }),
            Flushed::Settle | Flushed::Own => {}
        }
    }
}
