//! The volumes' logs while nobody serves the volumes: formatted, brought to the volume's size,
//! copied to where a copy is missing. The engine writes them while a volume is served.

use super::disks::FilePv;
use super::groups::GroupView;
use regionmap::log::{BLOCK, DRL_SLOT, Geometry, PageState, SLOTS};
use regionmap::{PAGE_REGIONS, PAGE_WORDS, PageBits};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use uuid::Uuid;
use volmgr::model::{Group, LogCopy, Volume};

/// Bytes copied at a time.
const COPY_BYTES: u64 = 1 << 20;

/// Why a log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// No valid copy can be read.
    #[error("no valid copy of its log can be read")]
    NoCopy,
    /// A disk failed.
    #[error("log on {disk}: {source}")]
    Io {
        /// Where.
        disk: String,
        /// Why.
        source: io::Error,
    },
    /// It is not this volume's.
    #[error("log on {disk}: {why}")]
    Foreign {
        /// Where.
        disk: String,
        /// What is wrong.
        why: String,
    },
}

/// One copy of a log: a disk and a place on it.
struct Copy<'a> {
    disk: &'a FilePv,
    start: u64,
}

impl<'a> Copy<'a> {
    fn of(group: &Group, disks: &'a BTreeMap<Uuid, FilePv>, log: &LogCopy) -> Option<Self> {
        let pv = group.pv(log.pv)?;
        let disk = disks.get(&log.pv)?;
        let offset = log.pv_extent.checked_mul(group.extent_size)?;
        Some(Self {
            disk,
            start: pv.data_start.checked_add(offset)?,
        })
    }

    fn failed(&self) -> impl FnOnce(io::Error) -> LogError {
        let disk = self.disk.path().display().to_string();
        move |source| LogError::Io { disk, source }
    }

    fn write_all(&self, writes: impl Iterator<Item = (u64, Vec<u8>)>) -> Result<(), LogError> {
        let mut header = None;
        for (at, bytes) in writes {
            if at == 0 {
                header = Some(bytes);
                continue;
            }
            self.disk
                .write_at(self.start + at, &bytes)
                .map_err(self.failed())?;
        }
        self.disk.sync().map_err(self.failed())?;
        if let Some(header) = header {
            // Last, and on its own: an area that is not finished is not taken for a log.
            self.disk
                .write_at(self.start, &header)
                .map_err(self.failed())?;
            self.disk.sync().map_err(self.failed())?;
        }
        Ok(())
    }

    fn header(&self, volume: Uuid) -> Result<Geometry, LogError> {
        let mut block = vec![0; BLOCK as usize];
        self.disk
            .read_at(self.start, &mut block)
            .map_err(self.failed())?;
        let foreign = |why: String| LogError::Foreign {
            disk: self.disk.path().display().to_string(),
            why,
        };
        let geometry = Geometry::decode_header(&block).map_err(|e| foreign(e.to_string()))?;
        if geometry.volume != volume {
            return Err(foreign(format!("belongs to volume {}", geometry.volume)));
        }
        Ok(geometry)
    }

    fn copy_from(&self, from: &Copy<'_>, bytes: u64) -> Result<(), LogError> {
        let mut buffer = vec![0; COPY_BYTES.min(bytes) as usize];
        let mut at = 0;
        while at < bytes {
            let step = COPY_BYTES.min(bytes - at) as usize;
            from.disk
                .read_at(from.start + at, &mut buffer[..step])
                .map_err(from.failed())?;
            self.disk
                .write_at(self.start + at, &buffer[..step])
                .map_err(self.failed())?;
            at += step as u64;
        }
        self.disk.sync().map_err(self.failed())
    }
}

/// Writes fresh logs at all of the volume's copies; the maps of `dirty_plexes` start all dirty.
pub fn format(
    group: &Group,
    volume: &Volume,
    disks: &BTreeMap<Uuid, FilePv>,
    dirty_plexes: &BTreeSet<Uuid>,
) -> Result<(), LogError> {
    let geometry = geometry(group, volume);
    let slots: Vec<u32> = volume
        .plexes
        .iter()
        .filter(|plex| dirty_plexes.contains(&plex.uuid))
        .map(|plex| plex.map_slot)
        .collect();
    for log in &volume.log {
        let copy = Copy::of(group, disks, log).ok_or(LogError::NoCopy)?;
        copy.write_all(geometry.format(&slots))?;
    }
    Ok(())
}

/// How far the volume's log has come, while nobody serves the volume: as the engine's
/// [`log_stamp`](volmgr::engine::Engine::log_stamp).
pub fn stamp(
    group: &Group,
    volume: &Volume,
    disks: &BTreeMap<Uuid, FilePv>,
) -> Result<u64, LogError> {
    let geometry = geometry(group, volume);
    let mut newest = 0;
    for log in volume.log.iter().filter(|log| log.valid) {
        let Some(copy) = Copy::of(group, disks, log) else {
            continue;
        };
        let mut pair = vec![0; 2 * BLOCK as usize];
        copy.disk
            .read_at(copy.start + geometry.page_offset(DRL_SLOT, 0, 0), &mut pair)
            .map_err(copy.failed())?;
        let (a, b) = pair.split_at(BLOCK as usize);
        if let PageState::Valid { sequence, .. } = geometry.decode_pair(DRL_SLOT, 0, a, b) {
            newest = newest.max(sequence);
        }
    }
    Ok(newest)
}

/// The geometry that the volume's log should have.
pub fn geometry(group: &Group, volume: &Volume) -> Geometry {
    Geometry {
        volume: volume.uuid,
        size: group.bytes_of(volume),
        region_size: volume.region_size,
    }
}

/// Brings the valid copies to the volume's present size: after the volume was grown or cut, also
/// where a crash came between the commit and this. Harmless for an active volume that grows: only
/// pages behind the present ones are written, and the header, which nobody else writes.
pub fn fit(
    view: &GroupView,
    volume: &Volume,
    disks: &BTreeMap<Uuid, FilePv>,
) -> Result<(), LogError> {
    let wanted = geometry(&view.group, volume);
    let mut fitted = false;
    let mut failure = LogError::NoCopy;
    for log in volume.log.iter().filter(|log| log.valid) {
        let Some(copy) = Copy::of(&view.group, disks, log) else {
            continue;
        };
        let done = copy.header(volume.uuid).and_then(|now| {
            if now.size == wanted.size {
                Ok(())
            } else if now.size < wanted.size {
                copy.write_all(now.grow(wanted.size))
            } else {
                copy.write_all(std::iter::once((0, wanted.encode_header())))
            }
        });
        match done {
            Ok(()) => fitted = true,
            Err(error) => failure = error,
        }
    }
    if fitted { Ok(()) } else { Err(failure) }
}

/// Before a commit that moves copies of the log: writes their content to the new places.
pub fn move_copies(
    group: &Group,
    old: &Volume,
    new: &Volume,
    disks: &BTreeMap<Uuid, FilePv>,
) -> Result<(), LogError> {
    let geometry = geometry(group, old);
    let bytes = geometry.log_bytes().ok_or(LogError::NoCopy)?;
    let from = valid_copy(group, old, disks)?;
    for log in &new.log {
        let place = |log: &LogCopy| (log.pv, log.pv_extent);
        if old.log.iter().any(|before| place(before) == place(log)) {
            continue;
        }
        let to = Copy::of(group, disks, log).ok_or(LogError::NoCopy)?;
        to.copy_from(&from, bytes)?;
    }
    Ok(())
}

/// Copies of the log that missed updates and whose disk is here again: written anew from a valid
/// one. Returns the numbers of their plexes, for the commit that says that they are valid.
pub fn heal(
    view: &GroupView,
    volume: &Volume,
    disks: &BTreeMap<Uuid, FilePv>,
) -> Result<Vec<u32>, LogError> {
    let geometry = geometry(&view.group, volume);
    let bytes = geometry.log_bytes().ok_or(LogError::NoCopy)?;
    let mut healed = Vec::new();
    for log in volume.log.iter().filter(|log| !log.valid) {
        let plex = volume.plexes.iter().find(|plex| plex.uuid == log.plex);
        let here = view
            .group
            .pv(log.pv)
            .is_some_and(|pv| pv.missing_since.is_none());
        let (Some(plex), true, Some(to)) = (plex, here, Copy::of(&view.group, disks, log)) else {
            continue;
        };
        let from = valid_copy(&view.group, volume, disks)?;
        to.copy_from(&from, bytes)?;
        healed.push(plex.number);
    }
    Ok(healed)
}

/// Formats the copies that are not valid and whose disk is here, for an engine that then writes
/// them in full. Returns the numbers of their plexes.
pub fn format_invalid(
    view: &GroupView,
    volume: &Volume,
    disks: &BTreeMap<Uuid, FilePv>,
) -> Result<Vec<u32>, LogError> {
    let geometry = geometry(&view.group, volume);
    let mut formatted = Vec::new();
    for log in volume.log.iter().filter(|log| !log.valid) {
        let plex = volume.plexes.iter().find(|plex| plex.uuid == log.plex);
        let here = view
            .group
            .pv(log.pv)
            .is_some_and(|pv| pv.missing_since.is_none());
        if let (Some(plex), true, Some(copy)) = (plex, here, Copy::of(&view.group, disks, log)) {
            copy.write_all(geometry.format(&[]))?;
            formatted.push(plex.number);
        }
    }
    Ok(formatted)
}

/// Marks everything dirty in one map, in all valid copies: for a plex that has nothing yet and
/// gets a slot that another one had.
pub fn set_all_dirty(
    group: &Group,
    volume: &Volume,
    disks: &BTreeMap<Uuid, FilePv>,
    slot: u32,
) -> Result<(), LogError> {
    debug_assert!(slot != DRL_SLOT && slot < SLOTS);
    let geometry = geometry(group, volume);
    let mut written = false;
    for log in volume.log.iter().filter(|log| log.valid) {
        let Some(copy) = Copy::of(group, disks, log) else {
            continue;
        };
        for page in 0..geometry.pages() {
            let mut pair = vec![0; 2 * BLOCK as usize];
            copy.disk
                .read_at(copy.start + geometry.page_offset(slot, page, 0), &mut pair)
                .map_err(copy.failed())?;
            let (a, b) = pair.split_at(BLOCK as usize);
            let (sequence, block) = match geometry.decode_pair(slot, page, a, b) {
                PageState::Valid {
                    sequence, block, ..
                } => (sequence + 1, 1 - block),
                PageState::Unwritten => (1, 0),
                // It counts as all dirty already.
                PageState::Lost => continue,
            };
            let bytes = geometry.encode_page(slot, page, sequence, &all_dirty(&geometry, page));
            copy.disk
                .write_at(copy.start + geometry.page_offset(slot, page, block), &bytes)
                .map_err(copy.failed())?;
        }
        copy.disk.sync().map_err(copy.failed())?;
        written = true;
    }
    if written {
        Ok(())
    } else {
        Err(LogError::NoCopy)
    }
}

fn valid_copy<'a>(
    group: &Group,
    volume: &Volume,
    disks: &'a BTreeMap<Uuid, FilePv>,
) -> Result<Copy<'a>, LogError> {
    volume
        .log
        .iter()
        .filter(|log| log.valid)
        .filter_map(|log| Copy::of(group, disks, log))
        .find(|copy| copy.header(volume.uuid).is_ok())
        .ok_or(LogError::NoCopy)
}

/// Bits of a page, set for every region that there is.
fn all_dirty(geometry: &Geometry, page: u64) -> PageBits {
    let regions = geometry.size.div_ceil(geometry.region_size);
    let here = regions
        .saturating_sub(page * PAGE_REGIONS)
        .min(PAGE_REGIONS);
    let mut bits = [0u64; PAGE_WORDS];
    for region in 0..here {
        bits[(region / 64) as usize] |= 1 << (region % 64);
    }
    bits
}
