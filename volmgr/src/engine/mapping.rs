//! From a range of the volume to ranges of a plex's disks.

use super::{DiskId, DiskRange, Piece};
use blockio::ByteRange;

impl Piece {
    /// Bytes of the plex that this piece holds.
    pub fn len(&self) -> u64 {
        match self {
            Piece::Concat(at) => at.range.len(),
            Piece::Striped { columns, .. } => columns.iter().map(|c| c.range.len()).sum(),
        }
    }

    /// No bytes at all?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The disk ranges behind `range` of a plex, in order; `f` gets the volume range of each. Says
/// whether the whole range is mapped.
pub(crate) fn segments(
    map: &[Piece],
    range: ByteRange,
    mut f: impl FnMut(ByteRange, DiskRange),
) -> bool {
    let mut base = 0;
    let mut done = 0;
    for piece in map {
        let len = piece.len();
        let here = ByteRange::new(base, len).intersection(range);
        base += len;
        let Some(here) = here else { continue };
        done += here.len();
        let within = here.start() - (base - len);
        match piece {
            Piece::Concat(at) => f(here, sub(*at, within, here.len())),
            Piece::Striped {
                stripe_size,
                columns,
            } => {
                let (mut at, mut left) = (within, here.len());
                while left > 0 {
                    let stripe = at / stripe_size;
                    let inside = at % stripe_size;
                    let len = left.min(stripe_size - inside);
                    let column = columns[(stripe % columns.len() as u64) as usize];
                    let offset = stripe / columns.len() as u64 * stripe_size + inside;
                    let volume = ByteRange::new(here.start() + (at - within), len);
                    f(volume, sub(column, offset, len));
                    at += len;
                    left -= len;
                }
            }
        }
    }
    done == range.len()
}

fn sub(at: DiskRange, offset: u64, len: u64) -> DiskRange {
    DiskRange {
        disk: at.disk,
        range: ByteRange::new(at.range.start() + offset, len),
    }
}

/// Every disk of a plex, once.
pub(crate) fn disks(map: &[Piece], out: &mut Vec<DiskId>) {
    for piece in map {
        let ranges = match piece {
            Piece::Concat(at) => std::slice::from_ref(at),
            Piece::Striped { columns, .. } => columns,
        };
        for at in ranges {
            if !out.contains(&at.disk) {
                out.push(at.disk);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(disk: u32, start: u64, len: u64) -> DiskRange {
        DiskRange {
            disk: DiskId(disk),
            range: ByteRange::new(start, len),
        }
    }

    #[test]
    fn a_stripe_goes_round_its_columns() {
        let map = [Piece::Striped {
            stripe_size: 4,
            columns: vec![at(0, 100, 8), at(1, 200, 8)],
        }];
        let mut got = Vec::new();
        assert!(segments(&map, ByteRange::new(2, 12), |v, d| got.push((v, d))));
        assert_eq!(
            got,
            [
                (ByteRange::new(2, 2), at(0, 102, 2)),
                (ByteRange::new(4, 4), at(1, 200, 4)),
                (ByteRange::new(8, 4), at(0, 104, 4)),
                (ByteRange::new(12, 2), at(1, 204, 2)),
            ]
        );
        assert!(!segments(&map, ByteRange::new(12, 8), |_, _| {}));
    }

    proptest! {
        #[test]
        fn every_byte_has_its_own_place(start in 0u64..40, len in 1u64..24) {
            let map = [
                Piece::Concat(at(0, 7, 16)),
                Piece::Striped { stripe_size: 4, columns: vec![at(0, 64, 8), at(1, 0, 8), at(2, 0, 8)] },
                Piece::Concat(at(1, 100, 24)),
            ];
            let byte = |n: u64| {
                let mut place = None;
                segments(&map, ByteRange::new(n, 1), |_, d| place = Some((d.disk, d.range.start())));
                place.unwrap()
            };
            let mut next = start;
            let whole = segments(&map, ByteRange::new(start, len), |v, d| {
                assert_eq!((v.start(), v.len()), (next, d.range.len()));
                for i in 0..v.len() { assert_eq!(byte(next + i), (d.disk, d.range.start() + i)); }
                next = v.end();
            });
            prop_assert!(whole && next == start + len);
            let mut seen = std::collections::HashSet::new();
            for n in 0..64 { prop_assert!(seen.insert(byte(n))); }
        }
    }
}
