//! Copies through bounce payloads, holding writes to their range: resync of plexes, recovery after
//! a crash, repair of what could not be read, and regions too hot for a feed's bulk copy.

use super::plex::read_result;
use super::read::bit;
use super::track::next_free_run;
use super::transfer::Transfer;
use super::*;
use blockio::mutant;

/// Regions looked at in search of the next copy.
const ATTEMPTS: u32 = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CopyKind {
    /// From the first active plex to the other active ones.
    Recover,
    /// To a plex that is behind; the number is its epoch.
    Plex(PlexId, u32),
    /// To a plex that could not read the range.
    Repair(PlexId),
    /// Into a feed's live stream.
    Inline(FeedId),
}

#[derive(Debug)]
pub(super) struct Copy {
    kind: CopyKind,
    range: ByteRange,
    bounce: PayloadId,
    pending: u32,
    failed: bool,
    writing: bool,
    /// Where all of it was read, if it was one plex.
    source: Option<PlexId>,
    /// Parts that a plex could not read.
    bad: Vec<(PlexId, ByteRange)>,
}

impl Engine {
    pub(super) fn pump_copies(&mut self, out: Out<'_>) {
        while !self.copy_backoff && self.plexes.iter().any(Plex::is_active) {
            let Some(&bounce) = self.bounce_free.last() else {
                return;
            };
            let Some((kind, range)) = self.next_copy() else {
                return;
            };
            self.bounce_free.pop();
            let key = self.holders.insert(Holder::Copy(Copy {
                kind,
                range,
                bounce,
                pending: 0,
                failed: false,
                writing: false,
                source: None,
                bad: Vec::new(),
            }));
            if self.order.acquire(range, key) {
                self.copy_ready(key, out);
            }
        }
    }

    fn next_copy(&mut self) -> Option<(CopyKind, ByteRange)> {
        if let Some((plex, range)) = self.repairs.pop_front() {
            return Some((CopyKind::Repair(plex), range));
        }
        let max = self.config.bounce_bytes;
        if max < self.region_size {
            return None;
        }
        let restore = self.restore.as_ref();
        let missing = |range| restore.is_some_and(|r: &Restore| r.track.todo.any_in(range));
        for feed in &mut self.feeds {
            if let Some(range) = feed.next_inline(self.now_ms, max, missing) {
                return Some((CopyKind::Inline(feed.id), range));
            }
        }
        let busy = &self.recover_busy;
        let run = next_free_run(&self.recover, self.recover_cursor, max, ATTEMPTS, |r| {
            busy.iter().any(|b| b.overlaps(r))
        });
        if let Some(run) = run {
            self.recover_cursor = run.end();
            self.recover_busy.push(run);
            return Some((CopyKind::Recover, run));
        }
        for plex in self.plexes.iter_mut().filter(|p| p.is_syncing()) {
            let busy = &plex.busy;
            let run = next_free_run(&plex.track.todo, plex.cursor, max, ATTEMPTS, |r| {
                busy.iter().any(|b| b.overlaps(r))
            });
            if let Some(run) = run {
                plex.cursor = run.end();
                plex.busy.push(run);
                return Some((CopyKind::Plex(plex.id, plex.epoch), run));
            }
        }
        None
    }

    /// Is there still a reason for this copy?
    fn copy_wanted(&self, kind: CopyKind, range: ByteRange) -> bool {
        match kind {
            CopyKind::Recover => self.recover.any_in(range),
            CopyKind::Plex(id, epoch) => self.plex(id).is_some_and(|p| {
                p.is_syncing() && (p.epoch == epoch || mutant("copy-outlives-failure"))
            }),
            CopyKind::Repair(id) => self.plex(id).is_some_and(Plex::is_active),
            CopyKind::Inline(id) => self
                .feed(id)
                .is_some_and(|f| f.sends() && f.track.todo.any_in(range)),
        }
    }

    fn copy(&mut self, key: Key) -> Option<&mut Copy> {
        match self.holders.get_mut(key) {
            Some(Holder::Copy(copy)) => Some(copy),
            _ => None,
        }
    }

    pub(super) fn copy_ready(&mut self, key: Key, out: Out<'_>) {
        let Some((kind, range)) = self.copy(key).map(|c| (c.kind, c.range)) else {
            return;
        };
        if !self.copy_wanted(kind, range) {
            return self.copy_end(key, false, out);
        }
        let tried = match kind {
            CopyKind::Repair(id) => bit(id),
            _ => 0,
        };
        self.copy_read(key, range, tried, out);
        self.copy_progress(key, out);
    }

    fn copy_read(&mut self, key: Key, part: ByteRange, tried: u64, out: Out<'_>) {
        let source = self.read_plex(part, tried);
        // A repair has one plex that need not be asked again, and the next read tries again.
        if source.is_none()
            && !matches!(self.copy(key).map(|c| c.kind), Some(CopyKind::Repair(_)))
            && let Some(halves) = self.last_resort(part)
        {
            for half in halves {
                self.copy_read(key, half, 0, out);
            }
            return;
        }
        let Some(Holder::Copy(copy)) = self.holders.get_mut(key) else {
            return;
        };
        let Some(plex) = self.plexes.iter_mut().find(|p| Some(p.id) == source) else {
            copy.failed = true;
            return;
        };
        copy.source = source.filter(|_| part == copy.range);
        let (id, tried) = (plex.id, tried | bit(plex.id));
        let tag = |range| Tag::CopyRead {
            copy: key,
            plex: id,
            range,
            tried,
        };
        let read = Transfer::read(copy.bounce, part.start() - copy.range.start());
        let (count, whole) = read.emit(&mut self.tags, &plex.map, part, tag, out);
        plex.reads += count;
        copy.pending += count;
        copy.failed |= !whole;
    }

    pub(super) fn copy_read_done(
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
        let Some(copy) = self.copy(key) else {
            return;
        };
        copy.pending -= 1;
        if let Err(error) = result {
            self.read_error(plex, range, error, out);
            let tried = self.still_tried(tried, plex);
            if let Some(halves) = self.halves(range) {
                for half in halves {
                    self.copy_read(key, half, tried & !bit(plex), out);
                }
            } else {
                if let Some(copy) = self.copy(key) {
                    copy.bad.push((plex, range));
                }
                self.copy_read(key, range, tried, out);
            }
        }
        self.copy_progress(key, out);
    }

    /// Everything read: write it. Everything written: the end.
    fn copy_progress(&mut self, key: Key, out: Out<'_>) {
        let Some(copy) = self.copy(key) else {
            return;
        };
        if copy.pending > 0 {
            return;
        }
        let (kind, range, source) = (copy.kind, copy.range, copy.source);
        if copy.failed || copy.writing {
            let good = !copy.failed;
            return self.copy_end(key, good, out);
        }
        copy.writing = true;
        let bounce = copy.bounce;
        if !self.copy_wanted(kind, range) {
            return self.copy_end(key, false, out);
        }
        if let CopyKind::Inline(feed) = kind {
            // The stream has it in order from here on; the range need not be held for the sink.
            self.emit_inline(feed, range, bounce, out);
            self.holders.remove(key);
            return self.release(range, out);
        }
        let mut pending = 0;
        let tags = &mut self.tags;
        for plex in &self.plexes {
            let target = match kind {
                CopyKind::Recover => plex.is_active() && Some(plex.id) != source,
                CopyKind::Plex(id, _) | CopyKind::Repair(id) => plex.id == id,
                CopyKind::Inline(_) => false,
            };
            if !target {
                continue;
            }
            let tag = |range| Tag::CopyWrite {
                copy: key,
                plex: plex.id,
                range,
            };
            let write = Transfer::write(bounce, 0);
            pending += write.emit(tags, &plex.map, range, tag, out).0;
        }
        self.stats.copied_bytes += range.len();
        if let Some(copy) = self.copy(key) {
            copy.pending = pending;
        }
        if pending == 0 {
            self.copy_end(key, true, out);
        }
    }

    pub(super) fn copy_write_done(
        &mut self,
        key: Key,
        plex: PlexId,
        range: ByteRange,
        result: Result<(), IoError>,
        out: Out<'_>,
    ) {
        let Some(copy) = self.copy(key) else {
            return;
        };
        copy.pending -= 1;
        if let Err(error) = result {
            let op = DiskOp::Write;
            let absorbed = self.plex_error(plex, op, range, error, out);
            self.torn(plex, range);
            if let Some(copy) = self.copy(key) {
                copy.failed |= !absorbed || copy.kind != CopyKind::Recover;
            }
        }
        self.copy_progress(key, out);
    }

    fn copy_end(&mut self, key: Key, good: bool, out: Out<'_>) {
        let Some(Holder::Copy(copy)) = self.holders.remove(key) else {
            return;
        };
        let range = copy.range;
        self.bounce_free.push(copy.bounce);
        self.copy_backoff |= copy.failed;
        let wanted = self.copy_wanted(copy.kind, range);
        match copy.kind {
            CopyKind::Recover => {
                self.recover_busy.retain(|r| *r != range);
                if good {
                    // A cycle that runs now had it among the touched ones from its beginning: its
                    // flush does not cover what was just written.
                    self.recover.clear_range(range);
                }
            }
            CopyKind::Plex(id, _) => {
                if let Some(plex) = self.plex_mut(id) {
                    plex.busy.retain(|r| *r != range);
                    if good && wanted {
                        plex.track.todo.clear_range(range);
                    }
                }
                if let Some(cycle) = &mut self.cycle {
                    cycle.copied_since(id, range);
                }
            }
            CopyKind::Repair(plex) => {
                if good && wanted {
                    self.stats.repairs += 1;
                    if let Some(plex) = self.plex_mut(plex) {
                        plex.media.repairs += 1;
                    }
                    out.push(Action::Note(Note::ReadRepaired { plex, range }));
                }
            }
            CopyKind::Inline(id) => {
                if let Some(feed) = self.feed_mut(id) {
                    feed.inlining.retain(|r| *r != range);
                }
            }
        }
        if good && copy.kind != CopyKind::Recover {
            self.repairs.extend(copy.bad);
        }
        self.release(range, out);
    }
}
