//! Where things lie on a PV of a given size.

use thiserror::Error;

/// Offset in bytes of the front label. The bytes before it are zeroed when the PV is made, so that
/// no older signature is found there, and never written again.
pub const FRONT_LABEL: u64 = 4096;
/// Size in bytes of a label.
pub const LABEL_BYTES: usize = 4096;
/// Offset in bytes of the front metadata area.
pub const FRONT_AREA: u64 = 64 << 10;
/// Smallest extent in bytes.
pub const EXTENT_MIN: u64 = 64 << 10;
/// Largest extent in bytes.
pub const EXTENT_MAX: u64 = 1 << 30;
/// Extent size in bytes where nobody says otherwise.
pub const EXTENT_DEFAULT: u64 = 4 << 20;
/// Smallest metadata area in bytes.
pub const AREA_MIN: u64 = 256 << 10;
/// Largest metadata area in bytes: room for two snapshots of 10,000 volumes.
pub const AREA_MAX: u64 = 64 << 20;
/// Extent 0 starts at a multiple of this many bytes.
const DATA_ALIGN: u64 = 1 << 20;
/// An area takes at most one part in so many of the PV.
const AREA_SHARE: u64 = 1024;

/// The disk cannot hold labels, areas and one extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("too small: it has {have} bytes, {need} are needed")]
pub struct TooSmall {
    /// Bytes needed.
    pub need: u64,
    /// Bytes there.
    pub have: u64,
}

/// Where things lie on a PV; everything in bytes, except `extent_count`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Size of the PV.
    pub pv_size: u64,
    /// Length of each metadata area.
    pub area_len: u64,
    /// Start of the back area; the front one starts at [`FRONT_AREA`].
    pub back_area: u64,
    /// Start of the back label.
    pub back_label: u64,
    /// Start of extent 0.
    pub data_start: u64,
    /// Whole extents between `data_start` and the back area.
    pub extent_count: u64,
}

impl Geometry {
    /// Plans a PV of `pv_size` bytes with extents of `extent_size` bytes.
    ///
    /// Only `extent_count` depends on the extent size: a PV is made before its group is known.
    pub fn plan(pv_size: u64, extent_size: u64) -> Result<Self, TooSmall> {
        let share = (pv_size / AREA_SHARE).max(1);
        // The largest power of two that is not larger than the share.
        let area_len = (1 << share.ilog2()).clamp(AREA_MIN, AREA_MAX);
        Self::with_area(pv_size, extent_size, area_len)
    }

    /// As [`Geometry::plan`], for the smallest extents: can this be a PV at all?
    pub fn for_pv(pv_size: u64) -> Result<Self, TooSmall> {
        Self::plan(pv_size, EXTENT_MIN)
    }

    /// As [`Geometry::plan`], for a PV whose areas have this length already.
    pub fn with_area(pv_size: u64, extent_size: u64, area_len: u64) -> Result<Self, TooSmall> {
        debug_assert!(extent_size.is_power_of_two());
        let label = LABEL_BYTES as u64;
        let data_start = (FRONT_AREA + area_len).next_multiple_of(DATA_ALIGN);
        let need = data_start + extent_size + area_len + label;
        let too_small = TooSmall {
            need,
            have: pv_size,
        };
        let usable = pv_size & !(label - 1);
        if usable < need {
            return Err(too_small);
        }
        let back_label = usable - label;
        let back_area = back_label - area_len;
        let extent_count = (back_area - data_start) / extent_size;
        debug_assert!(extent_count > 0);
        Ok(Self {
            pv_size,
            area_len,
            back_area,
            back_label,
            data_start,
            extent_count,
        })
    }
}

/// Where the back label of a disk of this size is, if the disk has room for one.
pub fn back_label_offset(pv_size: u64) -> Option<u64> {
    let label = LABEL_BYTES as u64;
    (pv_size & !(label - 1))
        .checked_sub(label)
        .filter(|at| *at > FRONT_LABEL)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn small_and_large() {
        let small = Geometry::for_pv(4 << 20).unwrap();
        assert_eq!(small.area_len, AREA_MIN);
        assert_eq!(small.data_start, 1 << 20);
        let large = Geometry::plan(4 << 40, EXTENT_DEFAULT).unwrap();
        assert_eq!(large.area_len, AREA_MAX);
        assert_eq!(large.data_start % DATA_ALIGN, 0);
    }

    #[test]
    fn the_error_names_a_size_that_suffices() {
        let error = Geometry::plan(100, EXTENT_DEFAULT).unwrap_err();
        assert_eq!(error.have, 100);
        assert!(Geometry::plan(error.need, EXTENT_DEFAULT).is_ok());
        assert!(Geometry::plan(error.need - 1, EXTENT_DEFAULT).is_err());
    }

    proptest! {
        #[test]
        fn nothing_overlaps(pv_size in 0u64..1 << 44, shift in 16u32..=30) {
            let extent = 1u64 << shift;
            if let Ok(g) = Geometry::plan(pv_size, extent) {
                prop_assert!(FRONT_LABEL + LABEL_BYTES as u64 <= FRONT_AREA);
                prop_assert!(FRONT_AREA + g.area_len <= g.data_start);
                prop_assert!(g.data_start + g.extent_count * extent <= g.back_area);
                prop_assert!(g.back_area + g.area_len <= g.back_label);
                prop_assert!(g.back_label + LABEL_BYTES as u64 <= pv_size);
                prop_assert_eq!(Some(g.back_label), back_label_offset(pv_size));
            }
        }
    }
}
