//! The ring against the real kernel.

use blockio::{ByteRange, IoErrorKind};
use ringio::{
    BufMut, BufPool, Completed, FallocateMode, Handle, MAX_SLICE, Op, Ring, RingConfig, SendPart,
    Source, Target,
};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Waits for `count` completions, a second each at most.
fn wait<T>(ring: &mut Ring<T>, count: usize) -> Vec<Completed<T>> {
    let mut done = Vec::new();
    let until = Instant::now() + Duration::from_secs(10);
    while done.len() < count {
        assert!(
            Instant::now() < until,
            "{} of {count} completed",
            done.len()
        );
        ring.submit_and_wait(1, Some(Duration::from_secs(1)))
            .expect("enter");
        ring.completions(&mut done);
    }
    done
}

fn one<T>(ring: &mut Ring<T>) -> Completed<T> {
    wait(ring, 1).pop().expect("one")
}

fn setup() -> (Ring<u64>, BufPool) {
    let pool = BufPool::new(4 * MAX_SLICE).expect("pool");
    let ring = Ring::new(RingConfig::default(), Some(&pool)).expect("ring");
    (ring, pool)
}

fn temp() -> (Arc<File>, Handle) {
    let file = Arc::new(tempfile::tempfile().expect("file"));
    (Arc::clone(&file), file.into())
}

fn pair() -> (Handle, UnixStream) {
    let (ours, theirs) = UnixStream::pair().expect("pair");
    (Arc::new(OwnedFd::from(ours)).into(), theirs)
}

#[test]
fn write_sync_and_read_back_with_and_without_registration() {
    let pool = BufPool::new(MAX_SLICE).expect("pool");
    for registered in [true, false] {
        let mut ring: Ring<u64> =
            Ring::new(RingConfig::default(), registered.then_some(&pool)).expect("ring");
        let (file, handle) = temp();
        assert!(ring.fix_file(&handle));
        let mut buf = pool.alloc(8192).expect("buf");
        buf.as_mut().fill(9);
        ring.push(
            Op::Write {
                file: handle.clone(),
                at: 4096,
                from: Source::Pool(buf.freeze()),
                done: 0,
                dsync: true,
            },
            1,
        );
        let done = one(&mut ring);
        assert_eq!((done.data, done.result), (1, Ok(8192)));
        drop(done);
        ring.push(
            Op::Datasync {
                file: handle.clone(),
            },
            2,
        );
        assert_eq!(one(&mut ring).result, Ok(0));
        ring.unfix_file(&handle);
        ring.push(
            Op::Read {
                file: handle.clone(),
                at: 4096 - 512,
                into: Target::Pool(pool.alloc(16384).expect("buf")),
                done: 0,
            },
            3,
        );
        // The file ends before the buffer does: a short read says so.
        let Completed { op, result, .. } = one(&mut ring);
        assert_eq!(result, Ok(8192 + 512));
        let Op::Read {
            into: Target::Pool(buf),
            ..
        } = op
        else {
            panic!("not what was pushed")
        };
        assert_eq!(buf.as_ref()[511..513], [0, 9]);
        assert_eq!(file.metadata().expect("metadata").len(), 4096 + 8192);
    }
    assert_eq!(pool.free(), pool.capacity());
}

#[test]
fn a_continued_transfer_moves_the_rest_only() {
    let (mut ring, pool) = setup();
    let (_file, handle) = temp();
    let mut buf = pool.alloc(4096).expect("buf");
    buf.as_mut().fill(5);
    ring.push(
        Op::Write {
            file: handle.clone(),
            at: 0,
            from: Source::Pool(buf.freeze()),
            done: 1000,
            dsync: false,
        },
        0,
    );
    assert_eq!(one(&mut ring).result, Ok(3096));
    let mut target = pool.alloc(4096).expect("buf");
    target.as_mut().fill(1);
    ring.push(
        Op::Read {
            file: handle,
            at: 0,
            into: Target::Pool(target),
            done: 999,
        },
        0,
    );
    let Completed {
        op: Op::Read {
            into: Target::Pool(buf),
            ..
        },
        result,
        ..
    } = one(&mut ring)
    else {
        panic!("not a read")
    };
    assert_eq!(result, Ok(3097));
    assert_eq!(buf.as_ref()[998..1001], [1, 0, 5]);
}

#[test]
fn more_operations_than_entries_all_complete() {
    let pool = BufPool::new(MAX_SLICE).expect("pool");
    let config = RingConfig {
        entries: 8,
        files: 0,
        kernel_slots: 0,
    };
    let mut ring: Ring<u64> = Ring::new(config, Some(&pool)).expect("ring");
    for number in 0..1000 {
        ring.push(Op::Nop, number);
    }
    let mut seen: Vec<u64> = wait(&mut ring, 1000).iter().map(|done| done.data).collect();
    seen.sort_unstable();
    assert_eq!(seen, (0..1000).collect::<Vec<_>>());
    assert_eq!(ring.in_flight(), 0);
}

#[test]
fn messages_go_out_whole_and_arrive_in_pieces() {
    let (mut ring, pool) = setup();
    let (socket, mut peer) = pair();
    let mut buf = pool.alloc(100).expect("buf");
    buf.as_mut().fill(b'x');
    let parts = vec![
        SendPart::Owned(b"head".to_vec()),
        SendPart::Pool(buf.freeze()),
    ];
    ring.push(
        Op::SendMsg {
            socket: socket.clone(),
            parts,
            done: 2,
        },
        0,
    );
    assert_eq!(one(&mut ring).result, Ok(102));
    let mut got = [0; 102];
    peer.read_exact(&mut got).expect("read");
    assert_eq!(&got[..4], b"adxx");

    peer.write_all(b"abc").expect("write");
    let into = pool.alloc(4096).expect("buf");
    ring.push(
        Op::Recv {
            socket: socket.clone(),
            into,
            done: 0,
        },
        0,
    );
    let Completed {
        op: Op::Recv { into, .. },
        result,
        ..
    } = one(&mut ring)
    else {
        panic!("not a recv")
    };
    assert_eq!((result, &into.as_ref()[..3]), (Ok(3), &b"abc"[..]));
    drop(peer);
    ring.push(
        Op::Recv {
            socket: socket.clone(),
            into,
            done: 3,
        },
        0,
    );
    assert_eq!(one(&mut ring).result, Ok(0));
    let parts = vec![SendPart::Owned(vec![0])];
    ring.push(
        Op::SendMsg {
            socket,
            parts,
            done: 0,
        },
        0,
    );
    let error = one(&mut ring).result.expect_err("nobody there");
    assert_eq!(error.kind(), IoErrorKind::Gone);
}

#[test]
fn cancel_ends_a_wait_and_a_timeout_ends_itself() {
    let (mut ring, pool) = setup();
    let (socket, peer) = pair();
    let into = pool.alloc(4096).expect("buf");
    let token = ring.push(
        Op::Recv {
            socket: socket.clone(),
            into,
            done: 0,
        },
        1,
    );
    ring.push(Op::Cancel { op: token }, 2);
    for done in wait(&mut ring, 2) {
        match done.data {
            1 => assert_eq!(
                done.result.expect_err("cancelled").kind(),
                IoErrorKind::Cancelled
            ),
            _ => assert_eq!(done.result, Ok(0)),
        }
    }
    ring.push(
        Op::Timeout {
            after: Duration::from_millis(5),
        },
        3,
    );
    let late = one(&mut ring).result.expect_err("time is over");
    assert_eq!(late.errno(), 62);
    ring.push(
        Op::Poll {
            file: socket,
            events: 1,
        },
        4,
    );
    drop(peer);
    assert!(one(&mut ring).result.is_ok());
}

#[test]
fn a_dropped_ring_lets_go_of_everything() {
    let (mut ring, pool) = setup();
    let (socket, _peer) = pair();
    for _ in 0..3 {
        let into = pool.alloc(MAX_SLICE).expect("buf");
        ring.push(
            Op::Recv {
                socket: socket.clone(),
                into,
                done: 0,
            },
            1,
        );
    }
    ring.submit_and_wait(0, None).expect("enter");
    let into = pool.alloc(MAX_SLICE).expect("buf");
    // This one was never submitted.
    ring.push(
        Op::Recv {
            socket: socket.clone(),
            into,
            done: 0,
        },
        1,
    );
    assert_eq!(pool.free(), 0);
    drop(ring);
    assert_eq!(pool.free(), pool.capacity());
    let Handle::Fd(socket) = socket else {
        panic!("a socket")
    };
    assert_eq!(Arc::strong_count(&socket), 1);
}

#[test]
fn holes_are_punched_and_the_size_stays() {
    let (mut ring, _pool) = setup();
    let (file, handle) = temp();
    (&*file).write_all(&[1; 65536]).expect("write");
    let range = ByteRange::new(4096, 8192);
    for mode in [FallocateMode::PunchHole, FallocateMode::ZeroRange] {
        ring.push(
            Op::Fallocate {
                file: handle.clone(),
                mode,
                range,
            },
            0,
        );
        match one(&mut ring).result {
            Ok(_) => {}
            // Some filesystems (tmpfs) do not zero ranges.
            Err(error) => assert_eq!(error.kind(), IoErrorKind::Unsupported),
        }
    }
    ring.push(
        Op::WillNeed {
            file: handle,
            range,
        },
        0,
    );
    assert_eq!(one(&mut ring).result, Ok(0));
    assert_eq!(file.metadata().expect("metadata").len(), 65536);
}

#[test]
fn kernel_slots_are_named_safely() {
    let pool = BufPool::new(MAX_SLICE).expect("pool");
    let config = RingConfig {
        kernel_slots: 4,
        ..RingConfig::default()
    };
    let mut ring: Ring<u64> = Ring::new(config, Some(&pool)).expect("ring");
    assert!(ring.kernel_slot(0, 0, 512).is_none(), "slot 0 is the pool");
    assert!(ring.kernel_slot(5, 0, 512).is_none());
    let slot = ring.kernel_slot(4, 0, 512).expect("slot");
    let (_file, handle) = temp();
    let from = Source::Slot(slot);
    ring.push(
        Op::Write {
            file: handle,
            at: 0,
            from,
            done: 0,
            dsync: false,
        },
        0,
    );
    // The kernel has put nothing there yet.
    assert!(one(&mut ring).result.is_err());
}

#[test]
fn standalone_memory_works_in_a_ring_with_a_pool() {
    let (mut ring, _pool) = setup();
    let (file, handle) = temp();
    let from = Source::Pool(BufMut::standalone(4096).expect("memory").freeze());
    ring.push(
        Op::Write {
            file: handle,
            at: 0,
            from,
            done: 0,
            dsync: false,
        },
        0,
    );
    assert_eq!(one(&mut ring).result, Ok(4096));
    assert_eq!(file.metadata().expect("metadata").len(), 4096);
}
