//! Reads: from one active plex, from another where that fails.

use super::plex::read_result;
use super::transfer::Transfer;
use super::*;
use blockio::{Flags, Ticket, mutant};

/// Most repairs that wait; more are left to the next read or verification.
const MAX_REPAIRS: usize = 64;

#[derive(Debug)]
pub(super) struct Read {
    ticket: Ticket,
    range: ByteRange,
    payload: PayloadId,
    delegated: bool,
    pending: u32,
    error: Option<IoError>,
    /// Parts that a plex could not read.
    bad: Vec<(PlexId, ByteRange)>,
}

/// The bit of a plex in a set of those tried.
pub(super) fn bit(id: PlexId) -> u64 {
    1 << (id.0 % 64)
}

impl Engine {
    /// Where plexes may still differ, a read that fails must not move more than the bad blocks
    /// over to another plex: what others have seen of the first one has to stay true. So the two
    /// halves of a part that is to be tried again where it was.
    pub(super) fn halves(&self, range: ByteRange) -> Option<[ByteRange; 2]> {
        if !self.recover.any_in(range) || mutant("good-blocks-moved-while-recovering") {
            return None;
        }
        self.split(range)
    }

    /// No plex could read all of a part. Where there are several, each may have what the other
    /// lacks: the halves, to be asked of all of them again.
    pub(super) fn last_resort(&self, range: ByteRange) -> Option<[ByteRange; 2]> {
        let several = self.plexes.iter().filter(|p| p.is_active()).count() > 1;
        self.split(range).filter(|_| several)
    }

    fn split(&self, range: ByteRange) -> Option<[ByteRange; 2]> {
        let block = self.config.block.max(1);
        if range.len() <= block {
            return None;
        }
        let first = (range.len() / 2).next_multiple_of(block);
        Some([
            ByteRange::new(range.start(), first),
            ByteRange::new(range.start() + first, range.len() - first),
        ])
    }

    /// The plex to read `range` from: the first one where plexes may differ, else the least busy.
    pub(super) fn read_plex(&self, range: ByteRange, tried: u64) -> Option<PlexId> {
        let mut usable = self
            .plexes
            .iter()
            .filter(|p| plex::is_read(p) && tried & bit(p.id) == 0);
        if self.recover.any_in(range) && !mutant("reads-spread-while-recovering") {
            return usable.next().map(|p| p.id);
        }
        // Equally busy plexes take turns by megabyte, so that sequential readers stay with one.
        let turn = (range.start() >> 20) as usize;
        let count = self.plexes.len();
        usable
            .enumerate()
            .min_by_key(|(i, p)| (p.reads, (i + count - turn % count) % count))
            .map(|(_, p)| p.id)
    }

    pub(super) fn start_read(&mut self, request: Request, out: Out<'_>) {
        let Some(payload) = request.payload else {
            let result = Err(IoError::new(IoErrorKind::Invalid));
            let ticket = request.ticket;
            return out.push(Action::Complete { ticket, result });
        };
        let range = request.range;
        self.stats.reads += 1;
        let key = self.reads.insert(Read {
            ticket: request.ticket,
            range,
            payload,
            delegated: request.flags.contains(Flags::DELEGATED),
            pending: 0,
            error: None,
            bad: Vec::new(),
        });
        self.read_part(key, range, 0, IoError::new(IoErrorKind::Medium), out);
        self.read_progress(key, out);
    }

    /// Reads a part from a plex that was not tried; `error` is the result where there is none.
    fn read_part(&mut self, key: Key, part: ByteRange, tried: u64, error: IoError, out: Out<'_>) {
        let source = self.read_plex(part, tried);
        if source.is_none()
            && let Some(halves) = self.last_resort(part)
        {
            for half in halves {
                self.read_part(key, half, 0, error, out);
            }
            return;
        }
        let Some(read) = self.reads.get_mut(key) else {
            return;
        };
        let plex = self.plexes.iter_mut().find(|p| Some(p.id) == source);
        let Some(plex) = plex else {
            read.error = Some(error);
            return;
        };
        let (id, base, payload) = (plex.id, read.range.start(), read.payload);
        let tried = tried | bit(id);
        let tag = |range| Tag::Read {
            read: key,
            plex: id,
            range,
            tried,
        };
        let transfer = Transfer::read(payload, part.start() - base);
        let (count, whole) = transfer.emit(&mut self.tags, &plex.map, part, tag, out);
        plex.reads += count;
        read.pending += count;
        if !whole {
            read.error = Some(IoError::new(IoErrorKind::Medium));
        }
    }

    /// A plex that its failed read has put out of service may be tried again when it is back.
    pub(super) fn still_tried(&self, tried: u64, plex: PlexId) -> u64 {
        match self.plex(plex) {
            Some(plex) if plex.is_active() => tried,
            Some(plex) => tried & !bit(plex.id),
            None => tried,
        }
    }

    pub(super) fn read_done(
        &mut self,
        key: Key,
        plex: PlexId,
        range: ByteRange,
        tried: u64,
        result: Result<(), IoError>,
        out: Out<'_>,
    ) {
        if let Some(p) = self.plex_mut(plex) {
            p.reads = p.reads.saturating_sub(1);
        }
        let result = read_result(self.plex(plex), result);
        let Some(read) = self.reads.get_mut(key) else {
            return;
        };
        read.pending -= 1;
        let delegated = read.delegated;
        if let Err(error) = result {
            self.read_error(plex, range, error, out);
            let tried = self.still_tried(tried, plex);
            if delegated || mutant("read-error-not-retried") {
                // The payload may have been moved in part; only the issuer knows.
                if let Some(read) = self.reads.get_mut(key) {
                    read.error = Some(error);
                }
            } else {
                if let Some(halves) = self.halves(range) {
                    for half in halves {
                        self.read_part(key, half, tried & !bit(plex), error, out);
                    }
                } else {
                    if let Some(read) = self.reads.get_mut(key) {
                        read.bad.push((plex, range));
                    }
                    self.read_part(key, range, tried, error, out);
                }
            }
        }
        self.read_progress(key, out);
    }

    fn read_progress(&mut self, key: Key, out: Out<'_>) {
        if self.reads.get(key).is_none_or(|r| r.pending > 0) {
            return;
        }
        let Some(read) = self.reads.remove(key) else {
            return;
        };
        if read.error.is_none() {
            for (plex, range) in read.bad {
                self.queue_repair(plex, range);
            }
        }
        out.push(Action::Complete {
            ticket: read.ticket,
            result: read.error.map_or(Ok(()), Err),
        });
    }

    /// Another plex has what this one cannot read: it is to be rewritten.
    pub(super) fn queue_repair(&mut self, plex: PlexId, range: ByteRange) {
        if self.plex(plex).is_none() {
            return;
        }
        let mut at = range.start();
        while at < range.end() && self.repairs.len() < MAX_REPAIRS {
            let len = self.config.bounce_bytes.max(1).min(range.end() - at);
            let part = ByteRange::new(at, len);
            if !self.repairs.contains(&(plex, part)) {
                self.repairs.push_back((plex, part));
            }
            at += len;
        }
    }
}
