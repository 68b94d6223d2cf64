//! Operations: what is pushed, and what comes back.

use crate::sys::Command;
use crate::{BufMut, BufSlice};
use blockio::{ByteRange, IoError};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// A file or socket, kept open by whoever holds this.
#[derive(Clone, Debug)]
pub enum Handle {
    /// A file or device.
    File(Arc<File>),
    /// Anything else: socket, eventfd.
    Fd(Arc<OwnedFd>),
}

impl AsFd for Handle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::File(file) => file.as_fd(),
            Self::Fd(fd) => fd.as_fd(),
        }
    }
}

impl From<Arc<File>> for Handle {
    fn from(file: Arc<File>) -> Self {
        Self::File(file)
    }
}

impl From<Arc<OwnedFd>> for Handle {
    fn from(fd: Arc<OwnedFd>) -> Self {
        Self::Fd(fd)
    }
}

/// Bytes in a buffer that the kernel keeps in the ring's registered-buffer table (a ublk request).
/// Made by [`crate::Ring::kernel_slot`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelSlot {
    pub(crate) index: u16,
    pub(crate) offset: u64,
    pub(crate) len: u32,
}

impl KernelSlot {
    /// Length in bytes.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// `len` bytes of it, `skip` bytes on; `None` where they do not all exist.
    pub fn part(&self, skip: u64, len: u64) -> Option<Self> {
        let end = skip.checked_add(len)?;
        if end > u64::from(self.len) {
            return None;
        }
        Some(Self {
            index: self.index,
            offset: self.offset.checked_add(skip)?,
            len: u32::try_from(len).ok()?,
        })
    }
}

/// Where a read puts its bytes.
#[derive(Debug)]
pub enum Target {
    /// Memory.
    Pool(BufMut),
    /// A buffer of the kernel's.
    Slot(KernelSlot),
}

impl Target {
    /// Length in bytes.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        match self {
            Self::Pool(buf) => buf.len(),
            Self::Slot(slot) => slot.len(),
        }
    }
}

/// Where a write takes its bytes.
#[derive(Clone, Debug)]
pub enum Source {
    /// Memory.
    Pool(BufSlice),
    /// A buffer of the kernel's.
    Slot(KernelSlot),
}

impl Source {
    /// Length in bytes.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        match self {
            Self::Pool(buf) => buf.len(),
            Self::Slot(slot) => slot.len(),
        }
    }
}

/// A part of a message to send.
#[derive(Clone, Debug)]
pub enum SendPart {
    /// Pool memory.
    Pool(BufSlice),
    /// A small piece made for the occasion.
    Owned(Vec<u8>),
}

impl AsRef<[u8]> for SendPart {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Pool(buf) => buf.as_ref(),
            Self::Owned(bytes) => bytes,
        }
    }
}

/// How `fallocate` changes the range. The file's size stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FallocateMode {
    /// Frees the space; it reads as zeroes.
    PunchHole,
    /// Zeroes that keep their space.
    ZeroRange,
}

/// An operation. `done` says how many bytes of it are done already, so that what came back short
/// can be pushed again: the kernel gets the rest.
#[derive(Debug)]
pub enum Op {
    /// Read at an offset.
    Read {
        /// From.
        file: Handle,
        /// Offset of the first byte of `into`.
        at: u64,
        /// To.
        into: Target,
        /// Bytes done before.
        done: usize,
    },
    /// Write at an offset.
    Write {
        /// To.
        file: Handle,
        /// Offset of the first byte of `from`.
        at: u64,
        /// From.
        from: Source,
        /// Bytes done before.
        done: usize,
        /// Complete only when durable (RWF_DSYNC).
        dsync: bool,
    },
    /// Make the file's data durable (fdatasync).
    Datasync {
        /// The file.
        file: Handle,
    },
    /// Change the allocation.
    Fallocate {
        /// The file.
        file: Handle,
        /// How.
        mode: FallocateMode,
        /// Where.
        range: ByteRange,
    },
    /// Start reading ahead (POSIX_FADV_WILLNEED).
    WillNeed {
        /// The file.
        file: Handle,
        /// Where; at most 4 GiB of it counts.
        range: ByteRange,
    },
    /// Receive at least one byte.
    Recv {
        /// From.
        socket: Handle,
        /// To.
        into: BufMut,
        /// Bytes done before.
        done: usize,
    },
    /// Send these parts, in order.
    SendMsg {
        /// To.
        socket: Handle,
        /// What; at most 1024 parts.
        parts: Vec<SendPart>,
        /// Bytes done before, over all parts.
        done: usize,
    },
    /// Wait until the file is ready, once; `events` as in `poll(2)`.
    Poll {
        /// The file.
        file: Handle,
        /// POLLIN and so on.
        events: u32,
    },
    /// Cancel another operation, which then completes with `ECANCELED` or as if nothing happened.
    Cancel {
        /// Which.
        op: OpToken,
    },
    /// Completes with `ETIME` after this long.
    Timeout {
        /// How long.
        after: Duration,
    },
    /// A command to a driver. Cancelling does not reach it: it ends when the driver says so, or
    /// with the ring.
    Command(Command),
    /// Nothing.
    Nop,
}

/// Names an operation in flight. Never names a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OpToken(pub(crate) u64);

/// A completed operation: everything that was pushed comes back.
#[derive(Debug)]
pub struct Completed<T> {
    /// The caller's data.
    pub data: T,
    /// The operation with its buffers.
    pub op: Op,
    /// Bytes moved by this step (`done` not counted), poll events, or 0; or the error.
    pub result: Result<u32, IoError>,
}
