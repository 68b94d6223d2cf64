//! Numbers about all volumes, gathered without holding anybody up: counters are read where the lanes
//! keep them; what only a lane knows is asked of all lanes at once, and a lane that does not answer is
//! said not to.

use super::Node;
use super::groups::GroupView;
use super::verbs::{health, plex_state_name};
use crate::api::{DiskSample, LvName, PlexSample, Sample, VolumeSample};
use crate::lane::{LaneHandle, LaneStats, MeterValues};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use volmgr::engine::{Media, PlexId};
use volmgr::model::Volume;

/// Time all lanes together get to answer.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// All volumes, or those of these names (`VG` or `VG/LV`).
pub async fn gather(node: &Node, names: &[String]) -> Sample {
    let views = node.groups.views();
    let volumes: Vec<(&GroupView, &Volume)> = views
        .iter()
        .flat_map(|view| {
            let volumes = view.group.volumes.iter();
            volumes.map(move |volume| (&**view, volume))
        })
        .filter(|(view, volume)| {
            let vg = &view.group.name;
            let full = format!("{vg}/{}", volume.name);
            names.is_empty() || names.iter().any(|name| name == vg || *name == full)
        })
        .collect();
    let lanes: Vec<Option<LaneHandle>> = volumes
        .iter()
        .map(|(_, volume)| node.active.lane(volume.uuid))
        .collect();
    let stats = ask_all(&lanes).await;
    let all = volumes.iter().zip(lanes.iter().zip(stats));
    Sample {
        time_millis: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |elapsed| {
                u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
            }),
        node: node.identity.name.clone(),
        volumes: all
            .map(|((view, volume), (lane, stats))| {
                one(node, view, volume, lane.as_ref(), stats.as_ref())
            })
            .collect(),
    }
}

/// Asks all lanes at once; one deadline for all.
async fn ask_all(lanes: &[Option<LaneHandle>]) -> Vec<Option<LaneStats>> {
    let deadline = tokio::time::Instant::now() + ASK_TIMEOUT;
    let asked: Vec<_> = lanes
        .iter()
        .map(|lane| {
            let lane = lane.clone()?;
            // A lane that is stuck must not keep this task: the asking itself may block.
            Some(tokio::spawn(async move { lane.stats().await.ok() }))
        })
        .collect();
    let mut answers = Vec::with_capacity(asked.len());
    for asked in asked {
        answers.push(match asked {
            None => None,
            Some(mut task) => match tokio::time::timeout_at(deadline, &mut task).await {
                Ok(answer) => answer.ok().flatten(),
                Err(_) => {
                    task.abort();
                    None
                }
            },
        });
    }
    answers
}

fn one(
    node: &Node,
    view: &GroupView,
    volume: &Volume,
    lane: Option<&LaneHandle>,
    stats: Option<&LaneStats>,
) -> VolumeSample {
    let name = LvName {
        vg: view.group.name.clone(),
        lv: volume.name.clone(),
    };
    let meters = lane.map(LaneHandle::meters).unwrap_or_default();
    VolumeSample {
        active: lane.is_some(),
        answers: stats.is_some(),
        health: health(view, volume).to_owned(),
        size: view.group.bytes_of(volume),
        open: node.active.status(volume.uuid).map_or(0, |s| s.opens),
        in_flight: stats.map_or(0, |stats| stats.in_flight),
        recovering: stats.map_or(0, |stats| stats.recover_bytes),
        plexes: plexes(volume, &meters, stats),
        disks: disks(&meters),
        feeds: node.feeds().map_or_else(Vec::new, |feeds| {
            let lags = stats.map_or(&[][..], |stats| &stats.feeds);
            feeds.samples(&name, lags)
        }),
        vg: name.vg,
        lv: name.lv,
        clients: meters.clients,
        fed: meters.fed,
    }
}

fn plexes(volume: &Volume, meters: &MeterValues, stats: Option<&LaneStats>) -> Vec<PlexSample> {
    let dirty: BTreeMap<PlexId, u64> = stats
        .map(|stats| stats.plex_dirty.iter().copied().collect())
        .unwrap_or_default();
    let media: BTreeMap<PlexId, Media> = stats
        .map(|stats| stats.plex_media.iter().copied().collect())
        .unwrap_or_default();
    volume
        .plexes
        .iter()
        .map(|plex| {
            let id = PlexId(plex.number);
            let media = media.get(&id).copied().unwrap_or_default();
            PlexSample {
                read_errors: media.read_errors.into(),
                read_repairs: media.repairs,
                name: plex.name(),
                state: plex_state_name(plex.state).to_owned(),
                dirty: dirty.get(&id).copied().unwrap_or(0),
                meter: meters.plexes.get(&id).cloned().unwrap_or_default(),
            }
        })
        .collect()
}

/// By path: a disk that went and came back counts on.
fn disks(meters: &MeterValues) -> Vec<DiskSample> {
    let mut by_path: BTreeMap<&PathBuf, crate::api::Meter> = BTreeMap::new();
    for (_, path, meter) in &meters.disks {
        let sum = by_path.entry(path).or_default();
        *sum = sum.plus(meter);
    }
    by_path
        .into_iter()
        .map(|(path, meter)| DiskSample {
            path: path.display().to_string(),
            meter,
        })
        .collect()
}
