//! Tests of plexes that come, go and move.

use super::*;

#[test]
fn plexes_come_and_go() {
    let vg = create(&group(&[10, 10]), &VolumeRequest::new("web", 8 * MIB)).unwrap();
    let two = attach_plex(&vg, "web", Layout::Concat, &[], uuid(5000)).unwrap();
    assert_eq!(check(&two), []);
    let plex = &two.volumes[0].plexes[1];
    assert_eq!(
        (plex.number, plex.state, plex.map_slot),
        (1, PlexState::Syncing, 2)
    );
    assert!(!two.volumes[0].log[1].valid);
    let error = attach_plex(&two, "web", Layout::Concat, &[], uuid(5001)).unwrap_err();
    assert!(matches!(error, PlanError::Disks { pvs_have: 0, .. }));
    // Plex 0 stays as long as the other is not active and has no valid log.
    let error = detach_plex(&two, "web", 0).unwrap_err();
    assert!(matches!(error, PlanError::LastActivePlex { .. }));
    // Nor does that become active before it has one: the first would have the last log, and might fail.
    let error = set_plex_state(&two, "web", 1, PlexState::Active).unwrap_err();
    assert!(matches!(error, PlanError::LogNotValid { .. }));
    let two = set_log_valid(&two, "web", 1, true).unwrap();
    let two = set_plex_state(&two, "web", 1, PlexState::Active).unwrap();
    let alone = set_log_valid(&two, "web", 1, false).unwrap();
    let error = detach_plex(&alone, "web", 0).unwrap_err();
    assert!(matches!(error, PlanError::LastLog { .. }));
    let one = detach_plex(&two, "web", 0).unwrap();
    assert_eq!(check(&one), []);
    assert_eq!(one.volumes[0].plexes[0].number, 1);
    // Numbers are not given again, slots are.
    let again = attach_plex(&one, "web", Layout::Concat, &[], uuid(5002)).unwrap();
    let again = set_log_valid(&again, "web", 2, true).unwrap();
    let again = set_plex_state(&again, "web", 2, PlexState::Active).unwrap();
    let again = detach_plex(&again, "web", 2).unwrap();
    let again = attach_plex(&again, "web", Layout::Concat, &[], uuid(5003)).unwrap();
    assert_eq!(check(&again), []);
    let third = &again.volumes[0].plexes[1];
    assert_eq!((third.number, third.map_slot), (3, 1));
    // A plex that is taken off takes its log copy along.
    let off = set_plex_state(&two, "web", 1, PlexState::Offline).unwrap();
    assert!(!off.volumes[0].log[1].valid && off.volumes[0].log[0].valid);
    let error = set_plex_state(&one, "web", 1, PlexState::Stale).unwrap_err();
    assert!(matches!(error, PlanError::LastActivePlex { .. }));
    let error = set_plex_state(&off, "web", 1, PlexState::Empty).unwrap_err();
    assert!(matches!(error, PlanError::Transition { .. }));
}

/// Its commit may have been on the way when another one gave up a disk.
#[test]
fn a_plex_without_all_of_its_disks_does_not_become_active() {
    let vg = create(&group(&[10, 10, 10]), &VolumeRequest::new("web", 8 * MIB)).unwrap();
    let other = vg.volumes[0].plexes[0].subdisks[0].pv;
    let striped = Layout::Striped {
        columns: 2,
        stripe_size: 65536,
    };
    let two = attach_plex(&vg, "web", striped, &[], uuid(5000)).unwrap();
    let two = set_log_valid(&two, "web", 1, true).unwrap();
    let two = set_plex_state(&two, "web", 1, PlexState::Stale).unwrap();
    // The one that its log is not on.
    let log = two.volumes[0].log[1].pv;
    let pvs = two.volumes[0].pvs_of(&two.volumes[0].plexes[1]);
    let away = pvs.into_iter().find(|pv| *pv != log).unwrap();
    assert_ne!(away, other);
    let without = mark_pv_missing(&two, away).unwrap();
    let error = set_plex_state(&without, "web", 1, PlexState::Active).unwrap_err();
    assert!(matches!(error, PlanError::DiskMissing { .. }));
    let back = mark_pv_returned(&without, away, "disk").unwrap();
    set_plex_state(&back, "web", 1, PlexState::Active).unwrap();
}

#[test]
fn a_plex_that_misses_something_keeps_its_log() {
    let vg = create(&group(&[10, 10]), &VolumeRequest::new("web", 8 * MIB)).unwrap();
    let two = attach_plex(&vg, "web", Layout::Concat, &[], uuid(5000)).unwrap();
    let two = set_log_valid(&two, "web", 1, true).unwrap();
    let two = set_plex_state(&two, "web", 1, PlexState::Active).unwrap();
    // The engine goes on writing the log of a plex that only misses something.
    let back = set_plex_state(&two, "web", 1, PlexState::Stale).unwrap();
    let again = set_plex_state(&back, "web", 1, PlexState::Active).unwrap();
    // So the other one's is not the last, which would have to stay though nobody keeps it up.
    let failed = set_plex_state(&again, "web", 0, PlexState::Failed).unwrap();
    let valid: Vec<bool> = failed.volumes[0].log.iter().map(|l| l.valid).collect();
    assert_eq!(valid, [false, true]);
}

#[test]
fn a_plex_moves_off_a_disk() {
    let mut vg = group(&[20, 20, 20]);
    let mut request = VolumeRequest::new("web", 8 * EXTENT_DEFAULT);
    request.mirrors = 1;
    let mut uuids = (0..).map(|i| Uuid::from_u128(10_000 + i));
    vg = create_volume(&vg, &request, &mut || uuids.next().unwrap()).unwrap();
    let number = vg.volumes[0].plexes[0].number;
    let from = vg.volumes[0].plexes[0].subdisks[0].pv;
    let other = vg.volumes[0].plexes[1].subdisks[0].pv;
    let new = Uuid::from_u128(77);
    let moving = begin_move(&vg, "web", number, from, &[], new).unwrap();
    assert_eq!(check(&moving), []);
    let plex = moving.volumes[0].plexes[2].clone();
    assert_eq!(plex.replaces, Some(vg.volumes[0].plexes[0].uuid));
    // Neither where it is to leave nor where the other copy is.
    assert!(plex.subdisks.iter().all(|s| s.pv != from && s.pv != other));
    assert!(matches!(
        begin_move(&moving, "web", number, from, &[], Uuid::from_u128(78)),
        Err(PlanError::Exists { .. })
    ));
    // Not before it is in step.
    assert!(matches!(
        finish_move(&moving, "web", plex.number),
        Err(PlanError::Transition { .. })
    ));
    let ready = set_log_valid(&moving, "web", plex.number, true).unwrap();
    let ready = set_plex_state(&ready, "web", plex.number, PlexState::Active).unwrap();
    let done = finish_move(&ready, "web", plex.number).unwrap();
    assert_eq!(check(&done), []);
    assert_eq!(done.volumes[0].plexes.len(), 2);
    assert!(done.volumes[0].plexes.iter().all(|p| p.replaces.is_none()));
    assert!(done.volumes[0].extent_runs().all(|(pv, _, _)| pv != from));
    // Given up: as it was, but for the number that is not given again.
    let given_up = detach_plex(&moving, "web", plex.number).unwrap();
    assert_eq!(given_up.volumes[0].plexes, vg.volumes[0].plexes);
    // The plex that was to leave goes by hand: the new one is one like any other.
    let by_hand = detach_plex(&ready, "web", number).unwrap();
    assert!(
        by_hand.volumes[0]
            .plexes
            .iter()
            .all(|p| p.replaces.is_none())
    );
    assert_eq!(check(&by_hand), []);
}

#[test]
fn a_plex_may_stay_on_its_other_disks_when_it_moves() {
    let mut vg = group(&[10, 30]);
    let mut uuids = (0..).map(|i| Uuid::from_u128(10_000 + i));
    let request = VolumeRequest::new("web", 8 * EXTENT_DEFAULT);
    vg = create_volume(&vg, &request, &mut || uuids.next().unwrap()).unwrap();
    let first = vg.volumes[0].plexes[0].subdisks[0].pv;
    let extended = extend_volume(&vg, "web", 14 * EXTENT_DEFAULT, &[])
        .unwrap()
        .group;
    let pvs = extended.volumes[0].pvs_of(&extended.volumes[0].plexes[0]);
    assert_eq!(pvs.len(), 2, "it is on both disks");
    let moving = begin_move(&extended, "web", 0, first, &[], Uuid::from_u128(77)).unwrap();
    assert_eq!(check(&moving), []);
    let plex = &moving.volumes[0].plexes[1];
    assert!(plex.subdisks.iter().all(|s| s.pv != first));
}

#[test]
fn a_missing_disk_makes_its_plex_stale_unless_it_is_the_last() {
    let mut request = VolumeRequest::new("m", MIB);
    request.mirrors = 1;
    let vg = create(&group(&[10, 10]), &request).unwrap();
    let vg = set_plex_state(&vg, "m", 1, PlexState::Active).unwrap();
    let on = |group: &Group, index: usize| group.volumes[0].plexes[index].subdisks[0].pv;
    let lost = mark_pv_missing(&vg, on(&vg, 0)).unwrap();
    assert_eq!(lost.volumes[0].plexes[0].state, PlexState::Stale);
    assert!(!lost.volumes[0].log[0].valid);
    let both = mark_pv_missing(&lost, on(&vg, 1)).unwrap();
    assert_eq!(both.volumes[0].plexes[1].state, PlexState::Active);
    let ids = |_| Some(DiskId(0));
    assert!(matches!(
        layout(&both, &both.volumes[0], ids),
        Err(LayoutError::DiskAbsent { plex: 1, .. })
    ));
    let resolved = layout(&lost, &lost.volumes[0], ids).unwrap();
    assert_eq!(resolved.plexes[0].map, []);
    assert_eq!(resolved.log.len(), 1);
    let back = mark_pv_returned(&lost, on(&vg, 0), "/dev/x").unwrap();
    assert_eq!(back.volumes[0].plexes[0].state, PlexState::Stale);
    let emptied = revive_plexes(&back, on(&vg, 0), true);
    assert_eq!(emptied.volumes[0].plexes[0].state, PlexState::Empty);
    // Never the one that the volume lives on.
    let untouched = revive_plexes(&back, on(&vg, 1), true);
    assert_eq!(untouched, back);
    let failed = set_plex_state(&vg, "m", 0, PlexState::Failed).unwrap();
    let revived = revive_plexes(&failed, on(&vg, 0), false);
    assert_eq!(revived.volumes[0].plexes[0].state, PlexState::Stale);
    assert!(matches!(
        reduce_group(&vg, &[on(&vg, 0)]),
        Err(PlanError::InUse { .. })
    ));
}
