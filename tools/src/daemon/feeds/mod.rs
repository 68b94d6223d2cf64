//! The feeds of this node: who connects, what runs, what is told.
//!
//! | file | subject |
//! | --- | --- |
//! | `connect` | the side that connects: one task a feed |
//! | `listen` | the side that is connected to |
//! | `target` | the volume that a peer's handshake is for |
//! | `run` | drives one session: `feedplex::session` decides, this acts |
//! | `source`, `sink` | data streams on top of the lane |
//! | `twins` | nodes that are there twice |
//! | `record` | between metadata and what a session knows |
//! | `entry` | a feed as the daemon runs it |
//! | `pace` | how fast a feed copies beside applications |
//! | `schedule` | comparisons that are made by themselves |
//! | `verbs`, `verify`, `rows` | what the admin asks and sees |

mod connect;
mod control_io;
mod entry;
mod listen;
mod pace;
mod record;
mod registry;
mod rows;
mod run;
mod sample;
mod schedule;
mod sink;
mod source;
mod target;
mod twins;
mod verbs;
mod verify;

pub use rows::state_name;

use super::node::Node;
use super::verbs::Ctx;
use super::{BoxFuture, FeedService, StartError};
use crate::api::{Command, Failure, FeedSample, LvName, ReportKind, Row};
use crate::lane::{FeedLag, LaneHandle};
use blockio::ByteRange;
use entry::FeedEntry;
use feedplex::session::{Event, FeedState};
use feedplex::transport::ktls::KernelTls;
use feedplex::wire::control::{FetchRequest, Message, State, WireRange};
use registry::Registry;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use uuid::Uuid;
use volmgr::engine::{FeedId, Note};
use volmgr::model::{Direction, Feed, FeedIntent, Point, Volume};
use volmgr::plan;

/// How long a session may take to end when its volume is deactivated.
const END_TIMEOUT: Duration = Duration::from_secs(30);

/// Time a lane gets to answer a question for a listing.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);

/// The feeds.
pub struct Feeds {
    /// The node.
    pub node: Arc<Node>,
    /// Data streams that sessions expect.
    pub registry: Registry,
    /// Whether the kernel makes TLS records.
    pub kernel_tls: KernelTls,
    /// Who has called, or was called.
    pub twins: twins::Twins,
    /// The name of this run of the daemon.
    pub run: Uuid,
    entries: Mutex<BTreeMap<Uuid, Arc<FeedEntry>>>,
    me: std::sync::Weak<Feeds>,
}

/// The map that says how much a feed has before it; `None` where none is kept here.
fn progress_map(feed: &Feed) -> Option<FeedId> {
    let own = feed.is_tracked().then_some(feed.map_slot);
    feed.missing_slot().or(own).map(FeedId)
}

impl Feeds {
    /// Opens the feed port if there is one, and registers with the node.
    pub async fn start(node: &Arc<Node>) -> Result<Arc<Self>, StartError> {
        let config = &node.config.feeds;
        let mut listeners = Vec::new();
        for address in node.config.listen.iter().chain(&config.data_listen) {
            let listener = crate::daemon::tcp::listen(*address);
            listeners.push(listener.map_err(|source| StartError::Listen {
                address: address.to_string(),
                source,
            })?);
        }
        let kernel_tls = match config.kernel_tls {
            true => KernelTls::probe(config.kernel_tls_key_bytes),
            false => KernelTls::off(),
        };
        match kernel_tls.state() {
            Ok(()) => tracing::info!("the kernel makes the TLS records of feeds"),
            Err(why) => tracing::info!("TLS records of feeds are made in user space: {why}"),
        }
        let feeds = Arc::new_cyclic(|me| Self {
            node: node.clone(),
            registry: Registry::default(),
            kernel_tls,
            twins: twins::Twins::default(),
            run: Uuid::new_v4(),
            entries: Mutex::new(BTreeMap::new()),
            me: me.clone(),
        });
        node.set_feeds(feeds.clone());
        node.spawn(schedule::run(feeds.clone()));
        for listener in listeners {
            node.spawn(listen::serve(feeds.clone(), listener));
        }
        Ok(feeds)
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<Uuid, Arc<FeedEntry>>> {
        // Each change is one insertion or removal.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The feed as it runs here.
    pub fn entry(&self, feed: Uuid) -> Option<Arc<FeedEntry>> {
        self.entries().get(&feed).cloned()
    }

    /// Adds a feed and, where this side connects, starts its task. An entry that is there wins.
    pub fn add(&self, entry: Arc<FeedEntry>) -> Arc<FeedEntry> {
        let mut entries = self.entries();
        let known = entries.entry(entry.uuid).or_insert_with(|| entry.clone());
        let added = Arc::ptr_eq(known, &entry);
        let known = known.clone();
        drop(entries);
        if added
            && known.initiator
            && let Some(me) = self.me.upgrade()
        {
            let entry = known.clone();
            tokio::spawn(connect::supervise(me, entry));
        }
        known
    }

    /// Removes a feed; its session ends.
    pub fn remove(&self, feed: Uuid) {
        if let Some(entry) = self.entries().remove(&feed) {
            entry.give_up();
        }
    }

    /// The feeds of a volume.
    fn of_volume(&self, lv: &LvName) -> Vec<Arc<FeedEntry>> {
        self.entries()
            .values()
            .filter(|entry| entry.lv() == *lv)
            .cloned()
            .collect()
    }

    /// The feed's record as of the last commit.
    pub fn record(&self, entry: &FeedEntry) -> Option<(Volume, Feed)> {
        let (_, volume) = self.node.volume(&entry.lv())?;
        let feed = volume.feeds.iter().find(|feed| feed.uuid == entry.uuid)?;
        let feed = feed.clone();
        Some((volume, feed))
    }

    /// Where the feed's map is.
    fn feed_id(&self, entry: &FeedEntry) -> Option<FeedId> {
        self.record(entry).map(|(_, feed)| FeedId(feed.map_slot))
    }

    /// Size and region size of the feed's volume in bytes.
    fn geometry(&self, entry: &FeedEntry) -> Option<(u64, u64)> {
        let (view, volume) = self.node.volume(&entry.lv())?;
        Some((view.group.bytes_of(&volume), volume.region_size))
    }

    /// Commits a change of the feed's volume.
    fn commit_change(
        &self,
        entry: &FeedEntry,
        change: impl FnOnce(&mut Volume),
    ) -> Result<(), String> {
        let lv = entry.lv();
        self.node
            .commit(&lv.vg, |group| plan::update_volume(group, &lv.lv, change))
            .map(|_| ())
            .map_err(|error| error.to_string())
    }

    /// Tells the lane what the metadata says now.
    async fn reconfigure(&self, entry: &FeedEntry) -> Result<(), String> {
        self.node
            .reconfigure(&entry.lv(), &[])
            .await
            .map_err(|failure| failure.to_string())
    }

    /// A session at the sink has ended and nothing of it is in flight: what is here stays as it
    /// is, so its consistency can be believed from now on.
    async fn settle(&self, entry: &FeedEntry, lane: &LaneHandle) {
        let Some((_, feed)) = self.record(entry) else {
            return;
        };
        if feed.settled || !feed.fills() {
            return;
        }
        let result = match lane.quiesce().await {
            Ok(()) => self.commit_change(entry, |volume| {
                let found = volume.feeds.iter_mut().find(|feed| feed.uuid == entry.uuid);
                if let Some(feed) = found {
                    feed.settled = true;
                }
            }),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = result {
            tracing::warn!(
                error,
                "a sink could not be settled: it counts as not consistent"
            );
        }
    }

    /// What has been seen of the other side's log, on the disks: a daemon that is killed forgets the rest.
    fn keep_seen(&self, entry: &FeedEntry) {
        let seen = entry.seen();
        if self
            .record(entry)
            .is_none_or(|(_, feed)| feed.peer_stamp >= seen)
        {
            return;
        }
        let result = self.commit_change(entry, |volume| {
            let found = volume.feeds.iter_mut().find(|feed| feed.uuid == entry.uuid);
            if let Some(feed) = found {
                feed.peer_stamp = seen;
            }
        });
        if let Err(error) = result {
            tracing::warn!(error, "an older copy of the peer's disks may go unnoticed");
        }
    }

    /// Looks at what applications do and lets a feed copy as fast as that allows.
    fn pace(&self, entry: &FeedEntry, lane: &LaneHandle) {
        if let Some((_, feed)) = self.record(entry)
            && feed.direction == Direction::Out
        {
            entry.pace().look(entry, &feed, lane);
        }
    }

    /// Brings the numbers of a feed up to date.
    async fn look(&self, entry: &FeedEntry, lane: &LaneHandle, rate: u64) {
        let Some((_, feed)) = self.record(entry) else {
            return;
        };
        let size = self.geometry(entry).map_or(0, |(size, _)| size);
        let dirty = if let Some(map) = progress_map(&feed) {
            match lane.dirty(vec![map], Vec::new()).await {
                Ok((feeds, _)) => feeds.first().copied(),
                // The lane is stopping; the last number stands.
                Err(_) => None,
            }
        } else {
            None
        };
        entry.update(|status| {
            status.size = size;
            status.rate = rate;
            if let Some(dirty) = dirty {
                status.dirty = dirty;
            }
        });
        if feed.direction == Direction::Out
            && let Some(dirty) = dirty
            && let Some(running) = entry.running()
        {
            let state = State {
                state: entry.status().state as u16,
                dirty,
            };
            // The session may be over.
            let _gone = running.events.send(Event::Relay(Message::State(state)));
        }
    }

    /// Asks the lanes how much each feed misses now.
    async fn refresh(&self) {
        let entries: Vec<_> = self.entries().values().cloned().collect();
        for entry in entries {
            let (Some((_, feed)), Some(lane)) = (self.record(&entry), self.node.lane(&entry.lv()))
            else {
                continue;
            };
            let Some(map) = progress_map(&feed) else {
                continue;
            };
            let asked = lane.dirty(vec![map], Vec::new());
            // A lane that is busy or stopping is no reason to have no listing.
            if let Ok(Ok((dirty, _))) = tokio::time::timeout(ASK_TIMEOUT, asked).await
                && let Some(dirty) = dirty.first()
            {
                entry.update(|status| status.dirty = *dirty);
            }
        }
    }

    /// Bytes that changed on a volume since each of these points; `None` where nobody knows.
    async fn changed_since(
        &self,
        lv: &LvName,
        volume: &Volume,
        points: &[&Point],
    ) -> Vec<Option<u64>> {
        let slots: Vec<Option<u32>> = points.iter().map(|p| volume.changed_slot(p)).collect();
        let nobody = vec![None; points.len()];
        let Some(lane) = self.node.lane(lv) else {
            return nobody;
        };
        let maps = slots.iter().flatten().map(|slot| FeedId(*slot)).collect();
        let asked = lane.dirty(maps, Vec::new());
        // A lane that is busy or stopping is no reason to have no listing.
        let Ok(Ok((bytes, _))) = tokio::time::timeout(ASK_TIMEOUT, asked).await else {
            return nobody;
        };
        let mut bytes = bytes.into_iter();
        slots
            .iter()
            .map(|slot| slot.and_then(|_| bytes.next()))
            .collect()
    }

    /// The same for a feed without a session.
    async fn look_idle(&self, entry: &FeedEntry) {
        if let Some(lane) = self.node.lane(&entry.lv()) {
            self.look(entry, &lane, 0).await;
        }
    }

    /// What the record says the feed should be doing, before any session says more.
    fn resting_state(feed: &Feed) -> FeedState {
        match feed.intent {
            FeedIntent::Attached | FeedIntent::Detaching { .. } => FeedState::Disconnected,
            FeedIntent::Paused => FeedState::Paused,
            FeedIntent::Split { .. } => FeedState::Split,
        }
    }
}

impl FeedService for Feeds {
    fn command<'a>(
        &'a self,
        ctx: &'a Ctx,
        command: &'a Command,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(verbs::run(self, ctx, command))
    }

    fn rows<'a>(
        &'a self,
        kind: ReportKind,
        lv: Option<&'a LvName>,
        peer: Option<&'a str>,
    ) -> BoxFuture<'a, Vec<Row>> {
        Box::pin(async move {
            match kind {
                ReportKind::Feed => {
                    self.refresh().await;
                    rows::feeds(self, lv, peer)
                }
                ReportKind::Point => rows::points(self, lv, peer).await,
                _ => Vec::new(),
            }
        })
    }

    fn samples(&self, lv: &LvName, lags: &[(FeedId, FeedLag)]) -> Vec<FeedSample> {
        sample::samples(self, lv, lags)
    }

    fn arrived<'a>(
        &'a self,
        lv: &'a LvName,
        peer: &'a str,
    ) -> BoxFuture<'a, Result<bool, Failure>> {
        Box::pin(verify::arrived(self, lv, peer))
    }

    fn hashes<'a>(
        &'a self,
        lv: &'a LvName,
        peer: &'a str,
        range: ByteRange,
        block: u64,
    ) -> BoxFuture<'a, Result<Vec<[u8; 32]>, Failure>> {
        Box::pin(verify::hashes(self, lv, peer, range, block))
    }

    fn peer_state(&self, peer: &str) -> String {
        let connected = self
            .entries()
            .values()
            .any(|entry| entry.peer == peer && entry.running().is_some());
        if connected { "connected" } else { "idle" }.into()
    }

    fn activated(&self, lv: &LvName) {
        let Some((view, volume)) = self.node.volume(lv) else {
            return;
        };
        let size = view.group.bytes_of(&volume);
        for feed in &volume.feeds {
            let state = Self::resting_state(feed);
            let fresh = Arc::new(FeedEntry::new(lv.clone(), feed, size, state));
            let wanted = matches!(
                feed.intent,
                FeedIntent::Attached | FeedIntent::Detaching { .. }
            );
            fresh.set_enabled(wanted);
            let entry = self.add(fresh);
            entry.renamed(lv.clone());
            entry.set_enabled(wanted);
            entry.wake.notify_one();
        }
    }

    fn deactivating<'a>(&'a self, lv: &'a LvName) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            for entry in self.of_volume(lv) {
                entry.set_enabled(false);
                entry.send(Event::Stop);
                if entry.exclusive(END_TIMEOUT).await.is_none() {
                    tracing::warn!(%lv, peer = entry.peer, "a feed's session does not end");
                }
            }
        })
    }

    fn note(&self, lv: &LvName, note: &Note) {
        let (feed, event) = match note {
            Note::FeedCaughtUp { feed } => (feed, Event::CaughtUp { live_sequence: 0 }),
            Note::FeedBehind { feed } => (feed, Event::Behind),
            Note::FeedFetch { feed, ranges } => {
                let ranges = ranges.iter().map(|range| WireRange {
                    offset: range.start(),
                    length: range.len(),
                });
                let request = FetchRequest {
                    ranges: ranges.collect(),
                };
                (feed, Event::Relay(Message::FetchRequest(request)))
            }
            _ => return,
        };
        for entry in self.of_volume(lv) {
            if self.feed_id(&entry) == Some(*feed) {
                entry.send(event.clone());
            }
        }
    }

    fn peers_changed(&self) {
        let entries: Vec<_> = self.entries().values().cloned().collect();
        for entry in entries {
            // Whoever is still trusted connects again at once, the others do not.
            if entry.send(Event::Stop) || self.node.peers.get(&entry.peer).is_some() {
                entry.wake.notify_one();
            }
        }
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let entries: Vec<_> = std::mem::take(&mut *self.entries()).into_values().collect();
            for entry in &entries {
                entry.give_up();
            }
            for entry in entries {
                if entry.exclusive(END_TIMEOUT).await.is_none() {
                    tracing::warn!(peer = entry.peer, "a feed's session does not end");
                }
            }
        })
    }
}
