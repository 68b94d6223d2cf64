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

/// What is copied again while a flush for the first copy is under way is not covered by that flush: were the plex active then, a
/// power cut would leave it with something older.
#[test]
fn a_flush_does_not_cover_what_is_copied_again() {
    let away = |state| {
        let mut layout = layout(2, &[]);
        layout.plexes[1].state = state;
        layout
    };
    let mut lane = Lane::new(away(PlexState::Offline));
    lane.ask(Op::Write, 0, 512);
    lane.logged();
    for io in lane.disk(DiskOp::Write) {
        lane.good(io.io);
    }
    let copied = |lane: &mut Lane| {
        for op in [DiskOp::Read, DiskOp::Write] {
            let all = lane.disk(op);
            assert!(!all.is_empty(), "a copy is under way");
            all.iter().for_each(|io| lane.good(io.io));
        }
    };
    lane.engine
        .reconfigure(away(PlexState::Stale), &mut lane.out)
        .unwrap();
    copied(&mut lane);
    let flushes = lane.disk(DiskOp::Flush);
    assert_eq!(flushes.len(), 2, "of both plexes");
    // A write fails where everything is: the other plex misses that again, and it is copied again.
    let write = lane.ask(Op::Write, 0, 512);
    lane.logged();
    let writes = lane.disk(DiskOp::Write);
    assert_eq!(writes.len(), 2);
    lane.answer(writes[0].io, medium());
    lane.good(writes[1].io);
    assert_eq!(lane.result(write), Some(medium()));
    copied(&mut lane);
    flushes.iter().for_each(|io| lane.good(io.io));
    lane.logged();
    let active = |a: &Action| {
        matches!(
            a,
            Action::CommitPlexState {
                state: PlexState::Active,
                ..
            }
        )
    };
    assert!(lane.take(active).is_empty(), "not durable there yet");
    assert_eq!(lane.engine.plex_dirty_bytes(PlexId(1)), UNIT);
    lane.engine.tick(10_000, &mut lane.out);
    for io in lane.disk(DiskOp::Flush) {
        lane.good(io.io);
    }
    lane.logged();
    assert_eq!(lane.take(active).len(), 1);
    finish(lane);
}
