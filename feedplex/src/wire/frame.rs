//! The header of a frame on a data stream: 40 bytes, network byte order.
//!
//! ```text
//!  0 magic u32   4 command u16   6 flags u16   8 sequence u64   16 offset u64   24 length u64
//! 32 aux u32    36 crc32c u32 of the 36 bytes before it
//! ```
//!
//! A header that decodes is meaningful: the command is known, its flags are allowed for it, its
//! range does not overflow, and the payload that follows it is bounded. What it cannot know (the
//! size of the volume, the next sequence number) is the receiver's to check.

use bitflags::bitflags;
use thiserror::Error;

/// Length of an encoded header in bytes.
pub const HEADER_LEN: usize = 40;

/// First four bytes of every frame: `FPDX`.
pub const MAGIC: u32 = 0x4650_4458;

/// Most payload bytes behind one header.
pub const PAYLOAD_MAX: u64 = 32 << 20;

/// Payload bytes behind a [`Command::Mark`]: the point's UUID.
pub const MARK_PAYLOAD_LEN: u64 = 16;

/// What the sink is to do. Numbers are the format; 8 to 15 are reserved for `Read` (8),
/// `ReadReply` (9) and `Hash` (10) on data streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Command {
    /// Store the payload, `length` bytes, at `offset`.
    Write = 1,
    /// The range reads as zeroes from now on; no payload.
    WriteZeroes = 2,
    /// The content of the range is no longer needed; no payload.
    Trim = 3,
    /// Make everything before this frame on this stream durable; range 0, no payload.
    Flush = 4,
    /// A point of the source's write order; `length` is 16, the payload is the point's UUID, `aux`
    /// counts the marks of the stream.
    Mark = 5,
    /// Nothing to do; shows that the stream lives. Takes a sequence number like any other.
    Keepalive = 6,
    /// The sender gives the stream up; `aux` is a positive errno.
    Error = 7,
    /// From the sink to the source, the only one in that direction: every frame up to `sequence` is durable. Only to a peer that has
    /// [`FEATURE_STREAM_ACKS`](super::control::FEATURE_STREAM_ACKS).
    Ack = 16,
}

impl Command {
    /// The command with this number.
    pub fn from_code(code: u16) -> Option<Self> {
        Some(match code {
            1 => Self::Write,
            2 => Self::WriteZeroes,
            3 => Self::Trim,
            4 => Self::Flush,
            5 => Self::Mark,
            6 => Self::Keepalive,
            7 => Self::Error,
            16 => Self::Ack,
            _ => return None,
        })
    }

    /// The number.
    pub fn code(self) -> u16 {
        self as u16
    }

    fn flags_allowed(self) -> FrameFlags {
        match self {
            Self::Write => FrameFlags::FUA | FrameFlags::PAYLOAD_CRC,
            Self::WriteZeroes => FrameFlags::FUA | FrameFlags::NO_UNMAP,
            Self::Trim => FrameFlags::FUA,
            Self::Flush | Self::Mark | Self::Keepalive | Self::Error | Self::Ack => {
                FrameFlags::empty()
            }
        }
    }
}

bitflags! {
    /// Modifiers of a command.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
    pub struct FrameFlags: u16 {
        /// Durable before it is acknowledged as applied.
        const FUA = 1;
        /// Write-zeroes must leave the space allocated.
        const NO_UNMAP = 2;
        /// `aux` is the crc32c of the payload; otherwise it is 0.
        const PAYLOAD_CRC = 4;
    }
}

/// Why 40 bytes are not a frame header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// Some other protocol, or out of step.
    #[error("not a frame: magic {0:#010x}")]
    Magic(u32),
    /// Damaged on the way.
    #[error("frame header checksum is {found:#010x}, computed {computed:#010x}")]
    Checksum {
        /// In the header.
        found: u32,
        /// Over its first 36 bytes.
        computed: u32,
    },
    /// Not a command of this protocol version.
    #[error("unknown frame command {0}")]
    UnknownCommand(u16),
    /// Unknown flags, or flags that the command does not take.
    #[error("frame command {command:?} does not take flags {flags:#06x}")]
    Flags {
        /// The command.
        command: Command,
        /// The flags as received.
        flags: u16,
    },
    /// The length or offset is not possible for the command.
    #[error("frame command {command:?} with offset {offset} and length {length}")]
    Range {
        /// The command.
        command: Command,
        /// Bytes.
        offset: u64,
        /// Bytes.
        length: u64,
    },
    /// `aux` is set where the command has no use for it.
    #[error("frame command {command:?} with aux {aux:#010x}")]
    Aux {
        /// The command.
        command: Command,
        /// As received.
        aux: u32,
    },
}

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// What to do.
    pub command: Command,
    /// How.
    pub flags: FrameFlags,
    /// Number of the frame in its stream, from 1, without gaps; of an [`Command::Ack`], the last durable one.
    pub sequence: u64,
    /// First byte of the volume's range.
    pub offset: u64,
    /// Bytes of the range ([`Command::Mark`]: of the payload).
    pub length: u64,
    /// Checksum of the payload, count of marks, or errno: see [`Command`] and [`FrameFlags`].
    pub aux: u32,
}

impl FrameHeader {
    /// Bytes of payload that follow the header; at most [`PAYLOAD_MAX`] in a valid header.
    pub fn payload_len(&self) -> u64 {
        match self.command {
            Command::Write | Command::Mark => self.length,
            Command::WriteZeroes
            | Command::Trim
            | Command::Flush
            | Command::Keepalive
            | Command::Error
            | Command::Ack => 0,
        }
    }

    /// The bytes that go over the wire.
    ///
    /// Debug builds assert that [`FrameHeader::decode`] would take them.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        debug_assert_eq!(self.check(), Ok(()), "encoding a header that no peer takes");
        let mut bytes = [0; HEADER_LEN];
        bytes[0..4].copy_from_slice(&MAGIC.to_be_bytes());
        bytes[4..6].copy_from_slice(&self.command.code().to_be_bytes());
        bytes[6..8].copy_from_slice(&self.flags.bits().to_be_bytes());
        bytes[8..16].copy_from_slice(&self.sequence.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.offset.to_be_bytes());
        bytes[24..32].copy_from_slice(&self.length.to_be_bytes());
        bytes[32..36].copy_from_slice(&self.aux.to_be_bytes());
        let crc = crc32c::crc32c(&bytes[..36]);
        bytes[36..40].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    /// The header in these bytes, checked.
    pub fn decode(bytes: &[u8; HEADER_LEN]) -> Result<Self, FrameError> {
        let magic = u32::from_be_bytes(field(bytes, 0));
        if magic != MAGIC {
            return Err(FrameError::Magic(magic));
        }
        let found = u32::from_be_bytes(field(bytes, 36));
        let computed = crc32c::crc32c(&bytes[..36]);
        if found != computed {
            return Err(FrameError::Checksum { found, computed });
        }
        let code = u16::from_be_bytes(field(bytes, 4));
        let command = Command::from_code(code).ok_or(FrameError::UnknownCommand(code))?;
        let flags = u16::from_be_bytes(field(bytes, 6));
        let header = Self {
            command,
            flags: FrameFlags::from_bits(flags).ok_or(FrameError::Flags { command, flags })?,
            sequence: u64::from_be_bytes(field(bytes, 8)),
            offset: u64::from_be_bytes(field(bytes, 16)),
            length: u64::from_be_bytes(field(bytes, 24)),
            aux: u32::from_be_bytes(field(bytes, 32)),
        };
        header.check()?;
        Ok(header)
    }

    /// Do the fields fit each other?
    fn check(&self) -> Result<(), FrameError> {
        let command = self.command;
        if !command.flags_allowed().contains(self.flags) {
            return Err(FrameError::Flags {
                command,
                flags: self.flags.bits(),
            });
        }
        let in_address_space = self.offset.checked_add(self.length).is_some();
        let range_fits = match command {
            Command::Write => in_address_space && self.length > 0 && self.length <= PAYLOAD_MAX,
            Command::WriteZeroes | Command::Trim => in_address_space && self.length > 0,
            Command::Mark => self.offset == 0 && self.length == MARK_PAYLOAD_LEN,
            Command::Flush | Command::Keepalive | Command::Error | Command::Ack => {
                self.offset == 0 && self.length == 0
            }
        };
        if !range_fits {
            return Err(FrameError::Range {
                command,
                offset: self.offset,
                length: self.length,
            });
        }
        let aux_fits = match command {
            Command::Write => self.aux == 0 || self.flags.contains(FrameFlags::PAYLOAD_CRC),
            Command::Mark => true,
            Command::Error => self.aux > 0 && i32::try_from(self.aux).is_ok(),
            Command::WriteZeroes
            | Command::Trim
            | Command::Flush
            | Command::Keepalive
            | Command::Ack => self.aux == 0,
        };
        if !aux_fits {
            return Err(FrameError::Aux {
                command,
                aux: self.aux,
            });
        }
        Ok(())
    }
}

/// `N` bytes at a constant offset within the header.
fn field<const N: usize>(bytes: &[u8; HEADER_LEN], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn write() -> FrameHeader {
        FrameHeader {
            command: Command::Write,
            flags: FrameFlags::FUA | FrameFlags::PAYLOAD_CRC,
            sequence: 0x0102_0304_0506_0708,
            offset: 0x1000,
            length: 0x2000,
            aux: 0xdead_beef,
        }
    }

    /// Puts a right checksum under changed bytes.
    fn reseal(bytes: &mut [u8; HEADER_LEN]) {
        let crc = crc32c::crc32c(&bytes[..36]);
        bytes[36..].copy_from_slice(&crc.to_be_bytes());
    }

    #[test]
    fn golden_header() {
        let golden = "46504458000100050102030405060708000000000000100000000000000020\
                      00deadbeef";
        let bytes = write().encode();
        assert_eq!(hex::encode(&bytes[..36]), golden);
        let crc = u32::from_be_bytes(field(&bytes, 36));
        assert_eq!(crc, crc32c::crc32c(&bytes[..36]));
        assert_eq!(FrameHeader::decode(&bytes), Ok(write()));
    }

    #[test]
    fn command_numbers_are_the_format() {
        for code in 0..=u16::MAX {
            match Command::from_code(code) {
                Some(command) => assert_eq!(command.code(), code),
                None => assert!(code == 0 || (8..16).contains(&code) || code > 16),
            }
        }
    }

    #[test]
    fn http_is_not_a_frame() {
        let mut bytes = [b' '; HEADER_LEN];
        bytes[..5].copy_from_slice(b"GET /");
        assert!(matches!(
            FrameHeader::decode(&bytes),
            Err(FrameError::Magic(_))
        ));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let good = write().encode();
        for bit in 0..HEADER_LEN * 8 {
            let mut bytes = good;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(FrameHeader::decode(&bytes).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn impossible_fields_are_refused_under_a_right_checksum() {
        // (offset in the header, bytes put there, a predicate on the error)
        type Case = (usize, &'static [u8], fn(&FrameError) -> bool);
        let cases: [Case; 7] = [
            (4, &[0, 0], |e| matches!(e, FrameError::UnknownCommand(0))),
            (4, &[0, 8], |e| matches!(e, FrameError::UnknownCommand(8))),
            (6, &[0x80, 0], |e| matches!(e, FrameError::Flags { .. })),
            (6, &[0, 2], |e| matches!(e, FrameError::Flags { .. })),
            (6, &[0, 0], |e| matches!(e, FrameError::Aux { .. })),
            (16, &[0xff; 8], |e| matches!(e, FrameError::Range { .. })),
            (24, &[0, 0, 0, 0, 2, 0, 0, 1], |e| {
                matches!(e, FrameError::Range { .. })
            }),
        ];
        for (at, put, expected) in cases {
            let mut bytes = write().encode();
            bytes[at..at + put.len()].copy_from_slice(put);
            reseal(&mut bytes);
            let error = FrameHeader::decode(&bytes).expect_err("must be refused");
            assert!(expected(&error), "{error} at {at}");
        }
    }

    #[test]
    fn an_empty_write_is_refused() {
        let mut bytes = write().encode();
        bytes[24..32].fill(0);
        reseal(&mut bytes);
        assert!(matches!(
            FrameHeader::decode(&bytes),
            Err(FrameError::Range { .. })
        ));
    }

    proptest! {
        #[test]
        fn any_bytes_under_a_right_checksum_decode_or_fail(
            mut bytes in any::<[u8; HEADER_LEN]>(),
            command in 0u16..18,
            flags in 0u16..8,
        ) {
            bytes[0..4].copy_from_slice(&MAGIC.to_be_bytes());
            bytes[4..6].copy_from_slice(&command.to_be_bytes());
            bytes[6..8].copy_from_slice(&flags.to_be_bytes());
            reseal(&mut bytes);
            if let Ok(header) = FrameHeader::decode(&bytes) {
                prop_assert!(header.payload_len() <= PAYLOAD_MAX);
                prop_assert_eq!(header.encode(), bytes);
            }
        }

        #[test]
        fn valid_headers_survive(
            sequence in any::<u64>(),
            offset in 0..u64::MAX - PAYLOAD_MAX,
            length in 1..=PAYLOAD_MAX,
            crc in proptest::option::of(any::<u32>()),
        ) {
            let header = FrameHeader {
                command: Command::Write,
                flags: if crc.is_some() { FrameFlags::PAYLOAD_CRC } else { FrameFlags::empty() },
                sequence,
                offset,
                length,
                aux: crc.unwrap_or(0),
            };
            prop_assert_eq!(FrameHeader::decode(&header.encode()), Ok(header));
        }
    }
}
