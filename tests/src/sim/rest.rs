//! Everything heals and comes to rest: all copies must be equal then.

use super::record::Ask;
use super::rng::Rng;
use super::world::World;
use feedplex::session::FeedState;
use volmgr::model::{Direction, Feed, FeedIntent, PlexState};
use volmgr::scrub::Word;

/// Rounds after which the world must have come to rest.
const ROUNDS: u32 = 6000;

impl World {
    /// Heals everything, waits, and compares.
    ///
    /// # Panics
    /// Where the world does not come to rest, or copies differ.
    pub fn rest(&mut self) {
        self.faults = false;
        self.rng = Rng::of_step(self.seed, u32::MAX);
        for n in 0..self.nodes.len() {
            self.nodes[n].open = false;
            for disk in &mut self.nodes[n].disks {
                disk.fail_flush = false;
                disk.fail_write = false;
                disk.recover();
            }
            if self.nodes[n].up.is_none() {
                self.boot(n);
            }
        }
        for round in 0..ROUNDS {
            for _ in 0..30 {
                if !self.progress() {
                    break;
                }
            }
            self.tick();
            if round % 4 == 0 {
                for n in 0..self.nodes.len() {
                    self.heal(n, round);
                }
            }
            if round % 8 == 7 && self.at_rest() && self.feeds_are_equal() {
                return self.check_equal();
            }
        }
        panic!("no rest: {}", self.why_no_rest());
    }

    /// An admin who brings a node's feeds and plexes back.
    fn heal(&mut self, n: usize, round: u32) {
        self.disk_returns(n);
        self.adopt_again(n);
        if self.differs_by_rot(n) {
            self.scrub(n, Some(Word::Copy(0)));
        }
        let plexes = self.volume(n).expect("the volume").plexes.clone();
        for plex in plexes {
            if plex.state == PlexState::Offline {
                self.set_plex_back(n, plex.number);
            }
        }
        let feeds: Vec<_> = self.daemon(n).entries.iter().map(|e| e.feed).collect();
        for feed in feeds {
            let Some(entry) = self.entry(n, feed) else {
                continue;
            };
            if entry.session.is_some() {
                continue;
            }
            let (initiator, enabled, state, peer) =
                (entry.initiator, entry.enabled, entry.state, entry.peer);
            let record = self.feed(n, feed).cloned();
            let told = state == FeedState::Paused;
            if let Some(record) = &record
                && (record.intent == FeedIntent::Paused || told)
            {
                self.resume(n, feed);
            }
            if !initiator {
                if self.forgotten_there(peer, feed) {
                    self.forget_here(n, feed);
                }
                continue;
            }
            let Some(record) = record else {
                // A first attempt that was refused leaves nothing behind.
                self.daemon(n).entries.retain(|e| e.feed != feed);
                continue;
            };
            let grown =
                self.nodes[n].history.sectors.len() != self.nodes[peer].history.sectors.len();
            let orphan = record.direction == Direction::In && self.feed(peer, feed).is_none();
            let other = |f: &&Feed| f.uuid != feed && f.fills() && !f.epochs.is_empty();
            let fed = record.direction == Direction::Out
                && self
                    .volume(peer)
                    .is_some_and(|v| v.feeds.iter().any(|f| other(&f)));
            if state == FeedState::Refused && (grown || orphan || fed) {
                // The peer has forgotten the feed, or another source, and there is nothing left to go on with.
                self.forget_here(n, feed);
            } else if state == FeedState::Refused && round.is_multiple_of(16) {
                // The two sides disagree; the admin decides for the source.
                let out = record.direction == Direction::Out;
                let entry = self.entry(n, feed).expect("it is there");
                entry.ask = Ask {
                    discard_peer: out,
                    discard_local: !out,
                    consent: true,
                    attach: true,
                    ..Ask::default()
                };
                entry.enabled = true;
            } else if matches!(record.intent, FeedIntent::Split { .. }) && !enabled {
                // Goes on from its point, from here to there.
                let entry = self.entry(n, feed).expect("it is there");
                entry.ask = Ask {
                    attach: true,
                    swap: record.direction == Direction::In,
                    discard_peer: true,
                    ..Ask::default()
                };
                entry.enabled = true;
            }
            if self.volume(peer).is_some() {
                self.connect(n, feed);
            }
        }
    }

    fn forgotten_there(&self, peer: usize, feed: uuid::Uuid) -> bool {
        let daemon = self.nodes[peer].up.as_ref();
        daemon.is_some_and(|d| !d.entries.iter().any(|e| e.feed == feed))
    }

    fn at_rest(&mut self) -> bool {
        (0..self.nodes.len()).all(|n| {
            let recorded = self.volume(n).expect("the volume").clone();
            let scrubbed = !self.differs_by_rot(n);
            let daemon = self.daemon(n);
            let engine = &daemon.engine;
            let quiet = daemon.jobs.is_empty()
                && daemon.asked.is_empty()
                && engine.is_idle()
                && engine.recover_bytes() == 0
                && engine.logged_bytes() == 0;
            quiet
                && scrubbed
                && recorded.plexes.iter().all(|p| p.state == PlexState::Active)
                && daemon.sessions.values().all(|s| !s.is_closing())
                && recorded.feeds.iter().all(|f| {
                    let live = |n: usize| {
                        let entries = self.nodes[n].up.iter().flat_map(|d| &d.entries);
                        let mut known = entries.filter(|e| e.feed == f.uuid);
                        known.find(|e| e.state == FeedState::Live).map(|e| e.peer)
                    };
                    // On the way to a point what is written since does not flow.
                    let ends = matches!(f.intent, FeedIntent::Detaching { .. });
                    // Live on both sides: one alone may not have noticed yet that the other is gone.
                    !ends && live(n).is_some_and(|peer| live(peer) == Some(n))
                })
        })
    }

    /// Every copy of every volume: equal, legal, and nothing missing anywhere.
    fn check_equal(&mut self) {
        for n in 0..self.nodes.len() {
            let plexes = self.plexes_recorded_active(n);
            for sector in 0..self.nodes[n].history.sectors.len() {
                let first = self.look(n, &plexes[0], sector).expect("a disk");
                assert!(
                    self.is_fine(n, sector, first, self.step + 1),
                    "n{n} at rest: sector {sector} has {first}: {:?}",
                    self.nodes[n].history.sectors[sector]
                );
                for plex in &plexes[1..] {
                    let value = self.look(n, plex, sector);
                    assert_eq!(
                        value,
                        Some(first),
                        "n{n} at rest: {} differs in sector {sector}",
                        plex.name()
                    );
                }
            }
            let feeds = self.volume(n).expect("the volume").feeds.clone();
            for feed in feeds.iter().filter(|f| f.direction == Direction::Out) {
                let peer = self.entry(n, feed.uuid).expect("it is there").peer;
                let there = self.plexes_recorded_active(peer);
                for sector in 0..self.nodes[n].history.sectors.len() {
                    let here = self.look(n, &plexes[0], sector);
                    let value = self.look(peer, &there[0], sector);
                    assert_eq!(
                        value, here,
                        "n{peer} at rest differs from its source n{n} in sector {sector}"
                    );
                }
            }
        }
    }

    fn why_no_rest(&mut self) -> String {
        let mut text = String::new();
        for n in 0..self.nodes.len() {
            let plexes: Vec<_> = self
                .volume(n)
                .map(|v| v.plexes.iter().map(|p| p.state).collect())
                .unwrap_or_default();
            let daemon = self.daemon(n);
            let feeds: Vec<_> = daemon
                .entries
                .iter()
                .map(|e| (e.peer, e.initiator, e.enabled, e.state, e.session))
                .collect();
            text += &format!(
                "\n  n{n}: {} jobs, {} requests, idle {}, recover {}, logged {}, plexes {plexes:?}, feeds {feeds:?}",
                daemon.jobs.len(),
                daemon.asked.len(),
                daemon.engine.is_idle(),
                daemon.engine.recover_bytes(),
                daemon.engine.logged_bytes(),
            );
        }
        text
    }
}
