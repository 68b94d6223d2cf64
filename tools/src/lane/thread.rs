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
use super::feeds::{Mark, Piped};
use super::handle::Shared;
use super::meter::LaneMeters;
use super::nbd::{Conn, NbdStep};
use super::payload::Payloads;
use super::requests::Pending;
use super::start::{limits, read_logs};
use super::ublk::{UBLK_SLOTS, Ublk, UblkTag};
use super::wake::Waker;
use super::{FeedOutlet, LaneError, LaneEvent, LaneSpec, LaneStats};
use blockio::{IoError, IoErrorKind, Limits, PayloadId};
use nbd_export::Token;
use ringio::{BufMut, BufPool, BufSlice, Completed, Op, Ring, RingConfig};
use slab::Slab;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use volmgr::engine::{Action, DiskId, Engine, EngineConfig, FeedId, IoId, Note, VolumeLayout};

/// Between two ticks of the engine's clock, while something is going on.
const TICK: Duration = Duration::from_millis(100);
/// The same, while nothing is.
const TICK_IDLE: Duration = Duration::from_secs(1);
/// Nothing going on for this long is idle.
const IDLE_AFTER: Duration = Duration::from_secs(5);
/// Looks again for memory that other threads may have given back.
const MEMORY_RETRY: Duration = Duration::from_millis(2);
/// Steps without a look at commands and completions.
const SETTLE_MAX: usize = 4096;
/// How long a stop waits for clients to take their answers.
const STOP_CLIENTS: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 5 });

/// What belongs to an operation on the ring.
pub(super) enum Tag {
    Wake,
    Disk(DiskJob),
    Nbd(usize, NbdStep),
    Ublk(UblkTag),
    Piped(Piped),
    Equalise(Equalise),
}

impl Tag {
    /// The operation may have read or written a disk.
    fn touched_disk(&self) -> bool {
        matches!(self, Self::Disk(_))
    }
}

/// Who waits for a request.
pub(super) enum Requester {
    Nbd {
        conn: usize,
        token: Token,
        read: bool,
        payload: Option<PayloadId>,
    },
    Ublk {
        tag: UblkTag,
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

/// Who waits for memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waiter {
    Conn(usize),
    Ublk,
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
pub(super) enum Phase {
    Running,
    /// Clients are going, requests are being completed.
    Draining {
        since: Instant,
        /// They have been cut off.
        forced: bool,
    },
    /// The engine writes its last words.
    Closing,
    Ended,
}

/// All that the thread owns. The ring comes first: it lets go of the buffers before the rest goes.
pub(super) struct Lane {
    pub ring: Ring<Tag>,
    pub name: String,
    pub engine: Engine,
    pub layout: VolumeLayout,
    pub pool: BufPool,
    pub zeroes: BufSlice,
    pub disks: Disks,
    pub meters: LaneMeters,
    pub payloads: Payloads,
    pub inbox: Inbox,
    pub shared: Arc<Shared>,
    /// The engine writes here; `take_out` empties it.
    pub out: Vec<Action>,
    actions: VecDeque<Action>,
    /// Results for the engine.
    pub results: VecDeque<(IoId, Result<(), IoError>)>,
    pub requests: Slab<Pending>,
    pub serial: u64,
    pub conns: Slab<Conn>,
    pub dirty_conns: VecDeque<usize>,
    pub ublk: Option<Ublk>,
    /// Devices served so far.
    pub ublk_number: u64,
    pub waiters: VecDeque<Waiter>,
    pub jobs: Slab<Job>,
    pub cutting: Option<Cutting>,
    pub grants: HashMap<u64, Grant>,
    pub granted: Vec<u64>,
    pub next_grant: u64,
    pub outlets: HashMap<FeedId, Box<dyn FeedOutlet>>,
    pub marks: HashMap<IoId, Mark>,
    /// Bulk copies that other threads perform: for which feed, from which files.
    pub copies: HashMap<IoId, (FeedId, Vec<DiskId>)>,
    /// Waiting until all requests with lower serial numbers are done.
    pub quiesces: Vec<(u64, Reply<()>)>,
    /// Waiting until the engine's maps are in the log as they were at a barrier.
    pub durables: Vec<(Instant, super::feeds::Durable, Reply<()>)>,
    backlog: VecDeque<LaneEvent>,
    pub stop_replies: Vec<Reply<()>>,
    pub phase: Phase,
    pub stats: LaneStats,
    started: Instant,
    last_tick: Instant,
    pub last_busy: Instant,
    /// The clock, as it was when the thread last came out of the ring: a look at it for each
    /// operation would be a good part of what a small request costs.
    pub now: Instant,
}

impl Lane {
    pub fn new(
        spec: LaneSpec,
        disks: Disks,
        inbox: Inbox,
        shared: Arc<Shared>,
    ) -> Result<Self, LaneError> {
        let pool = BufPool::new(spec.pool_bytes)?;
        let config = RingConfig {
            kernel_slots: UBLK_SLOTS,
            ..RingConfig::default()
        };
        let mut ring = Ring::new(config, Some(&pool))?;
        if let Some(error) = ring.unregistered_why() {
            tracing::info!(volume = %spec.name, %error, "buffers are not registered");
        }
        for disk in disks.iter() {
            ring.fix_file(&disk.io);
        }
        let mut payloads = Payloads::default();
        // A copy is of whole regions.
        let region = usize::try_from(spec.layout.region_size).unwrap_or(usize::MAX);
        let bounce_bytes = spec.bounce_bytes.max(region);
        let bounces = (0..spec.bounces)
            .map(|_| BufMut::standalone(bounce_bytes).map(|buf| payloads.add_empty(buf)))
            .collect::<Result<Vec<_>, _>>()?;
        let logs = read_logs(&spec.layout, &disks)?;
        let config = EngineConfig {
            bounce: bounces,
            bounce_bytes: bounce_bytes as u64,
            clean: spec.clean,
            max_read_errors: spec.max_read_errors,
            clear_interval_ms: spec.clear_interval_ms,
            ..EngineConfig::default()
        };
        let engine = Engine::new(spec.layout.clone(), config, logs)?;
        let now = Instant::now();
        let meters = LaneMeters::new(&spec.layout, &disks, Arc::clone(&shared.meters));
        Ok(Self {
            ring,
            name: spec.name,
            engine,
            layout: spec.layout,
            pool,
            zeroes: zeroes()?,
            disks,
            meters,
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
            ublk: None,
            ublk_number: 0,
            waiters: VecDeque::new(),
            jobs: Slab::new(),
            cutting: None,
            grants: HashMap::new(),
            granted: Vec::new(),
            next_grant: 0,
            outlets: HashMap::new(),
            marks: HashMap::new(),
            copies: HashMap::new(),
            quiesces: Vec::new(),
            durables: Vec::new(),
            backlog: VecDeque::new(),
            stop_replies: Vec::new(),
            phase: Phase::Running,
            stats: LaneStats::default(),
            started: now,
            last_tick: now,
            last_busy: now,
            now,
        })
    }

    pub fn run(mut self) {
        let failure = self.serve().err();
        if let Some(error) = &failure {
            tracing::error!(volume = %self.name, %error, "the lane has failed");
        }
        let replies = std::mem::take(&mut self.stop_replies);
        let events = self.inbox.events.clone();
        let backlog = std::mem::take(&mut self.backlog);
        // Files are closed and buffers free before anyone is told.
        self.dismantle();
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

    fn dismantle(self) {
        let unanswered = !self.requests.is_empty();
        let Self {
            engine,
            out,
            actions,
            ..
        } = self;
        if unanswered {
            // A lane that fails (or crashes in a test) leaves requests open. Their clients are hung
            // up on; the tickets must not report a bug on top of that.
            std::mem::forget((engine, out, actions));
        }
    }

    fn serve(&mut self) -> Result<(), ringio::RingError> {
        self.arm_wake();
        self.tick();
        let mut completed = Vec::new();
        loop {
            self.take_commands();
            let settled = self.settle();
            self.check_durables();
            self.send_events();
            self.advance_phase();
            if matches!(self.phase, Phase::Ended) {
                return Ok(());
            }
            let idle = settled
                && self.actions.is_empty()
                && self.results.is_empty()
                && self.dirty_conns.is_empty();
            if idle {
                self.ring.submit_and_wait(1, Some(self.sleep()))?;
            } else {
                self.ring.submit_and_wait(0, None)?;
            }
            self.now = Instant::now();
            self.ring.completions(&mut completed);
            if completed.iter().any(|done| done.data.touched_disk()) {
                self.disks.check_sizes(&self.name);
            }
            for done in completed.drain(..) {
                self.completed(done);
            }
            if self.now.saturating_duration_since(self.last_tick) >= TICK {
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
            && self.ring.in_flight() <= 1 + self.conns.len() + self.ublk_tags()
            && self.now.saturating_duration_since(self.last_busy) > IDLE_AFTER
            && matches!(self.phase, Phase::Running);
        if quiet { TICK_IDLE } else { TICK }
    }

    fn tick(&mut self) {
        self.last_tick = self.now;
        let since_start = self.now.saturating_duration_since(self.started);
        let now_ms = u64::try_from(since_start.as_millis()).unwrap_or(u64::MAX);
        self.engine.tick(now_ms, &mut self.out);
        self.take_out();
        self.meters.tick(|feed| self.engine.dirty_bytes(feed));
        self.cut_off_stalled();
        self.disks.check_sizes(&self.name);
    }

    /// Moves what the engine has put out to where it is performed.
    pub fn take_out(&mut self) {
        self.actions.extend(self.out.drain(..));
    }

    fn completed(&mut self, mut done: Completed<Tag>) {
        self.last_busy = self.now;
        match std::mem::replace(&mut done.data, Tag::Wake) {
            Tag::Wake => {
                self.inbox.waker.clear();
                self.arm_wake();
            }
            Tag::Disk(job) => self.disk_completed(done, job),
            Tag::Nbd(key, step) => self.nbd_completed(done, key, step),
            Tag::Ublk(tag) => self.ublk_completed(done, tag),
            Tag::Piped(piped) => self.piped(&piped, done.result),
            Tag::Equalise(job) => self.equalise_completed(done, job),
        }
    }

    /// Works until nothing is left to do without the kernel or another thread (then it says true),
    /// or long enough to look at those again.
    fn settle(&mut self) -> bool {
        for _ in 0..SETTLE_MAX {
            if let Some(action) = self.actions.pop_front() {
                self.perform(action);
            } else if let Some((io, result)) = self.results.pop_front() {
                self.meters.feed_ended(io, result.is_ok());
                self.engine.io_done(io, result, &mut self.out);
                self.take_out();
                self.mark_done(io, result);
            } else if self.hand_out_grants() {
            } else if let Some(key) = self.dirty_conns.pop_front() {
                self.pump_conn(key);
            } else if !self.retry_waiter() && !self.pump_work() {
                return true;
            }
        }
        false
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
            Phase::Draining { since, mut forced } => {
                if !forced && since.elapsed() > STOP_CLIENTS {
                    forced = true;
                    self.phase = Phase::Draining { since, forced };
                    self.shut_down_clients(true);
                    self.drop_ublk();
                }
                if forced {
                    // They would wait for a peer that is gone.
                    self.engine.give_up_held(&mut self.out);
                    self.take_out();
                }
                if !self.conns.is_empty() || self.ublk.is_some() {
                    return;
                }
                let drained = self.requests.is_empty() && self.jobs.is_empty();
                if drained {
                    self.engine.set_stop();
                }
                if drained && self.engine.is_idle() {
                    self.phase = Phase::Closing;
                    self.engine.close(&mut self.out);
                    self.take_out();
                }
            }
            Phase::Closing => {
                if self.engine.is_idle() && self.results.is_empty() && self.actions.is_empty() {
                    self.phase = Phase::Ended;
                }
            }
        }
    }
}
