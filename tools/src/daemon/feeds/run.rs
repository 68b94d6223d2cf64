//! Drives one session: its connection, streams, commits and lane.

use super::Feeds;
use super::control_io::{ControlIoError, ControlWriter, split};
use super::entry::{FeedEntry, Running};
use super::record::{self, Ask};
use super::sink::SinkStreams;
use super::source::SourceStreams;
use super::target::Opened;
use crate::lane::LaneHandle;
use blockio::ByteRange;
use feedplex::generation::Role;
use feedplex::identity::Fingerprint;
use feedplex::session::{
    Action, CloseReason, CommitId, Event, FeedState, FreshIds, LocalFeed, MapChange, RecordChange,
    Rights, Session, SessionConfig,
};
use feedplex::streams::StreamThread;
use feedplex::transport::{Connection, DataStream};
use feedplex::wire::control::{
    BITMAP_CHUNK_MAX, Bitmap, Handshake, Hello, Message, RefusalCode, Refused, StreamsOffer,
    WireRange,
};
use feedplex::wire::preamble::Token;
use regionmap::RegionMap;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedMutexGuard, mpsc};
use uuid::Uuid;
use volmgr::engine::FeedId;

/// Data streams per feed: the live stream and one for bulk.
const STREAMS: u16 = 2;

/// How long a data stream may take to come.
const STREAMS_TIMEOUT: Duration = Duration::from_secs(10);

/// How often the numbers of a running feed are looked at.
const NUMBERS_EVERY: Duration = Duration::from_millis(500);

/// A session under way.
pub struct Driver {
    feeds: Arc<Feeds>,
    session: Session,
    writer: ControlWriter,
    inbox: mpsc::Receiver<Result<Message, ControlIoError>>,
    events: mpsc::UnboundedSender<Event>,
    event_inbox: mpsc::UnboundedReceiver<Event>,
    peer: PeerLink,
    began: Instant,
    bound: Option<Bound>,
    streams: Streams,
    expected: Option<Uuid>,
    streams_inbox: Option<mpsc::Receiver<Result<Vec<DataStream>, String>>>,
    /// Moved so far, at the last look.
    numbers: (Instant, u64),
}

/// Who is at the other end.
#[derive(Clone, Debug)]
pub struct PeerLink {
    /// Name in the peer list.
    pub name: String,
    /// The key it has proved; `None` in plaintext.
    pub proved: Option<Fingerprint>,
}

/// The feed that the session has turned out to be for.
struct Bound {
    entry: Arc<FeedEntry>,
    lane: LaneHandle,
    _exclusive: tokio::sync::OwnedMutexGuard<()>,
}

enum Streams {
    None,
    Source(SourceStreams),
    Sink(SinkStreams),
}

/// How a session went.
pub struct Outcome {
    /// Why it ended.
    pub reason: CloseReason,
    /// In words.
    pub text: String,
}

impl Driver {
    /// The side that connected.
    pub async fn initiator(
        feeds: Arc<Feeds>,
        entry: Arc<FeedEntry>,
        lane: LaneHandle,
        exclusive: OwnedMutexGuard<()>,
        connection: Connection,
        ask: &Ask,
        peer: PeerLink,
    ) -> Outcome {
        let local = match feeds.local_feed(&entry, &lane, ask).await {
            Ok(local) => local,
            Err(text) => {
                return Outcome {
                    reason: CloseReason::Failed,
                    text,
                };
            }
        };
        let (session, actions) = Session::initiator(feeds.session_config(), local, 0);
        let mut driver = Self::new(feeds, session, connection, peer);
        driver.bind(entry, lane, exclusive);
        driver.run(actions.into()).await
    }

    /// The side that was connected to; `hello` has been read already.
    pub async fn acceptor(
        feeds: Arc<Feeds>,
        connection: Connection,
        hello: Hello,
        peer: PeerLink,
    ) -> Outcome {
        let mut session = Session::acceptor(feeds.session_config(), 0);
        let actions = session.handle(Event::Message(Message::Hello(hello)), 0);
        let driver = Self::new(feeds, session, connection, peer);
        driver.run(actions.into()).await
    }

    fn new(feeds: Arc<Feeds>, session: Session, connection: Connection, peer: PeerLink) -> Self {
        let (writer, inbox) = split(connection);
        let (events, event_inbox) = mpsc::unbounded_channel();
        Self {
            feeds,
            session,
            writer,
            inbox,
            events,
            event_inbox,
            peer,
            began: Instant::now(),
            bound: None,
            streams: Streams::None,
            expected: None,
            streams_inbox: None,
            numbers: (Instant::now(), 0),
        }
    }

    fn bind(&mut self, entry: Arc<FeedEntry>, lane: LaneHandle, exclusive: OwnedMutexGuard<()>) {
        entry.set_running(Some(Running {
            events: self.events.clone(),
            source: false,
        }));
        self.bound = Some(Bound {
            entry,
            lane,
            _exclusive: exclusive,
        });
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    async fn run(mut self, mut actions: VecDeque<Action>) -> Outcome {
        let mut last_word = String::new();
        let reason;
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        let mut look = tokio::time::interval(NUMBERS_EVERY);
        'session: loop {
            while let Some(action) = actions.pop_front() {
                match action {
                    Action::Report { state, reason } => {
                        if !reason.is_empty() {
                            last_word.clone_from(&reason);
                        }
                        self.report(state, reason);
                    }
                    Action::Close(why) => {
                        reason = why;
                        break 'session;
                    }
                    other => {
                        for event in self.act(other).await {
                            actions.extend(self.session.handle(event, self.now_ms()));
                        }
                    }
                }
            }
            let event = tokio::select! {
                message = self.inbox.recv() => match message {
                    Some(Ok(message)) => Event::Message(message),
                    Some(Err(error)) => {
                        last_word = error.to_string();
                        Event::Disconnected
                    }
                    None => Event::Disconnected,
                },
                // The driver holds a sender itself, so the channel does not end.
                Some(event) = self.event_inbox.recv() => self.complete(event),
                streams = next_streams(&mut self.streams_inbox) => match self.start(streams) {
                    Ok(()) => Event::StreamsUp,
                    Err(text) => {
                        last_word = text;
                        Event::Disconnected
                    }
                },
                _ = tick.tick() => Event::Tick,
                _ = look.tick() => {
                    self.look().await;
                    continue;
                }
            };
            actions.extend(self.session.handle(event, self.now_ms()));
        }
        let text = self.end(&reason).await;
        Outcome {
            reason,
            text: if last_word.is_empty() {
                text
            } else {
                last_word
            },
        }
    }

    /// The lane says that all is sent; only the streams know under which number.
    fn complete(&self, event: Event) -> Event {
        match (event, &self.streams) {
            (Event::CaughtUp { .. }, Streams::Source(source)) => Event::CaughtUp {
                live_sequence: source.live_sequence(),
            },
            (event, _) => event,
        }
    }

    fn report(&mut self, state: FeedState, reason: String) {
        let Some(bound) = &self.bound else { return };
        let lv = bound.entry.lv();
        let object = format!("{lv} {}", self.peer.name);
        let text = if reason.is_empty() {
            super::rows::state_name(state).to_owned()
        } else {
            format!("{}: {reason}", super::rows::state_name(state))
        };
        self.feeds.node.event("feed-state", &object, &text);
        bound.entry.update(|status| {
            status.state = state;
            status.reason = reason;
        });
    }

    /// Carries out an action; the events it leads to at once are returned.
    async fn act(&mut self, action: Action) -> Vec<Event> {
        match action {
            Action::Send(message) => match self.writer.send(&message).await {
                Ok(()) => Vec::new(),
                Err(error) => {
                    tracing::debug!(%error, "sending {}", message.name());
                    vec![Event::Disconnected]
                }
            },
            Action::Open(handshake) => vec![self.open(*handshake).await],
            Action::Commit { id, change } => vec![self.commit(id, change).await],
            Action::OpenStreams { offer, connect } => {
                self.open_streams(offer, connect);
                Vec::new()
            }
            Action::Flush {
                flush,
                live_sequence,
            } => {
                match &self.streams {
                    Streams::Sink(sink) => sink.flush(flush, live_sequence, self.events.clone()),
                    _ => return vec![Event::Flushed { flush, ok: false }],
                }
                Vec::new()
            }
            Action::Acked(ack) => match &self.streams {
                Streams::Source(source) if source.acknowledged(&ack) => Vec::new(),
                _ => {
                    tracing::warn!(peer = self.peer.name, ?ack, "impossible acknowledgement");
                    vec![Event::Disconnected]
                }
            },
            Action::Deliver(message) => {
                self.deliver(message);
                Vec::new()
            }
            Action::PeerWantsSwap => vec![self.peer_wants_swap()],
            Action::Report { .. } | Action::Close(_) => Vec::new(),
            engine => self.engine(engine).await,
        }
    }

    /// The actions that are the lane's.
    async fn engine(&mut self, action: Action) -> Vec<Event> {
        let Some(bound) = &self.bound else {
            return vec![Event::Disconnected];
        };
        let Some(feed) = self.feeds.feed_id(&bound.entry) else {
            return vec![Event::Disconnected];
        };
        let lane = bound.lane.clone();
        let result = match action {
            Action::FeedOnline => match &self.streams {
                Streams::Source(source) => lane.feed_attach(feed, source.outlet()).await,
                _ => return vec![Event::Disconnected],
            },
            Action::FeedResume => lane.feed_resume(feed).await,
            Action::FeedOffline => lane.feed_offline(feed).await,
            Action::SetDirty(ranges) => {
                let map = self.map_of_ranges(&ranges);
                lane.merge_feed_map(feed, map).await
            }
            Action::MergeMap {
                region_size,
                bitmap,
            } => {
                let map = self.map_of_bitmap(region_size, &bitmap);
                lane.merge_feed_map(feed, map).await
            }
            Action::ExportMap => match lane.feed_map(feed).await {
                Ok(map) => return export(&map),
                Err(error) => Err(error),
            },
            Action::RequestMark { point } => {
                let events = self.events.clone();
                tokio::spawn(async move {
                    if let Err(error) = lane.mark(feed, point, true).await {
                        tracing::debug!(%error, "a mark failed");
                        // The session may be over.
                        let _gone = events.send(Event::MarkFailed { point });
                    }
                });
                Ok(())
            }
            other => {
                tracing::error!(?other, "an action that nobody carries out");
                Ok(())
            }
        };
        match result {
            Ok(()) => Vec::new(),
            Err(error) => {
                tracing::warn!(%error, peer = self.peer.name, "the volume's data path failed a feed");
                vec![Event::Disconnected]
            }
        }
    }

    fn empty_map(&self) -> RegionMap {
        let (size, region) = self
            .bound
            .as_ref()
            .and_then(|bound| self.feeds.geometry(&bound.entry))
            .unwrap_or((0, 65536));
        RegionMap::new(size, region)
    }

    fn map_of_ranges(&self, ranges: &[WireRange]) -> RegionMap {
        let mut map = self.empty_map();
        let whole = ByteRange::new(0, map.size());
        for range in ranges {
            let range = ByteRange::checked(range.offset, range.length);
            if let Some(inside) = range.and_then(|range| range.intersection(whole)) {
                map.set_range(inside);
            }
        }
        map
    }

    fn map_of_bitmap(&self, region_size: u64, bitmap: &Bitmap) -> RegionMap {
        let mut map = self.empty_map();
        let whole = ByteRange::new(0, map.size());
        for (index, byte) in bitmap.bits.iter().enumerate() {
            for bit in (0..8u64).filter(|bit| byte & (1 << bit) != 0) {
                let region = bitmap
                    .first_region
                    .saturating_add(index as u64 * 8)
                    .saturating_add(bit);
                let range = region
                    .checked_mul(region_size)
                    .and_then(|start| ByteRange::checked(start, region_size));
                if let Some(inside) = range.and_then(|range| range.intersection(whole)) {
                    map.set_range(inside);
                }
            }
        }
        map
    }

    async fn open(&mut self, handshake: Handshake) -> Event {
        let feeds = self.feeds.clone();
        match feeds.open_target(&self.peer, &handshake).await {
            Ok(Opened {
                entry,
                lane,
                exclusive,
                local,
            }) => {
                self.bind(entry, lane, exclusive);
                Event::Opened(Box::new(local))
            }
            Err(refused) => {
                let object = format!("{} {}", handshake.target, self.peer.name);
                let text = format!("refused: {}", refused.text);
                self.feeds.node.event("feed-refused", &object, &text);
                Event::OpenRefused(refused)
            }
        }
    }

    async fn commit(&mut self, id: CommitId, change: RecordChange) -> Event {
        let Some(bound) = &self.bound else {
            return Event::CommitFailed(id, "no feed".into());
        };
        let role = self.session.role();
        match commit(&self.feeds, &bound.entry, &bound.lane, &change).await {
            Ok(()) => {
                if let Some(role) = role {
                    bound.entry.set_running(Some(Running {
                        events: self.events.clone(),
                        source: role == Role::Source,
                    }));
                }
                Event::Committed(id)
            }
            Err(text) => Event::CommitFailed(id, text),
        }
    }

    fn open_streams(&mut self, offer: StreamsOffer, connect: bool) {
        let (sender, inbox) = mpsc::channel(1);
        self.streams_inbox = Some(inbox);
        let (feeds, peer) = (self.feeds.clone(), self.peer.clone());
        if connect {
            tokio::spawn(async move {
                let streams = feeds.connect_streams(&peer.name, &offer).await;
                // The session may be over.
                let _gone = sender.send(streams).await;
            });
            return;
        }
        let count = offer.count;
        let arrivals = self
            .feeds
            .registry
            .expect(offer.session, offer.token, peer.proved, count);
        self.expected = Some(offer.session);
        tokio::spawn(async move {
            let streams = tokio::time::timeout(STREAMS_TIMEOUT, collect(arrivals, count)).await;
            let streams = streams.unwrap_or_else(|_| Err("the data streams did not come".into()));
            // The session may be over.
            let _gone = sender.send(streams).await;
        });
    }

    /// All data streams are there: their threads start.
    fn start(&mut self, streams: Result<Vec<DataStream>, String>) -> Result<(), String> {
        let streams = streams?;
        let bound = self.bound.as_ref().ok_or("no feed")?;
        let name = bound.entry.lv().lv;
        let on_end = || {
            let events = self.events.clone();
            let end: feedplex::streams::OnEnd = Box::new(move |result| {
                if let Err(error) = result {
                    tracing::debug!(%error, "a data stream ended");
                }
                // The session may be over.
                let _gone = events.send(Event::Disconnected);
            });
            end
        };
        let failed = |error: std::io::Error| format!("cannot start a data stream: {error}");
        self.streams = match self.session.role() {
            Some(Role::Source) => Streams::Source(
                SourceStreams::start(&name, streams, &bound.lane, &bound.entry, on_end)
                    .map_err(failed)?,
            ),
            Some(Role::Sink) => {
                let sink = SinkStreams::start(
                    &name,
                    streams,
                    &bound.lane,
                    &bound.entry,
                    self.events.clone(),
                    on_end,
                )
                .map_err(failed)?;
                sink.acknowledge(self.events.clone());
                Streams::Sink(sink)
            }
            None => return Err("data streams before there is a role".into()),
        };
        Ok(())
    }

    fn deliver(&mut self, message: Message) {
        let Some(bound) = &self.bound else { return };
        match message {
            Message::HashRequest(request) => {
                let (lane, events) = (bound.lane.clone(), self.events.clone());
                tokio::spawn(async move {
                    match super::verify::answer(&lane, &request).await {
                        // The session may be over.
                        Ok(reply) => drop(events.send(Event::Relay(Message::HashReply(reply)))),
                        Err(error) => tracing::warn!(%error, "cannot answer a hash request"),
                    }
                });
            }
            Message::HashReply(reply) => bound.entry.hashes(reply),
            Message::RepairRequest(repair) => {
                // The channel is this session's own.
                let _own = self.events.send(Event::Repair(repair.ranges));
            }
            Message::SwapReply(reply) => {
                if let Some(refused) = reply.refusal {
                    bound.entry.refused(refused);
                }
            }
            Message::State(state) => bound.entry.update(|status| status.dirty = state.dirty),
            other => tracing::debug!("{} is for nobody", other.name()),
        }
    }

    /// The sink's admin wants to be the source.
    fn peer_wants_swap(&self) -> Event {
        let refuse = |code, text: &str| {
            Event::SwapRefused(Refused {
                code,
                text: text.into(),
            })
        };
        let Some(bound) = &self.bound else {
            return refuse(RefusalCode::WrongState, "no feed");
        };
        if !self.feeds.rights(&self.peer.name, &bound.entry.lv()).feed {
            return refuse(RefusalCode::Access, "the peer may not feed this volume");
        }
        if bound.lane.opens() > 0 {
            return refuse(RefusalCode::Busy, "the volume is open");
        }
        let (point, name, time) = super::verbs::swap_point();
        Event::Swap { point, name, time }
    }

    /// Looks at the numbers.
    async fn look(&mut self) {
        let Some(bound) = &self.bound else { return };
        let moved = {
            let values = bound.entry.counters.values();
            values.payload_kernel_bytes + values.payload_copied_bytes + values.zero_bytes
        };
        let (then, before) = self.numbers;
        let ms = then.elapsed().as_millis().max(1);
        let rate = u128::from(moved.saturating_sub(before)) * 1000 / ms;
        self.numbers = (Instant::now(), moved);
        self.feeds
            .look(
                &bound.entry,
                &bound.lane,
                u64::try_from(rate).unwrap_or(u64::MAX),
            )
            .await;
    }

    /// Ends everything that belongs to the session. Returns why, in words, for want of better.
    async fn end(mut self, reason: &CloseReason) -> String {
        if let Some(session) = self.expected.take() {
            self.feeds.registry.forget(session);
        }
        self.writer.close().await;
        match std::mem::replace(&mut self.streams, Streams::None) {
            Streams::None => {}
            Streams::Source(source) => end_threads(source.threads).await,
            Streams::Sink(sink) => {
                sink.end().await;
                if let Some(bound) = &self.bound {
                    self.feeds.settle(&bound.entry, &bound.lane).await;
                }
            }
        }
        if let Some(bound) = self.bound.take() {
            bound.entry.set_running(None);
            self.feeds.look(&bound.entry, &bound.lane, 0).await;
        }
        match reason {
            CloseReason::Refused(code) => code.to_string(),
            CloseReason::Paused => "paused".into(),
            CloseReason::Split => "ended at a point".into(),
            CloseReason::Swapped => "the roles were exchanged".into(),
            CloseReason::Lost => "the connection is gone".into(),
            CloseReason::Failed => "failed".into(),
            CloseReason::Stopped => "stopped".into(),
        }
    }
}

async fn next_streams(
    inbox: &mut Option<mpsc::Receiver<Result<Vec<DataStream>, String>>>,
) -> Result<Vec<DataStream>, String> {
    match inbox {
        Some(receiver) => {
            let streams = receiver.recv().await;
            *inbox = None;
            streams.unwrap_or_else(|| Err("the data streams did not come".into()))
        }
        None => std::future::pending().await,
    }
}

/// Puts arriving streams in the order of their numbers.
async fn collect(
    mut arrivals: mpsc::Receiver<(u16, DataStream)>,
    count: u16,
) -> Result<Vec<DataStream>, String> {
    let mut streams: Vec<Option<DataStream>> = Vec::new();
    streams.resize_with(usize::from(count), || None);
    for _ in 0..count {
        let (number, stream) = arrivals.recv().await.ok_or("the session is over")?;
        match streams.get_mut(usize::from(number)) {
            Some(slot) if slot.is_none() => *slot = Some(stream),
            _ => return Err(format!("data stream {number} came twice")),
        }
    }
    Ok(streams.into_iter().flatten().collect())
}

/// Stops threads and waits for them, off the runtime's threads.
pub async fn end_threads(threads: Vec<StreamThread>) {
    threads.iter().for_each(StreamThread::stop);
    let joined = tokio::task::spawn_blocking(move || {
        for thread in threads {
            if thread.join(Duration::from_secs(20)).is_err() {
                tracing::error!("a data stream's thread does not end");
            }
        }
    });
    if joined.await.is_err() {
        tracing::error!("a data stream's thread panicked");
    }
}

fn export(map: &RegionMap) -> Vec<Event> {
    let per_chunk = BITMAP_CHUNK_MAX as u64 * 8;
    let mut events = Vec::new();
    let mut first = 0;
    while first < map.regions() {
        let count = per_chunk.min(map.regions() - first);
        let mut bits = vec![0u8; count.div_ceil(8) as usize];
        let mut any = false;
        for region in (first..first + count).filter(|region| map.is_set(*region)) {
            let at = region - first;
            bits[(at / 8) as usize] |= 1 << (at % 8);
            any = true;
        }
        if any {
            events.push(Event::MapChunk(Bitmap {
                first_region: first,
                bits,
            }));
        }
        first += count;
    }
    events.push(Event::MapEnd);
    events
}

/// Carries out a change of a feed's record, with the maps before and after it.
async fn commit(
    feeds: &Arc<Feeds>,
    entry: &Arc<FeedEntry>,
    lane: &LaneHandle,
    change: &RecordChange,
) -> Result<(), String> {
    let failed = |error: crate::lane::LaneError| error.to_string();
    if matches!(change, RecordChange::Session { .. }) && entry.provisional().is_some() {
        // Without epochs, which no session takes for known: the map comes before they do.
        feeds.commit_provisional(entry).await?;
    }
    let map = match change {
        RecordChange::Session { map, .. } | RecordChange::Confirmed { map, .. } => *map,
        _ => MapChange::Keep,
    };
    let id: FeedId = feeds.feed_id(entry).ok_or("the feed's record is gone")?;
    if map == MapChange::AllDirty {
        lane.set_all_dirty(id).await.map_err(failed)?;
    }
    feeds.commit_change(entry, |volume| record::apply(volume, entry.uuid, change))?;
    if map == MapChange::Clear {
        lane.clear_feed_map(id).await.map_err(failed)?;
    }
    feeds.reconfigure(entry).await?;
    entry.committed();
    Ok(())
}

impl Feeds {
    /// What every session needs.
    pub(super) fn session_config(&self) -> SessionConfig {
        SessionConfig {
            node: self.node.identity.uuid,
            name: self.node.identity.name.clone(),
            fingerprint: self.node.key.fingerprint().to_string(),
            fresh: FreshIds {
                epoch: Uuid::new_v4(),
                session: Uuid::new_v4(),
                token: {
                    let mut token = [0u8; 32];
                    token[..16].copy_from_slice(Uuid::new_v4().as_bytes());
                    token[16..].copy_from_slice(Uuid::new_v4().as_bytes());
                    Token(token)
                },
                generations: [Uuid::new_v4(), Uuid::new_v4()],
            },
            streams: STREAMS,
            wall_time: crate::daemon::events::now(),
        }
    }

    /// This side's feed as recorded, for a session.
    pub(super) async fn local_feed(
        &self,
        entry: &FeedEntry,
        lane: &LaneHandle,
        ask: &Ask,
    ) -> Result<LocalFeed, String> {
        let (view, volume) = self.node.volume(&entry.lv()).ok_or("the volume is gone")?;
        let recorded = volume.feeds.iter().find(|feed| feed.uuid == entry.uuid);
        let feed = match (recorded.cloned(), entry.provisional()) {
            (Some(feed), _) => feed,
            (None, Some(feed)) => feed,
            (None, None) => return Err("the feed is gone".into()),
        };
        let tracked = recorded.is_some_and(super::is_tracked);
        let dirty_bytes = if tracked {
            let (feeds, _) = lane
                .dirty(vec![FeedId(feed.map_slot)], Vec::new())
                .await
                .map_err(|error| error.to_string())?;
            feeds.first().copied().unwrap_or(0)
        } else {
            0
        };
        let rights = self.rights(&entry.peer, &entry.lv());
        let facts = record::facts(&view.group, &volume, &feed, ask, false, dirty_bytes > 0);
        Ok(LocalFeed {
            facts,
            rights,
            dirty_bytes,
        })
    }

    /// What a peer may do with a volume here.
    pub(super) fn rights(&self, peer: &str, lv: &crate::api::LvName) -> Rights {
        use feedplex::access::{Right, Rules};
        let rules = self
            .node
            .peers
            .get(peer)
            .and_then(|peer| Rules::parse(&peer.allow).ok())
            .unwrap_or_default();
        let name = lv.to_string();
        Rights {
            feed: rules.allows(Right::Feed, &name),
            read: rules.allows(Right::Read, &name),
        }
    }
}
