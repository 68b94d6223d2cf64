//! Writes, discards and write-zeroes: in order, logged, to every plex and feed.

use super::plex::Gated;
use super::transfer::Transfer;
use super::*;
use blockio::{Flags, Payload, Ticket, mutant};

/// Sequential writers get their log bits this far ahead, in bytes.
const SET_AHEAD: u64 = 1 << 20;

#[derive(Debug)]
pub(super) struct Write {
    pub ticket: Ticket,
    pub op: Op,
    pub range: ByteRange,
    pub flags: Flags,
    pub payload: Option<PayloadId>,
    /// Disk operations in flight.
    pending: u32,
    /// Feeds in `sync` mode that have not answered.
    pub sync_pending: u32,
    /// Some disk operation went well.
    any_ok: bool,
    error: Option<IoError>,
    /// Where FAST_ZERO was refused.
    slow: Vec<(PlexId, ByteRange)>,
    /// The range has been given back.
    released: bool,
    /// It comes from the feed that fills this volume.
    from_feed: bool,
    /// What it brings of what an online restore misses.
    pub brings: Vec<ByteRange>,
}

impl Engine {
    pub(super) fn start_write(&mut self, request: Request, out: Out<'_>) {
        // What a discard leaves behind differs from disk to disk. Where there is more than one
        // copy, zeroes are what all of them can agree on.
        let op = match request.op {
            Op::Discard if self.needs_log() => Op::WriteZeroes,
            op => op,
        };
        let range = request.range;
        let key = self.holders.insert(Holder::Write(Write {
            ticket: request.ticket,
            op,
            range,
            flags: request.flags,
            payload: request.payload.filter(|_| op == Op::Write),
            pending: 0,
            sync_pending: 0,
            any_ok: false,
            error: None,
            slow: Vec::new(),
            released: false,
            from_feed: request.origin == Origin::Feed,
            brings: Vec::new(),
        }));
        self.stats.writes += 1;
        if self.order.acquire(range, key) {
            self.write_ready(key, out);
        }
    }

    fn write(&mut self, key: Key) -> Option<&mut Write> {
        match self.holders.get_mut(key) {
            Some(Holder::Write(write)) => Some(write),
            _ => None,
        }
    }

    /// The write holds its range: into the log, then out.
    pub(super) fn write_ready(&mut self, key: Key, out: Out<'_>) {
        let Some(range) = self.write(key).map(|w| w.range) else {
            return;
        };
        if !self.needs_log() {
            return self.dispatch(key, out);
        }
        if let Some(cycle) = &mut self.cycle {
            cycle.touched.set_range(range);
        }
        if self.drl_durable.all_in(range) || mutant("write-without-log") {
            return self.dispatch(key, out);
        }
        if self.log.broken {
            return self.fail_write(key, IoError::new(IoErrorKind::Medium), out);
        }
        let slot = self.streams.iter().position(|end| *end == range.start());
        let ahead = if slot.is_some() { SET_AHEAD } else { 1 };
        self.streams[slot.unwrap_or((range.start() >> 20) as usize % 4)] = range.end();
        self.drl.set_range(range.align_outwards(ahead));
        if mutant("write-before-log") {
            return self.dispatch(key, out);
        }
        self.wait_log.push(key);
    }

    /// Fails a write that holds its range and has not gone out.
    fn fail_write(&mut self, key: Key, error: IoError, out: Out<'_>) {
        if let Some(write) = self.write(key) {
            write.error = Some(error);
        }
        self.write_progress(key, out);
    }

    /// The dirty-region log has more regions, or is broken.
    pub(super) fn log_progress(&mut self, out: Out<'_>) {
        for key in std::mem::take(&mut self.wait_log) {
            let Some(range) = self.write(key).map(|w| w.range) else {
                continue;
            };
            if self.drl_durable.all_in(range) {
                self.dispatch(key, out);
            } else if self.log.broken {
                self.fail_write(key, IoError::new(IoErrorKind::Medium), out);
            } else {
                self.wait_log.push(key);
            }
        }
    }

    fn dispatch(&mut self, key: Key, out: Out<'_>) {
        if !self.plexes.iter().any(Plex::is_active) {
            return self.fail_write(key, IoError::new(IoErrorKind::Medium), out);
        }
        let Some(Holder::Write(write)) = self.holders.get_mut(key) else {
            return;
        };
        let (op, range, flags, payload) = (write.op, write.range, write.flags, write.payload);
        let mut wanted = vec![range];
        if let Some(restore) = &mut self.restore {
            if write.from_feed {
                wanted = restore.wanted(range);
                wanted.iter().for_each(|part| restore.coming(*part));
                write.brings.clone_from(&wanted);
            } else if restore.logged.any_in(range) {
                write.brings = restore.middle(range).into_iter().collect();
            }
        }
        if wanted.is_empty() {
            // All of it is here already, perhaps newer.
            return self.write_progress(key, out);
        }
        let disk_op = match op {
            Op::Write => DiskOp::Write,
            Op::Discard => DiskOp::Discard,
            _ => DiskOp::WriteZeroes,
        };
        let mut pending = 0;
        for plex in &mut self.plexes {
            for range in &wanted {
                pending += emit_to(
                    &mut self.tags,
                    plex,
                    key,
                    disk_op,
                    write,
                    *range,
                    flags,
                    out,
                );
            }
        }
        write.pending = pending;
        let fed_by = self.restore.as_ref().filter(|_| write.from_feed);
        let fed_by = fed_by.map(|restore| restore.feed);
        let sync = match fed_by {
            Some(source) => {
                self.pass_on(source, &wanted);
                0
            }
            None => self.dispatch_feeds(key, op, range, flags, payload, out),
        };
        if let Some(write) = self.write(key) {
            write.sync_pending = sync;
        }
        if pending == 0 {
            // The plexes do not reach that far: the layout is wrong.
            self.fail_write(key, IoError::new(IoErrorKind::Medium), out);
        }
    }

    pub(super) fn write_done(
        &mut self,
        key: Key,
        plex: PlexId,
        range: ByteRange,
        result: Result<(), IoError>,
        out: Out<'_>,
    ) {
        let Some(write) = self.write(key) else {
            return;
        };
        write.pending -= 1;
        let op = write.op;
        match result {
            Ok(()) => write.any_ok = true,
            Err(e) if e.kind() == IoErrorKind::Unsupported && op == Op::Discard => {
                write.any_ok = true;
            }
            Err(e)
                if e.kind() == IoErrorKind::Unsupported
                    && op == Op::WriteZeroes
                    && write.flags.contains(Flags::FAST_ZERO) =>
            {
                write.slow.push((plex, range));
            }
            Err(error) => {
                let disk_op = match op {
                    Op::Write => DiskOp::Write,
                    Op::Discard => DiskOp::Discard,
                    _ => DiskOp::WriteZeroes,
                };
                if !self.plex_error(plex, disk_op, range, error, out)
                    && let Some(write) = self.write(key)
                {
                    write.error = Some(error);
                    let range = write.range;
                    // Now, not when the others have answered: one of them might be called active in between.
                    self.all_but_active_miss(range, out);
                }
            }
        }
        self.write_progress(key, out);
    }

    /// A write has failed on the last active plex. Nobody knows what is on the disks now: everyone copies it again.
    fn all_but_active_miss(&mut self, range: ByteRange, out: Out<'_>) {
        for plex in self.plexes.iter_mut().filter(|p| !p.is_active()) {
            plex.track.add(range);
        }
        self.set_back(out);
    }

    /// All disk operations done? Then the range is free; all else done, too? Then acknowledge.
    pub(super) fn write_progress(&mut self, key: Key, out: Out<'_>) {
        let Some(Holder::Write(write)) = self.holders.get_mut(key) else {
            return;
        };
        if write.pending > 0 && !(write.any_ok && mutant("ack-before-second-plex")) {
            return;
        }
        let range = write.range;
        if !write.released {
            if !write.slow.is_empty() {
                if write.any_ok && write.error.is_none() {
                    return self.zero_slowly(key, out);
                }
                // Nobody can do it fast, and nobody has done it.
                write.error = write.error.or(Some(IoError::new(IoErrorKind::Unsupported)));
            }
            write.released = true;
            if write.error.is_some() {
                self.all_but_active_miss(range, out);
                self.doubt_feeds(range, out);
                // Where a feed alone writes, it was a write of its order.
                self.whole &= !self.fed;
            } else {
                let brings = std::mem::take(&mut write.brings);
                self.restore_arrived(&brings);
            }
            self.release(range, out);
        }
        let gated = self.gates > 0 && !mutant("ack-before-stale-mark");
        let Some(write) = self.write(key) else {
            return;
        };
        // An error needs no permission, and no feed will change it.
        if write.error.is_none() && write.sync_pending > 0 {
            return;
        }
        if write.error.is_none() && gated {
            self.wait_commit.push(Gated::Write(key));
            return;
        }
        if write.error.is_none() && !write.from_feed {
            let range = write.range;
            if let Some(restore) = &mut self.restore
                && restore.logged.any_in(range)
            {
                restore.acks.push(key);
                return;
            }
        }
        if let Some(Holder::Write(write)) = self.holders.remove(key) {
            out.push(Action::Complete {
                ticket: write.ticket,
                result: write.error.map_or(Ok(()), Err),
            });
        }
    }

    /// Some disks zeroed their part fast and others cannot: those write it out, as the plexes
    /// must not differ.
    fn zero_slowly(&mut self, key: Key, out: Out<'_>) {
        let Some(Holder::Write(write)) = self.holders.get_mut(key) else {
            return;
        };
        let range = write.range;
        write.flags.remove(Flags::FAST_ZERO);
        let flags = write.flags;
        for (id, part) in std::mem::take(&mut write.slow) {
            let Some(plex) = self.plexes.iter_mut().find(|p| p.id == id) else {
                continue;
            };
            if plex.is_active() || plex.is_syncing() {
                write.pending += emit(
                    &mut self.tags,
                    plex,
                    key,
                    DiskOp::WriteZeroes,
                    range,
                    write,
                    part,
                    flags,
                    out,
                );
            }
        }
        if write.pending == 0 {
            self.write_progress(key, out);
        }
    }

    /// A write that waits for a feed fails. What it brought is on the plexes, and tracked.
    pub(super) fn cancel_write(&mut self, key: Key, out: Out<'_>) {
        if let Some(write) = self.write(key) {
            write
                .error
                .get_or_insert(IoError::new(IoErrorKind::Cancelled));
            self.write_progress(key, out);
        }
    }

    /// A feed in `sync` mode has the write, or will not get it live.
    pub(super) fn sync_answered(&mut self, key: Key, out: Out<'_>) {
        if let Some(write) = self.write(key) {
            write.sync_pending = write.sync_pending.saturating_sub(1);
            if write.sync_pending == 0 {
                self.write_progress(key, out);
            }
        }
    }

    /// The ranges of all writes that hold theirs or wait for it.
    pub(super) fn ranges_written(&self) -> impl Iterator<Item = ByteRange> + '_ {
        self.holders.iter().filter_map(|h| match h {
            Holder::Write(write) => Some(write.range),
            Holder::Copy(_) | Holder::Compare(_) | Holder::Rewrite(_) => None,
        })
    }
}

/// Emits what a plex gets of `range`, a part of a write, and tracks what it does not; returns how many
/// operations that are.
#[allow(clippy::too_many_arguments)]
fn emit_to(
    tags: &mut Slab<Tag>,
    plex: &mut Plex,
    key: Key,
    op: DiskOp,
    write: &Write,
    range: ByteRange,
    flags: Flags,
    out: Out<'_>,
) -> u32 {
    let whole = write.range;
    if plex.is_active() {
        return emit(tags, plex, key, op, whole, write, range, flags, out);
    }
    if !plex.is_syncing() {
        if !mutant("stale-plex-not-tracked") {
            plex.track.add(range);
        }
        return 0;
    }
    // Regions that are still to be copied wait for the copy; the others get it.
    let mut count = 0;
    let mut at = range.start();
    while at < range.end() {
        let run = plex.track.todo.next_run(at, u64::MAX);
        let skip_to = run
            .map_or(range.end(), |r| r.start())
            .clamp(at, range.end());
        if skip_to > at {
            let part = ByteRange::new(at, skip_to - at);
            count += emit(tags, plex, key, op, whole, write, part, flags, out);
        }
        at = run.map_or(range.end(), |r| r.end()).max(skip_to);
    }
    count
}

/// Emits the operations of one plex for `part` of a write of `whole`; returns how many.
#[allow(clippy::too_many_arguments)]
fn emit(
    tags: &mut Slab<Tag>,
    plex: &Plex,
    key: Key,
    op: DiskOp,
    whole: ByteRange,
    write: &Write,
    part: ByteRange,
    flags: Flags,
    out: Out<'_>,
) -> u32 {
    let tag = |range| Tag::Write {
        write: key,
        plex: plex.id,
        range,
    };
    let transfer = Transfer {
        op,
        payload: write.payload.map(|id| Payload {
            id,
            skip: part.start() - whole.start(),
        }),
        flags: flags & (Flags::FUA | Flags::NO_UNMAP | Flags::FAST_ZERO),
    };
    transfer.emit(tags, &plex.map, part, tag, out).0
}
