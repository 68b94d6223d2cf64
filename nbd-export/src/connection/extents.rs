//! From what the device knows of its allocation to a block status reply.

use blockio::ByteRange;

/// A run of bytes of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Where on the volume.
    pub range: ByteRange,
    /// As its context defines it.
    state: u32,
}

impl Extent {
    /// In `base:allocation`. `hole`: nothing is allocated there; `zero`: it reads as zeroes.
    pub fn allocation(range: ByteRange, hole: bool, zero: bool) -> Self {
        let state = u32::from(hole) | u32::from(zero) << 1;
        Self { range, state }
    }

    /// In `qemu:dirty-bitmap:…`.
    pub fn changed(range: ByteRange, changed: bool) -> Self {
        let state = u32::from(changed);
        Self { range, state }
    }

    /// The state on the wire.
    pub fn state(self) -> u32 {
        self.state
    }
}

/// `(bytes, state)` of each extent of a reply for `asked`: in order, without gaps, clipped,
/// neighbours of one kind joined, at most `limit`.
///
/// What `known` leaves out between its extents is data (state 0); where it ends, the reply ends, unless it
/// would be empty: then everything is data.
pub(super) fn reply_extents(known: &[Extent], asked: ByteRange, limit: usize) -> Vec<(u32, u32)> {
    let mut found: Vec<(u32, u32)> = Vec::new();
    let mut cursor = asked.start();
    for extent in known {
        let start = extent.range.start().clamp(cursor, asked.end());
        let end = extent.range.end().clamp(start, asked.end());
        let (gap, rest) = (start - cursor, end - start);
        for (len, state) in [(gap, 0), (rest, extent.state())] {
            // `asked` came from 32 bits, so no part of it is longer.
            let len = u32::try_from(len).unwrap_or(u32::MAX);
            let full = found.len() == limit;
            match found.last_mut() {
                _ if len == 0 => {}
                Some((before, same)) if *same == state => *before += len,
                _ if full => return found,
                _ => found.push((len, state)),
            }
        }
        cursor = end;
    }
    if found.is_empty() {
        found.push((u32::try_from(asked.len()).unwrap_or(u32::MAX), 0));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn extent(start: u64, len: u64, hole: bool) -> Extent {
        Extent::allocation(ByteRange::new(start, len), hole, hole)
    }

    #[test]
    fn nothing_known_is_data() {
        assert_eq!(reply_extents(&[], ByteRange::new(5, 10), 9), [(10, 0)]);
    }

    #[test]
    fn neighbours_join_gaps_are_data_and_the_ends_are_clipped() {
        let known = [
            extent(0, 10, true),
            extent(10, 10, true),
            extent(30, 10, false),
            extent(40, 100, true),
        ];
        assert_eq!(
            reply_extents(&known, ByteRange::new(5, 45), 9),
            [(15, 3), (20, 0), (10, 3)]
        );
        assert_eq!(reply_extents(&known, ByteRange::new(5, 45), 1), [(15, 3)]);
    }

    proptest! {
        /// Against a map of single bytes.
        #[test]
        fn equals_the_map(
            runs in proptest::collection::vec((0u64..6, 1u64..8, any::<bool>(), any::<bool>()), 0..9),
            start in 0u64..40, len in 1u64..40, limit in 1usize..6,
        ) {
            let mut known = Vec::new();
            let mut map = [0u32; 256];
            let mut at = 0;
            for (gap, len, hole, zero) in runs {
                at += gap;
                known.push(Extent::allocation(ByteRange::new(at, len), hole, zero));
                map[at as usize..(at + len) as usize].fill(u32::from(hole) | u32::from(zero) << 1);
                at += len;
            }
            let found = reply_extents(&known, ByteRange::new(start, len), limit);
            prop_assert!(!found.is_empty() && found.len() <= limit);
            let mut cursor = start as usize;
            for (len, state) in &found {
                prop_assert!(*len > 0);
                for byte in &map[cursor..cursor + *len as usize] {
                    prop_assert_eq!(byte, state);
                }
                cursor += *len as usize;
            }
            prop_assert!(cursor as u64 <= start + len);
            if found.len() < limit && at > start {
                prop_assert_eq!(cursor as u64, (start + len).min(at));
            }
        }
    }
}
