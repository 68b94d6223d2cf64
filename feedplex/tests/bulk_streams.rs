//! Bulk streams over real sockets, from and to real files.

mod support;

use blockio::{ByteRange, IoErrorKind};
use feedplex::counters::PathReason;
use feedplex::streams::{BulkConfig, BulkSender, RateLimiter, SendError, StreamError, receive};
use feedplex::transport::ktls::UserTls;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::streams::*;
use support::*;

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
            assert_eq!(side.reasons, [PathReason::Tls(UserTls::Configured)]);
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
    let limiter = Arc::new(RateLimiter::new(2 * MIB));
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
    let allowed = 2.0 * MIB as f64 * start.elapsed().as_secs_f64();
    assert!(bytes < allowed + 2.0 * MIB as f64, "{bytes} of {allowed}");
    assert!(bytes >= MIB as f64, "{bytes}");
    // At the old rate the rest would take seven seconds more.
    limiter.set_rate(0);
    wait_until("the rest", || sender.queued_jobs() == 0);
    assert!(start.elapsed() < Duration::from_secs(6));
    limiter.set_rate(1);
    sender
        .try_send(job(&source, 1, ByteRange::new(0, SIZE)))
        .unwrap();
    std::thread::sleep(Duration::from_millis(50));
    thread.stop();
    thread.join(Duration::from_secs(2)).unwrap();
    receiver.join(PATIENCE).unwrap();
}

#[test]
fn an_idle_stream_shows_that_it_lives() {
    let (here, there) = plain_pair();
    let (told, progress) = (Told::default(), progress());
    let (end, _) = on_end();
    let sink = Arc::new(TestVolume::new(1, SIZE));
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
    let config = BulkConfig {
        keepalive: Duration::from_millis(10),
        ..BulkConfig::default()
    };
    let (end, ended) = on_end();
    let limiter = Arc::new(RateLimiter::new(0));
    let (_sender, thread) = BulkSender::start(
        "bulk",
        config,
        here,
        told.tracker(),
        limiter,
        counters(),
        end,
    )
    .unwrap();
    wait_until("keepalives", || progress.durable() >= 3);
    // The other end hangs up; the sender has nothing to send and finds out.
    receiver.stop();
    assert!(ended.recv_timeout(PATIENCE).unwrap().is_err());
    thread.join(PATIENCE).unwrap();
}
