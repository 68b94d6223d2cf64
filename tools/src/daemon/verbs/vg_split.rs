//! `vgsplit`, `vgmerge`: disks, with the volumes on them, change groups. A crash in between is made good
//! by the next start: see [`crate::daemon::groups`].

use super::vg::{check_new_name, member_of, settled, tell};
use super::{Ctx, commit_failed, fail, plan_failed, wrong};
use crate::api::{Failure, LvName};
use crate::daemon::groups::{Carried, GroupView};
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use uuid::Uuid;
use volmgr::model::{Group, Volume};
use volmgr::plan::{self, Destination};

/// `vgsplit`: disks `paths` of `from`, or those that the volume `lv` is on, become those of `to`, which is
/// made if there is no such group.
pub async fn vgsplit(
    ctx: &Ctx,
    from: &str,
    to: &str,
    paths: &[String],
    lv: Option<&str>,
) -> Result<(), Failure> {
    let what = "cannot split";
    if from == to {
        return Err(wrong(from, what, "that is one group", "name another one"));
    }
    let view = settled(ctx, from, what)?;
    let other = match ctx.node.groups.view(to) {
        Some(_) => Some(settled(ctx, to, what)?),
        None => None,
    };
    if other.is_none() {
        check_new_name(ctx, to, what)?;
    }
    let pvs: Vec<Uuid> = leaving(&view, paths, lv, what)?.into_iter().collect();
    let uuid = other.as_ref().map_or_else(Uuid::new_v4, |o| o.group.uuid);
    let split = |group: &Group| {
        let to = Destination {
            uuid,
            name: to,
            group: other.as_ref().map(|other| &other.group),
        };
        plan::split_group(group, &pvs, to)
    };
    let next = split(&view.group).map_err(|error| plan_failed(from, what, &error, &view))?;
    let volumes = next.handover.iter().flat_map(|h| &h.volumes);
    all_here(&view, what)?;
    inactive(ctx, from, volumes, what)?;
    if let Some(other) = &other {
        all_here(other, what)?;
    }
    if ctx.would(&format!(
        "move {} disk(s) of {from} with {} volume(s) to {to}",
        pvs.len(),
        view.group.volumes.len() - next.volumes.len()
    )) {
        return Ok(());
    }
    ctx.node
        .commit(from, split)
        .map_err(|error| commit_failed(from, what, error))?;
    carry_on(ctx, from, what)?;
    ctx.node.event(
        "vg-split",
        to,
        &format!("{} disk(s) that were in {from}", pvs.len()),
    );
    let kind = if other.is_some() { "Existing" } else { "New" };
    ctx.out.message(format!(
        "{kind} volume group \"{to}\" successfully split from \"{from}\""
    ));
    Ok(())
}

/// `vgmerge`: all disks and volumes of `from` become those of `into`, and `from` is gone.
pub async fn vgmerge(ctx: &Ctx, into: &str, from: &str) -> Result<(), Failure> {
    let what = "cannot merge";
    if from == into {
        return Err(wrong(from, what, "that is one group", "name another one"));
    }
    let view = settled(ctx, into, what)?;
    let source = settled(ctx, from, what)?;
    all_here(&view, what)?;
    all_here(&source, what)?;
    if let Err(error) = plan::merge_group(&view.group, &source.group) {
        return Err(plan_failed(from, what, &error, &source));
    }
    inactive(ctx, from, source.group.volumes.iter(), what)?;
    if ctx.would(&format!(
        "move {} disk(s) and {} volume(s) of {from} to {into} and remove {from}",
        source.group.pvs.len(),
        source.group.volumes.len()
    )) {
        return Ok(());
    }
    ctx.node
        .commit(into, |group| plan::merge_group(group, &source.group))
        .map_err(|error| commit_failed(into, what, error))?;
    let removed = ctx.node.commit(from, |group| {
        Ok::<_, Infallible>(Group {
            pvs: Vec::new(),
            volumes: Default::default(),
            ..group.clone()
        })
    });
    // Where that failed, this undoes what was prepared.
    let carried = carry_on(ctx, into, what);
    removed.map_err(|error| commit_failed(from, what, error))?;
    carried?;
    ctx.node.event(
        "vg-merged",
        into,
        &format!("{} disk(s) that were in {from}", source.group.pvs.len()),
    );
    ctx.out.message(format!(
        "Volume group \"{from}\" successfully merged into \"{into}\""
    ));
    Ok(())
}

/// `vgreduce --removemissing` while a split or merge waits for disks: it waits no more.
pub(super) fn give_up(ctx: &Ctx, vg: &str, what: &str) -> Result<(), Failure> {
    if ctx.would(&format!(
        "wait no more for disks on their way to or from {vg}"
    )) {
        return Ok(());
    }
    match tokio::task::block_in_place(|| ctx.node.groups.hand_over(vg, true)) {
        Ok(Carried::Over(news)) => tell(ctx, &news),
        Ok(Carried::Waits(why)) | Err(why) => {
            return Err(fail(vg, what, why, "bring them here and `volmgr vgscan`"));
        }
    }
    ctx.node.remember_devices();
    ctx.node
        .event("vg-reduced", vg, "disks on their way were given up");
    ctx.out.message(format!(
        "Volume group \"{vg}\" no longer waits for disks on their way."
    ));
    Ok(())
}

fn carry_on(ctx: &Ctx, vg: &str, what: &str) -> Result<(), Failure> {
    let carried = tokio::task::block_in_place(|| ctx.node.groups.hand_over(vg, false));
    ctx.node.remember_devices();
    match carried {
        Ok(Carried::Over(news)) => {
            tell(ctx, &news);
            Ok(())
        }
        Ok(Carried::Waits(why)) | Err(why) => Err(fail(
            vg,
            what,
            format!("not finished: {why}"),
            "`volmgr vgscan` carries on",
        )),
    }
}

/// The disks that were named, or those that the volume is on.
fn leaving(
    view: &GroupView,
    paths: &[String],
    lv: Option<&str>,
    what: &str,
) -> Result<BTreeSet<Uuid>, Failure> {
    let vg = &view.group.name;
    let mut leaving = BTreeSet::new();
    for text in paths {
        let pv = member_of(view, Path::new(text)).ok_or_else(|| {
            let why = format!("{text} is not one of its disks");
            fail(vg, what, why, "see `volmgr pvs`")
        })?;
        leaving.insert(pv);
    }
    if let Some(lv) = lv {
        let volume = view.volume(lv).ok_or_else(|| {
            fail(
                format!("{vg}/{lv}"),
                what,
                "no such volume",
                "see `volmgr lvs`",
            )
        })?;
        leaving.extend(plan::disks_of(volume));
    }
    Ok(leaving)
}

fn all_here(view: &Arc<GroupView>, what: &str) -> Result<(), Failure> {
    match view.missing().first() {
        None => Ok(()),
        Some(pv) => Err(fail(
            &view.group.name,
            what,
            format!("its disk {} is missing", view.disk_name(pv.uuid)),
            "bring it back, or `volmgr vgreduce --removemissing`",
        )),
    }
}

fn inactive<'a>(
    ctx: &Ctx,
    vg: &str,
    mut volumes: impl Iterator<Item = &'a Volume>,
    what: &str,
) -> Result<(), Failure> {
    match volumes.find(|volume| ctx.node.is_active(volume.uuid)) {
        None => Ok(()),
        Some(volume) => {
            let lv = LvName {
                vg: vg.to_owned(),
                lv: volume.name.clone(),
            };
            let hint = format!("`volmgr lvchange -an {lv}` first");
            Err(fail(&lv, what, "it is active", hint))
        }
    }
}
