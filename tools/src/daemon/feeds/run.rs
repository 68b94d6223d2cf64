//! Drives one session: its connection, streams, commits and lane.

mod lane;
mod local;
mod stamp;
mod streams;

pub use streams::end_threads;

use super::Feeds;
use super::control_io::{ControlIoError, ControlWriter, split};
use super::entry::{FeedEntry, Running};
use super::pace::LOOK_EVERY;
use super::record::Ask;
use super::sink::SinkStreams;
use super::source::SourceStreams;
use super::target::Opened;
use crate::lane::{Frozen, LaneHandle};
use blockio::ByteRange;
use feedplex::generation::Role;
use feedplex::identity::Fingerprint;
use feedplex::session::{
    Action, CloseReason, CommitId, Event, FeedState, RESUME_AFTER_MS, RecordChange, Session,
};
use feedplex::transport::{Connection, DataStream};
use feedplex::wire::control::{Handshake, Hello, Message, RefusalCode, Refused};
use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedMutexGuard, mpsc};
use tokio::time::MissedTickBehavior;
use uuid::Uuid;

/// How long a data stream may take to come.
const STREAMS_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a session is told the time: it resumes a feed that has fallen behind after as long.
const TICK_EVERY: Duration = Duration::from_millis(RESUME_AFTER_MS);

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
    /// Clients do not write while the volume may be about to become a sink: one for each who asked.
    frozen: Vec<Frozen>,
    streams_inbox: Option<mpsc::Receiver<Result<Vec<DataStream>, String>>>,
    /// Why the first data stream that failed did.
    stream_failure: Arc<OnceLock<String>>,
    /// Moved so far, at the last look.
    numbers: (Instant, u64),
    stamping: stamp::Stamping,
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
    /// The record says since this session that the feed may write at any moment.
    accepted: bool,
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
        let frozen = match feeds.turns_sink(&entry, ask) {
            false => None,
            true => match lane.freeze().await {
                Ok(frozen) => Some(frozen),
                Err(error) => {
                    return Outcome {
                        reason: CloseReason::Failed,
                        text: error.to_string(),
                    };
                }
            },
        };
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
        driver.frozen.extend(frozen);
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
            frozen: Vec::new(),
            streams_inbox: None,
            stream_failure: Arc::default(),
            numbers: (Instant::now(), 0),
            stamping: stamp::Stamping::new(),
        }
    }

    fn bind(&mut self, entry: Arc<FeedEntry>, lane: LaneHandle, exclusive: OwnedMutexGuard<()>) {
        entry.set_running(Some(Running {
            events: self.events.clone(),
            source: false,
        }));
        self.bound = Some(Bound {
            accepted: false,
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
        // What is wrong with the connection, where it was not the peer who ended it.
        let mut found = None;
        let reason;
        let mut tick = tokio::time::interval(TICK_EVERY);
        let mut look = tokio::time::interval(NUMBERS_EVERY);
        let mut pace = tokio::time::interval(LOOK_EVERY);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        'session: loop {
            while let Some(action) = actions.pop_front() {
                match action {
                    Action::Report { state, reason } => {
                        if !reason.is_empty() {
                            last_word.clone_from(&reason);
                        }
                        if matches!(
                            state,
                            FeedState::FullSync | FeedState::Resync | FeedState::Live
                        ) {
                            // Whoever waits learns at once how much there is, and that nothing is left.
                            self.look().await;
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
                    Some(Ok(Message::Hello(hello))) => match self.meet(&hello) {
                        Ok(()) => Event::Message(Message::Hello(hello)),
                        Err(text) => {
                            last_word = text;
                            reason = CloseReason::Refused(RefusalCode::Twin);
                            break 'session;
                        }
                    },
                    Some(Ok(message)) => Event::Message(message),
                    Some(Err(error)) => {
                        found = Some(error.to_string());
                        Event::Disconnected
                    }
                    None => Event::Disconnected,
                },
                // The driver holds a sender itself, so the channel does not end.
                Some(event) = self.event_inbox.recv() => {
                    if let Event::Swap { .. } = &event {
                        self.freeze().await;
                    }
                    self.complete(event)
                },
                streams = streams::next_streams(&mut self.streams_inbox) => match self.start(streams) {
                    Ok(()) => Event::StreamsUp,
                    Err(text) => {
                        found = Some(text);
                        Event::Disconnected
                    }
                },
                _ = tick.tick() => Event::Tick,
                _ = pace.tick(), if self.copies() => {
                    if let Some(bound) = &self.bound {
                        self.feeds.pace(&bound.entry, &bound.lane);
                    }
                    continue;
                }
                _ = look.tick() => {
                    self.look().await;
                    match &self.streams {
                        Streams::Source(source) => match source.dead_link() {
                            Some(text) => {
                                found = Some(text);
                                Event::Disconnected
                            }
                            None => continue,
                        },
                        Streams::None | Streams::Sink(_) => continue,
                    }
                }
            };
            let gone = matches!(event, Event::Disconnected);
            let next = self.session.handle(event, self.now_ms());
            actions.extend(next.into_iter().map(|action| {
                match action {
                    // The state machine knows that the connection is gone; why, only its ends do.
                    Action::Report {
                        state: state @ FeedState::Disconnected,
                        reason,
                    } if gone => Action::Report {
                        state,
                        reason: found
                            .take()
                            .or_else(|| self.stream_failure.get().cloned())
                            .unwrap_or(reason),
                    },
                    other => other,
                }
            }));
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

    /// Clients do not write until the session has exchanged the roles, or has not.
    async fn freeze(&mut self) {
        let Some(bound) = &self.bound else { return };
        match bound.lane.freeze().await {
            Ok(frozen) => self.frozen.push(frozen),
            // Nobody can write to a volume that is stopped.
            Err(error) => tracing::debug!(%error, "a volume could not be frozen"),
        }
    }

    /// The node that was called says who it is.
    fn meet(&self, hello: &Hello) -> Result<(), String> {
        let proved = self.peer.proved.as_ref().map(ToString::to_string);
        let proved = proved.unwrap_or_else(|| hello.fingerprint.clone());
        self.feeds.meet(hello, &proved)
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
            Action::PeerWantsSwap => vec![self.peer_wants_swap().await],
            Action::Report { .. } | Action::Close(_) => Vec::new(),
            engine => self.engine(engine).await,
        }
    }

    async fn open(&mut self, handshake: Handshake) -> Event {
        let feeds = self.feeds.clone();
        match feeds.open_target(&self.peer, &handshake).await {
            Ok(Opened {
                entry,
                lane,
                exclusive,
                frozen,
                local,
            }) => {
                self.frozen.extend(frozen);
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
        let Some(bound) = &mut self.bound else {
            return Event::CommitFailed(id, "no feed".into());
        };
        let role = self.session.role();
        let peer = self.session.peer();
        let result = local::commit(&self.feeds, &bound.entry, &bound.lane, &change, peer).await;
        match result {
            Ok(()) => {
                bound.accepted |= matches!(change, RecordChange::Session { .. });
                if let RecordChange::Session { .. } | RecordChange::Swapped { .. } = change {
                    // From here on the volume's role says who may write.
                    self.frozen.clear();
                }
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
            Message::FetchRequest(fetch) => {
                let Some(feed) = self.feeds.feed_id(&bound.entry) else {
                    return;
                };
                let lane = bound.lane.clone();
                let ranges = fetch.ranges.iter();
                let ranges = ranges.filter_map(|r| ByteRange::checked(r.offset, r.length));
                let ranges: Vec<ByteRange> = ranges.collect();
                tokio::spawn(async move {
                    if let Err(error) = lane.feed_fetch(feed, ranges).await {
                        tracing::debug!(%error, "what a peer waits for cannot go first");
                    }
                });
            }
            Message::SwapReply(reply) => {
                self.frozen.pop();
                if let Some(refused) = reply.refusal {
                    bound.entry.refused(refused);
                }
            }
            Message::Stamp(stamp) => bound.entry.saw(stamp.stamp),
            Message::State(state) => {
                // In an online restore this side knows best what is missing.
                let record = self.feeds.record(&bound.entry);
                if record.is_none_or(|(_, feed)| feed.missing_slot().is_none()) {
                    bound.entry.update(|status| status.dirty = state.dirty);
                }
            }
            other => tracing::debug!("{} is for nobody", other.name()),
        }
    }

    /// The sink's admin wants to be the source.
    async fn peer_wants_swap(&mut self) -> Event {
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
        let node = &self.feeds.node;
        let Some((_, volume)) = node.volume(&bound.entry.lv()) else {
            return refuse(RefusalCode::NoVolume, "the volume is gone");
        };
        match crate::daemon::active::freeze_unused(node, volume.uuid, &bound.lane).await {
            Ok(Ok(frozen)) => self.frozen.push(frozen),
            Ok(Err(_)) => return refuse(RefusalCode::Busy, "the volume is open"),
            // Nobody can write to a volume that is stopped.
            Err(error) => tracing::debug!(%error, "a volume could not be frozen"),
        }
        let (point, name, time) = super::verbs::swap_point();
        Event::Swap { point, name, time }
    }

    /// Whether something is being copied from here, beside which applications may work.
    fn copies(&self) -> bool {
        let copying = matches!(
            self.session.state(),
            FeedState::FullSync | FeedState::Resync
        );
        copying && matches!(self.streams, Streams::Source(_))
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
        self.stamping
            .look(&self.feeds, &bound.entry, &bound.lane, &self.events, moved);
        self.feeds.pace(&bound.entry, &bound.lane);
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
        if let CloseReason::Refused(code) = reason {
            // What was judged: for whoever has to find out how it came to that.
            let (ours, theirs) = (self.session.ours(), self.session.peer());
            tracing::info!(peer = self.peer.name, %code, ?ours, ?theirs, "a session was refused");
        }
        if let Some(session) = self.expected.take() {
            self.feeds.registry.forget(session);
        }
        self.writer.close().await;
        let whole = match std::mem::replace(&mut self.streams, Streams::None) {
            // Nothing has flowed.
            Streams::None => true,
            Streams::Source(source) => {
                end_threads(source.threads).await;
                false
            }
            Streams::Sink(sink) => sink.end().await,
        };
        if let Some(bound) = self.bound.as_ref().filter(|b| whole && b.accepted) {
            self.feeds.settle(&bound.entry, &bound.lane).await;
        }
        if let Some(bound) = self.bound.take() {
            bound.entry.set_running(None);
            self.feeds.keep_seen(&bound.entry);
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
