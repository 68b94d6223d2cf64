//! A disk that this daemon has opened and claimed for itself.
//!
//! Two daemons that write the same metadata would destroy it, so a disk is only ever used under a
//! claim: `O_EXCL` on a block device (which also keeps mounts and device-mapper away), an exclusive
//! `flock` on a regular file. The claim lives as long as the [`FilePv`]. The lane opens the disk
//! a second time, without a claim of its own: a second `O_EXCL` would collide with this one.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Which disk it is, whatever it is called: the device number, or the file system and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DiskKey {
    /// A block device, by its number.
    Device(u64),
    /// A regular file.
    File {
        /// Device of the file system.
        dev: u64,
        /// Inode.
        ino: u64,
    },
}

/// Which disk it was, for when it comes back.
#[derive(Clone, Debug)]
pub struct Identity {
    key: DiskKey,
    hardware: Option<Arc<str>>,
}

impl Identity {
    /// Is it the same disk? The hardware's own name says so, where both have one: device numbers
    /// are given to whatever comes next.
    pub fn is_same(&self, other: &Self) -> bool {
        match (&self.hardware, &other.hardware) {
            (Some(one), Some(another)) => one == another,
            _ => self.key == other.key,
        }
    }
}

/// Why a disk cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Nothing there.
    #[error("no such file or device")]
    Missing,
    /// A folder, a socket, …
    #[error("neither a block device nor a regular file")]
    NotADisk,
    /// Someone else has it.
    #[error("in use: mounted, part of another device, or used by another volmgrd")]
    InUse,
    /// The kernel said no.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl ClaimError {
    fn from_open(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Missing,
            io::ErrorKind::ResourceBusy => Self::InUse,
            _ => Self::Io(error),
        }
    }
}

impl DiskKey {
    /// Of the disk at this path.
    pub fn of(path: &Path) -> Result<Self, ClaimError> {
        let metadata = std::fs::metadata(path).map_err(ClaimError::from_open)?;
        let kind = metadata.file_type();
        if kind.is_block_device() {
            Ok(Self::Device(metadata.rdev()))
        } else if kind.is_file() {
            Ok(Self::File {
                dev: metadata.dev(),
                ino: metadata.ino(),
            })
        } else {
            Err(ClaimError::NotADisk)
        }
    }
}

/// An open disk; see the module's documentation for the claim.
#[derive(Debug, Clone)]
pub struct FilePv {
    file: Arc<File>,
    path: PathBuf,
    key: DiskKey,
    hardware: Option<Arc<str>>,
    size: u64,
    claimed: bool,
    epoch: u64,
}

/// Counts openings.
static EPOCH: AtomicU64 = AtomicU64::new(1);

impl FilePv {
    /// Opens for writing and claims it.
    pub fn claim(path: &Path) -> Result<Self, ClaimError> {
        let key = DiskKey::of(path)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        if let DiskKey::Device(_) = key {
            options.custom_flags(libc::O_EXCL);
        }
        let file = options.open(path).map_err(ClaimError::from_open)?;
        if let DiskKey::File { .. } = key {
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(ClaimError::InUse),
                Err(TryLockError::Error(error)) => return Err(error.into()),
            }
        }
        Self::new(file, path, key, true)
    }

    /// Opens for reading, without a claim: for looking at what may not be ours.
    pub fn look(path: &Path) -> Result<Self, ClaimError> {
        let key = DiskKey::of(path)?;
        let file = File::open(path).map_err(ClaimError::from_open)?;
        Self::new(file, path, key, false)
    }

    fn new(mut file: File, path: &Path, key: DiskKey, claimed: bool) -> Result<Self, ClaimError> {
        // The end is the size for block devices as well as for files.
        let size = file.seek(SeekFrom::End(0))?;
        let hardware = match key {
            DiskKey::Device(number) => super::hardware::of_device(number).map(Arc::from),
            DiskKey::File { .. } => None,
        };
        Ok(Self {
            file: Arc::new(file),
            path: path.to_owned(),
            key,
            hardware,
            size,
            claimed,
            epoch: EPOCH.fetch_add(1, Ordering::Relaxed),
        })
    }

    /// Where it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Which disk it is.
    pub fn key(&self) -> DiskKey {
        self.key
    }

    /// Which disk it is, also after it was away.
    pub fn identity(&self) -> Identity {
        Identity {
            key: self.key,
            hardware: self.hardware.clone(),
        }
    }

    /// Is it a regular file?
    pub fn is_file(&self) -> bool {
        matches!(self.key, DiskKey::File { .. })
    }

    /// Size in bytes when it was opened.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Was it claimed, or only opened for looking?
    pub fn is_claimed(&self) -> bool {
        self.claimed
    }

    /// Number of this opening; no two are the same.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Counts as opened anew, still under the same claim: who has the disk open by the old number
    /// opens it again.
    pub fn renew(&mut self) {
        self.epoch = EPOCH.fetch_add(1, Ordering::Relaxed);
    }

    /// Looks again how large it is.
    pub fn refresh_size(&mut self) -> io::Result<()> {
        self.size = self.size_now()?;
        Ok(())
    }

    /// Size in bytes now.
    pub fn size_now(&self) -> io::Result<u64> {
        (&*self.file).seek(SeekFrom::End(0))
    }

    /// Is the disk that was opened still what its path leads to? A file that was deleted, or a
    /// device that was pulled and came back as another, is not.
    pub fn still_there(&self) -> bool {
        DiskKey::of(&self.path).is_ok_and(|key| key == self.key)
    }

    /// Lets the kernel forget what it knows of a device's content, so that the next read asks the
    /// device: one that answers with errors by now has its label in memory all the same.
    pub fn forget_cached(&self) -> io::Result<()> {
        use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
        if self.is_file() {
            return Ok(());
        }
        let advice = PosixFadviseAdvice::POSIX_FADV_DONTNEED;
        posix_fadvise(&*self.file, 0, 0, advice).map_err(io::Error::from)
    }

    /// Fills the buffer.
    pub fn read_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, at)
    }

    /// Writes all of it.
    pub fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        #[cfg(test)]
        cut::step();
        self.file.write_all_at(bytes, at)
    }

    /// Makes what was written durable.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Makes a range read as zeroes without writing them: a hole in a file, an offloaded
    /// write-zeroes on a device.
    pub fn punch(&self, at: u64, len: u64) -> io::Result<()> {
        use nix::fcntl::{FallocateFlags, fallocate};
        let offset = i64::try_from(at).map_err(io::Error::other)?;
        let len = i64::try_from(len).map_err(io::Error::other)?;
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        fallocate(&*self.file, flags, offset, len).map_err(io::Error::from)
    }

    /// Makes a range read as zeroes by writing them.
    pub fn write_zeroes(&self, mut at: u64, mut len: u64) -> io::Result<()> {
        static ZEROES: [u8; 64 << 10] = [0; 64 << 10];
        while len > 0 {
            let step = len.min(ZEROES.len() as u64);
            self.write_at(at, &ZEROES[..step as usize])?;
            at += step;
            len -= step;
        }
        Ok(())
    }
}

impl volmgr::metadata::PvIo for FilePv {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&mut self, at: u64, buf: &mut [u8]) -> io::Result<()> {
        FilePv::read_at(self, at, buf)
    }

    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        FilePv::write_at(self, at, bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        FilePv::sync(self)
    }
}

/// For tests: the process ends at a write, as far as the disks see it.
#[cfg(test)]
pub(crate) mod cut {
    use std::cell::Cell;

    thread_local! {
        static LEFT: Cell<Option<u32>> = const { Cell::new(None) };
    }

    /// As long as it lives, this thread panics instead of its next write but `writes`.
    pub(crate) fn after(writes: u32) -> impl Drop {
        struct Whole;
        impl Drop for Whole {
            fn drop(&mut self) {
                LEFT.set(None);
            }
        }
        LEFT.set(Some(writes));
        Whole
    }

    pub(super) fn step() {
        match LEFT.get() {
            Some(0) => panic!("cut off"),
            Some(left) => LEFT.set(Some(left - 1)),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_keeps_others_away_and_ends_with_its_holder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        File::create(&path).unwrap().set_len(1 << 20).unwrap();
        let first = FilePv::claim(&path).unwrap();
        assert_eq!(first.size(), 1 << 20);
        assert!(matches!(FilePv::claim(&path), Err(ClaimError::InUse)));
        FilePv::look(&path).unwrap();
        drop(first);
        FilePv::claim(&path).unwrap();
    }

    #[test]
    fn what_is_no_disk_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(
            FilePv::claim(dir.path()),
            Err(ClaimError::NotADisk)
        ));
        assert!(matches!(
            FilePv::claim(&dir.path().join("absent")),
            Err(ClaimError::Missing)
        ));
    }

    #[test]
    fn names_do_not_matter_for_identity() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        File::create(&path).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert_eq!(DiskKey::of(&path).unwrap(), DiskKey::of(&link).unwrap());
        let disk = FilePv::claim(&path).unwrap();
        assert!(disk.still_there());
        std::fs::remove_file(&path).unwrap();
        assert!(!disk.still_there());
    }

    #[test]
    fn hardware_is_known_again_under_another_number() {
        let disk = |number, hardware: Option<&str>| Identity {
            key: DiskKey::Device(number),
            hardware: hardware.map(Arc::from),
        };
        assert!(disk(1, Some("x")).is_same(&disk(2, Some("x"))));
        assert!(!disk(1, Some("x")).is_same(&disk(1, Some("y"))));
        assert!(disk(1, None).is_same(&disk(1, Some("y"))));
        assert!(!disk(1, None).is_same(&disk(2, None)));
    }

    #[test]
    fn zeroes_by_hole_and_by_hand() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        std::fs::write(&path, vec![7; 300 << 10]).unwrap();
        let disk = FilePv::claim(&path).unwrap();
        disk.write_zeroes(4096, 200 << 10).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert!(
            bytes[4096..4096 + (200 << 10)]
                .iter()
                .all(|&byte| byte == 0)
        );
        assert_eq!(bytes[4095], 7);
        assert_eq!(bytes[4096 + (200 << 10)], 7);
        // Not every file system has holes; those that do give zeroes and keep the size.
        if disk.punch(0, 4096).is_ok() {
            assert_eq!(std::fs::read(&path).unwrap()[..4096], [0; 4096]);
        }
        assert_eq!(disk.size_now().unwrap(), 300 << 10);
    }
}
