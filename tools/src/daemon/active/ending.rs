//! How a volume stops being served: its device, its feeds, its lane, in this order.

use super::super::Node;
use super::super::ublk::{BlockDevice, BlockError};
use super::super::verbs::{chain, commit_failed, fail, find_volume};
use crate::api::{Failure, LvName};
use crate::lane::{Frozen, LaneError, LaneHandle};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use uuid::Uuid;
use volmgr::plan;

/// Time a lane gets to drain and flush when it is stopped.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// Stops serving a volume, for good: the next start does not serve it. Refused while it is open,
/// unless `force`.
pub async fn deactivate(node: &Arc<Node>, name: &LvName, force: bool) -> Result<(), Failure> {
    let what = "cannot deactivate";
    let (_, volume) = find_volume(node, name, what)?;
    let opens = users(node, volume.uuid).await;
    if opens > 0 && !force {
        return Err(fail(
            name,
            what,
            format!("it is open ({opens} user(s))"),
            "close it first, or --force",
        ));
    }
    let ending = if force {
        Ending::Force
    } else {
        Ending::IfUnused
    };
    stop(node, volume.uuid, ending).await?;
    if volume.active {
        node.commit(&name.vg, |group| {
            plan::update_volume(group, &name.lv, |volume| volume.active = false)
        })
        .map_err(|error| commit_failed(name, what, error))?;
    }
    Ok(())
}

/// A client's end may have closed a little before the lane hears of it.
const CLOSING: Duration = Duration::from_millis(500);

/// Users of a volume, of which those who only look at a new device, and clients that have just
/// closed their end, get a moment to go.
pub async fn users(node: &Arc<Node>, volume: Uuid) -> u64 {
    if let Some(block) = node.active.block(volume) {
        tokio::task::block_in_place(|| block.in_use());
    }
    let began = Instant::now();
    loop {
        let opens = node.active.opens(volume);
        if opens == 0 || began.elapsed() > CLOSING {
            return opens;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Keeps clients from writing to a volume that nobody uses; how many use it otherwise. Whoever opens it between the two looks
/// cannot write what would be lost, and who had it open all the while sees no error because somebody has asked.
pub async fn freeze_unused(
    node: &Arc<Node>,
    volume: Uuid,
    lane: &LaneHandle,
) -> Result<Result<Frozen, u64>, LaneError> {
    let before = users(node, volume).await;
    if before > 0 {
        return Ok(Err(before));
    }
    let frozen = lane.freeze().await?;
    Ok(match users(node, volume).await {
        0 => Ok(frozen),
        after => Err(after),
    })
}

/// How much others matter when a volume is no longer served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// Nobody uses it, or it stays.
    IfUnused,
    /// Whoever uses it gets errors.
    Force,
    /// The daemon ends: a device in use stays and waits for the next one.
    Shutdown,
}

/// Ends a volume's front ends and its lane in good order.
async fn stop(node: &Arc<Node>, volume: Uuid, ending: Ending) -> Result<(), Failure> {
    let found = node.active.lock().get(&volume).map(|active| {
        (
            active.name.clone(),
            active.lane.clone(),
            active.block.clone(),
        )
    });
    let Some((name, lane, block)) = found else {
        return Ok(());
    };
    // The device first: what is still written through it goes to the feeds.
    if let Some(block) = block {
        stop_device(node, &name, &lane, block, ending).await?;
    }
    if let Some(feeds) = node.feeds() {
        feeds.deactivating(&name).await;
    }
    stop_lane(node, volume, &name, &lane).await
}

async fn stop_device(
    node: &Arc<Node>,
    name: &LvName,
    lane: &LaneHandle,
    block: Arc<BlockDevice>,
    ending: Ending,
) -> Result<(), Failure> {
    let (its, device) = (Arc::clone(node), Arc::clone(&block));
    // Who uses it gets errors when the daemon ends in any case: then in good order.
    let ends_with_daemon = ending == Ending::Shutdown && !block.outlives_daemon();
    let force = ending == Ending::Force || ends_with_daemon;
    let ended = tokio::task::spawn_blocking(move || device.end(&its, force)).await;
    let error = match ended {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => error,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    };
    match (error, ending) {
        (error @ BlockError::InUse { .. }, Ending::IfUnused) => Err(fail(
            name,
            "cannot deactivate",
            error,
            "close it first, or --force",
        )),
        (BlockError::InUse { id }, _) => {
            let text = format!("/dev/ublkb{id} is in use: it waits for the next volmgrd");
            node.event("ublk-left", &name.to_string(), &text);
            lane.drop_ublk()
                .await
                .map_err(|error| fail(name, "cannot leave its device", chain(&error), ""))
        }
        (error, _) => {
            // What cannot be deleted now is cleared away at the next start.
            node.event("ublk-stuck", &name.to_string(), &chain(&error));
            Ok(())
        }
    }
}

/// Ends a lane in good order.
pub(super) async fn stop_lane(
    node: &Arc<Node>,
    volume: Uuid,
    name: &LvName,
    lane: &LaneHandle,
) -> Result<(), Failure> {
    let stopped = match tokio::time::timeout(STOP_TIMEOUT, lane.stop()).await {
        Ok(stopped) => stopped.map_err(|error| chain(&error)),
        Err(_) => Err(format!(
            "it has not ended within {} s",
            STOP_TIMEOUT.as_secs()
        )),
    };
    node.active.lock().remove(&volume);
    match stopped {
        Ok(()) => {
            node.event("lv-deactivated", &name.to_string(), "no longer served");
            Ok(())
        }
        // The log covers what was not flushed; it is resynced at the next activation.
        Err(why) => Err(fail(name, "deactivated, but not in good order", why, "")),
    }
}

/// Ends all lanes; the volumes stay wanted. All at once: each waits for its disks, and those in use
/// for whoever might only look at them.
pub async fn deactivate_all(node: &Arc<Node>) {
    let volumes: Vec<Uuid> = node.active.lock().keys().copied().collect();
    let mut ending = JoinSet::new();
    for volume in volumes {
        let node = Arc::clone(node);
        ending.spawn(async move {
            if let Err(failure) = stop(&node, volume, Ending::Shutdown).await {
                tracing::warn!("{failure}");
            }
        });
    }
    // A panic goes on here, as it would have without the tasks.
    ending.join_all().await;
}
