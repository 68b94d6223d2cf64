//! The first 96 bytes on any feed connection, network byte order.
//!
//! ```text
//!  0 magic [8]             8 version min u16     10 version max u16
//! 12 kind u16             14 security u16        16 session uuid [16]
//! 32 stream index u16     34 zero [2]            36 token [32]
//! 68 zero [24]            92 crc32c u32 of the 92 bytes before it
//! ```
//!
//! On a control connection session, stream and token are zero. With [`Security::Tls`] it is the
//! first thing that the connecting side sends *inside* TLS, so that a token never shows. The first
//! byte is no ASCII and no TLS record type, so the first bytes tell a stranger from a peer, and
//! plaintext from TLS.

use super::codec::Field;
use bincode::de::Decoder;
use bincode::enc::Encoder;
use bincode::error::{DecodeError, EncodeError};
use std::fmt;
use thiserror::Error;
use uuid::Uuid;

/// Length in bytes.
pub const PREAMBLE_LEN: usize = 96;

/// First eight bytes.
pub const MAGIC: [u8; 8] = *b"\x93FEEDPX\n";

/// Proof that a data stream belongs to a session.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token(pub [u8; 32]);

impl Token {
    /// Are they equal? Takes the same time wherever they differ.
    pub fn matches(&self, other: &Self) -> bool {
        let differing = self.0.iter().zip(&other.0).fold(0, |d, (a, b)| d | (a ^ b));
        differing == 0
    }
}

impl Field for Token {
    const LEN_MIN: usize = 32;
    fn put<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.0.put(encoder)
    }
    fn take<D: Decoder>(decoder: &mut D) -> Result<Self, DecodeError> {
        Field::take(decoder).map(Self)
    }
}

impl fmt::Debug for Token {
    /// Secrets do not go into logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// What the connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Control messages; number 1.
    Control,
    /// Frames of one stream of a session that a control connection agreed on; number 2.
    Data {
        /// The session.
        session: Uuid,
        /// Which stream: 0 is the live stream.
        stream: u16,
        /// The session's secret.
        token: Token,
    },
}

/// What protects the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Security {
    /// These bytes are within TLS.
    Tls = 1,
    /// Nothing; both sides were told so by their admins.
    Plaintext = 2,
}

/// The preamble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preamble {
    /// Oldest protocol version the sender speaks.
    pub version_min: u16,
    /// Newest protocol version the sender speaks.
    pub version_max: u16,
    /// What the connection is for.
    pub kind: Kind,
    /// What protects it.
    pub security: Security,
}

/// Why 96 bytes are not a preamble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PreambleError {
    /// Another protocol.
    #[error("not a feed connection, but {0}")]
    Stranger(Stranger),
    /// Damaged.
    #[error("preamble checksum is wrong")]
    Checksum,
    /// Reserved bytes are set.
    #[error("preamble has reserved bytes set")]
    Reserved,
    /// No such kind.
    #[error("unknown kind of connection {0}")]
    Kind(u16),
    /// No such protection.
    #[error("unknown security of connection {0}")]
    Security(u16),
    /// The versions are in the wrong order or zero.
    #[error("impossible version range {0} to {1}")]
    Versions(u16, u16),
}

/// Who else might have called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Stranger {
    /// A web browser or scanner.
    #[error("HTTP")]
    Http,
    /// TLS without a preamble.
    #[error("TLS without a preamble")]
    Tls,
    /// SSH.
    #[error("SSH")]
    Ssh,
    /// Something else.
    #[error("an unknown protocol")]
    Unknown,
}

/// What the first bytes of a connection say so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sniff {
    /// Nothing wrong yet; read on until there are [`PREAMBLE_LEN`] bytes.
    Plausible,
    /// Not a peer: close.
    Stranger(Stranger),
}

impl Preamble {
    /// Judges the first bytes, however few: a stranger is turned away without waiting for 96.
    pub fn sniff(bytes: &[u8]) -> Sniff {
        let seen = bytes.len().min(MAGIC.len());
        if bytes[..seen] == MAGIC[..seen] {
            return Sniff::Plausible;
        }
        const METHODS: [&[u8]; 8] = [
            b"GET", b"HEA", b"POS", b"PUT", b"DEL", b"OPT", b"CON", b"PRI",
        ];
        let stranger = if METHODS.iter().any(|m| bytes.starts_with(m)) {
            Stranger::Http
        } else if bytes.starts_with(&[0x16, 0x03]) {
            Stranger::Tls
        } else if bytes.starts_with(b"SSH-") {
            Stranger::Ssh
        } else {
            Stranger::Unknown
        };
        Sniff::Stranger(stranger)
    }

    /// The bytes that go over the wire.
    pub fn encode(&self) -> [u8; PREAMBLE_LEN] {
        debug_assert!(self.version_min >= 1 && self.version_min <= self.version_max);
        let mut bytes = [0; PREAMBLE_LEN];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&self.version_min.to_be_bytes());
        bytes[10..12].copy_from_slice(&self.version_max.to_be_bytes());
        let kind: u16 = match self.kind {
            Kind::Control => 1,
            Kind::Data {
                session,
                stream,
                token,
            } => {
                bytes[16..32].copy_from_slice(session.as_bytes());
                bytes[32..34].copy_from_slice(&stream.to_be_bytes());
                bytes[36..68].copy_from_slice(&token.0);
                2
            }
        };
        bytes[12..14].copy_from_slice(&kind.to_be_bytes());
        bytes[14..16].copy_from_slice(&(self.security as u16).to_be_bytes());
        let crc = crc32c::crc32c(&bytes[..92]);
        bytes[92..96].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    /// The preamble in these bytes, checked.
    pub fn decode(bytes: &[u8; PREAMBLE_LEN]) -> Result<Self, PreambleError> {
        if let Sniff::Stranger(stranger) = Self::sniff(bytes) {
            return Err(PreambleError::Stranger(stranger));
        }
        if u32::from_be_bytes(field(bytes, 92)) != crc32c::crc32c(&bytes[..92]) {
            return Err(PreambleError::Checksum);
        }
        let u16_at = |at| u16::from_be_bytes(field(bytes, at));
        let (version_min, version_max) = (u16_at(8), u16_at(10));
        if version_min == 0 || version_min > version_max {
            return Err(PreambleError::Versions(version_min, version_max));
        }
        let zero = |from: usize, to: usize| bytes[from..to].iter().all(|b| *b == 0);
        let kind = match u16_at(12) {
            1 if zero(16, 34) && zero(36, 68) => Kind::Control,
            1 => return Err(PreambleError::Reserved),
            2 => Kind::Data {
                session: Uuid::from_bytes(field(bytes, 16)),
                stream: u16_at(32),
                token: Token(field(bytes, 36)),
            },
            other => return Err(PreambleError::Kind(other)),
        };
        if !zero(34, 36) || !zero(68, 92) {
            return Err(PreambleError::Reserved);
        }
        let security = match u16_at(14) {
            1 => Security::Tls,
            2 => Security::Plaintext,
            other => return Err(PreambleError::Security(other)),
        };
        Ok(Self {
            version_min,
            version_max,
            kind,
            security,
        })
    }
}

/// `N` bytes at a constant offset within the preamble.
fn field<const N: usize>(bytes: &[u8; PREAMBLE_LEN], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn data() -> Preamble {
        Preamble {
            version_min: 1,
            version_max: 2,
            kind: Kind::Data {
                session: Uuid::from_u128(0x1122_3344_5566_7788_99aa_bbcc_ddee_ff00),
                stream: 3,
                token: Token([0x5a; 32]),
            },
            security: Security::Plaintext,
        }
    }

    #[test]
    fn golden_preamble() {
        let golden = include_str!("../../golden/preamble-data.hex");
        assert_eq!(hex::encode(data().encode()), golden.trim());
        assert_eq!(Preamble::decode(&data().encode()), Ok(data()));
    }

    #[test]
    fn strangers_are_known_from_their_first_bytes() {
        let sniffed = |bytes: &[u8]| Preamble::sniff(bytes);
        assert_eq!(sniffed(b"GET / HTTP/1.1"), Sniff::Stranger(Stranger::Http));
        assert_eq!(
            sniffed(b"\x16\x03\x01\x02\x00"),
            Sniff::Stranger(Stranger::Tls)
        );
        assert_eq!(sniffed(b"SSH-2.0-x"), Sniff::Stranger(Stranger::Ssh));
        assert_eq!(sniffed(b"\0"), Sniff::Stranger(Stranger::Unknown));
        assert_eq!(sniffed(b""), Sniff::Plausible);
        assert_eq!(sniffed(&MAGIC[..3]), Sniff::Plausible);
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        for bit in 0..PREAMBLE_LEN * 8 {
            let mut bytes = data().encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Preamble::decode(&bytes).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_control_connection_carries_no_token() {
        let mut bytes = Preamble {
            kind: Kind::Control,
            ..data()
        }
        .encode();
        bytes[40] = 1;
        let crc = crc32c::crc32c(&bytes[..92]);
        bytes[92..].copy_from_slice(&crc.to_be_bytes());
        assert_eq!(Preamble::decode(&bytes), Err(PreambleError::Reserved));
    }

    #[test]
    fn tokens_are_compared_whole_and_not_shown() {
        let mut other = [0x5a; 32];
        assert!(Token([0x5a; 32]).matches(&Token(other)));
        other[31] = 0;
        assert!(!Token([0x5a; 32]).matches(&Token(other)));
        assert_eq!(format!("{:?}", Token(other)), "Token(…)");
    }

    proptest! {
        #[test]
        fn any_sealed_bytes_decode_or_fail(mut rest in proptest::collection::vec(any::<u8>(), 84)) {
            let mut bytes = [0; PREAMBLE_LEN];
            bytes[..8].copy_from_slice(&MAGIC);
            rest[0..8].iter_mut().for_each(|b| *b &= 3);
            bytes[8..92].copy_from_slice(&rest);
            let crc = crc32c::crc32c(&bytes[..92]);
            bytes[92..].copy_from_slice(&crc.to_be_bytes());
            if let Ok(preamble) = Preamble::decode(&bytes) {
                prop_assert_eq!(preamble.encode(), bytes);
            }
        }
    }
}
