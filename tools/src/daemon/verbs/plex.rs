//! `plexattach`, `plexdetach`, `lvconvert`: data plexes.

use super::lv::{named_pvs, present};
use super::vg::usable;
use super::{Ctx, commit_failed, fail, find_volume, plan_failed, plex_number, wrong};
use crate::api::{Failure, LvName, MirrorSpec};
use crate::daemon::{active, logs};
use std::collections::BTreeSet;
use uuid::Uuid;
use volmgr::model::{Layout, PlexState};
use volmgr::plan;

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
            if let Some(volume) = next.volumes.get_mut(grown.uuid) {
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
    if ctx.would(&format!("make {now} plex(es) of {lv} {wanted}")) {
        return Ok(());
    }
    for _ in now..wanted {
        plexattach(ctx, lv, pvs).await?;
    }
    let mut going: Vec<_> = volume.plexes.iter().collect();
    going.sort_by_key(|plex| {
        let elsewhere = volume.pvs_of(plex).iter().all(|pv| !named.contains(pv));
        let active = plex.state == PlexState::Active;
        (active, elsewhere, std::cmp::Reverse(plex.number))
    });
    for plex in going.iter().take(now.saturating_sub(wanted) as usize) {
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
