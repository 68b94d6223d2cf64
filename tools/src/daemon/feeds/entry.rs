//! One feed of this node, as the daemon runs it.

use super::pace::Pace;
use super::record::Ask;
use crate::api::{Failure, LvName};
use feedplex::counters::FeedCounters;
use feedplex::session::{Event, FeedState};
use feedplex::streams::RateLimiter;
use feedplex::wire::control::{HashReply, Refused};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Mutex as AsyncMutex, Notify, OwnedMutexGuard, mpsc, oneshot, watch};
use uuid::Uuid;
use volmgr::model::Feed;

/// What a feed is doing, for listings and for those who wait.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// State.
    pub state: FeedState,
    /// Why, where there is something to say.
    pub reason: String,
    /// Bytes that the other side misses.
    pub dirty: u64,
    /// Bytes that the volume has.
    pub size: u64,
    /// Bytes per second, over the last second.
    pub rate: u64,
    /// Grows with each attempt to connect that has ended.
    pub attempts: u64,
}

/// A session that runs, from outside.
#[derive(Clone)]
pub struct Running {
    /// Into the session.
    pub events: mpsc::UnboundedSender<Event>,
    /// This side's last known role is the source.
    pub source: bool,
}

/// A feed.
pub struct FeedEntry {
    /// The feed.
    pub uuid: Uuid,
    /// The peer's name.
    pub peer: String,
    /// This side makes the connections.
    pub initiator: bool,
    /// What the streams of all sessions moved.
    pub counters: Arc<FeedCounters>,
    /// Upper bound of resync traffic.
    pub limiter: Arc<RateLimiter>,
    /// Wakes the task that connects.
    pub wake: Notify,
    /// Held by the session that runs.
    pub session: Arc<AsyncMutex<()>>,
    status: watch::Sender<Status>,
    inner: Mutex<Inner>,
    next_request: AtomicU64,
    seen: AtomicU64,
    /// When a comparison on schedule was last begun, and whether it goes on.
    tried: AtomicU64,
    comparing: AtomicBool,
    pace: Mutex<Pace>,
}

struct Inner {
    lv: LvName,
    ask: Ask,
    provisional: Option<Feed>,
    running: Option<Running>,
    hashes: HashMap<u64, oneshot::Sender<HashReply>>,
    refusal: Option<oneshot::Sender<Refused>>,
    enabled: bool,
    gone: bool,
}

impl FeedEntry {
    /// A feed that nothing is known of yet but its record.
    pub fn new(lv: LvName, feed: &Feed, size: u64, state: FeedState) -> Self {
        let status = Status {
            state,
            reason: String::new(),
            dirty: 0,
            size,
            rate: 0,
            attempts: 0,
        };
        Self {
            uuid: feed.uuid,
            peer: feed.peer.clone(),
            initiator: feed.initiator,
            counters: Arc::new(FeedCounters::default()),
            limiter: Arc::new(RateLimiter::new(feed.rate)),
            wake: Notify::new(),
            session: Arc::new(AsyncMutex::new(())),
            status: watch::channel(status).0,
            inner: Mutex::new(Inner {
                lv,
                ask: Ask::default(),
                provisional: None,
                running: None,
                hashes: HashMap::new(),
                refusal: None,
                enabled: true,
                gone: false,
            }),
            next_request: AtomicU64::new(1),
            seen: AtomicU64::new(feed.peer_stamp),
            tried: AtomicU64::new(0),
            comparing: AtomicBool::new(false),
            pace: Mutex::new(Pace::default()),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Each change is one assignment: there is nothing half done to fear.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The volume.
    pub fn lv(&self) -> LvName {
        self.inner().lv.clone()
    }

    /// The volume has another name.
    pub fn renamed(&self, lv: LvName) {
        self.inner().lv = lv;
    }

    /// Status now.
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Status as it changes.
    pub fn watch(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Changes the status; whoever waits is told if it is another one.
    pub fn update(&self, change: impl FnOnce(&mut Status)) {
        self.status.send_if_modified(|status| {
            let before = status.clone();
            change(status);
            *status != before
        });
    }

    /// What the next attempt to connect asks for. Used up by [`Self::take_ask`].
    pub fn ask(&self, ask: Ask, provisional: Option<Feed>) {
        let mut inner = self.inner();
        inner.ask = ask;
        inner.provisional = provisional;
        inner.enabled = true;
    }

    /// What this attempt asks for.
    pub fn take_ask(&self) -> Ask {
        std::mem::take(&mut self.inner().ask)
    }

    /// The record of a first attempt, until it has been committed.
    pub fn provisional(&self) -> Option<Feed> {
        self.inner().provisional.clone()
    }

    /// The record has been committed.
    pub fn committed(&self) {
        self.inner().provisional = None;
    }

    /// May the task connect by itself?
    pub fn enabled(&self) -> bool {
        self.inner().enabled
    }

    /// Lets the task connect, or not before the admin says so.
    pub fn set_enabled(&self, enabled: bool) {
        self.inner().enabled = enabled;
    }

    /// The feed is no more: its task ends.
    pub fn give_up(&self) {
        self.inner().gone = true;
        self.send(Event::Stop);
        self.wake.notify_one();
    }

    /// Has it been given up?
    pub fn is_gone(&self) -> bool {
        self.inner().gone
    }

    /// A session runs, or none.
    pub fn set_running(&self, running: Option<Running>) {
        let mut inner = self.inner();
        if running.is_none() {
            inner.hashes.clear();
            inner.refusal = None;
        }
        inner.running = running;
    }

    /// The session that runs.
    pub fn running(&self) -> Option<Running> {
        self.inner().running.clone()
    }

    /// Tells the session that runs; false where there is none.
    pub fn send(&self, event: Event) -> bool {
        self.running()
            .is_some_and(|running| running.events.send(event).is_ok())
    }

    /// Will be told if the peer or the session refuses what is asked next.
    pub fn expect_refusal(&self) -> oneshot::Receiver<Refused> {
        let (sender, receiver) = oneshot::channel();
        self.inner().refusal = Some(sender);
        receiver
    }

    /// The peer or the session has refused something.
    pub fn refused(&self, refused: Refused) {
        if let Some(sender) = self.inner().refusal.take() {
            // Whoever asked may have given up waiting.
            let _gone = sender.send(refused);
        }
    }

    /// How far the other side's log has been seen to come.
    pub fn seen(&self) -> u64 {
        self.seen.load(Ordering::Relaxed)
    }

    /// The other side's log has come so far.
    pub fn saw(&self, stamp: u64) {
        self.seen.fetch_max(stamp, Ordering::Relaxed);
    }

    /// Both sides have agreed on this, whatever was seen before.
    pub fn agreed_on(&self, stamp: u64) {
        self.seen.store(stamp, Ordering::Relaxed);
    }

    /// When a comparison on schedule was last begun, in seconds since 1970-01-01 UTC, 0 for never.
    pub fn tried(&self) -> u64 {
        self.tried.load(Ordering::Relaxed)
    }

    /// Such a comparison begins; false where one goes on.
    pub fn begin_verify(&self, now: u64) -> bool {
        let begins = !self.comparing.swap(true, Ordering::AcqRel);
        if begins {
            self.tried.store(now, Ordering::Relaxed);
        }
        begins
    }

    /// It has ended, well or badly.
    pub fn end_verify(&self) {
        self.comparing.store(false, Ordering::Release);
    }

    /// What decides how fast it copies.
    pub fn pace(&self) -> MutexGuard<'_, Pace> {
        // A look that was cut off has changed nothing yet, or all of it.
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number for a hash request, and where its answer comes.
    pub fn expect_hashes(&self) -> (u64, oneshot::Receiver<HashReply>) {
        let request = self.next_request.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        self.inner().hashes.insert(request, sender);
        (request, receiver)
    }

    /// Hashes have come.
    pub fn hashes(&self, reply: HashReply) {
        if let Some(sender) = self.inner().hashes.remove(&reply.request) {
            // Whoever asked may have given up waiting.
            let _gone = sender.send(reply);
        }
    }

    /// Waits until no session runs and keeps others out; `None` where that takes too long.
    pub async fn exclusive(&self, limit: Duration) -> Option<OwnedMutexGuard<()>> {
        let lock = self.session.clone().lock_owned();
        tokio::time::timeout(limit, lock).await.ok()
    }

    /// Waits for a status that `wanted` accepts, calling `look` with each one on the way.
    pub async fn wait_for(
        &self,
        mut wanted: impl FnMut(&Status) -> Option<Result<(), Failure>>,
    ) -> Result<(), Failure> {
        let mut watch = self.watch();
        loop {
            let status = watch.borrow_and_update().clone();
            if let Some(result) = wanted(&status) {
                return result;
            }
            if watch.changed().await.is_err() {
                return Ok(());
            }
        }
    }
}
