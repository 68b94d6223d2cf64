//! The volumes that are served: from a group's metadata to a running lane, and what the lane asks
//! of the control plane.

mod ending;
mod follow;

pub use ending::{deactivate, deactivate_all, freeze_unused, users};

use super::frontend::{self, Frontend};
use super::groups::GroupView;
use super::ublk::{self, BlockDevice};
use super::verbs::{chain, commit_failed, fail, find_volume, pvmove};
use super::{Node, logs};
use crate::api::{Failure, LvName};
use crate::lane::{DiskSpec, LaneHandle, LaneSpec};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use uuid::Uuid;
use volmgr::engine::{DiskId, Media, PlexId, VolumeLayout};
use volmgr::model::{Feed, PlexState, Role, Volume};
use volmgr::plan;

/// The data path of a volume.
pub type VolumeLane = LaneHandle;

/// Time a lane gets to answer a question for a listing.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// The volumes that are served, by UUID.
#[derive(Default)]
pub struct ActiveVolumes {
    table: Mutex<BTreeMap<Uuid, Active>>,
}

struct Active {
    name: LvName,
    lane: LaneHandle,
    /// The lane's table of disks: it only grows. A disk that went and came back has two places.
    disks: Vec<(Uuid, u64, DiskSpec)>,
    front: Frontend,
    block: Option<Arc<BlockDevice>>,
    /// Where clients find it, the best first.
    places: Vec<String>,
}

/// What listings say of a device in zero-copy mode whose writes are copied all the same.
const STABLE_COPY: &str = "writes are copied first: stable copy is on";

impl Active {
    /// Why payload does not move in the best way; empty where it does.
    fn io_reason(&self) -> &str {
        match &self.block {
            Some(block) if block.is_zero_copy() && self.lane.stable_copy() => STABLE_COPY,
            Some(block) => block.io_reason().unwrap_or_default(),
            None => "",
        }
    }

    /// Clients and users, as far as a listing cares.
    fn opens(&self) -> u64 {
        let users = self
            .block
            .as_ref()
            .map_or(0, |block| ublk::users::count_roughly(block.id()));
        u64::from(self.lane.clients()) + u64::from(users)
    }
}

/// What listings say about a served volume.
#[derive(Clone, Debug)]
pub struct Status {
    /// Device or URI.
    pub path: String,
    /// Clients that have it open.
    pub opens: u64,
    /// How its data moves.
    pub io_mode: &'static str,
    /// Why not in a better way; empty where there is none.
    pub io_reason: String,
    /// Payload of clients copied through the daemon's memory, in bytes.
    pub copied_bytes: u64,
}

/// What activation has to say.
#[derive(Clone, Debug)]
pub struct Activated {
    /// Where the volume is now: devices and URIs.
    pub places: Vec<String>,
    /// Warnings for the admin.
    pub warnings: Vec<String>,
}

impl ActiveVolumes {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Uuid, Active>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The volume's lane.
    pub fn lane(&self, volume: Uuid) -> Option<LaneHandle> {
        self.lock().get(&volume).map(|active| active.lane.clone())
    }

    /// The lane of the volume that is exported under this name.
    pub fn lane_named(&self, name: &str) -> Option<LaneHandle> {
        self.lock()
            .values()
            .find(|active| active.front.nbd() && active.name.to_string() == name)
            .map(|active| active.lane.clone())
    }

    fn front(&self, volume: Uuid) -> Option<Frontend> {
        self.lock().get(&volume).map(|active| active.front)
    }

    fn block(&self, volume: Uuid) -> Option<Arc<BlockDevice>> {
        self.lock().get(&volume)?.block.clone()
    }

    fn places(&self, volume: Uuid) -> Vec<String> {
        self.lock()
            .get(&volume)
            .map_or_else(Vec::new, |active| active.places.clone())
    }

    /// Names of the exports.
    pub fn names(&self) -> Vec<String> {
        self.lock()
            .values()
            .filter(|active| active.front.nbd())
            .map(|active| active.name.to_string())
            .collect()
    }

    /// Is it served?
    pub fn contains(&self, volume: Uuid) -> bool {
        self.lock().contains_key(&volume)
    }

    /// Clients that have it open.
    pub fn opens(&self, volume: Uuid) -> u64 {
        self.lane(volume).map_or(0, |lane| u64::from(lane.opens()))
    }

    /// What listings say about it; `None` where it is not served.
    pub fn status(&self, volume: Uuid) -> Option<Status> {
        self.lock().get(&volume).map(|active| Status {
            path: active.places.first().cloned().unwrap_or_default(),
            opens: active.opens(),
            io_mode: active.block.as_ref().map_or("nbd", |block| block.io_mode()),
            io_reason: active.io_reason().to_owned(),
            copied_bytes: active.lane.copied_bytes(),
        })
    }

    /// How well each plex's disks (by its number) read; empty where the volume is not served.
    pub async fn plex_media(&self, volume: &Volume) -> BTreeMap<u32, Media> {
        let Some(lane) = self.lane(volume.uuid) else {
            return BTreeMap::new();
        };
        match tokio::time::timeout(ASK_TIMEOUT, lane.stats()).await {
            Ok(Ok(stats)) => {
                let media = stats.plex_media.into_iter();
                media.map(|(plex, media)| (plex.0, media)).collect()
            }
            // As below.
            Ok(Err(_)) | Err(_) => BTreeMap::new(),
        }
    }

    /// Bytes that each plex (by number) misses; empty where the volume is not served.
    pub async fn plex_dirty(&self, volume: &Volume) -> BTreeMap<u32, u64> {
        let Some(lane) = self.lane(volume.uuid) else {
            return BTreeMap::new();
        };
        let plexes: Vec<PlexId> = volume
            .plexes
            .iter()
            .map(|plex| PlexId(plex.number))
            .collect();
        let asked = lane.dirty(Vec::new(), plexes);
        match tokio::time::timeout(ASK_TIMEOUT, asked).await {
            Ok(Ok((_, dirty))) => volume
                .plexes
                .iter()
                .map(|plex| plex.number)
                .zip(dirty)
                .collect(),
            // A lane that is busy or stopping is no reason to have no listing.
            Ok(Err(_)) | Err(_) => BTreeMap::new(),
        }
    }
}

/// Serves a volume; where it is served already, says where. The caller holds the verb lock.
pub async fn activate(
    node: &Arc<Node>,
    name: &LvName,
    wanted: Option<&str>,
) -> Result<Activated, Failure> {
    node.expect_verb_lock();
    let what = "cannot activate";
    let (_, volume) = find_volume(node, name, what)?;
    let front = wanted.unwrap_or(&volume.frontend).to_owned();
    let chosen = frontend::choose(&front)
        .map_err(|why| fail(name, what, why.to_string(), "choose --frontend nbd"))?;
    let serving = node.active.front(volume.uuid);
    if let Some(serving) = serving
        && wanted.is_some()
        && serving != chosen
    {
        return Err(fail(
            name,
            what,
            "it is active with another front end",
            format!("`volmgr lvchange -an {name}` first"),
        ));
    }
    if serving.is_none() {
        let view = prepare(node, name, &volume, what)?;
        let volume = view
            .volume(&name.lv)
            .cloned()
            .ok_or_else(|| fail(name, what, "it has gone", ""))?;
        start(node, name, &view, &volume, chosen).await?;
    }
    // After it works: a volume that cannot be served must not be tried at each start.
    node.commit(&name.vg, |group| {
        plan::update_volume(group, &name.lv, |volume| {
            volume.active = true;
            volume.frontend = front;
        })
    })
    .map_err(|error| commit_failed(name, what, error))?;
    Ok(activated(node, name, &volume))
}

fn activated(node: &Node, name: &LvName, volume: &Volume) -> Activated {
    let mut warnings = Vec::new();
    if volume.is_read_only() {
        warnings.push(match volume.role {
            Role::Feed => format!("{name} is fed by a peer: it is read-only for clients"),
            Role::Normal => {
                format!("a peer restores from {name} while in use: it is read-only for clients")
            }
        });
    }
    Activated {
        places: node.active.places(volume.uuid),
        warnings,
    }
}

/// Brings metadata and log to the point where the engine can start: what stands is on all disks,
/// absent disks are marked, every log copy that can be is valid and of the right size. Blocks.
fn prepare(
    node: &Node,
    name: &LvName,
    volume: &Volume,
    what: &str,
) -> Result<Arc<GroupView>, Failure> {
    tokio::task::block_in_place(|| {
        let (view, news) = node
            .groups
            .settle(&name.vg)
            .map_err(|why| fail(name, what, why, ""))?;
        for (kind, object, text) in &news {
            node.event(kind, object, text);
        }
        let disks = node.groups.disks(&name.vg);
        let volume = view.volume(&name.lv).unwrap_or(volume);
        logs::fit(&view, volume, &disks)
            .map_err(|error| fail(name, what, error, "bring the missing disks back"))?;
        let healed =
            logs::heal(&view, volume, &disks).map_err(|error| fail(name, what, error, ""))?;
        // Before anything is written: how far the log had come when this volume's feeds last flowed.
        let flowed = |feed: &Feed| feed.rest_stamp.is_none() && !feed.epochs.is_empty();
        let rest = match volume.feeds.iter().any(flowed) {
            true => Some(
                logs::stamp(&view.group, volume, &disks)
                    .map_err(|error| fail(name, what, error, ""))?,
            ),
            false => None,
        };
        if healed.is_empty() && rest.is_none() {
            return Ok(view);
        }
        node.commit(&name.vg, |group| {
            let group = healed.iter().try_fold(group.clone(), |group, plex| {
                plan::set_log_valid(&group, &name.lv, *plex, true)
            })?;
            plan::update_volume(&group, &name.lv, |volume| {
                for feed in volume.feeds.iter_mut().filter(|feed| flowed(feed)) {
                    feed.rest_stamp = rest;
                }
            })
        })
        .map_err(|error| commit_failed(name, what, error))
    })
}

async fn start(
    node: &Arc<Node>,
    name: &LvName,
    view: &GroupView,
    volume: &Volume,
    front: Frontend,
) -> Result<(), Failure> {
    let what = "cannot activate";
    let mut disks = Vec::new();
    let layout = layout(view, volume, &mut disks)
        .map_err(|error| fail(name, what, error, "bring the missing disks back"))?;
    let specs = disks.iter().map(|(_, _, spec)| spec.clone()).collect();
    let spec = LaneSpec {
        stable_copy: volume.stable_copy,
        max_read_errors: node.config.plexes.max_read_errors,
        ..LaneSpec::new(name.to_string(), layout, specs)
    };
    let (lane, events) = tokio::task::block_in_place(|| LaneHandle::start(spec))
        .map_err(|error| fail(name, what, chain(&error), ""))?;
    let active = Active {
        name: name.clone(),
        lane: lane.clone(),
        disks,
        front,
        block: None,
        places: if front.nbd() {
            frontend::nbd_uris(&node.config.nbd, name)
        } else {
            Vec::new()
        },
    };
    node.active.lock().insert(volume.uuid, active);
    // Not by `spawn`: a lane that is being stopped still asks for commits.
    tokio::spawn(follow::follow(
        node.clone(),
        volume.uuid,
        lane.clone(),
        events,
    ));
    if front.ublk() {
        // Now that the lane's wishes are heard: the kernel may read at once.
        match ublk::create(node, name, volume.uuid, &lane).await {
            Ok(block) => {
                if let Some(active) = node.active.lock().get_mut(&volume.uuid) {
                    active.places.insert(0, block.path());
                    active.block = Some(block);
                }
            }
            Err(error) => {
                ending::stop_lane(node, volume.uuid, name, &lane).await?;
                return Err(fail(name, what, chain(&error), "choose --frontend nbd"));
            }
        }
    }
    node.event("lv-activated", &name.to_string(), "volume is served");
    if let Some(feeds) = node.feeds() {
        feeds.activated(name);
    }
    if pvmove::pending(volume) {
        pvmove::finish_soon(node, volume.uuid);
    }
    Ok(())
}

/// The engine's view of the volume, extending the table of disks where it has to.
fn layout(
    view: &GroupView,
    volume: &Volume,
    disks: &mut Vec<(Uuid, u64, DiskSpec)>,
) -> Result<VolumeLayout, plan::LayoutError> {
    let used: std::collections::BTreeSet<Uuid> =
        volume.extent_runs().map(|(pv, _, _)| pv).collect();
    for pv in used {
        if let Some(place) = view.disks.get(&pv)
            && !disks
                .iter()
                .any(|(uuid, epoch, _)| (*uuid, *epoch) == (pv, place.epoch))
        {
            disks.push((pv, place.epoch, DiskSpec::new(&place.path, pv)));
        }
    }
    let mut layout = plan::layout(&view.group, volume, |pv| {
        // A disk that is marked missing has outdated content, even where it can be opened.
        let here = view
            .group
            .pv(pv)
            .is_some_and(|known| known.missing_since.is_none());
        let place = view.disks.get(&pv).filter(|_| here)?;
        let index = disks
            .iter()
            .position(|(uuid, epoch, _)| (*uuid, *epoch) == (pv, place.epoch))?;
        u32::try_from(index).ok().map(DiskId)
    })?;
    for plex in &mut layout.plexes {
        // A plex without its disks is out, whatever it is besides: the engine only tracks what it
        // misses, and resyncs it when a later layout brings it back in its own state.
        if plex.map.is_empty() {
            plex.state = PlexState::Offline;
        }
    }
    Ok(layout)
}

/// Tells a served volume's lane what the metadata says now. The feeds in `fresh` (by map slot)
/// start all dirty, whatever their slot holds.
pub async fn reconfigure(node: &Node, name: &LvName, fresh: &[u32]) -> Result<(), Failure> {
    let (view, volume) = find_volume(node, name, "cannot reconfigure")?;
    tell_lane(node, name, &view, &volume, fresh).await
}

async fn tell_lane(
    node: &Node,
    name: &LvName,
    view: &GroupView,
    volume: &Volume,
    fresh: &[u32],
) -> Result<(), Failure> {
    let what = "cannot reconfigure";
    let prepared = {
        let mut table = node.active.lock();
        let Some(active) = table.get_mut(&volume.uuid) else {
            return Ok(());
        };
        let mut layout =
            layout(view, volume, &mut active.disks).map_err(|error| fail(name, what, error, ""))?;
        for feed in &mut layout.feeds {
            feed.fresh |= fresh.contains(&feed.id.0);
        }
        let disks = active
            .disks
            .iter()
            .map(|(_, _, spec)| spec.clone())
            .collect();
        (active.lane.clone(), layout, disks, active.block.clone())
    };
    let (lane, layout, disks, block) = prepared;
    lane.reconfigure(layout, disks)
        .await
        .map_err(|error| fail(name, what, chain(&error), ""))?;
    if let Some(block) = block
        && let Err(error) = tokio::task::block_in_place(|| block.refresh(lane.limits()))
    {
        // The volume is what it is to be; its device shows that once it is made anew.
        let text = format!("{}: until it is activated again", chain(&error));
        node.event("ublk-outdated", &name.to_string(), &text);
    }
    Ok(())
}

/// Lets the engine of a served volume fill log copies that missed updates or are new: it writes
/// them anew; only then the metadata calls them valid, and their plexes may become active. An inactive volume's are seen to when it is
/// activated.
pub async fn adopt_logs(node: &Node, name: &LvName) -> Result<(), Failure> {
    let what = "cannot renew the log";
    let (view, volume) = find_volume(node, name, what)?;
    let Some(lane) = node.active.lane(volume.uuid) else {
        return Ok(());
    };
    if volume.log.iter().all(|log| log.valid) {
        return Ok(());
    }
    // An attempt that failed has left the copy with the engine, or updates of it on their way.
    tell_lane(node, name, &view, &volume, &[]).await?;
    lane.quiesce()
        .await
        .map_err(|error| fail(name, what, chain(&error), ""))?;
    let disks = node.groups.disks(&name.vg);
    let formatted = tokio::task::block_in_place(|| logs::format_invalid(&view, &volume, &disks))
        .map_err(|error| fail(name, what, error, ""))?;
    if formatted.is_empty() {
        return Ok(());
    }
    let valid = |group: &volmgr::model::Group| {
        formatted.iter().try_fold(group.clone(), |group, plex| {
            plan::set_log_valid(&group, &name.lv, *plex, true)
        })
    };
    let group = valid(&view.group).map_err(|error| fail(name, what, error, ""))?;
    let adopted = GroupView {
        group,
        ..(*view).clone()
    };
    let Some(volume) = adopted.volume(&name.lv) else {
        return Ok(());
    };
    tell_lane(node, name, &adopted, volume, &[]).await?;
    lane.quiesce()
        .await
        .map_err(|error| fail(name, what, chain(&error), ""))?;
    node.commit(&name.vg, valid)
        .map_err(|error| commit_failed(name, what, error))?;
    // Plexes that waited for that.
    reconfigure(node, name, &[]).await
}

/// Disks of a group have come or gone: its served volumes want to know.
pub async fn disks_changed(node: &Arc<Node>, vg: &str) {
    let Some(view) = node.groups.view(vg) else {
        return;
    };
    for volume in &view.group.volumes {
        let name = LvName {
            vg: vg.to_owned(),
            lv: volume.name.clone(),
        };
        let told = match reconfigure(node, &name, &[]).await {
            Ok(()) => adopt_logs(node, &name).await,
            Err(failure) => Err(failure),
        };
        if let Err(failure) = told {
            node.event(
                "reconfigure-failed",
                &name.to_string(),
                &failure.to_string(),
            );
        }
    }
}
