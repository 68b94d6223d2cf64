//! Reading the same range from several plexes at one moment, to compare them: writes to the range are
//! held meanwhile, so a difference is one.

use super::transfer::Transfer;
use super::*;
use blockio::{Ticket, mutant};

/// A part that cannot be read is rewritten where it is no longer than this.
const MEND_BYTES: u64 = 4096;

#[derive(Debug)]
pub(super) struct Compare {
    ticket: Ticket,
    range: ByteRange,
    payload: PayloadId,
    plexes: Vec<PlexId>,
    pending: u32,
    error: Option<IoError>,
}

impl Engine {
    /// Reads the request's range from each of these plexes. Its payload has room for all of them:
    /// what the n-th has goes to `n * range.len()` of it. Nothing is read from another plex instead:
    /// where one cannot be read, or is not active, the request fails. What cannot be read is rewritten from another plex
    /// where it is no more than a few sectors: in more there may be some that only this plex has right.
    pub fn read_plexes(&mut self, request: Request, plexes: Vec<PlexId>, out: Out<'_>) {
        let (ticket, range) = (request.ticket, request.range);
        let known = |id: &PlexId| self.plex(*id).is_some();
        let within = !range.is_empty() && range.end() <= self.size;
        let (payload, refused) = match request.payload {
            _ if self.stopping => (None, IoErrorKind::Cancelled),
            payload => (
                payload.filter(|_| within && plexes.iter().all(known)),
                IoErrorKind::Invalid,
            ),
        };
        let Some(payload) = payload else {
            let result = Err(IoError::new(refused));
            return out.push(Action::Complete { ticket, result });
        };
        let key = self.holders.insert(Holder::Compare(Compare {
            ticket,
            range,
            payload,
            plexes,
            pending: 0,
            error: None,
        }));
        if mutant("comparison-not-held") || self.order.acquire(range, key) {
            self.compare_ready(key, out);
        }
        self.pump(out);
    }

    pub(super) fn compare_ready(&mut self, key: Key, out: Out<'_>) {
        let Some(Holder::Compare(compare)) = self.holders.get_mut(key) else {
            return;
        };
        let (range, tags) = (compare.range, &mut self.tags);
        for (index, id) in compare.plexes.iter().enumerate() {
            let plex = self.plexes.iter_mut().find(|p| p.id == *id);
            let Some(plex) = plex.filter(|p| p.is_active()) else {
                compare.error = Some(IoError::new(IoErrorKind::Gone));
                continue;
            };
            let tag = |range| Tag::Compare {
                compare: key,
                plex: *id,
                range,
            };
            let read = Transfer::read(compare.payload, index as u64 * range.len());
            let (count, whole) = read.emit(tags, &plex.map, range, tag, out);
            plex.reads += count;
            compare.pending += count;
            if !whole {
                compare.error = Some(IoError::new(IoErrorKind::Medium));
            }
        }
        self.compare_progress(key, out);
    }

    pub(super) fn compare_done(
        &mut self,
        key: Key,
        plex: PlexId,
        range: ByteRange,
        result: Result<(), IoError>,
        out: Out<'_>,
    ) {
        if let Some(p) = self.plex_mut(plex) {
            p.reads = p.reads.saturating_sub(1);
        }
        let result = plex::read_result(self.plex(plex), result);
        if let Err(error) = result
            && range.len() <= MEND_BYTES
        {
            self.read_error(plex, range, error, out);
            self.queue_repair(plex, range);
        }
        if let Some(Holder::Compare(compare)) = self.holders.get_mut(key) {
            compare.pending -= 1;
            compare.error = compare.error.or(result.err());
        }
        self.compare_progress(key, out);
    }

    fn compare_progress(&mut self, key: Key, out: Out<'_>) {
        let done =
            |holder: Option<&Holder>| matches!(holder, Some(Holder::Compare(c)) if c.pending == 0);
        if !done(self.holders.get(key)) {
            return;
        }
        let Some(Holder::Compare(compare)) = self.holders.remove(key) else {
            return;
        };
        out.push(Action::Complete {
            ticket: compare.ticket,
            result: compare.error.map_or(Ok(()), Err),
        });
        if !mutant("comparison-not-held") {
            self.release(compare.range, out);
        }
    }
}
