//! Receivers against peers, volumes and disks that misbehave.

mod support;

use blockio::{ByteRange, Flags, IoError, IoErrorKind, Op};
use feedplex::device::{DoneFn, FileSegment, PlexSegments, SinkDevice, WriteGrant};
use feedplex::streams::{StreamError, receive};
use feedplex::transport::DataStream;
use feedplex::wire::frame::{Command, FrameFlags};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::sync::Arc;
use support::streams::*;
use support::*;
use uuid::Uuid;

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

/// One write goes to files that take bytes only at their end, where `splice` refuses to work.
struct AppendOnly(Vec<Arc<File>>);

impl SinkDevice for AppendOnly {
    fn begin_write(&self, range: ByteRange) -> Result<WriteGrant, IoError> {
        let plex = |file: &Arc<File>| PlexSegments {
            segments: vec![FileSegment {
                file: file.clone(),
                range,
            }],
        };
        Ok(WriteGrant {
            id: 1,
            plexes: self.0.iter().map(plex).collect(),
        })
    }

    fn end_write(&self, _: WriteGrant, results: Vec<Result<(), IoError>>, done: DoneFn) {
        done(results.into_iter().collect());
    }

    fn submit(&self, _: Op, _: ByteRange, _: Flags, _: Option<Vec<u8>>, _: DoneFn) {
        panic!("a device with a bug");
    }

    fn mark(&self, _: Uuid, _: u64) {}
}

fn append_only() -> (Arc<AppendOnly>, Vec<tempfile::NamedTempFile>) {
    let names: Vec<_> = (0..2)
        .map(|_| tempfile::NamedTempFile::new().unwrap())
        .collect();
    let open = |name: &tempfile::NamedTempFile| {
        Arc::new(OpenOptions::new().append(true).open(name.path()).unwrap())
    };
    let files = names.iter().map(open).collect();
    (Arc::new(AppendOnly(files)), names)
}

#[test]
fn a_disk_that_cannot_be_spliced_to_is_written_from_a_buffer() {
    let (device, names) = append_only();
    let (mut here, there) = tcp_pair();
    let (progress, received) = (progress(), counters());
    let (end, ended) = on_end();
    let receiver = receive(
        "sink",
        config(),
        DataStream::plain(there),
        device,
        progress.clone(),
        received.clone(),
        end,
    )
    .unwrap();
    let bytes = pattern(3 * MIB, 14);
    here.write_all(&header(Command::Write, 1, 0, 3 * MIB).encode())
        .unwrap();
    here.write_all(&bytes).unwrap();
    wait_until("the write", || progress.applied() == 1);
    drop(here);
    ended.recv_timeout(PATIENCE).unwrap().unwrap();
    receiver.join(PATIENCE).unwrap();
    for name in names {
        assert!(std::fs::read(name.path()).unwrap() == bytes);
    }
    let values = received.values();
    assert_eq!(values.payload_kernel_bytes, 0);
    assert_eq!(values.payload_copied_bytes, 3 * MIB);
    let reason = "splice to disk not supported: EINVAL: Invalid argument";
    assert_eq!(values.reasons[0].to_string(), reason);
}

#[test]
fn a_panic_in_a_device_is_told_like_any_end() {
    let (device, _names) = append_only();
    let (mut here, there) = tcp_pair();
    let (end, ended) = on_end();
    let receiver = receive(
        "sink",
        config(),
        DataStream::plain(there),
        device,
        progress(),
        counters(),
        end,
    )
    .unwrap();
    here.write_all(&header(Command::Trim, 1, 0, 512).encode())
        .unwrap();
    let result = ended.recv_timeout(PATIENCE).unwrap();
    assert!(matches!(result, Err(StreamError::Panicked)));
    receiver.join(PATIENCE).unwrap();
}
