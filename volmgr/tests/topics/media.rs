//! Latent read errors: served from another plex, rewritten, counted; too many retire the plex.

use super::*;

fn tolerant(max_read_errors: u32) -> EngineConfig {
    EngineConfig {
        max_read_errors,
        ..EngineConfig::default()
    }
}

/// Lets a read fail at the plex that is asked first; the others serve it. Which plex that was.
fn failing_read(lane: &mut Lane, start: u64) -> PlexId {
    let read = lane.ask(Op::Read, start, 512);
    let first = lane.disk(DiskOp::Read);
    assert_eq!(first.len(), 1);
    lane.answer(first[0].io, medium());
    let again = lane.disk(DiskOp::Read);
    assert_eq!(again.len(), 1, "another plex is asked");
    assert_ne!(again[0].at.disk, first[0].at.disk);
    lane.good(again[0].io);
    assert_eq!(lane.result(read), Some(Ok(())), "the client sees nothing");
    PlexId(first[0].at.disk.0)
}

/// Answers the repair of what could not be read; true where there was one.
fn repaired(lane: &mut Lane) -> bool {
    let reads = lane.disk(DiskOp::Read);
    for io in &reads {
        lane.good(io.io);
    }
    let writes = lane.disk(DiskOp::Write);
    for io in &writes {
        lane.good(io.io);
    }
    !writes.is_empty()
}

fn retired(lane: &mut Lane) -> Option<u32> {
    let notes = lane.take(|a| matches!(a, Action::Note(Note::PlexRetired { .. })));
    notes.into_iter().find_map(|note| match note {
        Action::Note(Note::PlexRetired { errors, .. }) => Some(errors),
        _ => None,
    })
}

#[test]
fn a_bad_sector_is_rewritten_and_counted() {
    let mut lane = Lane::new(layout(2, &[]));
    let bad = failing_read(&mut lane, 0);
    assert!(repaired(&mut lane));
    let media = lane.engine.plex_media(bad);
    assert_eq!((media.read_errors, media.repairs), (1, 1));
    let other = lane.engine.plex_media(PlexId(1 - bad.0));
    assert_eq!((other.read_errors, other.repairs), (0, 0));
    assert_eq!(lane.engine.plex_state(bad), Some(PlexState::Active));
    finish(lane);
}

#[test]
fn a_plex_with_too_many_errors_is_retired() {
    let mut lane = Lane::with(layout(2, &[]), tolerant(3));
    let bad = failing_read(&mut lane, 0);
    assert!(repaired(&mut lane));
    for _ in 0..2 {
        assert_eq!(retired(&mut lane), None);
        // Always the same megabyte, so always the same plex first.
        assert_eq!(failing_read(&mut lane, 0), bad);
        repaired(&mut lane);
    }
    assert_eq!(retired(&mut lane), Some(3));
    assert_eq!(lane.engine.plex_state(bad), Some(PlexState::Failed));
    let commits = lane.take(|a| matches!(a, Action::CommitPlexState { .. }));
    assert!(matches!(
        commits[..],
        [Action::CommitPlexState { plex, state: PlexState::Failed, .. }] if plex == bad
    ));
    // A write is not acknowledged before the metadata says so.
    let write = lane.ask(Op::Write, 0, 512);
    lane.logged();
    let writes = lane.disk(DiskOp::Write);
    assert_eq!(writes.len(), 1, "the good plex only");
    lane.good(writes[0].io);
    assert_eq!(lane.result(write), None);
    if let Action::CommitPlexState { io, .. } = commits[0] {
        lane.good(io);
    }
    assert_eq!(lane.result(write), Some(Ok(())));
    finish(lane);
}

#[test]
fn the_last_good_plex_is_not_retired() {
    // The other one fails reads, too: each may have what the other has not.
    let mut lane = Lane::with(layout(2, &[]), tolerant(2));
    let first = failing_read(&mut lane, 0);
    repaired(&mut lane);
    // While the first plex is busy, the other one is asked.
    let busy = lane.ask(Op::Read, 0, 512);
    let held = lane.disk(DiskOp::Read);
    let second = failing_read(&mut lane, 0);
    assert_ne!(first, second);
    lane.good(held[0].io);
    assert_eq!(lane.result(busy), Some(Ok(())));
    repaired(&mut lane);
    for _ in 0..10 {
        failing_read(&mut lane, 0);
        repaired(&mut lane);
    }
    assert_eq!(retired(&mut lane), None);
    for plex in [first, second] {
        assert_eq!(lane.engine.plex_state(plex), Some(PlexState::Active));
    }
    finish(lane);
    // A lone one.
    let mut lane = Lane::with(layout(1, &[]), tolerant(1));
    for _ in 0..3 {
        let read = lane.ask(Op::Read, 0, 512);
        let io = lane.disk(DiskOp::Read);
        lane.answer(io[0].io, medium());
        assert_eq!(lane.result(read), Some(medium()));
    }
    assert_eq!(retired(&mut lane), None);
    assert_eq!(lane.engine.plex_state(PlexId(0)), Some(PlexState::Active));
    finish(lane);
}

#[test]
fn errors_of_long_ago_do_not_count_and_never_may_be_asked_for() {
    let hour = 3_600_000;
    let mut lane = Lane::with(layout(2, &[]), tolerant(3));
    let mut bad = PlexId(9);
    for n in 1..20 {
        bad = failing_read(&mut lane, 0);
        repaired(&mut lane);
        lane.engine.tick(n * 2 * hour, &mut lane.out);
        repaired(&mut lane);
    }
    assert_eq!(retired(&mut lane), None);
    assert_eq!(lane.engine.plex_media(bad).read_errors, 0);
    assert_eq!(lane.engine.plex_media(bad).repairs, 19);
    finish(lane);
    let mut lane = Lane::with(layout(2, &[]), tolerant(0));
    for _ in 0..200 {
        failing_read(&mut lane, 0);
        repaired(&mut lane);
    }
    assert_eq!(retired(&mut lane), None);
    finish(lane);
}

/// A comparison that meets a bad sector says so, and the sector is rewritten for the next one.
#[test]
fn a_comparison_mends_what_one_plex_cannot_read() {
    let mut lane = Lane::new(layout(2, &[]));
    let request = |ticket, len| Request {
        ticket: Ticket::new(ticket),
        op: Op::Read,
        range: ByteRange::new(0, len),
        flags: Flags::empty(),
        payload: Some(PayloadId(1)),
        origin: Origin::Internal,
    };
    let both = vec![PlexId(0), PlexId(1)];
    // In a long range only the sector is to be rewritten, not what else is there.
    lane.engine
        .read_plexes(request(1, 2 * UNIT), both.clone(), &mut lane.out);
    let reads = lane.disk(DiskOp::Read);
    lane.good(reads[0].io);
    lane.answer(reads[1].io, medium());
    assert_eq!(lane.result(1), Some(medium()));
    assert!(!repaired(&mut lane));
    lane.engine
        .read_plexes(request(2, UNIT), both, &mut lane.out);
    let reads = lane.disk(DiskOp::Read);
    lane.good(reads[0].io);
    lane.answer(reads[1].io, medium());
    assert_eq!(lane.result(2), Some(medium()));
    assert!(repaired(&mut lane));
    assert_eq!(lane.engine.plex_media(PlexId(1)).repairs, 1);
    finish(lane);
}
