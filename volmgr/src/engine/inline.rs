//! Regions that are written again and again: in memory into a feed's live stream, in order, which ends that.

use super::*;
use blockio::{Flags, IoError, Payload};

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
            // Where it is in the stream once more, that has what was written since.
            if ok && !feed.inlined.contains(&range) {
                feed.track.settled(range);
            }
        }
    }
}
