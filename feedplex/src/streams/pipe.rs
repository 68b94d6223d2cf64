//! A pipe, as the place where the kernel holds pages between a disk and a socket.

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice, tee};
use nix::unistd::pipe2;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

/// Size that is asked for, in bytes: the largest that an unprivileged process may have.
pub(super) const CAPACITY: i32 = 1 << 20;

/// A pipe with both ends here. Nothing waits in it: what goes in is taken out before more goes in.
#[derive(Debug)]
pub(super) struct Pipe {
    read: File,
    write: OwnedFd,
}

/// Repeats a call until no signal interrupts it.
fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
}

fn file_offset(offset: u64) -> Result<i64, Errno> {
    i64::try_from(offset).map_err(|_| Errno::EOVERFLOW)
}

impl Pipe {
    pub(super) fn new() -> io::Result<Self> {
        let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
        // Over the user's quota for pipes it stays at the default, which works as well, slower.
        if let Err(errno) = fcntl(&write, FcntlArg::F_SETPIPE_SZ(CAPACITY)) {
            tracing::debug!(%errno, "a pipe stays at its default size");
        }
        Ok(Self {
            read: File::from(read),
            write,
        })
    }

    /// For what another pipe's bytes are moved into.
    pub(super) fn write_end(&self) -> &OwnedFd {
        &self.write
    }

    /// File → pipe, up to `len` bytes or until the pipe is full. Returns the bytes that went in,
    /// and the error that ended it early, if one did; the end of the file is `EIO`.
    pub(super) fn fill_from_file(
        &self,
        file: &File,
        offset: u64,
        len: usize,
    ) -> (usize, Option<Errno>) {
        let mut position = match file_offset(offset) {
            Ok(position) => position,
            Err(errno) => return (0, Some(errno)),
        };
        let mut filled = 0;
        while filled < len {
            let flags = SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK;
            let moved = retry(|| {
                splice(
                    file,
                    Some(&mut position),
                    &self.write,
                    None,
                    len - filled,
                    flags,
                )
            });
            match moved {
                Ok(0) => return (filled, Some(Errno::EIO)),
                Ok(moved) => filled += moved,
                // The pipe has no page left, though not all are full.
                Err(Errno::EAGAIN) if filled > 0 => return (filled, None),
                Err(errno) => return (filled, Some(errno)),
            }
        }
        (filled, None)
    }

    /// Socket → pipe: what is there, at least a byte, at most `len`. 0 is the end of the stream.
    pub(super) fn fill_from_socket(&self, socket: &impl AsFd, len: usize) -> Result<usize, Errno> {
        let flags = SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_MORE;
        retry(|| splice(socket, None, &self.write, None, len, flags))
    }

    /// Pipe → socket, all of `len` bytes.
    pub(super) fn drain_to_socket(&self, socket: &impl AsFd, len: usize) -> Result<(), Errno> {
        let mut left = len;
        while left > 0 {
            let flags = SpliceFFlags::SPLICE_F_MOVE;
            match retry(|| splice(&self.read, None, socket, None, left, flags))? {
                0 => return Err(Errno::EPIPE),
                moved => left = left.saturating_sub(moved),
            }
        }
        Ok(())
    }

    /// Pipe → file: some of `len` bytes.
    pub(super) fn drain_to_file(
        &self,
        file: &File,
        offset: u64,
        len: usize,
    ) -> Result<usize, Errno> {
        let mut position = file_offset(offset)?;
        let flags = SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_MORE;
        retry(|| splice(&self.read, None, file, Some(&mut position), len, flags))
    }

    /// Pipe → another, empty pipe, without taking it out of this one. Returns the bytes that the
    /// other one has now.
    pub(super) fn copy_to(&self, other: &Self, len: usize) -> Result<usize, Errno> {
        retry(|| tee(&self.read, &other.write, len, SpliceFFlags::empty()))
    }

    /// Pipe → memory, all of the buffer.
    pub(super) fn drain_to_buffer(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        self.read.read_exact(buffer)
    }

    /// Pipe → nowhere, all of `len` bytes.
    pub(super) fn discard(&mut self, len: usize) -> io::Result<()> {
        let mut left = (&mut self.read).take(len as u64);
        let discarded = io::copy(&mut left, &mut io::sink())?;
        if discarded == len as u64 {
            Ok(())
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn a_file_goes_through_and_ends_with_an_error() {
        let mut pipe = Pipe::new().unwrap();
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[7; 10_000], 0).unwrap();
        assert_eq!(
            pipe.fill_from_file(&file, 4096, 8192),
            (10_000 - 4096, Some(Errno::EIO))
        );
        pipe.discard(5000).unwrap();
        let mut rest = [0; 10_000 - 4096 - 5000];
        pipe.drain_to_buffer(&mut rest).unwrap();
        assert!(rest.iter().all(|byte| *byte == 7));
    }

    #[test]
    fn a_full_pipe_is_no_error_and_no_wait() {
        let mut pipe = Pipe::new().unwrap();
        let file = tempfile::tempfile().unwrap();
        let len = 2 << 20;
        file.write_all_at(&vec![1; len], 0).unwrap();
        let (filled, error) = pipe.fill_from_file(&file, 100, len - 100);
        assert_eq!(error, None);
        assert!(filled > 0 && filled < len - 100, "{filled}");
        pipe.discard(filled).unwrap();
    }
}
