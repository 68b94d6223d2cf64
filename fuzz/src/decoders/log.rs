//! A volume's log: its header, and pages with good checksums where the fuzzer wants them.

use super::{Input, block, put};
use regionmap::RegionMap;
use regionmap::log::{BLOCK, Geometry, PAGE_STRIDE, PageState, SLOTS};
use std::cell::RefCell;

/// Bytes of a block.
const BYTES: usize = BLOCK as usize;

thread_local! {
    /// A log of one page, all zeroes between two inputs.
    static IMAGE: RefCell<Vec<u8>> = RefCell::new(vec![0; BYTES + PAGE_STRIDE as usize]);
}

/// One execution.
pub fn run(data: &[u8]) {
    let _ = Geometry::decode_header(data);
    let mut input = Input(data);
    header(&mut input);
    page(&mut input);
    let geometry = Geometry {
        volume: uuid::Uuid::from_u128(3),
        size: 1 << 30,
        region_size: 65536,
    };
    let _ = geometry.page_in_image(data, u32::from(input.byte()), input.u64() >> 40);
    let _ = geometry.decode_pair(0, 0, &block::<BYTES>(data), data);
}

fn header(input: &mut Input) {
    let mut header = [0; BYTES];
    put(&mut header, 0, b"VMGRLOG\0");
    put(&mut header, 8, &input.array::<40>());
    let sum = crc32c::crc32c(&header[..508]);
    put(&mut header, 508, &sum.to_le_bytes());
    if let Ok(geometry) = Geometry::decode_header(&header) {
        assert_eq!(
            Geometry::decode_header(&geometry.encode_header()),
            Ok(geometry)
        );
        let end = geometry.log_bytes().expect("checked");
        if let Some(last) = geometry.pages().checked_sub(1) {
            assert_eq!(geometry.page_offset(SLOTS - 1, last, 1) + BLOCK, end);
        }
    }
}

/// A small volume's page, both blocks of it, in the fuzzer's words.
fn page(input: &mut Input) {
    let geometry = Geometry {
        volume: uuid::Uuid::from_u128(3),
        size: (u64::from(input.u16()) + 1) << 16,
        region_size: 1 << (12 + input.byte() % 8),
    };
    let slot = u32::from(input.byte() % 18);
    let mut pair = [[0; BYTES]; 2];
    for bytes in &mut pair {
        fill(input, &geometry, slot, bytes);
    }
    let state = geometry.decode_pair(slot, 0, &pair[0], &pair[1]);
    if slot < SLOTS {
        // In the place where it belongs the page is the same.
        IMAGE.with_borrow_mut(|image| {
            let at = geometry.page_offset(slot, 0, 0) as usize;
            image[at..at + 2 * BYTES].copy_from_slice(pair.as_flattened());
            assert_eq!(geometry.page_in_image(image, slot, 0), state);
            image[at..at + 2 * BYTES].fill(0);
        });
    }
    let PageState::Valid {
        sequence,
        block,
        bits,
    } = state
    else {
        return;
    };
    let again = geometry.encode_page(slot, 0, sequence, &bits);
    let now = geometry.decode_pair(slot, 0, &[], &again);
    assert!(
        matches!(now, PageState::Valid { sequence: s, bits: b, .. } if s == sequence && b == bits)
    );
    let sequence_at = |pair: &[u8; BYTES]| u64::from_le_bytes(super::block(&pair[24..32]));
    assert_eq!(sequence_at(&pair[usize::from(block)]), sequence);
    let mut map = RegionMap::new(geometry.size, geometry.region_size);
    map.merge_page(0, &bits);
    assert!(
        map.count() <= map.regions(),
        "bits beyond the end were believed"
    );
    assert!(map.bytes() <= geometry.size.next_multiple_of(geometry.region_size));
    let mut covered = 0;
    for run in map.runs(1 << 20) {
        assert!(run.end() <= geometry.size && !run.is_empty());
        covered += run.len();
    }
    assert!(covered <= map.bytes() && covered + geometry.region_size > map.bytes());
}

fn fill(input: &mut Input, geometry: &Geometry, slot: u32, bytes: &mut [u8; BYTES]) {
    let kind = input.byte();
    if kind & 1 == 0 {
        return;
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
    let at = 64 + usize::from(input.u16()) % (BYTES - 64 - 255);
    put(bytes, at, bits);
    let sum = crc32c::crc32c(&bytes[..]);
    put(bytes, 60, &sum.to_le_bytes());
    if kind & 4 != 0 {
        bytes[usize::from(input.u16()) % BYTES] ^= input.byte();
    }
}
