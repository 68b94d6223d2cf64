//! A bulk stream's sender: ranges of the volume, straight from a plex's disks.
//!
//! Without TLS the bytes go disk → pipe → socket by `splice` and never enter this process.
//! `sendfile` is the same with a pipe of the kernel's own; with a pipe of ours the disk has been
//! read *before* the header goes out. So a header never promises bytes that the disk then refuses,
//! nothing has to be made up for them, and the sink is never given bytes that the disk does not
//! have.

use super::ack::AckTracker;
use super::extents::{Known, Run};
use super::frame_size::FrameSize;
use super::limiter::RateLimiter;
use super::queue::{Popped, Queue};
use super::staging::Staging;
use super::{OnEnd, SendError, StreamError, StreamThread, send_more, socket_error};
use crate::counters::{FeedCounters, PathReason};
use crate::device::FileSegment;
use crate::transport::DataStream;
use crate::wire::frame::{Command, FrameFlags, FrameHeader, PAYLOAD_MAX};
use blockio::{ByteRange, IoError};
use nix::errno::Errno;
use std::convert::Infallible;
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Frames and holes end where the volume has a multiple of this, in bytes, or where the job does:
/// no logical block is larger.
const BLOCK: u64 = 4096;

/// Holes from this length on are sent as such, in bytes.
const HOLE_MIN: u64 = 64 << 10;

/// Most zeroes in a frame, in bytes: a sink whose disks cannot make zeroes has to write them.
const HOLE_MAX: u64 = 16 << 20;

/// Most payload of a frame that goes through a buffer, in bytes.
const COPY_MAX: u64 = 1 << 20;

/// A range of the volume to be copied.
#[derive(Debug)]
pub struct BulkJob {
    /// Told done through the [`AckTracker`].
    pub token: u64,
    /// Of the volume; not empty.
    pub range: ByteRange,
    /// Where its bytes are, in order; together as long as the range.
    pub segments: Vec<FileSegment>,
}

/// Bounds of a bulk stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BulkConfig {
    /// Jobs that may wait or be in sending.
    pub queue_jobs: u64,
    /// Most payload of one frame in bytes, on a link that is fast enough for it: each frame is a turn of the sink's
    /// lane, and keeps the range from other writers until it has come.
    pub frame_bytes: u32,
    /// Silence after which a keepalive frame is sent.
    pub keepalive: Duration,
}

impl Default for BulkConfig {
    fn default() -> Self {
        Self {
            queue_jobs: 1024,
            frame_bytes: 4 << 20,
            keepalive: Duration::from_secs(5),
        }
    }
}

/// The way into a bulk stream; clones lead to the same stream.
#[derive(Clone)]
pub struct BulkSender {
    queue: Arc<Queue<BulkJob>>,
    acks: Arc<AckTracker>,
}

impl BulkSender {
    /// Starts the stream's thread. `acks` must be new; it is closed when the thread ends, before
    /// `on_end` is called. The limiter may be shared with other streams.
    pub fn start(
        name: &str,
        config: BulkConfig,
        stream: DataStream,
        acks: Arc<AckTracker>,
        limiter: Arc<RateLimiter>,
        counters: Arc<FeedCounters>,
        on_end: OnEnd,
    ) -> io::Result<(Self, StreamThread)> {
        let queue = Arc::new(Queue::new(config.queue_jobs));
        let stopped = Arc::new(AtomicBool::new(false));
        let stopper = stream.stopper()?;
        let stop = {
            let (queue, stopped, stopper) = (queue.clone(), stopped.clone(), stopper.clone());
            move || {
                stopped.store(true, Ordering::SeqCst);
                queue.close();
                stopper.stop();
            }
        };
        let copy_reason = stream.copy_reason();
        let frame_bytes = u64::from(config.frame_bytes).clamp(BLOCK, PAYLOAD_MAX) & !(BLOCK - 1);
        let mut body = Sending {
            frame: FrameSize::new(frame_bytes),
            keepalive: config.keepalive,
            staging: Staging::new(frame_bytes)?,
            buffer: Vec::new(),
            known: Known::default(),
            copy_reason,
            stream,
            stopped,
            limiter,
            counters,
            acks: acks.clone(),
            queue: queue.clone(),
        };
        let sender = Self { queue, acks };
        let closing = {
            let sender = sender.clone();
            move |result: Result<(), StreamError>| {
                sender.queue.close();
                stopper.stop();
                if let Err(error) = &result {
                    sender.acks.close(error.as_io_error());
                }
                result
            }
        };
        let body = move || {
            let Err(error) = body.run();
            Err(error)
        };
        let thread = StreamThread::spawn(name.to_owned(), stop, body, closing, on_end)?;
        Ok((sender, thread))
    }

    /// Appends a job; never waits. After an error nothing is told about the token.
    pub fn try_send(&self, job: BulkJob) -> Result<(), SendError> {
        let mut total = 0u64;
        for segment in &job.segments {
            total = total
                .checked_add(segment.range.len())
                .ok_or(SendError::Invalid)?;
        }
        if job.range.is_empty() || total != job.range.len() {
            return Err(SendError::Invalid);
        }
        self.queue.push_with(1, || {
            self.acks.open(job.token)?;
            Ok((job, ()))
        })
    }

    /// Jobs that wait or are in sending.
    pub fn queued_jobs(&self) -> u64 {
        self.queue.cost()
    }

    /// The last sequence number given out; 0 before the first.
    pub fn last_sequence(&self) -> u64 {
        self.acks.last_sequence()
    }
}

/// What ends a job before all of it is sent.
enum JobError {
    /// The disk: the job fails, the stream goes on.
    Disk(IoError),
    /// The stream ends.
    Stream(StreamError),
}

impl From<StreamError> for JobError {
    fn from(error: StreamError) -> Self {
        Self::Stream(error)
    }
}

impl From<Errno> for JobError {
    /// Of a call on a disk.
    fn from(errno: Errno) -> Self {
        Self::Disk(IoError::from_errno(errno as i32))
    }
}

struct Sending {
    frame: FrameSize,
    keepalive: Duration,
    staging: Staging,
    buffer: Vec<u8>,
    known: Known,
    /// Why this stream copies; `None` while it does not.
    copy_reason: Option<PathReason>,
    stream: DataStream,
    stopped: Arc<AtomicBool>,
    limiter: Arc<RateLimiter>,
    counters: Arc<FeedCounters>,
    acks: Arc<AckTracker>,
    queue: Arc<Queue<BulkJob>>,
}

impl Sending {
    /// Ends with an error only: a sender is stopped or cut.
    fn run(&mut self) -> Result<Infallible, StreamError> {
        loop {
            let (jobs, cost) = match self.queue.pop(1, 1, self.keepalive) {
                Popped::Closed => return Err(StreamError::Stopped),
                Popped::Idle => {
                    self.send_header(Command::Keepalive, 0, 0)?;
                    continue;
                }
                Popped::Items(jobs, cost) => (jobs, cost),
            };
            for job in &jobs {
                match self.job(job) {
                    Ok(()) => self.acks.seal(job.token, self.acks.last_sequence()),
                    Err(JobError::Disk(error)) => self.acks.fail(job.token, error),
                    Err(JobError::Stream(error)) => return Err(error),
                }
            }
            drop(jobs);
            self.queue.release(cost);
        }
    }

    fn job(&mut self, job: &BulkJob) -> Result<(), JobError> {
        let mut offset = job.range.start();
        for segment in &job.segments {
            check_length(segment)?;
            let mut rest = segment.range;
            while !rest.is_empty() {
                let shift = offset.wrapping_sub(rest.start());
                let sent = match self
                    .known
                    .run_at(&segment.file, rest, shift, BLOCK, HOLE_MIN)?
                {
                    Run::Hole(len) => self.send_zeroes(offset, len)?,
                    Run::Data(len) => {
                        let run = ByteRange::new(rest.start(), len);
                        self.send_data(&segment.file, run, offset)?;
                        len
                    }
                };
                offset += sent;
                rest = ByteRange::new(rest.start() + sent, rest.len() - sent);
            }
        }
        Ok(())
    }

    /// Sends zeroes for the range, or its beginning; returns how many.
    fn send_zeroes(&mut self, offset: u64, len: u64) -> Result<u64, StreamError> {
        let len = len.min(HOLE_MAX);
        self.send_header(Command::WriteZeroes, offset, len)?;
        self.counters.zeroes(len);
        Ok(len)
    }

    /// Sends a frame without payload.
    fn send_header(
        &mut self,
        command: Command,
        offset: u64,
        length: u64,
    ) -> Result<(), StreamError> {
        if self.stopped.load(Ordering::SeqCst) {
            return Err(StreamError::Stopped);
        }
        let header = self.header(command, offset, length);
        self.stream
            .write_all_vectored(&mut [IoSlice::new(&header.encode())])
            .map_err(socket_error("sending a header"))?;
        self.counters.frame();
        Ok(())
    }

    /// Sends a run of a file as the volume's bytes at `offset`, in as many frames as it takes.
    fn send_data(
        &mut self,
        file: &std::fs::File,
        run: ByteRange,
        offset: u64,
    ) -> Result<(), JobError> {
        let mut sent = 0;
        while sent < run.len() {
            let want = (run.len() - sent).min(self.limiter.piece(self.frame.bytes()));
            let (from, to) = (run.start() + sent, offset + sent);
            sent += match self.copy_reason {
                None => self.frame_by_splice(file, from, to, want)?,
                Some(reason) => {
                    let want = want.min(COPY_MAX);
                    self.frame_by_copy(file, from, to, want, reason)?
                }
            };
        }
        Ok(())
    }

    /// One frame of at most `want` bytes; returns how many. 0: try again, by copying.
    fn frame_by_splice(
        &mut self,
        file: &std::fs::File,
        from: u64,
        to: u64,
        want: u64,
    ) -> Result<u64, JobError> {
        let (filled, error) = self.staging.fill(file, from, want as usize);
        if filled == 0
            && matches!(
                error,
                Some(Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP)
            )
        {
            self.copy_reason = Some(PathReason::Unsupported {
                call: "splice from disk",
                errno: error.map_or(0, |errno| errno as i32),
            });
            return Ok(0);
        }
        let whole = whole_blocks(to, filled as u64, want);
        if whole > 0 {
            self.pay(whole)?;
            let header = self.header(Command::Write, to, whole);
            let Some(socket) = self.stream.splice_socket() else {
                unreachable!("a stream under TLS in user space copies from the beginning");
            };
            let began = Instant::now();
            send_more(socket, &header.encode()).map_err(socket_error("sending a header"))?;
            self.staging
                .drain(socket, whole as usize)
                .map_err(|errno| StreamError::Socket {
                    operation: "splicing to the socket",
                    source: errno.into(),
                })?;
            self.frame.took(whole, began.elapsed());
            self.counters.frame();
            self.counters.kernel(whole);
        }
        self.staging.discard().map_err(|source| StreamError::Pipe {
            operation: "emptying the pipes",
            source,
        })?;
        match error {
            Some(errno) => Err(errno.into()),
            None if whole == 0 => {
                // A pipe of less than a block.
                self.copy_reason = Some(PathReason::Unsupported {
                    call: "splice from disk",
                    errno: libc::EAGAIN,
                });
                Ok(0)
            }
            None => Ok(whole),
        }
    }

    /// One frame of at most `want` bytes through a buffer; returns how many.
    fn frame_by_copy(
        &mut self,
        file: &std::fs::File,
        from: u64,
        to: u64,
        want: u64,
        reason: PathReason,
    ) -> Result<u64, JobError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(want as usize, 0);
        let (read, error) = read_up_to(file, from, &mut buffer);
        let whole = whole_blocks(to, read as u64, want);
        let sent = self.send_copied(&buffer[..whole as usize], to, reason);
        self.buffer = buffer;
        sent?;
        match error {
            Some(error) => {
                let errno = error.raw_os_error().unwrap_or(libc::EIO);
                Err(JobError::Disk(IoError::from_errno(errno)))
            }
            None => Ok(whole),
        }
    }

    fn send_copied(
        &mut self,
        bytes: &[u8],
        to: u64,
        reason: PathReason,
    ) -> Result<(), StreamError> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.pay(bytes.len() as u64)?;
        let header = self.header(Command::Write, to, bytes.len() as u64);
        self.stream
            .write_all_vectored(&mut [IoSlice::new(&header.encode()), IoSlice::new(bytes)])
            .map_err(socket_error("sending bulk frames"))?;
        self.counters.frame();
        self.counters.copied(bytes.len() as u64, reason);
        Ok(())
    }

    fn pay(&mut self, bytes: u64) -> Result<(), StreamError> {
        if !self.stream.spend_key(bytes) {
            return Err(StreamError::KeyUsedUp);
        }
        let stopped = || self.stopped.load(Ordering::SeqCst);
        if self.limiter.acquire(bytes, stopped) {
            Ok(())
        } else {
            Err(StreamError::Stopped)
        }
    }

    fn header(&self, command: Command, offset: u64, length: u64) -> FrameHeader {
        FrameHeader {
            command,
            flags: FrameFlags::empty(),
            sequence: self.acks.next_sequence(),
            offset,
            length,
            aux: 0,
        }
    }
}

/// A regular file must have the bytes: past its end `SEEK_DATA` would call them a hole.
fn check_length(segment: &FileSegment) -> Result<(), JobError> {
    let metadata = segment.file.metadata().map_err(|error| {
        JobError::Disk(IoError::from_errno(
            error.raw_os_error().unwrap_or(libc::EIO),
        ))
    })?;
    if metadata.is_file() && metadata.len() < segment.range.end() {
        return Err(Errno::EIO.into());
    }
    Ok(())
}

/// Of `have` bytes at the volume's `offset`, those up to the end of a block, or all if they are
/// all that were wanted.
fn whole_blocks(offset: u64, have: u64, want: u64) -> u64 {
    if have >= want {
        return want;
    }
    let end = (offset + have) & !(BLOCK - 1);
    end.saturating_sub(offset)
}

/// Reads until the buffer is full or something ends it; the end of the file is an error.
fn read_up_to(file: &std::fs::File, from: u64, buffer: &mut [u8]) -> (usize, Option<io::Error>) {
    let mut read = 0;
    while read < buffer.len() {
        match file.read_at(&mut buffer[read..], from + read as u64) {
            Ok(0) => return (read, Some(io::Error::from_raw_os_error(libc::EIO))),
            Ok(count) => read += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (read, Some(error)),
        }
    }
    (read, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_end_with_blocks() {
        assert_eq!(whole_blocks(0, 8192, 8192), 8192);
        assert_eq!(whole_blocks(0, 8191, 16384), 4096);
        assert_eq!(whole_blocks(512, 4096, 16384), 4096 - 512);
        assert_eq!(whole_blocks(512, 100, 16384), 0);
        assert_eq!(whole_blocks(512, 512, 512), 512, "the end of a job");
    }
}
