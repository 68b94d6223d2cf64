//! What block devices are told by `ioctl`: the read-only flag, a scan for partitions.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

mod ioctl {
    nix::ioctl_write_ptr_bad!(
        set_read_only,
        nix::request_code_none!(0x12, 93),
        libc::c_int
    );
    nix::ioctl_none_bad!(scan_partitions, nix::request_code_none!(0x12, 95));
}

/// BLKROSET.
pub(crate) fn set_read_only(device: &File, read_only: bool) -> io::Result<()> {
    let value = libc::c_int::from(read_only);
    // SAFETY: the request reads one integer behind the pointer, which lives until it returns.
    unsafe { ioctl::set_read_only(device.as_raw_fd(), &raw const value) }?;
    Ok(())
}

/// BLKRRPART.
pub(crate) fn scan_partitions(device: &File) -> io::Result<()> {
    // SAFETY: the request takes no argument, and the descriptor is open.
    unsafe { ioctl::scan_partitions(device.as_raw_fd()) }?;
    Ok(())
}
