//! Live streams over real sockets, to real files.

mod support;

use blockio::{ByteRange, Flags};
use feedplex::counters::PathReason;
use feedplex::streams::{LiveBytes, LiveConfig, LiveSender, SendError, StreamError, receive};
use feedplex::wire::frame::Command;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;
use support::streams::*;
use support::*;
use uuid::Uuid;

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

/// Payload that stays in the kernel and payload from memory, in the order of the frames, with a
/// pipe that is full again and again.
#[test]
fn payload_through_the_pipe_is_in_order_and_counted_as_the_kernels() {
    let sink = Arc::new(TestVolume::new(2, SIZE));
    let (here, there) = plain_pair();
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
    let live_config = LiveConfig {
        pipe_bytes: 256 << 10,
        ..LiveConfig::default()
    };
    let sent = counters();
    let (sender, thread) =
        LiveSender::start("live", live_config, here, acks, sent.clone(), end).unwrap();
    let pipe = sender.pipe().expect("a pipe").clone();
    let mut model = vec![0; SIZE as usize];
    let (mut offset, mut piped, mut copied, mut full) = (0, 0, 0, 0);
    for round in 0..400_u64 {
        let len = [512, 4096, 1536, 65536, 200 * 1024][round as usize % 5];
        let bytes = pattern(len, 100 + round);
        model[offset as usize..(offset + len) as usize].copy_from_slice(&bytes);
        let range = ByteRange::new(offset, len);
        if round % 7 == 3 {
            let frame = live(round, Command::Write, range, Some(bytes));
            sender.try_send(frame).unwrap();
            copied += len;
        } else {
            while !pipe.reserve(len) {
                full += 1;
                std::thread::sleep(Duration::from_millis(1));
            }
            let mut frame = live(round, Command::Write, range, None);
            frame.bytes = Some(LiveBytes::Piped(len));
            sender.try_send(frame).unwrap();
            let written = (&**pipe.write_end()).write(&bytes).unwrap();
            assert_eq!(written as u64, len);
            piped += len;
        }
        offset = (offset + len / 2) & !511;
    }
    assert!(full > 0, "the pipe was never full");
    let flush = live(400, Command::Flush, ByteRange::default(), None);
    let last = sender.try_send(flush).unwrap();
    wait_until("the flush", || progress.durable() == last);
    for plex in &sink.plexes {
        assert!(plex.read(ByteRange::new(0, SIZE)) == model);
    }
    let values = sent.values();
    assert_eq!(values.payload_kernel_bytes, piped);
    assert_eq!(values.payload_copied_bytes, copied);
    thread.stop();
    thread.join(PATIENCE).unwrap();
    receiver.join(PATIENCE).unwrap();
}

#[test]
fn a_pipe_that_broke_its_promise_ends_the_stream_and_tls_has_none() {
    let start = |pair: (_, _)| {
        let (end, ended) = on_end();
        let config = LiveConfig {
            pipe_bytes: 1 << 20,
            ..LiveConfig::default()
        };
        let acks = Told::default().tracker();
        let (sender, thread) =
            LiveSender::start("live", config, pair.0, acks, counters(), end).unwrap();
        (sender, thread, ended, pair.1)
    };
    let (sender, thread, ended, _there) = start(plain_pair());
    let pipe = sender.pipe().expect("a pipe");
    assert!(pipe.reserve(4096));
    let mut frame = live(0, Command::Write, ByteRange::new(0, 4096), None);
    frame.bytes = Some(LiveBytes::Piped(4096));
    sender.try_send(frame).unwrap();
    pipe.set_broken();
    assert!(ended.recv_timeout(PATIENCE).unwrap().is_err());
    thread.join(PATIENCE).unwrap();

    let (sender, thread, _ended, _there) = start(tls_pair());
    assert!(sender.pipe().is_none());
    let mut frame = live(0, Command::Write, ByteRange::new(0, 4096), None);
    frame.bytes = Some(LiveBytes::Piped(4096));
    assert_eq!(sender.try_send(frame), Err(SendError::Invalid));
    thread.stop();
    thread.join(PATIENCE).unwrap();
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

/// Two bounds for two kinds of memory: a pipe that is full leaves room for payload of the front end's.
#[test]
fn what_waits_in_the_pipe_takes_no_room_in_the_queue() {
    let (here, _there) = plain_pair();
    let (told, (end, _ended)) = (Told::default(), on_end());
    let config = LiveConfig {
        queue_bytes: 256 << 10,
        pipe_bytes: MIB,
        ..LiveConfig::default()
    };
    let (sender, thread) =
        LiveSender::start("live", config, here, told.tracker(), counters(), end).unwrap();
    let pipe = sender.pipe().expect("a pipe").clone();
    let bytes = pattern(64 << 10, 7);
    let range = ByteRange::new(0, bytes.len() as u64);
    let mut taken = 0;
    // Until nothing goes on to the peer either, which takes nothing.
    wait_until("a pipe that stays full", || {
        while pipe.reserve(range.len()) {
            let mut frame = live(taken, Command::Write, range, None);
            frame.bytes = Some(LiveBytes::Piped(range.len()));
            sender.try_send(frame).expect("room in the queue");
            (&**pipe.write_end()).write_all(&bytes).unwrap();
            taken += 1;
        }
        std::thread::sleep(Duration::from_millis(200));
        let room = pipe.reserve(range.len());
        if room {
            pipe.release(range.len());
        }
        !room
    });
    assert!(taken * range.len() >= MIB);
    let frame = live(taken, Command::Write, range, Some(bytes));
    sender.try_send(frame).expect("room in the queue");
    thread.stop();
    thread.join(PATIENCE).unwrap();
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
