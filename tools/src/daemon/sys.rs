//! The one system call that has no safe wrapper.

use std::io;

/// `PR_SET_IO_FLUSHER`, Linux 5.6.
const PR_SET_IO_FLUSHER: libc::c_int = 57;

/// Marks the process as one that memory reclaim depends on: its allocations do not start I/O.
pub fn set_io_flusher() -> io::Result<()> {
    let zero: libc::c_ulong = 0;
    // SAFETY: this option takes four integers and touches no memory of ours.
    let result = unsafe { libc::prctl(PR_SET_IO_FLUSHER, 1 as libc::c_ulong, zero, zero, zero) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
