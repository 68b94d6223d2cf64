//! Data plexes: what state each is in, and what happens when one fails.

use super::mapping::disks;
use super::read::bit;
use super::slab::Slab;
use super::track::Track;
use super::*;
use blockio::mutant;

#[derive(Debug)]
pub(super) struct Plex {
    pub id: PlexId,
    pub state: PlexState,
    pub slot: u32,
    pub map: Vec<Piece>,
    pub track: Track,
    /// Read operations in flight.
    pub reads: u32,
    /// Where the resync looks next.
    pub cursor: u64,
    /// Ranges being copied to it.
    pub busy: Vec<ByteRange>,
    /// Grows whenever the plex is taken out: copies begun before do not count.
    pub epoch: u32,
    /// `active` is on the way to the metadata.
    pub activating: bool,
    /// How well its disks read.
    pub media: Media,
}

/// Done, but its acknowledgement waits for a commit.
#[derive(Clone, Copy, Debug)]
pub(super) enum Gated {
    Write(Key),
    Flush(Key),
}

impl Plex {
    /// Has every acknowledged write.
    pub fn is_active(&self) -> bool {
        self.state == PlexState::Active
    }

    /// Is being copied to; gets the writes to regions that it has.
    pub fn is_syncing(&self) -> bool {
        matches!(
            self.state,
            PlexState::Syncing | PlexState::Stale | PlexState::Empty
        )
    }
}

/// Is the plex asked where something is read?
pub(super) fn is_read(plex: &Plex) -> bool {
    plex.is_active() || plex.state == PlexState::Failed && mutant("retired-plex-still-read")
}

/// What a read is worth: nothing where its plex was taken out of service meanwhile.
pub(super) fn read_result(plex: Option<&Plex>, result: Result<(), IoError>) -> Result<(), IoError> {
    if plex.is_some_and(is_read) || mutant("read-of-failed-plex-counts") {
        return result;
    }
    result.and(Err(IoError::new(IoErrorKind::Gone)))
}

/// No plex: whose reads in flight are which nobody waits for, because their plex was taken out of service.
const NOBODY: PlexId = PlexId(u32::MAX);

/// What a plex still answers to reads counts for nothing, and whoever has tried it may try it again when it is back.
fn disown_reads(tags: &mut Slab<Tag>, id: PlexId) {
    for tag in tags.iter_mut() {
        if let Tag::Read { tried, .. } | Tag::CopyRead { tried, .. } = tag {
            *tried &= !bit(id);
        }
        if let Tag::Read { plex, .. }
        | Tag::CopyRead { plex, .. }
        | Tag::Compare { plex, .. }
        | Tag::RewriteRead { plex, .. } = tag
            && *plex == id
        {
            *plex = NOBODY;
        }
    }
}

impl Engine {
    /// The plexes in service with data on this disk.
    pub(super) fn plexes_on(&self, disk: DiskId) -> Vec<PlexId> {
        let on = |plex: &&Plex| {
            let mut all = Vec::new();
            disks(&plex.map, &mut all);
            (plex.is_active() || plex.is_syncing()) && all.contains(&disk)
        };
        self.plexes.iter().filter(on).map(|p| p.id).collect()
    }

    /// An operation of a plex failed. True where that only costs the plex its state; false where
    /// it is the last active one, so that the error is the client's.
    pub(super) fn plex_error(
        &mut self,
        id: PlexId,
        op: DiskOp,
        range: ByteRange,
        error: IoError,
        out: Out<'_>,
    ) -> bool {
        let plex = id;
        out.push(Action::Note(Note::PlexError {
            plex,
            op,
            range,
            error,
        }));
        let active = self.plexes.iter().filter(|p| p.is_active()).count();
        let Some(plex) = self.plex(id) else {
            return true;
        };
        if !plex.is_active() && !plex.is_syncing() {
            return true;
        }
        if plex.is_active() && active == 1 {
            return false;
        }
        // An acknowledgement may only say "all active plexes have it" once the metadata does not
        // count this one among them any more, also where it was about to.
        let gates = plex.is_active() || plex.activating;
        self.take_out(id, PlexState::Failed, out);
        if mutant("no-stale-mark") {
            return true;
        }
        self.commit(id, PlexState::Failed, gates, "an I/O operation failed", out);
        true
    }

    /// The plex serves nothing from now on; it may miss whatever is in the dirty-region log:
    /// writes in flight, and writes that its cache has not stored.
    pub(super) fn take_out(&mut self, id: PlexId, state: PlexState, out: Out<'_>) {
        let Some(plex) = self.plexes.iter_mut().find(|p| p.id == id) else {
            return;
        };
        let was_active = plex.is_active();
        plex.state = state;
        plex.activating = false;
        plex.epoch = plex.epoch.wrapping_add(1);
        if !mutant("failed-plex-misses-nothing") {
            plex.track.union(&self.drl);
        }
        // What had been copied to it may have been lost with what its cache had not stored.
        if !mutant("copied-counts-unflushed") {
            plex.track.start_over();
        }
        if was_active && !mutant("read-of-failed-plex-counts") {
            // It may be back before they answer, when it would be asked whether the answers count.
            plex.reads = 0;
            disown_reads(&mut self.tags, id);
        }
        let mut own = Vec::new();
        disks(&plex.map, &mut own);
        if let Some(cycle) = &mut self.cycle {
            cycle.aborted = true;
        }
        if was_active && !mutant("bulk-of-failed-plex-counts") {
            // A failed flush may have brought old data back, so nothing that is being read from the
            // plex counts any more: bulk copies here, reads when they answer.
            for feed in &mut self.feeds {
                feed.doubt_bulk();
            }
        }
        let shared: Vec<DiskId> = self.flush_disks();
        let places: Vec<DiskRange> = self.log.places().collect();
        for at in places {
            if own.contains(&at.disk) && !shared.contains(&at.disk) {
                self.log.drop_copy(at);
                out.push(Action::Note(Note::LogCopyFailed { at }));
            }
        }
    }

    pub(super) fn commit(
        &mut self,
        plex: PlexId,
        state: PlexState,
        gates: bool,
        reason: &'static str,
        out: Out<'_>,
    ) {
        self.gates += u32::from(gates);
        self.emit_commit(plex, state, gates, reason, out);
    }

    /// As [`Engine::commit`], where the gate is shut already.
    pub(super) fn emit_commit(
        &mut self,
        plex: PlexId,
        state: PlexState,
        gates: bool,
        reason: &'static str,
        out: Out<'_>,
    ) {
        let io = self.tag(Tag::Commit { plex, state, gates });
        out.push(Action::CommitPlexState {
            io,
            plex,
            state,
            reason,
        });
    }

    pub(super) fn commit_done(
        &mut self,
        id: PlexId,
        state: PlexState,
        gates: bool,
        result: Result<(), IoError>,
        out: Out<'_>,
    ) {
        if let Err(error) = result {
            if state == PlexState::Active {
                if let Some(plex) = self.plex_mut(id) {
                    plex.activating = false;
                }
                self.copy_backoff = true;
                return;
            }
            // Whoever waits gets the error; whoever comes waits for the next attempt, so the
            // gate stays shut until then.
            self.retry_commits.push((id, state, gates));
            if gates {
                for gated in std::mem::take(&mut self.wait_commit) {
                    self.fail_gated(gated, error, out);
                }
            }
            return;
        }
        if gates {
            self.gates -= 1;
        }
        if state == PlexState::Active
            && let Some(plex) = self.plex_mut(id)
            && plex.activating
        {
            plex.activating = false;
            plex.state = PlexState::Active;
            plex.media.forgive();
            out.push(Action::Note(Note::PlexSynced { plex: id }));
        }
        if self.gates == 0 {
            for gated in std::mem::take(&mut self.wait_commit) {
                match gated {
                    Gated::Write(key) => self.write_progress(key, out),
                    Gated::Flush(key) => self.flush_progress(key, out),
                }
            }
        }
    }

    fn fail_gated(&mut self, gated: Gated, error: IoError, out: Out<'_>) {
        let ticket = match gated {
            Gated::Write(key) => match self.holders.remove(key) {
                Some(Holder::Write(write)) => write.ticket,
                _ => return,
            },
            Gated::Flush(key) => match self.flushes.remove(key) {
                Some(flush) => flush.into_ticket(),
                None => return,
            },
        };
        let result = Err(error);
        out.push(Action::Complete { ticket, result });
    }

    /// A plex that misses something again while `active` is on the way to the metadata: it is not,
    /// and nothing is acknowledged until the metadata says so, too.
    pub(super) fn set_back(&mut self, out: Out<'_>) {
        let mut back = Vec::new();
        for plex in &mut self.plexes {
            let counts = mutant("last-bit-counts-as-done");
            if plex.activating && !plex.track.missing.is_empty() && !counts {
                plex.activating = false;
                plex.state = PlexState::Stale;
                back.push(plex.id);
            }
        }
        for id in back {
            self.commit(id, PlexState::Stale, true, "it misses something again", out);
        }
    }

    /// The metadata does not call a plex active that is in service here: a commit could not be
    /// written to its disk and gave it up, and the disk was back before the engine heard of that; or
    /// the engine's own commit is newer than the layout. It catches up like one that was away. The
    /// last one in service has all there is, which the metadata is to know.
    pub(super) fn set_aside(&mut self, id: PlexId, state: PlexState, out: Out<'_>) {
        if !self.plexes.iter().any(|p| p.id != id && p.is_active()) {
            let reason = "it is the last one in service";
            return self.commit(id, PlexState::Active, false, reason, out);
        }
        let state = match state {
            PlexState::Empty => PlexState::Empty,
            _ => PlexState::Stale,
        };
        self.take_out(id, state, out);
        if let Some(plex) = self.plex_mut(id)
            && state == PlexState::Empty
        {
            plex.track.add_all();
        }
        self.commit(id, state, true, "its disk was given up meanwhile", out);
    }

    /// Plexes that miss nothing any more become active; not while a copy of the log is still being filled, which
    /// may be all that is left when another plex fails.
    pub(super) fn pump_activation(&mut self, out: Out<'_>) {
        let log_is_whole = self.log.is_whole() || mutant("active-before-its-log");
        let settled = self.gates == 0 && self.retry_commits.is_empty() && log_is_whole;
        if !settled || self.copy_backoff || self.drl.count() != self.drl_durable.count() {
            return;
        }
        let all_there = |p: &Plex| match mutant("last-bit-counts-as-done") {
            true => p.track.missing.count() <= 1,
            false => p.track.missing.is_empty(),
        };
        let in_step =
            |p: &&mut Plex| p.is_syncing() && !p.activating && all_there(p) && p.busy.is_empty();
        let ready: Vec<PlexId> = self
            .plexes
            .iter_mut()
            .filter(in_step)
            .map(|plex| {
                plex.activating = true;
                plex.id
            })
            .collect();
        for id in ready {
            self.commit(
                id,
                PlexState::Active,
                false,
                "it misses nothing any more",
                out,
            );
        }
    }
}
