//! What counts as copied is at the sink: looked at in the moment in which the source's map says so.
//!
//! Later is too late: the next write to the region, the next full copy or the next crash of the source puts right what was
//! lost, in the simulator as in the world, and until then the sink calls itself equal though it is not.

use super::disk::{range_of, sectors};
use super::session::Sess;
use super::stream::SinkStreams;
use super::world::World;
use blockio::ByteRange;
use volmgr::engine::FeedId;

impl World {
    /// Invariant 7: a copy has been acknowledged as durable. Where the feed's map calls its regions clean now, the sink has
    /// there, whatever a power cut would take, what the source had acknowledged until step `at`, when the news came.
    ///
    /// A write that comes to a region in flight makes it dirty again, and one that came before was in the copy; so this
    /// holds until the next one goes out.
    pub(super) fn check_copied(
        &mut self,
        n: usize,
        id: u64,
        feed: FeedId,
        range: ByteRange,
        at: u64,
    ) {
        let Some(sink) = self.sink_of(n, id) else {
            return;
        };
        let daemon = self.nodes[n].up.as_ref().expect("the node is up");
        let Some(map) = daemon.engine.feed_map(feed) else {
            return;
        };
        let clean: Vec<usize> = sectors(range)
            .filter(|s| !map.any_in(range_of(*s)))
            .collect();
        self.totals.copied += u64::from(!clean.is_empty());
        let history = &self.nodes[n].history;
        for plex in self.plexes_recorded_active(sink) {
            for sector in &clean {
                let Some((disk, at_disk)) = self.place(sink, &plex, *sector) else {
                    continue;
                };
                for value in self.nodes[sink].disks[disk].may_have(at_disk) {
                    assert!(
                        history.legal(*sector, value, at, false)
                            || self.is_rots_doing(sink, *sector, value, history, at),
                        "n{n}: not dirty any more, but the sink n{sink} may have {value} in sector {sector}: {:?}",
                        history.sectors[*sector]
                    );
                }
            }
        }
    }

    /// The node that a source's session fills, as long as the other side is there and nothing there has failed.
    fn sink_of(&self, n: usize, id: u64) -> Option<usize> {
        let (conn, end) = self.end_of(n, id)?;
        let (peer, other) = self.conns.get(&conn)?.ends[1 - end];
        let sess: &Sess = self.nodes[peer].up.as_ref()?.sessions.get(&other)?;
        let good = |streams: &SinkStreams| !streams.has_failed();
        (!sess.is_closing() && sess.sink.as_ref().is_some_and(good)).then_some(peer)
    }
}
