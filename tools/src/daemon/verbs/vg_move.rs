//! `vgchange`, `vgexport`, `vgimport`, `vgcfgbackup`, `vgcfgrestore`, `vgscan`: groups as a whole.

use super::vg::{exists, settled, usable};
use super::{Ctx, commit_failed, fail};
use crate::api::{Failure, LvName};
use crate::daemon::active;
use crate::daemon::groups::GroupView;
use std::convert::Infallible;
use std::path::PathBuf;
use volmgr::metadata::{group_from_text, group_to_text};
use volmgr::model;
use volmgr::plan;

/// Largest backup file read back, in bytes.
const BACKUP_BYTES_MAX: u64 = 256 << 20;

/// `vgchange -ay|-an`, of one group or of all.
pub async fn vgchange(ctx: &Ctx, vg: Option<&str>, activate: bool) -> Result<(), Failure> {
    let what = if activate {
        "cannot activate"
    } else {
        "cannot deactivate"
    };
    let views = match vg {
        Some(vg) => vec![usable(ctx, vg, what)?],
        None => ctx
            .node
            .groups
            .views()
            .into_iter()
            .filter(|view| view.trouble.is_none() && !view.group.exported)
            .collect(),
    };
    let mut failed = None;
    for view in views {
        let mut count = 0;
        for volume in &view.group.volumes {
            let lv = LvName {
                vg: view.group.name.clone(),
                lv: volume.name.clone(),
            };
            if ctx.test {
                let verb = if activate { "activate" } else { "deactivate" };
                ctx.would(&format!("{verb} {lv}"));
                continue;
            }
            let done = if activate {
                active::activate(&ctx.node, &lv, None).await.map(drop)
            } else {
                active::deactivate(&ctx.node, &lv, false).await
            };
            match done {
                Ok(()) => count += 1,
                // The others are changed nevertheless, as LVM does.
                Err(failure) => {
                    if let Some(earlier) = failed.replace(failure) {
                        ctx.out.warning(earlier.to_string());
                    }
                }
            }
        }
        if !ctx.test {
            let now = if activate { "now" } else { "no longer" };
            ctx.out.message(format!(
                "{count} logical volume(s) in volume group \"{}\" {now} active",
                view.group.name
            ));
        }
    }
    failed.map_or(Ok(()), Err)
}

/// `vgchange --addtag`, `--deltag`.
pub async fn vgtags(ctx: &Ctx, vg: &str, add: &[String], del: &[String]) -> Result<(), Failure> {
    let what = "cannot change tags";
    let view = usable(ctx, vg, what)?;
    plan::tag_group(&view.group, add, del)
        .map_err(|error| super::plan_failed(vg, what, &error, &view))?;
    if ctx.would(&format!("change tags of {vg}")) {
        return Ok(());
    }
    ctx.node
        .commit(vg, |group| plan::tag_group(group, add, del))
        .map_err(|error| commit_failed(vg, what, error))?;
    ctx.out
        .message(format!("Volume group \"{vg}\" successfully changed"));
    Ok(())
}

/// `vgchange --accept-older`: the disks with the newer data will not come.
pub async fn accept_older(ctx: &Ctx, vg: &str) -> Result<(), Failure> {
    let what = "cannot accept the older state";
    let view = exists(ctx, vg, what)?;
    if ctx.would(&format!(
        "go on with what the disks of {vg} that are here have"
    )) {
        return Ok(());
    }
    let warnings = tokio::task::block_in_place(|| ctx.node.groups.accept_older(vg))
        .map_err(|why| fail(vg, what, why, "see `volmgr vgs` and `volmgr pvs`"))?;
    for warning in warnings {
        ctx.out.warning(warning);
    }
    let text = view.trouble.clone().unwrap_or_default();
    ctx.node.event("older-accepted", vg, &text);
    ctx.out
        .message(format!("Volume group \"{vg}\" successfully changed"));
    Ok(())
}

/// `vgexport`: nobody here uses the group until it is imported; its disks are let go of.
pub async fn vgexport(ctx: &Ctx, vg: &str) -> Result<(), Failure> {
    let what = "cannot export";
    let view = settled(ctx, vg, what)?;
    none_active(ctx, &view, what)?;
    if ctx.would(&format!("export group {vg}")) {
        return Ok(());
    }
    ctx.node
        .commit(vg, |group| {
            Ok::<_, Infallible>(plan::set_exported(group, true))
        })
        .map_err(|error| commit_failed(vg, what, error))?;
    ctx.node.groups.release(vg);
    ctx.node.event("vg-exported", vg, "group exported");
    ctx.out
        .message(format!("Volume group \"{vg}\" successfully exported"));
    Ok(())
}

/// `vgimport`.
pub async fn vgimport(ctx: &Ctx, vg: &str) -> Result<(), Failure> {
    let what = "cannot import";
    let view = exists(ctx, vg, what)?;
    if let Some(why) = &view.trouble {
        return Err(fail(vg, what, why, "see `volmgr vgscan` and `volmgr pvck`"));
    }
    if !view.group.exported {
        return Err(fail(vg, what, "it is not exported", ""));
    }
    if ctx.would(&format!("import group {vg}")) {
        return Ok(());
    }
    let warnings = tokio::task::block_in_place(|| ctx.node.groups.reopen(vg))
        .map_err(|why| fail(vg, what, why, "is the group in use elsewhere?"))?;
    for warning in warnings {
        ctx.out.warning(warning);
    }
    ctx.node
        .commit(vg, |group| {
            Ok::<_, Infallible>(plan::set_exported(group, false))
        })
        .map_err(|error| {
            ctx.node.groups.release(vg);
            commit_failed(vg, what, error)
        })?;
    ctx.node.remember_devices();
    ctx.node.event("vg-imported", vg, "group imported");
    ctx.out
        .message(format!("Volume group \"{vg}\" successfully imported"));
    Ok(())
}

/// Every volume of the group must be inactive.
pub(super) fn none_active(ctx: &Ctx, view: &GroupView, what: &str) -> Result<(), Failure> {
    let vg = &view.group.name;
    match view
        .group
        .volumes
        .iter()
        .find(|volume| ctx.node.is_active(volume.uuid))
    {
        None => Ok(()),
        Some(volume) => Err(fail(
            vg,
            what,
            format!("{} is active", volume.name),
            format!("`volmgr vgchange -an {vg}` first"),
        )),
    }
}

/// `vgcfgbackup`: the group's metadata as text.
pub async fn vgcfgbackup(ctx: &Ctx, vg: &str, file: Option<&str>) -> Result<(), Failure> {
    let what = "cannot back up metadata";
    let view = exists(ctx, vg, what)?;
    let path = backup_path(ctx, vg, file);
    if ctx.would(&format!("write metadata of {vg} to {}", path.display())) {
        return Ok(());
    }
    tokio::task::block_in_place(|| {
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        crate::daemon::state::write_atomically(&path, group_to_text(&view.group).as_bytes())
    })
    .map_err(|error| fail(vg, what, format!("{}: {error}", path.display()), ""))?;
    ctx.out.message(format!(
        "Volume group \"{vg}\" successfully backed up to {}.",
        path.display()
    ));
    Ok(())
}

/// `vgcfgrestore --list`: what there is to restore from.
pub async fn vgcfglist(ctx: &Ctx, vg: &str) -> Result<(), Failure> {
    let failed = |error: std::io::Error| fail(vg, "cannot list metadata", error, "");
    let kept = tokio::task::block_in_place(|| ctx.node.groups.archived(vg)).map_err(failed)?;
    let backup = backup_path(ctx, vg, None);
    let mut lines = Vec::new();
    if let Some(time) = written(&backup) {
        lines.push(format!(
            "  {time}  by vgcfgbackup       {}",
            backup.display()
        ));
    }
    for version in kept {
        if let Some(time) = written(&version.path) {
            let path = version.path.display();
            lines.push(format!(
                "  {time}  after commit {:<6} {path}",
                version.seqno
            ));
        }
    }
    if lines.is_empty() {
        return Err(fail(
            vg,
            "cannot list metadata",
            "there is no backup and no old version of it",
            "see `volmgr vgs`",
        ));
    }
    ctx.out.message(lines.join("\n"));
    Ok(())
}

/// When a file was last written; nothing where it is not there.
fn written(path: &std::path::Path) -> Option<String> {
    let time = std::fs::metadata(path).ok()?.modified().ok()?;
    let time = jiff::Timestamp::try_from(time).ok()?;
    Some(time.strftime("%Y-%m-%d %H:%M:%SZ").to_string())
}

fn backup_path(ctx: &Ctx, vg: &str, file: Option<&str>) -> PathBuf {
    file.map_or_else(
        || {
            ctx.node
                .state
                .path()
                .join("backup")
                .join(format!("{vg}.json"))
        },
        PathBuf::from,
    )
}

/// `vgcfgrestore`: makes an earlier version of the same group's metadata the next one. What the
/// disks hold is not changed by that; so volumes whose allocation changes need `--force`.
pub async fn vgcfgrestore(
    ctx: &Ctx,
    vg: &str,
    file: Option<&str>,
    force: bool,
) -> Result<(), Failure> {
    let what = "cannot restore metadata";
    let view = settled(ctx, vg, what)?;
    none_active(ctx, &view, what)?;
    let path = backup_path(ctx, vg, file);
    let failed = |why: String| fail(vg, what, format!("{}: {why}", path.display()), "");
    let text = std::fs::metadata(&path)
        .and_then(|metadata| {
            if metadata.len() > BACKUP_BYTES_MAX {
                return Err(std::io::Error::other("too large"));
            }
            std::fs::read_to_string(&path)
        })
        .map_err(|error| failed(error.to_string()))?;
    let old = group_from_text(&text).map_err(|error| failed(error.to_string()))?;
    if old.uuid != view.group.uuid {
        return Err(failed("is the metadata of another group".into()));
    }
    if let Some(problem) = model::check(&old).into_iter().next() {
        return Err(failed(problem.to_string()));
    }
    let pvs = |group: &model::Group| {
        let mut pvs: Vec<_> = group.pvs.iter().map(|pv| pv.uuid).collect();
        pvs.sort();
        pvs
    };
    if pvs(&old) != pvs(&view.group) {
        return Err(failed(
            "lists other disks than the group has now: vgextend or vgreduce it to match".into(),
        ));
    }
    let changed = old.volumes != view.group.volumes;
    if changed && !force {
        return Err(fail(
            vg,
            what,
            "volumes have been made, changed or removed since: their content may be lost",
            "--force restores nevertheless",
        ));
    }
    if ctx.would(&format!(
        "restore metadata of {vg} as of commit {}",
        old.seqno
    )) {
        return Ok(());
    }
    let seqno = old.seqno;
    ctx.node
        .commit(vg, move |now| {
            let mut next = old;
            // Where disks are, and which are missing, is a matter of now.
            next.pvs = now.pvs.clone();
            next.name = now.name.clone();
            next.seqno = now.seqno;
            next.handover = None;
            next.volumes
                .update(|volume| volume.active, |volume| volume.active = false);
            Ok::<_, Infallible>(next)
        })
        .map_err(|error| commit_failed(vg, what, error))?;
    ctx.node.event(
        "vg-restored",
        vg,
        &format!("metadata as of commit {seqno} again"),
    );
    ctx.out.message(format!("Restored volume group \"{vg}\"."));
    Ok(())
}

/// `vgscan`: looks for disks again. Never fails for a bad disk: it warns.
pub async fn vgscan(ctx: &Ctx, paths: &[String]) -> Result<(), Failure> {
    let more: Vec<PathBuf> = paths.iter().map(PathBuf::from).collect();
    if ctx.would("look for disks") {
        return Ok(());
    }
    for warning in ctx.node.rescan(&more).await {
        ctx.out.warning(warning);
    }
    // Those that had to wait for their disks.
    ctx.node.activate_wanted().await;
    for path in &more {
        if let Err(error) = std::fs::metadata(path) {
            ctx.out.warning(format!("{}: {error}", path.display()));
        }
    }
    for view in ctx.node.groups.views() {
        let state = match (&view.trouble, view.group.exported, view.missing().len()) {
            (Some(why), _, _) => format!(", cannot be used: {why}"),
            (None, true, _) => ", exported".to_owned(),
            (None, false, 0) => String::new(),
            (None, false, missing) => format!(", {missing} disk(s) missing"),
        };
        ctx.out.message(format!(
            "Found volume group \"{}\" with {} disk(s){state}",
            view.group.name,
            view.group.pvs.len()
        ));
    }
    Ok(())
}
