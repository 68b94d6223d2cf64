//! `feedverify`: compares the two sides by hashes, while writes go on; by hand, or on a schedule.
//!
//! A mismatch is only a suspicion: a write may be on its way. It is a difference when both sides still have
//! what they had, after everything that was on its way at the first look has arrived. What is written all the
//! time cannot be compared, and is told as such.

use super::Feeds;
use super::entry::FeedEntry;
use crate::api::{Failure, LvName, Progress, ReportKind};
use crate::daemon::verbs::{Ctx, fail, find_volume, key, places};
use crate::lane::{LaneError, LaneHandle};
use blockio::{ByteRange, IoError, IoErrorKind};
use feedplex::session::{Event, FeedState};
use feedplex::wire::control::{HashReply, HashRequest, Message, RepairRequest, WireRange};
use std::sync::Arc;
use std::time::{Duration, Instant};
use volmgr::engine::FeedId;
use volmgr::model::Direction;

/// Bytes per hash.
const BLOCK: u64 = 64 << 10;

/// Bytes per hash where something differs: differences are told in these units.
const FINE: u64 = 4 << 10;

/// Where more than this differs, it is told in units of [`BLOCK`].
const FINE_MAX: u64 = 64 << 20;

/// Bytes per request.
const CHUNK: u64 = 4 << 20;

/// A peer that does not answer for so long is given up.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A block that differs is looked at again so often before it is left alone as too busy.
const LOOKS: u32 = 20;

/// Most ranges that are told.
const RANGES_MAX: usize = 100;

/// Between two looks at the source, which knows what is on its way.
const LOOK_PAUSE: Duration = Duration::from_millis(200);

/// Between two looks at the sink, which does not: longer than anything stays on its way in a live feed.
const LOOK_PAUSE_SINK: Duration = Duration::from_secs(9);

/// Answers a peer's request.
pub async fn answer(lane: &LaneHandle, request: &HashRequest) -> Result<HashReply, LaneError> {
    let size = lane.limits().size;
    let range = ByteRange::checked(request.offset, request.length)
        .filter(|range| range.end() <= size && range.len() <= CHUNK)
        .filter(|_| u64::from(request.block) >= FINE)
        .ok_or(LaneError::Io(IoError::new(IoErrorKind::Invalid)))?;
    Ok(HashReply {
        request: request.request,
        hashes: hash(lane, range, u64::from(request.block)).await?,
    })
}

type Hash = [u8; 32];
type Reply = tokio::sync::oneshot::Receiver<HashReply>;

async fn hash(lane: &LaneHandle, range: ByteRange, block: u64) -> Result<Vec<Hash>, LaneError> {
    let mut hashes = Vec::new();
    let mut at = range.start();
    while at < range.end() {
        let len = block.min(range.end() - at);
        hashes.push(lane.hash(ByteRange::new(at, len)).await?);
        at += len;
    }
    Ok(hashes)
}

/// What a comparison has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// What differs, in units of 4 KiB, neighbours in one.
    pub differing: Vec<ByteRange>,
    /// What was written too often to be compared.
    pub busy: Vec<ByteRange>,
}

impl Found {
    /// In words: what was compared, what came out.
    pub fn words(&self, size: u64) -> String {
        let human = crate::daemon::rows::human;
        let sum = |list: &[ByteRange]| human(list.iter().map(|range| range.len()).sum());
        let mut text = match self.differing.len() {
            0 => format!("equal ({})", human(size)),
            ranges => format!("{ranges} range(s), {} differ", sum(&self.differing)),
        };
        if !self.busy.is_empty() {
            text += &format!("; {} written too often to be compared", sum(&self.busy));
        }
        text
    }
}

/// The same bytes in as few requests as may be; the list is in order.
fn runs(list: Vec<ByteRange>) -> Vec<ByteRange> {
    let mut out = Vec::new();
    for range in joined(list) {
        let mut at = range.start();
        while at < range.end() {
            let len = CHUNK.min(range.end() - at);
            out.push(ByteRange::new(at, len));
            at += len;
        }
    }
    out
}

/// Puts neighbours together; the list is in order.
fn joined(list: Vec<ByteRange>) -> Vec<ByteRange> {
    let mut out: Vec<ByteRange> = Vec::new();
    for range in list {
        match out.last_mut() {
            Some(last) if last.end() == range.start() => {
                *last = ByteRange::new(last.start(), last.len() + range.len());
            }
            _ => out.push(range),
        }
    }
    out
}

/// `feedverify`.
pub async fn feedverify(
    feeds: &Feeds,
    ctx: &Ctx,
    lv: &LvName,
    peer: &str,
    repair: bool,
    rate: Option<u64>,
) -> Result<(), Failure> {
    let what = "cannot verify";
    let entry = super::verbs::find(feeds, lv, peer, what)?;
    let late = matches!(entry.status().state, FeedState::Behind | FeedState::Resync);
    if late && !super::verbs::live(ctx, &entry, lv, what).await? {
        return Ok(());
    }
    let (object, lane) = ready(feeds, &entry, lv)?;
    if ctx.would(&format!("compare {lv} with its copy at {peer}")) {
        return Ok(());
    }
    let compare = Compare {
        rate: rate.unwrap_or(0),
        ..Compare::new(feeds, &entry, &lane, &object)
    };
    let found = compare.whole(|progress| ctx.out.progress(progress)).await?;
    let text = found.words(lane.limits().size);
    keep(feeds, &entry, &object, &found, &text);
    if found.differing.is_empty() {
        ctx.out
            .message(format!("{lv} and its copy at {peer} are {text}."));
        ctx.out.report(key(ReportKind::Difference), Vec::new());
        return Ok(());
    }
    let (view, volume) = find_volume(&feeds.node, lv, what)?;
    let mut rows = Vec::new();
    for range in found.differing.iter().take(RANGES_MAX) {
        ctx.out
            .message(format!("differs: {}+{} bytes", range.start(), range.len()));
        let differing = places::Differing {
            lv,
            range: *range,
            sides: format!("{} against {peer}", feeds.node.identity.name),
            repaired: repair,
        };
        for plex in &volume.plexes {
            for line in places::lines(&view, plex, *range) {
                ctx.out.message(line);
            }
            rows.extend(differing.rows(&view, plex));
        }
    }
    let hidden = found.differing.len().saturating_sub(RANGES_MAX);
    if hidden > 0 {
        ctx.out.message(format!("{hidden} more range(s) differ"));
    }
    if repair {
        compare.repair(&found.differing).await?;
    }
    ctx.out.report(key(ReportKind::Difference), rows);
    if !repair {
        return Err(fail(
            &object,
            "the two sides differ",
            text,
            "feedverify --repair copies these ranges from the source",
        ));
    }
    ctx.out.message(format!("{text}; repaired."));
    Ok(())
}

/// Does what was on its way count as arrived? See [`crate::daemon::feed_hook::FeedService::arrived`].
pub async fn arrived(feeds: &Feeds, lv: &LvName, peer: &str) -> Result<bool, Failure> {
    let entry = super::verbs::find(feeds, lv, peer, "cannot verify")?;
    let (object, lane) = ready(feeds, &entry, lv)?;
    Compare::new(feeds, &entry, &lane, &object).arrived().await
}

/// What the peer has; see [`crate::daemon::feed_hook::FeedService::hashes`].
pub async fn hashes(
    feeds: &Feeds,
    lv: &LvName,
    peer: &str,
    range: ByteRange,
    block: u64,
) -> Result<Vec<Hash>, Failure> {
    let entry = super::verbs::find(feeds, lv, peer, "cannot verify")?;
    let (object, lane) = ready(feeds, &entry, lv)?;
    let compare = Compare::new(feeds, &entry, &lane, &object);
    let reply = compare.ask(range, block)?;
    compare.answered(reply, range, block).await
}

/// A comparison that nobody waits for.
pub async fn scheduled(feeds: &Feeds, entry: &Arc<FeedEntry>, rate: u64) -> Result<(), Failure> {
    let (object, lane) = ready(feeds, entry, &entry.lv())?;
    let compare = Compare {
        rate,
        ..Compare::new(feeds, entry, &lane, &object)
    };
    let found = compare.whole(|_| ()).await?;
    let text = found.words(lane.limits().size);
    keep(feeds, entry, &object, &found, &text);
    Ok(())
}

/// Can the two sides be compared now?
fn ready(feeds: &Feeds, entry: &FeedEntry, lv: &LvName) -> Result<(String, LaneHandle), Failure> {
    let what = "cannot verify";
    let peer = &entry.peer;
    let object = format!("{lv} {peer}");
    let lane = feeds
        .node
        .lane(lv)
        .ok_or_else(|| fail(lv, what, "the volume is not active", "lvchange -ay"))?;
    if feeds
        .record(entry)
        .and_then(|(_, feed)| feed.restore)
        .is_some()
    {
        return Err(fail(
            &object,
            what,
            "one side is in use while it is restored: the two sides may differ",
            format!("feedswap {lv} {peer}, then feedwait, makes them equal"),
        ));
    }
    if entry.status().state != FeedState::Live {
        let state = super::rows::state_name(entry.status().state);
        return Err(fail(
            &object,
            what,
            format!("the feed is {state}, not live"),
            "feedwait first",
        ));
    }
    Ok((object, lane))
}

/// The event, and the time of the last comparison.
fn keep(feeds: &Feeds, entry: &FeedEntry, object: &str, found: &Found, text: &str) {
    let event = match found.differing.first() {
        None => "feed-verified",
        Some(_) => "feed-differs",
    };
    let first = found.differing.first().map_or(String::new(), |range| {
        format!(", the first {}+{} bytes", range.start(), range.len())
    });
    feeds.node.event(event, object, &format!("{text}{first}"));
    let now = crate::daemon::events::now();
    let result = feeds.commit_change(entry, |volume| {
        let record = volume.feeds.iter_mut().find(|feed| feed.uuid == entry.uuid);
        if let Some(feed) = record {
            feed.verify.last = now;
        }
    });
    if let Err(error) = result {
        tracing::warn!(error, "the time of a comparison is not recorded");
    }
}

/// A block that differed at a look.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Suspect {
    range: ByteRange,
    ours: Hash,
    theirs: Hash,
}

/// Is it in this list, which is in order?
fn has(list: &[Suspect], wanted: &Suspect) -> bool {
    list.binary_search_by_key(&wanted.range.start(), |suspect| suspect.range.start())
        .is_ok_and(|at| list[at] == *wanted)
}

struct Compare<'a> {
    feeds: &'a Feeds,
    entry: &'a Arc<FeedEntry>,
    lane: &'a LaneHandle,
    object: &'a str,
    /// Bytes per second, 0 for no limit.
    rate: u64,
}

impl<'a> Compare<'a> {
    /// Without a limit of its rate.
    fn new(
        feeds: &'a Feeds,
        entry: &'a Arc<FeedEntry>,
        lane: &'a LaneHandle,
        object: &'a str,
    ) -> Self {
        Self {
            feeds,
            entry,
            lane,
            object,
            rate: 0,
        }
    }

    async fn whole(&self, progress: impl Fn(Progress)) -> Result<Found, Failure> {
        let size = self.lane.limits().size;
        let began = Instant::now();
        let mut told = Instant::now();
        let mut suspects: Vec<Suspect> = Vec::new();
        let mut at = 0;
        while at < size {
            let range = ByteRange::new(at, CHUNK.min(size - at));
            suspects.extend(self.look(range, BLOCK).await?);
            at = range.end();
            if let Some(millis) = at.saturating_mul(1000).checked_div(self.rate) {
                let due = began + Duration::from_millis(millis);
                tokio::time::sleep_until(due.into()).await;
            }
            if told.elapsed() > Duration::from_millis(500) || at == size {
                told = Instant::now();
                let ms = began.elapsed().as_millis().max(1) as u64;
                progress(Progress {
                    what: "verify".into(),
                    done: at,
                    total: size,
                    rate: at.saturating_mul(1000) / ms,
                });
            }
        }
        let (mut differing, mut busy) = self.settle(suspects, BLOCK).await?;
        if differing.iter().map(|range| range.len()).sum::<u64>() <= FINE_MAX {
            let mut fine = Vec::new();
            for run in runs(differing) {
                fine.extend(self.look(run, FINE).await?);
            }
            let (small, more) = self.settle(fine, FINE).await?;
            differing = small;
            busy.extend(more);
            busy.sort_by_key(|range| range.start());
        }
        if !busy.is_empty() && self.entry.status().state != FeedState::Live {
            return Err(fail(
                self.object,
                "cannot verify",
                "the feed fell behind meanwhile",
                "feedwait, then again",
            ));
        }
        Ok(Found {
            differing: joined(differing),
            busy: joined(busy),
        })
    }

    /// Looks again at what differed, until it is known to differ or not to. Returns what does, and what is
    /// written too often to tell.
    async fn settle(
        &self,
        mut suspects: Vec<Suspect>,
        block: u64,
    ) -> Result<(Vec<ByteRange>, Vec<ByteRange>), Failure> {
        let mut differing = Vec::new();
        for _ in 0..LOOKS {
            if suspects.is_empty() {
                break;
            }
            let arrived = self.arrived().await?;
            let mut again = Vec::new();
            for run in runs(suspects.iter().map(|suspect| suspect.range).collect()) {
                for now in self.look(run, block).await? {
                    match arrived && has(&suspects, &now) {
                        true => differing.push(now.range),
                        false => again.push(now),
                    }
                }
            }
            suspects = again;
        }
        let busy = suspects.into_iter().map(|suspect| suspect.range).collect();
        differing.sort_by_key(|range| range.start());
        Ok((differing, busy))
    }

    /// Waits a little. True where everything that was on its way when the wait began is at both sides now.
    async fn arrived(&self) -> Result<bool, Failure> {
        let began = Instant::now();
        let lost = |error: LaneError| fail(self.object, "cannot verify", error.to_string(), "");
        let record = self.feeds.record(self.entry);
        let source = record
            .as_ref()
            .is_some_and(|(_, feed)| feed.direction == Direction::Out);
        // What is under way here itself.
        self.lane.quiesce().await.map_err(lost)?;
        if !source {
            tokio::time::sleep(LOOK_PAUSE_SINK).await;
            return Ok(self.entry.status().state == FeedState::Live);
        }
        tokio::time::sleep(LOOK_PAUSE).await;
        let stats = self.lane.stats().await.map_err(lost)?;
        let slot = record.map(|(_, feed)| FeedId(feed.map_slot));
        let lag = stats.feeds.iter().find(|(feed, _)| Some(*feed) == slot);
        // Nothing is missing over there that is older than the wait.
        Ok(lag.is_some_and(|(_, lag)| lag.lag < began.elapsed() && lag.dirty == 0))
    }

    fn lost(&self, why: String) -> Failure {
        fail(self.object, "cannot verify", why, "feedwait, then again")
    }

    /// Asks for the hashes of a range at the peer.
    fn ask(&self, range: ByteRange, block: u64) -> Result<Reply, Failure> {
        let (request, reply) = self.entry.expect_hashes();
        let asked = self
            .entry
            .send(Event::Relay(Message::HashRequest(HashRequest {
                request,
                offset: range.start(),
                length: range.len(),
                block: u32::try_from(block).unwrap_or(u32::MAX),
            })));
        match asked {
            true => Ok(reply),
            false => Err(self.lost("the feed is not connected".into())),
        }
    }

    /// The peer's answer: so many hashes as there are blocks in the range.
    async fn answered(
        &self,
        reply: Reply,
        range: ByteRange,
        block: u64,
    ) -> Result<Vec<Hash>, Failure> {
        let theirs = match tokio::time::timeout(ANSWER_TIMEOUT, reply).await {
            Ok(Ok(reply)) => reply.hashes,
            Ok(Err(_)) => return Err(self.lost("the feed was cut".into())),
            Err(_) => return Err(self.lost("the peer does not answer".into())),
        };
        if theirs.len() as u64 != range.len().div_ceil(block) {
            return Err(self.lost("the peer answered with another number of hashes".into()));
        }
        Ok(theirs)
    }

    /// Blocks of a range that differ now.
    async fn look(&self, range: ByteRange, block: u64) -> Result<Vec<Suspect>, Failure> {
        // Both sides read at the same time.
        let reply = self.ask(range, block)?;
        let ours = hash(self.lane, range, block)
            .await
            .map_err(|error| self.lost(error.to_string()))?;
        let theirs = self.answered(reply, range, block).await?;
        let starts = std::iter::successors(Some(range.start()), |at| at.checked_add(block));
        Ok(starts
            .zip(ours.into_iter().zip(theirs))
            .filter(|(_, (ours, theirs))| ours != theirs)
            .map(|(at, (ours, theirs))| Suspect {
                range: ByteRange::new(at, block.min(range.end() - at)),
                ours,
                theirs,
            })
            .collect())
    }

    async fn repair(&self, differing: &[ByteRange]) -> Result<(), Failure> {
        let ranges: Vec<WireRange> = differing
            .iter()
            .map(|range| WireRange {
                offset: range.start(),
                length: range.len(),
            })
            .collect();
        let source = self
            .feeds
            .record(self.entry)
            .is_some_and(|(_, feed)| feed.direction == Direction::Out);
        let event = if source {
            Event::Repair(ranges)
        } else {
            Event::Relay(Message::RepairRequest(RepairRequest { ranges }))
        };
        let before = self.entry.status();
        self.entry.send(event);
        // A repair is a round of copying: the feed leaves the live state and comes back.
        let mut left = before.state != FeedState::Live;
        let done = self.entry.wait_for(|status| match status.state {
            FeedState::Live if left => Some(Ok(())),
            FeedState::Live => None,
            FeedState::Resync | FeedState::FullSync | FeedState::Behind => {
                left = true;
                None
            }
            _ => Some(Err(fail(
                self.object,
                "repair is not finished",
                "the feed was cut",
                "it goes on when the feed is back",
            ))),
        });
        match tokio::time::timeout(Duration::from_secs(300), done).await {
            Ok(result) => result?,
            Err(_) => {
                return Err(fail(
                    self.object,
                    "repair is not finished",
                    "it takes longer than five minutes",
                    "see feeds",
                ));
            }
        }
        let mut left = Vec::new();
        for range in differing {
            let mut at = range.start();
            while at < range.end() {
                let part = ByteRange::new(at, CHUNK.min(range.end() - at));
                left.extend(self.look(part, FINE).await?);
                at = part.end();
            }
        }
        let (left, _) = self.settle(left, FINE).await?;
        match left.first() {
            None => Ok(()),
            Some(range) => Err(fail(
                self.object,
                "repair failed",
                format!("{}+{} bytes still differ", range.start(), range.len()),
                "see events on both sides",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_told_as_one() {
        let list = vec![
            ByteRange::new(0, 4096),
            ByteRange::new(4096, 4096),
            ByteRange::new(16384, 4096),
        ];
        let all = joined(list);
        assert_eq!(all, [ByteRange::new(0, 8192), ByteRange::new(16384, 4096)]);
        let long = vec![
            ByteRange::new(4096, CHUNK),
            ByteRange::new(4096 + CHUNK, 4096),
        ];
        assert_eq!(runs(long.clone()), long);
    }

    #[test]
    fn what_could_not_be_compared_is_not_called_equal_without_a_word() {
        let mut found = Found::default();
        assert_eq!(found.words(1 << 20), "equal (1.00m)");
        found.busy = vec![ByteRange::new(0, 65536)];
        let text = found.words(1 << 20);
        assert!(text.contains("64.00k written too often"), "{text}");
    }
}
