//! Tests of the planner: single cases, and random sequences checked after each step.

use super::*;
use crate::engine::{DiskId, Piece};
use crate::label::{AREA_MAX, EXTENT_DEFAULT, Geometry, Label};
use crate::model::{Direction, Feed, FeedIntent, FeedMode, Layout, check, check_change};
use proptest::prelude::*;

mod places;
mod plexes;
mod spares;
mod tags;

const MIB: u64 = 1 << 20;

fn uuid(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

fn new_pv(n: u128, extents: u64) -> NewPv {
    // Data start and areas cost something, too.
    let planned = |size| Geometry::plan(size, EXTENT_DEFAULT);
    let geometry = (extents..)
        .filter_map(|n| planned(n * EXTENT_DEFAULT).ok())
        .find(|g| g.extent_count == extents)
        .unwrap();
    NewPv {
        label: Label::new(uuid(n), &geometry),
        path: format!("/dev/disk{n}"),
    }
}

/// A group whose PVs 1, 2, … have so many extents of 4 MiB.
fn group(extents: &[u64]) -> Group {
    let pvs = extents
        .iter()
        .zip(1..)
        .map(|(e, n)| new_pv(n, *e))
        .collect();
    let group = create_group(uuid(100), "vg", EXTENT_DEFAULT, pvs).unwrap();
    for (pv, extents) in group.pvs.iter().zip(extents) {
        assert_eq!(pv.extent_count, *extents);
    }
    group
}

fn counter(mut next: u128) -> impl FnMut() -> Uuid {
    move || {
        next += 1;
        uuid(next)
    }
}

fn create(group: &Group, request: &VolumeRequest) -> Result<Group, PlanError> {
    let first = 1000 * (1 + group.volumes.len() as u128);
    let next = create_volume(group, request, &mut counter(first))?;
    assert_eq!(check(&next), []);
    Ok(next)
}

fn feed(n: u128) -> Feed {
    Feed {
        uuid: uuid(n),
        peer: format!("peer{n}"),
        peer_lv: "vg/lv".into(),
        direction: Direction::Out,
        role_epoch: 0,
        initiator: true,
        mode: FeedMode::Async,
        on_disconnect: Default::default(),
        intent: FeedIntent::Attached,
        consistent: false,
        settled: false,
        restore: None,
        full_speed: false,
        verify: Default::default(),
        peer_stamp: 0,
        rest_stamp: None,
        seeded: false,
        map_slot: 99,
        rate: 0,
        epochs: Vec::new(),
    }
}

#[test]
fn a_plain_volume() {
    let next = create(&group(&[10]), &VolumeRequest::new("web", 9 * MIB)).unwrap();
    let volume = next.volume("web").unwrap();
    assert_eq!(volume.extents, 3);
    assert_eq!(volume.plexes[0].subdisks.len(), 1);
    assert_eq!(volume.log.len(), 1);
    assert_eq!((volume.log[0].extents, volume.log[0].valid), (1, true));
    assert_eq!(next.extents_used(), 4);
    assert_eq!(Space::of(&next).free(), 6);
}

#[test]
fn mirrors_are_on_different_disks_or_refused() {
    let mut request = VolumeRequest::new("m", 8 * MIB);
    request.mirrors = 1;
    let next = create(&group(&[10, 10]), &request).unwrap();
    let plexes = &next.volumes[0].plexes;
    assert_ne!(plexes[0].subdisks[0].pv, plexes[1].subdisks[0].pv);
    assert_eq!(plexes[0].state, PlexState::Active);
    assert_eq!(plexes[1].state, PlexState::Syncing);
    let error = create(&group(&[10]), &request).unwrap_err();
    assert_eq!(
        error,
        PlanError::Disks {
            need: 12 * MIB,
            pvs_need: 2,
            pvs_have: 1
        }
    );
}

#[test]
fn a_mirror_is_spread_where_no_disk_holds_it_alone() {
    let mut request = VolumeRequest::new("m", 16 * EXTENT_DEFAULT);
    request.mirrors = 1;
    let next = create(&group(&[10, 10, 10, 10]), &request).unwrap();
    assert_eq!(next.volumes[0].plexes[1].subdisks.len(), 2);
    request.size = 21 * EXTENT_DEFAULT;
    let error = create(&group(&[10, 10, 10, 10]), &request).unwrap_err();
    assert!(matches!(error, PlanError::Space { .. }), "{error}");
}

#[test]
fn stripes_are_on_different_disks_or_refused() {
    let mut request = VolumeRequest::new("s", 7 * EXTENT_DEFAULT);
    request.stripes = 3;
    let next = create(&group(&[10, 10, 10]), &request).unwrap();
    let volume = &next.volumes[0];
    assert_eq!(volume.extents, 9);
    assert_eq!(volume.plexes[0].subdisks.len(), 3);
    let error = create(&group(&[10, 10]), &request).unwrap_err();
    let expected = PlanError::Disks {
        need: 4 * EXTENT_DEFAULT,
        pvs_need: 3,
        pvs_have: 2,
    };
    assert_eq!(error, expected);
    request.mirrors = 1;
    let error = create(&group(&[10; 5]), &request).unwrap_err();
    assert!(
        matches!(
            error,
            PlanError::Disks {
                pvs_need: 6,
                pvs_have: 5,
                ..
            }
        ),
        "{error}"
    );
    create(&group(&[10; 6]), &request).unwrap();
}

#[test]
fn wrong_requests_are_refused() {
    let vg = create(&group(&[10]), &VolumeRequest::new("web", MIB)).unwrap();
    let error = |request: &VolumeRequest| create(&vg, request).unwrap_err();
    assert!(matches!(
        error(&VolumeRequest::new("web", MIB)),
        PlanError::Exists { .. }
    ));
    assert!(matches!(
        error(&VolumeRequest::new("a/b", MIB)),
        PlanError::Name { .. }
    ));
    assert!(matches!(
        error(&VolumeRequest::new("x", 0)),
        PlanError::Value { .. }
    ));
    assert!(matches!(
        error(&VolumeRequest::new("x", 1 << 62)),
        PlanError::Space { .. }
    ));
    let mut request = VolumeRequest::new("x", MIB);
    request.pvs = vec![uuid(77)];
    assert!(matches!(error(&request), PlanError::NotFound { .. }));
    request = VolumeRequest::new("x", MIB);
    request.mirrors = 15;
    assert!(matches!(error(&request), PlanError::Value { .. }));
}

#[test]
fn a_volume_grows_in_place_and_is_cut_again() {
    let vg = create(&group(&[10]), &VolumeRequest::new("web", 8 * MIB)).unwrap();
    let grown = extend_volume(&vg, "web", 24 * MIB, &[]).unwrap();
    assert_eq!(check(&grown.group), []);
    assert!(!grown.log_moved);
    assert_eq!(grown.group.volumes[0].extents, 6);
    let cut = reduce_volume(&grown.group, "web", 8 * MIB).unwrap();
    assert_eq!(check(&cut), []);
    assert_eq!(cut.volumes[0].extents, 2);
    assert!(matches!(
        extend_volume(&vg, "web", 8 * MIB, &[]),
        Err(PlanError::Value { .. })
    ));
    assert!(matches!(
        extend_volume(&vg, "web", 400 * MIB, &[]),
        Err(PlanError::Space { .. })
    ));
}

#[test]
fn a_log_that_is_too_short_moves() {
    let mut request = VolumeRequest::new("web", 1 << 30);
    request.mirrors = 1;
    request.region_size = 4096;
    let vg = create(&group(&[3000, 3000]), &request).unwrap();
    let before = vg.volumes[0].log.clone();
    let grown = extend_volume(&vg, "web", 8 << 30, &[]).unwrap();
    assert_eq!(check(&grown.group), []);
    assert!(grown.log_moved);
    for (old, new) in before.iter().zip(&grown.group.volumes[0].log) {
        assert!(new.extents > old.extents);
        assert_eq!(new.pv, old.pv);
        // The old place is still in use until the commit.
        let overlap = new.pv_extent < old.pv_extent + old.extents
            && old.pv_extent < new.pv_extent + new.extents;
        assert!(!overlap);
    }
}

#[test]
fn all_the_space_can_be_used_and_no_more() {
    for (mirrors, stripes, extents) in [(0, 1, 29), (1, 1, 9), (0, 3, 27), (2, 1, 9)] {
        let vg = group(&[10, 10, 10]);
        let mut request = VolumeRequest::new("all", 0);
        request.mirrors = mirrors;
        request.stripes = stripes;
        let most = largest_volume(&vg, &request);
        let what = format!("-m {mirrors} -i {stripes}");
        assert!(most >= extents * EXTENT_DEFAULT, "{what}: {most}");
        request.size = most;
        create(&vg, &request).unwrap();
        request.size = most + 1;
        create(&vg, &request).unwrap_err();
    }
    let mut request = VolumeRequest::new("none", 0);
    request.mirrors = 1;
    assert_eq!(largest_volume(&group(&[10]), &request), 0);
}

#[test]
fn map_slots_run_out() {
    let mut vg = create(&group(&[10]), &VolumeRequest::new("web", MIB)).unwrap();
    for n in 0..14 {
        vg = add_feed(&vg, "web", feed(n)).unwrap();
        assert_eq!(vg.volumes[0].feeds.last().unwrap().map_slot, 2 + n as u32);
    }
    assert_eq!(check(&vg), []);
    assert!(matches!(
        add_feed(&vg, "web", feed(50)),
        Err(PlanError::Slots { .. })
    ));
    let vg = remove_feed(&vg, "web", uuid(3)).unwrap();
    let vg = add_feed(&vg, "web", feed(50)).unwrap();
    assert_eq!(vg.volumes[0].feeds.last().unwrap().map_slot, 5);
}

#[test]
fn a_layout_in_bytes() {
    let mut request = VolumeRequest::new("s", 8 * EXTENT_DEFAULT);
    request.stripes = 2;
    let vg = create(&group(&[10, 10]), &request).unwrap();
    let vg = add_feed(&vg, "s", feed(1)).unwrap();
    let resolved = layout(&vg, &vg.volumes[0], |pv| Some(DiskId(pv.as_u128() as u32))).unwrap();
    assert_eq!(resolved.size, 8 * EXTENT_DEFAULT);
    let [Piece::Striped { columns, .. }] = resolved.plexes[0].map.as_slice() else {
        panic!("{:?}", resolved.plexes[0].map);
    };
    for (column, subdisk) in columns.iter().zip(&vg.volumes[0].plexes[0].subdisks) {
        let pv = vg.pv(subdisk.pv).unwrap();
        let start = pv.data_start + subdisk.pv_extent * EXTENT_DEFAULT;
        assert_eq!(column.range.start(), start);
        assert_eq!(column.range.len(), 4 * EXTENT_DEFAULT);
        assert_eq!(column.disk.0 as u128, subdisk.pv.as_u128());
    }
    assert!(resolved.feeds[0].fresh);
    assert_eq!(resolved.feeds[0].id.0, vg.volumes[0].feeds[0].map_slot);
    let none = layout(&vg, &vg.volumes[0], |_| None);
    assert!(matches!(none, Err(LayoutError::DiskAbsent { .. })));
}

/// A group with so many volumes of one extent, built without the planner.
fn large_group(volumes: u64) -> Group {
    let vg = group(&[3 * volumes, 3 * volumes]);
    let one = create(&vg, &VolumeRequest::new("one", MIB)).unwrap();
    let mut large = vg;
    for n in 0..volumes {
        let mut volume = one.volumes[0].clone();
        volume.name = format!("v{n}");
        volume.uuid = uuid((1 << 80) + u128::from(n));
        volume.plexes[0].subdisks[0].pv_extent = 2 * n;
        volume.log[0].pv_extent = 2 * n + 1;
        large.volumes.push(volume);
    }
    large
}

#[test]
fn ten_thousand_volumes() {
    let vg = large_group(10_000);
    assert_eq!(check(&vg), []);
    let mut request = VolumeRequest::new("last", 500 * EXTENT_DEFAULT);
    request.mirrors = 1;
    let next = create(&vg, &request).unwrap();
    assert_eq!(next.volumes.len(), 10_001);
    // Two snapshots fit into the metadata area of a large disk.
    let json = serde_json::to_vec(&next).unwrap();
    assert!((json.len() as u64) < AREA_MAX / 2, "{}", json.len());
}

#[test]
fn a_hundred_thousand_runs() {
    let runs = 100_000;
    let vg = large_group(1);
    let mut holes = Group {
        volumes: Default::default(),
        ..vg.clone()
    };
    holes.pvs = group(&[2 * runs]).pvs;
    let mut volume = vg.volumes[0].clone();
    volume.log[0].pv_extent = 1;
    volume.plexes[0].subdisks = (0..runs - 1)
        .map(|n| crate::model::Subdisk {
            pv: uuid(1),
            pv_extent: 2 * n + 3,
            extents: 1,
            plex_extent: n,
            column: 0,
        })
        .collect();
    volume.extents = runs - 1;
    volume.log[0].extents =
        log_bytes(volume.extents * EXTENT_DEFAULT, REGION_DEFAULT).div_ceil(EXTENT_DEFAULT);
    volume.log[0].pv_extent = 2 * runs + 1;
    holes.pvs = group(&[2 * runs + 1 + volume.log[0].extents]).pvs;
    holes.volumes.push(volume);
    assert_eq!(check(&holes), []);
    let request = VolumeRequest::new("holes", (runs - 10) * EXTENT_DEFAULT);
    // Every data extent is a run of its own; only the log finds no row.
    let error = create(&holes, &request).unwrap_err();
    assert!(matches!(error, PlanError::LogSpace { .. }), "{error}");
    let request = VolumeRequest::new("holes", 50 * EXTENT_DEFAULT);
    let next = create(&holes, &request).unwrap();
    assert!(next.volume("holes").unwrap().plexes[0].subdisks.len() >= 45);
}

#[derive(Clone, Debug)]
enum Step {
    Create {
        mirrors: u32,
        stripes: u32,
        extents: u64,
    },
    Extend {
        volume: usize,
        extents: u64,
    },
    Reduce {
        volume: usize,
        extents: u64,
    },
    Remove {
        volume: usize,
    },
    Attach {
        volume: usize,
        stripes: u32,
    },
    Detach {
        volume: usize,
        plex: usize,
    },
    Missing {
        pv: usize,
    },
    Returned {
        pv: usize,
    },
    AddPv,
    RemovePv {
        pv: usize,
    },
    State {
        volume: usize,
        plex: usize,
        state: PlexState,
    },
}

fn step() -> impl Strategy<Value = Step> {
    use PlexState::*;
    let volume = 0usize..6;
    let states = prop::sample::select(vec![Active, Stale, Failed, Offline, Syncing]);
    prop_oneof![
        4 => (0u32..3, 1u32..4, 1u64..30)
            .prop_map(|(mirrors, stripes, extents)| Step::Create { mirrors, stripes, extents }),
        3 => (volume.clone(), 1u64..60).prop_map(|(volume, extents)| Step::Extend { volume, extents }),
        2 => (volume.clone(), 1u64..60).prop_map(|(volume, extents)| Step::Reduce { volume, extents }),
        1 => volume.clone().prop_map(|volume| Step::Remove { volume }),
        2 => (volume.clone(), 1u32..3).prop_map(|(volume, stripes)| Step::Attach { volume, stripes }),
        1 => (volume.clone(), 0usize..3).prop_map(|(volume, plex)| Step::Detach { volume, plex }),
        1 => (0usize..8).prop_map(|pv| Step::Missing { pv }),
        1 => (0usize..8).prop_map(|pv| Step::Returned { pv }),
        1 => Just(Step::AddPv),
        1 => (0usize..8).prop_map(|pv| Step::RemovePv { pv }),
        2 => (volume, 0usize..3, states)
            .prop_map(|(volume, plex, state)| Step::State { volume, plex, state }),
    ]
}

fn apply(group: &Group, step: &Step, fresh: u128) -> Option<Group> {
    let name = |index: usize| group.volumes.get(index).map(|v| v.name.as_str());
    let plex = |volume: usize, plex: usize| {
        let plex = group.volumes.get(volume)?.plexes.get(plex)?;
        Some(plex.number)
    };
    let pv = |index: usize| group.pvs.get(index).map(|p| p.uuid);
    let bytes = |extents: u64| extents * group.extent_size;
    match step {
        Step::Create {
            mirrors,
            stripes,
            extents,
        } => {
            let mut request = VolumeRequest::new(&format!("v{fresh}"), bytes(*extents));
            (request.mirrors, request.stripes) = (*mirrors, *stripes);
            create_volume(group, &request, &mut counter(fresh)).ok()
        }
        Step::Extend { volume, extents } => {
            let grown = extend_volume(group, name(*volume)?, bytes(*extents), &[]).ok()?;
            Some(grown.group)
        }
        Step::Reduce { volume, extents } => {
            reduce_volume(group, name(*volume)?, bytes(*extents)).ok()
        }
        Step::Remove { volume } => remove_volume(group, name(*volume)?).ok(),
        Step::Attach { volume, stripes } => {
            let layout = match stripes {
                1 => Layout::Concat,
                columns => Layout::Striped {
                    columns: *columns,
                    stripe_size: 65536,
                },
            };
            attach_plex(group, name(*volume)?, layout, &[], uuid(fresh)).ok()
        }
        Step::Detach { volume, plex: p } => {
            detach_plex(group, name(*volume)?, plex(*volume, *p)?).ok()
        }
        Step::Missing { pv: index } => mark_pv_missing(group, pv(*index)?).ok(),
        Step::Returned { pv: index } => mark_pv_returned(group, pv(*index)?, "").ok(),
        Step::AddPv => extend_group(group, vec![new_pv(fresh, 15)]).ok(),
        Step::RemovePv { pv: index } => reduce_group(group, &[pv(*index)?]).ok(),
        Step::State {
            volume,
            plex: p,
            state,
        } => set_plex_state(group, name(*volume)?, plex(*volume, *p)?, *state).ok(),
    }
}

/// What is wrong with a version is found by looking at what has changed, too.
#[test]
fn a_change_is_checked_as_the_whole_is() {
    let mut good = group(&[40, 40]);
    for n in 0..4u128 {
        let request = VolumeRequest::new(&format!("v{n}"), 3 * EXTENT_DEFAULT);
        let mut uuids = (0..).map(|i| Uuid::from_u128(10_000 + 100 * n + i));
        good = create_volume(&good, &request, &mut || uuids.next().unwrap()).unwrap();
    }
    assert_eq!(check(&good), []);
    type Break = fn(&mut Group);
    let breaks: [Break; 9] = [
        |g| g.volumes.at_mut(1).name = "v3".into(),
        |g| g.volumes.at_mut(1).uuid = g.volumes[0].uuid,
        |g| {
            g.volumes.at_mut(2).plexes[0].subdisks[0].pv_extent =
                g.volumes[0].plexes[0].subdisks[0].pv_extent
        },
        |g| g.volumes.at_mut(2).log[0].pv_extent = g.volumes[1].log[0].pv_extent,
        |g| g.volumes.at_mut(2).extents += 1,
        |g| g.volumes.at_mut(2).log[0].pv = Uuid::from_u128(999),
        |g| g.volumes.push(g.volumes[0].clone()),
        |g| g.pvs[0].extent_count = 1,
        |g| g.volumes.at_mut(0).plexes[0].replaces = Some(Uuid::from_u128(5)),
    ];
    for (index, make) in breaks.iter().enumerate() {
        let mut bad = good.clone();
        make(&mut bad);
        assert_ne!(check(&bad), [], "break {index}");
        assert_ne!(check_change(&good, &bad), [], "break {index}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    /// Whatever is planned is valid, and what was there before stays where it was.
    #[test]
    fn every_plan_is_valid(steps in proptest::collection::vec(step(), 1..30)) {
        let mut now = group(&[20, 20, 10, 30, 17]);
        for (index, step) in steps.iter().enumerate() {
            let Some(next) = apply(&now, step, 1_000_000 * (index as u128 + 1)) else {
                continue;
            };
            prop_assert_eq!(check(&next), [], "after {:?}", step);
            prop_assert_eq!(check_change(&now, &next), [], "after {:?}", step);
            for volume in &next.volumes {
                let Some(before) = now.volume_by_uuid(volume.uuid) else { continue };
                let columns = |p: &crate::model::Plex| u64::from(p.columns());
                for plex in &volume.plexes {
                    let Some(old) = before.plexes.iter().find(|p| p.uuid == plex.uuid) else { continue };
                    for (a, b) in plex.subdisks.iter().zip(&old.subdisks) {
                        prop_assert_eq!((a.pv, a.pv_extent, a.plex_extent), (b.pv, b.pv_extent, b.plex_extent));
                        prop_assert!(columns(plex) == columns(old));
                    }
                }
            }
            let used: u64 = next.extents_used();
            let missing: u64 = next.pvs.iter().filter(|p| p.missing_since.is_some()).map(|p| p.extent_count - next.extents_used_on(p.uuid)).sum();
            prop_assert_eq!(Space::of(&next).free(), next.extents_total() - used - missing);
            prop_assert!(next.volumes.is_indexed());
            prop_assert_eq!(Space::of(&next), Space::counted(&next));
            now = next;
        }
    }

    #[test]
    fn the_check_is_total(numbers in proptest::array::uniform8(any::<u64>())) {
        let mut vg = create(&group(&[10, 10]), &VolumeRequest::new("web", MIB)).unwrap();
        vg.pvs[0].extent_count = numbers[0];
        vg.pvs[0].data_start = numbers[1];
        let mut volume = vg.volumes.at_mut(0);
        volume.extents = numbers[2];
        volume.region_size = numbers[3];
        volume.plexes[0].layout = Layout::Striped { columns: numbers[4] as u32, stripe_size: numbers[5] };
        volume.plexes[0].subdisks[0].extents = numbers[6];
        volume.log[0].pv_extent = numbers[7];
        drop(volume);
        prop_assert!(!check(&vg).is_empty());
    }
}
