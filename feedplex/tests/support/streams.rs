//! Frames, and streams around the test volumes.

use super::{
    MIB, PATIENCE, Plex, TestVolume, Told, counters, on_end, progress, tcp_pair, wait_until,
};
use blockio::{ByteRange, Flags};
use feedplex::counters::CounterValues;
use feedplex::device::SinkDevice;
use feedplex::streams::{
    BulkConfig, BulkJob, BulkSender, LiveBytes, LiveFrame, RateLimiter, ReceiverConfig,
    StreamError, receive,
};
use feedplex::transport::DataStream;
use feedplex::wire::frame::{Command, FrameFlags, FrameHeader};
use std::io::Write;
use std::sync::Arc;

pub const SIZE: u64 = 16 * MIB;

pub fn job(plex: &Plex, token: u64, range: ByteRange) -> BulkJob {
    BulkJob {
        token,
        range,
        segments: plex.segments(range),
    }
}

pub fn config() -> ReceiverConfig {
    ReceiverConfig::new(SIZE, 512)
}

/// Sends the source's ranges as bulk jobs over the pair and waits until all are told durable.
pub fn bulk_copy(
    pair: (DataStream, DataStream),
    source: &Plex,
    sink: &Arc<TestVolume>,
    ranges: &[ByteRange],
) -> (CounterValues, CounterValues) {
    let (told, progress) = (Told::default(), progress());
    let (sent, received) = (counters(), counters());
    let acks = told.tracker();
    let (end, receiver_ended) = on_end();
    let receiver = receive(
        "sink",
        config(),
        pair.1,
        sink.clone(),
        progress.clone(),
        received.clone(),
        end,
    )
    .unwrap();
    let limiter = Arc::new(RateLimiter::new(0));
    let (end, sender_ended) = on_end();
    let (sender, thread) = BulkSender::start(
        "bulk",
        BulkConfig::default(),
        pair.0,
        acks.clone(),
        limiter,
        sent.clone(),
        end,
    )
    .unwrap();
    for (token, range) in ranges.iter().enumerate() {
        sender.try_send(job(source, token as u64, *range)).unwrap();
    }
    wait_until("all sent and applied", || {
        sender.queued_jobs() == 0 && progress.applied() == acks.last_sequence()
    });
    assert_eq!(acks.outstanding(), ranges.len(), "applied is not durable");
    progress.flushed(progress.applied());
    acks.acknowledged(progress.durable()).unwrap();
    let expected: Vec<_> = (0..ranges.len() as u64)
        .map(|token| (token, Ok(())))
        .collect();
    assert_eq!(told.sorted(), expected);

    thread.stop();
    thread.join(PATIENCE).unwrap();
    assert!(matches!(
        sender_ended.recv().unwrap(),
        Err(StreamError::Stopped)
    ));
    receiver.join(PATIENCE).unwrap();
    assert!(
        receiver_ended.recv().unwrap().is_ok(),
        "ended between frames"
    );
    assert_eq!(told.sorted(), expected, "once");
    (sent.values(), received.values())
}

pub fn live(token: u64, command: Command, range: ByteRange, bytes: Option<Vec<u8>>) -> LiveFrame {
    LiveFrame {
        token,
        command,
        range,
        flags: Flags::empty(),
        bytes: bytes.map(|bytes| LiveBytes::Memory(Box::new(bytes))),
        mark: None,
    }
}

pub fn header(command: Command, sequence: u64, offset: u64, length: u64) -> FrameHeader {
    FrameHeader {
        command,
        flags: FrameFlags::empty(),
        sequence,
        offset,
        length,
        aux: 0,
    }
}

/// How a receiver ends that is sent these bytes, and the volume behind it.
pub fn after_receiving(bytes: &[u8], sink: TestVolume) -> (StreamError, Arc<TestVolume>, u64) {
    let sink = Arc::new(sink);
    let (mut here, there) = tcp_pair();
    let (end, ended) = on_end();
    let progress = progress();
    let device: Arc<dyn SinkDevice> = sink.clone();
    let receiver = receive(
        "sink",
        config(),
        DataStream::plain(there),
        device,
        progress.clone(),
        counters(),
        end,
    )
    .unwrap();
    // The receiver may have hung up before it has taken everything.
    let _ = here.write_all(bytes);
    let _ = here.shutdown(std::net::Shutdown::Write);
    let error = ended.recv_timeout(PATIENCE).unwrap().unwrap_err();
    receiver.join(PATIENCE).unwrap();
    (error, sink, progress.applied())
}
