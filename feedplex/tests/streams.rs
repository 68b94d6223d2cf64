//! Data streams over real sockets, from and to real files.

mod support;

use blockio::{ByteRange, Flags, IoErrorKind};
use feedplex::counters::PathReason;
use feedplex::device::SinkDevice;
use feedplex::streams::{
    BulkConfig, BulkJob, BulkSender, LiveConfig, LiveFrame, LiveSender, RateLimiter,
    ReceiverConfig, SendError, StreamError, receive,
};
use feedplex::transport::DataStream;
use feedplex::wire::frame::{Command, FrameFlags, FrameHeader};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::*;
use uuid::Uuid;

const SIZE: u64 = 16 * MIB;

fn job(plex: &Plex, token: u64, range: ByteRange) -> BulkJob {
    BulkJob {
        token,
        range,
        segments: plex.segments(range),
    }
}

fn config() -> ReceiverConfig {
    ReceiverConfig::new(SIZE, 512)
}

/// Sends the source's ranges as bulk jobs over the pair and waits until all are told durable.
fn bulk_copy(
    pair: (DataStream, DataStream),
    source: &Plex,
    sink: &Arc<TestVolume>,
    ranges: &[ByteRange],
) -> (
    feedplex::counters::CounterValues,
    feedplex::counters::CounterValues,
) {
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

#[test]
fn bulk_reaches_every_plex_without_a_buffer() {
    let source = Plex::new(SIZE);
    source.write(0, &pattern(SIZE, 1));
    for plexes in [1, 2, 3] {
        let sink = Arc::new(TestVolume::new(plexes, SIZE));
        let ranges = [
            ByteRange::new(0, 5 * MIB),
            ByteRange::new(5 * MIB, 512),
            ByteRange::new(5 * MIB + 512, SIZE - 5 * MIB - 512),
        ];
        let (sent, received) = bulk_copy(plain_pair(), &source, &sink, &ranges);
        let whole = ByteRange::new(0, SIZE);
        for plex in &sink.plexes {
            assert!(plex.read(whole) == source.read(whole));
            let mut before = vec![1; 8192];
            std::os::unix::fs::FileExt::read_exact_at(&*plex.disks[1], &mut before, 0).unwrap();
            assert!(before.iter().all(|byte| *byte == 0), "written outside");
        }
        assert_eq!(sent.payload_kernel_bytes, SIZE);
        assert_eq!((sent.payload_copied_bytes, sent.reasons), (0, vec![]));
        assert_eq!(
            received.payload_kernel_bytes + received.payload_copied_bytes,
            SIZE
        );
        assert!(received.payload_kernel_bytes > SIZE - MIB, "{received:?}");
        assert_eq!(received.reasons, [PathReason::SmallWrites]);
    }
}

#[test]
fn bulk_under_tls_is_copied_and_says_so() {
    let source = Plex::new(SIZE);
    source.write(0, &pattern(SIZE, 2));
    let whole = ByteRange::new(0, SIZE);
    for swapped in [false, true] {
        let sink = Arc::new(TestVolume::new(2, SIZE));
        let (here, there) = tls_pair();
        let pair = if swapped {
            (there, here)
        } else {
            (here, there)
        };
        let (sent, received) = bulk_copy(pair, &source, &sink, &[whole]);
        for plex in &sink.plexes {
            assert!(plex.read(whole) == source.read(whole));
        }
        for side in [sent, received] {
            assert_eq!(side.payload_kernel_bytes, 0);
            assert_eq!(side.payload_copied_bytes, SIZE);
            assert_eq!(side.reasons, [PathReason::Tls]);
        }
    }
}

#[test]
fn holes_stay_holes_and_hide_what_was_there() {
    let source = Plex::new(SIZE);
    source.write(3 * MIB, &pattern(MIB, 3));
    source.write(12 * MIB, &pattern(4096, 4));
    let sink = Arc::new(TestVolume::new(1, SIZE));
    sink.plexes[0].write(6 * MIB, &pattern(MIB, 5));
    let whole = ByteRange::new(0, SIZE);
    let (sent, received) = bulk_copy(plain_pair(), &source, &sink, &[whole]);
    assert!(sink.plexes[0].read(whole) == source.read(whole));
    let blocks: u64 = sink.plexes[0]
        .disks
        .iter()
        .map(|disk| disk.metadata().unwrap().blocks() * 512)
        .sum();
    assert!(blocks <= 2 * MIB, "{blocks} bytes allocated");
    assert_eq!(sent.zero_bytes + sent.payload_kernel_bytes, SIZE);
    assert!(sent.zero_bytes >= SIZE - 2 * MIB);
    assert_eq!(received.zero_bytes, sent.zero_bytes);
}

#[test]
fn a_failing_plex_does_not_take_the_others_along() {
    let source = Plex::new(SIZE);
    source.write(0, &pattern(SIZE, 6));
    let whole = ByteRange::new(0, SIZE);
    for broken in 0..3 {
        let mut sink = TestVolume::new(3, SIZE);
        sink.broken_plex = Some(broken);
        let sink = Arc::new(sink);
        bulk_copy(plain_pair(), &source, &sink, &[whole]);
        for (number, plex) in sink.plexes.iter().enumerate() {
            assert_eq!(plex.read(whole) == source.read(whole), number != broken);
        }
        let results = sink.plex_results.lock().unwrap();
        assert!(!results.is_empty());
        for plexes in results.iter() {
            for (number, result) in plexes.iter().enumerate() {
                assert_eq!(result.is_err(), number == broken);
            }
        }
    }
}

#[test]
fn a_disk_that_cannot_be_read_fails_its_job_and_invents_nothing() {
    for tls in [false, true] {
        let source = Plex::new(SIZE);
        source.write(0, &pattern(SIZE, 7));
        let sink = Arc::new(TestVolume::new(1, SIZE));
        let old = pattern(SIZE, 8);
        sink.plexes[0].write(0, &old);
        let (here, there) = if tls { tls_pair() } else { plain_pair() };
        let (told, progress) = (Told::default(), progress());
        let acks = told.tracker();
        let (end, _) = on_end();
        let receiver = receive(
            "sink",
            config(),
            there,
            sink.clone(),
            progress.clone(),
            counters(),
            end,
        )
        .unwrap();
        let (end, _) = on_end();
        let limiter = Arc::new(RateLimiter::new(0));
        let (sender, thread) = BulkSender::start(
            "bulk",
            BulkConfig::default(),
            here,
            acks.clone(),
            limiter,
            counters(),
            end,
        )
        .unwrap();
        // A segment that no read gets anything from, between two good ones.
        let mut broken = job(&source, 0, ByteRange::new(0, 2 * MIB));
        let unreadable = std::fs::OpenOptions::new()
            .write(true)
            .open("/dev/null")
            .unwrap();
        broken.segments = source.segments(ByteRange::new(0, MIB));
        broken.segments.push(feedplex::device::FileSegment {
            file: Arc::new(unreadable),
            range: ByteRange::new(0, MIB),
        });
        sender.try_send(broken).unwrap();
        sender
            .try_send(job(&source, 1, ByteRange::new(4 * MIB, MIB)))
            .unwrap();
        wait_until("the second job", || {
            sender.queued_jobs() == 0 && progress.applied() == acks.last_sequence()
        });
        progress.flushed(progress.applied());
        acks.acknowledged(progress.durable()).unwrap();
        let told = told.sorted();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].1.is_err());
        assert_eq!(told[1], (1, Ok(())));
        let plex = &sink.plexes[0];
        assert!(plex.read(ByteRange::new(0, MIB)) == source.read(ByteRange::new(0, MIB)));
        let untouched = &old[MIB as usize..4 * MIB as usize];
        assert!(plex.read(ByteRange::new(MIB, 3 * MIB)) == untouched);
        thread.stop();
        thread.join(PATIENCE).unwrap();
        receiver.join(PATIENCE).unwrap();
    }
}

fn live(token: u64, command: Command, range: ByteRange, bytes: Option<Vec<u8>>) -> LiveFrame {
    LiveFrame {
        token,
        command,
        range,
        flags: Flags::empty(),
        bytes: bytes.map(|bytes| Box::new(bytes) as Box<dyn feedplex::device::LivePayload>),
        mark: None,
    }
}

#[test]
fn live_and_bulk_together_in_order() {
    for (tls, payload_checksum) in [(false, false), (false, true), (true, false)] {
        let pair = || if tls { tls_pair() } else { plain_pair() };
        let sink = Arc::new(TestVolume::new(2, SIZE));
        let source = Plex::new(SIZE);
        source.write(8 * MIB, &pattern(8 * MIB, 9));
        let (here, there) = pair();
        let (told, progress) = (Told::default(), progress());
        let acks = told.tracker();
        let (end, _) = on_end();
        let receiver = receive(
            "sink",
            config(),
            there,
            sink.clone(),
            progress.clone(),
            counters(),
            end,
        )
        .unwrap();
        let (end, ended) = on_end();
        let live_config = LiveConfig {
            keepalive: Duration::from_millis(30),
            payload_checksum,
            ..LiveConfig::default()
        };
        let (sender, thread) =
            LiveSender::start("live", live_config, here, acks.clone(), counters(), end).unwrap();
        let mut model = vec![0; 8 * MIB as usize];
        let mut token = 0;
        let mut offset = 0;
        // Overlapping writes, small and large, over and over the same place.
        for round in 0..60 {
            let len = [512, 4096, 65536, 200 * 1024][round % 4];
            let bytes = pattern(len, 100 + round as u64);
            model[offset as usize..(offset + len) as usize].copy_from_slice(&bytes);
            let frame = live(
                token,
                Command::Write,
                ByteRange::new(offset, len),
                Some(bytes),
            );
            sender.try_send(frame).unwrap();
            offset = (offset + len / 2) & !511;
            token += 1;
        }
        let flush = live(token, Command::Flush, ByteRange::default(), None);
        let flush_sequence = sender.try_send(flush).unwrap();
        let point = Uuid::new_v4();
        let mut mark = live(token + 1, Command::Mark, ByteRange::default(), None);
        mark.mark = Some(point);
        let mark_sequence = sender.try_send(mark).unwrap();
        bulk_copy(pair(), &source, &sink, &[ByteRange::new(8 * MIB, 8 * MIB)]);
        wait_until("the mark and a keepalive", || {
            progress.durable() > mark_sequence
        });
        assert!(flush_sequence < mark_sequence);
        acks.acknowledged(progress.durable()).unwrap();
        assert_eq!(acks.outstanding(), 0);
        assert!(told.sorted().iter().all(|(_, result)| result.is_ok()));
        for plex in &sink.plexes {
            assert!(plex.read(ByteRange::new(0, 8 * MIB)) == model);
            let rest = ByteRange::new(8 * MIB, 8 * MIB);
            assert!(plex.read(rest) == source.read(rest));
        }
        let log = sink.log();
        assert!(log.contains(&format!("Mark {point} {mark_sequence}")));
        assert_eq!(sender.queued_bytes(), 0);
        thread.stop();
        thread.join(PATIENCE).unwrap();
        assert!(matches!(ended.recv().unwrap(), Err(StreamError::Stopped)));
        receiver.join(PATIENCE).unwrap();
    }
}

#[test]
fn a_flush_waits_for_the_writes_before_it() {
    let sink = Arc::new(TestVolume::new(1, SIZE));
    *sink.hold_writes.lock().unwrap() = Some(Vec::new());
    let (here, there) = plain_pair();
    let (told, progress) = (Told::default(), progress());
    let (end, _) = on_end();
    let receiver = receive(
        "sink",
        config(),
        there,
        sink.clone(),
        progress.clone(),
        counters(),
        end,
    )
    .unwrap();
    let (end, _) = on_end();
    let (sender, thread) = LiveSender::start(
        "live",
        LiveConfig::default(),
        here,
        told.tracker(),
        counters(),
        end,
    )
    .unwrap();
    let write = live(
        0,
        Command::Write,
        ByteRange::new(0, 512),
        Some(vec![1; 512]),
    );
    sender.try_send(write).unwrap();
    let flush = live(1, Command::Flush, ByteRange::default(), None);
    sender.try_send(flush).unwrap();
    wait_until("the write", || sink.log().len() == 1);
    std::thread::sleep(Duration::from_millis(30));
    assert_eq!(sink.log().len(), 1, "the flush is not submitted yet");
    let held = sink.hold_writes.lock().unwrap().take().unwrap();
    held.into_iter().for_each(|done| done(Ok(())));
    wait_until("the flush", || progress.durable() == 2);
    thread.stop();
    thread.join(PATIENCE).unwrap();
    receiver.join(PATIENCE).unwrap();
}

#[test]
fn a_receiver_that_waits_for_a_flush_can_be_stopped() {
    let sink = Arc::new(TestVolume::new(1, SIZE));
    *sink.hold_writes.lock().unwrap() = Some(Vec::new());
    let (mut here, there) = tcp_pair();
    let (end, ended) = on_end();
    let receiver = receive(
        "sink",
        config(),
        DataStream::plain(there),
        sink.clone(),
        progress(),
        counters(),
        end,
    )
    .unwrap();
    let write = header(Command::Write, 1, 0, 512);
    here.write_all(&write.encode()).unwrap();
    here.write_all(&[0; 512]).unwrap();
    here.write_all(&header(Command::Flush, 2, 0, 0).encode())
        .unwrap();
    wait_until("the write", || sink.log().len() == 1);
    receiver.stop();
    receiver.join(PATIENCE).unwrap();
    assert!(matches!(ended.recv().unwrap(), Err(StreamError::Stopped)));
}

#[test]
fn a_cut_fails_every_token_once() {
    for tls in [false, true] {
        let (here, there) = if tls { tls_pair() } else { plain_pair() };
        let source = Plex::new(SIZE);
        source.write(0, &pattern(SIZE, 10));
        let cut = there.stopper().unwrap();
        let (told, (end, ended)) = (Told::default(), on_end());
        let limiter = Arc::new(RateLimiter::new(0));
        let (sender, thread) = BulkSender::start(
            "bulk",
            BulkConfig::default(),
            here,
            told.tracker(),
            limiter,
            counters(),
            end,
        )
        .unwrap();
        let mut taken = 0;
        for token in 0..40 {
            let range = ByteRange::new(token % 2 * 8 * MIB, 8 * MIB);
            match sender.try_send(job(&source, token, range)) {
                Ok(()) => taken += 1,
                Err(error) => assert_eq!(error, SendError::Closed),
            }
            if token == 20 {
                // Nobody reads: the sender is in the middle of a frame by now.
                std::thread::sleep(Duration::from_millis(50));
                cut.stop();
            }
        }
        thread.join(PATIENCE).unwrap();
        assert!(matches!(
            ended.recv().unwrap(),
            Err(StreamError::Socket { .. })
        ));
        let told = told.sorted();
        assert_eq!(told.len(), taken);
        assert!(told.windows(2).all(|pair| pair[0].0 < pair[1].0), "once");
        assert!(
            told.iter().all(|(_, result)| {
                result.is_err_and(|error| error.kind() == IoErrorKind::Gone)
            })
        );
    }
}

#[test]
fn a_full_live_queue_is_congestion_and_stopping_ends_it() {
    let (here, _there) = plain_pair();
    let (told, (end, ended)) = (Told::default(), on_end());
    let config = LiveConfig {
        queue_bytes: 4 * MIB,
        ..LiveConfig::default()
    };
    let (sender, thread) =
        LiveSender::start("live", config, here, told.tracker(), counters(), end).unwrap();
    let mut taken = 0;
    let error = loop {
        let bytes = vec![1; 128 * 1024];
        let range = ByteRange::new(0, bytes.len() as u64);
        match sender.try_send(live(taken, Command::Write, range, Some(bytes))) {
            Ok(sequence) => assert_eq!(sequence, taken + 1),
            Err(error) => break error,
        }
        taken += 1;
        assert!(taken < 1000, "nothing bounds the queue");
    };
    assert_eq!(error, SendError::Congested);
    assert!(sender.queued_bytes() <= 4 * MIB);
    thread.stop();
    thread.join(PATIENCE).unwrap();
    assert!(ended.recv().unwrap().is_err());
    assert_eq!(told.sorted().len() as u64, taken);
    let late = live(taken, Command::Flush, ByteRange::default(), None);
    assert_eq!(sender.try_send(late), Err(SendError::Closed));
}

#[test]
fn the_rate_is_kept_and_can_be_lifted() {
    let source = Plex::new(SIZE);
    source.write(0, &pattern(SIZE, 11));
    let sink = Arc::new(TestVolume::new(1, SIZE));
    let (here, there) = plain_pair();
    let (told, progress) = (Told::default(), progress());
    let acks = told.tracker();
    let (end, _) = on_end();
    let receiver = receive(
        "sink",
        config(),
        there,
        sink,
        progress.clone(),
        counters(),
        end,
    )
    .unwrap();
    let limiter = Arc::new(RateLimiter::new(8 * MIB));
    let (end, _) = on_end();
    let sent = counters();
    let (sender, thread) = BulkSender::start(
        "bulk",
        BulkConfig::default(),
        here,
        acks.clone(),
        limiter.clone(),
        sent.clone(),
        end,
    )
    .unwrap();
    sender
        .try_send(job(&source, 0, ByteRange::new(0, SIZE)))
        .unwrap();
    let start = Instant::now();
    std::thread::sleep(Duration::from_millis(500));
    let bytes = sent.values().payload_kernel_bytes as f64;
    let allowed = 8.0 * MIB as f64 * start.elapsed().as_secs_f64();
    assert!(bytes < allowed + 2.0 * MIB as f64, "{bytes} of {allowed}");
    assert!(bytes > MIB as f64, "{bytes}");
    limiter.set_rate(0);
    wait_until("the rest", || sender.queued_jobs() == 0);
    assert!(start.elapsed() < Duration::from_millis(1700));
    limiter.set_rate(1);
    sender
        .try_send(job(&source, 1, ByteRange::new(0, SIZE)))
        .unwrap();
    std::thread::sleep(Duration::from_millis(50));
    thread.stop();
    thread.join(Duration::from_secs(2)).unwrap();
    receiver.join(PATIENCE).unwrap();
}

fn header(command: Command, sequence: u64, offset: u64, length: u64) -> FrameHeader {
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
fn after_receiving(bytes: &[u8], sink: TestVolume) -> (StreamError, Arc<TestVolume>, u64) {
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

#[test]
fn hostile_peers_are_cut_off() {
    let volume = || TestVolume::new(1, SIZE);
    let zeroes = |sequence, offset, length| header(Command::WriteZeroes, sequence, offset, length);
    let expect = |bytes: &[u8], matches: fn(&StreamError) -> bool| {
        let (error, sink, applied) = after_receiving(bytes, volume());
        assert!(matches(&error), "{error:?}");
        assert!(sink.log().is_empty());
        assert_eq!(applied, 0);
    };
    expect(&[b'x'; 40], |e| matches!(e, StreamError::Frame(_)));
    expect(&zeroes(1, 0, 512).encode()[..39], |e| {
        matches!(e, StreamError::Truncated)
    });
    expect(&zeroes(2, 0, 512).encode(), |e| {
        matches!(
            e,
            StreamError::Sequence {
                expected: 1,
                found: 2
            }
        )
    });
    expect(&zeroes(1, SIZE, 512).encode(), |e| {
        matches!(e, StreamError::OutOfRange { .. })
    });
    expect(&zeroes(1, 512, SIZE).encode(), |e| {
        matches!(e, StreamError::OutOfRange { .. })
    });
    expect(&zeroes(1, 1, 512).encode(), |e| {
        matches!(e, StreamError::Misaligned { .. })
    });
    let mut gave_up = header(Command::Error, 1, 0, 0);
    gave_up.aux = 5;
    expect(&gave_up.encode(), |e| {
        matches!(e, StreamError::PeerGaveUp(5))
    });

    let mut damaged = header(Command::Write, 1, 0, 512);
    damaged.flags = FrameFlags::PAYLOAD_CRC;
    damaged.aux = crc32c::crc32c(&[3; 512]) ^ 1;
    let bytes = [&damaged.encode()[..], &[3; 512]].concat();
    expect(&bytes, |e| matches!(e, StreamError::PayloadChecksum { .. }));
    let mut small = header(Command::Write, 1, 0, 512).encode().to_vec();
    small.extend([3; 511]);
    expect(&small, |e| matches!(e, StreamError::Truncated));
}

#[test]
fn a_payload_cut_short_is_not_acknowledged_and_leaves_plexes_equal() {
    let mut sink = TestVolume::new(3, SIZE);
    sink.broken_plex = Some(1);
    let old = pattern(SIZE, 12);
    for plex in &sink.plexes {
        plex.write(0, &old);
    }
    let mut bytes = header(Command::Write, 1, 0, 2 * MIB).encode().to_vec();
    let new = pattern(2 * MIB, 13);
    bytes.extend(&new[..MIB as usize + 777]);
    let (error, sink, applied) = after_receiving(&bytes, sink);
    assert!(matches!(error, StreamError::Truncated), "{error:?}");
    assert_eq!(applied, 0);
    let range = ByteRange::new(0, 2 * MIB);
    let result = sink.plexes[0].read(range);
    assert!(result == sink.plexes[2].read(range));
    assert!(result[..MIB as usize + 777] == new[..MIB as usize + 777]);
    assert!(result[MIB as usize + 777..] == old[MIB as usize + 777..2 * MIB as usize]);
    let results = sink.plex_results.lock().unwrap();
    let ok: Vec<_> = results[0].iter().map(Result::is_ok).collect();
    assert_eq!((results.len(), ok), (1, vec![true, false, true]));
}

#[test]
fn a_failing_volume_ends_the_stream() {
    let mut sink = TestVolume::new(1, SIZE);
    sink.fail_submits = true;
    let frame = header(Command::Trim, 1, 0, 512).encode();
    let (error, _, applied) = after_receiving(&frame, sink);
    match error {
        StreamError::Device(error) => assert_eq!(error.kind(), IoErrorKind::NoSpace),
        other => panic!("{other:?}"),
    }
    assert_eq!(applied, 0);
}

#[test]
fn durable_writes_are_submitted_whole() {
    let sink = Arc::new(TestVolume::new(1, SIZE));
    let (here, there) = plain_pair();
    let (told, progress, received) = (Told::default(), progress(), counters());
    let (end, _) = on_end();
    let receiver = receive(
        "sink",
        config(),
        there,
        sink.clone(),
        progress.clone(),
        received.clone(),
        end,
    )
    .unwrap();
    let (end, _) = on_end();
    let (sender, thread) = LiveSender::start(
        "live",
        LiveConfig::default(),
        here,
        told.tracker(),
        counters(),
        end,
    )
    .unwrap();
    let bytes = Some(vec![1; MIB as usize]);
    let mut frame = live(0, Command::Write, ByteRange::new(0, MIB), bytes);
    frame.flags = Flags::FUA;
    sender.try_send(frame).unwrap();
    wait_until("durable", || progress.durable() == 1);
    assert_eq!(sink.log(), ["Write 0x0+0x100000 1"]);
    assert_eq!(received.values().reasons, [PathReason::DurableWrites]);
    thread.stop();
    thread.join(PATIENCE).unwrap();
    receiver.join(PATIENCE).unwrap();
}
