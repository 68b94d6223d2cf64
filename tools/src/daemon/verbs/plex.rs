//! `plexattach`, `plexdetach`, `lvconvert`: data plexes.

use super::lv::{named_pvs, present};
use super::vg::{usable, usable_on};
use super::{Ctx, chain, commit_failed, fail, find_volume, plan_failed, plex_number, wrong};
use crate::api::{Failure, LvName, MirrorSpec};
use crate::daemon::{Node, active, logs};
use std::collections::BTreeSet;
use uuid::Uuid;
use volmgr::model::{Layout, LogCopy, Plex, PlexState, Volume};
use volmgr::plan;

/// `plexattach`: one more copy, on disks that the volume does not use yet; it fills online.
pub async fn plexattach(ctx: &Ctx, lv: &LvName, pvs: &[String]) -> Result<(), Failure> {
    attach(ctx, lv, pvs, 1, "cannot attach a plex").await
}

/// So many more copies, or none of them: they come in one commit.
async fn attach(
    ctx: &Ctx,
    lv: &LvName,
    pvs: &[String],
    count: u32,
    what: &str,
) -> Result<(), Failure> {
    let view = usable(ctx, &lv.vg, what)?;
    let (_, volume) = find_volume(&ctx.node, lv, what)?;
    let pvs = named_pvs(&view, pvs, lv, what)?;
    let mut planned = present(&view);
    for _ in 0..count {
        planned = plan::attach_plex(&planned, &lv.lv, Layout::Concat, &pvs, Uuid::new_v4())
            .map_err(|error| plan_failed(lv, what, &error, &view))?;
    }
    let grown = planned
        .volume(&lv.lv)
        .ok_or_else(|| fail(lv, what, "the plan has no such volume", ""))?;
    let new_here = |uuid: Uuid| !volume.plexes.iter().any(|plex| plex.uuid == uuid);
    let plexes: Vec<Plex> = grown
        .plexes
        .iter()
        .filter(|plex| new_here(plex.uuid))
        .cloned()
        .collect();
    let logs: Vec<LogCopy> = grown
        .log
        .iter()
        .filter(|log| new_here(log.plex))
        .cloned()
        .collect();
    let names: Vec<String> = plexes.iter().map(Plex::name).collect();
    let names = names.join(", ");
    if ctx.would(&format!("attach {names} to {lv}")) {
        return Ok(());
    }
    for plex in &plexes {
        prepare_map(&ctx.node, lv, &volume, plex.map_slot, what).await?;
    }
    ctx.node
        .commit(&lv.vg, |group| {
            let mut next = group.clone();
            if let Some(mut volume) = next.volumes.get_mut(volume.uuid) {
                volume.plexes.extend(plexes.iter().cloned());
                volume.log.extend(logs.iter().cloned());
            }
            Ok::<_, plan::PlanError>(next)
        })
        .map_err(|error| commit_failed(lv, what, error))?;
    active::reconfigure(&ctx.node, lv, &[]).await?;
    active::adopt_logs(&ctx.node, lv).await?;
    for plex in &plexes {
        let filled = format!("{} is being filled", plex.name());
        ctx.node.event("plex-attached", &lv.to_string(), &filled);
    }
    ctx.out.message(format!("{names} attached to {lv}."));
    Ok(())
}

/// Before a commit that makes a plex one that catches up by its map: what is in the slot is what
/// another plex left there, or nobody. The log says durably that the plex misses everything, lest a crash
/// makes it one that misses nothing.
pub(super) async fn prepare_map(
    node: &Node,
    lv: &LvName,
    volume: &Volume,
    slot: u32,
    what: &str,
) -> Result<(), Failure> {
    // The engine of a served volume keeps the log.
    if let Some(lane) = node.active.lane(volume.uuid) {
        let prepared = lane.prepare_slot(slot).await;
        return prepared.map_err(|error| fail(lv, what, chain(&error), ""));
    }
    let view = usable_on(node, &lv.vg, what)?;
    let disks = node.groups.disks(&lv.vg);
    tokio::task::block_in_place(|| {
        logs::fit(&view, volume, &disks)?;
        logs::set_all_dirty(&view.group, volume, &disks, slot)
    })
    .map_err(|error| fail(lv, what, error, ""))
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

/// `lvconvert -m`: as many data plexes as that makes. Those that go are the ones that are not in
/// step, then those on the named disks, then the youngest.
pub async fn lvconvert(
    ctx: &Ctx,
    lv: &LvName,
    mirrors: MirrorSpec,
    pvs: &[String],
) -> Result<(), Failure> {
    let what = "cannot convert";
    let view = usable(ctx, &lv.vg, what)?;
    let (_, volume) = find_volume(&ctx.node, lv, what)?;
    if volume.plexes.iter().any(|plex| plex.replaces.is_some()) {
        return Err(fail(
            lv,
            what,
            "its data is being moved",
            "wait with `volmgr pvmove`, or `volmgr pvmove --abort`",
        ));
    }
    let named = named_pvs(&view, pvs, lv, what)?;
    let now = volume.plexes.len() as u32;
    let wanted = match mirrors {
        MirrorSpec::Exactly(mirrors) => mirrors.checked_add(1),
        MirrorSpec::Plus(more) => now.checked_add(more),
        MirrorSpec::Minus(fewer) => now.checked_sub(fewer).filter(|wanted| *wanted > 0),
    };
    let wanted = wanted
        .filter(|wanted| *wanted < plan::MAP_SLOTS)
        .ok_or_else(|| {
            let why = format!("it has {now} plex(es)");
            wrong(lv, what, why, "lvremove removes it; see `volmgr plexs`")
        })?;
    if wanted == now {
        ctx.out.message(format!("{lv} already has {now} plex(es)."));
        return Ok(());
    }
    if wanted > now {
        return attach(ctx, lv, pvs, wanted - now, what).await;
    }
    let mut going: Vec<_> = volume.plexes.iter().collect();
    going.sort_by_key(|plex| {
        let elsewhere = volume.pvs_of(plex).iter().all(|pv| !named.contains(pv));
        let active = plex.state == PlexState::Active;
        (active, elsewhere, std::cmp::Reverse(plex.number))
    });
    going.truncate((now - wanted) as usize);
    // All or none: what would refuse the last is asked before the first goes.
    let mut left = view.group.clone();
    for plex in &going {
        left = plan::detach_plex(&left, &lv.lv, plex.number)
            .map_err(|error| plan_failed(lv, what, &error, &view))?;
    }
    for plex in &going {
        plexdetach(ctx, lv, &plex.name(), false).await?;
    }
    Ok(())
}

/// Tries the disks of these plexes again where the plex has failed, or is to be brought on line.
pub(super) fn revive(ctx: &Ctx, lv: &LvName, plexes: &[u32], what: &str) -> Result<(), Failure> {
    let (_, volume) = find_volume(&ctx.node, lv, what)?;
    let chosen = volume.plexes.iter().filter(|p| plexes.contains(&p.number));
    let pvs: BTreeSet<Uuid> = chosen.flat_map(|plex| volume.pvs_of(plex)).collect();
    let news = tokio::task::block_in_place(|| ctx.node.groups.revive(&lv.vg, &pvs))
        .map_err(|why| fail(lv, what, why, "is the disk all right?"))?;
    for (kind, object, text) in &news {
        ctx.node.event(kind, object, text);
    }
    Ok(())
}
