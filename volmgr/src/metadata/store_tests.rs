//! Tests of commits: power loss at every step, failing disks, disks that come and go.

use super::super::{
    Assembly, MemPv, PowerLoss, PvScan, Verdict, assemble, grow_pv, initialise_pv, inspect, wipe_pv,
};
use super::*;
use crate::label::EXTENT_MIN;
use crate::plan::{self, NewPv, VolumeRequest};
use proptest::prelude::*;

#[path = "torn_tests.rs"]
mod torn;

const SIZE: u64 = 64 << 20;

fn uuid(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

/// Disks by PV number, and the commits' UUIDs.
#[derive(Clone)]
struct World {
    disks: BTreeMap<Uuid, MemPv>,
    next_commit: u128,
}

impl World {
    fn new(pvs: u128) -> Self {
        let disks = (1..=pvs)
            .map(|n| {
                let mut disk = MemPv::new(SIZE);
                initialise_pv(&mut disk, uuid(n)).unwrap();
                (uuid(n), disk)
            })
            .collect();
        Self {
            disks,
            next_commit: 1 << 64,
        }
    }

    fn scan(&mut self, pv: u128) -> PvScan {
        inspect(self.disks.get_mut(&uuid(pv)).unwrap()).unwrap()
    }

    fn new_pv(&mut self, pv: u128) -> NewPv {
        NewPv {
            label: self.scan(pv).chosen_label().unwrap().clone(),
            path: format!("/dev/disk{pv}"),
        }
    }

    fn commit_on(
        &mut self,
        store: &mut Store,
        next: Group,
        pvs: &[u128],
    ) -> Result<CommitReport, CommitError> {
        self.next_commit += 1;
        let commit = uuid(self.next_commit);
        let mut ios: BTreeMap<Uuid, &mut dyn PvIo> = BTreeMap::new();
        for (pv, disk) in &mut self.disks {
            if pvs.contains(&pv.as_u128()) {
                ios.insert(*pv, disk);
            }
        }
        store.commit(next, commit, &mut ios)
    }

    fn all(&self) -> Vec<u128> {
        self.disks.keys().map(Uuid::as_u128).collect()
    }

    fn commit(&mut self, store: &mut Store, next: Group) -> Result<CommitReport, CommitError> {
        let all = self.all();
        self.commit_on(store, next, &all)
    }

    /// A group over all the disks, with its first commit.
    fn group(&mut self) -> Store {
        let all = self.all();
        let pvs = all.into_iter().map(|pv| self.new_pv(pv)).collect();
        let group = plan::create_group(uuid(100), "vg", EXTENT_MIN, pvs).unwrap();
        let mut store = Store::create(group.clone());
        let report = self.commit(&mut store, group).unwrap();
        assert_eq!((report.seqno, report.failed.len()), (1, 0));
        store
    }

    fn assemble_on(&mut self, pvs: &[u128]) -> Option<Assembly<u128>> {
        let scans = pvs.iter().map(|pv| (*pv, self.scan(*pv))).collect();
        let mut all = assemble(scans);
        assert!(all.groups.len() <= 1);
        all.groups.pop()
    }

    fn assemble(&mut self) -> Option<Assembly<u128>> {
        let all = self.all();
        self.assemble_on(&all)
    }

    fn reopen(&mut self) -> Option<Store> {
        Store::open(&self.assemble()?)
    }
}

fn with_volume(group: &Group, name: &str) -> Group {
    let mut next = uuid_counter(group.seqno);
    plan::create_volume(group, &VolumeRequest::new(name, 1), &mut next).unwrap()
}

fn uuid_counter(from: u64) -> impl FnMut() -> Uuid {
    let mut next = (u128::from(from) + 1) << 32;
    move || {
        next += 1;
        uuid(next)
    }
}

#[test]
fn what_is_committed_is_read_back() {
    let mut world = World::new(3);
    let mut store = world.group();
    for n in 0..40 {
        let next = with_volume(store.group(), &format!("v{n}"));
        world.commit(&mut store, next).unwrap();
        let read = world.reopen().unwrap();
        assert_eq!(read.group(), store.group());
        assert!(read.is_settled());
    }
    for pv in 1..=3 {
        assert_eq!(world.scan(pv).problems(), Vec::<String>::new());
    }
}

#[test]
fn commits_cost_what_they_change() {
    let mut world = World::new(1);
    let mut store = world.group();
    for n in 0..30 {
        let next = with_volume(store.group(), &format!("v{n}"));
        world.commit(&mut store, next).unwrap();
    }
    let mut snapshots = 0;
    for n in 0..20 {
        let next = plan::rename_group(store.group(), &format!("vg{n}")).unwrap();
        snapshots += world.commit(&mut store, next).unwrap().snapshots;
    }
    // Two areas; a snapshot of 30 volumes is worth eight deltas or so.
    assert!(snapshots <= 6, "{snapshots}");
}

/// The states of a life: each leads from the group to the next, with the disks given.
fn life(world: &mut World, store: &Store, step: usize) -> Option<Group> {
    let group = store.group();
    Some(match step {
        0..=5 => with_volume(group, &format!("v{step}")),
        6 => plan::remove_volume(group, "v3").unwrap(),
        7 => plan::extend_group(group, vec![world.new_pv(3)]).unwrap(),
        8 => plan::rename_group(group, "renamed").unwrap(),
        9 => plan::reduce_group(group, &[uuid(3)]).unwrap(),
        10..=20 => with_volume(group, &format!("v{step}")),
        _ => return None,
    })
}

/// Power loss at each write and sync of each commit of a life, on all disks at once, with unsynced
/// sectors dropped, kept or torn: what is found is the old or the new version, never anything else,
/// and the next commit works.
#[test]
fn power_loss_leaves_old_or_new() {
    let mut world = World::new(3);
    // Disk 3 joins later.
    let pvs: Vec<NewPv> = [1, 2].into_iter().map(|pv| world.new_pv(pv)).collect();
    let group = plan::create_group(uuid(100), "vg", EXTENT_MIN, pvs).unwrap();
    let mut store = Store::create(group.clone());
    world.commit_on(&mut store, group, &[1, 2]).unwrap();
    let mut crashes = 0;
    for step in 0.. {
        let Some(next) = life(&mut world, &store, step) else {
            break;
        };
        let pvs: &[u128] = if (7..=9).contains(&step) {
            &[1, 2, 3]
        } else {
            &[1, 2]
        };
        for victim in 0.. {
            // The steps of all disks are counted in turn: `victim` chooses the disk and the step
            // from which on it fails, the others fail from the same moment on.
            let mut probe = world.clone();
            let budget = victim / 3;
            for (index, disk) in probe.disks.values_mut().enumerate() {
                disk.fail_after(budget + u64::from((index as u64) < victim % 3));
            }
            let mut writer = clone(&store);
            let result = probe.commit_on(&mut writer, next.clone(), pvs);
            let whole = result
                .as_ref()
                .is_ok_and(|r| r.failed.is_empty() && r.degraded.is_empty());
            for seed in 0..6u64 {
                let loss = match seed {
                    0 => PowerLoss::DropAll,
                    1 => PowerLoss::KeepAll,
                    _ => PowerLoss::Torn(seed * 7919 + victim),
                };
                let mut after = probe.clone();
                for disk in after.disks.values_mut() {
                    disk.power_loss(loss);
                }
                crashes += 1;
                check_old_or_new(&mut after, &store, &next, result.is_ok());
            }
            if whole {
                break;
            }
        }
        world.commit_on(&mut store, next, pvs).unwrap();
    }
    assert!(crashes > 1000, "{crashes}");
}

/// A second writer in the same state; only what was committed is in it.
fn clone(store: &Store) -> Store {
    Store {
        group: store.group.clone(),
        seqno: store.seqno,
        pvs: store.pvs.clone(),
        checked: false,
        settled: store.settled,
    }
}

fn content(group: &Group) -> Group {
    let mut group = group.clone();
    (group.seqno, group.commit) = (0, Uuid::nil());
    group
}

fn check_old_or_new(after: &mut World, old: &Store, new: &Group, reported: bool) {
    let assembly = after.assemble().expect("the group is there");
    let found = match &assembly.verdict {
        Verdict::Chosen(group) => content(group),
        other => panic!("{other:?}"),
    };
    let is_new = found == content(new);
    assert!(
        is_new || found == content(old.group()),
        "neither old nor new"
    );
    assert!(is_new || !reported, "a reported commit was lost");
    // Life goes on, and is complete on all disks.
    let mut store = Store::open(&assembly).unwrap();
    let again = store.group().clone();
    let members: Vec<u128> = assembly.members.iter().map(|m| m.key).collect();
    let report = after.commit_on(&mut store, again, &members).unwrap();
    assert_eq!((report.failed.len(), report.degraded.len()), (0, 0));
    let reopened = after.reopen().unwrap();
    assert_eq!(reopened.group(), store.group());
    assert!(reopened.is_settled());
}

/// Making a group: a crash leaves none, or all of it.
#[test]
fn power_loss_while_a_group_is_made() {
    let mut world = World::new(2);
    let pvs = vec![world.new_pv(1), world.new_pv(2)];
    let group = plan::create_group(uuid(100), "vg", EXTENT_MIN, pvs).unwrap();
    for budget in 0..20 {
        for loss in [
            PowerLoss::DropAll,
            PowerLoss::KeepAll,
            PowerLoss::Torn(budget + 3),
        ] {
            let mut probe = world.clone();
            for disk in probe.disks.values_mut() {
                disk.fail_after(budget);
            }
            let mut store = Store::create(group.clone());
            let result = probe.commit(&mut store, group.clone());
            for disk in probe.disks.values_mut() {
                disk.power_loss(loss);
            }
            match probe.assemble() {
                None => assert!(result.is_err()),
                Some(assembly) => {
                    assert_eq!(content(assembly.chosen().unwrap()), content(&group));
                    assert_eq!(assembly.members.len(), 2);
                }
            }
        }
    }
}

#[test]
fn a_group_is_removed_by_a_commit_without_disks() {
    let mut world = World::new(2);
    let mut store = world.group();
    let mut none = store.group().clone();
    none.pvs.clear();
    // The labels of disk 2 are not cleared: it fails after its areas are written.
    world.disks.get_mut(&uuid(2)).unwrap().fail_after(4);
    let report = world.commit(&mut store, none).unwrap();
    assert_eq!(report.failed.len(), 1);
    let disk = world.disks.get_mut(&uuid(2)).unwrap();
    disk.power_loss(PowerLoss::DropAll);
    let assembly = world.assemble().unwrap();
    assert_eq!(assembly.verdict, Verdict::Removed);
    assert_eq!(world.scan(1).chosen_label().unwrap().group, None);
}

#[test]
fn one_failing_disk_is_reported_and_found_outdated() {
    let mut world = World::new(3);
    let mut store = world.group();
    world.disks.get_mut(&uuid(2)).unwrap().fail_after(0);
    let next = with_volume(store.group(), "a");
    let report = world.commit(&mut store, next).unwrap();
    assert_eq!(report.failed.len(), 1);
    assert_eq!(report.failed[0].pv, uuid(2));
    assert!(!store.is_settled());
    let disk = world.disks.get_mut(&uuid(2)).unwrap();
    disk.power_loss(PowerLoss::DropAll);
    let assembly = world.assemble().unwrap();
    let states: Vec<_> = assembly.members.iter().map(|m| m.state).collect();
    use MemberState::{Outdated, Present};
    assert_eq!(states, [Present, Outdated, Present]);
    // The same store goes on, and mends the disk.
    let next = store.group().clone();
    world.commit(&mut store, next).unwrap();
    assert!(store.is_settled() && world.reopen().unwrap().is_settled());
}

/// A disk that was joining when the power went has a commit that nobody else has; the next one has another
/// number.
#[test]
fn a_disk_joins_at_the_second_attempt() {
    let mut world = World::new(2);
    let pvs = vec![world.new_pv(2)];
    let group = plan::create_group(uuid(100), "vg", EXTENT_MIN, pvs).unwrap();
    let mut store = Store::create(group.clone());
    world.commit_on(&mut store, group, &[2]).unwrap();
    let joining = vec![world.new_pv(1)];
    let next = plan::extend_group(store.group(), joining).unwrap();
    for (pv, steps) in [(1, 2), (2, 0)] {
        world.disks.get_mut(&uuid(pv)).unwrap().fail_after(steps);
    }
    world.commit(&mut store, next.clone()).unwrap_err();
    (world.disks.values_mut()).for_each(|disk| disk.power_loss(PowerLoss::DropAll));
    let mut store = world.reopen().unwrap();
    assert_eq!(world.commit(&mut store, next).unwrap().seqno, 3);
    assert!(world.reopen().unwrap().is_settled());
}

#[test]
fn one_bad_area_is_enough_to_go_on() {
    let mut world = World::new(1);
    let mut store = world.group();
    // The write to the front area fails, the one to the back area is beyond the budget, too; so
    // damage the front area on the disk instead and read it again.
    let next = with_volume(store.group(), "a");
    world.commit(&mut store, next).unwrap();
    let area = world.scan(1).areas[0].area;
    let disk = world.disks.get_mut(&uuid(1)).unwrap();
    disk.scribble(area.start, &vec![0xa5; area.len as usize]);
    let scan = world.scan(1);
    assert!(!scan.problems().is_empty());
    let reopened = world.reopen().unwrap();
    assert_eq!(reopened.group(), store.group());
    assert!(!reopened.is_settled());
    let mut store = reopened;
    let next = store.group().clone();
    world.commit(&mut store, next).unwrap();
    assert_eq!(world.scan(1).problems(), Vec::<String>::new());
}

#[test]
fn when_nothing_can_be_written_the_old_version_stands() {
    let mut world = World::new(2);
    let mut store = world.group();
    let old = store.group().clone();
    for disk in world.disks.values_mut() {
        disk.fail_after(0);
    }
    let error = world
        .commit(&mut store, with_volume(&old, "a"))
        .unwrap_err();
    assert!(matches!(error, CommitError::NothingWritten { failed } if failed.len() == 2));
    assert_eq!(store.group(), &old);
    // What was written may be on the disks all the same: the next commit must not be mixed up.
    for disk in world.disks.values_mut() {
        disk.power_loss(PowerLoss::KeepAll);
    }
    let next = with_volume(&old, "b");
    let report = world.commit(&mut store, next).unwrap();
    assert_eq!(report.seqno, old.seqno + 2);
    assert_eq!(world.reopen().unwrap().group(), store.group());
}

#[test]
fn a_disk_that_was_away_is_not_believed() {
    let mut world = World::new(2);
    let mut store = world.group();
    let next = plan::mark_pv_missing(store.group(), uuid(2)).unwrap();
    world.commit_on(&mut store, next, &[1]).unwrap();
    assert_eq!(store.group().pv(uuid(2)).unwrap().missing_since, Some(2));
    let next = with_volume(store.group(), "a");
    world.commit_on(&mut store, next, &[1]).unwrap();
    let assembly = world.assemble().unwrap();
    assert_eq!(assembly.members[1].state, MemberState::Returning);
    let mut store = Store::open(&assembly).unwrap();
    assert!(store.is_settled());
    let next = plan::mark_pv_returned(store.group(), uuid(2), "/dev/new").unwrap();
    world.commit(&mut store, next).unwrap();
    let assembly = world.assemble().unwrap();
    assert!(
        assembly
            .members
            .iter()
            .all(|m| m.state == MemberState::Present)
    );
}

#[test]
fn two_sides_that_went_on_alone_are_a_conflict() {
    let mut world = World::new(2);
    let store = world.group();
    for (alone, away) in [(1, 2), (2, 1)] {
        let mut side = clone(&store);
        let next = plan::mark_pv_missing(side.group(), uuid(away)).unwrap();
        world.commit_on(&mut side, next, &[alone]).unwrap();
        let next = with_volume(side.group(), &format!("v{alone}"));
        world.commit_on(&mut side, next, &[alone]).unwrap();
        if alone == 2 {
            let next = with_volume(side.group(), "more");
            world.commit_on(&mut side, next, &[alone]).unwrap();
        }
    }
    let assembly = world.assemble().unwrap();
    assert!(
        matches!(assembly.verdict, Verdict::Conflict(_)),
        "{:?}",
        assembly.verdict
    );
    assert!(Store::open(&assembly).is_none());
    // Either side alone is fine.
    for pv in [1, 2] {
        assert!(world.assemble_on(&[pv]).unwrap().chosen().is_some());
    }
}

#[test]
fn wrong_commits_are_refused() {
    let mut world = World::new(2);
    let mut store = world.group();
    let next = with_volume(store.group(), "a");
    let error = world.commit_on(&mut store, next.clone(), &[1]).unwrap_err();
    assert!(matches!(error, CommitError::Absent { pv } if pv == uuid(2)));
    let mut broken = next.clone();
    broken.volumes.at_mut(0).extents += 1;
    let error = world.commit(&mut store, broken).unwrap_err();
    assert!(matches!(error, CommitError::Invalid { .. }));
    let mut other = next;
    other.uuid = uuid(101);
    let error = world.commit(&mut store, other).unwrap_err();
    assert!(matches!(error, CommitError::NotNext));
    // A disk of one group is refused by another.
    let pv = world.new_pv(1);
    let group = plan::create_group(uuid(200), "other", EXTENT_MIN, vec![pv]).unwrap();
    let mut thief = Store::create(group.clone());
    let error = world.commit_on(&mut thief, group, &[1]).unwrap_err();
    assert!(matches!(error, CommitError::WrongDisk { .. }));
}

#[test]
fn a_group_that_outgrows_its_areas_is_refused_and_unharmed() {
    let mut world = World::new(1);
    let mut store = world.group();
    let mut big = with_volume(store.group(), "a");
    big.volumes.at_mut(0).frontend = "x".repeat(200 << 10);
    let error = world.commit(&mut store, big).unwrap_err();
    assert!(matches!(error, CommitError::AreaFull { need, have, .. } if need > have));
    let next = with_volume(store.group(), "b");
    world.commit(&mut store, next).unwrap();
    assert_eq!(world.reopen().unwrap().group(), store.group());
}

#[test]
fn a_pv_grows() {
    let mut world = World::new(1);
    let mut store = world.group();
    let disk = world.disks.get_mut(&uuid(1)).unwrap();
    disk.set_len(3 * SIZE + 5000);
    let label = grow_pv(disk).unwrap();
    store.forget(uuid(1));
    let before = store.group().pvs[0].extent_count;
    let next = plan::resize_pv(store.group(), &label).unwrap();
    world.commit(&mut store, next).unwrap();
    assert!(store.group().pvs[0].extent_count > before);
    assert_eq!(world.scan(1).problems(), Vec::<String>::new());
    world.disks.get_mut(&uuid(1)).unwrap().set_len(SIZE);
    assert!(grow_pv(world.disks.get_mut(&uuid(1)).unwrap()).is_err());
}

#[test]
fn power_loss_while_a_pv_grows() {
    let mut world = World::new(1);
    let mut store = world.group();
    let next = with_volume(store.group(), "a");
    world.commit(&mut store, next).unwrap();
    // By so little that the new back area lies over the old one, and by much.
    for growth in [4096, 100 << 10, 64 << 20] {
        for budget in 0..12 {
            for seed in 0..4 {
                let mut probe = world.clone();
                let disk = probe.disks.get_mut(&uuid(1)).unwrap();
                disk.set_len(SIZE + growth);
                disk.fail_after(budget);
                let result = grow_pv(disk);
                disk.power_loss(PowerLoss::Torn(seed * 31 + budget));
                let label = grow_pv(disk).unwrap();
                assert!(result.is_err() || budget > 3);
                let mut store = probe.reopen().unwrap();
                let next = plan::resize_pv(store.group(), &label).unwrap();
                probe.commit(&mut store, next).unwrap();
                assert_eq!(probe.scan(1).problems(), Vec::<String>::new());
                assert_eq!(store.group().volumes.len(), 1);
            }
        }
    }
}

#[test]
fn a_wiped_pv_is_none() {
    let mut world = World::new(1);
    world.group();
    wipe_pv(world.disks.get_mut(&uuid(1)).unwrap()).unwrap();
    assert!(world.scan(1).chosen_label().is_none());
    assert!(world.assemble().is_none());
    assert!(wipe_pv(world.disks.get_mut(&uuid(1)).unwrap()).is_err());
    let disk = world.disks.get_mut(&uuid(1)).unwrap();
    let (mut head, mut tail) = (vec![0; 128 << 10], vec![0; 64 << 10]);
    disk.read_at(0, &mut head).unwrap();
    disk.read_at(SIZE - (64 << 10), &mut tail).unwrap();
    assert_eq!(crate::signature::find(&head, &tail, SIZE), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    /// Scribbled and truncated disks never panic, and a version that is found was committed.
    #[test]
    fn damage_is_survived(
        damage in proptest::collection::vec((prop_oneof![0u64..400 << 10, SIZE - (400 << 10)..SIZE], 1u64..9000, any::<u8>()), 0..6),
        len in prop_oneof![Just(SIZE), 0..SIZE],
    ) {
        let mut world = World::new(1);
        let mut store = world.group();
        let mut committed = vec![store.group().clone()];
        for n in 0..12 {
            let next = with_volume(store.group(), &format!("v{n}"));
            world.commit(&mut store, next).unwrap();
            committed.push(store.group().clone());
        }
        let disk = world.disks.get_mut(&uuid(1)).unwrap();
        for (at, count, byte) in damage {
            disk.scribble(at, &vec![byte; count.min(SIZE - at) as usize]);
        }
        disk.set_len(len);
        if let Ok(scan) = inspect(disk) {
            super::super::dump_text(&scan);
            let group = scan.version.as_ref().map(|v| &v.group);
            prop_assert!(group.is_none_or(|g| committed.contains(g)));
        }
    }
}

/// A record that is lost in the middle of a chain does not go unnoticed.
#[test]
fn damage_within_a_chain_is_told() {
    for byte in [0u8, 0xa5] {
        let mut world = World::new(1);
        let mut store = world.group();
        for n in 0..5 {
            let next = plan::rename_group(store.group(), &format!("vg{n}")).unwrap();
            world.commit(&mut store, next).unwrap();
        }
        let scan = world.scan(1);
        let chain = scan.areas[1].newest(None).unwrap();
        assert!(chain.records.len() > 3, "{}", chain.records.len());
        let offset = chain.records[2].offset;
        let disk = world.disks.get_mut(&uuid(1)).unwrap();
        disk.scribble(offset, &[byte; 4096]);
        let scan = world.scan(1);
        let lost = scan.areas[1].newest(None).unwrap().lost_up_to;
        assert_eq!(lost, Some(store.group().seqno));
        let problems = scan.problems();
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert_eq!(scan.version.unwrap().group, *store.group());
    }
}
