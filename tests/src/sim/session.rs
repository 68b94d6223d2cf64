//! Drives a feed's session, as `tools/src/daemon/feeds/run.rs` does: actions one after the other,
//! each step of a commit on its own, so that a crash may come between any two.

use super::net::Conn;
use super::record::{self, Ask};
use super::stream::{Flushed, SinkStreams, SourceStreams};
use super::world::{Entry, LV, World};
use feedplex::generation::Role;
use feedplex::session::{
    Action, CloseReason, CommitId, Event, FeedState, FreshIds, LocalFeed, MapChange, RecordChange,
    Rights, Session, SessionConfig,
};
use feedplex::wire::control::{Handshake, Message, RefusalCode, Refused};
use feedplex::wire::preamble::Token;
use regionmap::RegionMap;
use std::collections::VecDeque;
use uuid::Uuid;
use volmgr::engine::FeedId;
use volmgr::model::{Direction, Feed, FeedIntent, Volume};
use volmgr::plan;

/// A step of the driver that may have to wait.
pub enum Work {
    /// Into the session.
    Handle(Event),
    /// The own volume is flushed before it becomes a sink.
    Flush,
    /// And that is done.
    FlushDone,
    /// The record of a first attempt is committed.
    Provisional,
    /// The feed misses everything.
    AllDirty,
    /// The feed misses nothing.
    ClearMap,
    /// The feed misses these, too.
    Merge(RegionMap),
    /// The maps as they are now are on the disks.
    MapsWritten(Option<u64>),
    /// The dirty-region log holds nothing that was written before; given up at this moment, in milliseconds.
    CleanLog(Option<u64>),
    /// A change of the record.
    Commit(RecordChange),
    /// The lane learns of it.
    Reconfigure,
    /// The volume for a handshake is looked up; an earlier session has to end first.
    Open(Box<Handshake>),
    /// The data streams are connected.
    Connect,
    /// The end, one thing after the other.
    EndStreams,
    /// Nothing of the session is under way.
    Idle,
    /// Clients may write again, if the volume's role lets them.
    Thaw,
    /// A sink at rest is flushed.
    Settle,
    /// And its record says so.
    Settled,
    /// Over.
    Gone(CloseReason),
}

/// What comes from outside.
enum Inbox {
    Event(Box<Event>),
    /// The data streams have come.
    Streams,
}

/// One session at one node.
pub struct Sess {
    /// The connection.
    pub conn: u64,
    /// The machine; none before the first message.
    pub session: Option<Session>,
    /// The feed, once it is known.
    pub feed: Option<Uuid>,
    /// The node at the other end.
    pub peer: usize,
    inbox: VecDeque<Inbox>,
    actions: VecDeque<Action>,
    /// Steps under way; nothing else happens before they are done.
    pub work: VecDeque<Work>,
    committing: Option<CommitId>,
    closing: bool,
    /// How the flush of a sink at rest went.
    pub settled: Option<bool>,
    /// Clients here may not write for its sake; so often it asked for that.
    pub(super) frozen: u32,
    /// It asks for an exchange of roles.
    pub asks_swap: bool,
    /// The admin here has agreed to what this session does.
    pub(super) consent: bool,
    /// The record says since this session that the feed may write at any moment.
    pub(super) accepted: bool,
    /// The source's streams.
    pub source: Option<SourceStreams>,
    /// The sink's streams.
    pub sink: Option<SinkStreams>,
}

impl Sess {
    fn new(conn: u64, peer: usize) -> Self {
        Self {
            conn,
            session: None,
            feed: None,
            peer,
            inbox: VecDeque::new(),
            actions: VecDeque::new(),
            work: VecDeque::new(),
            committing: None,
            closing: false,
            settled: None,
            frozen: 0,
            asks_swap: false,
            consent: false,
            accepted: false,
            source: None,
            sink: None,
        }
    }

    /// Something has happened.
    pub fn push(&mut self, event: Event) {
        self.inbox.push_back(Inbox::Event(Box::new(event)));
    }

    /// Is there something to do?
    pub fn has_work(&self) -> bool {
        !self.work.is_empty() || !self.actions.is_empty() || !self.inbox.is_empty()
    }
}

/// Rights are tested elsewhere; here everybody has all of them.
const RIGHTS: Rights = Rights {
    feed: true,
    read: true,
};

/// Does the lane keep a map for this feed? The rule of `plan::layout`.
pub fn is_tracked(feed: &Feed) -> bool {
    feed.direction == Direction::Out || matches!(feed.intent, FeedIntent::Split { .. })
}

impl World {
    pub(super) fn sess(&mut self, n: usize, sess: u64) -> &mut Sess {
        let sessions = &mut self.daemon(n).sessions;
        sessions.get_mut(&sess).expect("the session runs")
    }

    /// The entry of a feed.
    pub fn entry(&mut self, n: usize, feed: Uuid) -> Option<&mut Entry> {
        self.daemon(n).entries.iter_mut().find(|e| e.feed == feed)
    }

    /// Where a feed's map is.
    pub fn feed_id(&self, n: usize, feed: Uuid) -> Option<FeedId> {
        self.feed(n, feed).map(|f| FeedId(f.map_slot))
    }

    fn config(&mut self, n: usize) -> SessionConfig {
        SessionConfig {
            node: Uuid::from_u128(n as u128 + 1),
            name: self.nodes[n].name.clone(),
            fingerprint: String::new(),
            run: Uuid::nil(),
            fresh: FreshIds {
                epoch: self.uuid(),
                session: self.uuid(),
                token: Token([7; 32]),
                generations: [self.uuid(), self.uuid()],
            },
            streams: 2,
            wall_time: 0,
        }
    }

    /// What a session is told of this side.
    pub(super) fn local_feed(&mut self, n: usize, feed: Uuid, ask: &Ask) -> Option<LocalFeed> {
        let provisional = self.entry(n, feed)?.provisional.clone();
        let recorded = self.feed(n, feed).cloned();
        let tracked = recorded.as_ref().is_some_and(is_tracked);
        let facts = recorded.or(provisional)?;
        let daemon = self.nodes[n].up.as_ref()?;
        let dirty_bytes = match tracked {
            true => daemon.engine.dirty_bytes(FeedId(facts.map_slot)),
            false => 0,
        };
        let group = daemon.store.group();
        let volume = group.volume(LV)?;
        let facts = record::facts(group, volume, &facts, ask, false, dirty_bytes > 0);
        Some(LocalFeed {
            facts,
            rights: RIGHTS,
            dirty_bytes,
            restoring: false,
        })
    }

    /// The side that connects.
    pub fn connect(&mut self, n: usize, feed: Uuid) {
        let Some(entry) = self.entry(n, feed) else {
            return;
        };
        if !entry.enabled || entry.session.is_some() {
            return;
        }
        let peer = entry.peer;
        let ask = std::mem::take(&mut entry.ask);
        entry.state = FeedState::Connecting;
        let turns_sink = |feed: &Feed| (feed.direction == Direction::In) != ask.swap;
        let turns_sink = self.feed(n, feed).is_some_and(turns_sink);
        if self.nodes[peer].up.is_none() {
            return self.entry(n, feed).into_iter().for_each(|entry| {
                entry.state = FeedState::Disconnected;
                entry.ask = ask.clone();
            });
        }
        // Before what is here is looked at.
        let fed = self.volume(n).is_some_and(Volume::is_read_only);
        if turns_sink && !fed && (self.nodes[n].open || self.clients_in_flight(n)) {
            let entry = self.entry(n, feed).expect("it is there");
            (entry.state, entry.enabled) = (FeedState::Refused, false);
            return;
        }
        let Some(local) = self.local_feed(n, feed, &ask) else {
            return;
        };
        let (conn, here, there) = (self.fresh(), self.fresh(), self.fresh());
        self.note(|| format!("n{n} connects to n{peer}: {ask:?}"));
        self.conns
            .insert(conn, Conn::new([(n, here), (peer, there)]));
        let config = self.config(n);
        let ms = self.now(n);
        let (session, actions) = Session::initiator(config, local, ms);
        let mut sess = Sess::new(conn, peer);
        sess.session = Some(session);
        sess.feed = Some(feed);
        sess.actions = actions.into();
        sess.consent = ask.discard_local || ask.discard_peer;
        sess.asks_swap = ask.swap;
        self.daemon(n).sessions.insert(here, sess);
        if let Some(entry) = self.entry(n, feed) {
            entry.session = Some(here);
        }
        if turns_sink {
            self.freeze(n, here);
        }
    }

    /// The side that is connected to.
    pub fn accept(&mut self, n: usize, sess: u64, conn: u64) {
        let peer = self.conns[&conn].ends[0].0;
        let config = self.config(n);
        let mut new = Sess::new(conn, peer);
        new.session = Some(Session::acceptor(config, self.now(n)));
        self.daemon(n).sessions.insert(sess, new);
    }

    /// Lets a session do the next thing that it can.
    pub fn drive(&mut self, n: usize, id: u64) {
        let ms = self.now(n);
        let sess = self.sess(n, id);
        if let Some(work) = sess.work.pop_front() {
            return self.work(n, id, work);
        }
        if let Some(action) = sess.actions.pop_front() {
            return self.act(n, id, action);
        }
        let event = match sess.inbox.pop_front() {
            None => return,
            Some(Inbox::Event(event)) => *event,
            Some(Inbox::Streams) => {
                self.start_streams(n, id);
                Event::StreamsUp
            }
        };
        let sess = self.sess(n, id);
        // Only the streams know under which number all is sent.
        let event = match (event, &sess.source) {
            (Event::CaughtUp { .. }, Some(source)) => Event::CaughtUp {
                live_sequence: source.live_acks.last_sequence(),
            },
            (event, _) => event,
        };
        self.handle(n, id, event, ms);
    }

    pub(super) fn handle(&mut self, n: usize, id: u64, event: Event, ms: u64) {
        let sess = self.sess(n, id);
        let Some(session) = &mut sess.session else {
            return;
        };
        let actions = session.handle(event, ms);
        sess.actions.extend(actions);
    }

    fn act(&mut self, n: usize, id: u64, action: Action) {
        self.note(|| format!("n{n} session {id}: {action:?}"));
        match action {
            Action::Send(message) => self.send(n, id, &message),
            Action::Report { state, reason } => self.report(n, id, state, &reason),
            Action::Close(reason) => {
                let sess = self.sess(n, id);
                sess.closing = true;
                sess.actions.clear();
                sess.inbox.clear();
                sess.work.extend([
                    Work::EndStreams,
                    Work::Idle,
                    Work::Settle,
                    Work::Gone(reason),
                ]);
            }
            Action::Open(handshake) => self.sess(n, id).work.push_back(Work::Open(handshake)),
            Action::Commit { id: commit, change } => self.begin_commit(n, id, commit, change),
            Action::OpenStreams { offer: _, connect } => {
                if connect {
                    self.sess(n, id).work.push_back(Work::Connect);
                } else if let Some((conn, _)) = self.end_of(n, id) {
                    self.conns.get_mut(&conn).expect("it is there").expected = true;
                }
            }
            Action::Flush {
                flush,
                live_sequence,
            } => match &mut self.sess(n, id).sink {
                Some(sink) => sink.asked_flush = Some((flush, live_sequence)),
                None => self.sess(n, id).push(Event::Flushed { flush, ok: false }),
            },
            Action::Acked(ack) => {
                let source = self.sess(n, id).source.as_ref();
                let acks = source.and_then(|s| match ack.stream {
                    0 => Some(s.live_acks.clone()),
                    1 => Some(s.bulk_acks.clone()),
                    _ => None,
                });
                let fine = acks.is_some_and(|acks| acks.acknowledged(ack.durable).is_ok());
                assert!(fine, "n{n}: impossible acknowledgement {ack:?}");
                self.tell_done(n, id);
            }
            Action::Deliver(Message::SwapReply(_)) => self.thaw(n, id),
            Action::Deliver(_) => {}
            Action::PeerWantsSwap => {
                self.freeze(n, id);
                let users = self.nodes[n].open || !self.daemon(n).asked.is_empty();
                let event = if users {
                    self.thaw(n, id);
                    Event::SwapRefused(Refused {
                        code: RefusalCode::Busy,
                        text: "the volume is open".into(),
                    })
                } else {
                    self.swap_event()
                };
                self.handle(n, id, event, self.now(n));
            }
            engine => self.engine_action(n, id, engine),
        }
    }

    /// A swap, at a new point.
    pub fn swap_event(&mut self) -> Event {
        let point = self.uuid();
        Event::Swap {
            point,
            name: format!("swap-{}", self.next),
            time: 0,
        }
    }

    fn send(&mut self, n: usize, id: u64, message: &Message) {
        let caught_at = self.sess(n, id).source.as_ref().and_then(|s| s.caught_at);
        let Some((conn, end)) = self.end_of(n, id) else {
            return;
        };
        let conn = self.conns.get_mut(&conn).expect("it is there");
        if let Message::CaughtUp(_) = message {
            conn.caught_at = caught_at;
        }
        conn.send(end, message);
    }

    fn report(&mut self, n: usize, id: u64, state: FeedState, reason: &str) {
        if state == FeedState::Refused && reason.contains("diverged") {
            self.totals.diverged += 1;
        }
        if let Some(feed) = self.sess(n, id).feed
            && let Some(entry) = self.entry(n, feed)
        {
            entry.state = state;
        }
    }

    /// The steps of a commit, as `run/local.rs` has them.
    fn begin_commit(&mut self, n: usize, id: u64, commit: CommitId, change: RecordChange) {
        let map = match &change {
            RecordChange::Session { map, .. } | RecordChange::Confirmed { map, .. } => *map,
            _ => MapChange::Keep,
        };
        let mut steps = Vec::new();
        if matches!(change, RecordChange::Session { .. }) {
            steps.push(Work::Provisional);
        }
        let sink = matches!(
            change,
            RecordChange::Swapped { .. }
                | RecordChange::Session {
                    role: Role::Sink,
                    ..
                }
        );
        if sink {
            steps.extend([Work::Flush, Work::FlushDone]);
        }
        let feed = self.sess(n, id).feed.and_then(|feed| self.feed(n, feed));
        if feed.is_some_and(|feed| record::begins_tracking(feed, &change)) {
            steps.push(Work::CleanLog(None));
        }
        if map == MapChange::AllDirty {
            self.totals.full += 1;
            steps.extend([Work::AllDirty, Work::MapsWritten(None)]);
        }
        steps.push(Work::Commit(change));
        if map == MapChange::Clear {
            steps.extend([Work::ClearMap, Work::MapsWritten(None)]);
        }
        steps.push(Work::Reconfigure);
        if sink {
            steps.push(Work::Thaw);
        }
        steps.push(Work::Handle(Event::Committed(commit)));
        let sess = self.sess(n, id);
        sess.committing = Some(commit);
        sess.work.extend(steps);
    }

    /// A step failed: so did the commit that it is a part of.
    fn failed(&mut self, n: usize, id: u64, why: String) {
        self.note(|| format!("n{n} session {id}: failed: {why}"));
        let sess = self.sess(n, id);
        if sess.closing {
            // The end goes on; only what had to be committed is not.
            return;
        }
        sess.work.clear();
        if let Some(commit) = sess.committing.take() {
            self.handle(n, id, Event::CommitFailed(commit, why), self.now(n));
        }
    }

    fn work(&mut self, n: usize, id: u64, work: Work) {
        let feed = self.sess(n, id).feed;
        let slot = feed.and_then(|feed| self.feed_id(n, feed));
        match work {
            Work::Handle(event) => {
                if matches!(event, Event::Committed(_)) {
                    self.sess(n, id).committing = None;
                }
                self.handle(n, id, event, self.now(n));
            }
            Work::Provisional => {
                let provisional = feed.and_then(|feed| self.entry(n, feed)?.provisional.take());
                let Some(record) = provisional else { return };
                let kept = record.clone();
                match self.commit(n, |group| plan::add_feed(group, LV, record)) {
                    Ok(()) => self.sess(n, id).work.push_front(Work::Reconfigure),
                    Err(why) => {
                        if let Some(entry) = feed.and_then(|feed| self.entry(n, feed)) {
                            entry.provisional = Some(kept);
                        }
                        self.failed(n, id, why);
                    }
                }
            }
            Work::AllDirty | Work::ClearMap | Work::Merge(_) => {
                let Some(slot) = slot else {
                    return self.failed(n, id, "no record".into());
                };
                self.call(n, |engine, out| match &work {
                    Work::AllDirty => engine.set_all_dirty(slot, out),
                    Work::ClearMap => engine.clear_feed_map(slot, out),
                    Work::Merge(map) => engine.merge_feed_map(slot, map, out),
                    _ => {}
                });
            }
            Work::MapsWritten(barrier) => {
                let engine = &mut self.daemon(n).engine;
                let barrier = barrier.unwrap_or_else(|| engine.maps_barrier());
                if !engine.maps_written(barrier) {
                    let again = Work::MapsWritten(Some(barrier));
                    self.sess(n, id).work.push_front(again);
                }
            }
            Work::CleanLog(until) => {
                let (now, mut barrier) = (self.now(n), None);
                let until = until.unwrap_or(now + 2000);
                self.call(n, |engine, out| barrier = engine.clean_log(out));
                let again = (now < until).then_some(Work::CleanLog(Some(until)));
                let written = barrier.map(|b| Work::MapsWritten(Some(b)));
                let Some(next) = written.or(again) else {
                    return;
                };
                self.sess(n, id).work.push_front(next);
            }
            Work::Commit(change) => self.commit_change(n, id, change),
            Work::Reconfigure => {
                if let Err(why) = self.reconfigure(n) {
                    self.failed(n, id, why);
                }
            }
            Work::Open(handshake) => self.open(n, id, handshake),
            Work::Connect => self.connect_streams(n, id),
            Work::EndStreams => {
                self.end_streams(n, id);
                self.hang_up(n, id);
            }
            Work::Idle => {
                let busy = |sink: &SinkStreams| sink.under_way > 0;
                if self.sess(n, id).sink.as_ref().is_some_and(busy) {
                    self.sess(n, id).work.push_front(Work::Idle);
                }
            }
            Work::Flush => {
                self.sess(n, id).settled = None;
                self.flush(n, super::lane::Owner::Flush(id, Flushed::Own));
            }
            Work::FlushDone => match self.sess(n, id).settled.take() {
                None => self.sess(n, id).work.push_front(Work::FlushDone),
                Some(true) => {}
                Some(false) => self.failed(n, id, "flush failed".into()),
            },
            Work::Thaw => self.thaw_all(n, id),
            Work::Settle => self.settle(n, id),
            Work::Settled => match self.sess(n, id).settled {
                None => self.sess(n, id).work.push_front(Work::Settled),
                Some(false) => {}
                Some(true) => self.settled(n, id),
            },
            Work::Gone(reason) => self.session_gone(n, id, &reason),
        }
    }

    /// A change of the feed's record.
    fn commit_change(&mut self, n: usize, id: u64, change: RecordChange) {
        let Some(feed) = self.sess(n, id).feed else {
            return self.failed(n, id, "no feed".into());
        };
        let allowed = self
            .volume(n)
            .map(|volume| record::check(volume, feed, &change));
        if let Some(Err(why)) = allowed {
            return self.failed(n, id, why);
        }
        let apply = |group: &volmgr::model::Group| {
            plan::update_volume(group, LV, |volume| record::apply(volume, feed, &change))
        };
        if self.faults && self.rng.chance(1) {
            self.passes_on(n, feed, &change);
            self.gives_up(n, id, feed, &change);
            return self.crash_in_commit(n, apply);
        }
        match self.commit(n, apply) {
            Ok(()) => {
                self.sess(n, id).accepted |= matches!(change, RecordChange::Session { .. });
                self.committed(n, id, feed, &change);
                self.tempts_fate(n, &change);
                self.tell_whole(n, feed, &change);
            }
            Err(why) => self.failed(n, id, why),
        }
    }
}

impl Sess {
    /// Has it been told to stop?
    pub fn has_stop(&self) -> bool {
        let stop = |i: &Inbox| matches!(i, Inbox::Event(event) if matches!(**event, Event::Stop));
        self.inbox.iter().any(stop)
    }

    /// The data streams have come.
    pub fn push_streams(&mut self) {
        self.inbox.push_back(Inbox::Streams);
    }

    /// Is it the source, as far as it knows?
    pub fn role(&self) -> Option<Role> {
        self.session.as_ref().and_then(Session::role)
    }

    /// Is it on its way out?
    pub fn is_closing(&self) -> bool {
        self.closing
    }
}
