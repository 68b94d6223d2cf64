//! Socket → disks of several plexes, inside the kernel.
//!
//! Each chunk goes socket → pipe once; for every plex but the last it is duplicated into a second
//! pipe (`tee`), and spliced from there to the plex's disks. All plexes have a chunk, or have
//! failed, before the next one is taken: so wherever the connection breaks, the plexes that did
//! not fail hold the same bytes.

use super::StreamError;
use super::pipe::Pipe;
use crate::counters::{FeedCounters, PathReason};
use crate::device::{FileSegment, PlexSegments};
use blockio::{IoError, IoErrorKind};
use nix::errno::Errno;
use std::io;
use std::net::TcpStream;
use std::os::unix::fs::FileExt;

/// The pipes of one receiving stream.
pub(super) struct Fanout {
    main: Pipe,
    copy: Pipe,
    buffer: Vec<u8>,
}

/// How a payload's way ended.
pub(super) struct Delivered {
    /// One for each plex.
    pub(super) results: Vec<Result<(), IoError>>,
    /// Whether all of the payload came.
    pub(super) received: Result<(), StreamError>,
}

/// The kernel cannot splice from this socket; nothing has been taken from it.
#[derive(Clone, Copy, Debug)]
pub(super) struct CannotSplice(pub(super) Errno);

/// Where the next bytes of a plex go.
struct Cursor<'a> {
    segments: std::slice::Iter<'a, FileSegment>,
    current: Option<&'a FileSegment>,
    /// Bytes of the current segment that are written.
    done: u64,
    result: Result<(), IoError>,
}

impl<'a> Cursor<'a> {
    fn new(plex: &'a PlexSegments, len: u64) -> Self {
        let total = plex.segments.iter().try_fold(0u64, |total, segment| {
            total.checked_add(segment.range.len())
        });
        let mut segments = plex.segments.iter();
        Self {
            current: segments.next(),
            segments,
            done: 0,
            result: if total == Some(len) {
                Ok(())
            } else {
                Err(IoError::new(IoErrorKind::Invalid))
            },
        }
    }

    /// The segment for the next byte, the place in its file, and the room from there in bytes.
    fn place(&mut self) -> Result<(&'a FileSegment, u64, u64), Errno> {
        while let Some(segment) = self.current {
            if self.done < segment.range.len() {
                let position = segment.range.start() + self.done;
                return Ok((segment, position, segment.range.len() - self.done));
            }
            self.current = self.segments.next();
            self.done = 0;
        }
        Err(Errno::EINVAL)
    }
}

impl Fanout {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            main: Pipe::new()?,
            copy: Pipe::new()?,
            buffer: Vec::new(),
        })
    }

    /// Takes a payload of `len` bytes from the socket to the plexes.
    pub(super) fn deliver(
        &mut self,
        socket: &TcpStream,
        plexes: &[PlexSegments],
        len: u64,
        counters: &FeedCounters,
    ) -> Result<Delivered, CannotSplice> {
        let mut cursors: Vec<_> = plexes.iter().map(|plex| Cursor::new(plex, len)).collect();
        let mut left = len;
        let received = loop {
            if left == 0 {
                break Ok(());
            }
            let want = usize::try_from(left).unwrap_or(usize::MAX);
            let chunk = match self.main.fill_from_socket(socket, want) {
                Ok(0) => break Err(StreamError::Truncated),
                Ok(chunk) => chunk,
                Err(errno @ (Errno::EINVAL | Errno::EOPNOTSUPP)) if left == len => {
                    return Err(CannotSplice(errno));
                }
                Err(errno) => {
                    break Err(StreamError::Socket {
                        operation: "splicing from the socket",
                        source: errno.into(),
                    });
                }
            };
            left -= chunk as u64;
            if let Err(source) = self.spread(chunk, &mut cursors, counters) {
                // The pipes cannot be trusted to be empty, so this stream is over. What the plexes
                // hold of this chunk may differ: none of them is known to be good.
                for cursor in &mut cursors {
                    cursor.result = Err(IoError::new(IoErrorKind::Medium));
                }
                break Err(StreamError::Pipe {
                    operation: "moving payload between pipes",
                    source,
                });
            }
        };
        Ok(Delivered {
            results: cursors.into_iter().map(|cursor| cursor.result).collect(),
            received,
        })
    }

    /// Gives the chunk in the main pipe to every plex that has not failed. Leaves both pipes empty
    /// or returns an error.
    fn spread(
        &mut self,
        chunk: usize,
        cursors: &mut [Cursor<'_>],
        counters: &FeedCounters,
    ) -> io::Result<()> {
        let last = cursors.iter().rposition(|cursor| cursor.result.is_ok());
        let Some(last) = last else {
            self.main.discard(chunk)?;
            return Ok(());
        };
        let mut copied = None;
        for cursor in cursors[..last].iter_mut().filter(|c| c.result.is_ok()) {
            match self.main.copy_to(&self.copy, chunk) {
                Ok(count) if count == chunk => {
                    let reason = write_out(&mut self.copy, &mut self.buffer, chunk, cursor)?;
                    copied = copied.or(reason);
                }
                Ok(count) => {
                    // Both pipes have as many pages, so this does not happen; `tee` cannot go on
                    // where it stopped.
                    self.copy.discard(count)?;
                    cursor.result = Err(IoError::new(IoErrorKind::Medium));
                }
                Err(errno) => cursor.result = Err(IoError::from_errno(errno as i32)),
            }
        }
        let cursor = &mut cursors[last];
        let reason = write_out(&mut self.main, &mut self.buffer, chunk, cursor)?;
        // Once, however many plexes there are.
        match copied.or(reason) {
            Some(reason) => counters.copied(chunk as u64, reason),
            None => counters.kernel(chunk as u64),
        }
        Ok(())
    }
}

/// Empties the pipe, which has `chunk` bytes, into a plex; the plex's error goes into its cursor,
/// the pipe's is returned. Says why the bytes had to be copied, if they had to.
fn write_out(
    pipe: &mut Pipe,
    buffer: &mut Vec<u8>,
    chunk: usize,
    cursor: &mut Cursor<'_>,
) -> io::Result<Option<PathReason>> {
    let mut left = chunk;
    while left > 0 {
        let moved = cursor.place().and_then(|(segment, position, room)| {
            let len = left.min(usize::try_from(room).unwrap_or(usize::MAX));
            pipe.drain_to_file(&segment.file, position, len)
        });
        match moved {
            Ok(moved) if moved > 0 => {
                left = left.saturating_sub(moved);
                cursor.done += moved as u64;
            }
            Err(errno @ (Errno::EINVAL | Errno::EOPNOTSUPP)) => {
                buffer.resize(left, 0);
                pipe.drain_to_buffer(buffer)?;
                let written = write_copied(buffer, cursor);
                cursor.result = written.map_err(|errno| IoError::from_errno(errno as i32));
                let call = "splice to disk";
                let errno = errno as i32;
                return Ok(Some(PathReason::Unsupported { call, errno }));
            }
            // A disk that takes nothing and says nothing.
            Ok(_) => {
                cursor.result = Err(IoError::new(IoErrorKind::Medium));
                pipe.discard(left)?;
                return Ok(None);
            }
            Err(errno) => {
                cursor.result = Err(IoError::from_errno(errno as i32));
                pipe.discard(left)?;
                return Ok(None);
            }
        }
    }
    Ok(None)
}

fn write_copied(mut bytes: &[u8], cursor: &mut Cursor<'_>) -> Result<(), Errno> {
    while !bytes.is_empty() {
        let (segment, position, room) = cursor.place()?;
        let len = bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX));
        segment
            .file
            .write_all_at(&bytes[..len], position)
            .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
        cursor.done += len as u64;
        bytes = &bytes[len..];
    }
    Ok(())
}
