//! The label: one 4 KiB block that makes a disk a PV, at the front and again at the end.
//!
//! Layout (little endian; UUIDs in the byte order of their text):
//!
//! | offset | bytes | field |
//! | ---: | ---: | --- |
//! | 0 | 8 | magic `volmgrPV` |
//! | 8 | 4 | format version, 1 |
//! | 12 | 4 | crc32c of the 4096 bytes with this field zero |
//! | 16 | 16 | PV UUID |
//! | 32 | 16 | group UUID, zero where the PV belongs to none |
//! | 48 | 8 | size of the PV in bytes |
//! | 56 | 8 | extent size in bytes, zero where the PV belongs to no group |
//! | 64 | 8 | start of extent 0 in bytes |
//! | 72 | 8 + 8 | front metadata area: start, length in bytes |
//! | 88 | 8 + 8 | back metadata area: start, length in bytes |
//! | 104 | 3992 | reserved, zero |
//!
//! The label is rewritten when the PV joins or leaves a group: first the front copy, then the back
//! copy, each synced, so that one of them is always intact.
//!
//! # Example
//!
//! ```
//! use uuid::Uuid;
//! use volmgr::label::{EXTENT_DEFAULT, Geometry, Label};
//!
//! let geometry = Geometry::plan(1 << 30, EXTENT_DEFAULT)?;
//! let label = Label::new(Uuid::from_u128(7), &geometry);
//! let mut bytes = label.encode();
//! assert_eq!(Label::decode(&bytes)?, label);
//! bytes[100] ^= 1;
//! assert!(Label::decode(&bytes).is_err(), "the checksum is wrong");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod geometry;

pub use geometry::{
    AREA_MAX, AREA_MIN, EXTENT_DEFAULT, EXTENT_MAX, EXTENT_MIN, FRONT_AREA, FRONT_LABEL, Geometry,
    LABEL_BYTES, TooSmall, back_label_offset,
};

use crate::bytes::{array_at, put, u32_at, u64_at, uuid_at};
use thiserror::Error;
use uuid::Uuid;

/// First bytes of a label.
pub const LABEL_MAGIC: [u8; 8] = *b"volmgrPV";
/// The format version that this code writes, and the only one it reads.
pub const LABEL_VERSION: u32 = 1;

const AT_VERSION: usize = 8;
const AT_CRC: usize = 12;
const AT_PV: usize = 16;
const AT_GROUP: usize = 32;
const AT_PV_SIZE: usize = 48;
const AT_EXTENT_SIZE: usize = 56;
const AT_DATA_START: usize = 64;
const AT_FRONT: usize = 72;
const AT_BACK: usize = 88;
const AT_RESERVED: usize = 104;

/// A metadata area on a PV, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    /// First byte.
    pub start: u64,
    /// Length.
    pub len: u64,
}

impl Area {
    /// One past the last byte; labels that were decoded have no overflow here.
    pub fn end(self) -> u64 {
        self.start.saturating_add(self.len)
    }
}

/// A PV's label, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// Identity of the PV.
    pub pv: Uuid,
    /// The group it belongs to, as of the last time it joined or left one.
    pub group: Option<Uuid>,
    /// Size of the PV in bytes.
    pub pv_size: u64,
    /// Size of the group's extents in bytes, zero without a group.
    pub extent_size: u64,
    /// Start of extent 0 in bytes.
    pub data_start: u64,
    /// The metadata areas, front and back.
    pub areas: [Area; 2],
}

/// Why a block is no label.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LabelError {
    /// No magic: probably no PV.
    #[error("no label")]
    NoMagic,
    /// Fewer than [`LABEL_BYTES`] bytes.
    #[error("the label is cut short: {len} bytes")]
    Short {
        /// Bytes there.
        len: usize,
    },
    /// Written by a newer or unknown program.
    #[error("label format version {version} is not known here ({LABEL_VERSION} is)")]
    Version {
        /// The version found.
        version: u32,
    },
    /// The checksum is wrong.
    #[error("the label's checksum is wrong")]
    Checksum,
    /// The checksum is right, a field is not.
    #[error("the label's field {field} makes no sense")]
    Field {
        /// Name of the field.
        field: &'static str,
    },
}

impl Label {
    /// The label of a new PV that belongs to no group yet.
    pub fn new(pv: Uuid, geometry: &Geometry) -> Self {
        Self {
            pv,
            group: None,
            pv_size: geometry.pv_size,
            extent_size: 0,
            data_start: geometry.data_start,
            areas: [
                Area {
                    start: FRONT_AREA,
                    len: geometry.area_len,
                },
                Area {
                    start: geometry.back_area,
                    len: geometry.area_len,
                },
            ],
        }
    }

    /// Number of whole extents of `extent_size` bytes that the PV has room for.
    pub fn extent_count(&self, extent_size: u64) -> u64 {
        self.areas[1]
            .start
            .saturating_sub(self.data_start)
            .checked_div(extent_size)
            .unwrap_or(0)
    }

    /// The bytes on the disk.
    pub fn encode(&self) -> [u8; LABEL_BYTES] {
        let mut bytes = [0; LABEL_BYTES];
        put(&mut bytes, 0, &LABEL_MAGIC);
        put(&mut bytes, AT_VERSION, &LABEL_VERSION.to_le_bytes());
        put(&mut bytes, AT_PV, self.pv.as_bytes());
        let group = self.group.unwrap_or(Uuid::nil());
        put(&mut bytes, AT_GROUP, group.as_bytes());
        put(&mut bytes, AT_PV_SIZE, &self.pv_size.to_le_bytes());
        put(&mut bytes, AT_EXTENT_SIZE, &self.extent_size.to_le_bytes());
        put(&mut bytes, AT_DATA_START, &self.data_start.to_le_bytes());
        for (at, area) in [AT_FRONT, AT_BACK].into_iter().zip(self.areas) {
            put(&mut bytes, at, &area.start.to_le_bytes());
            put(&mut bytes, at + 8, &area.len.to_le_bytes());
        }
        let crc = crc32c::crc32c(&bytes);
        put(&mut bytes, AT_CRC, &crc.to_le_bytes());
        debug_assert_eq!(Self::decode(&bytes).as_ref(), Ok(self));
        bytes
    }

    /// Reads a label from the first [`LABEL_BYTES`] bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, LabelError> {
        let short = LabelError::Short { len: bytes.len() };
        let magic: [u8; 8] = array_at(bytes, 0).ok_or(short.clone())?;
        if magic != LABEL_MAGIC {
            return Err(LabelError::NoMagic);
        }
        let version = u32_at(bytes, AT_VERSION).ok_or(short.clone())?;
        if version != LABEL_VERSION {
            return Err(LabelError::Version { version });
        }
        let mut block: [u8; LABEL_BYTES] = array_at(bytes, 0).ok_or(short.clone())?;
        let crc = u32_at(&block, AT_CRC).ok_or(short.clone())?;
        put(&mut block, AT_CRC, &[0; 4]);
        if crc32c::crc32c(&block) != crc {
            return Err(LabelError::Checksum);
        }
        if block[AT_RESERVED..] != [0; LABEL_BYTES - AT_RESERVED] {
            return Err(LabelError::Field { field: "reserved" });
        }
        let u64_field = |at| u64_at(&block, at).ok_or(short.clone());
        let group = uuid_at(&block, AT_GROUP).ok_or(short.clone())?;
        let mut areas = [Area { start: 0, len: 0 }; 2];
        for (at, area) in [AT_FRONT, AT_BACK].into_iter().zip(&mut areas) {
            *area = Area {
                start: u64_field(at)?,
                len: u64_field(at + 8)?,
            };
        }
        let label = Self {
            pv: uuid_at(&block, AT_PV).ok_or(short.clone())?,
            group: (!group.is_nil()).then_some(group),
            pv_size: u64_field(AT_PV_SIZE)?,
            extent_size: u64_field(AT_EXTENT_SIZE)?,
            data_start: u64_field(AT_DATA_START)?,
            areas,
        };
        label.check()?;
        Ok(label)
    }

    fn check(&self) -> Result<(), LabelError> {
        let field = |ok: bool, field| ok.then_some(()).ok_or(LabelError::Field { field });
        let [front, back] = self.areas;
        field(!self.pv.is_nil(), "PV UUID")?;
        for area in self.areas {
            let len = (AREA_MIN..=AREA_MAX).contains(&area.len) && area.len.is_power_of_two();
            field(len, "area length")?;
            field(area.start % LABEL_BYTES as u64 == 0, "area start")?;
        }
        field(front.start == FRONT_AREA, "front area")?;
        field(
            self.data_start >= front.end() && self.data_start.is_multiple_of(4096),
            "data start",
        )?;
        field(back.start >= self.data_start, "back area")?;
        let back_end = back.start.checked_add(back.len);
        field(
            back_end.is_some() && back_end == back_label_offset(self.pv_size),
            "PV size",
        )?;
        let extent_size = match self.group {
            None => self.extent_size == 0,
            Some(_) => valid_extent_size(self.extent_size),
        };
        field(extent_size, "extent size")
    }
}

/// Is this many bytes an extent?
pub fn valid_extent_size(bytes: u64) -> bool {
    bytes.is_power_of_two() && (EXTENT_MIN..=EXTENT_MAX).contains(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn label() -> Label {
        let geometry = Geometry::plan(64 << 20, EXTENT_DEFAULT).unwrap();
        let mut label = Label::new(Uuid::from_u128(7), &geometry);
        label.group = Some(Uuid::from_u128(9));
        label.extent_size = EXTENT_DEFAULT;
        label
    }

    /// The bytes with a right checksum, whatever else is wrong with them.
    fn sealed(mut bytes: [u8; LABEL_BYTES]) -> [u8; LABEL_BYTES] {
        put(&mut bytes, AT_CRC, &[0; 4]);
        let crc = crc32c::crc32c(&bytes);
        put(&mut bytes, AT_CRC, &crc.to_le_bytes());
        bytes
    }

    #[test]
    fn round_trip() {
        assert_eq!(Label::decode(&label().encode()), Ok(label()));
        let geometry = Geometry::for_pv(2 << 20).unwrap();
        let free = Label::new(Uuid::from_u128(1), &geometry);
        assert_eq!(Label::decode(&free.encode()), Ok(free));
    }

    #[test]
    fn an_unknown_version_is_refused_before_the_body() {
        let mut bytes = label().encode();
        bytes[AT_VERSION] = 2;
        assert_eq!(
            Label::decode(&bytes),
            Err(LabelError::Version { version: 2 })
        );
        assert_eq!(
            Label::decode(&bytes[..12]),
            Err(LabelError::Version { version: 2 })
        );
    }

    #[test]
    fn reserved_bytes_must_be_zero() {
        let mut bytes = label().encode();
        bytes[LABEL_BYTES - 1] = 1;
        assert_eq!(Label::decode(&bytes), Err(LabelError::Checksum));
        let error = Label::decode(&sealed(bytes)).unwrap_err();
        assert_eq!(error, LabelError::Field { field: "reserved" });
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let good = label().encode();
        for byte in 0..AT_RESERVED + 8 {
            for bit in 0..8 {
                let mut bytes = good;
                bytes[byte] ^= 1 << bit;
                assert!(Label::decode(&bytes).is_err(), "byte {byte} bit {bit}");
            }
        }
    }

    proptest! {
        #[test]
        fn sealed_nonsense_never_panics(at in 12usize..104, value: u64, len in 0usize..=LABEL_BYTES) {
            let mut bytes = label().encode();
            put(&mut bytes, at, &value.to_le_bytes());
            if let Ok(label) = Label::decode(&sealed(bytes)) {
                prop_assert!(label.areas[1].end() <= label.pv_size);
            }
            prop_assert!(Label::decode(&bytes[..len.min(LABEL_BYTES - 1)]).is_err());
        }

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..5000)) {
            prop_assert!(Label::decode(&bytes).is_err());
        }
    }
}
