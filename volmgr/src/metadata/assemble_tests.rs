//! The truth table, exhaustively, and the states of disks.

use super::super::LabelScan;
use super::*;
use crate::label::{EXTENT_MIN, Geometry, Label};
use crate::model::Pv;

const GROUP: Uuid = Uuid::from_u128(100);

fn pv_uuid(n: u64) -> Uuid {
    Uuid::from_u128(u128::from(n))
}

/// PVs by number, each with `missing_since`.
fn version(seqno: u64, commit: u128, pvs: &[(u64, Option<u64>)], ancestors: &[u128]) -> Version {
    let pvs = pvs.iter().map(|(n, missing_since)| Pv {
        uuid: pv_uuid(*n),
        size: 1 << 30,
        data_start: 1 << 20,
        extent_count: 10,
        path_hint: String::new(),
        missing_since: *missing_since,
        spare: false,
        tags: Default::default(),
    });
    let mut ancestors: Vec<Uuid> = ancestors.iter().map(|c| Uuid::from_u128(*c)).collect();
    ancestors.push(Uuid::from_u128(commit));
    Version {
        group: Group {
            uuid: GROUP,
            name: "vg".into(),
            extent_size: EXTENT_MIN,
            seqno,
            commit: Uuid::from_u128(commit),
            exported: false,
            handover: None,
            tags: Default::default(),
            pvs: pvs.collect(),
            volumes: Default::default(),
        },
        ancestors,
    }
}

fn scan(pv: u64, group: Option<Uuid>, version: Option<Version>) -> (u64, PvScan) {
    let geometry = Geometry::for_pv(64 << 20).unwrap();
    let mut label = Label::new(pv_uuid(pv), &geometry);
    label.group = group;
    label.extent_size = if group.is_some() { EXTENT_MIN } else { 0 };
    let scan = PvScan {
        size: 64 << 20,
        label: LabelScan {
            front: Ok(label.clone()),
            back: Ok(label),
        },
        areas: Vec::new(),
        version,
        holds: Vec::new(),
        bad_content: Vec::new(),
    };
    (pv, scan)
}

fn one(scans: Vec<(u64, PvScan)>) -> Assembly<u64> {
    let mut all = assemble(scans);
    assert_eq!(all.groups.len(), 1);
    all.groups.remove(0)
}

/// How a version speaks of the other's PV.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Lists {
    No,
    Yes,
    /// Missing since a commit above the other's version.
    MissingLater,
    /// Missing since a commit that the other has reached.
    MissingBefore,
}

const LISTS: [Lists; 4] = [
    Lists::No,
    Lists::Yes,
    Lists::MissingLater,
    Lists::MissingBefore,
];

/// The rows again, written down independently: which one fits.
fn row(same: bool, ancestor: bool, w_on_v: Lists, v_on_w: Lists) -> char {
    match (same, ancestor, w_on_v, v_on_w) {
        (true, ..) => 'a',
        (_, true, ..) => 'b',
        (_, _, Lists::MissingBefore, _) => 'c',
        (_, _, Lists::MissingLater, _) => 'd',
        (_, _, _, Lists::MissingBefore) => 'e',
        (_, _, Lists::No, Lists::No) => 'f',
        _ => 'g',
    }
}

#[test]
fn the_truth_table() {
    let mut hit = BTreeSet::new();
    for same in [false, true] {
        for ancestor in [false, true] {
            for w_on_v in LISTS {
                for v_on_w in LISTS {
                    // W is on PV 1 at 20, V on PV 2 at 10, or both at 20.
                    let v_seqno = if same { 20 } else { 10 };
                    let speak = |lists, other_seqno| match lists {
                        Lists::No => None,
                        Lists::Yes => Some(None),
                        Lists::MissingLater => Some(Some(other_seqno + 1)),
                        Lists::MissingBefore => Some(Some(other_seqno)),
                    };
                    let mut w_pvs = vec![(1, None)];
                    w_pvs.extend(speak(w_on_v, v_seqno).map(|m| (2, m)));
                    let mut v_pvs = vec![(2, None)];
                    v_pvs.extend(speak(v_on_w, 20).map(|m| (1, m)));
                    let ancestors: &[u128] = if ancestor { &[7] } else { &[] };
                    let w = version(20, 9, &w_pvs, ancestors);
                    let v = version(v_seqno, 7, &v_pvs, &[]);
                    let assembly = one(vec![
                        scan(1, Some(GROUP), Some(w.clone())),
                        scan(2, Some(GROUP), Some(v)),
                    ]);
                    let row = row(same, ancestor, w_on_v, v_on_w);
                    hit.insert(row);
                    let what = format!("row {row}: {same} {ancestor} {w_on_v:?} {v_on_w:?}");
                    match (row, &assembly.verdict) {
                        ('a', Verdict::Conflict(Conflict::SameSeqno { .. })) => {}
                        ('c', Verdict::Conflict(Conflict::WentOn { pv, .. })) => {
                            assert_eq!(*pv, pv_uuid(2), "{what}");
                        }
                        ('e', Verdict::Conflict(Conflict::WentOn { pv, .. })) => {
                            assert_eq!(*pv, pv_uuid(1), "{what}");
                        }
                        ('f', Verdict::Conflict(Conflict::Disjoint { .. })) => {}
                        ('b' | 'd' | 'g', Verdict::Chosen(group)) => {
                            assert_eq!(**group, w.group, "{what}");
                            let state = match w_on_v {
                                Lists::No => MemberState::Orphan,
                                Lists::Yes => MemberState::Outdated,
                                _ => MemberState::Returning,
                            };
                            assert_eq!(assembly.members[1].state, state, "{what}");
                        }
                        (_, verdict) => panic!("{what}: {verdict:?}"),
                    }
                }
            }
        }
    }
    assert_eq!(hit.into_iter().collect::<String>(), "abcdefg");
}

#[test]
fn disks_that_agree_are_present_and_others_missing() {
    let v = version(5, 1, &[(1, None), (2, None), (3, None)], &[]);
    let assembly = one(vec![
        scan(1, Some(GROUP), Some(v.clone())),
        scan(2, Some(GROUP), None),
    ]);
    let states: Vec<_> = assembly.members.iter().map(|m| m.state).collect();
    assert_eq!(states, [MemberState::Present, MemberState::Outdated]);
    assert_eq!(assembly.missing, [pv_uuid(3)]);
}

#[test]
fn a_disk_whose_label_was_not_written_yet_belongs_to_the_group_that_lists_it() {
    let v = version(5, 1, &[(1, None), (2, None)], &[]);
    let all = assemble(vec![
        scan(1, Some(GROUP), Some(v.clone())),
        scan(2, None, Some(v)),
        scan(3, None, None),
    ]);
    assert_eq!(all.groups[0].members[1].state, MemberState::Present);
    assert_eq!(all.free.len(), 1);
    assert_eq!(all.free[0].0, 3);
}

#[test]
fn one_pv_twice_is_refused() {
    let v = version(5, 1, &[(1, None)], &[]);
    let both = vec![
        scan(1, Some(GROUP), Some(v.clone())),
        scan(1, Some(GROUP), Some(v)),
    ];
    let expected = Conflict::Duplicate { pv: pv_uuid(1) };
    assert_eq!(one(both).verdict, Verdict::Conflict(expected));
}

#[test]
fn labels_without_metadata() {
    let assembly = one(vec![scan(1, Some(GROUP), None)]);
    assert_eq!(assembly.verdict, Verdict::NoMetadata);
    assert_eq!(assembly.members[0].state, MemberState::Undecided);
}
