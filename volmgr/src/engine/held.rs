//! Writes that wait for the other side of a feed: for good where it blocks, while it is connected where it is `sync`.

use super::{Engine, FeedId, Out};

impl Engine {
    /// Whether writes wait for the feed's other side, from now on. Those that wait go on if not.
    pub(super) fn set_hold(&mut self, id: FeedId, hold: bool, out: Out<'_>) {
        let Some(feed) = self.feed_mut(id) else {
            return;
        };
        feed.hold = hold;
        self.release_held(id, out);
    }

    /// Writes that waited for the other side go on, where none has to wait any more.
    pub(super) fn release_held(&mut self, id: FeedId, out: Out<'_>) {
        let Some(feed) = self.feed_mut(id).filter(|feed| !feed.waits()) else {
            return;
        };
        for key in std::mem::take(&mut feed.held) {
            self.sync_answered(key, out);
        }
    }

    /// Writes that wait for the other side of a feed fail: the volume is about to be closed.
    pub fn give_up_held(&mut self, out: Out<'_>) {
        for i in 0..self.feeds.len() {
            for key in std::mem::take(&mut self.feeds[i].held) {
                self.cancel_write(key, out);
            }
        }
        self.pump(out);
    }
}
