//! Two disks whose metadata areas hold records of the fuzzer's choice, with good checksums: scan, dump, assembly, a commit on top.
#![no_main]

use libfuzzer_sys::fuzz_target;
use uuid::Uuid;
use volmgr::label::{Geometry, Label};
use volmgr::metadata::{RecordHeader, RecordKind, assemble, dump_text, inspect};
use volmgr_fuzz::{Input, Patches};

/// Bytes of a disk.
const SIZE: u64 = 2 << 20;
const GROUP: Uuid = Uuid::from_u128(7);

/// A commit's name, so small that the fuzzer hits the ones it has used.
fn commit(input: &mut Input) -> Uuid {
    Uuid::from_u128(u128::from(input.byte() % 16))
}

fn disk(input: &mut Input, pv: u128) -> Option<Patches> {
    let geometry = Geometry::plan(SIZE, 65536).ok()?;
    let mut label = Label::new(Uuid::from_u128(pv), &geometry);
    let flags = input.byte();
    if flags & 1 == 0 {
        label.group = Some(GROUP);
        label.extent_size = 65536;
    }
    let mut disk = Patches {
        size: if flags & 2 == 0 { SIZE } else { SIZE + 4096 },
        patches: Vec::new(),
    };
    let bytes = label.encode();
    for (at, bit) in [(4096, 4), (SIZE - 4096, 8)] {
        if flags & bit == 0 {
            disk.patches.push((at, bytes.to_vec()));
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
        let header = RecordHeader {
            kind: if input.byte() & 1 == 0 {
                RecordKind::Snapshot
            } else {
                RecordKind::Delta
            },
            group: if input.byte() & 15 == 15 {
                Uuid::nil()
            } else {
                GROUP
            },
            seqno: if place == 199 {
                input.u64()
            } else {
                u64::from(input.byte())
            },
            commit: commit(input),
            previous: commit(input),
            payload_len: 0,
            payload_crc: 0,
        };
        let len = usize::from(input.u16() % 2048);
        let mut record = header.encode(input.bytes(len));
        let damage = usize::from(input.u16());
        if damage > 0
            && let Some(byte) = record.get_mut(damage)
        {
            *byte ^= 1;
        }
        end[which] = at + record.len() as u64;
        if end[which] > area.start + area.len {
            end[which] = area.start;
        }
        disk.patches.push((at, record));
    }
    Some(disk)
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let mut scans = Vec::new();
    for pv in 1..=2 {
        let Some(mut disk) = disk(&mut input, pv) else {
            return;
        };
        if let Ok(scan) = inspect(&mut disk) {
            dump_text(&scan);
            scan.problems();
            if let Some(version) = &scan.version {
                assert!(
                    volmgr::model::check(&version.group).is_empty(),
                    "believed, and not sound"
                );
            }
            scans.push((pv, scan));
        }
    }
    for assembly in assemble(scans).groups {
        if let Some(group) = assembly.chosen() {
            assert!(
                volmgr::model::check(group).is_empty(),
                "chosen, and not sound"
            );
        }
    }
});
