//! A volume that is being filled, and feeds that copy it.

use super::*;

const FEED: FeedId = FeedId(8);

fn notes(lane: &mut Lane) -> Vec<Note> {
    let notes = lane.take(|a| matches!(a, Action::Note(_)));
    let note = |action| match action {
        Action::Note(note) => note,
        other => panic!("{other:?}"),
    };
    notes.into_iter().map(note).collect()
}

fn filled(mode: FeedMode, whole: bool) -> Lane {
    Lane::new(VolumeLayout {
        fed: true,
        whole,
        ..layout(1, &[mode])
    })
}

/// A write of the feed that fills the volume, done on the disk.
fn comes(lane: &mut Lane, start: u64) -> u64 {
    let write = lane.request(Op::Write, start, 512, Flags::empty(), Origin::Feed);
    lane.logged();
    let io = lane.disk(DiskOp::Write)[0].io;
    lane.good(io);
    write
}

#[test]
fn what_is_half_done_is_not_passed_on_as_consistent() {
    let mut lane = filled(FeedMode::Async, false);
    lane.engine.feed_online(FEED, &mut lane.out);
    assert_eq!(notes(&mut lane), [], "it misses nothing, of nothing whole");
    lane.engine.set_whole(true, &mut lane.out);
    assert_eq!(notes(&mut lane), [Note::FeedCaughtUp { feed: FEED }]);
    // A resync begins: its sink must hear first that what follows has no order.
    lane.engine.set_whole(false, &mut lane.out);
    assert_eq!(notes(&mut lane), [Note::FeedBehind { feed: FEED }]);
    let write = comes(&mut lane, 0);
    assert_eq!(lane.result(write), Some(Ok(())));
    assert!(lane.take(|a| matches!(a, Action::Feed(_))).is_empty());
    lane.engine.feed_resume(FEED, &mut lane.out);
    let copies = lane.take(|a| matches!(a, Action::FeedCopy(_)));
    let [Action::FeedCopy(copy)] = &copies[..] else {
        panic!("{copies:?}");
    };
    lane.good(copy.io);
    assert_eq!(notes(&mut lane), []);
    lane.engine.set_whole(true, &mut lane.out);
    assert_eq!(notes(&mut lane), [Note::FeedCaughtUp { feed: FEED }]);
}

#[test]
fn a_sync_feed_does_not_hold_back_what_makes_the_volume_whole() {
    let mut lane = filled(FeedMode::Sync, true);
    lane.engine.feed_online(FEED, &mut lane.out);
    lane.engine.set_whole(false, &mut lane.out);
    let write = comes(&mut lane, 0);
    assert_eq!(lane.result(write), None, "the sink is behind, not gone");
    lane.engine.feed_resume(FEED, &mut lane.out);
    let copies = lane.take(|a| matches!(a, Action::FeedCopy(_)));
    let [Action::FeedCopy(copy)] = &copies[..] else {
        panic!("{copies:?}");
    };
    lane.good(copy.io);
    assert_eq!(lane.result(write), Some(Ok(())));
}

#[test]
fn a_write_that_fails_leaves_a_hole_in_the_order() {
    let mut lane = filled(FeedMode::Async, true);
    lane.engine.feed_online(FEED, &mut lane.out);
    assert_eq!(notes(&mut lane), [Note::FeedCaughtUp { feed: FEED }]);
    let write = lane.request(Op::Write, 0, 512, Flags::empty(), Origin::Feed);
    lane.logged();
    let io = lane.disk(DiskOp::Write)[0].io;
    lane.answer(io, medium());
    assert_eq!(lane.result(write), Some(medium()));
    assert!(notes(&mut lane).contains(&Note::FeedBehind { feed: FEED }));
    for action in lane.take(|a| matches!(a, Action::Feed(_))) {
        let Action::Feed(io) = action else { continue };
        lane.good(io.io);
    }
    lane.engine.feed_resume(FEED, &mut lane.out);
    for action in lane.take(|a| matches!(a, Action::FeedCopy(_))) {
        let Action::FeedCopy(copy) = action else {
            continue;
        };
        lane.good(copy.io);
    }
    assert_eq!(lane.engine.dirty_bytes(FEED), 0);
    assert_eq!(notes(&mut lane), []);
    // Metadata that do not know better leave it so; those that say that all is well do not.
    let settled = |whole| VolumeLayout {
        fed: true,
        whole,
        ..layout(1, &[FeedMode::Async])
    };
    lane.engine
        .reconfigure(settled(false), &mut lane.out)
        .unwrap();
    assert_eq!(notes(&mut lane), []);
    lane.engine
        .reconfigure(settled(true), &mut lane.out)
        .unwrap();
    assert_eq!(notes(&mut lane), [Note::FeedCaughtUp { feed: FEED }]);
}
