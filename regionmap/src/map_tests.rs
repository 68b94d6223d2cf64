//! The map against a `Vec<bool>`.

use super::*;
use proptest::prelude::*;

const REGION: u64 = 4096;

#[derive(Clone, Debug)]
enum Op {
    Set(u64, u64),
    Clear(u64, u64),
    SetAll,
    ClearAll,
    Region(u64),
    Grow(u64),
    Union(u64, u64, bool),
    Subtract(u64, u64),
}

fn op() -> impl Strategy<Value = Op> {
    // Up to three pages; ranges short, or long enough to cover whole pages.
    let at = 0..3 * PAGE_REGIONS * REGION;
    let len = prop_oneof![0..5 * REGION, 0..2 * PAGE_REGIONS * REGION];
    prop_oneof![
        6 => (at.clone(), len.clone()).prop_map(|(a, l)| Op::Set(a, l)),
        6 => (at.clone(), len.clone()).prop_map(|(a, l)| Op::Clear(a, l)),
        1 => Just(Op::SetAll),
        1 => Just(Op::ClearAll),
        2 => (0..3 * PAGE_REGIONS).prop_map(Op::Region),
        1 => (0..PAGE_REGIONS * REGION).prop_map(Op::Grow),
        2 => (at.clone(), len.clone(), any::<bool>()).prop_map(|(a, l, i)| Op::Union(a, l, i)),
        1 => (at, len).prop_map(|(a, l)| Op::Subtract(a, l)),
    ]
}

fn touched(len: usize, range: ByteRange) -> std::ops::Range<usize> {
    let first = (range.start() / REGION) as usize;
    let end = (range.end().div_ceil(REGION) as usize).min(len);
    if range.is_empty() {
        0..0
    } else {
        first.min(end)..end
    }
}

fn fill(model: &mut [bool], range: ByteRange, value: bool) {
    let touched = touched(model.len(), range);
    model[touched].fill(value);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn behaves_like_a_vec_of_bool(
        size in 1..2 * PAGE_REGIONS * REGION,
        ops in prop::collection::vec(op(), 1..16),
        probes in prop::collection::vec((0..3 * PAGE_REGIONS * REGION, 1..40 * REGION), 8),
    ) {
        let mut map = RegionMap::new(size, REGION);
        let mut model = vec![false; size.div_ceil(REGION) as usize];
        // What a log would hold that is only told of changed pages.
        let mut logged: BTreeMap<u64, Box<PageBits>> = BTreeMap::new();
        for op in ops {
            let clip = |a: u64, l: u64| {
                let size = map.size();
                ByteRange::new(a.min(size), l.min(size - a.min(size)))
            };
            match op {
                Op::Set(a, l) => { let r = clip(a, l); map.set_range(r); fill(&mut model, r, true); }
                Op::Clear(a, l) => { let r = clip(a, l); map.clear_range(r); fill(&mut model, r, false); }
                Op::SetAll => { map.set_all(); model.fill(true); }
                Op::ClearAll => { map.clear_all(); model.fill(false); }
                Op::Region(r) => { map.clear_region(r); if let Some(b) = model.get_mut(r as usize) { *b = false; } }
                Op::Grow(by) => {
                    let size = map.size() + by;
                    map.grow(size);
                    model.resize(size.div_ceil(REGION) as usize, false);
                }
                Op::Union(a, l, inverse) => {
                    let r = clip(a, l);
                    let mut other = RegionMap::new(map.size(), REGION);
                    let mut bits = vec![inverse; model.len()];
                    if inverse { other.set_all(); other.clear_range(r); } else { other.set_range(r); }
                    fill(&mut bits, r, !inverse);
                    map.union(&other);
                    for (m, b) in model.iter_mut().zip(bits) { *m |= b; }
                }
                Op::Subtract(a, l) => {
                    let r = clip(a, l);
                    let mut other = RegionMap::new(map.size(), REGION);
                    other.set_range(r);
                    map.subtract(&other);
                    fill(&mut model, r, false);
                }
            }
            prop_assert_eq!(map.count(), model.iter().filter(|b| **b).count() as u64);
            while let Some(page) = map.take_changed_page() {
                logged.insert(page, map.page_bits(page));
            }
        }
        for (i, bit) in model.iter().enumerate() {
            prop_assert_eq!(map.is_set(i as u64), *bit);
        }
        let mut runs = vec![false; model.len()];
        for run in map.runs(7 * REGION) {
            prop_assert!(run.len() <= 7 * REGION && run.end() <= map.size());
            fill(&mut runs, run, true);
        }
        prop_assert_eq!(&runs, &model);
        for (at, len) in probes {
            let range = ByteRange::new(at, len);
            let hit = &model[touched(model.len(), range)];
            prop_assert_eq!(map.any_in(range), hit.contains(&true));
            prop_assert_eq!(map.all_in(range), !hit.contains(&false));
        }
        let mut read = RegionMap::new(map.size(), REGION);
        for (page, bits) in &logged { read.merge_page(*page, bits); }
        prop_assert!(read == map);
    }
}

#[test]
fn a_full_pebibyte_costs_nothing() {
    let mut map = RegionMap::new(1 << 50, 65536);
    map.set_all();
    assert_eq!(map.count(), 1 << 34);
    assert_eq!(map.pages.len(), 0);
    map.clear_region(1 << 33);
    assert_eq!(map.pages.len(), 1);
    assert_eq!(map.count(), (1 << 34) - 1);
    assert_eq!(
        map.next_run((1 << 33) * 65536, 1 << 20),
        Some(ByteRange::new(((1 << 33) + 1) * 65536, 1 << 20))
    );
}

#[test]
fn bits_beyond_the_volume_are_not_believed() {
    let mut map = RegionMap::new(10 * REGION, REGION);
    map.merge_page(0, &[u64::MAX; PAGE_WORDS]);
    map.merge_page(7, &[u64::MAX; PAGE_WORDS]);
    assert_eq!(map.count(), 10);
}
