//! How fast bulk data goes from files through loopback into files, without TLS.
//!
//! `cargo run --release -p feedplex --example bulk_rate [DIRECTORY [MIB [PLEXES]]]`
//!
//! Use a directory on tmpfs (the default is /dev/shm) to leave disks out of it.

use blockio::{ByteRange, Flags, IoError, Op};
use feedplex::counters::FeedCounters;
use feedplex::device::{DoneFn, FileSegment, PlexSegments, SinkDevice, WriteGrant};
use feedplex::streams::{
    AckTracker, BulkConfig, BulkJob, BulkSender, RateLimiter, ReceiverConfig, SendError,
    StreamProgress, receive,
};
use feedplex::transport::DataStream;
use std::error::Error;
use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Bytes of a job.
const JOB: u64 = 8 << 20;

/// The sink: one file per plex.
struct Files(Vec<Arc<File>>);

impl SinkDevice for Files {
    fn begin_write(&self, range: ByteRange) -> Result<WriteGrant, IoError> {
        let plex = |file: &Arc<File>| PlexSegments {
            segments: vec![FileSegment {
                file: file.clone(),
                range,
            }],
        };
        Ok(WriteGrant {
            id: 0,
            plexes: self.0.iter().map(plex).collect(),
        })
    }

    fn end_write(&self, _: WriteGrant, results: Vec<Result<(), IoError>>, done: DoneFn) {
        done(results.into_iter().collect());
    }

    fn submit(&self, _: Op, range: ByteRange, _: Flags, bytes: Option<Vec<u8>>, done: DoneFn) {
        let bytes = bytes.unwrap_or_default();
        let write = |file: &Arc<File>| file.write_all_at(&bytes, range.start());
        let written = self.0.iter().try_for_each(write);
        done(written.map_err(|e| IoError::from_errno(e.raw_os_error().unwrap_or(0))));
    }

    fn mark(&self, _: Uuid, _: u64) {}
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().unwrap_or_else(|| "/dev/shm".to_owned());
    let size = arguments.next().map_or(Ok(1024), |n| n.parse::<u64>())? << 20;
    let plexes = arguments.next().map_or(Ok(1), |n| n.parse::<usize>())?;

    let source = Arc::new(tempfile::tempfile_in(&directory)?);
    let block = vec![0x5a; 1 << 20];
    for offset in (0..size).step_by(block.len()) {
        source.write_all_at(&block, offset)?;
    }
    let sinks = (0..plexes)
        .map(|_| {
            let file = tempfile::tempfile_in(&directory)?;
            file.set_len(size)?;
            Ok(Arc::new(file))
        })
        .collect::<std::io::Result<Vec<_>>>()?;

    let listener = TcpListener::bind("127.0.0.1:0")?;
    let here = TcpStream::connect(listener.local_addr()?)?;
    let (there, _) = listener.accept()?;

    let progress = Arc::new(StreamProgress::new(|_| {}));
    let received = Arc::new(FeedCounters::default());
    let receiver = receive(
        "sink",
        ReceiverConfig::new(size, 512),
        DataStream::plain(there),
        Arc::new(Files(sinks)),
        progress.clone(),
        received.clone(),
        Box::new(|_| {}),
    )?;
    let acks = Arc::new(AckTracker::new(Box::new(|token, result| {
        if let Err(error) = result {
            eprintln!("job {token}: {error}");
        }
    })));
    let (sender, thread) = BulkSender::start(
        "source",
        BulkConfig::default(),
        DataStream::plain(here),
        acks.clone(),
        Arc::new(RateLimiter::new(0)),
        Arc::new(FeedCounters::default()),
        Box::new(|_| {}),
    )?;

    // The second round writes into pages that are there.
    for round in 1..=2 {
        let start = Instant::now();
        for offset in (0..size).step_by(JOB as usize) {
            let range = ByteRange::new(offset, JOB.min(size - offset));
            loop {
                let segments = vec![FileSegment {
                    file: source.clone(),
                    range,
                }];
                let token = offset / JOB;
                match sender.try_send(BulkJob {
                    token,
                    range,
                    segments,
                }) {
                    Ok(()) => break,
                    Err(SendError::Congested) => std::thread::sleep(Duration::from_millis(1)),
                    Err(error) => return Err(error.into()),
                }
            }
        }
        while sender.queued_jobs() > 0 || progress.applied() < acks.last_sequence() {
            if thread.is_finished() {
                return Err("the stream ended".into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        progress.flushed(progress.applied());
        acks.acknowledged(progress.durable())?;
        let seconds = start.elapsed().as_secs_f64();
        println!(
            "round {round}: {plexes} plexes, {:.2} GB/s",
            size as f64 / seconds / 1e9
        );
    }
    let values = received.values();
    println!(
        "sink: {} bytes in the kernel, {} copied",
        values.payload_kernel_bytes, values.payload_copied_bytes
    );
    thread.stop();
    thread.join(Duration::from_secs(10))?;
    receiver.join(Duration::from_secs(10))?;
    Ok(())
}
