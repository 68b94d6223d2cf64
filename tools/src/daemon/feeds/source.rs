//! The source's end of the data streams: what the lane gives goes out here.

use super::entry::FeedEntry;
use crate::lane::{self, BulkOp, Congested, FeedOutlet, LaneHandle, LiveOp, PayloadPipe};
use blockio::Op;
use feedplex::device::{FileSegment, LivePayload};
use feedplex::streams::{
    AckTracker, BulkConfig, BulkJob, BulkSender, LiveBytes, LiveConfig, LiveFrame, LivePipe,
    LiveSender, OnEnd, SendError, StreamThread, receive_acks,
};
use feedplex::transport::{DataStream, LinkWatch};
use feedplex::wire::control::Ack;
use feedplex::wire::frame::Command;
use ringio::{BufSlice, Handle, MAX_SLICE};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use volmgr::engine::IoId;

/// Payload of live writes that may wait for the socket, in bytes: a part of a lane's memory, so that
/// clients never wait for the peer.
const LIVE_QUEUE_BYTES: u64 = 2 << 20;
/// The same for what never enters a lane's memory, in bytes of the kernel's: a burst of large writes at the depth of a
/// device's queue should not make a feed fall behind.
const LIVE_PIPE_BYTES: u64 = 8 << 20;

/// A data stream whose other end has not answered anything for so long is given up. Its keepalives come more often.
const SILENCE_MAX: Duration = Duration::from_secs(8);

/// The streams of a session at the source.
pub struct SourceStreams {
    live: LiveSender,
    bulk: Vec<BulkSender>,
    acks: Vec<Arc<AckTracker>>,
    links: Vec<LinkWatch>,
    /// Ended with the session.
    pub threads: Vec<StreamThread>,
}

impl SourceStreams {
    /// Starts the threads; `streams` are in the order of their numbers. `stream_acks`: the sink acknowledges the live stream there. `on_end`
    /// makes what is called when a stream ends.
    pub fn start(
        name: &str,
        streams: Vec<DataStream>,
        lane: &LaneHandle,
        entry: &FeedEntry,
        stream_acks: bool,
        on_end: impl Fn() -> OnEnd,
    ) -> io::Result<Self> {
        let links: io::Result<Vec<_>> = streams.iter().map(DataStream::link_watch).collect();
        let links = links?;
        let mut streams = streams.into_iter();
        let live = streams
            .next()
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let tracker = || {
            let lane = lane.clone();
            Arc::new(AckTracker::new(Box::new(move |token, result| {
                lane.feed_done(IoId(token), result);
            })))
        };
        let live_acks = tracker();
        let mut acks = vec![live_acks.clone()];
        let other_way = match stream_acks {
            true => live.other_way()?,
            false => None,
        };
        let (live, thread) = LiveSender::start(
            &format!("live-{name}"),
            LiveConfig {
                queue_bytes: LIVE_QUEUE_BYTES,
                pipe_bytes: LIVE_PIPE_BYTES,
                ..LiveConfig::default()
            },
            live,
            live_acks,
            entry.counters.clone(),
            on_end(),
        )?;
        let mut threads = vec![thread];
        if let Some(stream) = other_way {
            let on_end = on_end();
            // Its end in good order says nothing that the session does not say.
            let on_end: OnEnd = Box::new(move |result| match result {
                Ok(()) => {}
                Err(error) => on_end(Err(error)),
            });
            let name = format!("acks-{name}");
            match receive_acks(&name, stream, acks[0].clone(), on_end) {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    threads.iter().for_each(StreamThread::stop);
                    return Err(error);
                }
            }
        }
        let mut bulk = Vec::new();
        for (number, stream) in streams.enumerate() {
            let stream_acks = tracker();
            acks.push(stream_acks.clone());
            let started = BulkSender::start(
                &format!("bulk{number}-{name}"),
                BulkConfig::default(),
                stream,
                stream_acks,
                entry.limiter.clone(),
                entry.counters.clone(),
                on_end(),
            );
            match started {
                Ok((sender, thread)) => {
                    bulk.push(sender);
                    threads.push(thread);
                }
                Err(error) => {
                    threads.iter().for_each(StreamThread::stop);
                    return Err(error);
                }
            }
        }
        Ok(Self {
            live,
            bulk,
            acks,
            links,
            threads,
        })
    }

    /// What the lane gets.
    pub fn outlet(&self) -> Box<dyn FeedOutlet> {
        Box::new(Outlet {
            live: self.live.clone(),
            bulk: self.bulk.clone(),
        })
    }

    /// The sink's progress; false where it acknowledges what it cannot have.
    pub fn acknowledged(&self, ack: &Ack) -> bool {
        match self.acks.get(usize::from(ack.stream)) {
            Some(acks) => acks.acknowledged(ack.durable).is_ok(),
            None => false,
        }
    }

    /// A data stream that leads nowhere, in words.
    pub fn dead_link(&self) -> Option<String> {
        self.links.iter().enumerate().find_map(|(number, link)| {
            let silence = link.silence();
            let seconds = silence.as_secs();
            (silence >= SILENCE_MAX)
                .then(|| format!("data stream {number}: the peer has not answered for {seconds} s"))
        })
    }

    /// Last number given out in the live stream; 0 before the first.
    pub fn live_sequence(&self) -> u64 {
        self.live.last_sequence()
    }
}

struct Outlet {
    live: LiveSender,
    bulk: Vec<BulkSender>,
}

/// Memory of the lane that waits to be sent.
struct Slice(BufSlice);

impl AsRef<[u8]> for Slice {
    fn as_ref(&self) -> &[u8] {
        self.0.as_ref()
    }
}

impl LivePayload for Slice {}

/// The stream's pipe, as the lane knows it.
struct Piping(Arc<LivePipe>);

impl PayloadPipe for Piping {
    fn file(&self) -> Handle {
        Arc::clone(self.0.write_end()).into()
    }

    fn reserve(&self, len: u64) -> bool {
        self.0.reserve(len)
    }

    fn release(&self, len: u64) {
        self.0.release(len);
    }

    fn set_broken(&self) {
        self.0.set_broken();
    }
}

impl FeedOutlet for Outlet {
    fn try_live(&mut self, op: LiveOp) -> Result<(), Congested> {
        let command = match (op.op, op.mark) {
            (_, Some(_)) => Command::Mark,
            (Op::Write, None) => Command::Write,
            (Op::WriteZeroes, None) => Command::WriteZeroes,
            (Op::Discard, None) => Command::Trim,
            (Op::Flush, None) => Command::Flush,
            // Reads change nothing at the sink; the engine sends none.
            (Op::Read | Op::Prefetch, None) => return Err(Congested),
        };
        let frame = LiveFrame {
            token: op.io.0,
            command,
            range: op.range,
            flags: op.flags,
            bytes: op.bytes.map(|bytes| match bytes {
                lane::LiveBytes::Memory(bytes) => LiveBytes::Memory(Box::new(Slice(bytes))),
                lane::LiveBytes::Piped(len) => LiveBytes::Piped(len),
            }),
            mark: op.mark,
        };
        self.live.try_send(frame).map(|_| ()).map_err(refused)
    }

    fn pipe(&self) -> Option<Arc<dyn PayloadPipe>> {
        let pipe = self.live.pipe()?;
        // One that the system's limits made too small for a request would never take it.
        let large = pipe.capacity() >= MAX_SLICE as u64;
        large.then(|| Arc::new(Piping(Arc::clone(pipe))) as Arc<dyn PayloadPipe>)
    }

    fn copy(&mut self, op: BulkOp) -> Result<(), Congested> {
        let Some(stream) = self.bulk.iter().min_by_key(|stream| stream.queued_jobs()) else {
            return Err(Congested);
        };
        let job = BulkJob {
            token: op.io.0,
            range: op.range,
            segments: op
                .segments
                .into_iter()
                .map(|(file, range)| FileSegment { file, range })
                .collect(),
        };
        stream.try_send(job).map_err(refused)
    }
}

/// A closed stream is about to be reported by its end; until then it is as good as full.
fn refused(error: SendError) -> Congested {
    if error == SendError::Invalid {
        tracing::error!("the lane gave a feed operation whose parts do not fit");
    }
    Congested
}

#[cfg(test)]
mod tests {
    use super::*;
    use volmgr::engine::EngineConfig;

    /// A stream whose queue is full makes the feed fall behind: no number of copies that the engine may start must do that.
    #[test]
    fn one_stream_takes_all_copies_of_a_feed() {
        let copies = EngineConfig::default().max_bulk_copies as u64;
        assert!(BulkConfig::default().queue_jobs >= copies);
    }
}
