//! Metadata whose checksums are right and whose content is not, as only another program than this one makes it.

use super::*;
use crate::label::EXTENT_MIN;
use crate::model::Group;
use crate::plan::{self, NewPv, VolumeRequest};
use std::collections::BTreeMap;
use std::ops::Range;
use uuid::Uuid;

fn uuid(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

type Disks = BTreeMap<Uuid, MemPv>;

/// Two disks with a group of the first commit.
fn group() -> (Disks, Store) {
    let mut disks = Disks::new();
    let mut pvs = Vec::new();
    for pv in [uuid(1), uuid(2)] {
        let mut disk = MemPv::new(64 << 20);
        let label = initialise_pv(&mut disk, pv).unwrap();
        let path = format!("/dev/{pv}");
        pvs.push(NewPv { label, path });
        disks.insert(pv, disk);
    }
    let group = plan::create_group(uuid(100), "vg", EXTENT_MIN, pvs).unwrap();
    let mut store = Store::create(group.clone());
    commit(&mut store, group, 1000, &mut disks).unwrap();
    (disks, store)
}

fn commit(
    store: &mut Store,
    next: Group,
    commit: u128,
    disks: &mut Disks,
) -> Result<CommitReport, CommitError> {
    let disks = disks.iter_mut();
    let mut disks = disks
        .map(|(pv, disk)| (*pv, disk as &mut dyn PvIo))
        .collect();
    store.commit(next, uuid(commit), &mut disks)
}

/// A record in the place of a disk's first, in both of its areas.
fn forge(disk: &mut MemPv, header: &RecordHeader, payload: &[u8]) {
    forge_in(0..2, disk, header, payload);
}

/// The same in these of its areas.
fn forge_in(areas: Range<usize>, disk: &mut MemPv, header: &RecordHeader, payload: &[u8]) {
    let label = inspect(disk).unwrap().chosen_label().unwrap().clone();
    for area in &label.areas[areas] {
        disk.write_at(area.start, &header.encode(payload)).unwrap();
    }
    disk.sync().unwrap();
}

fn header(group: &Group) -> RecordHeader {
    RecordHeader {
        kind: RecordKind::Snapshot,
        group: group.uuid,
        seqno: group.seqno,
        commit: group.commit,
        previous: Uuid::nil(),
        payload_len: 0,
        payload_crc: 0,
    }
}

fn found(disks: &mut Disks) -> Assembly<Uuid> {
    let scans = disks.iter_mut();
    let scans = scans.map(|(pv, disk)| (*pv, inspect(disk).unwrap()));
    assemble(scans.collect()).groups.remove(0)
}

#[test]
fn nothing_comes_after_the_last_number() {
    for (seqno, believed) in [(Group::SEQNO_MAX, true), (u64::MAX, false)] {
        let (mut disks, store) = group();
        let mut last = store.group().clone();
        last.seqno = seqno;
        assert_eq!(crate::model::check(&last).is_empty(), believed);
        let json = serde_json::to_vec(&last).unwrap();
        for disk in disks.values_mut() {
            forge(disk, &header(&last), &json);
        }
        let assembly = found(&mut disks);
        assert_eq!(assembly.chosen().is_some(), believed, "{seqno}");
        if let Some(mut store) = Store::open(&assembly) {
            let error = commit(&mut store, last, 1001, &mut disks).unwrap_err();
            assert!(matches!(error, CommitError::NoNumberLeft), "{error}");
        }
    }
}

/// Records that say they are the version that stands, and hold none: what follows them could not be read.
#[test]
fn a_chain_of_bad_content_is_not_gone_on_with() {
    let (mut disks, store) = group();
    let second = disks.get_mut(&uuid(2)).unwrap();
    forge(second, &header(store.group()), b"{}");
    let assembly = found(&mut disks);
    assert_eq!(assembly.members[1].state, MemberState::Outdated);
    let mut store = Store::open(&assembly).unwrap();
    let mut fresh = (2000..).map(uuid);
    let mut fresh = || fresh.next().unwrap();
    let request = VolumeRequest::new("a", EXTENT_MIN);
    let next = plan::create_volume(store.group(), &request, &mut fresh).unwrap();
    commit(&mut store, next, 1001, &mut disks).unwrap();
    for disk in disks.values_mut() {
        let version = inspect(disk).unwrap().version.unwrap();
        assert_eq!(&version.group, store.group());
    }
}

/// A disk that the group lists, that says itself that it is free, and that has a newer version than all others.
#[test]
fn a_number_on_any_disk_is_taken() {
    let (mut disks, store) = group();
    let second = disks.get_mut(&uuid(2)).unwrap();
    let mut newer = store.group().clone();
    (newer.seqno, newer.commit) = (9, uuid(77));
    forge(
        second,
        &header(&newer),
        &serde_json::to_vec(&newer).unwrap(),
    );
    free_pv(second).unwrap();
    let assembly = found(&mut disks);
    assert_eq!(assembly.chosen(), Some(store.group()));
    let mut store = Store::open(&assembly).unwrap();
    let next = store.group().clone();
    assert_eq!(
        commit(&mut store, next, 1001, &mut disks).unwrap().seqno,
        10
    );
    for disk in disks.values_mut() {
        let version = inspect(disk).unwrap().version.unwrap();
        assert_eq!(&version.group, store.group());
    }
}

/// Copies that have the number and the name of the version that stands, and hold none, or another: on one of a disk's two areas, on both.
#[test]
fn a_copy_that_only_says_it_is_the_version_is_not_gone_on_with() {
    let mut fresh = (2000..).map(uuid);
    let mut fresh = || fresh.next().unwrap();
    // What a delta would leave as it is.
    let mut other = |group: &Group| {
        let request = VolumeRequest::new("a", EXTENT_MIN);
        let mut other = plan::create_volume(group, &request, &mut fresh).unwrap();
        (other.seqno, other.commit) = (group.seqno, group.commit);
        other
    };
    for (areas, readable) in [
        (0..1, false),
        (0..1, true),
        (1..2, false),
        (1..2, true),
        (0..2, true),
    ] {
        let (mut disks, store) = group();
        let payload = match readable {
            true => serde_json::to_vec(&other(store.group())).unwrap(),
            false => b"{}".to_vec(),
        };
        let second = disks.get_mut(&uuid(2)).unwrap();
        forge_in(areas.clone(), second, &header(store.group()), &payload);
        let assembly = found(&mut disks);
        assert_eq!(assembly.chosen(), Some(store.group()));
        let mut store = Store::open(&assembly).unwrap();
        assert!(!store.is_settled(), "{areas:?}, {readable}");
        let mut next = store.group().clone();
        next.exported = true;
        commit(&mut store, next, 1001, &mut disks).unwrap();
        for disk in disks.values_mut() {
            let scan = inspect(disk).unwrap();
            assert_eq!(&scan.version.unwrap().group, store.group());
            assert_eq!(scan.holds.len(), 2, "{areas:?}, {readable}");
        }
    }
}
