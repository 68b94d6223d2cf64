//! The live stream's sender: frames in the order in which they were given.

use super::ack::AckTracker;
use super::queue::{Popped, Queue};
use super::{OnEnd, SendError, StreamError, StreamThread};
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
    pub bytes: Option<Box<dyn LivePayload>>,
    /// The point of a mark.
    pub mark: Option<Uuid>,
}

/// Bounds and habits of a live stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveConfig {
    /// Payload that may wait or be in sending, in bytes; beyond it the feed is congested.
    pub queue_bytes: u64,
    /// Silence after which a keepalive frame is sent.
    pub keepalive: Duration,
    /// Send a checksum with each payload (TLS has its own).
    pub payload_checksum: bool,
}

impl Default for LiveConfig {
    fn default() -> Self {
        Self {
            queue_bytes: 64 << 20,
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
    Mark([u8; 16]),
}

impl Body {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::None => &[],
            Self::Write(bytes) => (**bytes).as_ref(),
            Self::Mark(point) => point,
        }
    }
}

/// The way into a live stream; clones lead to the same stream.
#[derive(Clone)]
pub struct LiveSender {
    queue: Arc<Queue<Queued>>,
    acks: Arc<AckTracker>,
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
        let sender = Self { queue, acks };
        let mut body = Sending {
            config,
            stream,
            sender: sender.clone(),
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
        let cost = FRAME_COST.saturating_add(payload.bytes().len() as u64);
        self.queue.push_with(cost, || {
            header.sequence = self.acks.open_with_sequence(token)?;
            Ok((Queued { header, payload }, header.sequence))
        })
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
        (Command::Write, Some(bytes), None) => {
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
        Command::Flush | Command::Keepalive | Command::Error => (0, 0),
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
            bytes: bytes.map(|len| Box::new(vec![0u8; len]) as Box<dyn LivePayload>),
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
