//! The sink's end of the data streams: what arrives goes to the lane from here.

use super::entry::FeedEntry;
use crate::lane::LaneHandle;
use blockio::{ByteRange, Flags, IoError, Op};
use feedplex::device::{DoneFn, FileSegment, PlexSegments, SinkDevice, WriteGrant};
use feedplex::session::Event;
use feedplex::streams::{
    AckSender, Moved, OnEnd, ReceiverConfig, StreamProgress, StreamThread, receive,
};
use feedplex::transport::DataStream;
use feedplex::wire::control::Ack;
use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc, oneshot};
use uuid::Uuid;

/// Longest time that something applied stays not durable, while more is coming.
const FLUSH_EVERY: Duration = Duration::from_millis(500);

/// Bytes applied after which they are made durable though more is coming: well below what a source
/// has in bulk flight (`max_bulk_in_flight` of its engine), so that it need not wait.
const FLUSH_BYTES: u64 = 32 << 20;

/// Silence after which everything applied is made durable at once.
const FLUSH_IDLE: Duration = Duration::from_millis(20);

/// What is applied and not durable is looked at together for this long: nobody waits to hear of it, and to be woken for
/// each write costs as much as the write.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What the streams wake whoever acknowledges with.
#[derive(Default)]
struct Wake {
    moved: Notify,
    /// Besides, when what somebody waits for has grown.
    durable: Notify,
}

impl Wake {
    fn wake(&self, moved: Moved) {
        if moved != Moved::Applied {
            self.durable.notify_one();
        }
        self.moved.notify_one();
    }
}

/// The live stream's own acknowledgements, if it can carry them.
struct Direct {
    sender: Arc<AckSender>,
    thread: StreamThread,
}

impl Direct {
    fn start(name: &str, live: &DataStream, wake: &Arc<Wake>) -> io::Result<Option<Self>> {
        let Some(stream) = live.other_way()? else {
            return Ok(None);
        };
        let wake = wake.clone();
        let on_end: OnEnd = Box::new(move |result| {
            if let Err(error) = result {
                tracing::debug!(%error, "no more acknowledgements on the live stream");
            }
            // What has not been told there is told on the control stream.
            wake.wake(Moved::Failed);
        });
        let (sender, thread) = AckSender::start(&format!("ack-{name}"), stream, on_end)?;
        Ok(Some(Self { sender, thread }))
    }
}

/// The streams of a session at the sink.
pub struct SinkStreams {
    progress: Arc<Vec<Arc<StreamProgress>>>,
    wake: Arc<Wake>,
    /// Acknowledges the live stream while it is open.
    direct: Option<Arc<AckSender>>,
    device: Arc<Device>,
    lane: LaneHandle,
    /// Ended with the session.
    pub threads: Vec<StreamThread>,
}

/// The volume, for receivers. Counts what is under way, so that a session can be known to be over.
struct Device {
    lane: LaneHandle,
    events: mpsc::UnboundedSender<Event>,
    under_way: AtomicU64,
    /// Bytes applied since the start.
    written: AtomicU64,
    ended: Notify,
    grants: Mutex<HashMap<u64, crate::lane::WriteGrant>>,
}

impl SinkStreams {
    /// Starts the receivers; `streams` are in the order of their numbers. `stream_acks`: the source takes acknowledgements on the live stream.
    pub fn start(
        name: &str,
        streams: Vec<DataStream>,
        lane: &LaneHandle,
        entry: &FeedEntry,
        events: mpsc::UnboundedSender<Event>,
        stream_acks: bool,
        on_end: impl Fn() -> OnEnd,
    ) -> io::Result<Self> {
        let limits = lane.limits();
        let config = ReceiverConfig::new(limits.size, limits.logical_block);
        let device = Arc::new(Device {
            lane: lane.clone(),
            events,
            under_way: AtomicU64::new(0),
            written: AtomicU64::new(0),
            ended: Notify::new(),
            grants: Mutex::new(HashMap::new()),
        });
        let wake = Arc::new(Wake::default());
        let mut progress = Vec::new();
        let mut threads: Vec<StreamThread> = Vec::new();
        let direct = match streams.first() {
            Some(live) if stream_acks => Direct::start(name, live, &wake)?,
            _ => None,
        };
        let direct = direct.map(|direct| {
            threads.push(direct.thread);
            direct.sender
        });
        for (number, stream) in streams.into_iter().enumerate() {
            let of_streams = wake.clone();
            let own_way = direct.clone().filter(|_| number == 0);
            let of_stream = Arc::new(StreamProgress::new(move |moved| match (moved, &own_way) {
                (Moved::Durable(through), Some(direct)) if direct.tell(through) => {}
                _ => of_streams.wake(moved),
            }));
            let started = receive(
                &format!("sink{number}-{name}"),
                config,
                stream,
                Arc::new(Handle(device.clone())),
                of_stream.clone(),
                entry.counters.clone(),
                on_end(),
            );
            match started {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    threads.iter().for_each(StreamThread::stop);
                    return Err(error);
                }
            }
            progress.push(of_stream);
        }
        Ok(Self {
            progress: Arc::new(progress),
            wake,
            direct,
            device,
            lane: lane.clone(),
            threads,
        })
    }

    /// Tells the source how far the streams are, until the receiver of `events` is gone.
    pub fn acknowledge(&self, events: mpsc::UnboundedSender<Event>) {
        let (progress, wake, lane) = (self.progress.clone(), self.wake.clone(), self.lane.clone());
        let (device, direct) = (self.device.clone(), self.direct.clone());
        tokio::spawn(async move {
            let mut told = vec![(0u64, 0u64); progress.len()];
            // Since when something is applied and not durable; bytes written before the last flush.
            let mut volatile: Option<Instant> = None;
            let mut flushed_bytes = 0;
            loop {
                let idle = async {
                    match volatile {
                        Some(_) => tokio::time::sleep(FLUSH_IDLE).await,
                        None => std::future::pending().await,
                    }
                };
                let silent = tokio::select! {
                    () = wake.moved.notified() => false,
                    () = idle => true,
                    () = events.closed() => return,
                };
                if progress.iter().any(|p| p.applied() > p.durable()) {
                    let since = *volatile.get_or_insert_with(Instant::now);
                    let bytes = device.written.load(Ordering::Relaxed);
                    let much = bytes.wrapping_sub(flushed_bytes) >= FLUSH_BYTES;
                    if silent || much || since.elapsed() >= FLUSH_EVERY {
                        if !flush(&lane, &progress).await {
                            // A later flush may succeed though the kernel has dropped what this one
                            // was about. Not acknowledged, it is sent again in the next session.
                            let error = IoError::new(blockio::IoErrorKind::Medium);
                            progress.iter().for_each(|p| p.fail(error));
                            return;
                        }
                        flushed_bytes = bytes;
                        volatile = None;
                        // What came during the flush has its own time from now on.
                        if progress.iter().any(|p| p.applied() > p.durable()) {
                            volatile = Some(Instant::now());
                        }
                    }
                } else {
                    volatile = None;
                }
                let mut has_told = false;
                let own_way = direct.as_ref().is_some_and(|direct| direct.is_open());
                for (stream, (p, told)) in progress.iter().zip(&mut told).enumerate() {
                    if stream == 0 && own_way {
                        continue;
                    }
                    let durable = p.durable();
                    let now = (p.applied().max(durable), durable);
                    // Only what is durable is waited for; the rest is told along with it.
                    if now.1 != told.1 {
                        has_told = true;
                        *told = now;
                        let ack = Ack {
                            stream: stream as u16,
                            applied: now.0,
                            durable: now.1,
                        };
                        if events.send(Event::Progress(ack)).is_err() {
                            return;
                        }
                    }
                }
                if !has_told {
                    // It ends early, and once for nothing, when something has become durable: then `moved` has been told, too.
                    let _early = tokio::time::timeout(LOOK_EVERY, wake.durable.notified()).await;
                }
            }
        });
    }

    /// Once the live stream is applied up to `live_sequence`, makes everything durable that has
    /// been applied, and says so.
    pub fn flush(&self, id: u64, live_sequence: Option<u64>, events: mpsc::UnboundedSender<Event>) {
        let (progress, lane, device) = (
            self.progress.clone(),
            self.lane.clone(),
            self.device.clone(),
        );
        let live = progress.first().cloned();
        tokio::spawn(async move {
            match (live_sequence, live) {
                (Some(sequence), Some(live)) => {
                    while live.applied() < sequence && live.failure().is_none() {
                        tokio::select! {
                            () = tokio::time::sleep(Duration::from_millis(2)) => {}
                            () = events.closed() => return,
                        }
                    }
                }
                _ => device.idle().await,
            }
            let ok = flush(&lane, &progress).await;
            if events.send(Event::Flushed { flush: id, ok }).is_err() {
                tracing::debug!("a session ended during its flush");
            }
        });
    }

    /// Stops the receivers and waits until nothing of theirs is under way. Says whether the volume took
    /// every frame: after one that failed others may be there that came behind it.
    pub async fn end(self) -> bool {
        super::run::end_threads(self.threads).await;
        self.device.abandon_all();
        self.device.idle().await;
        self.progress.iter().all(|p| p.failure().is_none())
    }
}

/// Flushes the volume; what was applied before is then known to be durable.
async fn flush(lane: &LaneHandle, progress: &[Arc<StreamProgress>]) -> bool {
    let applied: Vec<u64> = progress.iter().map(|p| p.applied()).collect();
    let (sender, done) = oneshot::channel();
    let lane = lane.clone();
    let asked = tokio::task::spawn_blocking(move || {
        let done: crate::lane::DoneFn = Box::new(move |result| {
            // Nobody waits any more: the session has ended.
            let _gone = sender.send(result);
        });
        lane.submit(
            Op::Flush,
            ByteRange::default(),
            Flags::empty(),
            Vec::new(),
            done,
        );
    });
    let ok = asked.await.is_ok() && matches!(done.await, Ok(Ok(())));
    if ok {
        for (progress, applied) in progress.iter().zip(applied) {
            progress.flushed(applied);
        }
    }
    ok
}

impl Device {
    fn begin(&self) {
        self.under_way.fetch_add(1, Ordering::SeqCst);
    }

    fn end(&self) {
        if self.under_way.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.ended.notify_waiters();
        }
    }

    async fn idle(&self) {
        loop {
            let ended = self.ended.notified();
            if self.under_way.load(Ordering::SeqCst) == 0 {
                return;
            }
            // The timeout covers a completion between the look and the wait.
            let _again = tokio::time::timeout(Duration::from_millis(20), ended).await;
        }
    }

    /// Counts an operation until it is done, and then its bytes.
    fn counted(self: &Arc<Self>, bytes: u64, done: DoneFn) -> crate::lane::DoneFn {
        self.begin();
        let device = self.clone();
        Box::new(move |result| {
            // Before `done` wakes who looks at it.
            device.written.fetch_add(bytes, Ordering::Relaxed);
            done(result);
            device.end();
        })
    }

    fn grants(&self) -> std::sync::MutexGuard<'_, HashMap<u64, crate::lane::WriteGrant>> {
        self.grants.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives back grants that a receiver has not ended.
    fn abandon_all(self: &Arc<Self>) {
        let left: Vec<_> = self.grants().drain().map(|(_, grant)| grant).collect();
        for grant in left {
            self.lane.abandon_write(grant, Box::new(|_| ()));
        }
    }
}

/// A receiver holds the device by this.
struct Handle(Arc<Device>);

impl SinkDevice for Handle {
    fn begin_write(&self, range: ByteRange) -> Result<WriteGrant, IoError> {
        let grant = self.0.lane.begin_write(range)?;
        let plexes = grant
            .plexes
            .iter()
            .map(|segments| PlexSegments {
                segments: segments
                    .iter()
                    .map(|segment| FileSegment {
                        file: segment.file.clone(),
                        range: segment.range,
                    })
                    .collect(),
            })
            .collect();
        let id = grant.id;
        self.0.grants().insert(id, grant);
        Ok(WriteGrant { id, plexes })
    }

    fn end_write(&self, grant: WriteGrant, results: Vec<Result<(), IoError>>, done: DoneFn) {
        let held = self.0.grants().remove(&grant.id);
        match held {
            Some(held) => {
                let done = self.0.counted(held.range.len(), done);
                self.0.lane.end_write(held, results, done);
            }
            None => done(Err(IoError::new(blockio::IoErrorKind::Invalid))),
        }
    }

    fn submit(&self, op: Op, range: ByteRange, flags: Flags, bytes: Option<Vec<u8>>, done: DoneFn) {
        let done = self.0.counted(range.len(), done);
        self.0
            .lane
            .submit(op, range, flags, bytes.unwrap_or_default(), done);
    }

    fn mark(&self, point: Uuid, _sequence: u64) {
        if self.0.events.send(Event::MarkReached { point }).is_err() {
            tracing::debug!(%point, "a mark came after its session");
        }
    }
}
