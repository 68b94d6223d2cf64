//! A volume that is being filled passes nothing on as consistent.

use super::feed::go_behind;
use super::{Action, Engine, Note, Out};
use blockio::mutant;

impl Engine {
    /// Whether the content is a moment of one write order, from now on. While a feed fills this volume it is not, and
    /// other feeds that copy it must not call that consistent: those that do so already fall behind, so that their
    /// sinks hear of it before anything else comes, and none is said to have caught up. To be told before the first
    /// write that spoils the order, and after the last one.
    pub fn set_whole(&mut self, whole: bool, out: Out<'_>) {
        self.whole = whole;
        if !whole && !mutant("half-done-passed-on") {
            for feed in self.feeds.iter_mut().filter(|f| f.caught_up && !f.untold) {
                go_behind(feed, out);
            }
        }
        self.pump(out);
    }

    /// A feed that misses nothing is told so where that is worth anything.
    pub(super) fn tell_caught_up(&mut self, index: usize, out: Out<'_>) {
        let feed = &mut self.feeds[index];
        if feed.caught_up && feed.untold && (self.whole || mutant("half-done-passed-on")) {
            feed.untold = false;
            out.push(Action::Note(Note::FeedCaughtUp { feed: feed.id }));
        }
    }
}
