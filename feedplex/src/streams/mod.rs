//! The threads that move frames, one per data stream.
//!
//! * Sending side: [`LiveSender`] (data stream 0, in the order of the volume's writes) and
//!   [`BulkSender`] (the others, straight from disks). Both keep their outstanding work in an
//!   [`AckTracker`], which tells each token's end exactly once.
//! * Receiving side: [`receive`], the same for both kinds, which keeps a [`StreamProgress`].
//! * Data flows one way on a data stream. Acknowledgements, by sequence number, travel on the control stream, those of the
//!   live stream against its direction where the peer takes them there ([`AckSender`]).
//! * Every thread ends promptly when its stream is stopped, from either end: all of its waiting is
//!   in the socket, in a queue that is closed with it, or in the device.

mod ack;
mod ack_stream;
mod bulk_send;
mod extents;
mod fanout;
mod frame_size;
mod limiter;
mod live_pipe;
mod live_send;
mod pacer;
mod pipe;
mod presence;
mod progress;
mod queue;
mod receive;
mod sequences;
mod staging;
mod thread;

pub use ack::{AckError, AckTracker, TokenDone};
pub use ack_stream::{AckSender, receive_acks};
pub use bulk_send::{BulkConfig, BulkJob, BulkSender};
pub use limiter::RateLimiter;
pub use live_pipe::LivePipe;
pub use live_send::{LiveBytes, LiveConfig, LiveFrame, LiveSender};
pub use pacer::{Pacer, Sample};
pub use presence::Presence;
pub use progress::{Moved, StreamProgress};
pub use receive::{ReceiverConfig, receive};
pub use thread::{OnEnd, StillRunning, StreamThread};

use crate::wire::frame::{Command, FrameError};
use blockio::{IoError, IoErrorKind};
use socket2::SockRef;
use std::io;
use std::sync::{Mutex, MutexGuard};
use thiserror::Error;

/// Why a stream ended.
#[derive(Debug, Error)]
pub enum StreamError {
    /// The socket failed.
    #[error("{operation}")]
    Socket {
        /// What was tried.
        operation: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// A pipe, which the kernel's data paths need, failed.
    #[error("{operation}")]
    Pipe {
        /// What was tried.
        operation: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The connection ended within a frame.
    #[error("the connection ended within a frame")]
    Truncated,
    /// The peer sent something that is not a frame.
    #[error("bad frame")]
    Frame(#[from] FrameError),
    /// A frame is missing or came twice.
    #[error("frame {found} came where {expected} was due")]
    Sequence {
        /// The next number.
        expected: u64,
        /// The one that came.
        found: u64,
    },
    /// A frame is for bytes that the volume does not have.
    #[error("a frame for {length} bytes at {offset} of a volume of {size}")]
    OutOfRange {
        /// Bytes.
        offset: u64,
        /// Bytes.
        length: u64,
        /// The volume's size in bytes.
        size: u64,
    },
    /// A frame's range is not in whole blocks.
    #[error("a frame for {length} bytes at {offset} of a volume with blocks of {block}")]
    Misaligned {
        /// Bytes.
        offset: u64,
        /// Bytes.
        length: u64,
        /// The volume's logical block size in bytes.
        block: u32,
    },
    /// The payload was damaged on the way.
    #[error("payload checksum is {found:#010x}, computed {computed:#010x}")]
    PayloadChecksum {
        /// In the header.
        found: u32,
        /// Over the payload.
        computed: u32,
    },
    /// A frame that only the other side sends.
    #[error("a frame came against its direction: {0:?}")]
    Direction(Command),
    /// The peer acknowledged what cannot be.
    #[error("impossible acknowledgement")]
    Acknowledgement(#[from] AckError),
    /// The peer gave up.
    #[error("the peer gave the stream up: errno {0}")]
    PeerGaveUp(i32),
    /// The volume failed an operation: nothing after it may be acknowledged.
    #[error("the volume failed an operation of the feed")]
    Device(#[source] IoError),
    /// The stream's thread panicked, which is a bug here; the message is on standard error.
    #[error("the stream's thread panicked")]
    Panicked,
    /// A key under TLS has been used for as much as it is good for.
    #[error("the TLS key is used up, the connection is made anew")]
    KeyUsedUp,
    /// Stopped from this side.
    #[error("stopped")]
    Stopped,
}

impl StreamError {
    /// What an operation that was in flight in the stream ends with.
    pub fn as_io_error(&self) -> IoError {
        match self {
            Self::Device(error) => *error,
            Self::Stopped => IoError::new(IoErrorKind::Cancelled),
            _ => IoError::new(IoErrorKind::Gone),
        }
    }
}

/// Why something was not taken for sending; nothing will be heard of its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SendError {
    /// The queue is at its bound: the feed falls behind.
    #[error("the feed's queue is full")]
    Congested,
    /// The stream has ended.
    #[error("the stream has ended")]
    Closed,
    /// Length, payload and command do not fit each other.
    #[error("not a valid frame")]
    Invalid,
}

impl From<SendError> for IoError {
    fn from(error: SendError) -> Self {
        IoError::new(match error {
            SendError::Congested => IoErrorKind::Congested,
            SendError::Closed => IoErrorKind::Gone,
            SendError::Invalid => IoErrorKind::Invalid,
        })
    }
}

/// Locks. What is under the locks here is whole between any two statements, so a thread that
/// panicked with one has left nothing half done.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Sends bytes that more will follow.
fn send_more(socket: &std::net::TcpStream, bytes: &[u8]) -> io::Result<()> {
    let socket = SockRef::from(socket);
    let mut rest = bytes;
    while !rest.is_empty() {
        match socket.send_with_flags(rest, libc::MSG_MORE | libc::MSG_NOSIGNAL) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(sent) => rest = &rest[sent..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// What a call on the socket failed with.
fn socket_error(operation: &'static str) -> impl FnOnce(io::Error) -> StreamError {
    move |source| StreamError::Socket { operation, source }
}
