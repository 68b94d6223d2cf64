//! `plexsync`: waits until the plexes are in step; `--verify` then compares them ([`super::plex_verify`]).

use super::vg::usable;
use super::{Ctx, chain, fail, find_volume};
use crate::api::{Failure, LvName, PlexVerify, Progress};
use crate::daemon::active;
use crate::daemon::active::VolumeLane;
use std::time::{Duration, Instant};
use volmgr::model::{PlexState, Volume};

/// How often a waiting `plexsync` looks.
const LOOK: Duration = Duration::from_millis(500);
/// Without any progress for this long, `plexsync` gives up waiting.
const STALLED: Duration = Duration::from_secs(60);

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
pub async fn plexsync(ctx: &Ctx, lv: &LvName, verify: Option<&PlexVerify>) -> Result<(), Failure> {
    let what = if verify.is_some() {
        "cannot verify"
    } else {
        "cannot sync"
    };
    usable(ctx, &lv.vg, what)?;
    let (_, volume) = find_volume(&ctx.node, lv, what)?;
    if ctx.would(&match verify {
        Some(PlexVerify {
            repair: Some(_), ..
        }) => format!("compare the plexes of {lv} and repair what differs"),
        Some(_) => format!("compare the plexes of {lv}"),
        None => format!("resync the plexes of {lv}"),
    }) {
        return Ok(());
    }
    let idle = verify.is_none() && !waiting(&volume) && failed(&volume).is_empty();
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
    if let Some(asked) = verify {
        // What an unclean stop has left is made equal first: until then plexes may differ.
        if !wait(ctx, lv, &lane, false, what).await? {
            return Ok(());
        }
        return super::plex_verify::verify(ctx, lv, &lane, asked, what).await;
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
