//! What is set on the block device itself, once it is there.

use crate::sys::block;
use crate::{Device, UblkError};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long a user who has a new device for himself is waited for.
const BUSY: Duration = Duration::from_secs(1);

impl Device {
    /// The device that users see.
    pub fn block_path(&self) -> PathBuf {
        PathBuf::from(format!("/dev/ublkb{}", self.id()))
    }

    fn sys_path(&self, attribute: &str) -> PathBuf {
        PathBuf::from(format!("/sys/block/ublkb{}/{attribute}", self.id()))
    }

    /// Makes the block device refuse writes, or take them again. Needs a started device. The kernel lets
    /// administrators do it only: an ordinary user's device stays as it was made.
    pub fn set_read_only(&self, read_only: bool) -> Result<(), UblkError> {
        let path = self.block_path();
        let wanted = if read_only { "1" } else { "0" };
        if fs::read_to_string(self.sys_path("ro")).is_ok_and(|now| now.trim() == wanted) {
            return Ok(());
        }
        OpenOptions::new()
            .read(true)
            .open(&path)
            .and_then(|device| block::set_read_only(&device, read_only))
            .map_err(|source| UblkError::Io {
                what: format!("cannot set the read-only flag of {}", path.display()),
                source,
            })
    }

    /// Asks the kernel to leave pages alone while they are being written (`queue/stable_writes`), for
    /// a device whose pages are read more than once. Filesystems look at it when they are mounted,
    /// and the page cache of a partition when the partition appears: so this is to be done while the
    /// device has no size yet, and nobody can use it.
    pub fn set_stable_pages(&self) -> Result<(), UblkError> {
        let path = self.sys_path("queue/stable_writes");
        fs::read_to_string(&path)
            .and_then(|now| match now.trim() {
                "1" => Ok(()),
                _ => fs::write(&path, "1"),
            })
            .map_err(|source| UblkError::Io {
                what: format!("cannot have stable pages by {}", path.display()),
                source,
            })
    }

    /// A device that was started without a size has one now: partitions appear, and udev looks at it
    /// again. Of its own the kernel does neither.
    pub fn announce(&self) -> Result<(), UblkError> {
        let path = self.block_path();
        OpenOptions::new()
            .read(true)
            .open(&path)
            .and_then(|device| scan_partitions(&device))
            .and_then(|()| fs::write(self.sys_path("uevent"), "change"))
            .map_err(|source| UblkError::Io {
                what: format!("cannot announce {}", path.display()),
                source,
            })
    }
}

/// The kernel refuses while someone has the device for himself. One who only looks lets go of it soon;
/// a user who stays knows what is on it.
fn scan_partitions(device: &File) -> io::Result<()> {
    let since = Instant::now();
    loop {
        match block::scan_partitions(device) {
            Err(error) if error.kind() != io::ErrorKind::ResourceBusy => return Err(error),
            Err(_) if since.elapsed() < BUSY => std::thread::sleep(Duration::from_millis(50)),
            Ok(()) | Err(_) => return Ok(()),
        }
    }
}
