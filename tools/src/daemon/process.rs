//! What the process asks of the kernel before it serves block devices: the machine's memory reclaim
//! may depend on it, so it must not wait for memory or be dragged along by mounts.
//!
//! Nothing here is needed for correctness, so what is not permitted is a warning.

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Files a daemon with many volumes, clients and feeds may need.
const OPEN_FILES_WANTED: u64 = 65_536;

/// Prepares the process; returns what could not be done. Call before the first thread starts:
/// a mount namespace belongs to a thread.
pub fn prepare() -> Vec<String> {
    let mut warnings = Vec::new();
    if let Err(why) = raise_open_files() {
        warnings.push(format!("cannot raise the limit of open files: {why}"));
    }
    if !nix::unistd::geteuid().is_root() {
        return warnings;
    }
    if let Err(why) = own_mount_namespace() {
        warnings.push(format!("cannot have an own mount namespace: {why}"));
    }
    if let Err(why) = super::sys::set_io_flusher() {
        warnings.push(format!("cannot become an I/O flusher: {why}"));
    }
    if let Err(why) = super::sys::lock_memory() {
        warnings.push(format!("cannot lock memory: {why}"));
    }
    // Whoever waits for a volume waits for this process: to kill it frees little and stops much.
    if let Err(why) = std::fs::write("/proc/self/oom_score_adj", "-1000") {
        warnings.push(format!(
            "cannot be kept from being killed when memory runs out: {why}"
        ));
    }
    warnings
}

fn raise_open_files() -> nix::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if hard < OPEN_FILES_WANTED
        && setrlimit(
            Resource::RLIMIT_NOFILE,
            OPEN_FILES_WANTED,
            OPEN_FILES_WANTED,
        )
        .is_ok()
    {
        return Ok(());
    }
    if soft >= hard {
        return Ok(());
    }
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
}

/// What the process uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time in milliseconds.
    pub cpu_millis: u64,
    /// Memory in bytes.
    pub resident_bytes: u64,
    /// Open file descriptors.
    pub open_files: u64,
}

/// What the process uses now; what cannot be found out is 0.
pub fn usage() -> Usage {
    use nix::sys::resource::{UsageWho, getrusage};
    let cpu_millis = getrusage(UsageWho::RUSAGE_SELF).map_or(0, |used| {
        let millis = |time: nix::sys::time::TimeVal| {
            u64::try_from(time.tv_sec() * 1000 + time.tv_usec() / 1000).unwrap_or(0)
        };
        millis(used.user_time()) + millis(used.system_time())
    });
    let resident_bytes = std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix("VmRSS:"))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        })
        .map_or(0, |kib| kib * 1024);
    let open_files = std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64);
    Usage {
        cpu_millis,
        resident_bytes,
        open_files,
    }
}

/// Slave, not private: an unmount on the host must reach this namespace too, or the daemon would
/// keep every file system busy that was mounted when it started.
fn own_mount_namespace() -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_SLAVE,
        None::<&str>,
    )?;
    // File systems on volumes, mounted while an earlier daemon served them. Where mounts are not
    // shared (a machine without systemd), nothing would ever unmount them here again.
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for place in volume_mounts(&mounts) {
        umount2(place.as_str(), MntFlags::MNT_DETACH)?;
    }
    Ok(())
}

/// Where ublk devices are mounted. A place with a character that is escaped there is left alone.
fn volume_mounts(mountinfo: &str) -> Vec<String> {
    let of_line = |line: &str| {
        let (head, tail) = line.split_once(" - ")?;
        let device = tail.split(' ').nth(1)?;
        let place = head.split(' ').nth(4)?;
        (device.starts_with("/dev/ublkb") && !place.contains('\\')).then(|| place.to_owned())
    };
    mountinfo.lines().filter_map(of_line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_uses_something() {
        let used = usage();
        assert!(used.resident_bytes > 1 << 20, "{used:?}");
        assert!(used.open_files > 2, "{used:?}");
    }

    #[test]
    fn mounts_of_volumes_are_found() {
        let text = "31 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n\
                    40 31 259:0 / /mnt/v rw shared:9 - ext4 /dev/ublkb0 rw\n\
                    41 31 259:1 / /mnt/a\\040b rw - ext4 /dev/ublkb1 rw\n";
        assert_eq!(volume_mounts(text), ["/mnt/v"]);
    }
}
