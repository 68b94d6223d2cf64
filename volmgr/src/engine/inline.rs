//! Regions that are written again and again: in memory into a feed's live stream, in order, which ends that.

use super::feed::Feed;
use super::*;
use blockio::{Flags, IoError, Payload};

impl Feed {
    /// A range of hot regions is durable on the other side. Where one of them is in the stream once more, that has what was written
    /// since.
    fn settle_inlined(&mut self, range: ByteRange) {
        let unit = self.track.todo.region_size();
        let mut at = range.start();
        while at < range.end() {
            let region = ByteRange::new(at, unit.min(range.end() - at));
            if !self.inlined.iter().any(|r| r.overlaps(region)) {
                self.track.settled(region);
            }
            at = region.end();
        }
    }
}

impl Engine {
    pub(super) fn emit_inline(
        &mut self,
        id: FeedId,
        range: ByteRange,
        bounce: PayloadId,
        out: Out<'_>,
    ) {
        let Some(feed) = self.feeds.iter_mut().find(|f| f.id == id) else {
            return self.bounce_free.push(bounce);
        };
        let io = IoId(self.tags.insert(Tag::Inline {
            feed: id,
            range,
            bounce,
        }));
        feed.inlining.retain(|r| *r != range);
        feed.inlined.push(range);
        feed.track.todo.clear_range(range);
        feed.live.insert(range, io.0);
        feed.live_bytes += range.len();
        self.stats.inline_bytes += range.len();
        out.push(Action::Feed(FeedIo {
            io,
            feed: id,
            op: Op::Write,
            range,
            payload: Some(Payload {
                id: bounce,
                skip: 0,
            }),
            flags: Flags::empty(),
        }));
    }

    pub(super) fn inline_done(
        &mut self,
        io: IoId,
        id: FeedId,
        range: ByteRange,
        bounce: PayloadId,
        result: Result<(), IoError>,
        out: Out<'_>,
    ) {
        self.bounce_free.push(bounce);
        let ok = result.is_ok();
        self.live_done(io, id, range, None, result, out);
        if let Some(feed) = self.feed_mut(id) {
            if let Some(at) = feed.inlined.iter().position(|r| *r == range) {
                feed.inlined.swap_remove(at);
            }
            if ok {
                feed.settle_inlined(range);
            }
        }
    }
}
