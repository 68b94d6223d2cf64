//! Feeds, with a sink that is a vector in this process.

use super::rig::{DATA, MIB, Rig, SIZE, have, run, sample};
use crate::lane::{BulkOp, Congested, FeedOutlet, LaneHandle, LiveBytes, LiveOp, PayloadPipe};
use blockio::{ByteRange, IoError, IoErrorKind, Op};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use uuid::Uuid;
use volmgr::engine::{FeedId, FeedLayout, IoId};
use volmgr::model::FeedMode;

const FEED: FeedId = FeedId(5);

/// The other side, as far as the lane can tell.
#[derive(Default)]
struct Sink {
    bytes: Vec<u8>,
    /// Points seen, with the content they had.
    points: Vec<(Uuid, Vec<u8>)>,
    /// Refuse the next so many live operations.
    congested: usize,
    live: usize,
    copies: usize,
    /// This disk loses its content before the next copy reads it, and is nearly as long as before.
    lose: Option<PathBuf>,
    /// Do not answer.
    hold: bool,
    held: Vec<IoId>,
}

#[derive(Clone)]
struct Peer {
    sink: Arc<Mutex<Sink>>,
    handle: LaneHandle,
}

impl Peer {
    fn new(handle: &LaneHandle) -> Self {
        let sink = Sink {
            bytes: vec![0; SIZE as usize],
            ..Sink::default()
        };
        Self {
            sink: Arc::new(Mutex::new(sink)),
            handle: handle.clone(),
        }
    }

    fn sink(&self) -> MutexGuard<'_, Sink> {
        self.sink.lock().expect("lock")
    }

    /// Answers from another thread, as streams do.
    fn answer(&self, io: IoId) {
        if self.sink().hold {
            return self.sink().held.push(io);
        }
        let handle = self.handle.clone();
        std::thread::spawn(move || handle.feed_done(io, Ok(())));
    }
}

fn span(range: ByteRange) -> std::ops::Range<usize> {
    range.start() as usize..range.end() as usize
}

impl FeedOutlet for Peer {
    fn try_live(&mut self, op: LiveOp) -> Result<(), Congested> {
        let mut sink = self.sink();
        if sink.congested > 0 {
            sink.congested -= 1;
            return Err(Congested);
        }
        sink.live += 1;
        match (op.op, op.bytes) {
            (Op::Write, Some(LiveBytes::Memory(bytes))) => {
                sink.bytes[span(op.range)].copy_from_slice(bytes.as_ref())
            }
            (Op::WriteZeroes | Op::Discard, None) => sink.bytes[span(op.range)].fill(0),
            (Op::Flush, None) => {
                if let Some(point) = op.mark {
                    let content = sink.bytes.clone();
                    sink.points.push((point, content));
                }
            }
            (what, bytes) => panic!("{what:?} with {bytes:?}"),
        }
        drop(sink);
        self.answer(op.io);
        Ok(())
    }

    fn pipe(&self) -> Option<Arc<dyn PayloadPipe>> {
        None
    }

    fn copy(&mut self, op: BulkOp) -> Result<(), Congested> {
        let total: u64 = op.segments.iter().map(|(_, range)| range.len()).sum();
        assert_eq!(total, op.range.len());
        let mut bytes = Vec::new();
        if let Some(path) = self.sink().lose.take() {
            let disk = fs::OpenOptions::new().write(true).open(path);
            let disk = disk.expect("open");
            let len = disk.metadata().expect("metadata").len();
            disk.set_len(DATA).expect("truncate");
            disk.set_len(len - 4096).expect("extend");
        }
        for (file, range) in &op.segments {
            let mut part = vec![0; range.len() as usize];
            file.read_exact_at(&mut part, range.start()).expect("read");
            bytes.extend(part);
        }
        let mut sink = self.sink();
        sink.copies += 1;
        sink.bytes[span(op.range)].copy_from_slice(&bytes);
        drop(sink);
        self.answer(op.io);
        Ok(())
    }
}

fn rig(plexes: u32, columns: u32, mode: FeedMode) -> Rig {
    Rig::with(plexes, columns, |spec| {
        spec.layout.feeds.push(FeedLayout {
            id: FEED,
            mode,
            fresh: true,
            hold: false,
        });
    })
}

fn attach(rig: &Rig) -> Peer {
    let peer = Peer::new(&rig.handle);
    online(rig, &peer);
    peer
}

fn online(rig: &Rig, peer: &Peer) {
    let attached = rig.handle.feed_attach(FEED, Box::new(peer.clone()));
    rig.runtime.block_on(attached).expect("attach");
}

fn dirty(rig: &Rig) -> u64 {
    let dirty = rig.handle.dirty(vec![FEED], vec![]);
    rig.runtime.block_on(dirty).expect("dirty").0[0]
}

fn write_all(rig: &Rig, seed: u32) -> Vec<u8> {
    let bytes = sample(seed);
    let path = rig.path("bytes");
    fs::write(&path, &bytes).expect("write");
    run(
        "nbdcopy",
        &["--flush", path.to_str().expect("utf8"), &rig.uri()],
    );
    bytes
}

#[test]
fn a_fresh_feed_gets_everything_and_then_what_is_written() {
    if !have("nbdcopy") {
        return;
    }
    for (plexes, columns) in [(1, 1), (2, 2)] {
        let rig = rig(plexes, columns, FeedMode::Async);
        let first = write_all(&rig, 1);
        assert_eq!(dirty(&rig), SIZE);
        let peer = attach(&rig);
        rig.wait("the full copy", || dirty(&rig) == 0);
        assert!(peer.sink().bytes == first);
        let copies = peer.sink().copies;
        assert!(copies > 0);
        let second = write_all(&rig, 2);
        let point = Uuid::from_u128(9);
        let marked = rig.handle.mark(FEED, point, false);
        rig.runtime.block_on(marked).expect("mark");
        let sink = peer.sink();
        assert!(sink.live > 0 && sink.copies == copies);
        assert_eq!(sink.points.len(), 1);
        assert!(sink.points[0].1 == second, "what the point holds");
    }
}

#[test]
fn a_cut_feed_gets_what_it_missed_and_no_more() {
    if !have("qemu-io") {
        return;
    }
    let rig = rig(1, 1, FeedMode::Async);
    let peer = attach(&rig);
    rig.wait("the full copy", || dirty(&rig) == 0);
    rig.runtime
        .block_on(rig.handle.feed_offline(FEED))
        .expect("offline");
    let write = |command: &str| {
        run(
            "qemu-io",
            &["-f", "raw", "-c", command, "-c", "flush", &rig.uri()],
        )
    };
    write("write -P 7 3M 1M");
    assert_eq!(dirty(&rig), MIB);
    let map = rig
        .runtime
        .block_on(rig.handle.feed_map(FEED))
        .expect("map");
    assert_eq!(map.bytes(), MIB);
    // Held: the sink is there and does not answer.
    peer.sink().hold = true;
    online(&rig, &peer);
    rig.wait("copies under way", || !peer.sink().held.is_empty());
    rig.runtime
        .block_on(rig.handle.feed_offline(FEED))
        .expect("offline");
    assert_eq!(dirty(&rig), MIB, "what was not acknowledged is missing");
    let held = std::mem::take(&mut peer.sink().held);
    for io in held {
        // Too late: the engine has given these up.
        rig.handle
            .feed_done(io, Err(IoError::new(IoErrorKind::Gone)));
    }
    peer.sink().hold = false;
    online(&rig, &peer);
    rig.wait("the rest", || dirty(&rig) == 0);
    assert!(peer.sink().bytes == rig.plex(0));
}

#[test]
fn a_congested_feed_falls_behind_and_resumes() {
    if !have("qemu-io") {
        return;
    }
    let rig = rig(2, 1, FeedMode::Async);
    let peer = attach(&rig);
    rig.wait("the full copy", || dirty(&rig) == 0);
    peer.sink().congested = 1;
    run(
        "qemu-io",
        &[
            "-f",
            "raw",
            "-c",
            "write -P 7 3M 1M",
            "-c",
            "write -P 8 5M 1M",
            "-c",
            "flush",
            &rig.uri(),
        ],
    );
    rig.wait("the note", || {
        rig.notes
            .lock()
            .expect("lock")
            .join(" ")
            .contains("FeedBehind")
    });
    assert!(dirty(&rig) > 0);
    rig.runtime
        .block_on(rig.handle.feed_resume(FEED))
        .expect("resume");
    rig.wait("the rest", || dirty(&rig) == 0);
    assert!(peer.sink().bytes == rig.plexes_equal());
}

#[test]
fn what_a_feed_misses_survives_stops_and_crashes() {
    if !have("qemu-io") {
        return;
    }
    let mut rig = rig(1, 1, FeedMode::Async);
    let peer = attach(&rig);
    rig.wait("the full copy", || dirty(&rig) == 0);
    for (crash, command) in [(false, "write -P 1 1M 1M"), (true, "write -P 2 9M 1M")] {
        rig.runtime
            .block_on(rig.handle.feed_offline(FEED))
            .expect("offline");
        run(
            "qemu-io",
            &["-f", "raw", "-c", command, "-c", "flush", &rig.uri()],
        );
        rig.wait("clients gone", || rig.handle.opens() == 0);
        if crash {
            rig.handle.crash();
            rig.wait("the crash", || {
                rig.runtime.block_on(rig.handle.stats()).is_err()
            });
        } else {
            rig.stop();
        }
        rig.spec.layout.feeds[0].fresh = false;
        rig.restart();
        let missing = dirty(&rig);
        // After a crash the log may name more than was written, but not the volume.
        assert!((MIB..8 * MIB).contains(&missing), "{missing}");
        let again = Peer {
            sink: Arc::clone(&peer.sink),
            handle: rig.handle.clone(),
        };
        online(&rig, &again);
        rig.wait("the rest", || dirty(&rig) == 0);
        assert!(peer.sink().bytes == rig.plex(0));
    }
}

#[test]
fn a_disk_that_loses_its_end_under_a_copy_sends_no_hole() {
    if !have("nbdcopy") {
        return;
    }
    let rig = rig(2, 1, FeedMode::Async);
    let bytes = write_all(&rig, 3);
    let peer = Peer::new(&rig.handle);
    peer.sink().lose = Some(rig.path("disk-0-0"));
    online(&rig, &peer);
    rig.wait("the full copy", || dirty(&rig) == 0);
    assert!(peer.sink().lose.is_none(), "nothing was copied from there");
    assert!(
        peer.sink().bytes == bytes,
        "zeroes instead of what was lost"
    );
}
