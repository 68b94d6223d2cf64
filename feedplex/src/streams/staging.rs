//! Pipes in which the bytes of one frame wait for the socket, read before the frame is announced.

use super::pipe::{CAPACITY, Pipe};
use nix::errno::Errno;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;

/// As many pipes as it takes for a frame. Between two frames they are empty.
#[derive(Debug)]
pub(super) struct Staging {
    pipes: Vec<Stage>,
}

#[derive(Debug)]
struct Stage {
    pipe: Pipe,
    filled: usize,
}

impl Staging {
    /// For frames of up to so many bytes.
    pub(super) fn new(bytes: u64) -> io::Result<Self> {
        let pipes = (0..bytes.div_ceil(CAPACITY.unsigned_abs().into())).map(|_| {
            let pipe = Pipe::new()?;
            Ok(Stage { pipe, filled: 0 })
        });
        Ok(Self {
            pipes: pipes.collect::<io::Result<_>>()?,
        })
    }

    /// File → pipes, up to `len` bytes or until they are full. Returns the bytes that went in, and the error that ended it early, if
    /// one did; the end of the file is `EIO`.
    pub(super) fn fill(&mut self, file: &File, offset: u64, len: usize) -> (usize, Option<Errno>) {
        let mut filled = 0;
        for stage in &mut self.pipes {
            if filled == len {
                break;
            }
            let from = offset + filled as u64;
            let (count, error) = stage.pipe.fill_from_file(file, from, len - filled);
            stage.filled = count;
            filled += count;
            if error.is_some() {
                return (filled, error);
            }
        }
        (filled, None)
    }

    /// Pipes → socket, the first `len` bytes; the rest stays until [`Self::discard`].
    pub(super) fn drain(&mut self, socket: &impl AsFd, len: usize) -> Result<(), Errno> {
        let mut left = len;
        for stage in &mut self.pipes {
            let count = stage.filled.min(left);
            if count > 0 {
                stage.pipe.drain_to_socket(socket, count)?;
                stage.filled -= count;
                left -= count;
            }
        }
        match left {
            0 => Ok(()),
            // More than was ever filled in.
            _ => Err(Errno::EINVAL),
        }
    }

    /// Empties all of them.
    pub(super) fn discard(&mut self) -> io::Result<()> {
        for stage in &mut self.pipes {
            if stage.filled > 0 {
                stage.pipe.discard(stage.filled)?;
                stage.filled = 0;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::fs::FileExt;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (near, listener.accept().unwrap().0)
    }

    #[test]
    fn a_frame_longer_than_a_pipe_comes_out_as_it_went_in() {
        let len = 4 << 20;
        let bytes: Vec<u8> = (0..len).map(|n| (n / 4096 * 7 + n) as u8).collect();
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&bytes, 0).unwrap();
        let mut staging = Staging::new(len as u64).unwrap();
        // Off the pages' bounds, each pipe takes a page less.
        for from in [0, 512] {
            let (filled, error) = staging.fill(&file, from, len - from as usize);
            assert_eq!(error, None);
            assert!(filled > len / 2, "{filled}");
            let (near, mut far) = pair();
            let sent = filled - 4096;
            std::thread::scope(|scope| {
                let got = scope.spawn(move || {
                    let mut got = Vec::new();
                    far.read_to_end(&mut got).unwrap();
                    got
                });
                staging.drain(&near, sent).unwrap();
                (&near).flush().unwrap();
                drop(near);
                let from = from as usize;
                assert!(got.join().unwrap() == bytes[from..from + sent]);
            });
            staging.discard().unwrap();
        }
    }

    #[test]
    fn what_was_not_filled_in_cannot_be_drained() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[1; 3 << 19], 0).unwrap();
        let mut staging = Staging::new(4 << 20).unwrap();
        assert_eq!(staging.fill(&file, 0, 4 << 20), (3 << 19, Some(Errno::EIO)));
        staging.discard().unwrap();
        let (near, _far) = pair();
        assert_eq!(staging.drain(&near, 1), Err(Errno::EINVAL));
    }
}
