//! A record of a metadata area: 128 bytes of header, then a JSON payload, padded with zeroes to
//! 4096.
//!
//! Layout of the header (little endian; UUIDs in the byte order of their text):
//!
//! | offset | bytes | field |
//! | ---: | ---: | --- |
//! | 0 | 8 | magic `volmgrMR` |
//! | 8 | 4 | format version, 1 |
//! | 12 | 4 | kind: 1 snapshot, 2 delta |
//! | 16 | 16 | group UUID |
//! | 32 | 8 | sequence number of the commit, below 2^63 |
//! | 40 | 16 | commit UUID |
//! | 56 | 16 | UUID of the commit before it, zero for a group's first |
//! | 72 | 8 | length of the payload in bytes |
//! | 80 | 4 | crc32c of the payload |
//! | 84 | 40 | reserved, zero |
//! | 124 | 4 | crc32c of the 124 bytes before |

use crate::bytes::{array_at, put, u32_at, u64_at, uuid_at};
use crate::model::Group;
use thiserror::Error;
use uuid::Uuid;

/// First bytes of a record.
pub const RECORD_MAGIC: [u8; 8] = *b"volmgrMR";
/// The format version that this code writes, and the only one it reads.
pub const RECORD_VERSION: u32 = 1;
/// Size in bytes of the header.
pub const HEADER_BYTES: usize = 128;
/// Records start and end at multiples of this many bytes, so that appending one never rewrites a
/// physical block of the one before.
pub const RECORD_ALIGN: u64 = 4096;

const AT_VERSION: usize = 8;
const AT_KIND: usize = 12;
const AT_GROUP: usize = 16;
const AT_SEQNO: usize = 32;
const AT_COMMIT: usize = 40;
const AT_PREVIOUS: usize = 56;
const AT_LEN: usize = 72;
const AT_PAYLOAD_CRC: usize = 80;
const AT_RESERVED: usize = 84;
const AT_CRC: usize = 124;

/// What the payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    /// The whole group.
    Snapshot = 1,
    /// What changed since the commit before.
    Delta = 2,
}

/// A record's header, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// What the payload is.
    pub kind: RecordKind,
    /// The group.
    pub group: Uuid,
    /// Sequence number of the commit.
    pub seqno: u64,
    /// Identity of the commit.
    pub commit: Uuid,
    /// The commit before it, nil for a group's first.
    pub previous: Uuid,
    /// Length of the payload in bytes.
    pub payload_len: u64,
    /// crc32c of the payload.
    pub payload_crc: u32,
}

/// Why bytes are no record.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RecordError {
    /// No magic: nothing was written here.
    #[error("no record")]
    NoMagic,
    /// The bytes end before the record does.
    #[error("the record is cut short")]
    Short,
    /// Written by a newer or unknown program.
    #[error("record format version {version} is not known here ({RECORD_VERSION} is)")]
    Version {
        /// The version found.
        version: u32,
    },
    /// The header's checksum is wrong.
    #[error("the record's header has a wrong checksum")]
    HeaderChecksum,
    /// The payload's checksum is wrong.
    #[error("the record's payload has a wrong checksum")]
    PayloadChecksum,
    /// The checksum is right, a field is not.
    #[error("the record's field {field} makes no sense")]
    Field {
        /// Name of the field.
        field: &'static str,
    },
    /// The payload is not what the header says it is.
    #[error("the record's payload makes no sense: {reason}")]
    Payload {
        /// Where it stops making sense.
        reason: String,
    },
}

impl RecordHeader {
    /// Length of the whole record on the disk in bytes, saturating.
    pub fn record_len(&self) -> u64 {
        (HEADER_BYTES as u64)
            .saturating_add(self.payload_len)
            .checked_next_multiple_of(RECORD_ALIGN)
            .unwrap_or(u64::MAX)
    }

    /// Reads a header from the first [`HEADER_BYTES`] bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let short = RecordError::Short;
        if array_at(bytes, 0).ok_or(short.clone())? != RECORD_MAGIC {
            return Err(RecordError::NoMagic);
        }
        let version = u32_at(bytes, AT_VERSION).ok_or(short.clone())?;
        if version != RECORD_VERSION {
            return Err(RecordError::Version { version });
        }
        let header: [u8; HEADER_BYTES] = array_at(bytes, 0).ok_or(short.clone())?;
        let crc = u32_at(&header, AT_CRC).ok_or(short.clone())?;
        if crc32c::crc32c(&header[..AT_CRC]) != crc {
            return Err(RecordError::HeaderChecksum);
        }
        if header[AT_RESERVED..AT_CRC].iter().any(|b| *b != 0) {
            return Err(RecordError::Field { field: "reserved" });
        }
        let kind = match u32_at(&header, AT_KIND).ok_or(short.clone())? {
            1 => RecordKind::Snapshot,
            2 => RecordKind::Delta,
            _ => return Err(RecordError::Field { field: "kind" }),
        };
        let uuid = |at| uuid_at(&header, at).ok_or(short.clone());
        let number = |at| u64_at(&header, at).ok_or(short.clone());
        let seqno = number(AT_SEQNO)?;
        if seqno > Group::SEQNO_MAX {
            let field = "sequence number";
            return Err(RecordError::Field { field });
        }
        Ok(Self {
            kind,
            group: uuid(AT_GROUP)?,
            seqno,
            commit: uuid(AT_COMMIT)?,
            previous: uuid(AT_PREVIOUS)?,
            payload_len: number(AT_LEN)?,
            payload_crc: u32_at(&header, AT_PAYLOAD_CRC).ok_or(short.clone())?,
        })
    }

    /// The whole record on the disk. Sets length and checksum from the payload.
    pub fn encode(&self, payload: &[u8]) -> Vec<u8> {
        let len = (HEADER_BYTES + payload.len()).next_multiple_of(RECORD_ALIGN as usize);
        let mut bytes = vec![0; len];
        let kind: u32 = match self.kind {
            RecordKind::Snapshot => 1,
            RecordKind::Delta => 2,
        };
        put(&mut bytes, 0, &RECORD_MAGIC);
        put(&mut bytes, AT_VERSION, &RECORD_VERSION.to_le_bytes());
        put(&mut bytes, AT_KIND, &kind.to_le_bytes());
        put(&mut bytes, AT_GROUP, self.group.as_bytes());
        put(&mut bytes, AT_SEQNO, &self.seqno.to_le_bytes());
        put(&mut bytes, AT_COMMIT, self.commit.as_bytes());
        put(&mut bytes, AT_PREVIOUS, self.previous.as_bytes());
        put(&mut bytes, AT_LEN, &(payload.len() as u64).to_le_bytes());
        let payload_crc = crc32c::crc32c(payload);
        put(&mut bytes, AT_PAYLOAD_CRC, &payload_crc.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..AT_CRC]);
        put(&mut bytes, AT_CRC, &crc.to_le_bytes());
        put(&mut bytes, HEADER_BYTES, payload);
        bytes
    }

    /// The payload in the bytes of a whole record, its checksum checked.
    pub fn payload<'a>(&self, record: &'a [u8]) -> Result<&'a [u8], RecordError> {
        let payload = usize::try_from(self.payload_len)
            .ok()
            .and_then(|len| record.get(HEADER_BYTES..HEADER_BYTES.checked_add(len)?))
            .ok_or(RecordError::Short)?;
        if crc32c::crc32c(payload) != self.payload_crc {
            return Err(RecordError::PayloadChecksum);
        }
        Ok(payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(payload: &[u8]) -> RecordHeader {
        RecordHeader {
            kind: RecordKind::Delta,
            group: Uuid::from_u128(1),
            seqno: 7,
            commit: Uuid::from_u128(2),
            previous: Uuid::from_u128(3),
            payload_len: payload.len() as u64,
            payload_crc: crc32c::crc32c(payload),
        }
    }

    #[test]
    fn round_trip() {
        for len in [0, 1, 3968, 3969, 10_000] {
            let payload = vec![7; len];
            let record = header(&payload).encode(&payload);
            let read = RecordHeader::decode(&record).unwrap();
            assert_eq!(read, header(&payload));
            assert_eq!(read.record_len(), record.len() as u64);
            assert_eq!(read.payload(&record), Ok(payload.as_slice()));
        }
    }

    #[test]
    fn an_unknown_version_is_refused_before_the_body() {
        let mut record = header(b"x").encode(b"x");
        record[AT_VERSION] = 9;
        let expected = Err(RecordError::Version { version: 9 });
        assert_eq!(RecordHeader::decode(&record[..12]), expected);
    }

    proptest! {
        #[test]
        fn every_changed_byte_is_noticed(at in 0usize..228, change in 1u8..) {
            let payload = vec![5; 100];
            let mut record = header(&payload).encode(&payload);
            record[at] ^= change;
            let read = RecordHeader::decode(&record).and_then(|h| h.payload(&record).map(drop));
            prop_assert!(read.is_err());
        }

        #[test]
        fn nonsense_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300), len: u64) {
            prop_assert!(RecordHeader::decode(&bytes).is_err());
            let header = RecordHeader { payload_len: len, ..header(b"") };
            let sealed = header.encode(b"");
            header.payload(&sealed).ok();
            header.record_len();
        }
    }
}
