//! The volume that a peer's handshake is for, as `tools/src/daemon/feeds/target.rs` finds it.

use super::record::{self, Ask};
use super::session::{Work, is_tracked};
use super::world::{Entry, LV, VG, World};
use feedplex::generation::Role;
use feedplex::session::{Event, FeedState};
use feedplex::wire::control::{Handshake, RefusalCode, Refused};
use volmgr::model::{Direction, FeedMode};

impl World {
    /// What a handshake is for, as `target.rs` finds it.
    pub fn open(&mut self, n: usize, id: u64, handshake: Box<Handshake>) {
        let peer = self.sess(n, id).peer;
        let refuse = |code, text: &str| {
            Event::OpenRefused(Refused {
                code,
                text: text.into(),
            })
        };
        let volume = self.volume(n).expect("the volume").clone();
        let recorded = volume.feeds.iter().find(|f| f.uuid == handshake.feed);
        let peer_sends = (handshake.role == Role::Source) != handshake.swap;
        let size = self.nodes[n].history.sectors.len() as u64 * super::disk::SECTOR;
        if peer_sends {
            self.freeze(n, id);
        }
        let refused = if size != handshake.size {
            Some((RefusalCode::SinkTooSmall, "sizes differ"))
        } else if recorded.is_none() && volume.feeds.iter().any(|f| f.peer == format!("n{peer}")) {
            Some((RefusalCode::WrongState, "another feed with this peer"))
        } else if (recorded.is_none() || peer_sends)
            && volume
                .feeds
                .iter()
                .any(|f| f.uuid != handshake.feed && f.direction == Direction::In && !is_tracked(f))
        {
            Some((RefusalCode::Busy, "fed by another peer"))
        } else if peer_sends && (self.nodes[n].open || self.clients_in_flight(n)) {
            Some((RefusalCode::Busy, "open here"))
        } else {
            None
        };
        if let Some((code, text)) = refused {
            return self.handle(n, id, refuse(code, text), self.now(n));
        }
        if self.entry(n, handshake.feed).is_none() {
            let mode = match handshake.sync_mode {
                true => FeedMode::Sync,
                false => FeedMode::Async,
            };
            let feed = recorded.cloned().unwrap_or_else(|| {
                let (feed, peer) = (handshake.feed, format!("n{peer}"));
                record::provisional(feed, &peer, "vg/lv", Direction::In, false, mode, 0)
            });
            let provisional = recorded.is_none().then_some(feed);
            self.daemon(n).entries.push(Entry {
                feed: handshake.feed,
                peer,
                initiator: false,
                ask: Ask::default(),
                provisional,
                enabled: true,
                state: FeedState::Connecting,
                session: None,
            });
        }
        let entry = self.entry(n, handshake.feed).expect("it is there");
        if let Some(earlier) = entry.session {
            // One that the peer has given up.
            if let Some(earlier) = self.daemon(n).sessions.get_mut(&earlier)
                && !earlier.is_closing()
                && !earlier.has_stop()
            {
                earlier.push(Event::Stop);
            }
            let again = Work::Open(handshake);
            return self.sess(n, id).work.push_front(again);
        }
        entry.session = Some(id);
        entry.state = FeedState::Connecting;
        let known = recorded.is_some();
        let blank = !known && self.is_blank(n);
        let local = self.local_feed(n, handshake.feed, &Ask::default());
        let Some(mut local) = local else {
            return self.handle(n, id, refuse(RefusalCode::NoVolume, "gone"), self.now(n));
        };
        local.facts.target = format!("{VG}/{LV}");
        local.facts.fresh = blank;
        self.sess(n, id).feed = Some(handshake.feed);
        self.handle(n, id, Event::Opened(Box::new(local)), self.now(n));
    }

    /// Clients may not write until the session has made the volume a sink, or has not.
    pub fn freeze(&mut self, n: usize, id: u64) {
        self.sess(n, id).frozen += 1;
        self.daemon(n).engine.freeze();
    }

    /// One reason why they may not is gone.
    pub fn thaw(&mut self, n: usize, id: u64) {
        let sess = self.sess(n, id);
        if sess.frozen > 0 {
            sess.frozen -= 1;
            self.daemon(n).engine.thaw();
        }
    }

    /// They may again, if the volume's role lets them.
    pub fn thaw_all(&mut self, n: usize, id: u64) {
        while self.sess(n, id).frozen > 0 {
            self.thaw(n, id);
        }
    }

    /// Has a client a request in flight?
    pub fn clients_in_flight(&self, n: usize) -> bool {
        use super::lane::{Asked, Owner};
        let daemon = self.nodes[n].up.as_ref().expect("the node is up");
        daemon.asked.values().any(|asked| {
            matches!(
                asked,
                Asked::Read { .. }
                    | Asked::Write {
                        owner: Owner::Client,
                        ..
                    }
                    | Asked::Flush {
                        owner: Owner::Client,
                        ..
                    }
            )
        })
    }

    /// Is there nothing but zeroes?
    pub fn is_blank(&self, n: usize) -> bool {
        let plexes = self.plexes_in_service(n);
        let sectors = self.nodes[n].history.sectors.len();
        plexes
            .first()
            .is_some_and(|plex| (0..sectors).all(|sector| self.look(n, plex, sector) == Some(0)))
    }
}
