//! The commands of the control plane and of a feed's receivers.

use super::rig::{MIB, Rig};
use blockio::{ByteRange, Flags, IoError, IoErrorKind, Op};
use crossbeam_channel::bounded;
use std::os::unix::fs::FileExt;
use std::time::Duration;

type Outcome = Result<(), IoError>;

/// A `DoneFn` and where its result comes out.
fn done() -> (
    Box<dyn FnOnce(Outcome) + Send>,
    crossbeam_channel::Receiver<Outcome>,
) {
    let (sender, receiver) = bounded(1);
    let done = Box::new(move |result| sender.send(result).expect("awaited"));
    (done, receiver)
}

fn wait(receiver: &crossbeam_channel::Receiver<Outcome>) -> Outcome {
    receiver
        .recv_timeout(Duration::from_secs(20))
        .expect("completed in time")
}

#[test]
fn the_feeds_writes_land_in_order_and_are_read_back() {
    let rig = Rig::new(2, 1);
    let mut waiting = Vec::new();
    for value in 0..50_u8 {
        let (done, result) = done();
        let bytes = vec![value; MIB as usize];
        let range = ByteRange::new(0, MIB);
        rig.handle
            .submit(Op::Write, range, Flags::empty(), bytes, done);
        waiting.push(result);
    }
    let (finished, result) = done();
    let range = ByteRange::new(4096, 4096);
    rig.handle
        .submit(Op::WriteZeroes, range, Flags::empty(), Vec::new(), finished);
    waiting.push(result);
    for result in &waiting {
        wait(result).expect("written");
    }
    rig.runtime.block_on(rig.handle.quiesce()).expect("quiesce");
    let read = rig.handle.read(ByteRange::new(0, MIB));
    let bytes = rig.runtime.block_on(read).expect("read");
    assert_eq!((bytes[0], bytes[4096], bytes[8192]), (49, 0, 49));
    assert_eq!(rig.plexes_equal()[..MIB as usize], bytes);
    let hash = rig.handle.hash(ByteRange::new(0, MIB));
    let hash = rig.runtime.block_on(hash).expect("hash");
    assert_eq!(hash, *blake3::hash(&bytes).as_bytes());
}

#[test]
fn wrong_requests_are_refused() {
    let rig = Rig::new(1, 1);
    for (op, range, bytes) in [
        (Op::Write, ByteRange::new(0, 4096), vec![0; 512]),
        (Op::Read, ByteRange::new(0, 4096), Vec::new()),
        (Op::Write, ByteRange::new(1 << 40, 4096), vec![0; 4096]),
    ] {
        let (done, result) = done();
        rig.handle.submit(op, range, Flags::empty(), bytes, done);
        let error = wait(&result).expect_err("refused");
        assert_eq!(error.kind(), IoErrorKind::Invalid);
    }
    assert!(
        rig.handle
            .begin_write(ByteRange::new(1 << 40, 4096))
            .is_err()
    );
}

#[test]
fn a_delegated_write_is_done_by_someone_else() {
    let rig = Rig::new(2, 2);
    let range = ByteRange::new(60 << 10, 200 << 10);
    let grant = rig.handle.begin_write(range).expect("grant");
    assert_eq!((grant.range, grant.plexes.len()), (range, 2));
    for plex in &grant.plexes {
        let total: u64 = plex.iter().map(|segment| segment.range.len()).sum();
        assert_eq!(total, range.len());
        for segment in plex {
            let bytes = vec![3; segment.range.len() as usize];
            segment
                .file
                .write_all_at(&bytes, segment.range.start())
                .expect("write");
        }
    }
    let results = vec![Ok(()); grant.plexes.len()];
    let (finished, result) = done();
    rig.handle.end_write(grant, results, finished);
    wait(&result).expect("written");
    rig.runtime.block_on(rig.handle.quiesce()).expect("quiesce");
    // Direct reads see what went through the page cache.
    let read = rig.handle.read(ByteRange::new(0, MIB));
    let bytes = rig.runtime.block_on(read).expect("read");
    let expected: Vec<u8> = (0..MIB)
        .map(|at| {
            if at >= range.start() && at < range.end() {
                3
            } else {
                0
            }
        })
        .collect();
    assert!(bytes == expected);
    assert!(rig.plexes_equal()[..MIB as usize] == expected);
}

#[test]
fn a_delegated_write_given_up_leaves_equal_plexes() {
    let rig = Rig::new(2, 2);
    let range = ByteRange::new(0, 600 << 10);
    let grant = rig.handle.begin_write(range).expect("grant");
    // One plex got some of it, the other more.
    for (plex, count) in grant.plexes.iter().zip([1, 5]) {
        for segment in &plex[..count] {
            let bytes = vec![9; segment.range.len() as usize];
            segment
                .file
                .write_all_at(&bytes, segment.range.start())
                .expect("write");
        }
    }
    let (finished, result) = done();
    rig.handle.abandon_write(grant, finished);
    let error = wait(&result).expect_err("given up");
    assert_eq!(error.kind(), IoErrorKind::Cancelled);
    rig.runtime.block_on(rig.handle.quiesce()).expect("quiesce");
    let bytes = rig.plexes_equal();
    assert_eq!((bytes[0], bytes[64 << 10]), (9, 0));
    assert!(
        rig.states.lock().expect("lock").is_empty(),
        "no plex has failed"
    );
}

#[test]
fn a_stopped_lane_answers_everyone() {
    let rig = Rig::new(1, 1);
    rig.stop();
    assert!(rig.runtime.block_on(rig.handle.stats()).is_err());
    assert!(rig.handle.begin_write(ByteRange::new(0, 4096)).is_err());
    let (finished, result) = done();
    let empty = ByteRange::default();
    rig.handle
        .submit(Op::Flush, empty, Flags::empty(), Vec::new(), finished);
    assert!(wait(&result).is_err());
}

#[test]
fn stats_tell_what_happened() {
    let rig = Rig::new(2, 1);
    let stats = rig.runtime.block_on(rig.handle.stats()).expect("stats");
    assert_eq!((stats.opens, stats.disk_errors), (0, vec![0, 0]));
    assert!(rig.handle.limits().size > 0);
}
