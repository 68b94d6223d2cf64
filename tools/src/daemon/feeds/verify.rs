//! `feedverify`: compares the two sides by hashes, while writes go on.

use super::Feeds;
use super::entry::FeedEntry;
use crate::api::{Failure, LvName, Progress};
use crate::daemon::verbs::{Ctx, fail};
use crate::lane::{LaneError, LaneHandle};
use blockio::{ByteRange, IoError, IoErrorKind};
use feedplex::session::{Event, FeedState};
use feedplex::wire::control::{HashReply, HashRequest, Message, RepairRequest, WireRange};
use std::sync::Arc;
use std::time::{Duration, Instant};
use volmgr::model::Direction;

/// Bytes per hash.
const BLOCK: u64 = 64 << 10;

/// Bytes per request.
const CHUNK: u64 = 4 << 20;

/// A peer that does not answer for so long is given up.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Blocks that differ are looked at again so often, with a pause: a write may be on its way.
const LOOKS: u32 = 5;
const LOOK_PAUSE: Duration = Duration::from_millis(200);

/// Answers a peer's request.
pub async fn answer(lane: &LaneHandle, request: &HashRequest) -> Result<HashReply, LaneError> {
    let size = lane.limits().size;
    let range = ByteRange::checked(request.offset, request.length)
        .filter(|range| range.end() <= size && range.len() <= CHUNK)
        .filter(|_| u64::from(request.block) >= 4096)
        .ok_or(LaneError::Io(IoError::new(IoErrorKind::Invalid)))?;
    Ok(HashReply {
        request: request.request,
        hashes: hash(lane, range, u64::from(request.block)).await?,
    })
}

async fn hash(lane: &LaneHandle, range: ByteRange, block: u64) -> Result<Vec<[u8; 32]>, LaneError> {
    let mut hashes = Vec::new();
    let mut at = range.start();
    while at < range.end() {
        let len = block.min(range.end() - at);
        hashes.push(lane.hash(ByteRange::new(at, len)).await?);
        at += len;
    }
    Ok(hashes)
}

/// `feedverify`.
pub async fn feedverify(
    feeds: &Feeds,
    ctx: &Ctx,
    lv: &LvName,
    peer: &str,
    repair: bool,
) -> Result<(), Failure> {
    let what = "cannot verify";
    let entry = super::verbs::find(feeds, lv, peer, what)?;
    let object = format!("{lv} {peer}");
    let lane = feeds
        .node
        .lane(lv)
        .ok_or_else(|| fail(lv, what, "the volume is not active", "lvchange -ay"))?;
    let restore = feeds.record(&entry).and_then(|(_, feed)| feed.restore);
    if restore.is_some() {
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
    if ctx.would(&format!("compare {lv} with its copy at {peer}")) {
        return Ok(());
    }
    let compare = Compare {
        entry: &entry,
        lane: &lane,
        object: &object,
    };
    let differing = compare.whole(ctx).await?;
    let bytes: u64 = differing.iter().map(|range| range.len()).sum();
    if differing.is_empty() {
        ctx.out.message(format!(
            "{lv} and its copy at {peer} are equal ({}).",
            crate::daemon::rows::human(lane.limits().size)
        ));
        return Ok(());
    }
    for range in differing.iter().take(100) {
        ctx.out
            .message(format!("differs: {}+{} bytes", range.start(), range.len()));
    }
    let text = format!("{} range(s), {bytes} bytes differ", differing.len());
    feeds.node.event("feed-differs", &object, &text);
    if !repair {
        return Err(fail(
            &object,
            "the two sides differ",
            text,
            "feedverify --repair copies these ranges from the source",
        ));
    }
    compare.repair(feeds, &differing).await?;
    ctx.out.message(format!("{text}; repaired."));
    Ok(())
}

struct Compare<'a> {
    entry: &'a Arc<FeedEntry>,
    lane: &'a LaneHandle,
    object: &'a str,
}

impl Compare<'_> {
    async fn whole(&self, ctx: &Ctx) -> Result<Vec<ByteRange>, Failure> {
        let size = self.lane.limits().size;
        let began = Instant::now();
        let mut told = Instant::now();
        let mut suspects: Vec<ByteRange> = Vec::new();
        let mut at = 0;
        while at < size {
            let range = ByteRange::new(at, CHUNK.min(size - at));
            suspects.extend(self.differing(range).await?);
            at = range.end();
            if told.elapsed() > Duration::from_millis(500) || at == size {
                told = Instant::now();
                let ms = began.elapsed().as_millis().max(1) as u64;
                ctx.out.progress(Progress {
                    what: "verify".into(),
                    done: at,
                    total: size,
                    rate: at.saturating_mul(1000) / ms,
                });
            }
        }
        for _ in 0..LOOKS {
            if suspects.is_empty() {
                break;
            }
            tokio::time::sleep(LOOK_PAUSE).await;
            let mut still = Vec::new();
            for range in suspects {
                still.extend(self.differing(range).await?);
            }
            suspects = still;
        }
        Ok(suspects)
    }

    /// Blocks of a range that differ now.
    async fn differing(&self, range: ByteRange) -> Result<Vec<ByteRange>, Failure> {
        let lost = |why: String| fail(self.object, "cannot verify", why, "feedwait, then again");
        let (request, reply) = self.entry.expect_hashes();
        let asked = self
            .entry
            .send(Event::Relay(Message::HashRequest(HashRequest {
                request,
                offset: range.start(),
                length: range.len(),
                block: BLOCK as u32,
            })));
        if !asked {
            return Err(lost("the feed is not connected".into()));
        }
        let ours = hash(self.lane, range, BLOCK)
            .await
            .map_err(|error| lost(error.to_string()))?;
        let theirs = match tokio::time::timeout(ANSWER_TIMEOUT, reply).await {
            Ok(Ok(reply)) => reply.hashes,
            Ok(Err(_)) => return Err(lost("the feed was cut".into())),
            Err(_) => return Err(lost("the peer does not answer".into())),
        };
        if theirs.len() != ours.len() {
            return Err(lost(
                "the peer answered with another number of hashes".into(),
            ));
        }
        let blocks = (range.start()..range.end()).step_by(BLOCK as usize);
        Ok(blocks
            .zip(ours.iter().zip(&theirs))
            .filter(|(_, (ours, theirs))| ours != theirs)
            .map(|(at, _)| ByteRange::new(at, BLOCK.min(range.end() - at)))
            .collect())
    }

    async fn repair(&self, feeds: &Feeds, differing: &[ByteRange]) -> Result<(), Failure> {
        let ranges: Vec<WireRange> = differing
            .iter()
            .map(|range| WireRange {
                offset: range.start(),
                length: range.len(),
            })
            .collect();
        let source = feeds
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
        for range in differing {
            if !self.differing(*range).await?.is_empty() {
                return Err(fail(
                    self.object,
                    "repair failed",
                    format!("{range:?} still differs"),
                    "see events on both sides",
                ));
            }
        }
        Ok(())
    }
}
