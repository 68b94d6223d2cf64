//! Disks that were given up, and are back; volumes that are about to become sinks.

use super::*;

/// The commit of a plex's state that the engine asks for.
fn commit(lane: &mut Lane) -> (IoId, PlexId, PlexState) {
    let asked = lane.take(|a| matches!(a, Action::CommitPlexState { .. }));
    match asked[..] {
        [
            Action::CommitPlexState {
                io, plex, state, ..
            },
        ] => (io, plex, state),
        ref other => panic!("{other:?}"),
    }
}

/// As metadata has it whose commit could not be written to the second plex's disk.
fn disk_given_up(state: PlexState) -> VolumeLayout {
    let mut layout = layout(2, &[]);
    layout.plexes[1].state = state;
    layout
}

#[test]
fn a_plex_whose_disk_was_given_up_and_is_back_catches_up() {
    let mut lane = Lane::new(layout(2, &[]));
    let before = lane.ask(Op::Write, 0, 512);
    lane.logged();
    for io in lane.disk(DiskOp::Write) {
        lane.good(io.io);
    }
    assert_eq!(lane.result(before), Some(Ok(())));
    let given_up = disk_given_up(PlexState::Stale);
    lane.engine.reconfigure(given_up, &mut lane.out).unwrap();
    let (io, plex, state) = commit(&mut lane);
    assert_eq!((plex, state), (PlexId(1), PlexState::Stale));
    // What was written before may be lost there.
    assert_eq!(lane.engine.plex_dirty_bytes(plex), UNIT);
    // Nothing that it misses is acknowledged before the metadata says so for certain.
    let after = lane.ask(Op::Write, 8 * UNIT, 512);
    lane.logged();
    for io in lane.disk(DiskOp::Write) {
        lane.good(io.io);
    }
    assert_eq!(lane.result(after), None);
    lane.good(io);
    assert_eq!(lane.result(after), Some(Ok(())));
    for op in [DiskOp::Read, DiskOp::Write, DiskOp::Flush] {
        for io in lane.disk(op) {
            lane.good(io.io);
        }
        lane.logged();
    }
    let (io, plex, state) = commit(&mut lane);
    assert_eq!((plex, state), (PlexId(1), PlexState::Active));
    lane.good(io);
    assert_eq!(lane.engine.plex_state(plex), Some(PlexState::Active));
    finish(lane);
}

#[test]
fn a_disk_that_is_back_with_other_content_is_filled_anew() {
    let mut lane = Lane::new(layout(2, &[]));
    let other = disk_given_up(PlexState::Empty);
    lane.engine.reconfigure(other, &mut lane.out).unwrap();
    let (_, plex, state) = commit(&mut lane);
    assert_eq!((plex, state), (PlexId(1), PlexState::Empty));
    assert_eq!(lane.engine.plex_dirty_bytes(plex), SIZE);
    finish(lane);
}

#[test]
fn the_last_plex_in_service_stays_whatever_the_metadata_says() {
    let mut lane = Lane::new(layout(2, &[]));
    let write = lane.ask(Op::Write, 0, 512);
    lane.logged();
    let io = lane.disk(DiskOp::Write);
    lane.answer(io[0].io, medium());
    lane.good(io[1].io);
    let (failed, plex, state) = commit(&mut lane);
    assert_eq!((plex, state), (PlexId(0), PlexState::Failed));
    let given_up = disk_given_up(PlexState::Stale);
    lane.engine.reconfigure(given_up, &mut lane.out).unwrap();
    let (io, plex, state) = commit(&mut lane);
    assert_eq!((plex, state), (PlexId(1), PlexState::Active));
    lane.good(io);
    lane.good(failed);
    assert_eq!(lane.result(write), Some(Ok(())));
    finish(lane);
}

#[test]
fn a_frozen_volume_takes_writes_of_feeds_only() {
    let mut lane = Lane::new(layout(1, &[]));
    lane.engine.freeze();
    lane.engine.freeze();
    let read_only = Some(Err(IoError::new(IoErrorKind::ReadOnly)));
    let refused = lane.ask(Op::Write, 0, 512);
    assert_eq!(lane.result(refused), read_only);
    let flags = Flags::empty();
    let fed = lane.request(Op::Write, 0, 512, flags, Origin::Feed);
    let io = lane.disk(DiskOp::Write)[0].io;
    lane.good(io);
    assert_eq!(lane.result(fed), Some(Ok(())));
    // Whoever else has frozen it still wants it so.
    lane.engine.thaw();
    let refused = lane.ask(Op::Discard, 0, 512);
    assert_eq!(lane.result(refused), read_only);
    lane.engine.thaw();
    lane.ask(Op::Write, 0, 512);
    assert_eq!(lane.disk(DiskOp::Write).len(), 1);
    finish(lane);
}

/// Of the log there is nothing but the other copy, as long as that of the plex that has come back is being filled: a crash
/// after the failure of the other plex would begin with what nobody keeps up any more.
#[test]
fn a_plex_is_in_step_when_its_log_is() {
    let mut lane = Lane::new(layout(2, &[]));
    let write = lane.ask(Op::Write, 0, 512);
    lane.logged();
    for io in lane.disk(DiskOp::Write) {
        lane.good(io.io);
    }
    assert_eq!(lane.result(write), Some(Ok(())));
    // Taken off with its log; back, and its log, which has been formatted, too.
    let mut off = disk_given_up(PlexState::Offline);
    let log = off.log.pop();
    lane.engine.reconfigure(off, &mut lane.out).unwrap();
    let mut back = disk_given_up(PlexState::Stale);
    assert_eq!(back.log.pop(), log);
    back.log.extend(log);
    lane.engine.reconfigure(back, &mut lane.out).unwrap();
    let filling =
        lane.take(|a| matches!(a, Action::Log(io) if Some(io.at.disk) == log.map(|l| l.disk)));
    assert!(!filling.is_empty());
    for _ in 0..8 {
        for op in [DiskOp::Read, DiskOp::Write, DiskOp::Flush] {
            for io in lane.disk(op) {
                lane.good(io.io);
            }
        }
        let others =
            lane.take(|a| matches!(a, Action::Log(io) if Some(io.at.disk) != log.map(|l| l.disk)));
        for action in others {
            let Action::Log(io) = action else { continue };
            lane.good(io.io);
        }
    }
    assert_eq!(lane.engine.plex_dirty_bytes(PlexId(1)), 0);
    let asked = lane.take(|a| matches!(a, Action::CommitPlexState { .. }));
    assert!(asked.is_empty(), "{asked:?}");
    for action in filling {
        let Action::Log(io) = action else { continue };
        lane.good(io.io);
    }
    lane.logged();
    let (_, plex, state) = commit(&mut lane);
    assert_eq!((plex, state), (PlexId(1), PlexState::Active));
}

/// While a write that has failed on the last active plex is still under way on one that is being filled, that one
/// would become active with other content, and nobody would copy it again.
#[test]
fn a_write_that_failed_keeps_a_plex_from_becoming_active() {
    let mut lane = Lane::new(layout(2, &[]));
    let stale = disk_given_up(PlexState::Stale);
    lane.engine.reconfigure(stale, &mut lane.out).unwrap();
    let (io, plex, _) = commit(&mut lane);
    lane.good(io);
    // It misses one region.
    let before = lane.ask(Op::Write, 0, 512);
    lane.logged();
    for op in [DiskOp::Write, DiskOp::Read, DiskOp::Write] {
        for io in lane.disk(op) {
            lane.good(io.io);
        }
    }
    assert_eq!(lane.result(before), Some(Ok(())));
    let (active, ..) = commit(&mut lane);
    let write = lane.ask(Op::Write, 0, 512);
    lane.logged();
    let writes = lane.disk(DiskOp::Write);
    assert_eq!(writes.len(), 2);
    lane.answer(writes[0].io, medium());
    lane.good(active);
    assert_eq!(lane.engine.plex_state(plex), Some(PlexState::Stale));
    let (back, _, state) = commit(&mut lane);
    assert_eq!(state, PlexState::Stale);
    lane.good(writes[1].io);
    lane.good(back);
    assert_eq!(lane.result(write), Some(medium()));
    assert_eq!(lane.engine.plex_dirty_bytes(plex), UNIT);
    finish(lane);
}

/// Takes the second plex out of service and brings it back: it is active, and has everything.
fn away_and_back(lane: &mut Lane, plex: PlexId) {
    let state = |state| {
        let mut layout = layout(2, &[]);
        layout.plexes[plex.0 as usize].state = state;
        layout
    };
    for there in [PlexState::Offline, PlexState::Stale] {
        lane.engine
            .reconfigure(state(there), &mut lane.out)
            .unwrap();
    }
    for _ in 0..8 {
        for op in [DiskOp::Write, DiskOp::Flush] {
            for io in lane.disk(op) {
                lane.good(io.io);
            }
        }
        lane.logged();
        lane.engine.tick(10_000, &mut lane.out);
        for action in lane.take(|a| matches!(a, Action::CommitPlexState { .. })) {
            if let Action::CommitPlexState { io, .. } = action {
                lane.good(io);
            }
        }
    }
    assert_eq!(lane.engine.plex_state(plex), Some(PlexState::Active));
}

#[test]
fn a_late_answer_of_a_plex_that_was_away_meanwhile_does_not_count() {
    let mut lane = Lane::new(layout(2, &[]));
    let read = lane.ask(Op::Read, 0, 512);
    let late = lane.disk(DiskOp::Read);
    assert_eq!(late.len(), 1);
    let plex = PlexId(late[0].at.disk.0);
    away_and_back(&mut lane, plex);
    // It may be of before its cache lost what it had.
    lane.good(late[0].io);
    assert_eq!(lane.result(read), None);
    assert_eq!(lane.engine.plex_media(plex).read_errors, 0);
    let again = lane.disk(DiskOp::Read);
    assert_eq!(again.len(), 1, "read again");
    lane.good(again[0].io);
    assert_eq!(lane.result(read), Some(Ok(())));
    finish(lane);
}

#[test]
fn a_plex_that_was_tried_before_it_was_away_is_tried_again() {
    let mut lane = Lane::new(layout(2, &[]));
    let read = lane.ask(Op::Read, 0, 512);
    let first = lane.disk(DiskOp::Read)[0];
    lane.answer(first.io, medium());
    let second = lane.disk(DiskOp::Read)[0];
    assert_ne!(first.at.disk, second.at.disk);
    away_and_back(&mut lane, PlexId(first.at.disk.0));
    lane.answer(second.io, medium());
    let third = lane.disk(DiskOp::Read);
    assert_eq!(third.len(), 1, "the one that has it now is asked");
    assert_eq!(third[0].at.disk, first.at.disk);
    lane.good(third[0].io);
    assert_eq!(lane.result(read), Some(Ok(())));
    finish(lane);
}
