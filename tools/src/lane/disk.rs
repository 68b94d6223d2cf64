//! The disks of a lane: how they were opened and what they can do.

use super::LaneError;
use blockio::{ByteRange, IoError, IoErrorKind};
use ringio::Handle;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;
use uuid::Uuid;
use volmgr::engine::{DiskId, DiskOp};

/// A disk to open. Its place in the list is its [`DiskId`].
#[derive(Clone)]
pub struct DiskSpec {
    /// Device or file.
    pub path: PathBuf,
    /// The physical volume that it is.
    pub pv: Uuid,
    /// Claim a block device for this lane alone (`O_EXCL`). Volumes that share a disk cannot each
    /// have it: then whoever assembled the group holds the claim, and this is false.
    pub exclusive: bool,
    /// Faults for tests.
    #[cfg(test)]
    pub fault: Option<Fault>,
}

/// Says which operations fail, and how.
#[cfg(test)]
pub type Fault = Arc<dyn Fn(DiskOp, ByteRange) -> Option<IoError> + Send + Sync>;

impl DiskSpec {
    /// A disk that others may have open, too.
    pub fn new(path: impl Into<PathBuf>, pv: Uuid) -> Self {
        Self {
            path: path.into(),
            pv,
            exclusive: false,
            #[cfg(test)]
            fault: None,
        }
    }
}

/// An open disk.
pub(super) struct Disk {
    pub spec: DiskSpec,
    /// The ring's descriptor: direct where possible.
    pub io: Handle,
    /// For transfers inside the kernel (`sendfile`, `splice`), through the page cache.
    pub buffered: Arc<File>,
    /// `io` bypasses the page cache.
    pub direct: bool,
    pub is_block: bool,
    /// Unit of I/O in bytes.
    pub logical_block: u32,
    pub physical_block: u32,
    pub rotational: bool,
    /// Size in bytes when it was opened.
    pub size: u64,
    /// It has lost its end: nothing is done on it any more. A write behind the new end would make
    /// it long again, and what was lost would read as zeroes instead of failing.
    pub broken: bool,
    /// Operations that failed.
    pub errors: u64,
}

impl Disk {
    pub fn open(spec: DiskSpec) -> Result<Self, LaneError> {
        let failed = |source| LaneError::Open {
            path: spec.path.clone(),
            source,
        };
        let exclusive = if spec.exclusive { libc::O_EXCL } else { 0 };
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        // Files have no exclusive open; O_EXCL without O_CREAT means something on devices only.
        let direct = options
            .custom_flags(libc::O_DIRECT | libc::O_CLOEXEC | exclusive)
            .open(&spec.path);
        let (file, mut direct) = match direct {
            Ok(file) => (file, true),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                options.custom_flags(libc::O_CLOEXEC | exclusive);
                (options.open(&spec.path).map_err(failed)?, false)
            }
            Err(error) => return Err(failed(error)),
        };
        let buffered = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_CLOEXEC)
            .open(&spec.path)
            .map_err(failed)?;
        let block = ringio::sys::block_info(&file);
        let align = direct.then(|| ringio::sys::direct_align(&file)).flatten();
        let mut logical_block = match (&block, align) {
            (Some(block), _) => block.logical_block,
            (None, Some(align)) => align.offset,
            (None, None) if direct => 4096,
            (None, None) => 512,
        };
        let memory = align.map_or(512, |align| align.memory);
        if logical_block > 4096 || memory > 4096 {
            // Front ends speak of 4096 at most: let the page cache do the alignment.
            direct = false;
            logical_block = 4096;
        }
        let size = match &block {
            Some(block) => block.size,
            None => buffered.metadata().map_err(failed)?.len(),
        };
        let buffered = Arc::new(buffered);
        let io = if direct {
            Arc::new(file)
        } else if spec.exclusive {
            // Keeps the claim; I/O goes through it, buffered or not.
            Arc::new(file)
        } else {
            Arc::clone(&buffered)
        };
        Ok(Self {
            io: io.into(),
            buffered,
            direct,
            is_block: block.is_some(),
            logical_block: logical_block.clamp(512, 4096),
            physical_block: block.map_or(4096, |block| block.physical_block.max(512)),
            rotational: block.is_some_and(|block| block.rotational),
            spec,
            size,
            broken: false,
            errors: 0,
        })
    }

    /// Reads a range, blocking: for the start, when nothing else runs yet.
    pub fn read_now(&self, range: ByteRange) -> Result<Vec<u8>, LaneError> {
        let len = usize::try_from(range.len()).map_err(|_| LaneError::LogTooLarge)?;
        let mut bytes = vec![0; len];
        self.buffered
            .read_exact_at(&mut bytes, range.start())
            .map_err(|source| LaneError::ReadLog {
                path: self.spec.path.clone(),
                source,
            })?;
        Ok(bytes)
    }

    /// Why this operation is not even tried: the disk is broken, or a test wants a fault.
    pub fn fault(&self, op: DiskOp, range: ByteRange) -> Option<IoError> {
        if self.broken {
            return Some(IoError::new(IoErrorKind::Medium));
        }
        #[cfg(test)]
        return self.spec.fault.as_ref().and_then(|fault| fault(op, range));
        #[cfg(not(test))]
        {
            let _unused = (op, range);
            None
        }
    }
}

/// The table of open disks; ids index it.
#[derive(Default)]
pub(super) struct Disks {
    all: Vec<Disk>,
}

impl Disks {
    pub fn open(specs: Vec<DiskSpec>) -> Result<Self, LaneError> {
        let all = specs
            .into_iter()
            .map(Disk::open)
            .collect::<Result<_, _>>()?;
        Ok(Self { all })
    }

    /// Opens those of `specs` that are new; known ones keep their place. The list may only grow.
    pub fn extend(&mut self, specs: Vec<DiskSpec>) -> Result<(), LaneError> {
        if specs.len() < self.all.len() {
            return Err(LaneError::DiskTable);
        }
        for (disk, spec) in self.all.iter().zip(&specs) {
            if disk.spec.pv != spec.pv {
                return Err(LaneError::DiskTable);
            }
        }
        let new = specs
            .into_iter()
            .skip(self.all.len())
            .map(Disk::open)
            .collect::<Result<Vec<_>, _>>()?;
        self.all.extend(new);
        Ok(())
    }

    pub fn get(&self, id: DiskId) -> Option<&Disk> {
        self.all.get(id.0 as usize)
    }

    pub fn get_mut(&mut self, id: DiskId) -> Option<&mut Disk> {
        self.all.get_mut(id.0 as usize)
    }

    /// Finds files that someone has truncated. A write in flight may make such a file longer again,
    /// though never as long as it was (a label ends the disk, and the lane does not write it): what
    /// was lost then reads as zeroes. So this must come between the end of an operation and the use
    /// of its result; it costs an `fstat` a file.
    pub fn check_sizes(&mut self, volume: &str) {
        for disk in self.all.iter_mut().filter(|disk| !disk.is_block) {
            let short = disk
                .buffered
                .metadata()
                .is_ok_and(|now| now.len() < disk.size);
            if short && !disk.broken {
                disk.broken = true;
                tracing::error!(volume, disk = %disk.spec.path.display(), "disk has been truncated");
            }
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Disk> {
        self.all.iter()
    }
}
