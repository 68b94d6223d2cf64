//! The read-only mapping of a queue's request descriptors.

use super::uapi::{IO_DESC_LEN, MAX_QUEUE_DEPTH};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

/// The descriptors of one queue, which the kernel writes before it delivers a request.
pub(crate) struct DescriptorMap {
    address: NonNull<c_void>,
    len: usize,
    depth: u16,
}

// SAFETY: the mapping is plain memory owned by this value; moving the value to another thread moves
// nothing in memory, and there is no shared access (`DescriptorMap` is not Sync).
unsafe impl Send for DescriptorMap {}

impl DescriptorMap {
    pub(crate) fn new(device: &File, queue: u16, depth: u16) -> io::Result<Self> {
        let page = 4096;
        let len = (usize::from(depth) * IO_DESC_LEN).next_multiple_of(page);
        // The kernel counts queue areas in descriptors of the greatest depth, page-rounded.
        let area = (MAX_QUEUE_DEPTH * IO_DESC_LEN).next_multiple_of(page);
        let offset = i64::from(queue) * area as i64;
        let length = NonZeroUsize::new(len).ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: a fresh mapping at an address of the kernel's choice aliases nothing.
        let address = unsafe {
            mmap(
                None,
                length,
                ProtFlags::PROT_READ,
                MapFlags::MAP_SHARED | MapFlags::MAP_POPULATE,
                device,
                offset,
            )?
        };
        Ok(Self {
            address,
            len,
            depth,
        })
    }

    pub(crate) fn depth(&self) -> u16 {
        self.depth
    }

    /// A copy of the descriptor of `tag`.
    ///
    /// # Panics
    /// Where `tag` is not below the depth.
    pub(crate) fn read(&self, tag: u16) -> [u8; IO_DESC_LEN] {
        assert!(
            tag < self.depth,
            "tag {tag} of a queue of depth {}",
            self.depth
        );
        let mut bytes = [0u8; IO_DESC_LEN];
        // SAFETY: `tag < depth`, so the source lies inside the mapping, which lives as long as
        // `self`. The kernel writes a descriptor only while it owns the tag, which is before the
        // fetch command completes; the volatile copy keeps the compiler from assuming more.
        unsafe {
            let source = self
                .address
                .as_ptr()
                .cast::<u8>()
                .add(usize::from(tag) * IO_DESC_LEN);
            for (i, byte) in bytes.iter_mut().enumerate() {
                *byte = source.add(i).read_volatile();
            }
        }
        bytes
    }
}

impl Drop for DescriptorMap {
    fn drop(&mut self) {
        // SAFETY: address and length are those of the mapping made in `new`, and nothing borrows
        // from it: `read` copies.
        if let Err(e) = unsafe { munmap(self.address, self.len) } {
            tracing::error!("munmap of ublk descriptors: {e}");
        }
    }
}
