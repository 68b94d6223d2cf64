//! Requests and replies.

use super::{
    CommandFlags, DecodeError, REQUEST_MAGIC, Reader, SIMPLE_REPLY_MAGIC, STRUCTURED_REPLY_MAGIC,
};
use blockio::{IoError, IoErrorKind};
use std::ops::Deref;

/// A request without its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    /// Bits the client set, known or not.
    pub flags: CommandFlags,
    /// One of [`super::cmd`], or anything.
    pub command: u16,
    /// The client's name for the request; comes back in the reply.
    pub cookie: u64,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub len: u32,
}

impl RequestHeader {
    /// Length on the wire in bytes.
    pub const LEN: usize = 28;

    /// From the wire.
    pub fn decode(bytes: &[u8; Self::LEN]) -> Result<Self, DecodeError> {
        let mut reader = Reader(bytes);
        let magic = reader.u32()?;
        if magic != REQUEST_MAGIC {
            return Err(DecodeError::Magic(magic.into()));
        }
        Ok(Self {
            flags: CommandFlags::from_bits_retain(reader.u16()?),
            command: reader.u16()?,
            cookie: reader.u64()?,
            offset: reader.u64()?,
            len: reader.u32()?,
        })
    }

    /// To the wire.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[0..4].copy_from_slice(&REQUEST_MAGIC.to_be_bytes());
        bytes[4..6].copy_from_slice(&self.flags.bits().to_be_bytes());
        bytes[6..8].copy_from_slice(&self.command.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.cookie.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.offset.to_be_bytes());
        bytes[24..28].copy_from_slice(&self.len.to_be_bytes());
        bytes
    }
}

/// The protocol's own error numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum WireError {
    /// Not permitted: the export is read-only.
    Perm = 1,
    /// The medium failed.
    Io = 5,
    /// Out of memory.
    NoMemory = 12,
    /// The request is wrong.
    Invalid = 22,
    /// No space, or a write past the end.
    NoSpace = 28,
    /// A read cannot be answered in one piece.
    Overflow = 75,
    /// Zeroes cannot be written fast.
    NotSupported = 95,
    /// The server is going down.
    Shutdown = 108,
}

impl WireError {
    /// What the client is told about a device's error.
    ///
    /// `NotSupported` means something to clients after a fast write-zeroes only; elsewhere a
    /// device that cannot do what was asked is a request that is `Invalid`.
    pub fn from_io(error: IoError, fast_zero: bool) -> Self {
        match error.kind() {
            IoErrorKind::NoSpace => Self::NoSpace,
            IoErrorKind::Unsupported if fast_zero => Self::NotSupported,
            IoErrorKind::Unsupported | IoErrorKind::Invalid => Self::Invalid,
            IoErrorKind::ReadOnly => Self::Perm,
            IoErrorKind::Cancelled => Self::Shutdown,
            _ if error == IoError::from_errno(ENOMEM) => Self::NoMemory,
            _ => Self::Io,
        }
    }
}

/// Linux's number for it, which is the protocol's too.
const ENOMEM: i32 = 12;

/// The head of a reply, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header(Repr);

/// Short ones, which is all of the data path, need no allocation.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Repr {
    Inline { bytes: [u8; 40], len: u8 },
    Heap(Vec<u8>),
}

impl Header {
    fn join(parts: &[&[u8]]) -> Self {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let mut bytes = [0; 40];
        if len > bytes.len() {
            return Self(Repr::Heap(parts.concat()));
        }
        let mut at = 0;
        for part in parts {
            bytes[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        Self(Repr::Inline {
            bytes,
            len: at as u8,
        })
    }
}

impl Deref for Header {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline { bytes, len } => &bytes[..usize::from(*len)],
            Repr::Heap(bytes) => bytes,
        }
    }
}

/// A simple reply; a successful read's payload follows.
pub fn simple_reply(cookie: u64, error: Option<WireError>) -> Header {
    Header::join(&[
        &SIMPLE_REPLY_MAGIC.to_be_bytes(),
        &error.map_or(0, |error| error as u32).to_be_bytes(),
        &cookie.to_be_bytes(),
    ])
}

/// No further chunk answers this request.
const CHUNK_DONE: u16 = 1;
/// Data at an offset.
const CHUNK_OFFSET_DATA: u16 = 1;
/// Extents.
const CHUNK_BLOCK_STATUS: u16 = 5;
/// An error of the request.
const CHUNK_ERROR: u16 = (1 << 15) + 1;
/// An error at an offset.
const CHUNK_ERROR_OFFSET: u16 = (1 << 15) + 2;

fn chunk_head(cookie: u64, kind: u16, done: bool, len: u32) -> [u8; 20] {
    let mut bytes = [0; 20];
    bytes[0..4].copy_from_slice(&STRUCTURED_REPLY_MAGIC.to_be_bytes());
    bytes[4..6].copy_from_slice(&if done { CHUNK_DONE } else { 0 }.to_be_bytes());
    bytes[6..8].copy_from_slice(&kind.to_be_bytes());
    bytes[8..16].copy_from_slice(&cookie.to_be_bytes());
    bytes[16..20].copy_from_slice(&len.to_be_bytes());
    bytes
}

/// Head of a chunk with `len` bytes of data, which follow it. `len` is at most
/// [`super::MAX_PAYLOAD`].
pub fn offset_data(cookie: u64, offset: u64, len: u32, done: bool) -> Header {
    Header::join(&[
        &chunk_head(cookie, CHUNK_OFFSET_DATA, done, len.saturating_add(8)),
        &offset.to_be_bytes(),
    ])
}

/// The last chunk of a request that failed, at an offset where one is known.
pub fn error_chunk(cookie: u64, error: WireError, offset: Option<u64>) -> Header {
    let number = (error as u32).to_be_bytes();
    let no_message = 0u16.to_be_bytes();
    match offset {
        None => Header::join(&[
            &chunk_head(cookie, CHUNK_ERROR, true, 6),
            &number,
            &no_message,
        ]),
        Some(offset) => Header::join(&[
            &chunk_head(cookie, CHUNK_ERROR_OFFSET, true, 14),
            &number,
            &no_message,
            &offset.to_be_bytes(),
        ]),
    }
}

/// A chunk of a block status reply, one for each context: `(bytes, state)` of each extent, in order.
pub fn block_status(cookie: u64, context: u32, extents: &[(u32, u32)], done: bool) -> Header {
    let len = u32::try_from(4 + extents.len() * 8).expect("extents are bounded");
    let mut bytes = chunk_head(cookie, CHUNK_BLOCK_STATUS, done, len).to_vec();
    bytes.extend_from_slice(&context.to_be_bytes());
    for (len, state) in extents {
        bytes.extend_from_slice(&len.to_be_bytes());
        bytes.extend_from_slice(&state.to_be_bytes());
    }
    Header(Repr::Heap(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_kind_of_error_has_a_number() {
        let cases = [
            (IoErrorKind::Medium, WireError::Io),
            (IoErrorKind::Gone, WireError::Io),
            (IoErrorKind::NoSpace, WireError::NoSpace),
            (IoErrorKind::Unsupported, WireError::Invalid),
            (IoErrorKind::Invalid, WireError::Invalid),
            (IoErrorKind::ReadOnly, WireError::Perm),
            (IoErrorKind::Congested, WireError::Io),
            (IoErrorKind::Cancelled, WireError::Shutdown),
        ];
        for (kind, wire) in cases {
            assert_eq!(WireError::from_io(IoError::new(kind), false), wire);
        }
        let unsupported = IoError::new(IoErrorKind::Unsupported);
        assert_eq!(
            WireError::from_io(unsupported, true),
            WireError::NotSupported
        );
        assert_eq!(
            WireError::from_io(IoError::from_errno(ENOMEM), false),
            WireError::NoMemory
        );
    }

    #[test]
    fn replies_have_the_documented_bytes() {
        assert_eq!(
            simple_reply(0x0102_0304_0506_0708, Some(WireError::NoSpace))[..],
            [0x67, 0x44, 0x66, 0x98, 0, 0, 0, 28, 1, 2, 3, 4, 5, 6, 7, 8]
        );
        assert_eq!(
            offset_data(7, 0x1000, 512, true)[..],
            [
                0x66, 0x8e, 0x33, 0xef, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 2, 8, 0, 0, 0, 0,
                0, 0, 0x10, 0
            ]
        );
        assert_eq!(
            error_chunk(7, WireError::Io, Some(512))[..],
            [
                0x66, 0x8e, 0x33, 0xef, 0, 1, 0x80, 2, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 14, 0, 0,
                0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0
            ]
        );
        assert_eq!(
            block_status(7, 1, &[(4096, 3)], true)[16..],
            [0, 0, 0, 12, 0, 0, 0, 1, 0, 0, 0x10, 0, 0, 0, 0, 3]
        );
    }

    proptest! {
        #[test]
        fn request_headers_round_trip(
            flags: u16, command: u16, cookie: u64, offset: u64, len: u32, garbage: [u8; 28],
        ) {
            let header = RequestHeader {
                flags: CommandFlags::from_bits_retain(flags),
                command, cookie, offset, len,
            };
            prop_assert_eq!(RequestHeader::decode(&header.encode()), Ok(header));
            if let Ok(header) = RequestHeader::decode(&garbage) {
                prop_assert_eq!(header.encode(), garbage);
            }
        }
    }
}
