//! What has no safe wrapper elsewhere: questions to the kernel about files and devices, commands to drivers.

mod command;

pub use command::Command;

use std::ffi::c_int;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileTypeExt;

/// Alignments that direct I/O on a file needs, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectAlign {
    /// Of the memory.
    pub memory: u32,
    /// Of offset and length.
    pub offset: u32,
}

/// What a block device says of itself, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockInfo {
    /// Size.
    pub size: u64,
    /// Smallest unit of I/O.
    pub logical_block: u32,
    /// Unit the medium likes.
    pub physical_block: u32,
    /// It spins.
    pub rotational: bool,
}

/// The alignments of direct I/O by `statx` (Linux 6.1), or `None` where the kernel or the
/// filesystem does not say, or says that there is no direct I/O.
pub fn direct_align(file: &File) -> Option<DirectAlign> {
    // SAFETY: all zeroes is a valid `statx`: integers only.
    let mut statx: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: the path is an empty C string, the buffer is ours, the descriptor is open.
    let result = unsafe {
        libc::statx(
            file.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            libc::STATX_DIOALIGN,
            &raw mut statx,
        )
    };
    let known = result == 0 && statx.stx_mask & libc::STATX_DIOALIGN != 0;
    (known && statx.stx_dio_offset_align > 0).then_some(DirectAlign {
        memory: statx.stx_dio_mem_align,
        offset: statx.stx_dio_offset_align,
    })
}

/// What a block device says of itself; `None` for anything else.
pub fn block_info(file: &File) -> Option<BlockInfo> {
    if !file.metadata().ok()?.file_type().is_block_device() {
        return None;
    }
    let fd = file.as_raw_fd();
    let (mut size, mut logical, mut physical) = (0_u64, 0_i32, 0_u32);
    let mut rotational = 0_u16;
    // SAFETY: each request writes one integer of the type it is given here.
    let failed = unsafe {
        ioctl::blkgetsize64(fd, &raw mut size).is_err()
            || ioctl::blksszget(fd, &raw mut logical).is_err()
            || ioctl::blkpbszget(fd, &raw mut physical).is_err()
    };
    if failed {
        return None;
    }
    // SAFETY: as above; a device that cannot say is taken as not spinning.
    let spins = unsafe { ioctl::blkrotational(fd, &raw mut rotational) }.is_ok() && rotational != 0;
    Some(BlockInfo {
        size,
        logical_block: u32::try_from(logical).ok()?,
        physical_block: physical,
        rotational: spins,
    })
}

#[allow(missing_docs)]
mod ioctl {
    use super::c_int;
    nix::ioctl_read!(blkgetsize64, 0x12, 114, u64);
    nix::ioctl_read_bad!(blksszget, nix::request_code_none!(0x12, 104), c_int);
    nix::ioctl_read_bad!(blkpbszget, nix::request_code_none!(0x12, 123), u32);
    nix::ioctl_read_bad!(blkrotational, nix::request_code_none!(0x12, 126), u16);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_regular_file_is_no_block_device() {
        let file = tempfile::tempfile().expect("file");
        assert_eq!(block_info(&file), None);
        if let Some(align) = direct_align(&file) {
            assert!(align.offset.is_power_of_two() && align.memory.is_power_of_two());
        }
    }
}
