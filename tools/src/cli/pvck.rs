//! `pvck`: is a disk's label and metadata as it should be, and what do they say?
//!
//! Works on a dead machine: no daemon, no locks, the disk is opened for reading only. So beside a
//! running daemon it may catch a commit half-way; a second look tells.

use super::args::PvckDump;
use super::failure::{EXIT_FAILED, failure};
use super::report::value::Units;
use crate::api::Failure;
use blockio::ByteRange;
use regionmap::RegionMap;
use regionmap::log::{BLOCK, DRL_SLOT, Geometry, PAGE_STRIDE, PageState};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::Path;
use volmgr::metadata::{PvIo, PvScan, dump_label, dump_metadata, inspect};
use volmgr::model::{Group, LogCopy, Volume};

/// What a look at a disk has found.
#[derive(Debug)]
pub struct Checked {
    /// For the reader.
    pub text: String,
    /// Set when something is damaged.
    pub damage: Option<Failure>,
}

/// Looks at a disk.
pub fn run(path: &Path, dump: Option<PvckDump>) -> Result<Checked, Failure> {
    let object = path.display().to_string();
    let cannot =
        |why: &dyn std::fmt::Display| failure(EXIT_FAILED, &object, "cannot check", why, "");
    let mut disk = Disk::open(path).map_err(|error| cannot(&error))?;
    let scan = inspect(&mut disk).map_err(|error| match std::error::Error::source(&error) {
        Some(source) => cannot(&format!("{error}: {source}")),
        None => cannot(&error),
    })?;
    let mut problems = scan.problems();
    let text = match dump {
        None => summary(&object, &scan),
        Some(PvckDump::Label) => dump_label(&scan),
        Some(PvckDump::Metadata) => dump_metadata(&scan),
        Some(PvckDump::Dirty) => dirty(&disk, &scan, &mut problems),
    };
    let (what, hint) = match scan.chosen_label() {
        None => ("no readable label", ""),
        Some(_) => (
            "damaged",
            "what the other disks of the group still have is repaired by volmgrd: volmgr vgscan",
        ),
    };
    let damage = (!problems.is_empty())
        .then(|| failure(EXIT_FAILED, &object, what, problems.join("; "), hint));
    Ok(Checked { text, damage })
}

/// The disk, for reading.
struct Disk {
    file: File,
    size: u64,
}

impl Disk {
    fn open(path: &Path) -> io::Result<Self> {
        // Looked at first: opening a pipe would wait for somebody to write to it.
        let kind = std::fs::metadata(path)?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(io::Error::other(
                "neither a regular file nor a block device",
            ));
        }
        let mut file = File::open(path)?;
        let size = file.seek(SeekFrom::End(0))?;
        Ok(Disk { file, size })
    }
}

impl PvIo for Disk {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&mut self, at: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buf, at)
    }

    fn write_at(&mut self, _at: u64, _bytes: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync(&mut self) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
}

fn summary(path: &str, scan: &PvScan) -> String {
    let Some(label) = scan.chosen_label() else {
        return String::new();
    };
    let size = Units::default().format(label.pv_size);
    let group = match (&scan.version, label.group) {
        (Some(version), _) => {
            let group = &version.group;
            format!(
                "volume group {}, metadata commit {}",
                group.name, group.seqno
            )
        }
        (None, Some(uuid)) => format!("volume group {uuid}, no readable metadata"),
        (None, None) => "no volume group".to_owned(),
    };
    format!("  {path}: physical volume {}, {size}, {group}\n", label.pv)
}

/// The volume logs on this disk: what each plex and feed misses.
fn dirty(disk: &Disk, scan: &PvScan, problems: &mut Vec<String>) -> String {
    let mut out = String::new();
    let (Some(label), Some(version)) = (scan.chosen_label(), &scan.version) else {
        return out;
    };
    let group = &version.group;
    let Some(pv) = group.pvs.iter().find(|pv| pv.uuid == label.pv) else {
        return out;
    };
    for volume in &group.volumes {
        for copy in volume.log.iter().filter(|copy| copy.pv == label.pv) {
            let name = format!("{}/{}", group.name, volume.name);
            let outcome = log_range(group, pv.data_start, copy)
                .ok_or_else(|| "impossible position".to_owned())
                .and_then(|range| log_copy(&mut out, &name, disk, volume, copy, range));
            if let Err(why) = outcome {
                problems.push(format!("log of {name}: {why}"));
            }
        }
    }
    out
}

fn log_range(group: &Group, data_start: u64, copy: &LogCopy) -> Option<ByteRange> {
    let offset = copy.pv_extent.checked_mul(group.extent_size)?;
    let start = data_start.checked_add(offset)?;
    ByteRange::checked(start, copy.extents.checked_mul(group.extent_size)?)
}

fn log_copy(
    out: &mut String,
    name: &str,
    disk: &Disk,
    volume: &Volume,
    copy: &LogCopy,
    range: ByteRange,
) -> Result<(), String> {
    let validity = match copy.valid {
        true => "",
        false => ", outdated: not to be believed",
    };
    put(
        out,
        format_args!(
            "volume {name}, log at {}+{}{validity}",
            range.start(),
            range.len()
        ),
    );
    let mut header = vec![0; BLOCK as usize];
    let read = |buffer: &mut [u8], at: u64| {
        let inside = at
            .checked_add(buffer.len() as u64)
            .is_some_and(|end| end <= range.len());
        match inside {
            true => disk
                .file
                .read_exact_at(buffer, range.start() + at)
                .map_err(|error| format!("byte {}: {error}", range.start() + at)),
            false => Err("it is longer than its place".to_owned()),
        }
    };
    read(&mut header, 0)?;
    let geometry = Geometry::decode_header(&header).map_err(|error| error.to_string())?;
    if geometry.volume != volume.uuid {
        return Err(format!("it belongs to volume {}", geometry.volume));
    }
    // A header may lie about sizes; its place on the disk does not.
    let pages = geometry.pages();
    if pages > range.len() / PAGE_STRIDE {
        return Err(format!(
            "{pages} pages do not fit its {} bytes",
            range.len()
        ));
    }
    for (slot, owner) in owners(volume) {
        let mut map = RegionMap::new(geometry.size, geometry.region_size);
        let mut lost = 0u64;
        for page in 0..pages {
            let mut pair = vec![0; 2 * BLOCK as usize];
            read(&mut pair, geometry.page_offset(slot, page, 0))?;
            let (a, b) = pair.split_at(BLOCK as usize);
            match geometry.decode_pair(slot, page, a, b) {
                PageState::Unwritten => {}
                PageState::Lost => lost += 1,
                PageState::Valid { bits, .. } => map.merge_page(page, &bits),
            }
        }
        put(
            out,
            format_args!(
                "  slot {slot:2} {owner}: {} of {} regions, {} bytes",
                map.count(),
                map.regions(),
                map.bytes()
            ),
        );
        for run in map.runs(u64::MAX) {
            put(out, format_args!("    {}+{}", run.start(), run.len()));
        }
        if lost > 0 {
            put(
                out,
                format_args!("    {lost} damaged pages: all their regions count as dirty"),
            );
            return Err(format!("slot {slot}: {lost} damaged pages"));
        }
    }
    Ok(())
}

/// The slots in use, and whose they are.
fn owners(volume: &Volume) -> Vec<(u32, String)> {
    let mut owners = vec![(DRL_SLOT, "dirty-region log".to_owned())];
    owners.extend(
        volume
            .plexes
            .iter()
            .map(|plex| (plex.map_slot, format!("plex{} misses", plex.number))),
    );
    owners.extend(
        volume
            .feeds
            .iter()
            .map(|feed| (feed.map_slot, format!("feed with {} misses", feed.peer))),
    );
    owners.extend(volume.points.iter().filter_map(|point| {
        let slot = point.map_slot?;
        Some((slot, format!("changed since point {}", point.name)))
    }));
    // A slot number of damaged metadata must not reach into another page.
    owners.retain(|(slot, _)| *slot < regionmap::log::SLOTS);
    owners.sort();
    owners
}

fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use regionmap::PAGE_WORDS;
    use std::collections::BTreeMap;
    use uuid::Uuid;
    use volmgr::metadata::{MemPv, Store, assemble, initialise_pv};
    use volmgr::plan::{NewPv, VolumeRequest, create_group, create_volume};

    const SIZE: u64 = 64 << 20;

    /// A disk of group `vg0` with the volume `web`, whose first region is dirty.
    fn disk() -> (tempfile::NamedTempFile, Group) {
        let mut pv = MemPv::new(SIZE);
        let label = initialise_pv(&mut pv, Uuid::from_u128(1)).unwrap();
        let new_pv = NewPv {
            label: label.clone(),
            path: "/disk".into(),
        };
        let group = create_group(Uuid::from_u128(2), "vg0", 1 << 20, vec![new_pv]).unwrap();
        let mut next = 10u128;
        let mut uuids = || {
            next += 1;
            Uuid::from_u128(next)
        };
        let group = create_volume(&group, &VolumeRequest::new("web", 8 << 20), &mut uuids).unwrap();
        commit(&mut pv, group.clone());

        let volume = &group.volumes[0];
        let range = log_range(&group, label.data_start, &volume.log[0]).unwrap();
        let geometry = Geometry {
            volume: volume.uuid,
            size: 8 << 20,
            region_size: volume.region_size,
        };
        for (at, bytes) in geometry.format(&[]) {
            pv.scribble(range.start() + at, &bytes);
        }
        let mut bits = Box::new([0; PAGE_WORDS]);
        bits[0] = 0b101;
        let page = geometry.encode_page(DRL_SLOT, 0, 1, &bits);
        pv.scribble(range.start() + geometry.page_offset(DRL_SLOT, 0, 0), &page);

        let file = tempfile::NamedTempFile::new().unwrap();
        let mut bytes = vec![0; SIZE as usize];
        pv.read_at(0, &mut bytes).unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        (file, group)
    }

    fn commit(pv: &mut MemPv, group: Group) {
        let uuid = group.pvs[0].uuid;
        let mut store = Store::create(group.clone());
        let mut pvs: BTreeMap<Uuid, &mut dyn PvIo> = BTreeMap::new();
        pvs.insert(uuid, pv);
        store.commit(group, Uuid::from_u128(99), &mut pvs).unwrap();
        let scan = inspect(pv).unwrap();
        assert!(assemble(vec![((), scan)]).groups[0].chosen().is_some());
    }

    fn scribble(file: &tempfile::NamedTempFile, at: u64, bytes: &[u8]) {
        let file = File::options().write(true).open(file.path()).unwrap();
        file.write_all_at(bytes, at).unwrap();
    }

    #[test]
    fn a_healthy_disk() {
        let (file, _) = disk();
        let before = std::fs::read(file.path()).unwrap();
        let checked = run(file.path(), None).unwrap();
        assert!(checked.damage.is_none(), "{checked:?}");
        assert!(
            checked
                .text
                .contains("64.00m, volume group vg0, metadata commit 1"),
            "{checked:?}"
        );
        for dump in [PvckDump::Label, PvckDump::Metadata, PvckDump::Dirty] {
            let checked = run(file.path(), Some(dump)).unwrap();
            assert!(checked.damage.is_none(), "{checked:?}");
            assert!(!checked.text.is_empty());
        }
        assert!(
            std::fs::read(file.path()).unwrap() == before,
            "pvck has written"
        );
    }

    #[test]
    fn dirty_regions_are_listed() {
        let (file, _) = disk();
        let text = run(file.path(), Some(PvckDump::Dirty)).unwrap().text;
        assert!(text.contains("volume vg0/web, log at "), "{text}");
        assert!(
            text.contains("dirty-region log: 2 of 128 regions, 131072 bytes\n"),
            "{text}"
        );
        assert!(text.contains("    0+65536\n    131072+65536\n"), "{text}");
        assert!(text.contains("plex0 misses: 0 of 128 regions"), "{text}");
    }

    #[test]
    fn damage_is_5_and_named() {
        let (file, group) = disk();
        scribble(&file, 0, &[0xa5; 64 << 10]);
        let damage = run(file.path(), None).unwrap().damage.unwrap();
        assert_eq!(damage.code, EXIT_FAILED);
        assert!(damage.why.contains("front label"), "{damage:?}");

        let (file, _) = disk();
        let pv = &group.pvs[0];
        let log = log_range(&group, pv.data_start, &group.volumes[0].log[0]).unwrap();
        scribble(&file, log.start(), &[0xa5; 4096]);
        assert!(run(file.path(), None).unwrap().damage.is_none());
        let damage = run(file.path(), Some(PvckDump::Dirty))
            .unwrap()
            .damage
            .unwrap();
        assert!(
            damage.why.contains("log of vg0/web: no valid log header"),
            "{damage:?}"
        );
    }

    #[test]
    fn cut_off_empty_and_odd_files() {
        let (file, _) = disk();
        for size in [0u64, 1, 4096, 5000, 1 << 20, SIZE - 1] {
            let opened = File::options().write(true).open(file.path()).unwrap();
            opened.set_len(SIZE).unwrap();
            opened.set_len(size).unwrap();
            let outcome = run(file.path(), None);
            assert!(
                outcome.is_err() || outcome.unwrap().damage.is_some(),
                "{size}"
            );
        }
        for path in ["/dev/null", "/nonexistent", "/tmp"] {
            assert_eq!(
                run(Path::new(path), None).unwrap_err().code,
                EXIT_FAILED,
                "{path}"
            );
        }
    }
}
