//! Who uses a block device.
//!
//! The kernel has no count to ask for, so this looks where users show: descriptors, mounts in any
//! namespace, swap, devices stacked on it. What lives in the kernel alone (an exported target, say)
//! does not show here; `TRY_STOP_DEV` or an exclusive open finds it before a device is stopped.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How old an answer for a listing may be.
const FRESH_ENOUGH: Duration = Duration::from_millis(500);

/// What was seen in one look at all processes.
#[derive(Default)]
struct Look {
    /// Open descriptors, by name of the device (`ublkb0`, `ublkb0p1`).
    opened: BTreeMap<String, u32>,
    /// `MAJOR:MINOR` of mounted devices.
    mounted: BTreeSet<String>,
    /// Names of devices that are swapped to.
    swapped: BTreeSet<String>,
}

/// Number of users of `/dev/ublkbN` now.
pub fn count(id: u32) -> u32 {
    look().users(id)
}

/// The same for a listing: may be half a second old.
pub fn count_roughly(id: u32) -> u32 {
    static LAST: Mutex<Option<(Instant, Arc<Look>)>> = Mutex::new(None);
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    let known = last
        .as_ref()
        .filter(|(when, _)| when.elapsed() < FRESH_ENOUGH)
        .map(|(_, look)| Arc::clone(look));
    let look = known.unwrap_or_else(|| {
        let look = Arc::new(look());
        *last = Some((Instant::now(), Arc::clone(&look)));
        look
    });
    look.users(id)
}

/// Does anyone claim the device for himself? Finds users inside the kernel.
pub fn claimed(id: u32) -> bool {
    fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_EXCL | libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(format!("/dev/ublkb{id}"))
        .is_err_and(|error| error.raw_os_error() == Some(libc::EBUSY))
}

impl Look {
    fn users(&self, id: u32) -> u32 {
        let disk = format!("ublkb{id}");
        let mut users = 0;
        for name in with_partitions(&disk) {
            users += self.opened.get(&name).copied().unwrap_or(0);
            users += u32::from(self.swapped.contains(&name));
            let sys = format!("/sys/class/block/{name}");
            let number = fs::read_to_string(format!("{sys}/dev")).unwrap_or_default();
            users += u32::from(self.mounted.contains(number.trim()));
            let holders = fs::read_dir(format!("{sys}/holders")).into_iter().flatten();
            users = users.saturating_add(u32::try_from(holders.count()).unwrap_or(u32::MAX));
        }
        users
    }
}

fn with_partitions(disk: &str) -> Vec<String> {
    let inside = fs::read_dir(format!("/sys/class/block/{disk}"));
    let names = inside.into_iter().flatten().flatten();
    names
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with(disk))
        .chain([disk.to_owned()])
        .collect()
}

/// Looks at all processes. What disappears meanwhile uses nothing any more.
fn look() -> Look {
    let mut look = Look::default();
    let own = std::process::id().to_string();
    let mut namespaces = BTreeSet::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().filter(|name| name.parse::<u32>().is_ok()) else {
            continue;
        };
        let process = entry.path();
        if pid != own {
            for fd in fs::read_dir(process.join("fd"))
                .into_iter()
                .flatten()
                .flatten()
            {
                let target = fs::read_link(fd.path()).ok();
                if let Some(device) = target.as_ref().and_then(|path| device_name(path.to_str()?)) {
                    *look.opened.entry(device.to_owned()).or_default() += 1;
                }
            }
        }
        // The namespace of a process with more rights than this one is not to be seen; its mounts are, and
        // those of the first process are the machine's.
        let namespace = fs::read_link(process.join("ns/mnt")).ok();
        let namespace = namespace.or_else(|| (name == "1").then(|| "1".into()));
        if let Some(namespace) = namespace
            && namespaces.insert(namespace)
            && let Ok(mounts) = fs::read_to_string(process.join("mountinfo"))
        {
            look.mounted.extend(mounted(&mounts));
        }
    }
    let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
    let swaps = swaps.lines().filter_map(|line| line.split(' ').next());
    look.swapped
        .extend(swaps.filter_map(device_name).map(str::to_owned));
    look
}

fn device_name(path: &str) -> Option<&str> {
    path.strip_prefix("/dev/")
        .filter(|name| name.starts_with("ublkb"))
}

/// The third field of each line of `mountinfo`.
fn mounted(mountinfo: &str) -> impl Iterator<Item = String> {
    mountinfo
        .lines()
        .filter_map(|line| line.split(' ').nth(2).map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_known_by_their_device() {
        let text =
            "22 1 0:21 / /proc rw - proc proc rw\n31 1 259:0 / /mnt rw - ext4 /dev/ublkb0 rw\n";
        let found: Vec<String> = mounted(text).collect();
        assert_eq!(found, ["0:21", "259:0"]);
    }

    #[test]
    fn only_block_devices_of_ublk_count() {
        assert_eq!(device_name("/dev/ublkb3"), Some("ublkb3"));
        assert_eq!(device_name("/dev/ublkc3"), None);
        assert_eq!(device_name("/home/dev/ublkb3"), None);
    }

    #[test]
    fn users_are_added_up() {
        let mut look = Look::default();
        look.opened.insert("ublkb4000000".into(), 2);
        look.swapped.insert("ublkb4000000".into());
        assert_eq!(look.users(4_000_000), 3);
        assert_eq!(look.users(4_000_001), 0);
    }
}
