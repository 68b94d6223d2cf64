//! Rot and feeds: what the two sides differ by, and `feedverify --repair`.
//!
//! A feed carries on what its source reads: a plex that has rotted puts that into the copy, and a copy may rot by itself.
//! Neither side notices. So where something has rotted both sides may differ, there and nowhere else; the comparison
//! finds that, and the product's session makes the sink equal to the source again. The comparison itself is modelled: it
//! sees both sides at one moment.

use super::disk::range_of;
use super::history::History;
use super::scrub::rotten;
use super::session::Sess;
use super::setup::REGION;
use super::world::World;
use feedplex::generation::Role;
use feedplex::session::{Event, FeedState};
use feedplex::wire::control::WireRange;
use std::collections::BTreeSet;
use uuid::Uuid;
use volmgr::model::Direction;

impl World {
    /// Feeds that leave a node: the feed, and who is at the other end.
    fn feeds_out(&self, n: usize) -> Vec<(Uuid, usize)> {
        let feeds = self.volume(n).into_iter().flat_map(|v| &v.feeds);
        let out = feeds.filter(|f| f.direction == Direction::Out);
        let entries = self.nodes[n].up.iter().flat_map(|d| &d.entries);
        let peer = |feed: Uuid| entries.clone().find(|e| e.feed == feed).map(|e| e.peer);
        out.filter_map(|f| Some((f.uuid, peer(f.uuid)?))).collect()
    }

    /// Sectors in which two volumes differ, and what each has.
    fn differing(&self, n: usize, peer: usize) -> Vec<(usize, u64, u64)> {
        let (here, there) = (self.plexes_in_service(n), self.plexes_in_service(peer));
        let (Some(here), Some(there)) = (here.first(), there.first()) else {
            return Vec::new();
        };
        let sectors = 0..self.nodes[n].history.sectors.len();
        let both = sectors.filter_map(|s| {
            let (mine, theirs) = (self.look(n, here, s)?, self.look(peer, there, s)?);
            Some((s, mine, theirs))
        });
        both.filter(|(_, mine, theirs)| mine != theirs).collect()
    }

    /// May a sink have this, which its source's history does not have at step `at`, because something has rotted: here, or
    /// at the source, so that here is what was there before, or what a repair has put right?
    pub(super) fn is_rots_doing(
        &self,
        sink: usize,
        sector: usize,
        value: u64,
        source: &History,
        at: u64,
    ) -> bool {
        let rot_there = || source.possible(sector, at).into_iter().any(rotten);
        self.has_rotted(sink, sector, value)
            || rot_there() && self.is_fine(sink, sector, value, self.step + 1)
    }

    /// Regions in which two volumes differ because something has rotted.
    fn rotten_regions(&self, n: usize, peer: usize) -> BTreeSet<u64> {
        let differing = self.differing(n, peer).into_iter();
        differing
            .filter(|(_, mine, theirs)| rotten(*mine) || rotten(*theirs))
            .map(|(sector, ..)| range_of(sector).start() / REGION)
            .collect()
    }

    /// These regions of a live feed's sink are made equal to the source, as `feedverify --repair` asks for it.
    fn repair_feed(&mut self, n: usize, feed: Uuid, regions: &BTreeSet<u64>) {
        let entry = self.entry(n, feed).filter(|e| e.state == FeedState::Live);
        let session = entry.and_then(|e| e.session);
        let sess = session.and_then(|id| self.daemon(n).sessions.get_mut(&id));
        let source = |s: &&mut Sess| s.role() == Some(Role::Source) && !s.is_closing();
        let Some(sess) = sess.filter(source).filter(|_| !regions.is_empty()) else {
            return;
        };
        let range = |region: &u64| WireRange {
            offset: region * REGION,
            length: REGION,
        };
        sess.push(Event::Repair(regions.iter().map(range).collect()));
        self.totals.feeds_repaired += 1;
        self.note(|| format!("n{n} repairs feed {feed}: regions {regions:?}"));
    }

    /// An admin has the feeds of a node compared, and repaired: what has rotted, or what only seemed to differ.
    pub(super) fn verify_feeds(&mut self, n: usize) {
        for (feed, peer) in self.feeds_out(n) {
            if self.nodes[peer].up.is_none() {
                continue;
            }
            let mut regions = self.rotten_regions(n, peer);
            if regions.is_empty() {
                let used = self.storm.as_ref().map_or(1, |s| s.used);
                let sector = self.rng.below(used) as usize;
                regions.insert(range_of(sector).start() / REGION);
            }
            self.repair_feed(n, feed, &regions);
        }
    }

    /// At rest both sides of each feed differ only by what has rotted. True where they do not differ; else that is put
    /// right, which takes a while.
    pub(super) fn feeds_are_equal(&mut self) -> bool {
        let mut equal = true;
        for n in 0..self.nodes.len() {
            for (feed, peer) in self.feeds_out(n) {
                for (sector, mine, theirs) in self.differing(n, peer) {
                    assert!(
                        rotten(mine) || rotten(theirs),
                        "n{peer} at rest differs from its source n{n} in sector {sector}, which has not rotted: {theirs}, not {mine}"
                    );
                    self.totals.feed_rot += 1;
                    equal = false;
                }
                let regions = self.rotten_regions(n, peer);
                self.repair_feed(n, feed, &regions);
            }
        }
        equal
    }
}
