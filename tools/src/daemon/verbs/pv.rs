//! `pvcreate`, `pvremove`, `pvresize`, `pvchange`: disks. Nothing foreign is overwritten without `--force`, and
//! nothing that someone uses is touched at all.

use super::vg::{member_of, usable};
use super::{Ctx, commit_failed, fail, wrong};
use crate::api::Failure;
use crate::daemon::disks::{ClaimError, DiskKey, FilePv};
use crate::daemon::groups::{Known, Orphan};
use crate::daemon::rows::human;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use uuid::Uuid;
use volmgr::label::Geometry;
use volmgr::metadata::{self, PvIo};
use volmgr::plan::{self, PlanError};
use volmgr::signature;

/// A disk that may be given to a group.
pub(super) enum Candidate {
    /// A PV without a group, known already.
    Orphan(Uuid),
    /// Claimed just now, not labelled yet.
    Fresh(FilePv),
}

/// `pvcreate`: all paths are checked before the first is written.
pub async fn pvcreate(ctx: &Ctx, paths: &[String], force: bool) -> Result<(), Failure> {
    let what = "cannot create PV";
    let mut disks = Vec::new();
    for path in distinct(paths, what)? {
        let orphan = match known(ctx, &path, what)? {
            Some(Known::Orphan(uuid)) if force => Some(uuid),
            Some(Known::Orphan(_)) => {
                return Err(fail(
                    path.display(),
                    what,
                    "it is a PV already",
                    "use it as it is, or --force to make it anew",
                ));
            }
            Some(Known::Member(vg)) => return Err(member(&path, what, &vg)),
            None => None,
        };
        disks.push(match orphan {
            Some(uuid) => (path, Candidate::Orphan(uuid)),
            None => {
                let disk = claim_empty(&path, what, force)?;
                (path, Candidate::Fresh(disk))
            }
        });
    }
    for (path, candidate) in disks {
        if ctx.would(&format!("make {} a PV", path.display())) {
            continue;
        }
        let disk = match candidate {
            Candidate::Fresh(disk) => disk,
            Candidate::Orphan(uuid) => take_orphan(ctx, uuid, &path, what)?.disk,
        };
        let orphan = initialise(disk, what)?;
        ctx.node.event(
            "pv-created",
            &path.display().to_string(),
            &format!("PV {} of {}", orphan.uuid, human(orphan.disk.size())),
        );
        ctx.node.groups.put_orphan(orphan);
        ctx.node.remember_devices();
        ctx.out.message(format!(
            "Physical volume \"{}\" successfully created.",
            path.display()
        ));
    }
    Ok(())
}

/// `pvremove`: the label goes, so that the disk is nobody's.
pub async fn pvremove(ctx: &Ctx, paths: &[String], force: bool) -> Result<(), Failure> {
    let what = "cannot remove PV";
    let paths = distinct(paths, what)?;
    for path in &paths {
        match known(ctx, path, what)? {
            Some(Known::Member(vg)) => return Err(member(path, what, &vg)),
            Some(Known::Orphan(_)) => {}
            None => {
                let mut disk = claim(path, what)?;
                let scan = metadata::inspect(&mut disk)
                    .map_err(|error| fail(path.display(), what, super::chain(&error), ""))?;
                match scan.chosen_label() {
                    None => {
                        return Err(fail(
                            path.display(),
                            what,
                            "it is not a PV",
                            "see `volmgr pvs`",
                        ));
                    }
                    Some(label) if label.group.is_some() && !force => {
                        return Err(fail(
                            path.display(),
                            what,
                            "it belongs to a group that is not known here",
                            "--force removes it nevertheless",
                        ));
                    }
                    Some(_) => {}
                }
            }
        }
    }
    for path in paths {
        if ctx.would(&format!("remove PV {}", path.display())) {
            continue;
        }
        let mut disk = match known(ctx, &path, what)? {
            Some(Known::Orphan(uuid)) => take_orphan(ctx, uuid, &path, what)?.disk,
            _ => claim(&path, what)?,
        };
        metadata::wipe_pv(&mut disk)
            .map_err(|error| fail(path.display(), what, super::chain(&error), ""))?;
        ctx.node.forget_device(disk.path());
        ctx.node
            .event("pv-removed", &path.display().to_string(), "label wiped");
        ctx.out.message(format!(
            "Labels on physical volume \"{}\" successfully wiped.",
            path.display()
        ));
    }
    Ok(())
}

/// `pvresize`: the disk has grown; take the new room into use.
pub async fn pvresize(ctx: &Ctx, paths: &[String], size: Option<u64>) -> Result<(), Failure> {
    let what = "cannot resize PV";
    for path in distinct(paths, what)? {
        let Some(known) = known(ctx, &path, what)? else {
            return Err(fail(
                path.display(),
                what,
                "it is not a known PV",
                "see `volmgr pvs`",
            ));
        };
        let there = FilePv::look(&path).map_err(|error| refuse(&path, what, &error))?;
        if size.is_some_and(|size| size != there.size()) {
            return Err(fail(
                path.display(),
                what,
                format!("a PV fills its disk, which has {}", human(there.size())),
                "make the disk larger, then leave the size out",
            ));
        }
        let size = there.size();
        if ctx.would(&format!("resize PV {} to {}", path.display(), human(size))) {
            continue;
        }
        let change = match known {
            Known::Orphan(uuid) => {
                let mut orphan = take_orphan(ctx, uuid, &path, what)?;
                let grown = orphan
                    .disk
                    .refresh_size()
                    .map_err(|error| fail(path.display(), what, error, ""))
                    .and_then(|()| {
                        metadata::grow_pv(&mut orphan.disk)
                            .map_err(|error| fail(path.display(), what, super::chain(&error), ""))
                    });
                ctx.node.groups.put_orphan(orphan);
                grown.map(drop)
            }
            Known::Member(vg) => {
                tokio::task::block_in_place(|| ctx.node.groups.grow_member(&vg, there.key()))
                    .map(|news| {
                        for (kind, object, text) in news {
                            ctx.node.event(kind, &object, &text);
                        }
                    })
                    .map_err(|why| fail(path.display(), what, why, ""))
            }
        };
        change?;
        ctx.node.event(
            "pv-resized",
            &path.display().to_string(),
            &format!("now {}", human(size)),
        );
        ctx.out
            .message(format!("Physical volume \"{}\" changed.", path.display()));
    }
    Ok(())
}

/// `pvchange --spare`: a disk is kept to spare, or not.
pub async fn pvspare(ctx: &Ctx, paths: &[String], spare: bool) -> Result<(), Failure> {
    let what = "cannot change PV";
    let mut chosen = Vec::new();
    for path in distinct(paths, what)? {
        let views = ctx.node.groups.views();
        let member = views
            .into_iter()
            .find_map(|view| member_of(&view, &path).map(|pv| (view, pv)));
        let (view, pv) = member.ok_or_else(|| {
            let why = "it is not a disk of any group";
            fail(path.display(), what, why, "see `volmgr pvs`")
        })?;
        let view = usable(ctx, &view.group.name, what)?;
        plan::set_spare(&view.group, pv, spare).map_err(|error| refused(&path, what, &error))?;
        chosen.push((view, pv, path));
    }
    for (view, pv, path) in chosen {
        let as_what = if spare { "spare" } else { "for use" };
        if ctx.would(&format!("keep {} {as_what}", path.display())) {
            continue;
        }
        ctx.node
            .commit(&view.group.name, |group| plan::set_spare(group, pv, spare))
            .map_err(|error| commit_failed(path.display(), what, error))?;
        let object = path.display().to_string();
        let text = format!("disk {pv} of {} is {as_what}", view.group.name);
        ctx.node.event("pv-changed", &object, &text);
        ctx.out
            .message(format!("Physical volume \"{object}\" changed."));
    }
    Ok(())
}

/// `pvchange --addtag`, `--deltag`: disks of groups; all are looked at before the first is changed.
pub async fn pvtags(
    ctx: &Ctx,
    paths: &[String],
    add: &[String],
    del: &[String],
) -> Result<(), Failure> {
    let what = "cannot change tags";
    let mut pvs = Vec::new();
    for path in distinct(paths, what)? {
        let Some(Known::Member(vg)) = known(ctx, &path, what)? else {
            return Err(fail(
                path.display(),
                what,
                "it is not a disk of a group, whose metadata tags are kept in",
                "vgcreate or vgextend takes it into one",
            ));
        };
        let view = super::vg::usable(ctx, &vg, what)?;
        let pv = super::vg::member_of(&view, &path)
            .ok_or_else(|| fail(path.display(), what, "the disk has gone", "`volmgr vgscan`"))?;
        plan::tag_pv(&view.group, pv, add, del)
            .map_err(|error| super::plan_failed(path.display(), what, &error, &view))?;
        pvs.push((path, vg, pv));
    }
    for (path, vg, pv) in pvs {
        if ctx.would(&format!("change tags of {}", path.display())) {
            continue;
        }
        ctx.node
            .commit(&vg, |group| plan::tag_pv(group, pv, add, del))
            .map_err(|error| super::commit_failed(path.display(), what, error))?;
        ctx.out
            .message(format!("Physical volume \"{}\" changed.", path.display()));
    }
    Ok(())
}

fn refused(path: &Path, what: &str, error: &PlanError) -> Failure {
    match error {
        PlanError::InUse { volume, .. } => fail(
            path.display(),
            what,
            format!("{volume} has data there"),
            "`volmgr pvmove` moves it to other disks",
        ),
        other => fail(path.display(), what, other, ""),
    }
}

/// A disk for a group: a PV without a group, or an empty disk (or any unused one, with `force`).
pub(super) fn candidate(
    ctx: &Ctx,
    path: &Path,
    what: &str,
    force: bool,
) -> Result<Candidate, Failure> {
    match known(ctx, path, what)? {
        Some(Known::Orphan(uuid)) => Ok(Candidate::Orphan(uuid)),
        Some(Known::Member(vg)) => Err(member(path, what, &vg)),
        None => claim_empty(path, what, force).map(Candidate::Fresh),
    }
}

/// Makes sure that it is a labelled PV without a group, and takes it out of their list.
pub(super) fn take(
    ctx: &Ctx,
    path: &Path,
    candidate: Candidate,
    what: &str,
) -> Result<Orphan, Failure> {
    match candidate {
        Candidate::Orphan(uuid) => take_orphan(ctx, uuid, path, what),
        Candidate::Fresh(disk) => initialise(disk, what),
    }
}

fn take_orphan(ctx: &Ctx, uuid: Uuid, path: &Path, what: &str) -> Result<Orphan, Failure> {
    ctx.node
        .groups
        .take_orphan(uuid)
        .ok_or_else(|| fail(path.display(), what, "the disk has gone", "`volmgr vgscan`"))
}

fn initialise(mut disk: FilePv, what: &str) -> Result<Orphan, Failure> {
    let uuid = Uuid::new_v4();
    let path = disk.path().to_owned();
    metadata::initialise_pv(&mut disk, uuid)
        .map_err(|error| fail(path.display(), what, super::chain(&error), ""))?;
    Ok(Orphan { uuid, disk })
}

/// Absolute, each disk once.
pub(super) fn distinct(paths: &[String], what: &str) -> Result<Vec<PathBuf>, Failure> {
    let mut seen = BTreeSet::new();
    let mut distinct = Vec::new();
    for text in paths {
        let path = PathBuf::from(text);
        if !path.is_absolute() {
            return Err(wrong(text, what, "the path is not absolute", ""));
        }
        let key = DiskKey::of(&path).map_err(|error| refuse(&path, what, &error))?;
        if seen.insert(key) {
            distinct.push(path);
        }
    }
    if distinct.is_empty() {
        return Err(wrong(
            "PATH",
            what,
            "no disk was named",
            "name at least one",
        ));
    }
    Ok(distinct)
}

fn known(ctx: &Ctx, path: &Path, what: &str) -> Result<Option<Known>, Failure> {
    let key = DiskKey::of(path).map_err(|error| refuse(path, what, &error))?;
    Ok(ctx.node.groups.known(key))
}

fn claim(path: &Path, what: &str) -> Result<FilePv, Failure> {
    FilePv::claim(path).map_err(|error| refuse(path, what, &error))
}

/// Claims a disk on which nothing is, or anything that nobody uses, with `force`.
fn claim_empty(path: &Path, what: &str, force: bool) -> Result<FilePv, Failure> {
    let mut disk = claim(path, what)?;
    Geometry::for_pv(PvIo::size(&disk))
        .map_err(|error| fail(path.display(), what, error, "use a larger disk"))?;
    let read = |error: std::io::Error| fail(path.display(), what, error, "is the disk all right?");
    let size = PvIo::size(&disk);
    let mut head = vec![0; (signature::HEAD_BYTES as u64).min(size) as usize];
    let mut tail = vec![0; (signature::TAIL_BYTES as u64).min(size) as usize];
    disk.read_at(0, &mut head).map_err(read)?;
    disk.read_at(size - tail.len() as u64, &mut tail)
        .map_err(read)?;
    if force {
        return Ok(disk);
    }
    let Some(found) = signature::find(&head, &tail, size) else {
        return Ok(disk);
    };
    if found.name == signature::OWN {
        let group = metadata::inspect(&mut disk)
            .ok()
            .and_then(|scan| scan.chosen_label().and_then(|label| label.group));
        let why = match group {
            Some(group) => format!("it is a PV of a group that is not known here ({group})"),
            None => "it is a PV already".to_owned(),
        };
        return Err(fail(
            path.display(),
            what,
            why,
            "`volmgr vgscan` makes it known; --force overwrites it",
        ));
    }
    Err(fail(
        path.display(),
        what,
        format!("{} found at byte {}", found.name, found.offset),
        "--force overwrites it",
    ))
}

fn member(path: &Path, what: &str, vg: &str) -> Failure {
    fail(
        path.display(),
        what,
        format!("it belongs to group {vg}"),
        "vgreduce takes it out of the group",
    )
}

fn refuse(path: &Path, what: &str, error: &ClaimError) -> Failure {
    let hint = match error {
        ClaimError::Missing => "create it first",
        ClaimError::InUse => "end its use first",
        ClaimError::NotADisk | ClaimError::Io(_) => "",
    };
    fail(path.display(), what, error, hint)
}
