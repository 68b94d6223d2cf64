//! How sessions end: the sink settles what it has, and whoever is left tries again.

use super::record;
use super::session::{Work, is_tracked};
use super::stream::{Flushed, SinkStreams};
use super::world::{LV, World};
use feedplex::session::{CloseReason, FeedState, RecordChange};
use feedplex::wire::control::RefusalCode;
use uuid::Uuid;
use volmgr::model::Feed;
use volmgr::plan;

impl World {
    /// What a change of a feed's record says of the volume's content, for those that copy it.
    pub(super) fn tell_whole(&mut self, n: usize, feed: Uuid, change: &RecordChange) {
        let volume = self.volume(n).expect("the volume");
        if let Some(whole) = record::whole_after(volume, feed, change) {
            self.call(n, |engine, out| engine.set_whole(whole, out));
        }
    }

    /// A sink whose session has ended: nothing is in flight, so its consistency can be believed.
    pub(super) fn settle(&mut self, n: usize, id: u64) {
        let sess = self.sess(n, id);
        // What came after a frame that failed may be here without it.
        let failed = sess.sink.as_ref().is_some_and(SinkStreams::has_failed);
        if failed || !sess.accepted || sess.source.is_some() {
            return;
        }
        let feed = self.sess(n, id).feed.expect("a sink has a feed");
        let open = |f: &&Feed| !f.settled && !is_tracked(f);
        if self.feed(n, feed).filter(open).is_none() {
            return;
        }
        self.sess(n, id).work.push_front(Work::Settled);
        self.flush(n, super::lane::Owner::Flush(id, Flushed::Settle));
    }

    pub(super) fn settled(&mut self, n: usize, id: u64) {
        let feed = self.sess(n, id).feed.expect("a sink has a feed");
        let settled = self.commit(n, |group| {
            plan::update_volume(group, LV, |volume| {
                let found = volume.feeds.iter_mut().find(|f| f.uuid == feed);
                found.into_iter().for_each(|f| f.settled = true);
            })
        });
        if settled.is_ok() {
            self.check_claim(n, feed, "settled");
        }
    }

    /// The session is no more.
    pub(super) fn session_gone(&mut self, n: usize, id: u64, reason: &CloseReason) {
        self.thaw_all(n, id);
        let Some(sess) = self.daemon(n).sessions.remove(&id) else {
            return;
        };
        self.note(|| format!("n{n} session {id} is over: {reason:?}"));
        let Some(entry) = sess.feed.and_then(|feed| self.entry(n, feed)) else {
            return;
        };
        if entry.session == Some(id) {
            entry.session = None;
        }
        match reason {
            CloseReason::Refused(code) => {
                entry.enabled = false;
                entry.state = FeedState::Refused;
                let diverged = matches!(code, RefusalCode::Diverged | RefusalCode::SinkAhead);
                self.totals.diverged += u64::from(diverged);
                self.check_refusal(n, &sess, *code);
            }
            CloseReason::Paused => {
                entry.enabled = false;
                entry.state = FeedState::Paused;
            }
            CloseReason::Split => {
                entry.enabled = false;
                entry.state = FeedState::Split;
            }
            CloseReason::Swapped
            | CloseReason::Lost
            | CloseReason::Failed
            | CloseReason::Stopped => entry.state = FeedState::Disconnected,
        }
        self.after_session(n, sess.feed);
    }
}
