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
    #[error("{path} is not permitted for this user (root can change that: 62-volmgr-user.rules)")]
    NotPermitted {
        /// The control device.
        path: &'static str,
    },
    /// A device was made for this user, but nobody gave it to him.
    #[error(
        "{path} is not given to this user, who made it: the udev rules for devices of ordinary users are missing \
         (62-volmgr-user.rules)"
    )]
    NotGiven {
        /// The device.
        path: String,
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

impl UblkError {
    /// Does the kernel want an administrator for this?
    pub fn is_not_permitted(&self) -> bool {
        matches!(self, Self::Command { source, .. } if source.raw_os_error() == Some(libc::EPERM))
    }
}
