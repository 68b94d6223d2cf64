//! Acknowledgements on the data stream itself, against the direction of its frames.
//!
//! A `sync` write waits for its acknowledgement. On the control stream that comes by way of both control planes, a third of the processor
//! time of a small write; here it costs a turn of one thread at either end. What is told is the highest durable number
//! at the time of sending, so what comes quickly is told together.

use super::ack::AckTracker;
use super::{OnEnd, StreamError, StreamThread, lock};
use crate::transport::DataStream;
use crate::wire::frame::{Command, FrameFlags, FrameHeader, HEADER_LEN};
use std::io::{self, IoSlice, Read};
use std::sync::{Arc, Condvar, Mutex};

/// The sink's end; whoever makes frames durable tells it.
pub struct AckSender {
    state: Mutex<State>,
    told: Condvar,
}

#[derive(Default)]
struct State {
    /// Every frame up to this one is durable.
    through: u64,
    /// The same, as sent.
    sent: u64,
    asleep: bool,
    closed: bool,
}

impl AckSender {
    /// Starts a thread that sends on `stream`, whose frames somebody else receives ([`DataStream::other_way`]). Before `on_end` is
    /// called, [`Self::is_open`] has become false; what was told and not sent is then for others to tell.
    pub fn start(
        name: &str,
        stream: DataStream,
        on_end: OnEnd,
    ) -> io::Result<(Arc<Self>, StreamThread)> {
        let sender = Arc::new(Self {
            state: Mutex::new(State::default()),
            told: Condvar::new(),
        });
        let stopper = stream.stopper()?;
        let stop = {
            let sender = sender.clone();
            move || {
                sender.close();
                stopper.stop();
            }
        };
        let body = {
            let sender = sender.clone();
            move || sender.run(stream)
        };
        let closing = {
            let sender = sender.clone();
            move |result| {
                sender.close();
                result
            }
        };
        let thread = StreamThread::spawn(name.to_owned(), stop, body, closing, on_end)?;
        Ok((sender, thread))
    }

    /// Every frame up to this one is durable; never waits. False where this way has ended.
    pub fn tell(&self, through: u64) -> bool {
        let mut state = lock(&self.state);
        if state.closed {
            return false;
        }
        state.through = state.through.max(through);
        let asleep = std::mem::take(&mut state.asleep);
        drop(state);
        // To wake a thread that is awake would be a system call for nothing.
        if asleep {
            self.told.notify_one();
        }
        true
    }

    /// Is this way still there?
    pub fn is_open(&self) -> bool {
        !lock(&self.state).closed
    }

    fn close(&self) {
        lock(&self.state).closed = true;
        self.told.notify_one();
    }

    /// The next number to be sent; `None` at the end.
    fn next(&self) -> Option<u64> {
        let mut state = lock(&self.state);
        while state.through == state.sent && !state.closed {
            state.asleep = true;
            state = self
                .told
                .wait(state)
                .unwrap_or_else(|poisoned| poisoned.into_inner());
        }
        if state.closed {
            return None;
        }
        state.sent = state.through;
        Some(state.sent)
    }

    fn run(&self, mut stream: DataStream) -> Result<(), StreamError> {
        while let Some(through) = self.next() {
            if !stream.spend_key(0) {
                return Err(StreamError::KeyUsedUp);
            }
            let header = acknowledgement(through);
            stream
                .write_all_vectored(&mut [IoSlice::new(&header.encode())])
                .map_err(|source| StreamError::Socket {
                    operation: "sending an acknowledgement",
                    source,
                })?;
        }
        Ok(())
    }
}

fn acknowledgement(through: u64) -> FrameHeader {
    FrameHeader {
        command: Command::Ack,
        flags: FrameFlags::empty(),
        sequence: through,
        offset: 0,
        length: 0,
        aux: 0,
    }
}

/// The source's end: a thread that takes acknowledgements from `stream` ([`DataStream::other_way`]) until that ends, or the peer says what
/// cannot be. Only the latter is an error: a connection that ends is noticed by who sends on it, and a session that ends in good order closes it, too.
pub fn receive_acks(
    name: &str,
    stream: DataStream,
    acks: Arc<AckTracker>,
    on_end: OnEnd,
) -> io::Result<StreamThread> {
    let stopper = stream.stopper()?;
    let stop = {
        let stopper = stopper.clone();
        move || stopper.stop()
    };
    let closing = move |result| {
        stopper.stop();
        result
    };
    let body = move || take_acks(stream, &acks);
    StreamThread::spawn(name.to_owned(), stop, body, closing, on_end)
}

fn take_acks(mut stream: DataStream, acks: &AckTracker) -> Result<(), StreamError> {
    loop {
        let mut bytes = [0; HEADER_LEN];
        let mut filled = 0;
        while filled < HEADER_LEN {
            match stream.read(&mut bytes[filled..]) {
                Ok(0) if filled == 0 => return Ok(()),
                Ok(0) => return Err(StreamError::Truncated),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    tracing::debug!(%error, "no more acknowledgements on the live stream");
                    return Ok(());
                }
            }
        }
        let header = FrameHeader::decode(&bytes)?;
        match header.command {
            Command::Ack => acks.acknowledged(header.sequence)?,
            command => return Err(StreamError::Direction(command)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::sync::mpsc::channel;
    use std::time::Duration;

    const SOON: Duration = Duration::from_secs(20);

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (near, listener.accept().unwrap().0)
    }

    /// A tracker of `sent` frames whose tokens are their numbers, and what it tells.
    fn tracker(sent: u64) -> (Arc<AckTracker>, std::sync::mpsc::Receiver<u64>) {
        let (tell, told) = channel();
        let tracker = AckTracker::new(Box::new(move |token, result| {
            if result.is_ok() {
                tell.send(token).unwrap();
            }
        }));
        for token in 1..=sent {
            tracker.open_with_sequence(token).unwrap();
        }
        (Arc::new(tracker), told)
    }

    #[test]
    fn what_is_told_at_the_sink_is_acknowledged_at_the_source() {
        let (source, sink) = pair();
        let (acks, told) = tracker(1000);
        let (ended, end) = channel();
        let receiver = receive_acks(
            "acks",
            DataStream::plain(source),
            acks,
            Box::new(move |result| ended.send(result.is_ok()).unwrap()),
        )
        .unwrap();
        let (sender, thread) =
            AckSender::start("ack", DataStream::plain(sink), Box::new(|_| ())).unwrap();
        // Overtaken ones change nothing.
        for through in [1, 3, 2, 900, 7, 1000] {
            assert!(sender.tell(through));
        }
        for token in 1..=1000 {
            assert_eq!(told.recv_timeout(SOON), Ok(token));
        }
        thread.stop();
        thread.join(SOON).unwrap();
        assert!(!sender.is_open() && !sender.tell(1001));
        assert_eq!(end.recv_timeout(SOON), Ok(true), "an end between two");
        receiver.join(SOON).unwrap();
    }

    /// Whatever the peer says that cannot be ends the stream, and nothing is counted as durable.
    #[test]
    fn a_peer_that_says_what_cannot_be_is_hung_up_on() {
        let mut keepalive = acknowledgement(1);
        keepalive.command = Command::Keepalive;
        let good = acknowledgement(1).encode();
        let mut damaged = good;
        damaged[10] ^= 1;
        type Judge = fn(&StreamError) -> bool;
        let cases: [(&[u8], Judge); 4] = [
            (&acknowledgement(3).encode(), |e| {
                matches!(e, StreamError::Acknowledgement(_))
            }),
            (&keepalive.encode(), |e| {
                matches!(e, StreamError::Direction(Command::Keepalive))
            }),
            (&damaged, |e| matches!(e, StreamError::Frame(_))),
            (&good[..39], |e| matches!(e, StreamError::Truncated)),
        ];
        for (bytes, judge) in cases {
            let (source, mut sink) = pair();
            let (acks, told) = tracker(2);
            let (ended, end) = channel();
            let on_end = Box::new(move |result| ended.send(result).unwrap());
            let thread = receive_acks("acks", DataStream::plain(source), acks, on_end).unwrap();
            sink.write_all(bytes).unwrap();
            drop(sink);
            let error = end.recv_timeout(SOON).unwrap().unwrap_err();
            assert!(judge(&error), "{error}");
            assert!(told.try_recv().is_err());
            thread.join(SOON).unwrap();
        }
    }

    #[test]
    fn a_sink_whose_source_is_gone_says_so() {
        let (source, sink) = pair();
        let (ended, end) = channel();
        let on_end = Box::new(move |result: Result<(), _>| ended.send(result.is_err()).unwrap());
        let (sender, thread) = AckSender::start("ack", DataStream::plain(sink), on_end).unwrap();
        drop(source);
        // The first may still be taken by the kernel.
        for through in 1.. {
            if !sender.tell(through) {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(end.recv_timeout(SOON), Ok(true));
        thread.join(SOON).unwrap();
    }
}
