//! Where ranges lie.

use super::*;
use blockio::ByteRange;

fn request(stripes: u32, extents: u64) -> VolumeRequest {
    VolumeRequest {
        stripes,
        ..VolumeRequest::new("lv", extents * EXTENT_DEFAULT)
    }
}

#[test]
fn a_range_over_two_subdisks_is_told_as_two_places() {
    let group = create(&group(&[20, 20]), &request(1, 24)).unwrap();
    let volume = group.volume("lv").unwrap();
    let plex = &volume.plexes[0];
    assert_eq!(plex.subdisks.len(), 2);
    let extent = group.extent_size;
    let first = plex.subdisks[0].extents * extent;
    let start = |n: usize| {
        let subdisk = &plex.subdisks[n];
        group.pv(subdisk.pv).unwrap().data_start + subdisk.pv_extent * extent
    };
    let found = places(&group, plex, ByteRange::new(first - 4096, 12288)).unwrap();
    let expected = [
        Place {
            subdisk: 0,
            pv: plex.subdisks[0].pv,
            range: ByteRange::new(start(0) + first - 4096, 4096),
        },
        Place {
            subdisk: 1,
            pv: plex.subdisks[1].pv,
            range: ByteRange::new(start(1), 8192),
        },
    ];
    assert_eq!(found, expected);
    assert_eq!(
        places(&group, plex, ByteRange::new(0, 4096)).unwrap().len(),
        1
    );
}

#[test]
fn stripes_alternate_between_columns() {
    let group = create(&group(&[20, 20]), &request(2, 8)).unwrap();
    let plex = &group.volume("lv").unwrap().plexes[0];
    let found = places(&group, plex, ByteRange::new(60 << 10, 72 << 10)).unwrap();
    let columns: Vec<usize> = found.iter().map(|place| place.subdisk).collect();
    let lengths: Vec<u64> = found.iter().map(|place| place.range.len()).collect();
    assert_eq!(columns, [0, 1, 0]);
    assert_eq!(lengths, [4 << 10, 64 << 10, 4 << 10]);
    // The second stripe of a column follows its first.
    assert_eq!(found[2].range.start(), found[0].range.end());
}
