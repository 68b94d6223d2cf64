//! `plexsync`: waits until the plexes are in step; `--verify` compares them.

use super::vg::usable;
use super::{Ctx, chain, fail, find_volume};
use crate::api::{Failure, LvName, Progress};
use crate::daemon::active;
use crate::daemon::active::VolumeLane;
use blockio::ByteRange;
use std::time::{Duration, Instant};
use volmgr::engine::PlexId;
use volmgr::model::{PlexState, Volume};

/// How often a waiting `plexsync` looks.
const LOOK: Duration = Duration::from_millis(500);
/// Without any progress for this long, `plexsync` gives up waiting.
const STALLED: Duration = Duration::from_secs(60);
/// Bytes that the lane reads at a time, of all plexes together.
const COMPARE_BYTES: u64 = 256 << 10;
/// Differences are told in units of this many bytes.
const BLOCK: u64 = 4096;
/// A difference is read again after this long: a page of an application that was changed while it
/// was being written is written once more soon.
const AGAIN: Duration = Duration::from_millis(100);
/// Most ranges that are told.
const RANGES_MAX: usize = 64;

/// How a wait goes on.
pub(super) struct Pace {
    what: &'static str,
    least: u64,
    moved: Instant,
    before: Option<(u64, Instant)>,
    total: u64,
}

impl Pace {
    /// Of this kind of work, as the progress calls it.
    pub(super) fn new(what: &'static str) -> Self {
        Self {
            what,
            least: u64::MAX,
            moved: Instant::now(),
            before: None,
            total: 0,
        }
    }

    /// So many bytes are left.
    pub(super) fn left(&mut self, ctx: &Ctx, lv: &LvName, left: u64) -> Result<(), Failure> {
        let now = Instant::now();
        self.total = self.total.max(left);
        let rate = self.before.map_or(0, |(bytes, at)| {
            let seconds = now.duration_since(at).as_secs_f64().max(0.001);
            (bytes.saturating_sub(left) as f64 / seconds) as u64
        });
        self.before = Some((left, now));
        ctx.out.progress(Progress {
            what: self.what.into(),
            done: self.total - left,
            total: self.total,
            rate,
        });
        if left < self.least {
            self.least = left;
            self.moved = now;
        } else if now.duration_since(self.moved) > STALLED {
            return Err(fail(
                lv,
                format!("{} does not get on", self.what),
                format!("nothing was copied for {} s", STALLED.as_secs()),
                "see `volmgr events`",
            ));
        }
        Ok(())
    }
}

/// `plexsync`: tries failed plexes again, and waits until all that can be are in step.
pub async fn plexsync(ctx: &Ctx, lv: &LvName, verify: bool) -> Result<(), Failure> {
    let what = if verify {
        "cannot verify"
    } else {
        "cannot sync"
    };
    usable(ctx, &lv.vg, what)?;
    let (_, volume) = find_volume(&ctx.node, lv, what)?;
    if ctx.would(&if verify {
        format!("compare the plexes of {lv}")
    } else {
        format!("resync the plexes of {lv}")
    }) {
        return Ok(());
    }
    let idle = !verify && !waiting(&volume) && failed(&volume).is_empty();
    let Some(lane) = ctx.node.active.lane(volume.uuid) else {
        if idle {
            ctx.out.message(format!("All plexes of {lv} are in step."));
            return Ok(());
        }
        return Err(fail(
            lv,
            what,
            "it is not active",
            format!("`volmgr lvchange -ay {lv}` first"),
        ));
    };
    if verify {
        // What an unclean stop has left is made equal first: until then plexes may differ.
        wait(ctx, lv, &lane, false, what).await?;
        return compare(ctx, lv, &lane, what).await;
    }
    retry_failed(ctx, lv, what).await?;
    if wait(ctx, lv, &lane, true, what).await? {
        ctx.out.message(format!("All plexes of {lv} are in step."));
    }
    Ok(())
}

fn failed(volume: &Volume) -> Vec<u32> {
    let plexes = volume.plexes.iter();
    let failed = plexes.filter(|plex| plex.state == PlexState::Failed);
    failed.map(|plex| plex.number).collect()
}

async fn retry_failed(ctx: &Ctx, lv: &LvName, what: &str) -> Result<(), Failure> {
    let _one_at_a_time = ctx.node.verb_lock().await;
    let (_, volume) = find_volume(&ctx.node, lv, what)?;
    let failed = failed(&volume);
    if !failed.is_empty() {
        super::plex::revive(ctx, lv, &failed, what)?;
        active::reconfigure(&ctx.node, lv, &[]).await?;
    }
    // Also what an attempt that failed has left: a plex waits for its log.
    active::adopt_logs(&ctx.node, lv).await
}

/// Is a plex on its way to be in step? Those taken off or failed are not.
fn waiting(volume: &Volume) -> bool {
    let on_the_way = |state| {
        matches!(
            state,
            PlexState::Syncing | PlexState::Stale | PlexState::Empty
        )
    };
    volume.plexes.iter().any(|plex| on_the_way(plex.state))
}

/// Waits for recovery after an unclean stop and, with `plexes`, for plexes that catch up. False
/// where nobody waits any more.
async fn wait(
    ctx: &Ctx,
    lv: &LvName,
    lane: &VolumeLane,
    plexes: bool,
    what: &str,
) -> Result<bool, Failure> {
    let mut pace = Pace::new("resync");
    loop {
        let (view, volume) = find_volume(&ctx.node, lv, what)?;
        if let Some(number) = failed(&volume).first().filter(|_| plexes) {
            return Err(fail(
                lv,
                "not all plexes are in step",
                format!("plex{number} has failed"),
                "see `volmgr events`",
            ));
        }
        let away = volume.plexes.iter().find(|plex| {
            plex.state != PlexState::Active
                && plex.state != PlexState::Offline
                && !volume
                    .pvs_of(plex)
                    .iter()
                    .all(|pv| view.disks.contains_key(pv))
        });
        if let Some(plex) = away.filter(|_| plexes) {
            return Err(fail(
                lv,
                "not all plexes are in step",
                format!("a disk of {} is missing", plex.name()),
                "bring it back, then `volmgr vgscan`",
            ));
        }
        let stats = lane
            .stats()
            .await
            .map_err(|error| fail(lv, what, chain(&error), ""))?;
        let mut left = stats.recover_bytes;
        let mut done = left == 0;
        if plexes {
            left += ctx
                .node
                .active
                .plex_dirty(&volume)
                .await
                .values()
                .sum::<u64>();
            done &= !waiting(&volume);
        }
        if done {
            return Ok(true);
        }
        pace.left(ctx, lv, left)?;
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = ctx.out.client_gone() => return Ok(false),
        }
    }
}

/// Compares all active plexes with each other, range by range; writes to a range are held while it
/// is read.
async fn compare(ctx: &Ctx, lv: &LvName, lane: &VolumeLane, what: &str) -> Result<(), Failure> {
    let (view, volume) = find_volume(&ctx.node, lv, what)?;
    let size = view.group.bytes_of(&volume);
    let active = volume.plexes.iter();
    let active: Vec<PlexId> = active
        .filter(|plex| plex.state == PlexState::Active)
        .map(|plex| PlexId(plex.number))
        .collect();
    if active.len() < 2 {
        return Err(fail(
            lv,
            what,
            format!("it has {} active plex(es)", active.len()),
            "two are needed to compare (see `volmgr plexs`)",
        ));
    }
    let step = COMPARE_BYTES / active.len() as u64 / BLOCK * BLOCK;
    let began = Instant::now();
    let mut told = began;
    let mut different: Vec<ByteRange> = Vec::new();
    let (mut at, mut bytes) = (0, 0);
    while at < size {
        let range = ByteRange::new(at, step.min(size - at));
        let mut found = differences(lv, lane, range, &active, what).await?;
        if !found.is_empty() {
            tokio::time::sleep(AGAIN).await;
            let again = differences(lv, lane, range, &active, what).await?;
            found.retain(|block| again.contains(block));
        }
        for block in found {
            bytes += block.len();
            let full = different.len() >= RANGES_MAX;
            match different.last_mut() {
                Some(last) if last.end() == block.start() => {
                    *last = ByteRange::new(last.start(), last.len() + block.len());
                }
                _ if full => {}
                _ => different.push(block),
            }
        }
        at = range.end();
        if told.elapsed() > LOOK {
            told = Instant::now();
            let seconds = began.elapsed().as_secs_f64().max(0.001);
            ctx.out.progress(Progress {
                what: "verify".into(),
                done: at,
                total: size,
                rate: (at as f64 / seconds) as u64,
            });
        }
    }
    if different.is_empty() {
        ctx.out
            .message(format!("{} plexes of {lv} are equal.", active.len()));
        return Ok(());
    }
    for range in &different {
        ctx.out.message(format!(
            "{lv}: plexes differ at byte {}, {} bytes",
            range.start(),
            range.len()
        ));
    }
    let text = format!("{bytes} bytes in {} range(s) or more", different.len());
    ctx.node.event("plexes-differ", &lv.to_string(), &text);
    Err(fail(
        lv,
        "its plexes differ",
        text,
        "plexdetach the wrong one, then plexattach fills a new one",
    ))
}

/// The blocks of a range in which not all plexes are equal.
async fn differences(
    lv: &LvName,
    lane: &VolumeLane,
    range: ByteRange,
    plexes: &[PlexId],
    what: &str,
) -> Result<Vec<ByteRange>, Failure> {
    let read = lane.read_plexes(range, plexes.to_vec()).await;
    let bytes = read.map_err(|error| {
        let why = format!(
            "bytes {} to {} cannot be read from all plexes: {}",
            range.start(),
            range.end(),
            chain(&error)
        );
        fail(lv, what, why, "see `volmgr plexs` and `volmgr events`")
    })?;
    let len = range.len() as usize;
    let (first, others) = bytes.as_ref().split_at(len);
    let equal = |start: usize, end: usize| {
        let mut others = others.chunks(len);
        others.all(|other| other[start..end] == first[start..end])
    };
    if equal(0, len) {
        return Ok(Vec::new());
    }
    let blocks = (0..len).step_by(BLOCK as usize);
    Ok(blocks
        .map(|start| (start, (start + BLOCK as usize).min(len)))
        .filter(|(start, end)| !equal(*start, *end))
        .map(|(start, end)| ByteRange::new(range.start() + start as u64, (end - start) as u64))
        .collect())
}
