//! The live stream's sender: frames in the order in which they were given.

use super::ack::AckTracker;
use super::live_pipe::LivePipe;
use super::pipe::Pipe;
use super::queue::{Popped, Queue};
use super::{OnEnd, SendError, StreamError, StreamThread, send_more, socket_error};
use crate::counters::{FeedCounters, PathReason};
use crate::device::LivePayload;
use crate::transport::DataStream;
use crate::wire::frame::PAYLOAD_MAX;
use crate::wire::frame::{Command, FrameFlags, FrameHeader, HEADER_LEN, MARK_PAYLOAD_LEN};
use blockio::{ByteRange, Flags};
use std::convert::Infallible;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// Frames and bytes of one system call at most.
const BATCH_FRAMES: usize = 64;
const BATCH_BYTES: u64 = 1 << 20;

/// What a frame costs in the queue besides its payload, in bytes.
const FRAME_COST: u64 = 128;

/// One operation for the live stream.
#[derive(Debug)]
pub struct LiveFrame {
    /// Told done through the [`AckTracker`].
    pub token: u64,
    /// Write, WriteZeroes, Trim, Flush or Mark.
    pub command: Command,
    /// Of the volume; empty for a flush or mark.
    pub range: ByteRange,
    /// FUA, NO_UNMAP.
    pub flags: Flags,
    /// The bytes of a write.
    pub bytes: Option<LiveBytes>,
    /// The point of a mark.
    pub mark: Option<Uuid>,
}

/// Where the bytes of a live write are.
#[derive(Debug)]
pub enum LiveBytes {
    /// In memory.
    Memory(Box<dyn LivePayload>),
    /// So many of them, in the stream's [`LivePipe`] or on their way there: room for them has been
    /// reserved, and the writes into the pipe are made in the order of the frames.
    Piped(u64),
}

/// Bounds and habits of a live stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveConfig {
    /// Payload that may wait or be in sending, in bytes; beyond it the feed is congested.
    pub queue_bytes: u64,
    /// Size of the pipe for payload that never enters this process, in bytes; 0 for none. Under TLS
    /// in user space and with checksums, which need the bytes, there is none in any case.
    pub pipe_bytes: u64,
    /// Silence after which a keepalive frame is sent.
    pub keepalive: Duration,
    /// Send a checksum with each payload (TLS has its own).
    pub payload_checksum: bool,
}

impl Default for LiveConfig {
    fn default() -> Self {
        Self {
            queue_bytes: 64 << 20,
            pipe_bytes: 0,
            keepalive: Duration::from_secs(5),
            payload_checksum: false,
        }
    }
}

struct Queued {
    header: FrameHeader,
    payload: Body,
}

enum Body {
    None,
    Write(Box<dyn LivePayload>),
    Piped(u64),
    Mark([u8; 16]),
}

impl Body {
    /// The bytes that are in memory.
    fn bytes(&self) -> &[u8] {
        match self {
            Self::None | Self::Piped(_) => &[],
            Self::Write(bytes) => (**bytes).as_ref(),
            Self::Mark(point) => point,
        }
    }

    fn len(&self) -> u64 {
        match self {
            Self::Piped(len) => *len,
            _ => self.bytes().len() as u64,
        }
    }
}

/// The way into a live stream; clones lead to the same stream.
#[derive(Clone)]
pub struct LiveSender {
    queue: Arc<Queue<Queued>>,
    acks: Arc<AckTracker>,
    pipe: Option<Arc<LivePipe>>,
}

impl LiveSender {
    /// Starts the stream's thread. `acks` must be new; it is closed when the thread ends, before
    /// `on_end` is called.
    pub fn start(
        name: &str,
        config: LiveConfig,
        stream: DataStream,
        acks: Arc<AckTracker>,
        counters: Arc<FeedCounters>,
        on_end: OnEnd,
    ) -> io::Result<(Self, StreamThread)> {
        let queue = Arc::new(Queue::new(config.queue_bytes));
        let stopper = stream.stopper()?;
        let stop = {
            let (queue, stopper) = (queue.clone(), stopper.clone());
            move || {
                queue.close();
                stopper.stop();
            }
        };
        let wanted = config.pipe_bytes > 0 && !config.payload_checksum;
        let piped = wanted && stream.splice_socket().is_some();
        let pipe = match piped {
            true => Some(Arc::new(LivePipe::new(config.pipe_bytes)?)),
            false => None,
        };
        let next = pipe.is_some().then(Pipe::new).transpose()?;
        let sender = Self { queue, acks, pipe };
        let mut body = Sending {
            config,
            stream,
            sender: sender.clone(),
            next,
            counters,
        };
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

    /// Appends an operation and returns its sequence number in the stream; never waits. After an
    /// error nothing is told about the token.
    pub fn try_send(&self, frame: LiveFrame) -> Result<u64, SendError> {
        let token = frame.token;
        let (mut header, payload) = check(frame)?;
        if matches!(payload, Body::Piped(_)) && self.pipe.is_none() {
            return Err(SendError::Invalid);
        }
        let cost = match &payload {
            // The room it takes was reserved in the pipe.
            Body::Piped(_) => FRAME_COST,
            other => FRAME_COST.saturating_add(other.len()),
        };
        self.queue.push_with(cost, || {
            header.sequence = self.acks.open_with_sequence(token)?;
            Ok((Queued { header, payload }, header.sequence))
        })
    }

    /// The way in for payload that is to stay in the kernel, where this stream has one.
    pub fn pipe(&self) -> Option<&Arc<LivePipe>> {
        self.pipe.as_ref()
    }

    /// Bytes that wait or are in sending.
    pub fn queued_bytes(&self) -> u64 {
        self.queue.cost()
    }

    /// The last sequence number given out; 0 before the first.
    pub fn last_sequence(&self) -> u64 {
        self.acks.last_sequence()
    }
}

/// The header (with no number yet) and payload of a frame whose parts fit each other.
fn check(frame: LiveFrame) -> Result<(FrameHeader, Body), SendError> {
    let (range, mut flags) = (frame.range, FrameFlags::empty());
    let payload = match (frame.command, frame.bytes, frame.mark) {
        (Command::Write, Some(LiveBytes::Piped(len)), None) => {
            if len != range.len() || len > PAYLOAD_MAX {
                return Err(SendError::Invalid);
            }
            Body::Piped(len)
        }
        (Command::Write, Some(LiveBytes::Memory(bytes)), None) => {
            let fits = (*bytes).as_ref().len() as u64 == range.len() && range.len() <= PAYLOAD_MAX;
            if !fits {
                return Err(SendError::Invalid);
            }
            Body::Write(bytes)
        }
        (Command::WriteZeroes | Command::Trim | Command::Flush, None, None) => Body::None,
        (Command::Mark, None, Some(point)) => Body::Mark(*point.as_bytes()),
        _ => return Err(SendError::Invalid),
    };
    let (offset, length) = match frame.command {
        Command::Write | Command::WriteZeroes | Command::Trim => {
            if range.is_empty() {
                return Err(SendError::Invalid);
            }
            flags.set(FrameFlags::FUA, frame.flags.contains(Flags::FUA));
            if frame.command == Command::WriteZeroes {
                flags.set(FrameFlags::NO_UNMAP, frame.flags.contains(Flags::NO_UNMAP));
            }
            (range.start(), range.len())
        }
        Command::Mark => (0, MARK_PAYLOAD_LEN),
        Command::Flush | Command::Keepalive | Command::Error | Command::Ack => (0, 0),
    };
    let header = FrameHeader {
        command: frame.command,
        flags,
        sequence: 0,
        offset,
        length,
        aux: 0,
    };
    Ok((header, payload))
}

struct Sending {
    config: LiveConfig,
    stream: DataStream,
    sender: LiveSender,
    /// Where piped payload waits for the socket; see [`LivePipe`].
    next: Option<Pipe>,
    counters: Arc<FeedCounters>,
}

impl Sending {
    /// Ends with an error only: a sender is stopped or cut.
    fn run(&mut self) -> Result<Infallible, StreamError> {
        let queue = self.sender.queue.clone();
        loop {
            match queue.pop(BATCH_FRAMES, BATCH_BYTES, self.config.keepalive) {
                Popped::Closed => return Err(StreamError::Stopped),
                // Through the queue, so that its number is in the queue's order.
                Popped::Idle => match self.queue_keepalive() {
                    Ok(()) | Err(SendError::Congested) => {}
                    Err(_) => return Err(StreamError::Stopped),
                },
                Popped::Items(batch, cost) => {
                    let sent = self.send(&batch);
                    // The front end's buffers are free from here on.
                    drop(batch);
                    queue.release(cost);
                    sent?;
                }
            }
        }
    }

    fn queue_keepalive(&self) -> Result<(), SendError> {
        self.sender.queue.push_with(0, || {
            let header = FrameHeader {
                command: Command::Keepalive,
                flags: FrameFlags::empty(),
                sequence: self.sender.acks.next_sequence(),
                offset: 0,
                length: 0,
                aux: 0,
            };
            let payload = Body::None;
            Ok((Queued { header, payload }, ()))
        })
    }

    fn send(&mut self, batch: &[Queued]) -> Result<(), StreamError> {
        let bytes = batch.iter().map(|frame| frame.header.payload_len()).sum();
        if !self.stream.spend_key(bytes) {
            return Err(StreamError::KeyUsedUp);
        }
        let mut rest = batch;
        while !rest.is_empty() {
            let piped = rest
                .iter()
                .position(|f| matches!(f.payload, Body::Piped(_)));
            let (memory, after) = rest.split_at(piped.unwrap_or(rest.len()));
            if !memory.is_empty() {
                self.send_memory(memory)?;
            }
            rest = match after.split_first() {
                Some((frame, rest)) => {
                    self.send_piped(frame)?;
                    rest
                }
                None => after,
            };
        }
        Ok(())
    }

    /// The header, then the payload by `splice`.
    fn send_piped(&mut self, frame: &Queued) -> Result<(), StreamError> {
        let (Some(pipe), Some(next), Some(socket)) =
            (&self.sender.pipe, &self.next, self.stream.splice_socket())
        else {
            unreachable!("a stream without a pipe takes no piped frames");
        };
        let mut left = frame.payload.len();
        // The bytes first: a header that went out is a promise.
        let mut moved = pipe.move_to(next, left, || !self.sender.queue.is_closed())?;
        send_more(socket, &self.seal(frame)).map_err(socket_error("sending a live header"))?;
        loop {
            next.drain_to_socket(socket, moved as usize)
                .map_err(|errno| StreamError::Socket {
                    operation: "splicing live payload to the socket",
                    source: errno.into(),
                })?;
            left -= moved;
            if left == 0 {
                break;
            }
            moved = pipe.move_to(next, left, || !self.sender.queue.is_closed())?;
        }
        pipe.release(frame.payload.len());
        self.counters.frame();
        self.counters.kernel(frame.header.length);
        Ok(())
    }

    fn send_memory(&mut self, batch: &[Queued]) -> Result<(), StreamError> {
        let headers: Vec<[u8; HEADER_LEN]> = batch.iter().map(|frame| self.seal(frame)).collect();
        let mut slices = Vec::with_capacity(batch.len() * 2);
        for (header, frame) in headers.iter().zip(batch) {
            slices.push(IoSlice::new(header));
            slices.push(IoSlice::new(frame.payload.bytes()));
        }
        self.stream
            .write_all_vectored(&mut slices)
            .map_err(|source| StreamError::Socket {
                operation: "sending live frames",
                source,
            })?;
        for frame in batch {
            self.count(frame);
        }
        Ok(())
    }

    fn seal(&self, frame: &Queued) -> [u8; HEADER_LEN] {
        let mut header = frame.header;
        if self.config.payload_checksum && header.command == Command::Write {
            header.flags |= FrameFlags::PAYLOAD_CRC;
            header.aux = crc32c::crc32c(frame.payload.bytes());
        }
        header.encode()
    }

    fn count(&self, frame: &Queued) {
        self.counters.frame();
        match frame.header.command {
            Command::Write => {
                let reason = self.stream.copy_reason();
                let reason = reason.unwrap_or(PathReason::LiveWrites);
                self.counters.copied(frame.header.length, reason);
            }
            Command::WriteZeroes => self.counters.zeroes(frame.header.length),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(command: Command, len: u64, bytes: Option<usize>, mark: Option<Uuid>) -> LiveFrame {
        LiveFrame {
            token: 1,
            command,
            range: ByteRange::new(4096, len),
            flags: Flags::FUA | Flags::NO_UNMAP,
            bytes: bytes.map(|len| LiveBytes::Memory(Box::new(vec![0u8; len]))),
            mark,
        }
    }

    #[test]
    fn what_passes_the_check_can_be_encoded_and_decoded() {
        for good in [
            frame(Command::Write, 512, Some(512), None),
            frame(Command::WriteZeroes, 512, None, None),
            frame(Command::Trim, 512, None, None),
            frame(Command::Flush, 0, None, None),
            frame(Command::Mark, 0, None, Some(Uuid::nil())),
        ] {
            let (header, payload) = check(good).unwrap();
            let decoded = FrameHeader::decode(&header.encode()).unwrap();
            assert_eq!(decoded, header);
            assert_eq!(decoded.payload_len(), payload.bytes().len() as u64);
        }
    }

    #[test]
    fn parts_that_do_not_fit_are_refused() {
        for bad in [
            frame(Command::Write, 512, Some(511), None),
            frame(Command::Write, 512, None, None),
            frame(Command::Write, 0, Some(0), None),
            frame(Command::Write, PAYLOAD_MAX + 512, Some(33554944), None),
            frame(Command::Trim, 0, None, None),
            frame(Command::Trim, 512, Some(512), None),
            frame(Command::Mark, 0, None, None),
            frame(Command::Flush, 0, None, Some(Uuid::nil())),
            frame(Command::Keepalive, 0, None, None),
            frame(Command::Error, 0, None, None),
        ] {
            let command = bad.command;
            assert_eq!(check(bad).err(), Some(SendError::Invalid), "{command:?}");
        }
    }
}
