//! The engine's rules one by one, step by step; the simulator tests them together.

use blockio::{ByteRange, Flags, IoError, IoErrorKind, Op, Origin, PayloadId, Request, Ticket};
use regionmap::log::Geometry;
use uuid::Uuid;
use volmgr::engine::*;
use volmgr::model::{FeedMode, PlexState};

#[path = "topics/copies.rs"]
mod copies;
#[path = "topics/disks.rs"]
mod disks;
#[path = "topics/hot.rs"]
mod hot;
#[path = "topics/media.rs"]
mod media;
#[path = "topics/scrub.rs"]
mod scrub;
#[path = "topics/whole.rs"]
mod whole;

const UNIT: u64 = 4096;
const SIZE: u64 = 64 * UNIT;

fn geometry(size: u64) -> Geometry {
    Geometry {
        volume: Uuid::from_u128(1),
        size,
        region_size: UNIT,
    }
}

fn image(size: u64) -> Vec<u8> {
    let geometry = geometry(size);
    let mut image = vec![0; geometry.log_bytes().unwrap() as usize];
    for (at, bytes) in geometry.format(&[]) {
        image[at as usize..at as usize + bytes.len()].copy_from_slice(&bytes);
    }
    image
}

fn at(disk: u32, start: u64, len: u64) -> DiskRange {
    DiskRange {
        disk: DiskId(disk),
        range: ByteRange::new(start, len),
    }
}

fn layout(plexes: u32, feeds: &[FeedMode]) -> VolumeLayout {
    VolumeLayout {
        points: Vec::new(),
        size: SIZE,
        region_size: UNIT,
        plexes: (0..plexes)
            .map(|i| PlexLayout {
                id: PlexId(i),
                state: PlexState::Active,
                map_slot: 1 + i,
                map: vec![Piece::Concat(at(i, 0, 2 * SIZE))],
            })
            .collect(),
        feeds: feeds
            .iter()
            .zip(8..)
            .map(|(mode, id)| FeedLayout {
                id: FeedId(id),
                mode: *mode,
                fresh: false,
                hold: false,
            })
            .collect(),
        log: (0..plexes)
            .map(|i| at(i, 1 << 30, image(SIZE).len() as u64))
            .collect(),
        fed: false,
        whole: true,
        restore: None,
    }
}

/// An engine, and what it has asked for.
struct Lane {
    engine: Engine,
    out: Vec<Action>,
    done: Vec<(u64, Result<(), IoError>)>,
    next: u64,
}

impl Lane {
    fn new(layout: VolumeLayout) -> Self {
        Self::with(layout, EngineConfig::default())
    }

    fn with(layout: VolumeLayout, config: EngineConfig) -> Self {
        let logs = layout.log.iter().map(|_| image(SIZE)).collect();
        let config = EngineConfig {
            bounce: vec![PayloadId(0)],
            bounce_bytes: 4 * UNIT,
            ..config
        };
        Self {
            engine: Engine::new(layout, config, logs).unwrap(),
            out: Vec::new(),
            done: Vec::new(),
            next: 100,
        }
    }

    fn request(&mut self, op: Op, start: u64, len: u64, flags: Flags, origin: Origin) -> u64 {
        self.next += 1;
        let request = Request {
            ticket: Ticket::new(self.next),
            op,
            range: ByteRange::new(start, len),
            flags,
            payload: Some(PayloadId(self.next)),
            origin,
        };
        self.engine.submit(request, &mut self.out);
        self.next
    }

    fn ask(&mut self, op: Op, start: u64, len: u64) -> u64 {
        self.request(op, start, len, Flags::empty(), Origin::Client)
    }

    /// Takes out what `wanted` says yes to.
    fn take(&mut self, wanted: impl Fn(&Action) -> bool) -> Vec<Action> {
        let (yes, no) = self.out.drain(..).partition(|a| wanted(a));
        self.out = no;
        yes
    }

    fn disk(&mut self, op: DiskOp) -> Vec<DiskIo> {
        let all = self.take(|a| matches!(a, Action::Disk(io) if io.op == op));
        all.into_iter()
            .map(|a| match a {
                Action::Disk(io) => io,
                other => panic!("{other:?}"),
            })
            .collect()
    }

    fn answer(&mut self, io: IoId, result: Result<(), IoError>) {
        self.engine.io_done(io, result, &mut self.out);
    }

    fn good(&mut self, io: IoId) {
        self.answer(io, Ok(()));
    }

    /// Answers all log updates well.
    fn logged(&mut self) -> usize {
        let mut count = 0;
        loop {
            let all = self.take(|a| matches!(a, Action::Log(_)));
            if all.is_empty() {
                return count;
            }
            for action in all {
                if let Action::Log(io) = action {
                    count += 1;
                    self.good(io.io);
                }
            }
        }
    }

    /// The result of a request, if it is done.
    fn result(&mut self, token: u64) -> Option<Result<(), IoError>> {
        for action in self.take(|a| matches!(a, Action::Complete { .. })) {
            if let Action::Complete { ticket, result } = action {
                self.done.push((ticket.complete(), result));
            }
        }
        self.done.iter().find(|d| d.0 == token).map(|d| d.1)
    }
}

fn medium() -> Result<(), IoError> {
    Err(IoError::new(IoErrorKind::Medium))
}

#[test]
fn a_lone_plex_needs_no_log() {
    let mut lane = Lane::new(layout(1, &[]));
    let write = lane.ask(Op::Write, 0, 512);
    assert_eq!(lane.logged(), 0);
    let io = lane.disk(DiskOp::Write);
    assert_eq!(io.len(), 1);
    lane.good(io[0].io);
    assert_eq!(lane.result(write), Some(Ok(())));
}

#[test]
fn mirrors_log_first_and_together() {
    let mut lane = Lane::new(layout(2, &[]));
    for i in 0..10 {
        lane.ask(Op::Write, i * 2 * UNIT, 512);
    }
    assert!(
        lane.disk(DiskOp::Write).is_empty(),
        "nothing before the log"
    );
    // The first region, then all that came meanwhile in one update; two copies each.
    assert_eq!(lane.logged(), 4);
    assert_eq!(lane.disk(DiskOp::Write).len(), 20);
    // Logged already: at once.
    lane.ask(Op::Write, 512, 512);
    assert_eq!(lane.disk(DiskOp::Write).len(), 2);
    finish(lane);
}

/// Lets everything come to its end, so that no ticket is left over.
fn finish(mut lane: Lane) {
    lane.engine.set_stop();
    for _ in 0..1000 {
        lane.result(0);
        let Some(action) = lane.out.pop() else {
            break;
        };
        match action {
            Action::Disk(DiskIo { io, .. })
            | Action::Feed(FeedIo { io, .. })
            | Action::FeedCopy(FeedCopy { io, .. })
            | Action::Log(LogIo { io, .. })
            | Action::FeedMark { io, .. }
            | Action::CommitPlexState { io, .. } => lane.good(io),
            Action::Complete { ticket, .. } => {
                ticket.complete();
            }
            Action::Note(_) => {}
        }
    }
    // Writes of the test that were taken out of `out` are never answered.
    std::mem::forget(lane.engine);
}

#[test]
fn a_failed_plex_is_committed_before_the_acknowledgement() {
    let mut lane = Lane::new(layout(2, &[]));
    let write = lane.ask(Op::Write, 0, 512);
    lane.logged();
    let io = lane.disk(DiskOp::Write);
    lane.answer(io[1].io, medium());
    lane.good(io[0].io);
    assert_eq!(lane.result(write), None);
    let commit = lane.take(|a| matches!(a, Action::CommitPlexState { .. }));
    let Action::CommitPlexState {
        io, plex, state, ..
    } = commit[0]
    else {
        panic!("no commit");
    };
    assert_eq!((plex, state), (PlexId(1), PlexState::Failed));
    lane.good(io);
    assert_eq!(lane.result(write), Some(Ok(())));
    assert!(lane.engine.plex_dirty_bytes(PlexId(1)) > 0);
}

#[test]
fn the_last_plex_is_never_given_up() {
    let mut lane = Lane::new(layout(1, &[]));
    let write = lane.ask(Op::Write, 0, 512);
    let io = lane.disk(DiskOp::Write)[0].io;
    lane.answer(io, medium());
    assert_eq!(lane.result(write), Some(medium()));
    let flush = lane.ask(Op::Flush, 0, 0);
    let io = lane.disk(DiskOp::Flush)[0].io;
    lane.answer(io, medium());
    assert_eq!(lane.result(flush), Some(medium()));
    assert_eq!(lane.engine.plex_state(PlexId(0)), Some(PlexState::Active));
}

#[test]
fn a_cycle_whose_flush_failed_clears_nothing() {
    let mut lane = Lane::new(layout(1, &[FeedMode::Async]));
    let write = lane.ask(Op::Write, 0, 512);
    lane.logged();
    let io = lane.disk(DiskOp::Write)[0].io;
    lane.good(io);
    assert_eq!(lane.result(write), Some(Ok(())));
    lane.engine.tick(10_000, &mut lane.out);
    let io = lane.disk(DiskOp::Flush)[0].io;
    lane.answer(io, medium());
    lane.logged();
    assert_eq!(lane.engine.logged_bytes(), UNIT);
    lane.engine.tick(20_000, &mut lane.out);
    let io = lane.disk(DiskOp::Flush)[0].io;
    lane.good(io);
    lane.logged();
    assert_eq!(lane.engine.logged_bytes(), 0);
}

#[test]
fn a_failed_write_is_dirty_at_every_feed() {
    let mut lane = Lane::new(layout(1, &[FeedMode::Async]));
    lane.engine.feed_online(FeedId(8), &mut lane.out);
    let write = lane.ask(Op::Write, 0, 512);
    lane.logged();
    let live = lane.take(|a| matches!(a, Action::Feed(_)));
    let io = lane.disk(DiskOp::Write)[0].io;
    lane.answer(io, medium());
    assert_eq!(lane.result(write), Some(medium()));
    assert_eq!(lane.engine.dirty_bytes(FeedId(8)), UNIT);
    // A copy has no place in the write order: the sink must know first that it is no longer told in order.
    let behind = Action::Note(Note::FeedBehind { feed: FeedId(8) });
    assert!(
        lane.out.contains(&behind),
        "seed 341 of the simulator of nodes"
    );
    let Action::Feed(io) = live[0] else {
        panic!("no live write")
    };
    lane.good(io.io);
    assert!(lane.take(|a| matches!(a, Action::FeedCopy(_))).is_empty());
    lane.engine.feed_resume(FeedId(8), &mut lane.out);
    assert_eq!(lane.take(|a| matches!(a, Action::FeedCopy(_))).len(), 1);
}

#[test]
fn a_sync_feed_is_waited_for_until_it_is_cut_off() {
    let mut lane = Lane::new(layout(1, &[FeedMode::Sync]));
    lane.engine.feed_online(FeedId(8), &mut lane.out);
    assert!(lane.engine.is_caught_up(FeedId(8)));
    let write = lane.ask(Op::Write, 0, 512);
    lane.logged();
    let io = lane.disk(DiskOp::Write)[0].io;
    lane.good(io);
    assert_eq!(lane.result(write), None);
    lane.engine.feed_offline(FeedId(8), &mut lane.out);
    assert_eq!(lane.result(write), Some(Ok(())));
    assert_eq!(lane.engine.dirty_bytes(FeedId(8)), UNIT);
}

#[test]
fn an_async_feed_over_its_bound_falls_behind() {
    let mut lane = Lane::new(layout(1, &[FeedMode::Async]));
    lane.engine.feed_online(FeedId(8), &mut lane.out);
    let write = lane.ask(Op::Write, 0, 512);
    lane.logged();
    let Action::Feed(live) = lane.take(|a| matches!(a, Action::Feed(_)))[0] else {
        panic!("no live write");
    };
    lane.answer(live.io, Err(IoError::new(IoErrorKind::Congested)));
    let behind = Action::Note(Note::FeedBehind { feed: FeedId(8) });
    assert!(lane.out.contains(&behind));
    let io = lane.disk(DiskOp::Write)[0].io;
    lane.good(io);
    assert_eq!(lane.result(write), Some(Ok(())));
    assert!(lane.take(|a| matches!(a, Action::FeedCopy(_))).is_empty());
    lane.engine.feed_resume(FeedId(8), &mut lane.out);
    assert_eq!(lane.take(|a| matches!(a, Action::FeedCopy(_))).len(), 1);
}

#[test]
fn a_sync_feed_whose_sink_is_slow_is_waited_for() {
    let mut lane = Lane::new(layout(1, &[FeedMode::Sync]));
    lane.engine.feed_online(FeedId(8), &mut lane.out);
    let write = lane.ask(Op::Write, 0, 512);
    lane.logged();
    let Action::Feed(live) = lane.take(|a| matches!(a, Action::Feed(_)))[0] else {
        panic!("no live write");
    };
    let io = lane.disk(DiskOp::Write)[0].io;
    lane.good(io);
    lane.answer(live.io, Err(IoError::new(IoErrorKind::Congested)));
    assert_eq!(lane.result(write), None, "only the disk has it");
    // Nor does one go by that comes while the feed is behind.
    let later = lane.ask(Op::Write, UNIT, 512);
    lane.logged();
    let io = lane.disk(DiskOp::Write)[0].io;
    lane.good(io);
    assert_eq!(lane.result(later), None);
    lane.engine.feed_resume(FeedId(8), &mut lane.out);
    for copy in lane.take(|a| matches!(a, Action::FeedCopy(_))) {
        let Action::FeedCopy(copy) = copy else {
            unreachable!()
        };
        lane.good(copy.io);
    }
    assert!(lane.engine.is_caught_up(FeedId(8)));
    assert_eq!(lane.result(write), Some(Ok(())));
    assert_eq!(lane.result(later), Some(Ok(())));
    // A sink that is gone degrades it, with the writes that it owes.
    let last = lane.ask(Op::Write, 0, 512);
    lane.logged();
    let io = lane.disk(DiskOp::Write)[0].io;
    lane.good(io);
    lane.engine.feed_behind(FeedId(8), &mut lane.out);
    assert_eq!(lane.result(last), None);
    lane.engine.feed_offline(FeedId(8), &mut lane.out);
    assert_eq!(lane.result(last), Some(Ok(())));
}

#[test]
fn after_a_detaching_mark_the_map_is_the_difference() {
    let mut lane = Lane::new(layout(1, &[FeedMode::Async]));
    lane.engine.feed_online(FeedId(8), &mut lane.out);
    let mark = lane.engine.mark(FeedId(8), true, &mut lane.out).unwrap();
    let write = lane.ask(Op::Write, 0, 512);
    lane.logged();
    assert!(lane.take(|a| matches!(a, Action::Feed(_))).is_empty());
    lane.good(mark);
    let io = lane.disk(DiskOp::Write)[0].io;
    lane.good(io);
    assert_eq!(lane.result(write), Some(Ok(())));
    assert_eq!(lane.engine.dirty_bytes(FeedId(8)), UNIT);
    assert!(lane.engine.mark(FeedId(99), false, &mut lane.out).is_none());
}

#[test]
fn a_delegated_read_is_not_tried_again() {
    let mut lane = Lane::new(layout(2, &[]));
    let read = lane.request(Op::Read, 0, 512, Flags::DELEGATED, Origin::Feed);
    let io = lane.disk(DiskOp::Read)[0].io;
    lane.answer(io, medium());
    assert_eq!(lane.result(read), Some(medium()));
    assert!(lane.disk(DiskOp::Read).is_empty());
}

#[test]
fn a_fed_volume_takes_writes_from_its_feed_only() {
    let mut lane = Lane::new(VolumeLayout {
        fed: true,
        ..layout(1, &[])
    });
    let refused = Some(Err(IoError::new(IoErrorKind::ReadOnly)));
    for op in [Op::Write, Op::Discard, Op::WriteZeroes] {
        let token = lane.ask(op, 0, 512);
        assert_eq!(lane.result(token), refused);
    }
    let token = lane.request(Op::Write, 0, 512, Flags::empty(), Origin::Feed);
    let io = lane.disk(DiskOp::Write)[0].io;
    lane.good(io);
    assert_eq!(lane.result(token), Some(Ok(())));
}

#[test]
fn a_log_that_cannot_be_written_stops_writes() {
    let mut lane = Lane::new(layout(1, &[FeedMode::Async]));
    let write = lane.ask(Op::Write, 0, 512);
    let Action::Log(io) = &lane.take(|a| matches!(a, Action::Log(_)))[0] else {
        panic!("no log update");
    };
    lane.answer(io.io, medium());
    assert_eq!(lane.result(write), Some(medium()));
    assert!(lane.disk(DiskOp::Write).is_empty());
}

#[test]
fn slots_outside_the_layout_are_kept_and_can_be_cleared() {
    let mut lane = Lane::new(layout(1, &[FeedMode::Async]));
    let mut map = lane.engine.feed_map(FeedId(8)).unwrap().clone();
    map.set_range(ByteRange::new(0, 3 * UNIT));
    lane.engine.merge_feed_map(FeedId(8), &map, &mut lane.out);
    let barrier = lane.engine.maps_barrier();
    assert!(!lane.engine.maps_written(barrier));
    lane.logged();
    assert!(lane.engine.maps_written(barrier));
    lane.engine
        .reconfigure(layout(1, &[]), &mut lane.out)
        .unwrap();
    assert_eq!(lane.engine.dirty_bytes(FeedId(8)), 3 * UNIT);
    let back = layout(1, &[FeedMode::Async]);
    lane.engine.reconfigure(back, &mut lane.out).unwrap();
    assert_eq!(lane.engine.dirty_bytes(FeedId(8)), 3 * UNIT);
    lane.engine
        .reconfigure(layout(1, &[]), &mut lane.out)
        .unwrap();
    lane.engine.clear_feed_map(FeedId(8), &mut lane.out);
    assert!(lane.logged() > 0);
    assert_eq!(lane.engine.dirty_bytes(FeedId(8)), 0);
    assert_eq!(lane.engine.feed_map(FeedId(99)), None);
}

#[test]
fn plexes_are_compared_while_writes_are_held() {
    let mut lane = Lane::new(layout(2, &[]));
    let request = |ticket| Request {
        ticket: Ticket::new(ticket),
        op: Op::Read,
        range: ByteRange::new(0, 2 * UNIT),
        flags: Flags::empty(),
        payload: Some(PayloadId(1)),
        origin: Origin::Internal,
    };
    let both = vec![PlexId(0), PlexId(1)];
    lane.engine
        .read_plexes(request(1), both.clone(), &mut lane.out);
    let reads = lane.disk(DiskOp::Read);
    let places: Vec<_> = reads
        .iter()
        .map(|io| (io.at.disk, io.payload.map(|p| p.skip)))
        .collect();
    assert_eq!(places, [(DiskId(0), Some(0)), (DiskId(1), Some(2 * UNIT))]);
    let write = lane.ask(Op::Write, UNIT, 512);
    lane.logged();
    assert!(lane.disk(DiskOp::Write).is_empty(), "held");
    lane.good(reads[0].io);
    lane.good(reads[1].io);
    assert_eq!(lane.result(1), Some(Ok(())));
    lane.logged();
    for io in lane.disk(DiskOp::Write) {
        lane.good(io.io);
    }
    assert_eq!(lane.result(write), Some(Ok(())));
    // What cannot be read from the plex it was asked of is not read from another.
    lane.engine.read_plexes(request(2), both, &mut lane.out);
    let reads = lane.disk(DiskOp::Read);
    lane.good(reads[0].io);
    lane.answer(reads[1].io, medium());
    assert_eq!(lane.result(2), Some(medium()));
    assert!(lane.disk(DiskOp::Read).is_empty());
    lane.engine
        .read_plexes(request(3), vec![PlexId(7)], &mut lane.out);
    let invalid = Err(IoError::new(IoErrorKind::Invalid));
    assert_eq!(lane.result(3), Some(invalid));
}

#[test]
fn later_changes_of_a_map_do_not_put_a_barrier_off() {
    let mut lane = Lane::new(layout(1, &[FeedMode::Async]));
    let map = |lane: &Lane, region: u64| {
        let mut map = lane.engine.feed_map(FeedId(8)).unwrap().clone();
        map.set_range(ByteRange::new(region * UNIT, UNIT));
        map
    };
    let logs = |lane: &mut Lane| {
        let all = lane.take(|a| matches!(a, Action::Log(_)));
        let io = all.into_iter().map(|a| match a {
            Action::Log(io) => io.io,
            other => panic!("{other:?}"),
        });
        io.collect::<Vec<_>>()
    };
    let first = map(&lane, 0);
    lane.engine.merge_feed_map(FeedId(8), &first, &mut lane.out);
    let before = lane.engine.maps_barrier();
    let flight = logs(&mut lane);
    // The page is on its way when it changes again: that is the next barrier's.
    let second = map(&lane, 9);
    lane.engine
        .merge_feed_map(FeedId(8), &second, &mut lane.out);
    let after = lane.engine.maps_barrier();
    for io in flight {
        lane.good(io);
    }
    assert!(lane.engine.maps_written(before));
    assert!(!lane.engine.maps_written(after));
    lane.logged();
    assert!(lane.engine.maps_written(after));
}

#[test]
fn what_a_volume_grew_by_is_recovered_and_no_change_to_a_feed() {
    let mut lane = Lane::new(layout(2, &[FeedMode::Async]));
    let mut grown = layout(2, &[FeedMode::Async]);
    grown.size = SIZE + 8 * UNIT;
    lane.engine.reconfigure(grown, &mut lane.out).unwrap();
    assert_eq!(lane.engine.recover_bytes(), 8 * UNIT);
    assert_eq!(lane.engine.dirty_bytes(FeedId(8)), 0);
    let small = lane
        .engine
        .reconfigure(layout(2, &[FeedMode::Async]), &mut lane.out);
    assert_eq!(small, Err(EngineError::Change));
}

/// A sink that becomes the source with everything to be copied: its map is made before any layout has the
/// feed as one that is tracked here.
#[test]
fn a_feed_that_is_not_tracked_yet_can_be_all_dirty() {
    let mut lane = Lane::new(layout(1, &[]));
    let feed = FeedId(8);
    lane.engine.set_all_dirty(feed, &mut lane.out);
    let barrier = lane.engine.maps_barrier();
    assert!(!lane.engine.maps_written(barrier));
    assert!(lane.logged() > 0, "it is on the disks before it counts");
    assert!(lane.engine.maps_written(barrier));
    let with = layout(1, &[FeedMode::Async]);
    lane.engine.reconfigure(with, &mut lane.out).unwrap();
    assert_eq!(lane.engine.dirty_bytes(feed), SIZE);
}

/// What a peer remembers of a log is that it has come so far: durably, and more each time.
#[test]
fn the_log_comes_further_when_it_is_told_to_and_says_so_only_then() {
    let mut lane = Lane::new(layout(1, &[]));
    assert_eq!(lane.engine.log_stamp(), 0);
    for far in 1..4 {
        let barrier = lane.engine.touch_log(&mut lane.out);
        assert!(!lane.engine.maps_written(barrier));
        assert_eq!(lane.engine.log_stamp(), far - 1, "not durable yet");
        assert_eq!(lane.logged(), 1);
        assert!(lane.engine.maps_written(barrier));
        assert_eq!(lane.engine.log_stamp(), far);
    }
}
