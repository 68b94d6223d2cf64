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
