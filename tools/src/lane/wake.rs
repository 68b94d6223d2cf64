//! Waking the lane's thread from other threads, at one system call per sleep.

use nix::sys::eventfd::{EfdFlags, EventFd};
use ringio::Handle;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Shared by the lane and everyone who sends to it.
pub(super) struct Waker {
    fd: Arc<OwnedFd>,
    /// A wake is under way that the lane has not seen yet.
    pending: AtomicBool,
}

impl Waker {
    pub fn new() -> nix::Result<Self> {
        let fd = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        Ok(Self {
            fd: Arc::new(OwnedFd::from(fd)),
            pending: AtomicBool::new(false),
        })
    }

    /// What the lane polls.
    pub fn handle(&self) -> Handle {
        Arc::clone(&self.fd).into()
    }

    /// After something was put into a channel.
    pub fn wake(&self) {
        if !self.pending.swap(true, Ordering::SeqCst) {
            // It fails only where the counter would overflow: then the lane is awake anyway.
            let _full = nix::unistd::write(&*self.fd, &1_u64.to_ne_bytes());
        }
    }

    /// By the lane, before it looks into the channels.
    pub fn clear(&self) {
        let mut count = [0; 8];
        // Nothing to read is fine.
        let _empty = nix::unistd::read(&*self.fd, &mut count);
        self.pending.store(false, Ordering::SeqCst);
    }
}
