//! `plexsync --verify`: compares the plexes, says which differ where, and repairs them where somebody's word says how.
//!
//! Writes to a range are held while it is read, so none on its way looks like a difference; what differs is read again
//! later, because a page that an application changes while it is being written is written once more soon. Nothing is
//! repaired without a word: that of more than half of the plexes, of a plex that the admin names, or of a peer.

mod report;

use super::{Ctx, chain, fail, find_volume, plex_number};
use crate::api::{Believe, Failure, LvName, PlexVerify, Progress};
use crate::daemon::active::VolumeLane;
use crate::daemon::groups::GroupView;
use crate::lane::LaneError;
use blockio::ByteRange;
use std::time::{Duration, Instant};
use volmgr::engine::PlexId;
use volmgr::model::{PlexState, Volume};
use volmgr::scrub::{Word, believed, classes};

/// Bytes that the lane reads at a time, of all plexes together.
const COMPARE_BYTES: u64 = 256 << 10;
/// Differences are found, told and repaired in units of this many bytes.
pub const BLOCK: u64 = 4096;
/// A difference is read again after this long.
const AGAIN: Duration = Duration::from_millis(100);
/// What differs, but otherwise each time, is looked at so often before it is left alone as too busy.
const LOOKS: u32 = 20;
/// So many blocks that differ are settled together.
const BATCH: usize = 4096;
/// Most ranges that are told.
const RANGES_MAX: usize = 64;
/// A block that a plex cannot read is read again so often, each time after [`AGAIN`]: the engine rewrites it meanwhile.
const MEND_TRIES: u32 = 5;
/// Between two words about the progress.
const TELL: Duration = Duration::from_millis(500);

type Hash = [u8; 32];

/// A block in which not all plexes have the same.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Suspect {
    block: ByteRange,
    /// What each plex has.
    has: Vec<Hash>,
}

impl Suspect {
    fn classes(&self) -> Vec<usize> {
        let all: Vec<&[u8]> = self.has.iter().map(<[u8; 32]>::as_slice).collect();
        classes(&all)
    }
}

/// What differs in the same way, neighbours in one.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Difference {
    range: ByteRange,
    /// For each plex the first one that has the same.
    classes: Vec<usize>,
    /// The one whose content is taken.
    believed: Option<usize>,
}

/// Puts neighbours together that differ in the same way; at most `max` bytes each. They come in order.
fn joined(blocks: impl IntoIterator<Item = Difference>, max: u64) -> Vec<Difference> {
    let mut out: Vec<Difference> = Vec::new();
    for next in blocks {
        match out.last_mut() {
            Some(last)
                if last.range.end() == next.range.start()
                    && last.range.len() + next.range.len() <= max
                    && (&last.classes, last.believed) == (&next.classes, next.believed) =>
            {
                let len = last.range.len() + next.range.len();
                last.range = ByteRange::new(last.range.start(), len);
            }
            _ => out.push(next),
        }
    }
    out
}

/// `plexsync --verify`.
pub async fn verify(
    ctx: &Ctx,
    lv: &LvName,
    lane: &VolumeLane,
    asked: &PlexVerify,
    what: &str,
) -> Result<(), Failure> {
    let (view, volume) = find_volume(&ctx.node, lv, what)?;
    let active = volume.plexes.iter();
    let plexes: Vec<PlexId> = active
        .filter(|plex| plex.state == PlexState::Active)
        .map(|plex| PlexId(plex.number))
        .collect();
    if plexes.len() < 2 {
        return Err(fail(
            lv,
            what,
            format!("it has {} active plex(es)", plexes.len()),
            "two are needed to compare (see `volmgr plexs`)",
        ));
    }
    let restoring = volume.feeds.iter().any(|feed| feed.restore.is_some());
    if restoring && asked.repair.is_some() {
        return Err(fail(
            lv,
            what,
            "its content is still coming from a peer",
            "wait until the restore has ended (see `volmgr feeds`)",
        ));
    }
    let word = match &asked.repair {
        None => None,
        Some(Believe::Plex(name)) => {
            let number = plex_number(lv, &volume, name, what)?;
            let index = plexes.iter().position(|plex| plex.0 == number);
            let index = index.ok_or_else(|| {
                let why = format!("{name} is not active: it misses writes");
                fail(
                    lv,
                    what,
                    why,
                    "name one that is active (see `volmgr plexs`)",
                )
            })?;
            Some(Word::Copy(index))
        }
        Some(Believe::Majority | Believe::Peer(_)) => Some(Word::Majority),
    };
    let mut scrub = Scrub {
        ctx,
        lv,
        lane,
        asked,
        what,
        view: &view,
        volume: &volume,
        step: (COMPARE_BYTES / plexes.len() as u64 / BLOCK * BLOCK).max(BLOCK),
        plexes,
        word,
        told: Vec::new(),
        sums: Sums::default(),
    };
    scrub.whole().await?;
    scrub.result().await
}

/// In bytes.
#[derive(Default)]
struct Sums {
    different: u64,
    repaired: u64,
    busy: u64,
    /// Could not be read from a plex, and now can.
    mended: u64,
    ranges: u64,
}

struct Scrub<'a> {
    ctx: &'a Ctx,
    lv: &'a LvName,
    lane: &'a VolumeLane,
    asked: &'a PlexVerify,
    what: &'a str,
    view: &'a GroupView,
    volume: &'a Volume,
    /// Bytes of the volume that are read at a time.
    step: u64,
    plexes: Vec<PlexId>,
    /// Whose word repairs, but for a peer's; none where nothing is to be repaired.
    word: Option<Word>,
    told: Vec<Difference>,
    sums: Sums,
}

impl Scrub<'_> {
    async fn whole(&mut self) -> Result<(), Failure> {
        let size = self.view.group.bytes_of(self.volume);
        let began = Instant::now();
        let mut told = began;
        let mut suspects = Vec::new();
        let mut at = 0;
        while at < size {
            let range = ByteRange::new(at, self.step.min(size - at));
            suspects.extend(self.look(range).await?);
            if suspects.len() >= BATCH {
                self.settle(std::mem::take(&mut suspects)).await?;
            }
            at = range.end();
            if let Some(millis) = at.saturating_mul(1000).checked_div(self.asked.rate) {
                let due = began + Duration::from_millis(millis);
                tokio::time::sleep_until(due.into()).await;
            }
            if told.elapsed() > TELL {
                told = Instant::now();
                let seconds = began.elapsed().as_secs_f64().max(0.001);
                self.ctx.out.progress(Progress {
                    what: "verify".into(),
                    done: at,
                    total: size,
                    rate: (at as f64 / seconds) as u64,
                });
            }
        }
        self.settle(suspects).await
    }

    fn lost(&self, range: ByteRange, did: &str, why: String) -> Failure {
        let why = format!(
            "bytes {} to {} cannot be {did}: {why}",
            range.start(),
            range.end()
        );
        fail(
            self.lv,
            self.what,
            why,
            "see `volmgr plexs` and `volmgr events`",
        )
    }

    /// The blocks of a range in which not all plexes are equal. A block that one plex cannot read is rewritten there.
    async fn look(&mut self, range: ByteRange) -> Result<Vec<Suspect>, Failure> {
        if let Ok(found) = self.read(range).await {
            return Ok(found);
        }
        let mut found = Vec::new();
        let mut at = range.start();
        while at < range.end() {
            let block = ByteRange::new(at, BLOCK.min(range.end() - at));
            let mut tries = MEND_TRIES;
            found.extend(loop {
                match self.read(block).await {
                    Ok(now) => break now,
                    Err(error) if tries == 0 => {
                        return Err(self.lost(block, "read from all plexes", chain(&error)));
                    }
                    Err(_) => tokio::time::sleep(AGAIN).await,
                }
                tries -= 1;
            });
            if tries < MEND_TRIES {
                self.sums.mended += block.len();
            }
            at = block.end();
        }
        Ok(found)
    }

    async fn read(&self, range: ByteRange) -> Result<Vec<Suspect>, LaneError> {
        let bytes = self.lane.read_plexes(range, self.plexes.clone()).await?;
        let len = range.len() as usize;
        let copies: Vec<&[u8]> = bytes.as_ref().chunks(len).collect();
        if copies.iter().all(|copy| copy == &copies[0]) {
            return Ok(Vec::new());
        }
        let blocks = (0..len).step_by(BLOCK as usize);
        Ok(blocks
            .map(|start| start..(start + BLOCK as usize).min(len))
            .filter(|part| {
                let first = &copies[0][part.clone()];
                copies.iter().any(|copy| &copy[part.clone()] != first)
            })
            .map(|part| Suspect {
                block: ByteRange::new(range.start() + part.start as u64, part.len() as u64),
                has: copies
                    .iter()
                    .map(|copy| *blake3::hash(&copy[part.clone()]).as_bytes())
                    .collect(),
            })
            .collect())
    }

    /// Looks again at what differed, until it is known to or not to; decides, repairs.
    async fn settle(&mut self, mut suspects: Vec<Suspect>) -> Result<(), Failure> {
        for _ in 0..LOOKS {
            if suspects.is_empty() {
                return Ok(());
            }
            tokio::time::sleep(AGAIN).await;
            // A peer has to have everything that was on its way at the first look.
            let arrived = match &self.asked.repair {
                Some(Believe::Peer(peer)) => self.feeds()?.arrived(self.lv, peer).await?,
                _ => true,
            };
            let (mut settled, mut again) = (Vec::new(), Vec::new());
            for run in runs(&suspects, self.step) {
                for now in self.look(run).await? {
                    match arrived && suspects.contains(&now) {
                        true => settled.push(now),
                        false => again.push(now),
                    }
                }
            }
            self.decide(settled).await?;
            suspects = again;
        }
        self.sums.busy += suspects.iter().map(|s| s.block.len()).sum::<u64>();
        Ok(())
    }

    fn feeds(&self) -> Result<&dyn crate::daemon::feed_hook::FeedService, Failure> {
        let feeds = self.ctx.node.feeds();
        feeds.map(|feeds| &**feeds).ok_or_else(|| {
            fail(
                self.lv,
                self.what,
                "this volmgrd serves no feeds",
                "start it with feeds configured",
            )
        })
    }

    /// Whose content is taken for each of these.
    async fn words(&self, settled: &[Suspect]) -> Result<Vec<Option<usize>>, Failure> {
        let Some(Believe::Peer(peer)) = &self.asked.repair else {
            let word = |suspect: &Suspect| believed(&suspect.classes(), self.word?);
            return Ok(settled.iter().map(word).collect());
        };
        let mut words = Vec::new();
        for run in runs(settled, self.step) {
            let hashes = self.feeds()?.hashes(self.lv, peer, run, BLOCK).await?;
            for hash in hashes {
                let like = |suspect: &Suspect| suspect.has.iter().position(|has| *has == hash);
                words.push(settled.get(words.len()).and_then(like));
            }
        }
        words.resize(settled.len(), None);
        Ok(words)
    }

    async fn decide(&mut self, settled: Vec<Suspect>) -> Result<(), Failure> {
        let words = self.words(&settled).await?;
        let differences = settled
            .iter()
            .zip(words)
            .map(|(suspect, believed)| Difference {
                range: suspect.block,
                classes: suspect.classes(),
                believed,
            });
        for difference in joined(differences, self.step) {
            self.sums.different += difference.range.len();
            if let Some(from) = difference.believed {
                self.repair(&difference, from).await?;
                self.sums.repaired += difference.range.len();
            }
            self.tell(difference);
        }
        Ok(())
    }

    async fn repair(&mut self, difference: &Difference, from: usize) -> Result<(), Failure> {
        let range = difference.range;
        let all = self.plexes.iter().zip(&difference.classes);
        let to: Vec<PlexId> = all
            .filter(|(_, class)| **class != difference.classes[from])
            .map(|(plex, _)| *plex)
            .collect();
        let written = self.lane.rewrite(range, self.plexes[from], to).await;
        written.map_err(|error| self.lost(range, "made equal", chain(&error)))?;
        // What a disk says that it has written is not believed here.
        if self.look(range).await?.is_empty() {
            return Ok(());
        }
        tokio::time::sleep(AGAIN).await;
        match self.look(range).await?.first() {
            None => Ok(()),
            Some(_) => Err(self.lost(range, "made equal", "they differ again".into())),
        }
    }
}

/// The blocks as ranges of at most `max` bytes; they are in order.
fn runs(suspects: &[Suspect], max: u64) -> Vec<ByteRange> {
    let blocks = suspects.iter().map(|suspect| Difference {
        range: suspect.block,
        classes: Vec::new(),
        believed: None,
    });
    joined(blocks, max).iter().map(|run| run.range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn difference(start: u64, classes: &[usize], believed: Option<usize>) -> Difference {
        Difference {
            range: ByteRange::new(start * BLOCK, BLOCK),
            classes: classes.to_vec(),
            believed,
        }
    }

    #[test]
    fn neighbours_are_one_where_they_differ_alike() {
        let list = [
            difference(0, &[0, 1], None),
            difference(1, &[0, 1], None),
            difference(2, &[0, 0, 2], Some(0)),
            difference(3, &[0, 1, 0], Some(0)),
            difference(9, &[0, 1, 0], Some(0)),
        ];
        let all = joined(list.clone(), u64::MAX);
        assert_eq!(all.len(), 4);
        assert_eq!(all[0].range, ByteRange::new(0, 2 * BLOCK));
        assert_eq!(joined(list, BLOCK).len(), 5);
    }
}
