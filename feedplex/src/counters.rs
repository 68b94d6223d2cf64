//! What a feed moved, and who touched it.

use crate::transport::ktls::UserTls;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Why payload went through an application buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum PathReason {
    /// TLS records are made in user space.
    Tls(UserTls),
    /// Live writes leave from the front end's buffer.
    LiveWrites,
    /// Writes so small that moving them costs less than arranging not to.
    SmallWrites,
    /// Writes that must be durable at once are given to the volume whole.
    DurableWrites,
    /// The payload's checksum has to be computed.
    PayloadChecksum,
    /// The kernel does not do this for these files.
    Unsupported {
        /// The system call.
        call: &'static str,
        /// Its errno.
        errno: i32,
    },
}

impl fmt::Display for PathReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tls(why) => write!(f, "tls in user space: {why}"),
            Self::LiveWrites => f.write_str("live writes"),
            Self::SmallWrites => f.write_str("small writes"),
            Self::DurableWrites => f.write_str("durable writes"),
            Self::PayloadChecksum => f.write_str("payload checksum"),
            Self::Unsupported { call, errno } => {
                let errno = nix::errno::Errno::from_raw(*errno);
                write!(f, "{call} not supported: {errno}")
            }
        }
    }
}

/// Counters of one feed, shared by its streams. They only grow.
#[derive(Debug, Default)]
pub struct FeedCounters {
    payload_kernel_bytes: AtomicU64,
    payload_copied_bytes: AtomicU64,
    zero_bytes: AtomicU64,
    frames: AtomicU64,
    reasons: Mutex<BTreeSet<PathReason>>,
}

/// The counters at some moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CounterValues {
    /// Bytes of payload that no application buffer held.
    pub payload_kernel_bytes: u64,
    /// Bytes of payload that went through an application buffer.
    pub payload_copied_bytes: u64,
    /// Bytes that were sent or received as "these are zeroes".
    pub zero_bytes: u64,
    /// Frames of any kind.
    pub frames: u64,
    /// Why bytes were copied; empty if none were.
    pub reasons: Vec<PathReason>,
}

impl FeedCounters {
    /// Counts a frame.
    pub(crate) fn frame(&self) {
        self.frames.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts payload that stayed in the kernel, in bytes.
    pub(crate) fn kernel(&self, bytes: u64) {
        self.payload_kernel_bytes
            .fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts payload that was copied, in bytes, and remembers why.
    pub(crate) fn copied(&self, bytes: u64, reason: PathReason) {
        self.payload_copied_bytes
            .fetch_add(bytes, Ordering::Relaxed);
        let mut reasons = crate::streams::lock(&self.reasons);
        if reasons.insert(reason) {
            tracing::debug!(%reason, "payload goes through a buffer");
        }
    }

    /// Counts zeroes that were named instead of moved, in bytes.
    pub(crate) fn zeroes(&self, bytes: u64) {
        self.zero_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The values now. Those of frames in flight may be in one counter and not in another yet.
    pub fn values(&self) -> CounterValues {
        CounterValues {
            payload_kernel_bytes: self.payload_kernel_bytes.load(Ordering::Relaxed),
            payload_copied_bytes: self.payload_copied_bytes.load(Ordering::Relaxed),
            zero_bytes: self.zero_bytes.load(Ordering::Relaxed),
            frames: self.frames.load(Ordering::Relaxed),
            reasons: crate::streams::lock(&self.reasons)
                .iter()
                .copied()
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_remembered_once() {
        let counters = FeedCounters::default();
        let tls = PathReason::Tls(UserTls::NoModule);
        counters.copied(3, tls);
        counters.copied(4, tls);
        counters.kernel(5);
        let values = counters.values();
        assert_eq!(values.payload_copied_bytes, 7);
        assert_eq!(values.payload_kernel_bytes, 5);
        assert_eq!(values.reasons, [tls]);
    }

    #[test]
    fn reasons_name_the_call_and_the_error() {
        let reason = PathReason::Unsupported {
            call: "splice",
            errno: libc::EINVAL,
        };
        assert_eq!(
            reason.to_string(),
            "splice not supported: EINVAL: Invalid argument"
        );
    }
}
