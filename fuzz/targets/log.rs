//! A volume's log: its header, and pages with good checksums where the fuzzer wants them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use regionmap::RegionMap;
use regionmap::log::{Geometry, PageState};
use volmgr_fuzz::{Input, block, put};

fuzz_target!(|data: &[u8]| {
    let _ = Geometry::decode_header(data);
    let mut input = Input(data);
    let mut header: [u8; 4096] = [0; 4096];
    put(&mut header, 0, b"VMGRLOG\0");
    put(&mut header, 8, &input.array::<40>());
    let sum = crc32c::crc32c(&header[..508]);
    put(&mut header, 508, &sum.to_le_bytes());
    let decoded = Geometry::decode_header(&header);
    if let Ok(geometry) = &decoded {
        assert_eq!(
            Geometry::decode_header(&geometry.encode_header()).as_ref(),
            Ok(geometry)
        );
        let last = geometry.pages().saturating_sub(1);
        assert!(geometry.page_offset(15, last, 1) <= geometry.log_bytes().expect("checked"));
    }
    // A small volume's pages, both blocks of them, in the fuzzer's words.
    let geometry = Geometry {
        volume: uuid::Uuid::from_u128(3),
        size: (u64::from(input.u16()) + 1) << 16,
        region_size: 1 << (12 + input.byte() % 8),
    };
    let slot = u32::from(input.byte() % 18);
    let mut pair = [[0u8; 4096]; 2];
    for bytes in &mut pair {
        let kind = input.byte();
        if kind & 1 == 0 {
            continue;
        }
        put(bytes, 0, b"VMGRLPG\0");
        put(bytes, 8, &1u32.to_le_bytes());
        put(bytes, 12, &slot.to_le_bytes());
        put(bytes, 24, &input.array::<8>());
        put(bytes, 32, geometry.volume.as_bytes());
        if kind & 2 != 0 {
            put(bytes, 16, &input.array::<8>());
        }
        let len = usize::from(input.byte());
        let bits = input.bytes(len);
        let at = 64 + usize::from(input.u16()) % (4096 - 64 - 256);
        put(bytes, at, bits);
        let sum = crc32c::crc32c(&bytes[..]);
        put(bytes, 60, &sum.to_le_bytes());
        if kind & 4 != 0 {
            bytes[usize::from(input.u16()) % 4096] ^= input.byte();
        }
    }
    if let PageState::Valid { bits, .. } = geometry.decode_pair(slot, 0, &pair[0], &pair[1]) {
        let mut map = RegionMap::new(geometry.size, geometry.region_size);
        map.merge_page(0, &bits);
        assert!(
            map.count() <= map.regions(),
            "bits beyond the end were believed"
        );
        assert!(map.bytes() <= geometry.size.next_multiple_of(geometry.region_size));
        for run in map.runs(1 << 20) {
            assert!(run.end() <= geometry.size && run.len() > 0);
        }
    }
    let _ = geometry.page_in_image(data, slot, input.u64() >> 40);
    let _ = geometry.decode_pair(slot, 0, &block::<4096>(data), data);
});
