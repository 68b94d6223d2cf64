//! `pvmove`: data off a disk, while it is in use.
//!
//! A plex that is to leave a disk gets a second one beside it that replaces it when it is in step.
//! Until then both get every write, so nothing is lost by a crash at any moment; that a plex is to be
//! replaced is in the metadata, so a daemon that comes up again goes on where the last one ended. Who
//! waits only watches.

use super::lv::named_pvs;
pub(in crate::daemon) use super::lv::present;
use super::plex::prepare_map;
use super::plex_sync::Pace;
use super::vg::{member_of, usable};
use super::{Ctx, Failure, commit_failed, fail, find_volume, plan_failed};
use crate::api::LvName;
use crate::daemon::Node;
use crate::daemon::active;
use crate::daemon::groups::GroupView;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;
use volmgr::model::{Group, Plex, PlexState, Volume};
use volmgr::plan::{self, PlanError};

const WHAT: &str = "cannot move";
/// How often a waiting `pvmove` looks.
const LOOK: Duration = Duration::from_millis(500);

/// What the admin wants moved.
pub struct Asked<'a> {
    /// The disk that data is to leave; all moves under way where there is none.
    pub from: Option<&'a str>,
    /// Disks that it may go to; any where there are none.
    pub to: &'a [String],
    /// Only this volume: `LV` or `VG/LV`.
    pub lv: Option<&'a str>,
    /// Give up.
    pub abort: bool,
    /// Do not wait.
    pub background: bool,
}

/// `pvmove`.
pub async fn pvmove(ctx: &Ctx, asked: Asked<'_>) -> Result<(), Failure> {
    let source = match asked.from {
        Some(path) => Some(source(ctx, path)?),
        None => None,
    };
    if asked.abort {
        return abort(ctx, source.as_ref(), &asked).await;
    }
    match (&source, asked.from) {
        (Some((view, pv)), Some(path)) => begin(ctx, view, *pv, path, &asked).await?,
        _ if moves(ctx, None, &asked).is_empty() => {
            ctx.out.message("No move is under way.");
            return Ok(());
        }
        _ => {}
    }
    if ctx.test || asked.background {
        return Ok(());
    }
    wait(ctx, source.as_ref(), &asked).await
}

/// The group and the disk at this path.
fn source(ctx: &Ctx, path: &str) -> Result<(Arc<GroupView>, Uuid), Failure> {
    let views = ctx.node.groups.views();
    let found = views
        .into_iter()
        .find_map(|view| member_of(&view, Path::new(path)).map(|pv| (view, pv)));
    let (view, pv) = found.ok_or_else(|| {
        let why = "it is not a disk of any group";
        fail(path, WHAT, why, "see `volmgr pvs`")
    })?;
    usable(ctx, &view.group.name, WHAT)?;
    Ok((view, pv))
}

fn asked_for(asked: &Asked<'_>, vg: &str, volume: &Volume) -> bool {
    asked.lv.is_none_or(|lv| match lv.split_once('/') {
        Some((group, name)) => group == vg && name == volume.name,
        None => lv == volume.name,
    })
}

/// A plex that replaces another one, and the one that it replaces.
fn pairs(volume: &Volume) -> impl Iterator<Item = (&Plex, &Plex)> {
    volume.plexes.iter().filter_map(|new| {
        let old = volume
            .plexes
            .iter()
            .find(|old| Some(old.uuid) == new.replaces)?;
        Some((new, old))
    })
}

/// The volumes with moves (off that disk, or off any) that were asked for.
fn moves(ctx: &Ctx, source: Option<&(Arc<GroupView>, Uuid)>, asked: &Asked<'_>) -> Vec<Moving> {
    let mut found = Vec::new();
    for view in ctx.node.groups.views() {
        let group = &view.group;
        if source.is_some_and(|(of, _)| of.group.uuid != group.uuid) {
            continue;
        }
        for volume in &group.volumes {
            let off = |old: &Plex| source.is_none_or(|(_, pv)| volume.pvs_of(old).contains(pv));
            let numbers: Vec<u32> = pairs(volume)
                .filter(|(_, old)| off(old))
                .map(|(new, _)| new.number)
                .collect();
            if !numbers.is_empty() && asked_for(asked, &group.name, volume) {
                let name = LvName {
                    vg: group.name.clone(),
                    lv: volume.name.clone(),
                };
                found.push(Moving {
                    name,
                    volume: volume.clone(),
                    numbers,
                });
            }
        }
    }
    found
}

/// A volume with moves under way.
struct Moving {
    name: LvName,
    volume: Volume,
    /// The new plexes.
    numbers: Vec<u32>,
}

/// Plans and commits the moves of all volumes on the disk at once: all of them, or none.
async fn begin(
    ctx: &Ctx,
    view: &GroupView,
    pv: Uuid,
    path: &str,
    asked: &Asked<'_>,
) -> Result<(), Failure> {
    let _one_at_a_time = ctx.node.verb_lock().await;
    let vg = &view.group.name;
    let view = usable(ctx, vg, WHAT)?;
    let on_it = |volume: &&Volume| volume.extent_runs().any(|(on, _, _)| on == pv);
    let volumes: Vec<&Volume> = view
        .group
        .volumes
        .iter()
        .filter(on_it)
        .filter(|volume| asked_for(asked, vg, volume))
        .collect();
    if volumes.is_empty() {
        let why = match asked.lv {
            Some(lv) => format!("{lv} has nothing there"),
            None => "no volume has anything there".to_owned(),
        };
        return Err(fail(path, "nothing to move", why, "see `volmgr plexs`"));
    }
    let first = &volumes[0].name;
    let any = LvName {
        vg: vg.clone(),
        lv: first.clone(),
    };
    let to = named_pvs(&view, asked.to, &any, WHAT)?;
    if to.contains(&pv) {
        return Err(fail(
            path,
            WHAT,
            "it cannot move to itself",
            "name other disks",
        ));
    }
    let mut planned = present(&view);
    let mut begun: Vec<(LvName, Vec<Uuid>)> = Vec::new();
    for volume in volumes {
        let name = LvName {
            vg: vg.clone(),
            lv: volume.name.clone(),
        };
        let busy =
            |plex: &Plex| pairs(volume).any(|(n, o)| n.uuid == plex.uuid || o.uuid == plex.uuid);
        let leaving = volume
            .plexes
            .iter()
            .filter(|plex| volume.pvs_of(plex).contains(&pv));
        let leaving: Vec<&Plex> = leaving.filter(|plex| !busy(plex)).collect();
        if leaving.is_empty() {
            continue;
        }
        if !ctx.node.is_active(volume.uuid) {
            return Err(fail(
                name.clone(),
                WHAT,
                "it is not active: nobody copies its data",
                format!("`volmgr lvchange -ay {name}` first, or -n to move others"),
            ));
        }
        let mut plexes = Vec::new();
        for plex in leaving {
            let uuid = Uuid::new_v4();
            planned = plan::begin_move(&planned, &volume.name, plex.number, pv, &to, uuid)
                .map_err(|error| plan_failed(name.clone(), WHAT, &error, &view))?;
            plexes.push(uuid);
        }
        if ctx.would(&format!(
            "move {} plex(es) of {name} off {path}",
            plexes.len()
        )) {
            continue;
        }
        begun.push((name, plexes));
    }
    if begun.is_empty() {
        return Ok(());
    }
    add_plexes(&ctx.node, vg, &planned, &begun, path, WHAT).await?;
    for (name, plexes) in &begun {
        let text = format!("{} plex(es) on the way off {path}", plexes.len());
        ctx.node.event("pvmove-started", &name.to_string(), &text);
    }
    Ok(())
}

/// Commits the new plexes of a plan, all of them or none, and has them filled. `object` is what it is
/// done for. The caller holds the verb lock.
pub(in crate::daemon) async fn add_plexes(
    node: &Node,
    vg: &str,
    planned: &Group,
    begun: &[(LvName, Vec<Uuid>)],
    object: &str,
    what: &str,
) -> Result<(), Failure> {
    for (name, plexes) in begun {
        let new = planned.volume(&name.lv).into_iter().flat_map(|v| &v.plexes);
        for plex in new.filter(|plex| plexes.contains(&plex.uuid)) {
            let (_, volume) = find_volume(node, name, what)?;
            prepare_map(node, name, &volume, plex.map_slot, what).await?;
        }
    }
    node.commit(vg, |group| {
        let mut next = group.clone();
        for (name, plexes) in begun {
            let planned = planned.volume(&name.lv).cloned();
            let index = next.volumes.place_of(&name.lv);
            let (Some(planned), Some(index)) = (planned, index) else {
                return Err(PlanError::NotFound {
                    what: "volume",
                    name: name.to_string(),
                });
            };
            // States may have changed since it was planned; where things lie has not.
            let mut volume = next.volumes.at_mut(index);
            let new = |uuid: &Uuid| plexes.contains(uuid);
            let added = planned.plexes.into_iter().filter(|p| new(&p.uuid));
            volume.plexes.extend(added);
            let logs = planned.log.into_iter().filter(|l| new(&l.plex));
            volume.log.extend(logs);
        }
        // A disk that a plex has gone to is no spare one any more.
        for pv in &mut next.pvs {
            pv.spare &= planned.pv(pv.uuid).is_none_or(|pv| pv.spare);
        }
        Ok(next)
    })
    .map_err(|error| commit_failed(object, what, error))?;
    for (name, _) in begun {
        active::reconfigure(node, name, &[]).await?;
        active::adopt_logs(node, name).await?;
    }
    Ok(())
}

/// Takes the new plexes off again; the old ones have missed nothing.
async fn abort(
    ctx: &Ctx,
    source: Option<&(Arc<GroupView>, Uuid)>,
    asked: &Asked<'_>,
) -> Result<(), Failure> {
    let _one_at_a_time = ctx.node.verb_lock().await;
    let moves = moves(ctx, source, asked);
    if moves.is_empty() {
        ctx.out.message("No move is under way.");
        return Ok(());
    }
    for moving in moves {
        let name = &moving.name;
        if ctx.would(&format!("give up the move of {name}")) {
            continue;
        }
        for number in &moving.numbers {
            ctx.node
                .commit(&name.vg, |group| {
                    plan::detach_plex(group, &name.lv, *number)
                })
                .map_err(|error| commit_failed(name, "cannot give up the move", error))?;
        }
        active::reconfigure(&ctx.node, name, &[]).await?;
        let object = name.to_string();
        ctx.node
            .event("pvmove-aborted", &object, "its data stays where it was");
        ctx.out.message(format!("Move of {name} given up."));
    }
    Ok(())
}

/// Waits until the moves are done.
async fn wait(
    ctx: &Ctx,
    source: Option<&(Arc<GroupView>, Uuid)>,
    asked: &Asked<'_>,
) -> Result<(), Failure> {
    let mut pace = Pace::new("pvmove");
    loop {
        let moves = moves(ctx, source, asked);
        let Some(first) = moves.first() else {
            let what = asked.from.unwrap_or("All moves");
            ctx.out.message(format!("{what}: Moved: 100.00%"));
            return Ok(());
        };
        let name = first.name.clone();
        let mut left = 0;
        for moving in &moves {
            let dirty = ctx.node.active.plex_dirty(&moving.volume).await;
            for number in &moving.numbers {
                left += dirty.get(number).copied().unwrap_or(0);
                let failed = moving.volume.plex(*number).map(|plex| plex.state);
                if failed == Some(PlexState::Failed) {
                    return Err(fail(
                        moving.name.clone(),
                        WHAT,
                        format!("plex{number}, where it was to go, has failed"),
                        "`volmgr pvmove --abort`, then move to another disk",
                    ));
                }
            }
            if !ctx.node.is_active(moving.volume.uuid) {
                return Err(fail(
                    moving.name.clone(),
                    "the move waits",
                    "it has been deactivated",
                    format!(
                        "`volmgr lvchange -ay {}`: the move goes on then",
                        moving.name
                    ),
                ));
            }
        }
        pace.left(ctx, &name, left)?;
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = ctx.out.client_gone() => return Ok(()),
        }
    }
}

/// Ends the moves of this volume whose new plexes are in step, now or soon: called when a plex has
/// become active, and when a volume has been activated. Takes the verb lock, so not within a verb.
pub fn finish_soon(node: &Arc<Node>, volume: Uuid) {
    let node = Arc::clone(node);
    tokio::spawn(async move {
        let _one_at_a_time = node.verb_lock().await;
        if node.stopping() {
            return;
        }
        if let Err(failure) = finish(&node, volume).await {
            node.event("pvmove-stuck", &failure.object, &failure.to_string());
        }
    });
}

async fn finish(node: &Node, uuid: Uuid) -> Result<(), Failure> {
    let views = node.groups.views();
    let found = views.iter().find_map(|view| {
        let volume = view.group.volume_by_uuid(uuid)?;
        Some((view.group.name.clone(), volume))
    });
    let Some((vg, volume)) = found else {
        return Ok(());
    };
    let name = LvName {
        vg,
        lv: volume.name.clone(),
    };
    let ready: Vec<(u32, String, String)> = pairs(volume)
        .filter(|(new, _)| new.state == PlexState::Active)
        .map(|(new, old)| (new.number, new.name(), old.name()))
        .collect();
    if ready.is_empty() {
        return Ok(());
    }
    // A crash may have come before its log was made.
    active::adopt_logs(node, &name).await?;
    for (number, new, old) in ready {
        node.commit(&name.vg, |group| plan::finish_move(group, &name.lv, number))
            .map_err(|error| commit_failed(name.clone(), "cannot end the move", error))?;
        active::reconfigure(node, &name, &[]).await?;
        let text = format!("{new} has taken the place of {old}");
        node.event("pvmove-done", &name.to_string(), &text);
    }
    Ok(())
}

/// Has this volume a move that can be ended?
pub fn pending(volume: &Volume) -> bool {
    pairs(volume).any(|(new, _)| new.state == PlexState::Active)
}
