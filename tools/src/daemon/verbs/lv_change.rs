//! `lvchange`: activation, taking plexes off line and back, copying writes first.

use super::vg::usable;
use super::{Ctx, commit_failed, find_volume, plan_failed, plex_number};
use crate::api::{Failure, LvChange, LvName};
use crate::daemon::active::{self, Activated};
use volmgr::model::PlexState;
use volmgr::plan;

/// `lvchange`.
pub async fn lvchange(ctx: &Ctx, lv: &LvName, change: &LvChange) -> Result<(), Failure> {
    match change {
        LvChange::Activate { frontend } => {
            usable(ctx, &lv.vg, "cannot activate")?;
            find_volume(&ctx.node, lv, "cannot activate")?;
            if ctx.would(&format!("activate {lv}")) {
                return Ok(());
            }
            let activated = active::activate(&ctx.node, lv, frontend.as_deref()).await?;
            say_activated(ctx, activated);
            Ok(())
        }
        LvChange::Deactivate { force } => {
            find_volume(&ctx.node, lv, "cannot deactivate")?;
            if ctx.would(&format!("deactivate {lv}")) {
                return Ok(());
            }
            active::deactivate(&ctx.node, lv, *force).await
        }
        LvChange::Offline { plex } => set_state(ctx, lv, plex, PlexState::Offline).await,
        LvChange::Tags { add, del } => change_tags(ctx, lv, add, del),
        // It has missed writes since it was taken off: its map says which.
        LvChange::Online { plex } => set_state(ctx, lv, plex, PlexState::Stale).await,
        LvChange::StableCopy { on } => stable_copy(ctx, lv, *on),
    }
}

fn change_tags(ctx: &Ctx, lv: &LvName, add: &[String], del: &[String]) -> Result<(), Failure> {
    let what = "cannot change tags";
    let view = usable(ctx, &lv.vg, what)?;
    find_volume(&ctx.node, lv, what)?;
    plan::tag_volume(&view.group, &lv.lv, add, del)
        .map_err(|error| plan_failed(lv, what, &error, &view))?;
    if ctx.would(&format!("change tags of {lv}")) {
        return Ok(());
    }
    ctx.node
        .commit(&lv.vg, |group| plan::tag_volume(group, &lv.lv, add, del))
        .map_err(|error| commit_failed(lv, what, error))?;
    ctx.out
        .message(format!("Logical volume \"{}\" changed.", lv.lv));
    Ok(())
}

/// Where the volume is now, a line each.
pub(super) fn say_activated(ctx: &Ctx, activated: Activated) {
    for warning in activated.warnings {
        ctx.out.warning(warning);
    }
    for place in activated.places {
        ctx.out.message(place);
    }
}

/// `--stable-copy`: written down, and from the next write on.
fn stable_copy(ctx: &Ctx, lv: &LvName, on: bool) -> Result<(), Failure> {
    let what = "cannot change how writes are copied";
    usable(ctx, &lv.vg, what)?;
    let (_, volume) = find_volume(&ctx.node, lv, what)?;
    let text = match on {
        true => "each write is copied once before it goes to plexes and feeds",
        false => "writes are copied only where that cannot be avoided",
    };
    if ctx.would(&format!("change {lv}: {text}")) {
        return Ok(());
    }
    if volume.stable_copy != on {
        ctx.node
            .commit(&lv.vg, |group| {
                plan::update_volume(group, &lv.lv, |volume| volume.stable_copy = on)
            })
            .map_err(|error| commit_failed(lv, what, error))?;
        ctx.node.event("stable-copy", &lv.to_string(), text);
    }
    if let Some(lane) = ctx.node.active.lane(volume.uuid) {
        lane.set_stable_copy(on);
    }
    ctx.out.message(format!("{lv}: {text}."));
    Ok(())
}

async fn set_state(ctx: &Ctx, lv: &LvName, plex: &str, state: PlexState) -> Result<(), Failure> {
    let what = if state == PlexState::Offline {
        "cannot take off line"
    } else {
        "cannot bring on line"
    };
    let view = usable(ctx, &lv.vg, what)?;
    let (_, volume) = find_volume(&ctx.node, lv, what)?;
    let number = plex_number(lv, &volume, plex, what)?;
    plan::set_plex_state(&view.group, &lv.lv, number, state)
        .map_err(|error| plan_failed(lv, what, &error, &view))?;
    if ctx.would(&format!("make {plex} of {lv} {state:?}")) {
        return Ok(());
    }
    // What the plex misses is tracked by the engine, so the volume's state must not change under
    // it: the commit first, then the engine. Until then it goes on writing to the plex, so that the
    // plex misses nothing that is not in its map or in the dirty-region log, whenever a crash comes;
    // the other order would leave a plex active in the metadata that has missed writes.
    if state == PlexState::Stale {
        super::plex::revive(ctx, lv, &[number], what)?;
    }
    let plex_now = volume.plex(number);
    if let Some(empty) = plex_now.filter(|plex| plex.state == PlexState::Empty) {
        // Its state alone says that it has nothing, and that is about to change.
        super::plex::prepare_map(&ctx.node, lv, &volume, empty.map_slot, what).await?;
    }
    ctx.node
        .commit(&lv.vg, |group| {
            let plex = group.volume(&lv.lv).and_then(|volume| volume.plex(number));
            match plex.map(|plex| plex.state) {
                // Its disk's content is not trusted: it is filled anew.
                Some(PlexState::Empty) if state == PlexState::Stale => Ok(group.clone()),
                _ => plan::set_plex_state(group, &lv.lv, number, state),
            }
        })
        .map_err(|error| commit_failed(lv, what, error))?;
    active::reconfigure(&ctx.node, lv, &[]).await?;
    active::adopt_logs(&ctx.node, lv).await?;
    ctx.node.event(
        "plex-state",
        &lv.to_string(),
        &format!("{plex} is {state:?}"),
    );
    ctx.out.message(format!(
        "{plex} of {lv} is {}.",
        super::report::state_name(state)
    ));
    if state == PlexState::Stale && !ctx.node.is_active(volume.uuid) {
        ctx.out.message(format!(
            "It will be in step again some time after {lv} is activated."
        ));
    }
    Ok(())
}
