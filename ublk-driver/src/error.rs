//! What can go wrong with ublk, in words for the admin.

use std::io;
use thiserror::Error;

/// An error of the ublk driver.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum UblkError {
    /// The control device is not there.
    #[error("this kernel has no ublk: {path} does not exist (modprobe ublk_drv)")]
    NoDriver {
        /// The control device.
        path: &'static str,
    },
    /// The control device cannot be opened.
    #[error("{path} is not permitted for this user")]
    NotPermitted {
        /// The control device.
        path: &'static str,
    },
    /// A control command failed.
    #[error("ublk control command {command} failed")]
    Command {
        /// Its name.
        command: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The kernel accepted the device but cleared feature flags that are needed.
    #[error("the kernel lacks ublk features {missing:?}")]
    Features {
        /// What it lacks.
        missing: crate::Features,
    },
    /// A system call around the device failed.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
}
