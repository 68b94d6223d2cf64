//! `plexattach`, `plexdetach`, `plexsync`: data plexes.

use super::lv::{named_pvs, present};
use super::vg::usable;
use super::{Ctx, commit_failed, fail, find_volume, plan_failed, plex_number};
use crate::api::{Failure, LvName, Progress};
use crate::daemon::{active, logs};
use std::time::{Duration, Instant};
use uuid::Uuid;
use volmgr::model::{Layout, PlexState, Volume};
use volmgr::plan;

/// How often a waiting `plexsync` looks.
const LOOK: Duration = Duration::from_millis(500);
/// Without any progress for this long, `plexsync` gives up waiting.
const STALLED: Duration = Duration::from_secs(60);

/// `plexattach`: one more copy, on disks that the volume does not use yet; it fills online.
pub async fn plexattach(ctx: &Ctx, lv: &LvName, pvs: &[String]) -> Result<(), Failure> {
    let what = "cannot attach a plex";
    let view = usable(ctx, &lv.vg, what)?;
    let (_, volume) = find_volume(&ctx.node, lv, what)?;
    let pvs = named_pvs(&view, pvs, lv, what)?;
    let group = present(&view);
    let uuid = Uuid::new_v4();
    let planned = plan::attach_plex(&group, &lv.lv, Layout::Concat, &pvs, uuid)
        .map_err(|error| plan_failed(lv, what, &error, &view))?;
    let grown = planned
        .volume(&lv.lv)
        .cloned()
        .ok_or_else(|| fail(lv, what, "the plan has no such volume", ""))?;
    let plex = grown
        .plexes
        .iter()
        .find(|plex| plex.uuid == uuid)
        .cloned()
        .ok_or_else(|| fail(lv, what, "the plan has no such plex", ""))?;
    if ctx.would(&format!("attach plex{} to {lv}", plex.number)) {
        return Ok(());
    }
    let disks = ctx.node.groups.disks(&lv.vg);
    // Its map's slot may have been another's: all dirty first, then it may be seen. An engine that
    // runs keeps its maps itself and starts a new plex all dirty.
    if !ctx.node.is_active(volume.uuid) {
        tokio::task::block_in_place(|| {
            logs::fit(&view, &volume, &disks)?;
            logs::set_all_dirty(&group, &volume, &disks, plex.map_slot)
        })
        .map_err(|error| fail(lv, what, error, ""))?;
    }
    let log = grown.log.iter().find(|log| log.plex == uuid).cloned();
    let number = plex.number;
    ctx.node
        .commit(&lv.vg, |group| {
            let mut next = group.clone();
            for volume in next.volumes.iter_mut().filter(|v| v.uuid == grown.uuid) {
                volume.plexes.push(plex.clone());
                volume.log.extend(log.clone());
            }
            Ok::<_, plan::PlanError>(next)
        })
        .map_err(|error| commit_failed(lv, what, error))?;
    active::reconfigure(&ctx.node, lv, &[]).await?;
    active::adopt_logs(&ctx.node, lv).await?;
    ctx.node.event(
        "plex-attached",
        &lv.to_string(),
        &format!("plex{number} is being filled"),
    );
    ctx.out.message(format!("plex{number} attached to {lv}."));
    Ok(())
}

/// `plexdetach`: its content stays on the disks until they are used for something else.
pub async fn plexdetach(ctx: &Ctx, lv: &LvName, plex: &str, force: bool) -> Result<(), Failure> {
    let what = "cannot detach a plex";
    let view = usable(ctx, &lv.vg, what)?;
    let (_, volume) = find_volume(&ctx.node, lv, what)?;
    let number = plex_number(lv, &volume, plex, what)?;
    plan::detach_plex(&view.group, &lv.lv, number)
        .map_err(|error| plan_failed(lv, what, &error, &view))?;
    let others = volume
        .plexes
        .iter()
        .filter(|other| other.number != number && other.state == PlexState::Active);
    let safe = others.into_iter().any(|other| {
        other
            .subdisks
            .iter()
            .all(|subdisk| view.disks.contains_key(&subdisk.pv))
    });
    if !safe && !force {
        return Err(fail(
            lv,
            what,
            format!("the disks of the other active plexes are missing: {plex} has the last copy"),
            "--force detaches it nevertheless",
        ));
    }
    if ctx.would(&format!("detach {plex} from {lv}")) {
        return Ok(());
    }
    ctx.node
        .commit(&lv.vg, |group| plan::detach_plex(group, &lv.lv, number))
        .map_err(|error| commit_failed(lv, what, error))?;
    active::reconfigure(&ctx.node, lv, &[]).await?;
    ctx.node
        .event("plex-detached", &lv.to_string(), &format!("{plex} is off"));
    ctx.out.message(format!("{plex} detached from {lv}."));
    Ok(())
}

/// `plexsync`: waits until all plexes that can be are in step.
pub async fn plexsync(ctx: &Ctx, lv: &LvName, verify: bool) -> Result<(), Failure> {
    let what = "cannot sync";
    usable(ctx, &lv.vg, what)?;
    let (_, volume) = find_volume(&ctx.node, lv, what)?;
    if verify {
        return Err(fail(
            lv,
            "cannot verify",
            "comparing data plexes is not implemented yet",
            "without --verify they are resynced",
        ));
    }
    if ctx.would(&format!("resync the plexes of {lv}")) {
        return Ok(());
    }
    if !waiting(&volume) {
        ctx.out.message(format!("All plexes of {lv} are in step."));
        return Ok(());
    }
    if !ctx.node.is_active(volume.uuid) {
        return Err(fail(
            lv,
            what,
            "it is not active",
            format!("`volmgr lvchange -ay {lv}` first"),
        ));
    }
    let mut least = u64::MAX;
    let mut moved = Instant::now();
    let mut before: Option<(u64, Instant)> = None;
    let mut total = 0;
    loop {
        let (_, volume) = find_volume(&ctx.node, lv, what)?;
        if !waiting(&volume) {
            ctx.out.message(format!("All plexes of {lv} are in step."));
            return Ok(());
        }
        let dirty: u64 = ctx.node.active.plex_dirty(&volume).await.values().sum();
        let now = Instant::now();
        total = total.max(dirty);
        let rate = before.map_or(0, |(bytes, at)| {
            let seconds = now.duration_since(at).as_secs_f64().max(0.001);
            (bytes.saturating_sub(dirty) as f64 / seconds) as u64
        });
        before = Some((dirty, now));
        ctx.out.progress(Progress {
            what: "resync".into(),
            done: total - dirty,
            total,
            rate,
        });
        if dirty < least {
            least = dirty;
            moved = now;
        } else if now.duration_since(moved) > STALLED {
            return Err(fail(
                lv,
                "resync does not get on",
                format!("nothing was copied for {} s", STALLED.as_secs()),
                "see `volmgr events`",
            ));
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = ctx.out.client_gone() => return Ok(()),
        }
    }
}

/// Is a plex on its way to be in step? Those taken off or failed are not.
fn waiting(volume: &Volume) -> bool {
    volume
        .plexes
        .iter()
        .any(|plex| matches!(plex.state, PlexState::Syncing | PlexState::Stale))
}
