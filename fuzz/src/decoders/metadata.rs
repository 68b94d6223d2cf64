//! Two disks whose metadata areas hold records of the fuzzer's choice, with good checksums: scan, dump, assembly, a commit on top.

use super::{Input, Patches};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;
use uuid::Uuid;
use volmgr::label::{Geometry, Label};
use volmgr::metadata::{
    Assembly, Delta, PvIo, RecordHeader, RecordKind, Store, assemble, dump_text, inspect,
};
use volmgr::model::{self, Group, Pv};

/// Bytes of a disk.
const SIZE: u64 = 2 << 20;
const EXTENT: u64 = 65536;
const GROUP: Uuid = Uuid::from_u128(7);
/// The commit that is made on top.
const ON_TOP: Uuid = Uuid::from_u128(99);

static GEOMETRY: LazyLock<Geometry> =
    LazyLock::new(|| Geometry::plan(SIZE, EXTENT).expect("large enough"));

/// A disk's label and its bytes, without and with the group.
type Labels = [(Label, Vec<u8>); 2];

/// Those of the two disks.
static LABELS: LazyLock<[Labels; 2]> = LazyLock::new(|| {
    [1, 2].map(|pv| {
        [false, true].map(|grouped| {
            let mut label = Label::new(Uuid::from_u128(pv), &GEOMETRY);
            if grouped {
                label.group = Some(GROUP);
                label.extent_size = EXTENT;
            }
            let bytes = label.encode().to_vec();
            (label, bytes)
        })
    })
});

/// A commit's name, so small that the fuzzer hits the ones it has used.
fn commit(input: &mut Input) -> Uuid {
    Uuid::from_u128(u128::from(input.byte() % 16))
}

/// A version of the group: which disks it lists and which of them it gives up is the fuzzer's choice, the rest is sound.
fn version(input: &mut Input, header: &RecordHeader) -> Group {
    let bits = input.byte();
    let listed = (0..3).filter(|n| bits >> n & 1 == 0);
    Group {
        uuid: header.group,
        name: "vg".into(),
        extent_size: EXTENT,
        seqno: header.seqno,
        commit: header.commit,
        exported: bits & 64 != 0,
        handover: None,
        tags: BTreeSet::new(),
        pvs: listed
            .map(|n| Pv {
                uuid: Uuid::from_u128(1 + n),
                size: SIZE,
                data_start: GEOMETRY.data_start,
                extent_count: GEOMETRY.extent_count,
                path_hint: String::new(),
                missing_since: (bits >> (3 + n) & 1 == 1).then(|| input.byte().into()),
                spare: bits & 128 != 0,
                tags: BTreeSet::new(),
            })
            .collect(),
        volumes: Default::default(),
    }
}

/// What a record holds: a version or a change of it, perhaps with one wrong byte, or any bytes.
fn payload(input: &mut Input, header: &RecordHeader) -> Vec<u8> {
    let what = input.byte();
    if what & 3 == 3 {
        let len = usize::from(input.u16() % 2048);
        return input.bytes(len).to_vec();
    }
    let next = version(input, header);
    let delta = match header.kind {
        RecordKind::Snapshot => None,
        RecordKind::Delta => Delta::between(&version(input, header), &next),
    };
    let mut json = match delta {
        Some(delta) => serde_json::to_vec(&delta),
        None => serde_json::to_vec(&next),
    }
    .expect("has no maps and no floats");
    if what & 3 == 2 {
        let at = usize::from(input.u16()) % json.len();
        json[at] = input.byte();
    }
    json
}

fn disk(input: &mut Input, labels: &Labels) -> Patches {
    let flags = input.byte();
    let (label, bytes) = &labels[usize::from(flags & 1 == 0)];
    let mut disk = Patches {
        size: if flags & 2 == 0 { SIZE } else { SIZE + 4096 },
        patches: Vec::new(),
    };
    for (at, bit) in [(4096, 4), (SIZE - 4096, 8)] {
        if flags & bit == 0 {
            disk.patches.push((at, bytes.clone()));
        }
    }
    let records = input.byte() % 8;
    let mut end = [label.areas[0].start, label.areas[1].start];
    for _ in 0..records {
        let which = usize::from(input.byte() & 1);
        let area = label.areas[which];
        let place = input.byte();
        let at = match place {
            // Behind the one before, at the start of the second segment, or anywhere.
            0..200 => end[which],
            200..220 => area.start + area.len / 2,
            _ => area.start + u64::from(input.u16()) * 4096 % area.len,
        };
        let kind = input.byte();
        let header = RecordHeader {
            kind: match kind & 1 {
                0 => RecordKind::Snapshot,
                _ => RecordKind::Delta,
            },
            group: match kind {
                240.. => Uuid::nil(),
                _ => GROUP,
            },
            seqno: match place {
                199 => input.u64(),
                _ => input.byte().into(),
            },
            commit: commit(input),
            previous: commit(input),
            payload_len: 0,
            payload_crc: 0,
        };
        let mut record = header.encode(&payload(input, &header));
        if kind & 6 == 6 {
            let at = usize::from(input.u16()) % record.len();
            record[at] ^= 1;
        }
        end[which] = at + record.len() as u64;
        if end[which] > area.start + area.len {
            end[which] = area.start;
        }
        disk.patches.push((at, record));
    }
    disk
}

/// Commits the chosen version once more: whatever else is on the disks, this commit is what is found on them afterwards.
fn commit_on_top(assembly: &Assembly<Uuid>, disks: &mut BTreeMap<Uuid, Patches>) {
    let Some(mut store) = Store::open(assembly) else {
        return;
    };
    let next = store.group().clone();
    let mut here: BTreeMap<Uuid, &mut dyn PvIo> = BTreeMap::new();
    for (pv, disk) in disks.iter_mut() {
        if assembly.members.iter().any(|member| member.pv == *pv) {
            here.insert(*pv, disk);
        }
    }
    let Ok(report) = store.commit(next, ON_TOP, &mut here) else {
        return;
    };
    assert!(report.failed.is_empty() && report.degraded.is_empty());
    assert!(model::check(store.group()).is_empty());
    for pv in &store.group().pvs {
        if let Some(disk) = disks.get_mut(&pv.uuid)
            && pv.missing_since.is_none()
        {
            let version = inspect(disk).expect("memory can be read").version;
            let found = version.expect("was written");
            assert_eq!(found.group.commit, ON_TOP);
            assert_eq!(&found.group, store.group());
        }
    }
}

/// One execution.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let mut disks = BTreeMap::new();
    let mut scans = Vec::new();
    for labels in &*LABELS {
        let pv = labels[0].0.pv;
        let mut disk = disk(&mut input, labels);
        if let Ok(scan) = inspect(&mut disk) {
            dump_text(&scan);
            scan.problems();
            if let Some(version) = &scan.version {
                assert!(
                    model::check(&version.group).is_empty(),
                    "believed, and not sound"
                );
            }
            scans.push((pv, scan));
        }
        disks.insert(pv, disk);
    }
    for assembly in assemble(scans).groups {
        if let Some(group) = assembly.chosen() {
            assert!(model::check(group).is_empty(), "chosen, and not sound");
            commit_on_top(&assembly, &mut disks);
        }
    }
}
