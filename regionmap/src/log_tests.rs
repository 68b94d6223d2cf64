//! The log's blocks: golden bytes, torn updates, foreign bytes.

use super::*;
use crate::RegionMap;
use blockio::ByteRange;
use proptest::prelude::*;

const GEO: Geometry = Geometry {
    volume: Uuid::from_u128(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff),
    size: 3 << 30,
    region_size: 65536,
};

fn image(dirty: &[u32]) -> Vec<u8> {
    let mut image = vec![0xa5; GEO.log_bytes().unwrap() as usize];
    for (at, bytes) in GEO.format(dirty) {
        image[at as usize..at as usize + bytes.len()].copy_from_slice(&bytes);
    }
    image
}

fn bits() -> Box<PageBits> {
    let mut map = RegionMap::new(GEO.size, GEO.region_size);
    map.set_range(ByteRange::new(0, 1));
    map.set_range(ByteRange::new(65536 * 100, 65536 * 65));
    map.page_bits(0)
}

#[test]
fn golden_blocks() {
    let golden = include_bytes!("../tests/golden/log-v1.bin");
    let mut now = GEO.encode_header();
    now.extend(GEO.encode_page(3, 1, 0x0102_0304, &bits()));
    assert!(now == golden, "the format of the log changed");
    assert_eq!(Geometry::decode_header(golden), Ok(GEO));
    let PageState::Valid {
        sequence,
        block,
        bits: read,
    } = GEO.decode_pair(3, 1, &[0; 4096], &golden[4096..])
    else {
        panic!("golden page is not valid");
    };
    assert_eq!((sequence, block), (0x0102_0304, 1));
    assert_eq!(read, bits());
}

#[test]
fn size_is_as_agreed() {
    assert_eq!(GEO.pages(), 2);
    assert_eq!(GEO.log_bytes(), Some(4096 + 16 * 2 * 2 * 4096));
    assert_eq!(GEO.page_offset(15, 1, 1) + BLOCK, GEO.log_bytes().unwrap());
}

#[test]
fn a_formatted_log_is_clean_but_for_the_dirty_slots() {
    let image = image(&[5]);
    assert_eq!(Geometry::decode_header(&image), Ok(GEO));
    for page in 0..GEO.pages() {
        assert_eq!(GEO.page_in_image(&image, 0, page), PageState::Unwritten);
    }
    let mut map = RegionMap::new(GEO.size, GEO.region_size);
    for page in 0..GEO.pages() {
        let PageState::Valid { bits, .. } = GEO.page_in_image(&image, 5, page) else {
            panic!("slot 5 was to be dirty");
        };
        map.merge_page(page, &bits);
    }
    assert_eq!(map.count(), map.regions());
}

#[test]
fn growing_keeps_what_is_there() {
    let mut image = image(&[5]);
    let size = 5 << 30;
    let new = Geometry { size, ..GEO };
    image.resize(new.log_bytes().unwrap() as usize, 0x5a);
    for (at, bytes) in GEO.grow(size) {
        image[at as usize..at as usize + bytes.len()].copy_from_slice(&bytes);
    }
    assert_eq!(Geometry::decode_header(&image), Ok(new));
    assert!(matches!(
        new.page_in_image(&image, 5, 1),
        PageState::Valid { .. }
    ));
    assert_eq!(new.page_in_image(&image, 5, 2), PageState::Unwritten);
}

#[test]
fn a_torn_update_leaves_the_version_before() {
    let old = GEO.encode_page(2, 0, 7, &[1; PAGE_WORDS]);
    let new = GEO.encode_page(2, 0, 8, &[3; PAGE_WORDS]);
    for sectors in 0..=8 {
        // Block B held version 6 and is overwritten with version 8, up to some sector.
        let mut b = GEO.encode_page(2, 0, 6, &[7; PAGE_WORDS]);
        b[..sectors * 512].copy_from_slice(&new[..sectors * 512]);
        let PageState::Valid { sequence, .. } = GEO.decode_pair(2, 0, &old, &b) else {
            panic!("both versions lost after {sectors} sectors");
        };
        assert_eq!(sequence, if sectors == 8 { 8 } else { 7 });
    }
}

#[test]
fn damage_is_never_taken_for_clean() {
    let good = GEO.encode_page(2, 0, 7, &[1; PAGE_WORDS]);
    let mut bad = good.clone();
    bad[1000] ^= 1;
    assert_eq!(GEO.decode_pair(2, 0, &bad, &[0; 4096]), PageState::Lost);
    assert_eq!(GEO.decode_pair(2, 0, &bad, &bad), PageState::Lost);
    assert_eq!(GEO.decode_pair(2, 0, &[], &[]), PageState::Lost);
    // Right checksum, wrong place or wrong volume.
    assert_eq!(GEO.decode_pair(3, 0, &good, &good), PageState::Lost);
    assert_eq!(GEO.decode_pair(2, 1, &good, &good), PageState::Lost);
    let other = Geometry {
        volume: Uuid::nil(),
        ..GEO
    };
    assert_eq!(other.decode_pair(2, 0, &good, &good), PageState::Lost);
}

proptest! {
    #[test]
    fn any_damaged_bit_of_a_header_is_seen(bit in 0usize..512 * 8) {
        let mut header = GEO.encode_header();
        header[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(Geometry::decode_header(&header).is_err());
    }

    #[test]
    fn foreign_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..5000)) {
        prop_assert!(Geometry::decode_header(&bytes).is_err());
        let state = GEO.decode_pair(1, 0, &bytes, &bytes);
        let valid = matches!(state, PageState::Valid { .. });
        prop_assert!(!valid);
    }
}
