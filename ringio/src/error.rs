//! Why there is no ring.

use std::io;
use thiserror::Error;

/// A ring or its pool could not be set up.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RingError {
    /// The kernel has no io_uring, or a seccomp filter hides it (ENOSYS).
    #[error("this kernel offers no io_uring (needs Linux 5.19 or later, and no filter against it)")]
    Missing,
    /// io_uring is there but forbidden (EPERM).
    #[error(
        "io_uring is forbidden here; allow it with: sysctl kernel.io_uring_disabled=0 \
         (or =1 and put the user's group into kernel.io_uring_group)"
    )]
    Forbidden,
    /// The kernel refused memory for the ring (ENOMEM), mostly RLIMIT_MEMLOCK.
    #[error("no memory for an io_uring; raise the locked-memory limit (ulimit -l, LimitMEMLOCK=)")]
    Memory,
    /// Anything else during setup.
    #[error("cannot set up an io_uring")]
    Setup(#[source] io::Error),
    /// The buffer pool could not be mapped.
    #[error("cannot map {bytes} bytes of buffers")]
    Map {
        /// Size that was asked for.
        bytes: usize,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Submitting or waiting failed: the ring is of no more use.
    #[error("the io_uring failed")]
    Enter(#[source] io::Error),
}

impl RingError {
    /// Sorts an error of `io_uring_setup`.
    pub(crate) fn from_setup(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ENOSYS) => Self::Missing,
            Some(libc::EPERM | libc::EACCES) => Self::Forbidden,
            Some(libc::ENOMEM) => Self::Memory,
            _ => Self::Setup(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forbidden_ring_names_the_sysctl() {
        let error = RingError::from_setup(io::Error::from_raw_os_error(libc::EPERM));
        assert!(error.to_string().contains("kernel.io_uring_disabled"));
        assert!(matches!(
            RingError::from_setup(io::Error::from_raw_os_error(libc::ENOSYS)),
            RingError::Missing
        ));
        assert!(matches!(
            RingError::from_setup(io::Error::from_raw_os_error(libc::EINVAL)),
            RingError::Setup(_)
        ));
    }
}
