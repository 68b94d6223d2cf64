//! Which piece of hardware a block device is, so that a disk that was pulled is known again when it
//! comes back under another name, and another disk under its old name is not taken for it.

use std::fs;
use std::path::Path;

/// Where the kernel shows devices by their number.
const DEVICES: &str = "/sys/dev/block";

/// What names a disk for good, best first: SCSI and NVMe, virtio, device mapper.
const NAMES: [&str; 4] = ["device/wwid", "wwid", "serial", "dm/uuid"];

/// Name of the hardware behind a device number, with the partition's number if it is one; `None`
/// where the kernel has none.
pub fn of_device(number: u64) -> Option<String> {
    let (major, minor) = (nix::sys::stat::major(number), nix::sys::stat::minor(number));
    let place = fs::canonicalize(format!("{DEVICES}/{major}:{minor}")).ok()?;
    of_place(&place)
}

fn of_place(place: &Path) -> Option<String> {
    let text = |path: &Path| {
        let text = fs::read_to_string(path).ok()?;
        let text = text.trim();
        (!text.is_empty()).then(|| text.to_owned())
    };
    let named = |disk: &Path| {
        NAMES
            .iter()
            .find_map(|name| Some(format!("{name}={}", text(&disk.join(name))?)))
    };
    match text(&place.join("partition")) {
        Some(partition) => Some(format!("{} partition {partition}", named(place.parent()?)?)),
        None => named(place),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_and_partitions_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("sda");
        let partition = disk.join("sda1");
        fs::create_dir_all(disk.join("device")).unwrap();
        fs::create_dir_all(&partition).unwrap();
        fs::write(partition.join("partition"), "1\n").unwrap();
        assert_eq!(of_place(&disk), None);
        assert_eq!(of_place(&partition), None);
        fs::write(disk.join("serial"), "\n").unwrap();
        assert_eq!(of_place(&disk), None, "an empty name names nothing");
        fs::write(disk.join("device/wwid"), "naa.5000c500a1b2c3d4\n").unwrap();
        let name = of_place(&disk).unwrap();
        assert_eq!(name, "device/wwid=naa.5000c500a1b2c3d4");
        assert_eq!(of_place(&partition), Some(format!("{name} partition 1")));
    }
}
