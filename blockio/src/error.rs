//! What can go wrong with a request, as a small set that callers decide on.

use thiserror::Error;

/// The class of an I/O error; callers match on this and on nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum IoErrorKind {
    /// The medium failed (EIO and what is not listed here).
    Medium,
    /// The device or connection is gone.
    Gone,
    /// No space (ENOSPC, EDQUOT).
    NoSpace,
    /// The device does not do this operation.
    Unsupported,
    /// The request itself is wrong: out of range, not aligned.
    Invalid,
    /// The device is read-only.
    ReadOnly,
    /// Not now: the receiver is over its bound (a feed that falls behind).
    Congested,
    /// Given up because the device is being shut down.
    Cancelled,
}

/// An I/O error: kind, and the errno it came from where there was one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{kind:?} (errno {errno})")]
pub struct IoError {
    kind: IoErrorKind,
    errno: i32,
}

impl IoError {
    /// An error of this kind with its usual errno.
    pub fn new(kind: IoErrorKind) -> Self {
        let errno = match kind {
            IoErrorKind::Medium => libc::EIO,
            IoErrorKind::Gone => libc::ENODEV,
            IoErrorKind::NoSpace => libc::ENOSPC,
            IoErrorKind::Unsupported => libc::EOPNOTSUPP,
            IoErrorKind::Invalid => libc::EINVAL,
            IoErrorKind::ReadOnly => libc::EROFS,
            IoErrorKind::Congested => libc::EAGAIN,
            IoErrorKind::Cancelled => libc::ESHUTDOWN,
        };
        Self { kind, errno }
    }

    /// From a positive errno. A negative or zero value counts as EIO.
    pub fn from_errno(errno: i32) -> Self {
        let kind = match errno {
            libc::ENODEV
            | libc::ENXIO
            | libc::ENOTCONN
            | libc::ECONNRESET
            | libc::EPIPE
            | libc::ETIMEDOUT => IoErrorKind::Gone,
            libc::ENOSPC | libc::EDQUOT => IoErrorKind::NoSpace,
            libc::EOPNOTSUPP | libc::ENOSYS | libc::ENOTTY => IoErrorKind::Unsupported,
            libc::EINVAL | libc::ERANGE | libc::E2BIG => IoErrorKind::Invalid,
            libc::EROFS | libc::EACCES | libc::EPERM => IoErrorKind::ReadOnly,
            libc::EAGAIN => IoErrorKind::Congested,
            libc::ECANCELED | libc::ESHUTDOWN => IoErrorKind::Cancelled,
            _ => IoErrorKind::Medium,
        };
        Self {
            kind,
            errno: if errno > 0 { errno } else { libc::EIO },
        }
    }

    /// The class.
    pub fn kind(self) -> IoErrorKind {
        self.kind
    }

    /// The positive errno that a front end hands to its client.
    pub fn errno(self) -> i32 {
        self.errno
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_survives_its_errno() {
        for kind in [
            IoErrorKind::Medium,
            IoErrorKind::Gone,
            IoErrorKind::NoSpace,
            IoErrorKind::Unsupported,
            IoErrorKind::Invalid,
            IoErrorKind::ReadOnly,
            IoErrorKind::Congested,
            IoErrorKind::Cancelled,
        ] {
            assert_eq!(IoError::from_errno(IoError::new(kind).errno()).kind(), kind);
        }
    }

    #[test]
    fn nonsense_errno_is_eio() {
        assert_eq!(IoError::from_errno(-5).errno(), libc::EIO);
        assert_eq!(IoError::from_errno(0).errno(), libc::EIO);
    }
}
