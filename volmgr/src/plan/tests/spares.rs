//! Tests of spare disks.

use super::*;
use crate::model::Pv;

fn mirror_and_spare() -> Group {
    let vg = group(&[20, 20, 20, 20]);
    let vg = set_spare(&vg, uuid(1), true).unwrap();
    let mut request = VolumeRequest::new("web", 8 * EXTENT_DEFAULT);
    request.mirrors = 1;
    let vg = create(&vg, &request).unwrap();
    assert!(vg.volumes[0].extent_runs().all(|(pv, _, _)| pv != uuid(1)));
    vg
}

fn disks(group: &Group, volume: usize) -> Vec<Uuid> {
    let of = &group.volumes[volume];
    of.plexes.iter().flat_map(|plex| of.pvs_of(plex)).collect()
}

#[test]
fn a_spare_disk_is_left_alone() {
    let vg = mirror_and_spare();
    // Three disks with 60 extents, 18 of them taken (each plex has a log).
    let largest = largest_volume(&vg, &VolumeRequest::new("big", 0)) / EXTENT_DEFAULT;
    assert!((30..60).contains(&largest), "{largest}");
    // Unless it is named.
    let mut request = VolumeRequest::new("named", EXTENT_DEFAULT);
    request.pvs = vec![uuid(1)];
    let named = create(&vg, &request).unwrap();
    assert_eq!(disks(&named, 1), [uuid(1)]);
    // A disk in use is not spare.
    let used = disks(&named, 0)[0];
    assert_eq!(
        set_spare(&vg, used, true),
        Err(PlanError::InUse {
            pv: used,
            volume: "web".to_owned()
        })
    );
    assert!(matches!(
        set_spare(&vg, uuid(9), true),
        Err(PlanError::NotFound { .. })
    ));
    let none = set_spare(&vg, uuid(1), false).unwrap();
    assert!(none.pvs.iter().all(|pv| !pv.spare));
}

#[test]
fn a_plex_goes_to_the_spare_disk() {
    let vg = mirror_and_spare();
    let lost = vg.volumes[0].plexes[0].subdisks[0].pv;
    let vg = mark_pv_missing(&vg, lost).unwrap();
    let number = vg.volumes[0].plexes[0].number;
    let new = Uuid::from_u128(77);
    let next = replace_by_spare(&vg, "web", number, new).unwrap();
    assert_eq!(check(&next), []);
    let plex = &next.volumes[0].plexes[2];
    assert_eq!(plex.replaces, Some(vg.volumes[0].plexes[0].uuid));
    assert!(plex.subdisks.iter().all(|subdisk| subdisk.pv == uuid(1)));
    let spare = |pv: &Pv| pv.spare;
    assert!(!next.pvs.iter().any(spare), "it is in use now");
    // Once is enough.
    assert!(matches!(
        replace_by_spare(&next, "web", number, Uuid::from_u128(78)),
        Err(PlanError::Exists { .. })
    ));
    let ready = set_log_valid(&next, "web", plex.number, true).unwrap();
    let ready = set_plex_state(&ready, "web", plex.number, PlexState::Active).unwrap();
    let done = finish_move(&ready, "web", plex.number).unwrap();
    assert_eq!(check(&done), []);
    assert!(done.volumes[0].extent_runs().all(|(pv, _, _)| pv != lost));
    // Nothing is spare: nothing is done.
    let none = set_spare(&vg, uuid(1), false).unwrap();
    assert!(matches!(
        replace_by_spare(&none, "web", number, new),
        Err(PlanError::Disks { pvs_have: 0, .. })
    ));
}
