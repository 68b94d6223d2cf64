//! How much of a resync is under way at a time.

use super::*;

const FEED: FeedId = FeedId(8);

fn copies(lane: &mut Lane) -> Vec<FeedCopy> {
    let taken = lane.take(|action| matches!(action, Action::FeedCopy(_)));
    let copy = |action| match action {
        Action::FeedCopy(copy) => copy,
        _ => unreachable!("taken as a copy"),
    };
    taken.into_iter().map(copy).collect()
}

/// Each copy waits for the sink to make it durable. Were there room for a few only, scattered regions would take a flush for a few each.
#[test]
fn scattered_regions_are_all_under_way() {
    let mut lane = Lane::new(layout(1, &[FeedMode::Async]));
    for region in (0..SIZE / UNIT).step_by(2) {
        lane.ask(Op::Write, region * UNIT, 512);
    }
    lane.logged();
    for io in lane.disk(DiskOp::Write) {
        lane.good(io.io);
    }
    lane.engine.feed_online(FEED, &mut lane.out);
    let under_way = copies(&mut lane);
    assert_eq!(under_way.len() as u64, SIZE / UNIT / 2);
    assert!(under_way.iter().all(|copy| copy.range.len() == UNIT));
    finish(lane);
}

#[test]
fn bytes_under_way_are_bounded() {
    let config = EngineConfig {
        bulk_bytes: 2 * UNIT,
        max_bulk_in_flight: 8 * UNIT,
        ..EngineConfig::default()
    };
    let mut lane = Lane::with(layout(1, &[FeedMode::Async]), config);
    lane.engine.set_all_dirty(FEED, &mut lane.out);
    lane.logged();
    lane.engine.feed_online(FEED, &mut lane.out);
    let first = copies(&mut lane);
    assert_eq!(first.len(), 4);
    assert!(copies(&mut lane).is_empty());
    for (done, copy) in (1..).zip(&first) {
        lane.good(copy.io);
        assert_eq!(
            copies(&mut lane).len(),
            1,
            "for the one that is done: {done}"
        );
    }
    assert_eq!(lane.engine.dirty_bytes(FEED), SIZE - 4 * 2 * UNIT);
    finish(lane);
}
