//! The read-only flag of a block device.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

mod ioctl {
    nix::ioctl_write_ptr_bad!(
        set_read_only,
        nix::request_code_none!(0x12, 93),
        libc::c_int
    );
}

/// BLKROSET.
pub(crate) fn set_read_only(device: &File, read_only: bool) -> io::Result<()> {
    let value = libc::c_int::from(read_only);
    // SAFETY: the request reads one integer behind the pointer, which lives until it returns.
    unsafe { ioctl::set_read_only(device.as_raw_fd(), &raw const value) }?;
    Ok(())
}
