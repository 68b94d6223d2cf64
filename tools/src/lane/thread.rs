//! The lane's thread: what it owns, and the loop.
//!
//! ```text
//!   inbox --commands, work, outcomes--> +------+ --requests, results--> +--------+
//!   ring  --completions---------------> | lane |                        | engine |
//!                                       +------+ <-----actions--------- +--------+
//! ```
//!
//! `settle` runs until nothing is left to do without the kernel; then the thread sleeps in the
//! ring. Results that arise while an action is performed are queued, so the engine is never
//! entered from within itself.

use super::command::{FeedWork, LaneCommand, Outcome, Reply};
use super::delegate::{Equalise, Grant};
use super::disk::Disks;
use super::exec::{DiskJob, zeroes};
use super::external::{Cutting, Job};
use super::feeds::Mark;
use super::handle::Shared;
use super::nbd::{Conn, NbdStep};
use super::payload::Payloads;
use super::wake::Waker;
use super::{FeedOutlet, LaneError, LaneEvent, LaneSpec, LaneStats};
use blockio::{ByteRange, Flags, IoError, IoErrorKind, Limits, Op as DeviceOp};
use blockio::{Origin, PayloadId, Request, Ticket};
use crossbeam_channel::Receiver;
use nbd_export::Token;
use ringio::{BufMut, BufPool, BufSlice, Completed, Op, Ring, RingConfig};
use slab::Slab;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use volmgr::engine::{Action, DiskId, FeedId, IoId, Note, PlexLayout, VolumeLayout};

/// Between two ticks of the engine's clock, while something is going on.
const TICK: Duration = Duration::from_millis(100);
/// The same, while nothing is.
const TICK_IDLE: Duration = Duration::from_secs(1);
/// Nothing going on for this long is idle.
const IDLE_AFTER: Duration = Duration::from_secs(5);
/// Looks again for memory that other threads may have given back.
const MEMORY_RETRY: Duration = Duration::from_millis(2);
/// How long a stop waits for clients to take their answers.
const STOP_CLIENTS: Duration = Duration::from_secs(5);

/// What belongs to an operation on the ring.
pub(super) enum Tag {
    Wake,
    Disk(DiskJob),
    Nbd(usize, NbdStep),
    Equalise(Equalise),
}

/// Who waits for a request.
pub(super) enum Requester {
    Nbd {
        conn: usize,
        token: Token,
        read: bool,
        payload: Option<PayloadId>,
    },
    Job {
        job: usize,
        payload: Option<PayloadId>,
    },
    Read {
        payload: PayloadId,
        reply: Reply<BufSlice>,
    },
    Grant {
        id: u64,
    },
    Quiesce {
        reply: Reply<()>,
    },
}

/// A request under way.
struct Pending {
    requester: Requester,
    serial: u64,
    op: DeviceOp,
    len: u64,
}

/// Who waits for memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waiter {
    Conn(usize),
    Feed,
}

/// The lane's end of the channels.
pub(super) struct Inbox {
    pub commands: Receiver<LaneCommand>,
    pub work: Receiver<FeedWork>,
    pub outcomes: Receiver<Outcome>,
    pub waker: Arc<Waker>,
    pub events: mpsc::Sender<LaneEvent>,
}

/// How far the end has come.
enum Phase {
    Running,
    /// Clients are going, requests are being completed.
    Draining {
        since: Instant,
    },
    /// The engine writes its last words.
    Closing,
    Ended,
}

/// All that the thread owns. The ring comes first: it lets go of the buffers before the rest goes.
pub(super) struct Lane {
    pub ring: Ring<Tag>,
    pub name: String,
    pub engine: super::Engine,
    pub layout: VolumeLayout,
    pub pool: BufPool,
    pub zeroes: BufSlice,
    pub disks: Disks,
    pub payloads: Payloads,
    pub inbox: Inbox,
    pub shared: Arc<Shared>,
    /// The engine writes here; `take_out` empties it.
    pub out: Vec<Action>,
    actions: VecDeque<Action>,
    /// Results for the engine.
    pub results: VecDeque<(IoId, Result<(), IoError>)>,
    requests: Slab<Pending>,
    serial: u64,
    pub conns: Slab<Conn>,
    pub dirty_conns: VecDeque<usize>,
    pub waiters: VecDeque<Waiter>,
    pub jobs: Slab<Job>,
    pub cutting: Option<Cutting>,
    pub grants: HashMap<u64, Grant>,
    pub granted: Vec<u64>,
    pub next_grant: u64,
    pub outlets: HashMap<FeedId, Box<dyn FeedOutlet>>,
    pub marks: HashMap<IoId, Mark>,
    /// Waiting until all requests with lower serial numbers are done.
    quiesces: Vec<(u64, Reply<()>)>,
    backlog: VecDeque<LaneEvent>,
    stop_replies: Vec<Reply<()>>,
    phase: Phase,
    stats: LaneStats,
    started: Instant,
    last_tick: Instant,
    last_busy: Instant,
}

/// Opens everything and starts the thread; returns when the lane runs.
pub(super) fn start(spec: LaneSpec, inbox: Inbox) -> Result<Arc<Shared>, LaneError> {
    let disks = Disks::open(spec.disks.clone())?;
    let limits = limits(&spec.layout, &disks);
    let shared = Arc::new(Shared {
        limits: RwLock::new(limits),
        opens: AtomicU32::new(0),
    });
    let (report, started) = crossbeam_channel::bounded(1);
    let its = Arc::clone(&shared);
    // The kernel shows 15 bytes of it.
    let thread = format!("lane {}", spec.name);
    std::thread::Builder::new()
        .name(thread)
        .spawn(move || {
            // The ring belongs to the thread that makes it.
            let lane = Lane::new(spec, disks, inbox, its);
            let (lane, result) = match lane {
                Ok(lane) => (Some(lane), Ok(())),
                Err(error) => (None, Err(error)),
            };
            // The one who waits for it cannot have gone: it blocks.
            let _waits = report.send(result);
            if let Some(lane) = lane {
                lane.run();
            }
        })
        .map_err(LaneError::Thread)?;
    started.recv().map_err(|_| LaneError::Stopped)??;
    Ok(shared)
}

/// What the volume can do, from its layout and its disks.
fn limits(layout: &VolumeLayout, disks: &Disks) -> Limits {
    let largest = |unit: fn(&super::disk::Disk) -> u32| disks.iter().map(unit).max();
    let stripe = |plex: &PlexLayout| {
        let widths = plex.map.iter().map(|piece| match piece {
            volmgr::engine::Piece::Concat(_) => 0,
            volmgr::engine::Piece::Striped {
                stripe_size,
                columns,
            } => stripe_size.saturating_mul(columns.len() as u64),
        });
        widths.max().unwrap_or(0)
    };
    let optimal = layout.plexes.iter().map(stripe).max().unwrap_or(0);
    Limits {
        size: layout.size,
        logical_block: largest(|disk| disk.logical_block).unwrap_or(512),
        physical_block: largest(|disk| disk.physical_block).unwrap_or(4096),
        optimal_io: u32::try_from(optimal).unwrap_or(0),
        read_only: layout.fed,
        discard: true,
        // Where a disk has no fast way, it says so for each request.
        fast_zero: true,
        rotational: disks.iter().any(|disk| disk.rotational),
    }
}

impl Lane {
    fn new(
        spec: LaneSpec,
        disks: Disks,
        inbox: Inbox,
        shared: Arc<Shared>,
    ) -> Result<Self, LaneError> {
        let pool = BufPool::new(spec.pool_bytes)?;
        let mut ring = Ring::new(RingConfig::default(), Some(&pool))?;
        if let Some(error) = ring.unregistered_why() {
            tracing::info!(volume = %spec.name, %error, "buffers are not registered");
        }
        for disk in disks.iter() {
            ring.fix_file(&disk.io);
        }
        let mut payloads = Payloads::default();
        let bounces = (0..spec.bounces)
            .map(|_| BufMut::standalone(spec.bounce_bytes).map(|buf| payloads.add_empty(buf)))
            .collect::<Result<Vec<_>, _>>()?;
        let logs = read_logs(&spec.layout, &disks)?;
        let engine = super::make_engine(&spec, bounces, logs)?;
        let now = Instant::now();
        Ok(Self {
            ring,
            name: spec.name,
            engine,
            layout: spec.layout,
            pool,
            zeroes: zeroes()?,
            disks,
            payloads,
            inbox,
            shared,
            out: Vec::new(),
            actions: VecDeque::new(),
            results: VecDeque::new(),
            requests: Slab::new(),
            serial: 0,
            conns: Slab::new(),
            dirty_conns: VecDeque::new(),
            waiters: VecDeque::new(),
            jobs: Slab::new(),
            cutting: None,
            grants: HashMap::new(),
            granted: Vec::new(),
            next_grant: 0,
            outlets: HashMap::new(),
            marks: HashMap::new(),
            quiesces: Vec::new(),
            backlog: VecDeque::new(),
            stop_replies: Vec::new(),
            phase: Phase::Running,
            stats: LaneStats::default(),
            started: now,
            last_tick: now,
            last_busy: now,
        })
    }

    fn run(mut self) {
        let failure = self.serve().err();
        if let Some(error) = &failure {
            tracing::error!(volume = %self.name, %error, "the lane has failed");
        }
        let replies = std::mem::take(&mut self.stop_replies);
        let events = self.inbox.events.clone();
        let backlog = std::mem::take(&mut self.backlog);
        // Files are closed and buffers free before anyone is told.
        drop(self);
        for event in backlog {
            // A control plane that is gone needs no news.
            let _gone = events.blocking_send(event);
        }
        let failure = failure.map(|error| error.to_string());
        let _gone = events.blocking_send(LaneEvent::Stopped { failure });
        for reply in replies {
            // Nobody may be waiting.
            let _gone = reply.send(Ok(()));
        }
    }

    fn serve(&mut self) -> Result<(), ringio::RingError> {
        self.arm_wake();
        self.tick();
        let mut completed = Vec::new();
        loop {
            self.take_commands();
            self.settle();
            self.send_events();
            self.advance_phase();
            if matches!(self.phase, Phase::Ended) {
                return Ok(());
            }
            if self.actions.is_empty() && self.results.is_empty() && self.dirty_conns.is_empty() {
                self.ring.submit_and_wait(1, Some(self.sleep()))?;
            }
            self.ring.completions(&mut completed);
            for done in completed.drain(..) {
                self.completed(done);
            }
            if self.last_tick.elapsed() >= TICK {
                self.tick();
            }
        }
    }

    fn arm_wake(&mut self) {
        let file = self.inbox.waker.handle();
        let events = libc::POLLIN as u32;
        self.ring.push(Op::Poll { file, events }, Tag::Wake);
    }

    fn sleep(&self) -> Duration {
        if !self.waiters.is_empty() {
            return MEMORY_RETRY;
        }
        let quiet = self.requests.is_empty()
            && self.ring.in_flight() <= 1 + self.conns.len()
            && self.last_busy.elapsed() > IDLE_AFTER
            && matches!(self.phase, Phase::Running);
        if quiet { TICK_IDLE } else { TICK }
    }

    fn tick(&mut self) {
        self.last_tick = Instant::now();
        let now_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.engine.tick(now_ms, &mut self.out);
        self.take_out();
        self.cut_off_stalled();
    }

    /// Moves what the engine has put out to where it is performed.
    pub fn take_out(&mut self) {
        self.actions.extend(self.out.drain(..));
    }

    fn completed(&mut self, mut done: Completed<Tag>) {
        self.last_busy = Instant::now();
        match std::mem::replace(&mut done.data, Tag::Wake) {
            Tag::Wake => {
                self.inbox.waker.clear();
                self.arm_wake();
            }
            Tag::Disk(job) => self.disk_completed(done, job),
            Tag::Nbd(key, step) => self.nbd_completed(done, key, step),
            Tag::Equalise(job) => self.equalise_completed(done, job),
        }
    }

    /// Works until nothing is left to do without the kernel or another thread.
    fn settle(&mut self) {
        loop {
            if let Some(action) = self.actions.pop_front() {
                self.perform(action);
            } else if let Some((io, result)) = self.results.pop_front() {
                self.engine.io_done(io, result, &mut self.out);
                self.take_out();
                self.mark_done(io, result);
            } else if self.hand_out_grants() {
            } else if let Some(key) = self.dirty_conns.pop_front() {
                self.pump_conn(key);
            } else if !self.retry_waiter() && !self.pump_work() {
                return;
            }
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Disk(io) => self.perform_disk(io),
            Action::Log(log) => self.perform_log(log),
            Action::Feed(io) => self.perform_feed(io),
            Action::FeedCopy(copy) => self.perform_copy(copy),
            Action::FeedMark { io, feed } => self.perform_mark(io, feed),
            Action::CommitPlexState {
                io,
                plex,
                state,
                reason,
            } => {
                for known in &mut self.layout.plexes {
                    if known.id == plex {
                        known.state = state;
                    }
                }
                self.backlog.push_back(LaneEvent::CommitPlexState {
                    io,
                    plex,
                    state,
                    reason,
                });
            }
            Action::Complete { ticket, result } => self.complete(ticket, result),
            Action::Note(note) => self.note(note),
        }
    }

    fn note(&mut self, note: Note) {
        let event = LaneEvent::Note(note);
        let droppable = matches!(
            event,
            LaneEvent::Note(Note::PlexError { .. } | Note::ReadRepaired { .. })
        );
        if !droppable || (self.backlog.is_empty() && self.inbox.events.capacity() > 0) {
            self.backlog.push_back(event);
        } else {
            // Errors come in thousands; the counters have them all.
            self.stats.notes_dropped += 1;
        }
    }

    fn send_events(&mut self) {
        while let Some(event) = self.backlog.pop_front() {
            match self.inbox.events.try_send(event) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full(event)) => {
                    self.backlog.push_front(event);
                    return;
                }
                Err(mpsc::error::TrySendError::Closed(event)) => self.nobody_listens(event),
            }
        }
    }

    /// Without a control plane no plex state can be committed: what waits for it fails.
    fn nobody_listens(&mut self, event: LaneEvent) {
        if let LaneEvent::CommitPlexState { io, .. } = event {
            let gone = IoError::new(IoErrorKind::Gone);
            self.results.push_back((io, Err(gone)));
        }
    }

    /// Gives a request to the engine.
    pub fn submit(
        &mut self,
        requester: Requester,
        op: DeviceOp,
        range: ByteRange,
        flags: Flags,
        origin: Origin,
    ) {
        let payload = match &requester {
            Requester::Nbd { payload, .. } | Requester::Job { payload, .. } => *payload,
            Requester::Read { payload, .. } => Some(*payload),
            Requester::Grant { .. } | Requester::Quiesce { .. } => None,
        };
        self.submit_with(requester, op, range, flags, origin, payload);
    }

    /// The same, with a payload that the requester does not name.
    pub fn submit_with(
        &mut self,
        requester: Requester,
        op: DeviceOp,
        range: ByteRange,
        flags: Flags,
        origin: Origin,
        payload: Option<PayloadId>,
    ) {
        self.serial += 1;
        let key = self.requests.insert(Pending {
            requester,
            serial: self.serial,
            op,
            len: range.len(),
        });
        let request = Request {
            ticket: Ticket::new(key as u64),
            op,
            range,
            flags,
            payload,
            origin,
        };
        self.engine.submit(request, &mut self.out);
        self.take_out();
    }

    fn complete(&mut self, ticket: Ticket, result: Result<(), IoError>) {
        let key = ticket.complete() as usize;
        let pending = self.requests.remove(key);
        self.stats.requests += 1;
        match pending.requester {
            Requester::Nbd {
                conn,
                token,
                read,
                payload,
            } => {
                match pending.op {
                    DeviceOp::Read => self.stats.read_bytes += pending.len,
                    DeviceOp::Write => self.stats.write_bytes += pending.len,
                    _ => {}
                }
                self.nbd_done(conn, token, payload.filter(|_| read), result);
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

    fn forget(&mut self, payload: Option<PayloadId>) {
        if let Some(payload) = payload {
            self.payloads.remove(payload);
        }
    }

    fn check_quiesces(&mut self) {
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
                DeviceOp::Flush,
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
    fn retry_waiter(&mut self) -> bool {
        match self.waiters.front().copied() {
            None => false,
            Some(waiter @ Waiter::Conn(key)) => {
                self.pump_conn(key);
                self.waiters.front() != Some(&waiter)
            }
            Some(waiter @ Waiter::Feed) => {
                self.pump_work();
                self.waiters.front() != Some(&waiter)
            }
        }
    }

    /// What front ends may be told.
    pub fn limits(&self) -> Limits {
        limits(&self.layout, &self.disks)
    }

    pub fn stopping(&self) -> bool {
        !matches!(self.phase, Phase::Running)
    }

    fn advance_phase(&mut self) {
        match self.phase {
            Phase::Running | Phase::Ended => {}
            Phase::Draining { since } => {
                if !self.conns.is_empty() {
                    if since.elapsed() > STOP_CLIENTS {
                        self.shut_down_clients(true);
                        self.settle();
                    }
                    return;
                }
                let drained = self.requests.is_empty() && self.jobs.is_empty();
                if drained && self.engine.is_idle() {
                    self.phase = Phase::Closing;
                    self.engine.close(&mut self.out);
                    self.take_out();
                    self.settle();
                }
            }
            Phase::Closing => {
                if self.engine.is_idle() && self.results.is_empty() && self.actions.is_empty() {
                    self.phase = Phase::Ended;
                }
            }
        }
    }

    fn take_commands(&mut self) {
        while let Ok(command) = self.inbox.commands.try_recv() {
            self.last_busy = Instant::now();
            self.command(command);
        }
        while let Ok(outcome) = self.inbox.outcomes.try_recv() {
            self.last_busy = Instant::now();
            match outcome {
                Outcome::Io(io, result) => self.results.push_back((io, result)),
                Outcome::Grant { id, results, done } => self.grant_ended(id, results, done),
            }
        }
    }

    fn command(&mut self, command: LaneCommand) {
        match command {
            LaneCommand::AddNbd(client) => self.add_nbd(*client),
            LaneCommand::Reconfigure {
                layout,
                disks,
                reply,
            } => {
                let result = self.reconfigure(*layout, disks);
                self.answer(reply, result);
            }
            LaneCommand::FeedAttach {
                feed,
                outlet,
                reply,
            } => {
                self.feed_attach(feed, outlet);
                self.answer(reply, Ok(()));
            }
            LaneCommand::FeedOffline { feed, reply } => {
                self.feed_offline(feed);
                self.answer(reply, Ok(()));
            }
            LaneCommand::FeedBehind { feed, reply } => {
                self.engine.feed_behind(feed, &mut self.out);
                self.take_out();
                self.answer(reply, Ok(()));
            }
            LaneCommand::FeedResume { feed, reply } => {
                self.engine.feed_resume(feed, &mut self.out);
                self.take_out();
                self.answer(reply, Ok(()));
            }
            LaneCommand::Mark {
                feed,
                point,
                detach,
                reply,
            } => self.mark(feed, point, detach, reply),
            LaneCommand::SetAllDirty { feed, reply } => {
                self.engine.set_all_dirty(feed, &mut self.out);
                self.take_out();
                self.answer(reply, Ok(()));
            }
            LaneCommand::FeedMap { feed, reply } => {
                let map = self.engine.feed_map(feed).cloned();
                self.answer(reply, map.ok_or(LaneError::NoFeed));
            }
            LaneCommand::MergeFeedMap { feed, map, reply } => {
                self.engine.merge_feed_map(feed, &map, &mut self.out);
                self.take_out();
                self.answer(reply, Ok(()));
            }
            LaneCommand::Dirty {
                feeds,
                plexes,
                reply,
            } => {
                let feeds = feeds.iter().map(|feed| self.engine.dirty_bytes(*feed));
                let plexes = plexes
                    .iter()
                    .map(|plex| self.engine.plex_dirty_bytes(*plex));
                let dirty = (feeds.collect(), plexes.collect());
                self.answer(reply, Ok(dirty));
            }
            LaneCommand::Stats { reply } => {
                let stats = self.stats();
                self.answer(reply, Ok(stats));
            }
            LaneCommand::Read { range, reply } => self.read_for(range, reply),
            LaneCommand::Quiesce { reply } => {
                self.quiesces.push((self.serial, reply));
                self.check_quiesces();
            }
            LaneCommand::Stop { reply } => {
                self.stop_replies.push(reply);
                if matches!(self.phase, Phase::Running) {
                    let since = Instant::now();
                    self.phase = Phase::Draining { since };
                    self.shut_down_clients(false);
                    self.engine.set_stop();
                }
            }
            #[cfg(test)]
            LaneCommand::Crash => self.phase = Phase::Ended,
        }
    }

    fn reconfigure(
        &mut self,
        layout: VolumeLayout,
        disks: Vec<super::DiskSpec>,
    ) -> Result<(), LaneError> {
        self.disks.extend(disks)?;
        check_disks(&layout, &self.disks)?;
        for disk in self.disks.iter() {
            self.ring.fix_file(&disk.io);
        }
        self.layout = layout.clone();
        self.engine.reconfigure(layout, &mut self.out);
        self.take_out();
        let limits = self.limits();
        *self
            .shared
            .limits
            .write()
            .unwrap_or_else(PoisonError::into_inner) = limits;
        for (_, conn) in &mut self.conns {
            conn.set_limits(limits);
        }
        Ok(())
    }

    fn stats(&self) -> LaneStats {
        LaneStats {
            opens: u32::try_from(self.conns.len()).unwrap_or(u32::MAX),
            in_flight: self.requests.len() as u64,
            disk_errors: self.disks.iter().map(|disk| disk.errors).collect(),
            direct: self.disks.iter().all(|disk| disk.direct),
            unregistered: self.ring.unregistered_why().map(|why| why.to_string()),
            ..self.stats.clone()
        }
    }
}

/// Does the layout name open disks only?
fn check_disks(layout: &VolumeLayout, disks: &Disks) -> Result<(), LaneError> {
    use volmgr::engine::Piece;
    let known = |disk: DiskId| disks.get(disk).is_some();
    let pieces = layout.plexes.iter().flat_map(|plex| &plex.map);
    let all_known = pieces.into_iter().all(|piece| match piece {
        Piece::Concat(place) => known(place.disk),
        Piece::Striped { columns, .. } => columns.iter().all(|column| known(column.disk)),
    });
    let logs_known = layout.log.iter().all(|copy| known(copy.disk));
    (all_known && logs_known)
        .then_some(())
        .ok_or(LaneError::UnknownDisk)
}

/// The images of the log's copies that can be read.
fn read_logs(layout: &VolumeLayout, disks: &Disks) -> Result<Vec<Vec<u8>>, LaneError> {
    check_disks(layout, disks)?;
    let mut images = Vec::new();
    let mut failure = None;
    for copy in &layout.log {
        let disk = disks.get(copy.disk).ok_or(LaneError::UnknownDisk)?;
        match disk.read_now(copy.range) {
            Ok(image) => images.push(image),
            Err(error) => {
                tracing::warn!(disk = %disk.spec.path.display(), %error, "log copy not read");
                // The engine takes an unreadable copy as one without anything valid in it.
                images.push(Vec::new());
                failure = Some(error);
            }
        }
    }
    match failure {
        Some(error) if images.iter().all(Vec::is_empty) => Err(error),
        _ => Ok(images),
    }
}
