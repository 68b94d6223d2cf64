//! `lvcreate`, `lvextend`, `lvreduce`, `lvremove`, `lvrename`: volumes.

use super::size::resolve;
use super::vg::{member_of, usable};
use super::{Ctx, commit_failed, fail, find_volume, plan_failed, wrong};
use crate::api::{Command, Failure, LvName, SizeSpec};
use crate::daemon::disks::FilePv;
use crate::daemon::groups::GroupView;
use crate::daemon::rows::human;
use crate::daemon::{active, frontend, logs};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use uuid::Uuid;
use volmgr::model::{Group, PlexState, Subdisk, Volume};
use volmgr::plan::{self, PlanError, VolumeRequest};

/// The start of a new plex is zeroed in any case, so that no old signature shows through.
const ALWAYS_ZERO: u64 = 64 << 10;

/// `lvcreate`: plan, prepare the free extents, commit, activate. A crash before the commit leaves
/// nothing but prepared free extents.
pub async fn lvcreate(ctx: &Ctx, command: &Command) -> Result<(), Failure> {
    let Command::Lvcreate {
        lv,
        size,
        mirrors,
        stripes,
        stripe_size,
        pvs,
        inactive,
        frontend: front,
        tags,
    } = command
    else {
        return Err(wrong("request", "cannot create", "not lvcreate", ""));
    };
    let what = "cannot create";
    let view = usable(ctx, &lv.vg, what)?;
    let front = front.as_deref().unwrap_or("auto");
    frontend::choose(front).map_err(|why| fail(lv, what, why, "choose --frontend nbd"))?;
    let mut request = VolumeRequest::new(&lv.lv, 0);
    request.mirrors = *mirrors;
    request.stripes = (*stripes).max(1);
    request.stripe_size = stripe_size.unwrap_or(request.stripe_size);
    request.pvs = named_pvs(&view, pvs, lv, what)?;
    let group = present(&view);
    let most = match size {
        SizeSpec::Bytes(_) | SizeSpec::Extents(_) => 0,
        _ => plan::largest_volume(&group, &request),
    };
    request.size = resolve(*size, 0, most, &group).ok_or_else(|| {
        fail(
            lv,
            what,
            "no space is left for it, or the size is relative to nothing",
            "see `volmgr vgs`",
        )
    })?;
    let planned = plan::create_volume(&group, &request, &mut Uuid::new_v4)
        .and_then(|group| plan::tag_volume(&group, &lv.lv, tags, &[]))
        .map_err(|error| plan_failed(lv, what, &error, &view))?;
    let mut volume = planned
        .volume(&lv.lv)
        .cloned()
        .ok_or_else(|| fail(lv, what, "the plan has no such volume", ""))?;
    volume.frontend = front.to_owned();
    let bytes = planned.bytes_of(&volume);
    if ctx.would(&format!(
        "create volume {lv} of {} with {} plex(es)",
        human(bytes),
        volume.plexes.len()
    )) {
        return Ok(());
    }
    let disks = ctx.node.groups.disks(&lv.vg);
    tokio::task::block_in_place(|| prepare_new(&planned, &mut volume, &disks))
        .map_err(|why| fail(lv, what, why, "is the disk all right?"))?;
    ctx.node
        .commit(&lv.vg, |group| {
            // The volume as planned: its extents have been prepared. The check in the commit sees
            // to it that they are still free.
            let mut next = group.clone();
            next.volumes.push(volume);
            Ok::<_, PlanError>(next)
        })
        .map_err(|error| commit_failed(lv, what, error))?;
    ctx.node.event(
        "lv-created",
        &lv.to_string(),
        &format!("volume of {}", human(bytes)),
    );
    ctx.out
        .message(format!("Logical volume \"{}\" created.", lv.lv));
    if *inactive {
        return Ok(());
    }
    super::lv_change::say_activated(ctx, active::activate(&ctx.node, lv, Some(front)).await?);
    Ok(())
}

/// Zeroes data, formats logs, and decides which plexes are equal from the start.
fn prepare_new(
    group: &Group,
    volume: &mut Volume,
    disks: &BTreeMap<Uuid, FilePv>,
) -> Result<(), String> {
    let mut zeroed = true;
    for plex in &volume.plexes {
        for subdisk in &plex.subdisks {
            let (disk, start, len) = place(group, disks, subdisk)?;
            let failed = |error: io::Error| format!("{}: {error}", disk.path().display());
            if disk.punch(start, len).is_err() {
                zeroed = false;
                disk.write_zeroes(start, len.min(ALWAYS_ZERO))
                    .map_err(failed)?;
            }
        }
    }
    for disk in used_disks(volume, disks) {
        disk.sync()
            .map_err(|error| format!("{}: {error}", disk.path().display()))?;
    }
    let mut dirty = BTreeSet::new();
    for plex in &mut volume.plexes {
        if zeroed {
            plex.state = PlexState::Active;
        } else if plex.state != PlexState::Active {
            dirty.insert(plex.uuid);
        }
    }
    logs::format(group, volume, disks, &dirty).map_err(|error| error.to_string())
}

/// Zeroes what a volume grew by, by hand where it must: its plexes must stay equal.
fn zero_growth(
    group: &Group,
    old: &Volume,
    new: &Volume,
    disks: &BTreeMap<Uuid, FilePv>,
) -> Result<(), String> {
    for plex in &new.plexes {
        let before = old.plex(plex.number).map_or(&[][..], |plex| &plex.subdisks);
        for subdisk in &plex.subdisks {
            let same = before
                .iter()
                .find(|known| (known.pv, known.pv_extent) == (subdisk.pv, subdisk.pv_extent));
            let skip = same.map_or(0, |known| known.extents.min(subdisk.extents));
            let grown = Subdisk {
                pv_extent: subdisk.pv_extent + skip,
                extents: subdisk.extents - skip,
                ..*subdisk
            };
            if grown.extents == 0 || !disks.contains_key(&grown.pv) {
                continue;
            }
            let (disk, start, len) = place(group, disks, &grown)?;
            if disk.punch(start, len).is_err() {
                disk.write_zeroes(start, len)
                    .map_err(|error| format!("{}: {error}", disk.path().display()))?;
            }
        }
    }
    for disk in used_disks(new, disks) {
        disk.sync()
            .map_err(|error| format!("{}: {error}", disk.path().display()))?;
    }
    Ok(())
}

fn used_disks<'a>(
    volume: &Volume,
    disks: &'a BTreeMap<Uuid, FilePv>,
) -> impl Iterator<Item = &'a FilePv> {
    let used: BTreeSet<Uuid> = volume.extent_runs().map(|(pv, _, _)| pv).collect();
    used.into_iter().filter_map(|pv| disks.get(&pv))
}

fn place<'a>(
    group: &Group,
    disks: &'a BTreeMap<Uuid, FilePv>,
    subdisk: &Subdisk,
) -> Result<(&'a FilePv, u64, u64), String> {
    let missing = || format!("disk {} is missing", subdisk.pv);
    let disk = disks.get(&subdisk.pv).ok_or_else(missing)?;
    let pv = group.pv(subdisk.pv).ok_or_else(missing)?;
    let start = subdisk
        .pv_extent
        .checked_mul(group.extent_size)
        .and_then(|offset| pv.data_start.checked_add(offset))
        .ok_or_else(missing)?;
    Ok((disk, start, subdisk.extents * group.extent_size))
}

/// The group without the disks that are away but not marked yet: nothing is to be planned there.
pub(in crate::daemon) fn present(view: &GroupView) -> Group {
    let mut group = view.group.clone();
    for pv in &mut group.pvs {
        if !view.disks.contains_key(&pv.uuid) {
            pv.missing_since.get_or_insert(group.seqno + 1);
        }
    }
    group
}

/// The PVs that the admin named.
pub(super) fn named_pvs(
    view: &GroupView,
    paths: &[String],
    lv: &LvName,
    what: &str,
) -> Result<Vec<Uuid>, Failure> {
    paths
        .iter()
        .map(|path| {
            member_of(view, Path::new(path)).ok_or_else(|| {
                fail(
                    lv,
                    what,
                    format!("{path} is not a disk of {}", lv.vg),
                    "see `volmgr pvs`",
                )
            })
        })
        .collect()
}

/// `lvextend`.
pub async fn lvextend(
    ctx: &Ctx,
    lv: &LvName,
    size: SizeSpec,
    pvs: &[String],
) -> Result<(), Failure> {
    let (_, volume) = find_volume(&ctx.node, lv, "cannot extend")?;
    if let Some(feed) = volume
        .feeds
        .iter()
        .find(|f| f.fills() || f.restore.is_some())
    {
        return Err(fail(
            lv,
            "cannot extend",
            format!("its content comes from {}", feed.peer),
            "lvextend it there: this side grows with it",
        ));
    }
    extend(ctx, lv, size, pvs).await
}

/// The volume of a feed whose other side has grown grows, too. Takes the verb lock.
pub async fn grow_with_peer(ctx: &Ctx, lv: &LvName, bytes: u64) -> Result<(), Failure> {
    let _one_at_a_time = ctx.node.verb_lock().await;
    extend(ctx, lv, SizeSpec::Bytes(bytes), &[]).await
}

/// Feeds begin again with the new size: their other side has to have it before anything flows.
async fn extend(ctx: &Ctx, lv: &LvName, size: SizeSpec, pvs: &[String]) -> Result<(), Failure> {
    let (_, volume) = find_volume(&ctx.node, lv, "cannot extend")?;
    let feeds = ctx
        .node
        .feeds()
        .filter(|_| !ctx.test && !volume.feeds.is_empty());
    if let Some(feeds) = &feeds {
        feeds.deactivating(lv).await;
    }
    let extended = extend_alone(ctx, lv, size, pvs).await;
    if let Some(feeds) = feeds
        && ctx.node.is_active(volume.uuid)
    {
        feeds.activated(lv);
    }
    extended
}

async fn extend_alone(
    ctx: &Ctx,
    lv: &LvName,
    size: SizeSpec,
    pvs: &[String],
) -> Result<(), Failure> {
    let what = "cannot extend";
    let view = usable(ctx, &lv.vg, what)?;
    let (_, volume) = find_volume(&ctx.node, lv, what)?;
    let group = present(&view);
    let pvs = named_pvs(&view, pvs, lv, what)?;
    let now = group.bytes_of(&volume);
    let most = match size {
        SizeSpec::Bytes(_)
        | SizeSpec::Extents(_)
        | SizeSpec::Plus(_)
        | SizeSpec::PlusExtents(_) => 0,
        _ => plan::largest_extension(&group, &lv.lv, &pvs)
            .map_err(|error| plan_failed(lv, what, &error, &view))?,
    };
    let wanted = resolve(size, now, most, &group)
        .filter(|wanted| *wanted > now)
        .ok_or_else(|| {
            fail(
                lv,
                what,
                format!("the new size is not larger than {}", human(now)),
                "lvreduce makes it smaller",
            )
        })?;
    let extension = plan::extend_volume(&group, &lv.lv, wanted, &pvs)
        .map_err(|error| plan_failed(lv, what, &error, &view))?;
    if extension.log_moved && ctx.node.is_active(volume.uuid) {
        return Err(fail(
            lv,
            what,
            "its log has to move, which cannot be done while it is active",
            format!("`volmgr lvchange -an {lv}` first"),
        ));
    }
    let grown = extension
        .group
        .volume(&lv.lv)
        .cloned()
        .ok_or_else(|| fail(lv, what, "the plan has no such volume", ""))?;
    let bytes = group.bytes_of(&grown);
    if ctx.would(&format!("extend volume {lv} to {}", human(bytes))) {
        return Ok(());
    }
    let disks = ctx.node.groups.disks(&lv.vg);
    tokio::task::block_in_place(|| {
        zero_growth(&group, &volume, &grown, &disks)?;
        if extension.log_moved {
            logs::move_copies(&group, &volume, &grown, &disks).map_err(|e| e.to_string())?;
        }
        Ok::<_, String>(())
    })
    .map_err(|why| fail(lv, what, why, ""))?;
    let view = ctx
        .node
        .commit(&lv.vg, |group| {
            // States may have changed meanwhile; where things lie has not.
            let mut next = group.clone();
            if let Some(mut now) = next.volumes.get_mut(grown.uuid) {
                now.extents = grown.extents;
                for plex in &mut now.plexes {
                    if let Some(new) = grown.plex(plex.number) {
                        plex.subdisks = new.subdisks.clone();
                    }
                }
                for log in &mut now.log {
                    if let Some(new) = grown.log.iter().find(|new| new.plex == log.plex) {
                        (log.pv, log.pv_extent, log.extents) = (new.pv, new.pv_extent, new.extents);
                    }
                }
            }
            Ok::<_, PlanError>(next)
        })
        .map_err(|error| commit_failed(lv, what, error))?;
    fit_log(&view, lv, &disks, what)?;
    active::reconfigure(&ctx.node, lv, &[]).await?;
    ctx.node.event(
        "lv-extended",
        &lv.to_string(),
        &format!("now {}", human(bytes)),
    );
    ctx.out.message(format!(
        "Size of logical volume {lv} changed from {} to {}.",
        human(now),
        human(bytes)
    ));
    Ok(())
}

fn fit_log(
    view: &GroupView,
    lv: &LvName,
    disks: &BTreeMap<Uuid, FilePv>,
    what: &str,
) -> Result<(), Failure> {
    let Some(volume) = view.volume(&lv.lv) else {
        return Ok(());
    };
    tokio::task::block_in_place(|| logs::fit(view, volume, disks))
        .map_err(|error| fail(lv, what, error, ""))
}

/// `lvreduce`: only while nobody serves the volume, and only when the admin knows what is lost.
pub async fn lvreduce(ctx: &Ctx, lv: &LvName, size: SizeSpec, force: bool) -> Result<(), Failure> {
    let what = "cannot reduce";
    let view = usable(ctx, &lv.vg, what)?;
    let (_, volume) = find_volume(&ctx.node, lv, what)?;
    no_feeds(lv, &volume, what)?;
    if ctx.node.is_active(volume.uuid) {
        return Err(fail(
            lv,
            what,
            "it is active",
            format!("`volmgr lvchange -an {lv}` first"),
        ));
    }
    let now = view.group.bytes_of(&volume);
    let wanted = resolve(size, now, now, &view.group)
        .filter(|wanted| *wanted < now)
        .ok_or_else(|| {
            fail(
                lv,
                what,
                format!("the new size is not smaller than {}", human(now)),
                "lvextend makes it larger",
            )
        })?;
    let planned = plan::reduce_volume(&view.group, &lv.lv, wanted)
        .map_err(|error| plan_failed(lv, what, &error, &view))?;
    let bytes = planned
        .volume(&lv.lv)
        .map_or(wanted, |volume| planned.bytes_of(volume));
    if ctx.would(&format!("reduce volume {lv} to {}", human(bytes))) {
        return Ok(());
    }
    if !force && !ctx.yes {
        return Err(fail(
            lv,
            what,
            format!("what is behind {} will be lost", human(bytes)),
            "shrink the file system first, then --yes",
        ));
    }
    let view = ctx
        .node
        .commit(&lv.vg, |group| plan::reduce_volume(group, &lv.lv, wanted))
        .map_err(|error| commit_failed(lv, what, error))?;
    let disks = ctx.node.groups.disks(&lv.vg);
    fit_log(&view, lv, &disks, what)?;
    ctx.node.event(
        "lv-reduced",
        &lv.to_string(),
        &format!("now {}", human(bytes)),
    );
    ctx.out.message(format!(
        "Size of logical volume {lv} changed from {} to {}.",
        human(now),
        human(bytes)
    ));
    Ok(())
}

fn no_feeds(lv: &LvName, volume: &Volume, what: &str) -> Result<(), Failure> {
    match volume.feeds.first() {
        None => Ok(()),
        Some(feed) => Err(fail(
            lv,
            what,
            format!(
                "its feed with {} needs the same size on both sides",
                feed.peer
            ),
            "a volume with a feed can grow only; feeddetach --force forgets the feed",
        )),
    }
}

/// `lvremove`.
pub async fn lvremove(ctx: &Ctx, lv: &LvName, force: bool) -> Result<(), Failure> {
    let what = "cannot remove";
    let view = usable(ctx, &lv.vg, what)?;
    let (_, volume) = find_volume(&ctx.node, lv, what)?;
    let opens = ctx.node.active.opens(volume.uuid);
    if opens > 0 {
        return Err(fail(
            lv,
            what,
            format!("it is open ({opens} user(s))"),
            "close it first",
        ));
    }
    if ctx.node.is_active(volume.uuid) && !force && !ctx.yes {
        return Err(fail(
            lv,
            what,
            "it is active",
            "deactivate it first, or --yes",
        ));
    }
    if let Some(feed) = volume.feeds.first().filter(|_| !force) {
        return Err(fail(
            lv,
            what,
            format!("it has a feed with {}", feed.peer),
            "feeddetach it first, or --force",
        ));
    }
    plan::remove_volume(&view.group, &lv.lv).map_err(|e| plan_failed(lv, what, &e, &view))?;
    if ctx.would(&format!("remove volume {lv}")) {
        return Ok(());
    }
    active::deactivate(&ctx.node, lv, false).await?;
    ctx.node
        .commit(&lv.vg, |group| plan::remove_volume(group, &lv.lv))
        .map_err(|error| commit_failed(lv, what, error))?;
    ctx.node
        .event("lv-removed", &lv.to_string(), "volume removed");
    ctx.out.message(format!(
        "Logical volume \"{}\" successfully removed.",
        lv.lv
    ));
    Ok(())
}

/// `lvrename`: only while nobody serves the volume, since its export's name would change. Peers know it by
/// its UUID, and hear of the new name with the next connection.
pub async fn lvrename(ctx: &Ctx, lv: &LvName, new: &str) -> Result<(), Failure> {
    let what = "cannot rename";
    let view = usable(ctx, &lv.vg, what)?;
    let (_, volume) = find_volume(&ctx.node, lv, what)?;
    if ctx.node.is_active(volume.uuid) {
        return Err(fail(
            lv,
            what,
            "it is active under this name",
            format!("`volmgr lvchange -an {lv}` first"),
        ));
    }
    plan::rename_volume(&view.group, &lv.lv, new)
        .map_err(|error| plan_failed(lv, what, &error, &view))?;
    if ctx.would(&format!("rename volume {lv} to {new}")) {
        return Ok(());
    }
    ctx.node
        .commit(&lv.vg, |group| plan::rename_volume(group, &lv.lv, new))
        .map_err(|error| commit_failed(lv, what, error))?;
    ctx.node.event(
        "lv-renamed",
        &format!("{}/{new}", lv.vg),
        &format!("was {} before", lv.lv),
    );
    ctx.out.message(format!(
        "Renamed \"{}\" to \"{new}\" in volume group \"{}\"",
        lv.lv, lv.vg
    ));
    Ok(())
}
