//! Regions that are written again and again go to a feed by way of its live stream.

use super::*;

const FEED: FeedId = FeedId(8);

/// With memory for several copies, and a feed that nothing is acknowledged without.
fn held() -> Lane {
    let mut layout = layout(1, &[FeedMode::Sync]);
    layout.feeds[0].hold = true;
    let config = EngineConfig {
        bounce: (0..4).map(PayloadId).collect(),
        bounce_bytes: 4 * UNIT,
        ..EngineConfig::default()
    };
    let logs = vec![image(SIZE)];
    Lane {
        engine: Engine::new(layout, config, logs).unwrap(),
        out: Vec::new(),
        done: Vec::new(),
        next: 100,
    }
}

/// A write that is on the plex.
fn write(lane: &mut Lane, start: u64, len: u64) -> u64 {
    let token = lane.ask(Op::Write, start, len);
    lane.logged();
    for io in lane.disk(DiskOp::Write) {
        lane.good(io.io);
    }
    token
}

fn bulk(lane: &mut Lane) -> Vec<IoId> {
    let taken = lane.take(|a| matches!(a, Action::FeedCopy(_)));
    let io = |action| match action {
        Action::FeedCopy(copy) => copy.io,
        other => panic!("{other:?}"),
    };
    taken.into_iter().map(io).collect()
}

/// Reads what goes into the stream; what is in it then, by its start.
fn inline(lane: &mut Lane) -> Vec<(u64, IoId)> {
    for io in lane.disk(DiskOp::Read) {
        lane.good(io.io);
    }
    let taken = lane.take(|a| matches!(a, Action::Feed(io) if io.op == Op::Write));
    let one = |action| match action {
        Action::Feed(io) => (io.range.start(), io.io),
        other => panic!("{other:?}"),
    };
    taken.into_iter().map(one).collect()
}

/// A region that is in the stream twice is there when the second has arrived: a write in between waits for that one.
#[test]
fn a_region_in_the_stream_twice_counts_when_both_have_arrived() {
    let mut lane = held();
    write(&mut lane, 0, 2 * UNIT);
    lane.engine.feed_online(FEED, &mut lane.out);
    let first = bulk(&mut lane);
    assert_eq!(first.len(), 1);
    // Both regions are spoilt, the first one twice: it is hot.
    write(&mut lane, 0, 512);
    write(&mut lane, 0, 512);
    write(&mut lane, UNIT, 512);
    lane.good(first[0]);
    let second = bulk(&mut lane);
    assert_eq!(second.len(), 1, "the second region is not hot yet");
    let once = inline(&mut lane);
    assert_eq!(once.len(), 1);
    assert_eq!(once[0].0, 0);
    // Over both regions, of which one is being copied: both are missed again.
    let last = write(&mut lane, UNIT - 512, 1024);
    let twice = inline(&mut lane);
    assert_eq!(twice.len(), 1, "the first region once more");
    assert_eq!(twice[0].0, 0);
    lane.good(second[0]);
    let other = inline(&mut lane);
    assert_eq!(other.len(), 1);
    assert_eq!(other[0].0, UNIT);
    lane.good(other[0].1);
    lane.good(once[0].1);
    assert_eq!(lane.result(last), None, "what it wrote has not arrived");
    lane.good(twice[0].1);
    assert_eq!(lane.result(last), Some(Ok(())));
    finish(lane);
}

fn ranges(lane: &mut Lane) -> Vec<(u64, u64, IoId)> {
    for io in lane.disk(DiskOp::Read) {
        lane.good(io.io);
    }
    let taken = lane.take(|a| matches!(a, Action::Feed(io) if io.op == Op::Write));
    let one = |action| match action {
        Action::Feed(io) => (io.range.start(), io.range.len(), io.io),
        other => panic!("{other:?}"),
    };
    taken.into_iter().map(one).collect()
}

/// Four regions are made hot; the copy that was spoilt is in the result.
fn spoil(lane: &mut Lane) -> IoId {
    write(lane, 0, 4 * UNIT);
    lane.engine.feed_online(FEED, &mut lane.out);
    let copies = bulk(lane);
    assert_eq!(copies.len(), 1);
    write(lane, 0, 4 * UNIT);
    write(lane, 0, 4 * UNIT);
    copies[0]
}

/// Hot neighbours enter the stream together; where some of them are in it once more, the others count when they have arrived.
#[test]
fn hot_neighbours_go_together() {
    let mut lane = held();
    let copy = spoil(&mut lane);
    lane.good(copy);
    assert_eq!(bulk(&mut lane), []);
    let all = ranges(&mut lane);
    assert_eq!((all.len(), all[0].0, all[0].1), (1, 0, 4 * UNIT));
    // The feed breaks down for what is held back in it: all of that is missing again but for what arrives.
    lane.engine.feed_behind(FEED, &mut lane.out);
    let waits = write(&mut lane, 2 * UNIT, 512);
    lane.engine.feed_resume(FEED, &mut lane.out);
    let again = ranges(&mut lane);
    assert_eq!((again.len(), again[0].0, again[0].1), (1, 2 * UNIT, UNIT));
    lane.good(all[0].2);
    assert_eq!(lane.engine.dirty_bytes(FEED), UNIT);
    assert_eq!(lane.result(waits), None);
    lane.good(again[0].2);
    assert_eq!(lane.engine.dirty_bytes(FEED), 0);
    assert_eq!(lane.result(waits), Some(Ok(())));
    finish(lane);
}

/// What nobody writes any more is copied like anything else.
#[test]
fn what_has_cooled_is_copied() {
    let mut lane = held();
    let copy = spoil(&mut lane);
    lane.engine.feed_behind(FEED, &mut lane.out);
    lane.good(copy);
    lane.engine.tick(2000, &mut lane.out);
    lane.engine.feed_resume(FEED, &mut lane.out);
    assert_eq!(ranges(&mut lane), []);
    let copies = bulk(&mut lane);
    assert_eq!(copies.len(), 1);
    lane.good(copies[0]);
    assert_eq!(lane.engine.dirty_bytes(FEED), 0);
    finish(lane);
}
