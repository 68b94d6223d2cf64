//! What steps do, and what a session's actions lead to.

use super::world::*;
use crate::sim::record::{self, Ask};
use feedplex::session::{
    Action, CloseReason, Event, FreshIds, LocalFeed, MapChange, RecordChange, Rights, Session,
    SessionConfig,
};
use feedplex::wire::control::{Bitmap, Message};
use feedplex::wire::preamble::Token;
use std::rc::Rc;

/// What is wrong with a state.
pub type Wrong = String;

fn bits(map: Map) -> u8 {
    map.iter()
        .enumerate()
        .fold(0, |byte, (region, dirty)| byte | u8::from(*dirty) << region)
}

fn union(map: &mut Map, other: Map) {
    for (here, there) in map.iter_mut().zip(other) {
        *here |= there;
    }
}

impl World {
    /// Takes a step.
    ///
    /// # Errors
    /// Says which invariant it breaks.
    pub fn take(&mut self, step: Step) -> Result<(), Wrong> {
        match step {
            Step::Again(link) => {
                let ask = Self::ask(self.links[link].attach, false, false);
                self.connect(link, &ask)
            }
            Step::Connect {
                link,
                swap,
                discard,
            } => {
                self.left.admin -= 1;
                self.links[link].attach = true;
                self.connect(link, &Self::ask(true, swap, discard))
            }
            Step::Deliver(link, side) => {
                let end = self.side(link, side);
                let message = end.inbox.pop_front().expect("there is one");
                self.handle(link, side, Event::Message((*message.0).clone()))
            }
            Step::Hangup(link, side) => self.handle(link, side, Event::Disconnected),
            Step::Commit(link, side) => {
                let end = self.side(link, side);
                let commit = end.commits.pop_front().expect("there is one");
                let (id, change) = &*commit.0;
                match self.commit(link, side, change)? {
                    Ok(()) => self.handle(link, side, Event::Committed(*id)),
                    Err(why) => self.handle(link, side, Event::CommitFailed(*id, why)),
                }
            }
            Step::Copy(link) => {
                self.copy(link);
                Ok(())
            }
            Step::CaughtUp(link) => {
                let source = self.source(link).expect("it copies");
                let conn = self.conn(link);
                conn.copying = false;
                let live_sequence = conn.sent;
                self.handle(link, source, Event::CaughtUp { live_sequence })
            }
            Step::ApplyLive(link) => self.apply_live(link),
            Step::ApplyBulk(link, item) => {
                let (region, value) = self.conn(link).bulk.remove(item);
                self.apply(link, region, value)
            }
            Step::Flush(link, side) => {
                let end = self.side(link, side);
                let (flush, _) = end.flush.take().expect("it is asked for");
                self.flush(link, side);
                self.handle(link, side, Event::Flushed { flush, ok: true })
            }
            Step::Write { node, region } => {
                self.left.writes -= 1;
                let value = self.next;
                self.next += 1;
                self.write(node, region, value);
                Ok(())
            }
            Step::Cut(link) => {
                self.left.cuts -= 1;
                self.end(link, None)
            }
            Step::Crash { node, keeps } => self.crash(node, keeps),
            Step::Detach(link) | Step::Swap(link) | Step::AskSwap(link) => {
                self.left.admin -= 1;
                match self.admin_event(link, step) {
                    Some((side, event)) => self.handle(link, side, event),
                    None => Ok(()),
                }
            }
        }
    }

    fn conn(&mut self, link: usize) -> &mut Conn {
        self.links[link].conn.as_mut().expect("it is connected")
    }

    fn side(&mut self, link: usize, side: usize) -> &mut Side {
        &mut self.conn(link).sides[side]
    }

    /// What a session is told of this side.
    pub fn local(&self, link: usize, side: usize, ask: &Ask) -> LocalFeed {
        let node = &self.nodes[self.links[link].ends[side]];
        let record = self.record(link, side);
        let known = !record.epochs.is_empty();
        let dirty = self.links[link].maps[side].contains(&true);
        let blank = !known && node.data == [0; REGIONS];
        LocalFeed {
            facts: record::facts(&group(), &node.volume.0, record, ask, blank, dirty),
            rights: Rights {
                feed: true,
                read: true,
            },
            dirty_bytes: 0,
            restoring: false,
        }
    }

    fn connect(&mut self, link: usize, ask: &Ask) -> Result<(), Wrong> {
        let here = &mut self.links[link];
        here.connections += 1;
        here.refused = false;
        here.consent = ask.discard_peer || ask.discard_local;
        let base = 1000 * (link as u128 + 1) + u128::from(here.connections) * 20;
        let config = |side: u128| SessionConfig {
            node: id(side + 1),
            name: String::new(),
            fingerprint: String::new(),
            run: id(side + 1),
            fresh: FreshIds {
                epoch: id(base + side * 10),
                session: id(base + side * 10 + 1),
                token: Token([0; 32]),
                generations: [id(base + side * 10 + 2), id(base + side * 10 + 3)],
            },
            streams: 2,
            wall_time: 0,
        };
        let (first, actions) = Session::initiator(config(0), self.local(link, 0, ask), 0);
        let second = Session::acceptor(config(1), 0);
        let side = |session: Session| Side {
            session: Shown::new(session),
            inbox: Default::default(),
            commits: Default::default(),
            flush: None,
            closed: false,
        };
        self.links[link].conn = Some(Conn {
            sides: [side(first), side(second)],
            online: false,
            marked: false,
            copying: false,
            frozen: ask.swap,
            live: Default::default(),
            sent: 0,
            applied: 0,
            bulk: Vec::new(),
            unacked: [false; REGIONS],
        });
        self.act(link, 0, actions)
    }

    pub(super) fn handle(&mut self, link: usize, side: usize, event: Event) -> Result<(), Wrong> {
        if !self.is_open(link, side) {
            return Ok(());
        }
        let end = self.side(link, side);
        let mut session = (*end.session.0).clone();
        let actions = session.handle(event, 0);
        end.session = Shown::new(session);
        self.act(link, side, actions)
    }

    fn act(&mut self, link: usize, side: usize, actions: Vec<Action>) -> Result<(), Wrong> {
        for action in actions {
            match action {
                Action::Send(message) => {
                    let there = self.side(link, 1 - side);
                    if !there.closed {
                        there.inbox.push_back(Shown::new(message));
                    }
                }
                Action::Open(_) => {
                    let local = Box::new(self.local(link, side, &Ask::default()));
                    self.handle(link, side, Event::Opened(local))?;
                }
                Action::Commit { id, change } => {
                    self.side(link, side)
                        .commits
                        .push_back(Shown::new((id, change)));
                }
                Action::ExportMap => {
                    let bits = vec![bits(self.links[link].maps[side])];
                    let first_region = 0;
                    let chunk = Event::MapChunk(Bitmap { first_region, bits });
                    self.handle(link, side, chunk)?;
                    self.handle(link, side, Event::MapEnd)?;
                }
                Action::MergeMap { bitmap, .. } => {
                    let told = bitmap.bits.first().copied().unwrap_or_default();
                    let map = std::array::from_fn(|region| told >> region & 1 == 1);
                    union(&mut self.links[link].maps[side], map);
                }
                Action::OpenStreams { .. } => self.handle(link, side, Event::StreamsUp)?,
                Action::FeedOnline => {
                    let conn = self.conn(link);
                    (conn.online, conn.copying) = (true, true);
                }
                Action::FeedResume => self.conn(link).copying = true,
                Action::FeedOffline => {
                    self.conn(link).online = false;
                    self.give_up(link, side);
                }
                Action::RequestMark { point } => {
                    let here = self.nodes[self.links[link].ends[side]].data;
                    Rc::make_mut(&mut self.marks).insert(point, here);
                    let conn = self.conn(link);
                    conn.marked = true;
                    conn.live.push_back(Item::Mark(point));
                    conn.sent += 1;
                }
                Action::Flush {
                    flush,
                    live_sequence,
                } => self.side(link, side).flush = Some((flush, live_sequence)),
                Action::PeerWantsSwap => {
                    let event = self.swap_event(link);
                    self.handle(link, side, event)?;
                }
                Action::Deliver(Message::SwapReply(_)) => self.conn(link).frozen = false,
                Action::Close(reason) => self.close(link, side, &reason)?,
                Action::SetDirty(_)
                | Action::Acked(_)
                | Action::Deliver(_)
                | Action::Report { .. } => {}
            }
            if self.links[link].conn.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn close(&mut self, link: usize, side: usize, reason: &CloseReason) -> Result<(), Wrong> {
        if *reason == CloseReason::Failed {
            return Err(format!("the session of end {side} failed by itself"));
        }
        if let CloseReason::Refused(_) = reason {
            self.links[link].refused = true;
        }
        self.side(link, side).closed = true;
        if self.conn(link).sides.iter().all(|side| side.closed) {
            return self.end(link, None);
        }
        Ok(())
    }

    /// What was on its way is dirty again.
    fn give_up(&mut self, link: usize, source: usize) {
        let conn = self.conn(link);
        let unacked = std::mem::take(&mut conn.unacked);
        union(&mut self.links[link].maps[source], unacked);
    }

    /// The connection is gone; what was asked of the disks is still done, but not on a node that has crashed.
    pub(super) fn end(&mut self, link: usize, crashed: Option<usize>) -> Result<(), Wrong> {
        if let Some(source) = self.source(link) {
            self.give_up(link, source);
        }
        let mut conn = self.links[link].conn.take().expect("it is connected");
        for side in 0..2 {
            let node = self.links[link].ends[side];
            if Some(node) == crashed {
                continue;
            }
            for commit in std::mem::take(&mut conn.sides[side].commits) {
                let (_, change) = &*commit.0;
                // One that may not be made is not made.
                let _refused = self.commit(link, side, change)?;
            }
            let record = self.record(link, side);
            if !record.settled && !record.is_tracked() {
                // A sink settles: nothing is in flight any more.
                self.nodes[node].durable = self.nodes[node].data;
                self.change(node, |volume| {
                    let found = volume.feeds.iter_mut().find(|f| f.uuid == feed(link));
                    found.into_iter().for_each(|record| record.settled = true);
                });
            }
        }
        Ok(())
    }

    fn crash(&mut self, node: usize, keeps: u8) -> Result<(), Wrong> {
        self.left.crashes -= 1;
        for link in 0..self.links.len() {
            if self.links[link].ends.contains(&node) && self.links[link].conn.is_some() {
                self.end(link, Some(node))?;
            }
            if self.links[link].ends[0] == node {
                self.links[link].attach = false;
            }
        }
        // What was not durable is in the dirty-region log, so everyone who tracks misses it.
        let here = &mut self.nodes[node];
        let open: Map = std::array::from_fn(|r| here.data[r] != here.durable[r]);
        for region in 0..REGIONS {
            if keeps >> region & 1 == 0 {
                here.data[region] = here.durable[region];
            }
        }
        here.durable = here.data;
        let now = here.data;
        let sinks = |world: &Self, link: usize, side: usize| {
            world.links[link].ends[side] == node && !world.is_tracked(link, side)
        };
        for link in 0..self.links.len() {
            for side in 0..2 {
                if self.links[link].ends[side] == node && self.is_tracked(link, side) {
                    union(&mut self.links[link].maps[side], open);
                }
            }
        }
        // What clients see after a crash is a moment of its own, where they write it.
        let is_sink = (0..self.links.len()).any(|link| (0..2).any(|side| sinks(self, link, side)));
        if !is_sink {
            Rc::make_mut(&mut self.moments).insert(now);
        }
        Ok(())
    }

    /// Everything that was applied becomes durable, and the source hears of it.
    fn flush(&mut self, link: usize, side: usize) {
        let node = self.links[link].ends[side];
        self.nodes[node].durable = self.nodes[node].data;
        let conn = self.conn(link);
        let mut under_way = [false; REGIONS];
        for item in &conn.live {
            if let Item::Write { region, .. } = item {
                under_way[*region] = true;
            }
        }
        conn.bulk
            .iter()
            .for_each(|(region, _)| under_way[*region] = true);
        for (unacked, under_way) in conn.unacked.iter_mut().zip(under_way) {
            *unacked &= under_way;
        }
    }

    /// The engine copies the first region that is dirty.
    fn copy(&mut self, link: usize) {
        let source = self.source(link).expect("it copies");
        let data = self.nodes[self.links[link].ends[source]].data;
        let map = self.links[link].maps[source];
        let conn = self.conn(link);
        let region = conn.region_to_copy(map).expect("there is one");
        conn.unacked[region] = true;
        conn.bulk.push((region, data[region]));
        self.links[link].maps[source][region] = false;
    }

    fn write(&mut self, node: usize, region: usize, value: u8) {
        self.nodes[node].data[region] = value;
        let data = self.nodes[node].data;
        self.nodes[node].seen |= 1 << value;
        Rc::make_mut(&mut self.moments).insert(data);
        self.pass_on(node, region, value, None);
    }

    /// Every feed of the node but the one that the write came from.
    fn pass_on(&mut self, node: usize, region: usize, value: u8, from: Option<usize>) {
        for link in (0..self.links.len()).filter(|link| Some(*link) != from) {
            let Some(side) = self.links[link].ends.iter().position(|end| *end == node) else {
                continue;
            };
            if !self.is_tracked(link, side) {
                continue;
            }
            let sends = self.source(link) == Some(side);
            let here = &mut self.links[link];
            match &mut here.conn {
                Some(conn)
                    if sends
                        && conn.online
                        && !conn.marked
                        && !here.maps[side][region]
                        && conn.bulk.iter().all(|(r, _)| *r != region) =>
                {
                    conn.live.push_back(Item::Write { region, value });
                    conn.sent += 1;
                    conn.unacked[region] = true;
                }
                _ => here.maps[side][region] = true,
            }
        }
    }

    fn apply_live(&mut self, link: usize) -> Result<(), Wrong> {
        let conn = self.conn(link);
        conn.applied += 1;
        match conn.live.pop_front().expect("there is one") {
            Item::Write { region, value } => self.apply(link, region, value),
            Item::Mark(point) => match self.source(link) {
                Some(source) => self.handle(link, 1 - source, Event::MarkReached { point }),
                None => Ok(()),
            },
        }
    }

    /// The sink takes a value.
    fn apply(&mut self, link: usize, region: usize, value: u8) -> Result<(), Wrong> {
        let Some(source) = self.source(link) else {
            return Ok(());
        };
        self.may_overwrite(link, source, region)?;
        let node = self.links[link].ends[1 - source];
        self.nodes[node].data[region] = value;
        self.nodes[node].seen |= 1 << value;
        self.pass_on(node, region, value, Some(link));
        Ok(())
    }

    /// Makes a change of a record; the inner error is the record keeping's refusal.
    fn commit(
        &mut self,
        link: usize,
        side: usize,
        change: &RecordChange,
    ) -> Result<Result<(), String>, Wrong> {
        let node = self.links[link].ends[side];
        if let Err(why) = record::check(&self.nodes[node].volume.0, feed(link), change) {
            return Ok(Err(why));
        }
        let map = match change {
            RecordChange::Session { map, .. } | RecordChange::Confirmed { map, .. } => *map,
            // Before its roles change, a volume is flushed.
            RecordChange::Swapped { .. } => {
                self.nodes[node].durable = self.nodes[node].data;
                MapChange::Keep
            }
            _ => MapChange::Keep,
        };
        let fills = matches!(
            change,
            RecordChange::Session {
                role: feedplex::generation::Role::Sink,
                ..
            }
        );
        if fills {
            self.nodes[node].durable = self.nodes[node].data;
        }
        if map == MapChange::AllDirty {
            self.links[link].maps[side] = [true; REGIONS];
        }
        self.change(node, |volume| record::apply(volume, feed(link), change));
        if map == MapChange::Clear {
            self.links[link].maps[side] = [false; REGIONS];
        }
        self.committed(link, side, change)?;
        Ok(Ok(()))
    }
}
