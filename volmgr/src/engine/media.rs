//! Plexes whose disks fail reads: counted, and retired where another one is known to be good.
//!
//! A read that fails costs nobody anything as long as another plex has the data: it is served from there, and the bad range
//! is rewritten. A disk that does so again and again is about to fail for good, at a moment that may be the wrong one.

use super::*;
use blockio::mutant;

/// Counted errors lose half of their weight in this time.
const HALF_MS: u64 = 3_600_000;

/// What is known of how well a plex's disks read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Media {
    /// Reads that failed lately: since the plex came into service, halved every hour.
    pub read_errors: u32,
    /// Ranges that were rewritten from another plex because they could not be read, since the volume was started.
    pub repairs: u64,
    /// When the errors were halved last.
    halved_ms: u64,
}

impl Media {
    fn age(&mut self, now_ms: u64) {
        let hours = now_ms.saturating_sub(self.halved_ms) / HALF_MS;
        self.halved_ms += hours * HALF_MS;
        let halves = u32::try_from(hours).unwrap_or(u32::MAX);
        self.read_errors = self.read_errors.checked_shr(halves).unwrap_or(0);
    }

    /// The plex begins afresh: its disks have been looked at, or are others.
    pub(super) fn forgive(&mut self) {
        self.read_errors = 0;
    }
}

impl Engine {
    /// A read of a plex in service failed. Where that happens too often, the plex is taken out of service: not where the
    /// others have failed reads lately, too, as each may have what the others cannot read, and not before they are
    /// known to be equal.
    pub(super) fn read_error(
        &mut self,
        id: PlexId,
        range: ByteRange,
        error: IoError,
        out: Out<'_>,
    ) {
        let (now, max) = (self.now_ms, self.config.max_read_errors);
        let Some(plex) = self.plex_mut(id).filter(|p| p.is_active()) else {
            return;
        };
        plex.media.age(now);
        plex.media.read_errors = match mutant("read-errors-forgotten") {
            true => 1,
            false => plex.media.read_errors.saturating_add(1),
        };
        let errors = plex.media.read_errors;
        out.push(Action::Note(Note::PlexError {
            plex: id,
            op: DiskOp::Read,
            range,
            error,
        }));
        for plex in &mut self.plexes {
            plex.media.age(now);
        }
        let reads = |p: &Plex| p.media.read_errors == 0 || mutant("last-good-plex-retired");
        let good = |p: &Plex| p.id != id && p.is_active() && reads(p);
        let spared = max == 0 || errors < max || !self.recover.is_empty();
        if spared || !self.plexes.iter().any(good) {
            return;
        }
        self.take_out(id, PlexState::Failed, out);
        let reason = "too many of its reads failed";
        let gates = !mutant("retired-before-its-mark");
        self.commit(id, PlexState::Failed, gates, reason, out);
        out.push(Action::Note(Note::PlexRetired { plex: id, errors }));
    }

    /// What is known of how well a plex's disks read; nothing for an unknown one.
    pub fn plex_media(&self, id: PlexId) -> Media {
        let mut media = self.plex(id).map(|p| p.media).unwrap_or_default();
        media.age(self.now_ms);
        media
    }
}
