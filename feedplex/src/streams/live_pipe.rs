//! The pipe through which payload of live writes reaches the stream without entering this process.
//!
//! ```text
//!   a request's pages ──WRITE_FIXED (copies)──> this pipe ──splice──> the stream's own pipe ──splice──> socket
//!          the front end's ring                                the stream's thread
//! ```
//!
//! The write end is for the front end's ring, which must never wait: room is reserved first, and the
//! descriptor does not block. The bytes go on through a second pipe because the kernel holds a pipe's
//! lock while it waits for a socket that takes nothing; a write to that pipe would wait with it.

use super::pipe::Pipe;
use super::{StreamError, lock};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::pipe2;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// A page of a pipe, in bytes.
const PAGE: u64 = 4096;
/// How long the stream's thread waits for bytes before it looks whether it is to end, in
/// milliseconds.
const LOOK_MS: u16 = 100;

/// Kernel memory that holds live payload until the stream takes it.
#[derive(Debug)]
pub struct LivePipe {
    read: File,
    write: Arc<File>,
    pages: u64,
    /// Pages that are spoken for.
    used: Mutex<u64>,
    broken: AtomicBool,
}

/// Pages that a payload needs at most: it never shares more than its last one.
fn pages(len: u64) -> u64 {
    len.div_ceil(PAGE)
}

impl LivePipe {
    /// A pipe of this many bytes, or fewer where the system's limits say so.
    pub(super) fn new(bytes: u64) -> io::Result<Self> {
        let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
        // An error instead of a wait, whatever happens: a ring would hand a wait to a thread.
        fcntl(&write, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        // An unprivileged process may have less.
        for bytes in [bytes, 1 << 20] {
            let size = i32::try_from(bytes).unwrap_or(i32::MAX);
            if fcntl(&write, FcntlArg::F_SETPIPE_SZ(size)).is_ok() {
                break;
            }
        }
        let size = fcntl(&write, FcntlArg::F_GETPIPE_SZ)?;
        Ok(Self {
            read: File::from(read),
            write: Arc::new(File::from(write)),
            pages: u64::try_from(size).unwrap_or(0) / PAGE,
            used: Mutex::new(0),
            broken: AtomicBool::new(false),
        })
    }

    /// Most bytes that it can ever hold.
    pub fn capacity(&self) -> u64 {
        self.pages * PAGE
    }

    /// Makes room for a payload, which must then be written in one piece and in the order of the
    /// frames; or says that there is none.
    pub fn reserve(&self, len: u64) -> bool {
        let mut used = lock(&self.used);
        if *used + pages(len) > self.pages {
            return false;
        }
        *used += pages(len);
        true
    }

    /// Room that was reserved and is not needed after all, or is free again.
    pub fn release(&self, len: u64) {
        let mut used = lock(&self.used);
        *used = used.saturating_sub(pages(len));
    }

    /// Where the payload goes. Does not block.
    pub fn write_end(&self) -> &Arc<File> {
        &self.write
    }

    /// A payload was not written as promised: what comes behind it is out of place.
    pub fn set_broken(&self) {
        self.broken.store(true, Ordering::SeqCst);
    }

    /// Moves up to `len` bytes on, at least one. Waits for them while `open`.
    pub(super) fn move_to(
        &self,
        next: &Pipe,
        len: u64,
        open: impl Fn() -> bool,
    ) -> Result<u64, StreamError> {
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        loop {
            if self.broken.load(Ordering::SeqCst) || !open() {
                return Err(StreamError::Stopped);
            }
            let mut ready = [PollFd::new(self.read.as_fd(), PollFlags::POLLIN)];
            match poll(&mut ready, PollTimeout::from(LOOK_MS)) {
                Ok(0) | Err(Errno::EINTR) => continue,
                Ok(_) => {}
                Err(errno) => return Err(pipe_error(errno)),
            }
            let flags = SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK;
            match splice(&self.read, None, next.write_end(), None, len, flags) {
                Ok(0) => return Err(pipe_error(Errno::EPIPE)),
                Ok(moved) => return Ok(moved as u64),
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(errno) => return Err(pipe_error(errno)),
            }
        }
    }
}

fn pipe_error(errno: Errno) -> StreamError {
    StreamError::Pipe {
        operation: "taking live payload out of its pipe",
        source: errno.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn what_was_reserved_always_fits_and_comes_out_in_order() {
        let pipe = LivePipe::new(1 << 20).unwrap();
        let next = &mut Pipe::new().unwrap();
        assert!(!pipe.reserve(pipe.capacity() + 1));
        // Odd lengths: each may end in a page of its own, or share the one before it.
        let mut lens = vec![];
        for len in [512, 4096, 1536, 7 * 512, 65536, 4096 + 512].iter().cycle() {
            if !pipe.reserve(*len) {
                break;
            }
            let byte = lens.len() as u8;
            let written = (&**pipe.write_end()).write(&vec![byte; *len as usize]);
            assert_eq!(written.unwrap() as u64, *len, "a short write");
            lens.push(*len);
        }
        assert!(lens.len() > 50);
        for (number, len) in lens.iter().enumerate() {
            let mut left = *len;
            while left > 0 {
                let moved = pipe.move_to(next, left, || true).unwrap();
                let mut bytes = vec![0; moved as usize];
                next.drain_to_buffer(&mut bytes).unwrap();
                assert!(bytes.iter().all(|byte| *byte == number as u8));
                left -= moved;
            }
            pipe.release(*len);
        }
        assert!(pipe.reserve(pipe.capacity()));
    }

    #[test]
    fn a_reader_of_a_pipe_that_stays_empty_ends_with_its_stream() {
        let pipe = LivePipe::new(65536).unwrap();
        let next = Pipe::new().unwrap();
        let since = std::time::Instant::now();
        let open = || since.elapsed().as_millis() < 150;
        let ended = pipe.move_to(&next, 1, open);
        assert!(matches!(ended, Err(StreamError::Stopped)));
        pipe.set_broken();
        let ended = pipe.move_to(&next, 1, || true);
        assert!(matches!(ended, Err(StreamError::Stopped)));
    }
}
