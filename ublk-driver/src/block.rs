//! What is set on the block device itself, once it is there.

use crate::sys::block;
use crate::{Device, UblkError};
use std::fs::{self, OpenOptions};
use std::io;
use std::path::PathBuf;

impl Device {
    /// The device that users see.
    pub fn block_path(&self) -> PathBuf {
        PathBuf::from(format!("/dev/ublkb{}", self.id()))
    }

    fn sys_path(&self, attribute: &str) -> PathBuf {
        PathBuf::from(format!("/sys/block/ublkb{}/{attribute}", self.id()))
    }

    /// Makes the block device refuse writes, or take them again. Needs a started device.
    pub fn set_read_only(&self, read_only: bool) -> Result<(), UblkError> {
        let path = self.block_path();
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
            .and_then(|device| match block::scan_partitions(&device) {
                // Someone holds it for himself already: he knows what is on it.
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Ok(()),
                scanned => scanned,
            })
            .and_then(|()| fs::write(self.sys_path("uevent"), "change"))
            .map_err(|source| UblkError::Io {
                what: format!("cannot announce {}", path.display()),
                source,
            })
    }
}
