//! A receiving stream, live or bulk: frames from a peer that is not trusted to be sane.

use super::fanout::{CannotSplice, Fanout};
use super::{OnEnd, StreamError, StreamProgress, StreamThread};
use crate::counters::{FeedCounters, PathReason};
use crate::device::{DoneFn, SinkDevice};
use crate::transport::DataStream;
use crate::wire::frame::{Command, FrameFlags, FrameHeader, HEADER_LEN};
use blockio::{ByteRange, Flags, IoError, Op};
use std::io::{self, IoSliceMut, Read};
use std::sync::Arc;
use uuid::Uuid;

/// What the receiver holds the peer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiverConfig {
    /// Of the volume, in bytes.
    pub volume_size: u64,
    /// Of the volume, in bytes; a power of two.
    pub logical_block: u32,
    /// Payloads from this length on are spliced, in bytes; shorter ones are cheaper to copy.
    pub splice_min: u64,
}

impl ReceiverConfig {
    /// The default for a payload to be spliced, in bytes.
    pub const SPLICE_MIN: u64 = 64 << 10;

    /// For a volume of this size and block.
    pub fn new(volume_size: u64, logical_block: u32) -> Self {
        Self {
            volume_size,
            logical_block,
            splice_min: Self::SPLICE_MIN,
        }
    }
}

/// Receives frames on a thread of its own until the stream ends. `progress` must be new.
///
/// When `on_end` is called, operations may still be with the device; their completions go on to
/// move `progress`.
pub fn receive(
    name: &str,
    config: ReceiverConfig,
    stream: DataStream,
    device: Arc<dyn SinkDevice>,
    progress: Arc<StreamProgress>,
    counters: Arc<FeedCounters>,
    on_end: OnEnd,
) -> io::Result<StreamThread> {
    debug_assert!(config.logical_block.is_power_of_two());
    let stopper = stream.stopper()?;
    let on_failure = stopper.clone();
    let stop = {
        let (stopper, progress) = (stopper.clone(), progress.clone());
        move || {
            stopper.stop();
            progress.end();
        }
    };
    progress.set_on_failure(move || on_failure.stop());
    let ending = progress.clone();
    let mut body = Receiving {
        config,
        reader: Reader {
            stream,
            ahead: [0; HEADER_LEN],
            ahead_len: 0,
        },
        fanout: Fanout::new()?,
        no_splice: None,
        device,
        progress,
        counters,
        sequence: 0,
    };
    let closing = move |result: Result<(), StreamError>| {
        stopper.stop();
        ending.end();
        // Then the end of the socket is only what came of it.
        match ending.failure() {
            Some(error) => Err(StreamError::Device(error)),
            None => result,
        }
    };
    StreamThread::spawn(name.to_owned(), stop, move || body.run(), closing, on_end)
}

/// Reads frames without ever taking payload bytes that are to be spliced: what it reads ahead is
/// at most the header behind a payload that it copies.
struct Reader {
    stream: DataStream,
    ahead: [u8; HEADER_LEN],
    ahead_len: usize,
}

fn receiving(source: io::Error) -> StreamError {
    if source.kind() == io::ErrorKind::UnexpectedEof {
        return StreamError::Truncated;
    }
    StreamError::Socket {
        operation: "receiving",
        source,
    }
}

impl Reader {
    /// The next header's bytes; `None` where the stream ends in good order.
    fn header(&mut self) -> Result<Option<[u8; HEADER_LEN]>, StreamError> {
        while self.ahead_len < HEADER_LEN {
            match self.stream.read(&mut self.ahead[self.ahead_len..]) {
                Ok(0) if self.ahead_len == 0 => return Ok(None),
                Ok(0) => return Err(StreamError::Truncated),
                Ok(count) => self.ahead_len += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // TLS says this for an end without a goodbye, which is how streams are stopped.
                Err(error)
                    if error.kind() == io::ErrorKind::UnexpectedEof && self.ahead_len == 0 =>
                {
                    return Ok(None);
                }
                Err(error) => return Err(receiving(error)),
            }
        }
        self.ahead_len = 0;
        Ok(Some(self.ahead))
    }

    /// A payload, and perhaps the beginning of the header behind it.
    fn payload(&mut self, buffer: &mut [u8]) -> Result<(), StreamError> {
        debug_assert_eq!(self.ahead_len, 0);
        let mut filled = 0;
        while filled < buffer.len() {
            let rest = &mut buffer[filled..];
            let rest_len = rest.len();
            let mut slices = [IoSliceMut::new(rest), IoSliceMut::new(&mut self.ahead)];
            let count = match self.stream.read_vectored(&mut slices) {
                Ok(0) => return Err(StreamError::Truncated),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(receiving(error)),
            };
            filled += count.min(rest_len);
            self.ahead_len = count.saturating_sub(rest_len);
        }
        Ok(())
    }
}

struct Receiving {
    config: ReceiverConfig,
    reader: Reader,
    fanout: Fanout,
    /// Why payloads are not spliced, where they could be.
    no_splice: Option<PathReason>,
    device: Arc<dyn SinkDevice>,
    progress: Arc<StreamProgress>,
    counters: Arc<FeedCounters>,
    /// Of the last frame.
    sequence: u64,
}

impl Receiving {
    fn run(&mut self) -> Result<(), StreamError> {
        while let Some(bytes) = self.reader.header()? {
            let header = FrameHeader::decode(&bytes)?;
            let expected = self.sequence.saturating_add(1);
            if header.sequence != expected {
                return Err(StreamError::Sequence {
                    expected,
                    found: header.sequence,
                });
            }
            self.sequence = expected;
            self.counters.frame();
            self.frame(&header)?;
            if let Some(error) = self.progress.failure() {
                return Err(StreamError::Device(error));
            }
        }
        Ok(())
    }

    fn frame(&mut self, header: &FrameHeader) -> Result<(), StreamError> {
        match header.command {
            Command::Write => {
                let range = self.check_range(header)?;
                match self.copy_reason(header) {
                    None => self.write_by_splice(header, range),
                    Some(reason) => self.write_by_copy(header, range, reason),
                }
            }
            Command::WriteZeroes => {
                let range = self.check_range(header)?;
                self.counters.zeroes(range.len());
                self.submit(Op::WriteZeroes, header, range, None);
                Ok(())
            }
            Command::Trim => {
                let range = self.check_range(header)?;
                self.submit(Op::Discard, header, range, None);
                Ok(())
            }
            Command::Flush => self.flush(header.sequence),
            Command::Mark => {
                let mut point = [0; 16];
                self.reader.payload(&mut point)?;
                self.device.mark(Uuid::from_bytes(point), header.sequence);
                self.progress.complete(header.sequence, true);
                Ok(())
            }
            Command::Keepalive => {
                self.progress.complete(header.sequence, true);
                Ok(())
            }
            Command::Ack => Err(StreamError::Direction(Command::Ack)),
            Command::Error => {
                let errno = i32::try_from(header.aux).unwrap_or(libc::EIO);
                Err(StreamError::PeerGaveUp(errno))
            }
        }
    }

    fn check_range(&self, header: &FrameHeader) -> Result<ByteRange, StreamError> {
        let (offset, length, size) = (header.offset, header.length, self.config.volume_size);
        let range = ByteRange::checked(offset, length).filter(|range| range.end() <= size);
        let Some(range) = range else {
            return Err(StreamError::OutOfRange {
                offset,
                length,
                size,
            });
        };
        let block = self.config.logical_block;
        if !range.is_aligned(u64::from(block)) {
            return Err(StreamError::Misaligned {
                offset,
                length,
                block,
            });
        }
        Ok(range)
    }

    /// Why this payload goes through a buffer; `None` if it does not.
    fn copy_reason(&self, header: &FrameHeader) -> Option<PathReason> {
        if let Some(reason) = self.reader.stream.copy_reason() {
            Some(reason)
        } else if header.flags.contains(FrameFlags::PAYLOAD_CRC) {
            Some(PathReason::PayloadChecksum)
        } else if header.flags.contains(FrameFlags::FUA) {
            // A grant says nothing of durability; an ordinary write does.
            Some(PathReason::DurableWrites)
        } else if header.length < self.config.splice_min {
            Some(PathReason::SmallWrites)
        } else {
            self.no_splice
        }
    }

    fn write_by_splice(
        &mut self,
        header: &FrameHeader,
        range: ByteRange,
    ) -> Result<(), StreamError> {
        let grant = self
            .device
            .begin_write(range)
            .map_err(|error| self.failed(error))?;
        let delivered = match self.reader.stream.splice_socket() {
            Some(socket) => self
                .fanout
                .deliver(socket, &grant.plexes, range.len(), &self.counters),
            None => unreachable!("payload under TLS in user space is copied"),
        };
        let untouched = |count: usize| vec![Ok(()); count];
        match delivered {
            Ok(delivered) => {
                // A frame that did not come whole is never acknowledged; what there is of it is
                // the same on all plexes, so it is no failure of theirs.
                let done = match delivered.received {
                    Ok(()) => self.done(header),
                    Err(_) => Box::new(|_| {}),
                };
                self.device.end_write(grant, delivered.results, done);
                delivered.received
            }
            Err(CannotSplice(errno)) => {
                let results = untouched(grant.plexes.len());
                self.device.end_write(grant, results, Box::new(|_| {}));
                let reason = PathReason::Unsupported {
                    call: "splice from socket",
                    errno: errno as i32,
                };
                self.no_splice = Some(reason);
                self.write_by_copy(header, range, reason)
            }
        }
    }

    fn write_by_copy(
        &mut self,
        header: &FrameHeader,
        range: ByteRange,
        reason: PathReason,
    ) -> Result<(), StreamError> {
        // Bounded by the decoder: PAYLOAD_MAX.
        let mut bytes = vec![0; header.length as usize];
        self.reader.payload(&mut bytes)?;
        if header.flags.contains(FrameFlags::PAYLOAD_CRC) {
            let computed = crc32c::crc32c(&bytes);
            if computed != header.aux {
                return Err(StreamError::PayloadChecksum {
                    found: header.aux,
                    computed,
                });
            }
        }
        self.counters.copied(header.length, reason);
        self.submit(Op::Write, header, range, Some(bytes));
        Ok(())
    }

    fn submit(&self, op: Op, header: &FrameHeader, range: ByteRange, bytes: Option<Vec<u8>>) {
        let mut flags = Flags::empty();
        flags.set(Flags::FUA, header.flags.contains(FrameFlags::FUA));
        flags.set(Flags::NO_UNMAP, header.flags.contains(FrameFlags::NO_UNMAP));
        self.device
            .submit(op, range, flags, bytes, self.done(header));
    }

    /// A flush makes durable what is *completed* when it is submitted, and the stream means all
    /// that came before it: so it is submitted when that is completed. The wait is here, not in a
    /// completion, where the device could not hold its caller back.
    fn flush(&self, sequence: u64) -> Result<(), StreamError> {
        if !self.progress.wait_applied(sequence - 1) {
            return Err(StreamError::Stopped);
        }
        let progress = self.progress.clone();
        let done = Box::new(move |result| match result {
            Ok(()) => {
                progress.flushed(sequence - 1);
                progress.complete(sequence, true);
            }
            Err(error) => progress.fail(error),
        });
        let nothing = ByteRange::default();
        self.device
            .submit(Op::Flush, nothing, Flags::empty(), None, done);
        Ok(())
    }

    fn done(&self, header: &FrameHeader) -> DoneFn {
        let durable = header.flags.contains(FrameFlags::FUA);
        self.progress.done(header.sequence, durable)
    }

    fn failed(&self, error: IoError) -> StreamError {
        self.progress.fail(error);
        StreamError::Device(error)
    }
}
