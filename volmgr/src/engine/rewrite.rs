//! Making plexes equal to one of them that is believed, where they silently differ.
//!
//! Who is believed is decided outside ([`crate::scrub`]), which sees the bytes. Here the range is held against writes from
//! the read to the last write, so that what is written is what the believed plex has, and nothing newer is overwritten.
//!
//! A rewrite is not in the dirty-region log, on purpose: after a crash regions in that log are copied from the first
//! plex, and that may be the one which is wrong. What a crash tears differed before.

use super::plex::read_result;
use super::transfer::Transfer;
use super::*;
use blockio::{Ticket, mutant};

#[derive(Debug)]
pub(super) struct Rewrite {
    ticket: Ticket,
    range: ByteRange,
    payload: PayloadId,
    source: PlexId,
    targets: Vec<PlexId>,
    pending: u32,
    writing: bool,
    error: Option<IoError>,
}

impl Engine {
    /// Writes what `source` has in the request's range to `targets`, through the request's payload. All of them have to
    /// be active, and the range in no need of recovery; else the request fails (`Gone`, `Congested`) and nothing is
    /// written. Nothing is read from another plex instead. What was written is durable after the next flush.
    pub fn rewrite(
        &mut self,
        request: Request,
        source: PlexId,
        targets: Vec<PlexId>,
        out: Out<'_>,
    ) {
        let (ticket, range) = (request.ticket, request.range);
        let sound = !range.is_empty()
            && range.end() <= self.size
            && !targets.is_empty()
            && !targets.contains(&source);
        let (payload, refused) = match request.payload {
            _ if self.stopping => (None, IoErrorKind::Cancelled),
            payload => (payload.filter(|_| sound), IoErrorKind::Invalid),
        };
        let Some(payload) = payload else {
            let result = Err(IoError::new(refused));
            return out.push(Action::Complete { ticket, result });
        };
        let key = self.holders.insert(Holder::Rewrite(Rewrite {
            ticket,
            range,
            payload,
            source,
            targets,
            pending: 0,
            writing: false,
            error: None,
        }));
        if mutant("repair-not-held") || self.order.acquire(range, key) {
            self.rewrite_ready(key, out);
        }
        self.pump(out);
    }

    /// Why the rewrite cannot be made now.
    fn rewrite_refused(&self, rewrite: &Rewrite) -> Option<IoError> {
        let active = |id: &PlexId| self.plex(*id).is_some_and(Plex::is_active);
        if !active(&rewrite.source) || !rewrite.targets.iter().all(active) {
            return Some(IoError::new(IoErrorKind::Gone));
        }
        // What others have seen of the first plex has to stay true until all are equal to it.
        self.recover
            .any_in(rewrite.range)
            .then_some(IoError::new(IoErrorKind::Congested))
    }

    pub(super) fn rewrite_ready(&mut self, key: Key, out: Out<'_>) {
        let Some(Holder::Rewrite(rewrite)) = self.holders.get(key) else {
            return;
        };
        let refused = self.rewrite_refused(rewrite);
        let Some(Holder::Rewrite(rewrite)) = self.holders.get_mut(key) else {
            return;
        };
        rewrite.error = refused;
        let plex = self.plexes.iter_mut().find(|p| p.id == rewrite.source);
        if let (None, Some(plex)) = (refused, plex) {
            let tag = |_| Tag::RewriteRead {
                rewrite: key,
                plex: plex.id,
            };
            let read = Transfer::read(rewrite.payload, 0);
            let (count, whole) = read.emit(&mut self.tags, &plex.map, rewrite.range, tag, out);
            plex.reads += count;
            rewrite.pending = count;
            if !whole {
                rewrite.error = Some(IoError::new(IoErrorKind::Medium));
            }
        }
        self.rewrite_progress(key, out);
    }

    pub(super) fn rewrite_read_done(
        &mut self,
        key: Key,
        plex: PlexId,
        result: Result<(), IoError>,
        out: Out<'_>,
    ) {
        if let Some(p) = self.plex_mut(plex) {
            p.reads = p.reads.saturating_sub(1);
        }
        let result = read_result(self.plex(plex), result);
        if let Some(Holder::Rewrite(rewrite)) = self.holders.get_mut(key) {
            rewrite.pending -= 1;
            rewrite.error = rewrite.error.or(result.err());
        }
        self.rewrite_progress(key, out);
    }

    pub(super) fn rewrite_write_done(
        &mut self,
        key: Key,
        plex: PlexId,
        range: ByteRange,
        result: Result<(), IoError>,
        out: Out<'_>,
    ) {
        if let Err(error) = result {
            self.plex_error(plex, DiskOp::Write, range, error, out);
            self.torn(plex, range);
        }
        if let Some(Holder::Rewrite(rewrite)) = self.holders.get_mut(key) {
            rewrite.pending -= 1;
            rewrite.error = rewrite.error.or(result.err());
        }
        self.rewrite_progress(key, out);
    }

    /// What the plex holds there is neither the old nor the new: it misses the range when it comes back.
    pub(super) fn torn(&mut self, plex: PlexId, range: ByteRange) {
        let out = |p: &&mut Plex| !p.is_active() && !mutant("torn-repair-not-missed");
        if let Some(plex) = self.plex_mut(plex).filter(out) {
            plex.track.add(range);
        }
    }

    /// All read: write it. All written: the end.
    fn rewrite_progress(&mut self, key: Key, out: Out<'_>) {
        let Some(Holder::Rewrite(rewrite)) = self.holders.get(key) else {
            return;
        };
        let early = rewrite.writing && mutant("repair-ends-before-its-writes");
        if rewrite.pending > 0 && !early {
            return;
        }
        if rewrite.error.is_none() && !rewrite.writing {
            let refused = self.rewrite_refused(rewrite);
            return self.rewrite_out(key, refused, out);
        }
        let Some(Holder::Rewrite(rewrite)) = self.holders.remove(key) else {
            return;
        };
        out.push(Action::Complete {
            ticket: rewrite.ticket,
            result: rewrite.error.map_or(Ok(()), Err),
        });
        if !mutant("repair-not-held") {
            self.release(rewrite.range, out);
        }
    }

    fn rewrite_out(&mut self, key: Key, refused: Option<IoError>, out: Out<'_>) {
        let Some(Holder::Rewrite(rewrite)) = self.holders.get_mut(key) else {
            return;
        };
        rewrite.error = refused;
        rewrite.writing = true;
        let (range, payload) = (rewrite.range, rewrite.payload);
        let (tags, targets) = (&mut self.tags, &rewrite.targets);
        let mut pending = 0;
        for plex in self.plexes.iter().filter(|p| targets.contains(&p.id)) {
            if refused.is_some() {
                break;
            }
            let tag = |range| Tag::RewriteWrite {
                rewrite: key,
                plex: plex.id,
                range,
            };
            let write = Transfer::write(payload, 0);
            pending += write.emit(tags, &plex.map, range, tag, out).0;
        }
        rewrite.pending = pending;
        if pending > 0 {
            self.stats.copied_bytes += range.len();
            // A bulk copy that reads the disk meanwhile may get some of both.
            for feed in self.feeds.iter_mut().filter(|f| f.bulk.overlaps(range)) {
                feed.dirty(range);
            }
        } else {
            self.rewrite_progress(key, out);
        }
    }
}
