//! Golden files of the formats on a PV: written bytes must stay what they are, and stay readable.
//! See `golden/README.md`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use uuid::Uuid;
use volmgr::label::{EXTENT_MIN, FRONT_AREA, FRONT_LABEL, LABEL_BYTES, Label};
use volmgr::metadata::{
    MemPv, PvIo, RecordKind, Store, dump_text, group_from_text, group_to_text, initialise_pv,
    inspect,
};
use volmgr::model::Group;
use volmgr::plan::{NewPv, VolumeRequest, create_group, create_volume};

const SIZE: u64 = 16 << 20;
/// A snapshot and a delta, each in one block.
const AREA_BYTES: usize = 8192;

fn golden(name: &str, written: &[u8]) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    if std::env::var_os("VOLMGR_GOLDEN_WRITE").is_some() {
        std::fs::write(&path, written).unwrap();
    }
    std::fs::read(&path).unwrap()
}

fn read(io: &mut dyn PvIo, at: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    io.read_at(at, &mut bytes).unwrap();
    bytes
}

/// A PV with two commits: a group, then one volume in it.
fn written() -> (MemPv, Group) {
    let mut disk = MemPv::new(SIZE);
    let label = initialise_pv(&mut disk, Uuid::from_u128(0x11)).unwrap();
    let pv = NewPv {
        label,
        path: "/dev/golden".into(),
    };
    let group = create_group(Uuid::from_u128(0x22), "golden", EXTENT_MIN, vec![pv]).unwrap();
    let mut store = Store::create(group.clone());
    let mut next_uuid = 0x100;
    let mut uuids = || {
        next_uuid += 1;
        Uuid::from_u128(next_uuid)
    };
    let volume = create_volume(&group, &VolumeRequest::new("web", 1 << 20), &mut uuids).unwrap();
    for (next, commit) in [(group, 0x33), (volume, 0x44)] {
        let mut pvs: BTreeMap<Uuid, &mut dyn PvIo> = BTreeMap::new();
        pvs.insert(Uuid::from_u128(0x11), &mut disk);
        store
            .commit(next, Uuid::from_u128(commit), &mut pvs)
            .unwrap();
    }
    (disk, store.group().clone())
}

#[test]
fn the_label() {
    let (mut disk, _) = written();
    let bytes = read(&mut disk, FRONT_LABEL, LABEL_BYTES);
    let golden = golden("label-v1.bin", &bytes);
    assert_eq!(golden, bytes, "the label's format has changed");
    let label = Label::decode(&golden).unwrap();
    assert_eq!(label.pv, Uuid::from_u128(0x11));
    assert_eq!(label.group, Some(Uuid::from_u128(0x22)));
    assert_eq!((label.pv_size, label.data_start), (SIZE, 1 << 20));
    assert_eq!(label.encode().as_slice(), golden);
}

#[test]
fn the_area() {
    let (mut disk, group) = written();
    let label = read(&mut disk, FRONT_LABEL, LABEL_BYTES);
    let bytes = read(&mut disk, FRONT_AREA, AREA_BYTES);
    let area = golden("area-v1.bin", &bytes);
    assert_eq!(area, bytes, "the records' format has changed");
    // A disk that has nothing but the front label and the front area.
    let mut disk = MemPv::new(SIZE);
    disk.scribble(FRONT_LABEL, &label);
    disk.scribble(FRONT_AREA, &area);
    let scan = inspect(&mut disk).unwrap();
    let records = &scan.areas[0].chains[0].records;
    let kinds: Vec<_> = records
        .iter()
        .map(|r| (r.header.kind, r.header.seqno))
        .collect();
    assert_eq!(kinds, [(RecordKind::Snapshot, 1), (RecordKind::Delta, 2)]);
    assert_eq!(scan.version.unwrap().group, group);
}

#[test]
fn the_text() {
    let (mut disk, group) = written();
    let text = group_to_text(&group);
    assert_eq!(
        String::from_utf8(golden("group-v1.txt", text.as_bytes())).unwrap(),
        text,
        "the archive's format has changed"
    );
    assert_eq!(group_from_text(&text).unwrap(), group);
    let dump = dump_text(&inspect(&mut disk).unwrap());
    for word in [
        "front label",
        "back label",
        "snapshot seqno 1",
        "delta    seqno 2",
        "\"web\"",
    ] {
        assert!(dump.contains(word), "{word}:\n{dump}");
    }
}

/// Fields that came later: left out of what is written where they have their default, so that volumes
/// which do not use them are what they always were, and taken as their default where they are missing.
#[test]
fn later_fields() {
    let (_, mut group) = written();
    let plain = group_to_text(&group);
    assert!(!plain.contains("stable_copy"));
    group
        .volumes
        .update(|_| true, |volume| volume.stable_copy = true);
    let text = group_to_text(&group);
    assert!(text.contains("\"stable_copy\": true"), "{text}");
    assert_eq!(group_from_text(&text).unwrap(), group);
    let without: Vec<&str> = text
        .lines()
        .filter(|line| !line.contains("stable_copy"))
        .collect();
    assert_eq!(without.join("\n"), plain.trim_end());
}
