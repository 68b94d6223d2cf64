//! Bringing a lane up: disks, log, thread.

use super::disk::Disks;
use super::handle::Shared;
use super::thread::{Inbox, Lane};
use super::{LaneError, LaneSpec};
use blockio::Limits;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex, RwLock};
use volmgr::engine::{DiskRange, Piece, VolumeLayout};

/// Opens everything and starts the thread; returns when the lane runs.
pub(super) fn start(spec: LaneSpec, inbox: Inbox) -> Result<Arc<Shared>, LaneError> {
    let disks = Disks::open(spec.disks.clone())?;
    let limits = limits(&spec.layout, &disks);
    let shared = Arc::new(Shared {
        limits: RwLock::new(limits),
        opens: AtomicU32::new(0),
        copied: AtomicU64::new(0),
        users: Mutex::new(None),
        meters: Arc::default(),
        stable_copy: AtomicBool::new(spec.stable_copy),
    });
    let (report, started) = std::sync::mpsc::sync_channel(1);
    let its = Arc::clone(&shared);
    // The kernel shows 15 bytes of it.
    let thread = format!("lane {}", spec.name);
    std::thread::Builder::new()
        .name(thread)
        .spawn(move || {
            // The ring belongs to the thread that makes it.
            let lane = Lane::new(spec, disks, inbox, its);
            let (lane, result) = match lane {
                Ok(lane) => (Some(lane), Ok(())),
                Err(error) => (None, Err(error)),
            };
            // The one who waits for it cannot have gone: it blocks.
            let _waits = report.send(result);
            if let Some(lane) = lane {
                lane.run();
            }
        })
        .map_err(LaneError::Thread)?;
    started.recv().map_err(|_| LaneError::Stopped)??;
    Ok(shared)
}

/// What the volume can do, from its layout and its disks.
pub(super) fn limits(layout: &VolumeLayout, disks: &Disks) -> Limits {
    let largest = |unit: fn(&super::disk::Disk) -> u32| disks.iter().map(unit).max();
    // A stripe on one disk, and one over all of them.
    let pieces = layout.plexes.iter().flat_map(|plex| &plex.map);
    let (mut minimum, mut optimal) = (0, 0);
    for piece in pieces {
        if let Piece::Striped {
            stripe_size,
            columns,
        } = piece
        {
            minimum = minimum.max(*stripe_size);
            optimal = optimal.max(stripe_size.saturating_mul(columns.len() as u64));
        }
    }
    Limits {
        size: layout.size,
        logical_block: largest(|disk| disk.logical_block).unwrap_or(512),
        physical_block: largest(|disk| disk.physical_block).unwrap_or(4096),
        minimum_io: u32::try_from(minimum).unwrap_or(0),
        optimal_io: u32::try_from(optimal).unwrap_or(0),
        read_only: layout.fed,
        discard: true,
        // Where a disk has no fast way, it says so for each request.
        fast_zero: true,
        rotational: disks.iter().any(|disk| disk.rotational),
    }
}

/// Does the layout name open disks only, and places that they have?
pub(super) fn check_disks(layout: &VolumeLayout, disks: &Disks) -> Result<(), LaneError> {
    let known = |place: &DiskRange| {
        disks
            .get(place.disk)
            .is_some_and(|disk| place.range.end() <= disk.size)
    };
    let pieces = layout.plexes.iter().flat_map(|plex| &plex.map);
    let all_known = pieces.into_iter().all(|piece| match piece {
        Piece::Concat(place) => known(place),
        Piece::Striped { columns, .. } => columns.iter().all(known),
    });
    let logs_known = layout.log.iter().all(known);
    (all_known && logs_known)
        .then_some(())
        .ok_or(LaneError::UnknownDisk)
}

/// The images of the log's copies that can be read.
pub(super) fn read_logs(layout: &VolumeLayout, disks: &Disks) -> Result<Vec<Vec<u8>>, LaneError> {
    check_disks(layout, disks)?;
    let mut images = Vec::new();
    let mut failure = None;
    for copy in &layout.log {
        let disk = disks.get(copy.disk).ok_or(LaneError::UnknownDisk)?;
        match disk.read_now(copy.range) {
            Ok(image) => images.push(image),
            Err(error) => {
                tracing::warn!(disk = %disk.spec.path.display(), %error, "log copy not read");
                // The engine takes an unreadable copy as one without anything valid in it.
                images.push(Vec::new());
                failure = Some(error);
            }
        }
    }
    match failure {
        Some(error) if images.iter().all(Vec::is_empty) => Err(error),
        _ => Ok(images),
    }
}
