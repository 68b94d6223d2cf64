//! Flushes: once to every disk of every plex that is in step or getting there.

use super::mapping::disks;
use super::plex::Gated;
use super::*;
use blockio::{Flags, Ticket, mutant};

#[derive(Debug)]
pub(super) struct Flush {
    ticket: Ticket,
    pending: u32,
    /// Feeds in `sync` mode that have not answered.
    pub sync_pending: u32,
    error: Option<IoError>,
}

impl Flush {
    pub fn into_ticket(self) -> Ticket {
        self.ticket
    }
}

impl Engine {
    /// Every disk that holds writes which count, once.
    pub(super) fn flush_disks(&self) -> Vec<DiskId> {
        let mut all = Vec::new();
        for plex in self
            .plexes
            .iter()
            .filter(|p| p.is_active() || p.is_syncing())
        {
            disks(&plex.map, &mut all);
        }
        if mutant("flush-first-disk-only") {
            all.truncate(1);
        }
        all
    }

    pub(super) fn emit_flush(&mut self, disk: DiskId, tag: Tag, out: Out<'_>) {
        let io = self.tag(tag);
        out.push(Action::Disk(DiskIo {
            io,
            op: DiskOp::Flush,
            at: DiskRange {
                disk,
                range: ByteRange::default(),
            },
            payload: None,
            flags: Flags::empty(),
        }));
    }

    pub(super) fn start_flush(&mut self, request: Request, out: Out<'_>) {
        let disks = self.flush_disks();
        let key = self.flushes.insert(Flush {
            ticket: request.ticket,
            pending: disks.len() as u32,
            sync_pending: 0,
            error: None,
        });
        self.stats.flushes += 1;
        for disk in disks {
            self.emit_flush(disk, Tag::Flush { flush: key, disk }, out);
        }
        let sync = self.flush_feeds(key, out);
        if let Some(flush) = self.flushes.get_mut(key) {
            flush.sync_pending = sync;
        }
        self.flush_progress(key, out);
    }

    /// A disk failed to flush: an I/O failure of every plex on it. Returns the error where the
    /// last active plex is one of them.
    pub(super) fn flush_error(
        &mut self,
        disk: DiskId,
        error: IoError,
        out: Out<'_>,
    ) -> Option<IoError> {
        let mut result = None;
        let whole = ByteRange::new(0, self.size);
        for id in self.plexes_on(disk) {
            if !self.plex_error(id, DiskOp::Flush, whole, error, out) {
                result = Some(error);
            }
        }
        result
    }

    pub(super) fn flush_done(
        &mut self,
        key: Key,
        disk: DiskId,
        result: Result<(), IoError>,
        out: Out<'_>,
    ) {
        let error = result.err().filter(|_| !mutant("flush-error-ignored"));
        let failed = error.and_then(|e| self.flush_error(disk, e, out));
        let Some(flush) = self.flushes.get_mut(key) else {
            return;
        };
        flush.pending -= 1;
        flush.error = flush.error.or(failed);
        self.flush_progress(key, out);
    }

    /// A feed in `sync` mode has flushed, or will not.
    pub(super) fn sync_flushed(&mut self, key: Key, out: Out<'_>) {
        if let Some(flush) = self.flushes.get_mut(key) {
            flush.sync_pending = flush.sync_pending.saturating_sub(1);
        }
        self.flush_progress(key, out);
    }

    pub(super) fn flush_progress(&mut self, key: Key, out: Out<'_>) {
        let Some(flush) = self.flushes.get(key) else {
            return;
        };
        if flush.pending > 0 || flush.error.is_none() && flush.sync_pending > 0 {
            return;
        }
        if flush.error.is_none() && self.gates > 0 {
            self.wait_commit.push(Gated::Flush(key));
            return;
        }
        if let Some(flush) = self.flushes.remove(key) {
            out.push(Action::Complete {
                ticket: flush.ticket,
                result: flush.error.map_or(Ok(()), Err),
            });
        }
    }
}
