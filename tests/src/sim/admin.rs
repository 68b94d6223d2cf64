//! What admins do at random moments, and what breaks.

use super::record::{self, Ask};
use super::world::{LV, World};
use feedplex::session::{Event, FeedState};
use std::collections::BTreeSet;
use uuid::Uuid;
use volmgr::engine::PlexId;
use volmgr::model::{Direction, FeedIntent, FeedMode, Layout, PlexState};
use volmgr::plan;

impl World {
    /// Somebody does something at a node; now and then a machine that is down comes up.
    pub fn admin(&mut self) {
        let n = self.rng.index(self.nodes.len());
        if self.nodes[n].up.is_none() {
            return self.boot(n);
        }
        match self.rng.below(16) {
            0..=5 => self.connect_any(n),
            6 | 7 => self.attach(n),
            8 => self.detach(n),
            9 => self.swap(n),
            10 => self.pause_or_resume(n),
            11 => {
                // Who is to be fed is seldom in use.
                let open = !self.nodes[n].open && (n == 0 || self.rng.chance(15));
                self.nodes[n].open = open;
                self.note(|| format!("n{n} open: {open}"));
            }
            12 => self.plex_verb(n),
            13 => self.extend(n),
            14 => self.disk_returns(n),
            _ => self.forget(n),
        }
    }

    fn any_feed(&mut self, n: usize) -> Option<Uuid> {
        let feeds: Vec<Uuid> = self.daemon(n).entries.iter().map(|e| e.feed).collect();
        (!feeds.is_empty()).then(|| feeds[self.rng.index(feeds.len())])
    }

    /// Machines come up, and feeds connect, by themselves.
    pub fn supervise(&mut self) {
        for n in 0..self.nodes.len() {
            if self.nodes[n].up.is_none() {
                if self.rng.chance(30) {
                    self.boot(n);
                }
                continue;
            }
            let wanted: Vec<Uuid> = self
                .daemon(n)
                .entries
                .iter()
                .filter(|e| e.initiator && e.enabled && e.session.is_none())
                .map(|e| e.feed)
                .collect();
            for feed in wanted {
                if self.rng.chance(40) {
                    self.connect(n, feed);
                }
            }
        }
    }

    fn connect_any(&mut self, n: usize) {
        if let Some(feed) = self.any_feed(n)
            && self.entry(n, feed).is_some_and(|e| e.initiator)
        {
            self.connect(n, feed);
        }
    }

    /// `feedattach`: a new feed, or one that goes on from its point.
    pub fn attach(&mut self, n: usize) {
        let targets: Vec<usize> = self
            .relations
            .iter()
            .filter(|(source, _)| *source == n)
            .map(|(_, sink)| *sink)
            .collect();
        if targets.is_empty() {
            return;
        }
        let peer = targets[self.rng.index(targets.len())];
        let discard_peer = self.rng.chance(40);
        self.attach_to(n, peer, discard_peer);
    }

    /// The same with this peer.
    pub fn attach_to(&mut self, n: usize, peer: usize, discard_peer: bool) {
        let ask = Ask {
            discard_peer,
            attach: true,
            ..Ask::default()
        };
        let known = self.daemon(n).entries.iter().find(|e| e.peer == peer);
        if let Some(feed) = known.map(|e| e.feed) {
            let again = self.feed(n, feed).is_some_and(|f| {
                f.initiator
                    && f.direction == Direction::Out
                    && matches!(f.intent, FeedIntent::Split { .. })
            });
            let entry = self.entry(n, feed).expect("it is there");
            if again
                || entry.provisional.is_some()
                || entry.state == FeedState::Refused && discard_peer
            {
                entry.ask = ask;
                entry.enabled = true;
            }
            return self.connect(n, feed);
        }
        let being_filled = self.volume(n).is_some_and(|v| {
            v.feeds
                .iter()
                .any(|f| f.direction == Direction::In && !f.seeded)
        });
        if being_filled {
            return;
        }
        let feed = self.uuid();
        let mode = match self.rng.chance(30) {
            true => FeedMode::Sync,
            false => FeedMode::Async,
        };
        let record = record::provisional(
            feed,
            &format!("n{peer}"),
            "vg/lv",
            Direction::Out,
            true,
            mode,
            0,
        );
        self.daemon(n).entries.push(super::world::Entry {
            feed,
            peer,
            initiator: true,
            ask,
            provisional: Some(record),
            enabled: true,
            state: FeedState::Connecting,
            session: None,
        });
        self.connect(n, feed);
    }

    fn tell(&mut self, n: usize, feed: Uuid, event: Event) -> bool {
        let session = self.entry(n, feed).and_then(|e| e.session);
        let Some(id) = session.filter(|id| self.daemon(n).sessions.contains_key(id)) else {
            return false;
        };
        if matches!(event, Event::Swap { .. }) {
            self.freeze(n, id);
        }
        self.sess(n, id).push(event);
        true
    }

    fn detach(&mut self, n: usize) {
        let Some(feed) = self.any_feed(n) else { return };
        let live = self
            .entry(n, feed)
            .is_some_and(|e| e.state == FeedState::Live);
        if !live
            || self
                .feed(n, feed)
                .is_none_or(|f| f.direction == Direction::In)
        {
            return;
        }
        let point = self.uuid();
        let name = format!("point-{}", self.next);
        self.note(|| format!("n{n} detaches at {point}"));
        self.tell(
            n,
            feed,
            Event::Detach {
                point,
                name,
                time: 0,
            },
        );
    }

    fn swap(&mut self, n: usize) {
        let Some(feed) = self.any_feed(n) else { return };
        let Some(record) = self.feed(n, feed).cloned() else {
            return;
        };
        let becomes_sink = record.direction == Direction::Out;
        let used = self.nodes[n].open || self.clients_in_flight(n);
        if becomes_sink && used {
            return;
        }
        let entry = self.entry(n, feed).expect("it is there");
        match record.intent {
            FeedIntent::Split { .. } if entry.initiator => {
                entry.enabled = true;
                entry.ask = Ask {
                    swap: true,
                    ..Ask::default()
                };
                let discard = self.rng.chance(50);
                let slot = volmgr::engine::FeedId(record.map_slot);
                let dirty = self.daemon(n).engine.dirty_bytes(slot) > 0;
                let entry = self.entry(n, feed).expect("it is there");
                entry.ask.discard_local = discard;
                if becomes_sink && dirty && !discard {
                    entry.ask = Ask::default();
                    entry.enabled = false;
                    return;
                }
                self.note(|| format!("n{n} swaps from its point"));
                self.connect(n, feed);
            }
            FeedIntent::Attached if entry.state == FeedState::Live => {
                let event = match becomes_sink {
                    true => self.swap_event(),
                    false => {
                        let ask = Ask {
                            consent: true,
                            ..Ask::default()
                        };
                        let entry = self.entry(n, feed).expect("it is there");
                        entry.ask = ask;
                        Event::AskSwap
                    }
                };
                self.note(|| format!("n{n} swaps"));
                self.tell(n, feed, event);
            }
            _ => {}
        }
    }

    fn pause_or_resume(&mut self, n: usize) {
        let Some(feed) = self.any_feed(n) else { return };
        let told = self.entry(n, feed).map(|e| e.state) == Some(FeedState::Paused);
        match self.feed(n, feed).map(|f| &f.intent) {
            Some(FeedIntent::Paused) => self.resume(n, feed),
            // By the other side.
            Some(FeedIntent::Attached) if told => self.resume(n, feed),
            Some(FeedIntent::Attached) => {
                self.tell(n, feed, Event::Pause);
            }
            _ => {}
        }
    }

    /// `feedresume`.
    pub fn resume(&mut self, n: usize, feed: Uuid) {
        let paused = self
            .feed(n, feed)
            .is_some_and(|f| f.intent == FeedIntent::Paused);
        let resumed = !paused
            || self
                .commit(n, |group| {
                    plan::update_feed(group, LV, feed, |f| f.intent = FeedIntent::Attached)
                })
                .is_ok();
        if resumed && let Some(entry) = self.entry(n, feed) {
            entry.enabled = true;
            entry.state = FeedState::Disconnected;
        }
    }

    /// `feeddetach --force`: now and then.
    fn forget(&mut self, n: usize) {
        let Some(feed) = self.any_feed(n) else { return };
        if self.rng.chance(30) && self.entry(n, feed).is_some_and(|e| e.session.is_none()) {
            self.forget_here(n, feed);
        }
    }

    /// The feed is forgotten on this side.
    pub fn forget_here(&mut self, n: usize, feed: Uuid) {
        if self.feed(n, feed).is_some() {
            let removed = self.commit(n, |group| {
                let next = plan::remove_feed(group, LV, feed)?;
                plan::update_volume(&next, LV, |volume| {
                    volume.points.retain(|point| point.feed != feed);
                    volume.role = record::volume_role(volume);
                })
            });
            if removed.is_err() || self.reconfigure(n).is_err() {
                return;
            }
        }
        self.note(|| format!("n{n} forgets feed {feed}"));
        self.daemon(n).entries.retain(|e| e.feed != feed);
        self.claims.remove(&feed);
        self.seeded.remove(&feed);
    }

    /// A plex that was taken off comes back.
    pub fn set_plex_back(&mut self, n: usize, number: u32) {
        if !self.commits_pending(n) {
            self.set_plex(n, number, PlexState::Stale);
            self.adopt(n);
        }
    }

    fn plex_verb(&mut self, n: usize) {
        let Some(volume) = self.volume(n).cloned() else {
            return;
        };
        let plex = &volume.plexes[self.rng.index(volume.plexes.len())];
        let number = plex.number;
        let known = self.daemon(n).engine.plex_state(PlexId(number));
        if known != Some(plex.state) || self.commits_pending(n) {
            return;
        }
        // Taking a plex off is the admin's failure where nothing else works any more.
        let works = |p: &volmgr::model::Plex| {
            p.number != number
                && p.subdisks.iter().all(|s| {
                    let disk = self.nodes[n].pvs.iter().position(|pv| *pv == s.pv);
                    let disk = disk.map(|d| &self.nodes[n].disks[d]);
                    disk.is_some_and(|d| d.is_sound())
                })
        };
        let others = self.plexes_in_service(n).iter().any(works);
        let recovering = self.daemon(n).engine.recover_bytes() > 0;
        match plex.state {
            PlexState::Active if others && !recovering => match self.rng.below(3) {
                0 if volume.plexes.len() > 1 => {
                    let gone = self.commit(n, |g| plan::detach_plex(g, LV, number));
                    if gone.is_ok() {
                        self.reconfigured(n);
                    }
                }
                _ => self.set_plex(n, number, PlexState::Offline),
            },
            PlexState::Active if volume.plexes.len() < 3 && !recovering => {
                let pvs = self.usable(n);
                let group = self.daemon(n).store.group();
                let uuid = Uuid::nil();
                let planned = plan::attach_plex(group, LV, Layout::Concat, &pvs, uuid);
                let Some(slot) = planned.ok().and_then(|g| {
                    let plex = g.volume(LV)?.plexes.iter().find(|p| p.uuid == uuid)?;
                    Some(plex.map_slot)
                }) else {
                    return;
                };
                self.call(n, |engine, out| engine.prepare_slot(slot, out));
                let daemon = self.daemon(n);
                daemon.attaching = Some((daemon.engine.maps_barrier(), slot));
            }
            PlexState::Offline => {
                self.set_plex(n, number, PlexState::Stale);
                self.adopt(n);
            }
            _ => {}
        }
    }

    /// The map of a plex to come says durably that it misses everything: now it may be named.
    pub fn attach_plex(&mut self, n: usize) {
        let daemon = self.daemon(n);
        let engine = &daemon.engine;
        let Some((_, slot)) = daemon.attaching.take_if(|a| engine.maps_written(a.0)) else {
            return;
        };
        let uuid = self.uuid();
        let pvs = self.usable(n);
        let added = self.commit(n, |group| {
            let group = plan::attach_plex(group, LV, Layout::Concat, &pvs, uuid)?;
            let volume = group.volume(LV).expect("the volume");
            match volume
                .plexes
                .iter()
                .any(|p| p.map_slot == slot && p.uuid == uuid)
            {
                true => Ok(group),
                // Somebody has taken the slot meanwhile.
                false => Err(plan::PlanError::Value {
                    what: "the slot",
                    value: u64::from(slot),
                }),
            }
        });
        if added.is_ok() {
            self.note(|| format!("n{n} gets another plex"));
            self.forget_logs(n);
            self.reconfigured(n);
            self.adopt(n);
        }
    }

    /// Disks that work.
    fn usable(&self, n: usize) -> Vec<Uuid> {
        let node = &self.nodes[n];
        let up = node.up.as_ref().expect("the node is up");
        let works = |d: &usize| !node.disks[*d].dead && !up.gone.contains(d);
        let all = 0..node.disks.len();
        all.filter(works).map(|d| node.pvs[d]).collect()
    }

    fn set_plex(&mut self, n: usize, number: u32, state: PlexState) {
        self.note(|| format!("n{n} plex{number} to {state:?}"));
        if self
            .commit(n, |g| plan::set_plex_state(g, LV, number, state))
            .is_ok()
        {
            self.reconfigured(n);
        }
    }

    pub(super) fn reconfigured(&mut self, n: usize) {
        self.reconfigure(n).expect("a good layout");
    }

    /// Space that was a log's is none any more.
    fn forget_logs(&mut self, n: usize) {
        let volume = self.volume(n).expect("the volume").clone();
        let node = &mut self.nodes[n];
        for (disk, pv) in node.disks.iter_mut().zip(&node.pvs) {
            let start = disk.data_start;
            let used: BTreeSet<u64> = volume
                .log
                .iter()
                .filter(|l| l.pv == *pv)
                .map(|l| start + l.pv_extent * super::setup::EXTENT)
                .collect();
            disk.logs.retain(|at, _| used.contains(at));
        }
    }

    /// New copies of the log: formatted, given to the engine, valid once they are whole.
    pub(super) fn adopt(&mut self, n: usize) {
        // Not one that is with the engine already.
        self.reconfigured(n);
        let formatted = self.adopt_logs(n);
        if formatted.is_empty() {
            return;
        }
        let adopted = self.reconfigure_with_logs(n, &formatted);
        if adopted.is_err() {
            return;
        }
        self.flush(n, super::lane::Owner::Adopt(formatted));
    }

    /// `plexsync`: copies of the log for which an attempt failed are made once more, when nothing is on its way to
    /// them.
    pub fn adopt_again(&mut self, n: usize) {
        let invalid = self
            .volume(n)
            .is_some_and(|v| v.log.iter().any(|l| !l.valid));
        let daemon = self.daemon(n);
        let adopting = daemon.asked.values().any(|asked| {
            use super::lane::{Asked, Owner};
            matches!(
                asked,
                Asked::Flush {
                    owner: Owner::Adopt(_),
                    ..
                }
            )
        });
        let writing = |j: &super::lane::Job| matches!(j, super::lane::Job::Log(_));
        if invalid && !adopting && !daemon.jobs.iter().any(writing) {
            self.adopt(n);
        }
    }

    /// Is a commit of the engine's on its way?
    pub(super) fn commits_pending(&self, n: usize) -> bool {
        let daemon = self.nodes[n].up.as_ref().expect("the node is up");
        let commit = |j: &super::lane::Job| matches!(j, super::lane::Job::Commit(..));
        daemon.jobs.iter().any(commit)
    }

    /// `lvextend`: only without feeds, which have the size of both sides.
    fn extend(&mut self, n: usize) {
        let volume = self.volume(n).expect("the volume").clone();
        let small = volume.extents < 4;
        let peers_small = self.nodes.iter().all(|node| {
            node.history.sectors.len() as u64 * super::disk::SECTOR <= 4 * super::setup::EXTENT
        });
        let whole = volume.plexes.iter().all(|p| p.state == PlexState::Active)
            && volume.log.iter().all(|l| l.valid);
        if !volume.feeds.is_empty()
            || !self.daemon(n).entries.is_empty()
            || !small
            || !peers_small
            || !whole
            || self.commits_pending(n)
            || self.daemon(n).gone.iter().any(|_| true)
        {
            return;
        }
        let size = (volume.extents + 2) * super::setup::EXTENT;
        let mut moved = false;
        let grown = self.commit(n, |group| {
            let extension = plan::extend_volume(group, LV, size, &[])?;
            moved = extension.log_moved;
            Ok(extension.group)
        });
        assert!(!moved, "the log of a small volume has room");
        if grown.is_err() {
            return;
        }
        self.totals.grown += 1;
        self.note(|| format!("n{n} grows to {size}"));
        self.grow_logs(n);
        let plexes = self.plexes_recorded_active(n);
        let sectors = (size / super::disk::SECTOR) as usize;
        let contents: Vec<Vec<u64>> = (0..sectors)
            .map(|s| plexes.iter().filter_map(|p| self.look(n, p, s)).collect())
            .collect();
        self.nodes[n].history.grow(sectors, |s| contents[s].clone());
        self.reconfigured(n);
    }
}
