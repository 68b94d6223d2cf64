//! What nodes claim, checked against what is true: consistency (invariant 6), and that nobody's
//! changes are overwritten without a word (invariant 9).

use super::history::History;
use super::session::{Sess, is_tracked};
use super::stream::SinkStreams;
use super::world::World;
use feedplex::generation::Role;
use feedplex::session::{RecordChange, Session, SinkContent};
use feedplex::wire::control::RefusalCode;
use std::rc::Rc;
use uuid::Uuid;
use volmgr::model::{Direction, FeedIntent};

/// A moment in a volume's write order.
#[derive(Clone)]
pub enum Truth {
    /// Of this node's volume, at this step.
    At(usize, u64),
    /// Of a volume as it was until its node crashed, at this step.
    Old(Rc<History>, u64),
}

impl Truth {
    fn at(&self) -> u64 {
        match self {
            Self::At(_, at) | Self::Old(_, at) => *at,
        }
    }

    fn move_to(&mut self, step: u64) {
        match self {
            Self::At(_, at) | Self::Old(_, at) => *at = step.max(*at),
        }
    }
}

/// What a sink claims to hold.
#[derive(Clone)]
pub struct Claim {
    /// The node.
    pub node: usize,
    /// The moment.
    pub truth: Truth,
}

impl World {
    /// A mark goes into a stream: this moment is the point.
    pub fn marked(&mut self, n: usize, point: Uuid) {
        let truth = Truth::At(n, self.step);
        self.points.insert(point, truth);
    }

    /// A frame of the live stream has come: what the sink holds is newer by that.
    pub fn claim_moves(&mut self, conn: u64, stream: usize, at: u64) {
        let conn = &self.conns[&conn];
        let (n, id) = conn.ends[conn.sink];
        let daemon = self.nodes[n].up.as_ref();
        let feed = daemon.and_then(|d| d.sessions.get(&id)?.feed);
        if stream == 0
            && let Some(claim) = feed.and_then(|feed| self.claims.get_mut(&feed))
            && claim.node == n
        {
            claim.truth.move_to(at);
        }
    }

    /// A change of a feed's record has become durable.
    pub fn committed(&mut self, n: usize, id: u64, feed: Uuid, change: &RecordChange) {
        match change {
            RecordChange::Session {
                role: Role::Sink,
                content,
                ..
            } => {
                self.gives_up(n, id, feed, change);
                self.others_give_way(n, feed);
                if *content != SinkContent::Keep {
                    self.claims.remove(&feed);
                }
            }
            RecordChange::Session { .. } => {
                // What it held as a sink is what it goes on from.
                self.claims.remove(&feed);
            }
            RecordChange::Confirmed { .. } => {}
            RecordChange::Inconsistent => {
                self.claims.remove(&feed);
            }
            RecordChange::Consistent { .. } => {
                self.totals.consistent += 1;
                self.seeded.insert(feed, true);
                if let Some(truth) = self.truth_of_stream(n, id) {
                    self.claims.insert(feed, Claim { node: n, truth });
                    self.check_caught_up(n, id, feed);
                }
            }
            RecordChange::Split { point, .. } => {
                self.passes_on(n, feed, change);
                let sink = self
                    .feed(n, feed)
                    .is_some_and(|f| f.direction == Direction::In);
                if sink {
                    self.totals.splits += 1;
                    let truth = self.points.get(point).expect("a point has a mark").clone();
                    self.claims.insert(feed, Claim { node: n, truth });
                    self.check_claim(n, feed, "split");
                }
            }
            RecordChange::Swapped { .. } => {
                self.totals.swaps += 1;
                self.passes_on(n, feed, change);
                self.others_give_way(n, feed);
            }
            RecordChange::Seeded | RecordChange::Paused | RecordChange::Detaching { .. } => {}
        }
    }

    /// A sink's record is about to say that what the volume holds may be overwritten: it may be durable,
    /// whatever happens now.
    pub fn gives_up(&mut self, n: usize, id: u64, feed: Uuid, change: &RecordChange) {
        let RecordChange::Session {
            role: Role::Sink,
            content,
            ..
        } = change
        else {
            return;
        };
        self.check_overwriting(n, id, feed);
        if *content == SinkContent::Unseeded {
            // Invariant 7: never an unneeded full copy. From here on there is nothing but that.
            let needless = self.seeded.insert(feed, false) == Some(true);
            assert!(
                !needless || self.has_consent(n, id),
                "n{n}: a full copy, though both sides have a map"
            );
        }
    }

    /// A feed is about to write to a volume: as after a client's write, what the volume had of the
    /// points of other feeds is a point and what their maps say has changed since.
    fn others_give_way(&mut self, n: usize, feed: Uuid) {
        self.claims
            .retain(|other, claim| *other == feed || claim.node != n);
    }

    /// A change that says that the other side has all that was written here is about to become
    /// durable: it may be, whatever happens now.
    pub fn passes_on(&mut self, n: usize, feed: Uuid, change: &RecordChange) {
        let (RecordChange::Split { point, .. } | RecordChange::Swapped { point, .. }) = change
        else {
            return;
        };
        let sink = self
            .feed(n, feed)
            .is_some_and(|f| f.direction == Direction::In);
        let step = self.step;
        let passed = match self.points.get(point) {
            Some(marked) if !sink => marked.at(),
            _ => step,
        };
        self.passed_on.insert((feed, n), passed);
    }

    /// Invariant 6 along a cascade: what a sink passes on as caught up is a moment of its own source.
    pub fn check_whole(&self, n: usize) {
        let feeds = self.volume(n).map_or(&[][..], |v| &v.feeds);
        let Some(filled) = feeds.iter().find(|f| f.fills() && !f.epochs.is_empty()) else {
            return;
        };
        let sessions = self.nodes[n].up.iter().flat_map(|d| d.sessions.values());
        let mut its =
            sessions.filter(|s| s.feed == Some(filled.uuid) && s.role() == Some(Role::Sink));
        // Without a session the record counts only where the last one ended well. One that is ending and has
        // written all that it was told to has nothing in flight.
        let good = |s: &Sess| !s.sink.as_ref().is_some_and(SinkStreams::has_failed);
        let believed = filled.settled || its.any(good);
        assert!(
            filled.consistent && believed,
            "n{n}: passed on as consistent, though what fills it is not"
        );
    }

    /// Did the admin of either side agree to lose what is at the sink?
    pub fn has_consent(&self, n: usize, id: u64) -> bool {
        let Some((conn, end)) = self.end_of(n, id) else {
            return false;
        };
        let own = |n: usize, id: u64| {
            let daemon = self.nodes[n].up.as_ref();
            daemon
                .and_then(|d| d.sessions.get(&id))
                .is_some_and(|s| s.consent)
        };
        let facts = |sess: &Sess| {
            let peer = sess.session.as_ref().and_then(Session::peer);
            peer.is_some_and(|p| p.discard_peer || p.discard_local)
        };
        let (peer, other) = self.conns[&conn].ends[1 - end];
        let told = self.nodes[n].up.as_ref().and_then(|d| d.sessions.get(&id));
        own(n, id) || own(peer, other) || told.is_some_and(facts)
    }

    /// The moment in the source's write order up to which a sink has everything, given that it has
    /// what the source's last word says.
    fn truth_of_stream(&self, n: usize, id: u64) -> Option<Truth> {
        let (conn, end) = self.end_of(n, id)?;
        let conn = self.conns.get(&conn)?;
        let sess = self.nodes[n].up.as_ref()?.sessions.get(&id)?;
        let last = sess.sink.as_ref().map_or(0, |s| s.last_at);
        let at = conn.caught_at?.max(last);
        Some(match &conn.old {
            Some(old) => Truth::Old(old.clone(), at),
            None => Truth::At(conn.ends[1 - end].0, at),
        })
    }

    /// Invariant 9: what clients have written here, and nobody else has, is only given up with the
    /// admin's word.
    fn check_overwriting(&mut self, n: usize, id: u64, feed: Uuid) {
        let passed = self.passed_on.get(&(feed, n)).copied().unwrap_or(0);
        let written = self.nodes[n].last_write;
        assert!(
            written <= passed || self.has_consent(n, id) || self.is_blank(n),
            "n{n}: what clients wrote (last in step {written}, passed on up to {passed}) is overwritten without consent"
        );
        // Given up, or passed on.
        self.passed_on.insert((feed, n), self.step);
    }

    /// Invariants 7 and 9: the admin is only asked to give something up where there is something to
    /// give up, whatever crashed, and told of older disks where some are: what a crash leaves behind may look like those.
    pub fn check_refusal(&self, n: usize, sess: &Sess, code: RefusalCode) {
        let crashed = [n, sess.peer].iter().any(|m| self.nodes[*m].crashed);
        assert!(
            crashed || code != RefusalCode::RolledBack,
            "n{n}: refused with {code:?}, though no disk has lost anything"
        );
        let disagree = matches!(code, RefusalCode::Diverged | RefusalCode::SinkAhead);
        let (Some(feed), true) = (sess.feed, disagree && self.relations.len() == 1) else {
            return;
        };
        let peer = sess.session.as_ref().and_then(Session::peer);
        let swap = sess.asks_swap || peer.is_none_or(|peer| peer.swap);
        let sinks: Vec<usize> = [n, sess.peer]
            .into_iter()
            .filter(|m| {
                self.feed(*m, feed)
                    .is_some_and(|f| f.direction == Direction::In)
            })
            .collect();
        let [sink] = sinks[..] else { return };
        let passed = self.passed_on.get(&(feed, sink)).copied().unwrap_or(0);
        assert!(
            swap || self.nodes[sink].last_try > passed,
            "n{n}: refused with {code:?}, though nobody has written to the sink n{sink}"
        );
    }

    /// A client writes to a volume: it is no point of another's order any more.
    pub fn client_wrote(&mut self, n: usize) {
        self.nodes[n].last_try = self.step;
        let fed = self.volume(n).is_some_and(|v| {
            v.feeds
                .iter()
                .any(|f| f.direction == Direction::In && !is_tracked(f))
        });
        // A write that was in flight when the volume became a sink; the session was refused or
        // given consent by then.
        if !fed {
            self.claims.retain(|_, claim| claim.node != n);
        }
    }

    /// Invariant 6: a sink that calls itself consistent has, on its disks, all that its source had acknowledged when it
    /// told that it had caught up. What came since may be there already.
    fn check_caught_up(&self, n: usize, id: u64, feed: Uuid) {
        if self.feed(n, feed).is_none_or(|f| f.restore.is_some()) {
            return;
        }
        let Some((conn, end)) = self.end_of(n, id) else {
            return;
        };
        let conn = &self.conns[&conn];
        let Some(at) = conn.caught_at else { return };
        let source = conn.ends[1 - end].0;
        let history = conn.old.as_deref().unwrap_or(&self.nodes[source].history);
        for plex in self.plexes_recorded_active(n) {
            for sector in 0..history.sectors.len() {
                let Some((disk, at_disk)) = self.place(n, &plex, sector) else {
                    continue;
                };
                for value in self.nodes[n].disks[disk].may_have(at_disk) {
                    assert!(
                        history.legal(sector, value, at, false)
                            || self.is_rots_doing(n, sector, value, history, at),
                        "n{n}: consistent without what its source had in step {at}: sector {sector} may have {value}"
                    );
                }
            }
        }
    }

    /// Invariant 6: a sink holds what it claims.
    pub fn check_claim(&mut self, n: usize, feed: Uuid, when: &str) {
        let Some(claim) = self.claims.get(&feed).filter(|c| c.node == n).cloned() else {
            return;
        };
        let record = self.feed(n, feed);
        let told =
            record.is_some_and(|f| f.consistent && f.settled && f.direction == Direction::In);
        if !told {
            return;
        }
        self.totals.claims += 1;
        let (history, at) = match &claim.truth {
            Truth::At(source, at) => (&self.nodes[*source].history, *at),
            Truth::Old(history, at) => (history.as_ref(), *at),
        };
        for plex in self.plexes_recorded_active(n) {
            for sector in 0..history.sectors.len() {
                let Some(value) = self.look(n, &plex, sector) else {
                    continue;
                };
                let possible = history.possible(sector, at);
                assert!(
                    possible.contains(&value) || self.is_rots_doing(n, sector, value, history, at),
                    "n{n} {when}: claims the source's step {at}, but sector {sector} has {value}, not one of {possible:?}"
                );
            }
        }
    }

    /// A node has come up: what its sinks claim must have survived.
    pub fn check_claims_at_rest(&mut self, n: usize) {
        let feeds: Vec<Uuid> = self.claims.keys().copied().collect();
        for feed in feeds {
            let split = self
                .feed(n, feed)
                .is_some_and(|f| matches!(f.intent, FeedIntent::Split { .. }) || f.settled);
            if split {
                self.check_claim(n, feed, "after a start");
            }
        }
    }

    /// A session has ended.
    pub fn after_session(&mut self, n: usize, feed: Option<Uuid>) {
        // Nothing that the sink did in a session may leave its plexes unequal in what they claim.
        if let Some(feed) = feed
            && self.nodes[n].up.is_some()
        {
            let split = self
                .feed(n, feed)
                .is_some_and(|f| matches!(f.intent, FeedIntent::Split { .. }));
            if split {
                self.check_claim(n, feed, "after its session");
            }
        }
    }
}
