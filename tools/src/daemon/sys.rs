//! The system calls that have no safe wrapper.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

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

/// Locks what is in memory now, and each page that comes to be from here on, when it is first
/// touched: a thread's stack does not have to be there as a whole.
pub fn lock_memory() -> io::Result<()> {
    for flags in [libc::MCL_CURRENT, libc::MCL_FUTURE | libc::MCL_ONFAULT] {
        // SAFETY: it takes flags and touches no memory of ours; pages that are locked stay as they are.
        if unsafe { libc::mlockall(flags) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// The descriptors that the service manager has passed (`LISTEN_FDS`), each once: a second call gets none. To be called before
/// this process opens anything. An error where the environment names descriptors that are not open.
pub fn take_passed_descriptors() -> io::Result<Vec<OwnedFd>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::SeqCst) {
        return Ok(Vec::new());
    }
    let passed = sd_notify::listen_fds()?;
    // SAFETY: each of them is open (`listen_fds` has set a flag on each), was opened by whoever started this process, for it alone
    // (`LISTEN_PID`), and is owned by nothing else here: `TAKEN` lets only one call come this far.
    Ok(passed
        .map(|raw| unsafe { OwnedFd::from_raw_fd(raw) })
        .collect())
}
