//! `vgcreate`, `vgextend`, `vgreduce`, `vgremove`, `vgrename`: which disks make a group.

use super::pv::{self, Candidate};
use super::{Ctx, commit_failed, fail, find_group, no_group, wrong};
use crate::api::Failure;
use crate::daemon::Node;
use crate::daemon::disks::DiskKey;
use crate::daemon::groups::{GroupView, Orphan, unfinished};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use uuid::Uuid;
use volmgr::label::{EXTENT_DEFAULT, EXTENT_MAX, EXTENT_MIN, valid_extent_size};
use volmgr::metadata;
use volmgr::model::Group;
use volmgr::names;
use volmgr::plan::{self, NewPv};

/// `vgcreate`: labels unlabelled disks itself.
pub async fn vgcreate(
    ctx: &Ctx,
    vg: &str,
    paths: &[String],
    extent_size: Option<u64>,
    force: bool,
    tags: &[String],
) -> Result<(), Failure> {
    let what = "cannot create";
    check_new_name(ctx, vg, what)?;
    let extent_size = extent_size.unwrap_or(EXTENT_DEFAULT);
    if !valid_extent_size(extent_size) {
        return Err(wrong(
            vg,
            what,
            format!("extents cannot have {extent_size} bytes"),
            format!("choose a power of two from {EXTENT_MIN} to {EXTENT_MAX}"),
        ));
    }
    let candidates = candidates(ctx, paths, what, force)?;
    if ctx.would(&format!(
        "create group {vg} of {} disk(s)",
        candidates.len()
    )) {
        return Ok(());
    }
    let (orphans, pvs) = label_all(ctx, candidates, what)?;
    let planned = plan::create_group(Uuid::new_v4(), vg, extent_size, pvs)
        .and_then(|group| plan::tag_group(&group, tags, &[]));
    let group = match planned {
        Ok(group) => group,
        Err(error) => {
            give_back(ctx, orphans);
            return Err(fail(
                vg,
                what,
                error,
                "use larger disks or smaller extents (-s)",
            ));
        }
    };
    let news = tokio::task::block_in_place(|| ctx.node.groups.create(group, orphans))
        .map_err(|why| fail(vg, what, why, ""))?;
    tell(ctx, &news);
    ctx.node.remember_devices();
    ctx.node.event("vg-created", vg, "group created");
    ctx.out
        .message(format!("Volume group \"{vg}\" successfully created"));
    Ok(())
}

/// `vgextend`.
pub async fn vgextend(ctx: &Ctx, vg: &str, paths: &[String], force: bool) -> Result<(), Failure> {
    let what = "cannot extend";
    usable(ctx, vg, what)?;
    let candidates = candidates(ctx, paths, what, force)?;
    if ctx.would(&format!("add {} disk(s) to {vg}", candidates.len())) {
        return Ok(());
    }
    let (orphans, pvs) = label_all(ctx, candidates, what)?;
    let result = tokio::task::block_in_place(|| {
        ctx.node
            .groups
            .commit_with(vg, orphans, |group| plan::extend_group(group, pvs))
    });
    let (_, news) = result.map_err(|error| commit_failed(vg, what, error))?;
    tell(ctx, &news);
    ctx.node.remember_devices();
    ctx.node.event(
        "vg-extended",
        vg,
        &format!("disks added: {}", paths.join(" ")),
    );
    ctx.out
        .message(format!("Volume group \"{vg}\" successfully extended"));
    Ok(())
}

/// `vgreduce`: takes unused disks out, or with `--removemissing` those that are gone for good.
pub async fn vgreduce(ctx: &Ctx, vg: &str, paths: &[String], missing: bool) -> Result<(), Failure> {
    let what = "cannot reduce";
    let view = usable(ctx, vg, what)?;
    let mut leaving = Vec::new();
    for text in paths {
        leaving.push(member_of(&view, Path::new(text)).ok_or_else(|| {
            fail(
                vg,
                what,
                format!("{text} is not one of its disks"),
                "see `volmgr pvs`",
            )
        })?);
    }
    if missing {
        leaving.extend(view.missing().iter().map(|pv| pv.uuid));
    } else if leaving.is_empty() {
        return Err(wrong(
            vg,
            what,
            "no disk was named",
            "name one, or --removemissing",
        ));
    }
    if missing && view.group.handover.is_some() {
        return super::vg_split::give_up(ctx, vg, what);
    }
    if leaving.is_empty() {
        ctx.out.message(format!("No disk of {vg} is missing."));
        return Ok(());
    }
    let check = plan::reduce_group(&view.group, &leaving);
    if let Err(error) = check {
        return Err(super::plan_failed(vg, what, &error, &view));
    }
    if ctx.would(&format!("take {} disk(s) out of {vg}", leaving.len())) {
        return Ok(());
    }
    ctx.node
        .commit(vg, |group| plan::reduce_group(group, &leaving))
        .map_err(|error| commit_failed(vg, what, error))?;
    ctx.node.event(
        "vg-reduced",
        vg,
        &format!("{} disk(s) taken out", leaving.len()),
    );
    ctx.out.message(format!(
        "Removed {} disk(s) from volume group \"{vg}\"",
        leaving.len()
    ));
    Ok(())
}

/// `vgremove`: the disks stay PVs, without a group.
pub async fn vgremove(ctx: &Ctx, vg: &str, force: bool) -> Result<(), Failure> {
    let what = "cannot remove";
    let view = settled(ctx, vg, what)?;
    let volumes = &view.group.volumes;
    if !volumes.is_empty() && !force {
        return Err(fail(
            vg,
            what,
            format!("it still has {} volume(s)", volumes.len()),
            "remove them first, or --force",
        ));
    }
    for volume in volumes {
        let lv = crate::api::LvName {
            vg: vg.to_owned(),
            lv: volume.name.clone(),
        };
        if ctx.node.is_active(volume.uuid) && ctx.node.active.opens(volume.uuid) > 0 {
            return Err(fail(lv, "cannot remove", "it is open", "close it first"));
        }
        if let Some(feed) = volume.feeds.first() {
            return Err(fail(
                lv,
                "cannot remove",
                format!("it has a feed with {}", feed.peer),
                "feeddetach it first",
            ));
        }
    }
    if !view.missing().is_empty() && !force {
        return Err(fail(
            vg,
            what,
            format!(
                "{} of its disks are missing and would still know it",
                view.missing().len()
            ),
            "bring them back, or --force",
        ));
    }
    if ctx.would(&format!("remove group {vg}")) {
        return Ok(());
    }
    for volume in volumes {
        let lv = crate::api::LvName {
            vg: vg.to_owned(),
            lv: volume.name.clone(),
        };
        crate::daemon::active::deactivate(&ctx.node, &lv, true).await?;
    }
    ctx.node
        .commit(vg, |group| {
            Ok::<_, std::convert::Infallible>(Group {
                pvs: Vec::new(),
                volumes: Default::default(),
                ..group.clone()
            })
        })
        .map_err(|error| commit_failed(vg, what, error))?;
    ctx.node.event("vg-removed", vg, "group removed");
    ctx.out
        .message(format!("Volume group \"{vg}\" successfully removed"));
    Ok(())
}

/// `vgrename`; names of active volumes' exports would change under their clients.
pub async fn vgrename(ctx: &Ctx, vg: &str, new: &str) -> Result<(), Failure> {
    let what = "cannot rename";
    let view = settled(ctx, vg, what)?;
    check_new_name(ctx, new, what)?;
    super::vg_move::none_active(ctx, &view, what)?;
    if ctx.would(&format!("rename group {vg} to {new}")) {
        return Ok(());
    }
    ctx.node
        .commit(vg, |group| plan::rename_group(group, new))
        .map_err(|error| commit_failed(vg, what, error))?;
    ctx.node
        .event("vg-renamed", new, &format!("was {vg} before"));
    ctx.out.message(format!(
        "Volume group \"{vg}\" successfully renamed to \"{new}\""
    ));
    Ok(())
}

/// A group that may be changed, and that nothing is on its way to or from.
pub(super) fn settled(ctx: &Ctx, vg: &str, what: &str) -> Result<Arc<GroupView>, Failure> {
    let view = usable(ctx, vg, what)?;
    match unfinished(&view.group) {
        None => Ok(view),
        Some(why) => Err(fail(
            vg,
            what,
            why,
            format!(
                "bring its disks here and `volmgr vgscan`, or give those up that are away: \
                 `volmgr vgreduce --removemissing {vg}`"
            ),
        )),
    }
}

pub(super) fn check_new_name(ctx: &Ctx, vg: &str, what: &str) -> Result<(), Failure> {
    names::check(vg).map_err(|error| wrong(vg, what, error, "choose another name"))?;
    if ctx.node.groups.view(vg).is_some() {
        return Err(fail(vg, what, "it exists already", "choose another name"));
    }
    Ok(())
}

/// A group that may be changed: here, without trouble, not exported.
pub(super) fn usable(ctx: &Ctx, vg: &str, what: &str) -> Result<Arc<GroupView>, Failure> {
    usable_on(&ctx.node, vg, what)
}

/// [`usable`], for who is no verb.
pub(super) fn usable_on(node: &Node, vg: &str, what: &str) -> Result<Arc<GroupView>, Failure> {
    let view = find_group(node, vg, what)?;
    if let Some(why) = &view.trouble {
        return Err(fail(vg, what, why, "see `volmgr vgscan` and `volmgr pvck`"));
    }
    if view.group.exported {
        return Err(fail(vg, what, "it is exported", "vgimport it first"));
    }
    Ok(view)
}

/// The PV of the group at that path.
pub(super) fn member_of(view: &GroupView, path: &Path) -> Option<Uuid> {
    let key = DiskKey::of(path).ok();
    view.disks
        .iter()
        .find(|(_, place)| Some(place.key) == key)
        .map(|(uuid, _)| *uuid)
        .or_else(|| {
            // A missing disk is known by where it was.
            view.missing()
                .iter()
                .find(|pv| Path::new(&pv.path_hint) == path)
                .map(|pv| pv.uuid)
        })
}

fn candidates(
    ctx: &Ctx,
    paths: &[String],
    what: &str,
    force: bool,
) -> Result<Vec<(PathBuf, Candidate)>, Failure> {
    let mut candidates = Vec::new();
    for path in pv::distinct(paths, what)? {
        let candidate = pv::candidate(ctx, &path, what, force)?;
        candidates.push((path, candidate));
    }
    Ok(candidates)
}

/// Labels what is not a PV yet. Where one fails, the others stay PVs without a group.
fn label_all(
    ctx: &Ctx,
    candidates: Vec<(PathBuf, Candidate)>,
    what: &str,
) -> Result<(Vec<Orphan>, Vec<NewPv>), Failure> {
    let mut orphans = Vec::new();
    let mut pvs = Vec::new();
    for (path, candidate) in candidates {
        let new = pv::take(ctx, &path, candidate, what).and_then(|mut orphan| {
            let scan = metadata::inspect(&mut orphan.disk)
                .map_err(|error| fail(path.display(), what, super::chain(&error), ""))?;
            let label = scan.chosen_label().cloned().ok_or_else(|| {
                fail(
                    path.display(),
                    what,
                    "its label cannot be read back",
                    "is the disk all right?",
                )
            })?;
            let path = path.display().to_string();
            Ok((orphan, NewPv { label, path }))
        });
        match new {
            Ok((orphan, pv)) => {
                orphans.push(orphan);
                pvs.push(pv);
            }
            Err(failure) => {
                give_back(ctx, orphans);
                return Err(failure);
            }
        }
    }
    Ok((orphans, pvs))
}

fn give_back(ctx: &Ctx, orphans: Vec<Orphan>) {
    for orphan in orphans {
        ctx.node.groups.put_orphan(orphan);
    }
    ctx.node.remember_devices();
}

pub(super) fn tell(ctx: &Ctx, news: &[crate::daemon::groups::News]) {
    for (kind, object, text) in news {
        ctx.node.event(kind, object, text);
    }
}

/// For verbs that need no more than the name.
pub(super) fn exists(ctx: &Ctx, vg: &str, what: &str) -> Result<Arc<GroupView>, Failure> {
    ctx.node.groups.view(vg).ok_or_else(|| no_group(vg, what))
}
