//! The list of volumes against a plain `Vec`, which is searched for everything.

use super::*;
use crate::model::{Generation, Group, LogCopy, Role, check};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn uuid(n: u8) -> Uuid {
    Uuid::from_u128(n.into())
}

/// A volume of which name, UUID and extents are known by numbers.
fn volume(name: u8, id: u8, runs: &[(u8, u64, u64)]) -> Volume {
    let log = |(pv, start, len): &(u8, u64, u64)| LogCopy {
        plex: uuid(0),
        pv: uuid(*pv),
        pv_extent: *start,
        extents: *len,
        valid: true,
    };
    Volume {
        uuid: uuid(id),
        name: format!("v{name}"),
        extents: 1,
        tags: Default::default(),
        active: false,
        frontend: "auto".into(),
        role: Role::Normal,
        region_size: 65536,
        generation: Generation {
            current: uuid(1),
            history: Vec::new(),
        },
        next_plex: 0,
        stable_copy: false,
        plexes: Vec::new(),
        log: runs.iter().map(log).collect(),
        feeds: Vec::new(),
        points: Vec::new(),
    }
}

/// Names, UUIDs and extents that two of them share, by looking at all pairs.
fn clash(volumes: &[Volume]) -> bool {
    let runs = |v: &Volume| v.extent_runs().collect::<Vec<_>>();
    let meet = |a: &(Uuid, u64, u64), b: &(Uuid, u64, u64)| {
        a.0 == b.0 && a.1 < b.1 + b.2 && b.1 < a.1 + a.2
    };
    let all: Vec<_> = volumes.iter().flat_map(runs).collect();
    let twice =
        |(i, run): (usize, &(Uuid, u64, u64))| all[..i].iter().any(|other| meet(run, other));
    let same = |(i, v): (usize, &Volume)| {
        let before = &volumes[..i];
        before.iter().any(|o| o.name == v.name || o.uuid == v.uuid)
    };
    all.iter().any(|(_, _, len)| *len == 0)
        || all.iter().enumerate().any(twice)
        || volumes.iter().enumerate().any(same)
}

#[derive(Clone, Debug)]
enum Op {
    Push(u8, u8, Vec<(u8, u64, u64)>),
    Remove(usize),
    Rename(usize, u8),
    Move(usize, Vec<(u8, u64, u64)>),
    Identity(usize, u8),
    Touch(usize),
    Retain(u8),
    Update(u8),
    LookAgain,
}

fn runs() -> impl Strategy<Value = Vec<(u8, u64, u64)>> {
    // Mostly apart, sometimes not, seldom none at all.
    let run = (0u8..3, 0u64..400, prop_oneof![20 => 1u64..4, 1 => Just(0)]);
    proptest::collection::vec(run.prop_map(|(pv, at, len)| (pv, at * 3, len)), 0..3)
}

fn op() -> impl Strategy<Value = Op> {
    let place = 0usize..40;
    prop_oneof![
        8 => (any::<u8>(), any::<u8>(), runs()).prop_map(|(n, u, r)| Op::Push(n, u, r)),
        2 => place.clone().prop_map(Op::Remove),
        2 => (place.clone(), any::<u8>()).prop_map(|(i, n)| Op::Rename(i, n)),
        2 => (place.clone(), runs()).prop_map(|(i, r)| Op::Move(i, r)),
        1 => (place.clone(), any::<u8>()).prop_map(|(i, u)| Op::Identity(i, u)),
        1 => place.prop_map(Op::Touch),
        1 => (1u8..9).prop_map(Op::Retain),
        1 => (1u8..9).prop_map(Op::Update),
        1 => Just(Op::LookAgain),
    ]
}

/// Does the same to both; does the list look again at what it has.
fn apply(op: &Op, list: &mut Volumes, naive: &mut Vec<Volume>) -> bool {
    let at = |i: &usize, naive: &Vec<Volume>| (!naive.is_empty()).then(|| i % naive.len());
    match op {
        Op::Push(n, u, r) => {
            list.push(volume(*n, *u, r));
            naive.push(volume(*n, *u, r));
        }
        Op::Remove(i) => {
            if let Some(i) = at(i, naive) {
                assert_eq!(list.remove(i), naive.remove(i));
            }
        }
        Op::Rename(i, n) => {
            if let Some(i) = at(i, naive) {
                list.at_mut(i).name = format!("v{n}");
                naive[i].name = format!("v{n}");
            }
        }
        Op::Move(i, r) => {
            if let Some(i) = at(i, naive) {
                list.at_mut(i).log = volume(0, 0, r).log;
                naive[i].log = volume(0, 0, r).log;
            }
        }
        Op::Identity(i, u) => {
            if let Some(i) = at(i, naive) {
                list.at_mut(i).uuid = uuid(*u);
                naive[i].uuid = uuid(*u);
            }
        }
        Op::Touch(i) => {
            if let Some(i) = at(i, naive) {
                let found = naive.iter().position(|v| v.uuid == naive[i].uuid);
                let found = found.map(|i| &mut naive[i]);
                found.into_iter().for_each(|v| v.active = true);
                let id = list[i].uuid;
                list.get_mut(id)
                    .into_iter()
                    .for_each(|mut v| v.active = true);
            }
        }
        Op::Retain(n) => {
            let keep = |v: &Volume| v.name.len() % usize::from(*n) != 1;
            list.retain(keep);
            naive.retain(keep);
        }
        Op::Update(n) => {
            let wanted = |v: &Volume| v.uuid.as_u128().is_multiple_of((*n).into());
            list.update(wanted, |v| v.extents += 1);
            naive
                .iter_mut()
                .filter(|v| wanted(v))
                .for_each(|v| v.extents += 1);
        }
        Op::LookAgain => {
            list.look_again();
            return true;
        }
    }
    false
}

proptest! {
    /// Whatever is done to it, the list is the same as a plain one, finds what is found by looking at all, and knows
    /// whether anything is shared.
    #[test]
    fn as_a_plain_list(ops in proptest::collection::vec(op(), 0..60)) {
        let (mut list, mut naive) = (Volumes::new(), Vec::new());
        let mut ever = false;
        for op in &ops {
            let (before, copy) = (naive.clone(), list.clone());
            let again = apply(op, &mut list, &mut naive);
            let now = clash(&naive);
            ever = now || ever && !again;
            prop_assert_eq!(list.is_indexed(), !ever, "{:?}", op);
            prop_assert!(list.iter().eq(naive.iter()));
            prop_assert!(copy.iter().eq(before.iter()), "a copy has changed");
            prop_assert_eq!(list == copy, naive == before);
            for n in 0..=255u8 {
                let name = format!("v{n}");
                prop_assert_eq!(list.place_of(&name), naive.iter().position(|v| v.name == name));
                prop_assert_eq!(list.named(&name), naive.iter().find(|v| v.name == name));
                prop_assert_eq!(list.of(uuid(n)), naive.iter().find(|v| v.uuid == uuid(n)));
            }
            if let Some(disks) = list.disks() {
                let mut used: BTreeMap<Uuid, u64> = BTreeMap::new();
                for (pv, _, len) in naive.iter().flat_map(Volume::extent_runs) {
                    *used.entry(pv).or_default() += len;
                }
                prop_assert!(disks.iter().map(|(pv, d)| (*pv, d.used())).eq(used));
                // As if it had been made in one go: nothing is left of what has been.
                let fresh: Volumes = naive.iter().cloned().collect();
                prop_assert_eq!(list.disks(), fresh.disks());
            }
        }
    }
}

#[test]
fn no_change_to_one_volume_looks_at_the_others() {
    let many = |n: u64| {
        let all = (0..n).map(|n| {
            let mut one = volume(0, 0, &[(0, 3 * n, 2)]);
            (one.name, one.uuid) = (format!("v{n}"), Uuid::from_u128(n.into()));
            one
        });
        all.collect::<Volumes>()
    };
    let old = many(20_000);
    let mut new = old.clone();
    new.at_mut(12_345).active = true;
    new.remove(77);
    new.push(volume(255, 255, &[(1, 0, 1)]));
    // All others are still the same volumes, in chunks of which all but three are, too.
    let shared = |a: &&Arc<Chunk>| new.list.chunks().iter().any(|b| Arc::ptr_eq(a, b));
    let chunks = old.list.chunks();
    assert!(chunks.iter().filter(shared).count() + 3 >= chunks.len());
    let changes = new.changes_since(&old);
    assert_eq!(changes.gone, [77]);
    assert_eq!(changes.put, [(12_344, Some(12_345)), (19_999, None)]);
    assert!(!changes.reordered);
}

type Chunk = super::super::sorted::Chunk<u64, Arc<Volume>>;

#[test]
fn what_was_shared_on_the_way_is_forgiven_once_looked_at() {
    let mut list = Volumes::new();
    list.push(volume(1, 1, &[(0, 0, 2)]));
    list.push(volume(2, 2, &[(0, 2, 2)]));
    // The two exchange their names.
    list.at_mut(0).name = "v2".into();
    assert!(!list.is_indexed());
    list.at_mut(1).name = "v1".into();
    assert!(!list.is_indexed());
    assert_eq!(list.named("v1").map(|v| v.uuid), Some(uuid(2)));
    list.look_again();
    assert!(list.is_indexed());
    assert_eq!(list.place_of("v1"), Some(1));
    let group = Group {
        uuid: uuid(9),
        name: "vg".into(),
        extent_size: 65536,
        seqno: 1,
        commit: uuid(8),
        exported: false,
        handover: None,
        tags: Default::default(),
        pvs: Vec::new(),
        volumes: list,
    };
    // The disks are not there, that is all the check finds of names and extents.
    assert!(
        !check(&group)
            .iter()
            .any(|p| matches!(p, crate::model::Problem::Twice { .. }))
    );
}
