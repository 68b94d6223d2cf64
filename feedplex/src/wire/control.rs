//! Control messages: a 12-byte header in network byte order, then a body ([`super::codec`]).
//!
//! ```text
//! 0 body length u32   4 type u16   6 version u16   8 crc32c u32 over bytes 0..8 and the body
//! ```
//!
//! The version belongs to the message type; it grows when the type's body changes. What each
//! message is for, and when it may come, is in [`crate::session`].

use super::codec::{self, BODY_MAX, CodecError, wire_enum, wire_struct};
use super::preamble::Token;
pub use super::refusal::RefusalCode;
use crate::generation::Intent;
use crate::generation::Role;
use thiserror::Error;
use uuid::Uuid;

/// Newest and so far only version of the protocol.
pub const PROTOCOL_VERSION: u16 = 1;

/// Capability: as a source, takes acknowledgements on the live stream.
pub const FEATURE_STREAM_ACKS: u64 = 1;

/// Length of a message header in bytes.
pub const CONTROL_HEADER_LEN: usize = 12;

/// Most map bytes in one [`Bitmap`], so that it stays well below the limit of a body.
pub const BITMAP_CHUNK_MAX: usize = 256 << 10;

wire_enum! {
    /// What has to flow, as the source judged.
    pub enum FlowKind {
        /// Nothing: the sink has everything.
        Nothing = 1,
        /// What the source's map says.
        Incremental = 2,
        /// What the source's map or the sink's own map says.
        IncrementalUnion = 3,
        /// Everything.
        Full = 4,
        /// Nothing any more: the sink has committed the point that the source was detaching at.
        FinishSplit = 5,
    }
}

wire_struct! {
    /// First message, both ways; the initiator's comes first.
    pub struct Hello {
        /// Oldest protocol version spoken.
        pub version_min: u16,
        /// Newest protocol version spoken.
        pub version_max: u16,
        /// Optional capabilities, [`FEATURE_STREAM_ACKS`]; unknown bits are ignored.
        pub features: u64,
        /// The node.
        pub node: Uuid,
        /// Its name, for people.
        pub name: String,
        /// The fingerprint it claims; TLS proves it, plaintext does not.
        pub fingerprint: String,
        /// This run of its daemon: a name made anew at each start.
        pub run: Uuid,
    }
}

wire_struct! {
    /// Everything one side knows about the feed, as committed there. The initiator's comes first;
    /// the acceptor answers with its own once it has found or made the volume.
    pub struct Handshake {
        /// The feed, the same on both sides.
        pub feed: Uuid,
        /// The acceptor's volume, `VG/LV`; from the acceptor: its own name of it.
        pub target: String,
        /// The acceptor may create the volume.
        pub create: bool,
        /// The sender's volume.
        pub volume: Uuid,
        /// What the sender calls it, `VG/LV`; for people.
        pub name: String,
        /// Bytes that the feed covers.
        pub size: u64,
        /// Unit of the sender's dirty map in bytes.
        pub region_size: u64,
        /// The role in the sender's record, before any swap it asks for.
        pub role: Role,
        /// Grows with each swap.
        pub role_epoch: u64,
        /// The sender wants the roles exchanged.
        pub swap: bool,
        /// The sender's volume is in use while it is being restored, or is to be.
        pub online: bool,
        /// Acknowledge writes only when durable at the sink.
        pub sync_mode: bool,
        /// With `sync_mode`: writes wait for a peer that is away.
        pub block: bool,
        /// What the sender's admin wants.
        pub intent: Intent,
        /// The sender has a durable record of this feed.
        pub known: bool,
        /// The sender's volume holds nothing: it was made for this feed, or is proven blank.
        pub fresh: bool,
        /// The first full copy has ended once.
        pub seeded: bool,
        /// As a sink: holds a point of the source's write order, durably.
        pub consistent: bool,
        /// The sender's own map for this feed is not empty.
        pub dirty: bool,
        /// What is at the peer may be thrown away.
        pub discard_peer: bool,
        /// What is here may be thrown away.
        pub discard_local: bool,
        /// Session epochs, newest first.
        pub epochs: Vec<Uuid>,
        /// How far the sender's log had come when it was last certain that nothing has been lost of it
        /// ([`Stamp`]); since then only the sender knows.
        pub stamp: u64,
        /// How far the sender has seen the receiver's log come.
        pub seen: u64,
        /// The state of the sender's data.
        pub generation: Uuid,
        /// The states before, newest first.
        pub history: Vec<Uuid>,
    }
}

wire_struct! {
    /// Source to sink: what will flow, in a new session.
    pub struct Verdict {
        /// What.
        pub flow: FlowKind,
        /// Name of the new session, to be committed by both.
        pub epoch: Uuid,
    }
}

wire_struct! {
    /// No, for good: the admin has to do something first.
    pub struct Refused {
        /// Why.
        pub code: RefusalCode,
        /// Why, for people.
        pub text: String,
    }
}

wire_struct! {
    /// Source to sink, when it has committed the epoch and holds the whole map: how the data
    /// streams of the session are known.
    pub struct StreamsOffer {
        /// The session, as in the preamble.
        pub session: Uuid,
        /// The secret, as in the preamble.
        pub token: Token,
        /// Number of streams, the live stream included; at least 1.
        pub count: u16,
    }
}

wire_struct! {
    /// Sink to source: progress of a stream. Sequence numbers; everything up to them.
    pub struct Ack {
        /// The stream.
        pub stream: u16,
        /// Written, perhaps only to a cache.
        pub applied: u64,
        /// Durable; never more than `applied`.
        pub durable: u64,
    }
}

wire_struct! {
    /// Source to sink: a round of copying is about to start.
    pub struct SyncStarted {
        /// Number of the round in this session, from 1.
        pub round: u64,
        /// What kind.
        pub flow: FlowKind,
        /// Bytes to copy, as far as is known.
        pub bytes: u64,
    }
}

wire_struct! {
    /// A round, and nothing else.
    pub struct Round {
        /// Its number.
        pub round: u64,
    }
}

wire_struct! {
    /// Source to sink: nothing is dirty and all bulk is durable; with the live stream up to here
    /// durable, too, the sink is consistent.
    pub struct CaughtUp {
        /// The round that this ends.
        pub round: u64,
        /// Last live sequence number that it takes, 0 for none.
        pub live_sequence: u64,
        /// The state of the source's data, which the sink's is from then on.
        pub generation: Uuid,
        /// The states before, newest first.
        pub history: Vec<Uuid>,
    }
}

wire_struct! {
    /// Source to sink: a mark with this point is on its way in the live stream.
    pub struct PointPrepare {
        /// The point.
        pub point: Uuid,
        /// Its name.
        pub name: String,
        /// Seconds since 1970-01-01 UTC.
        pub time: u64,
    }
}

wire_struct! {
    /// A point, and nothing else.
    pub struct PointRef {
        /// The point.
        pub point: Uuid,
    }
}

wire_struct! {
    /// Asks the peer to agree to exchanged roles, or (from a sink) to exchange them.
    pub struct SwapRequest {
        /// The role epoch after the swap.
        pub role_epoch: u64,
    }
}

wire_struct! {
    /// Answer to [`SwapRequest`].
    pub struct SwapReply {
        /// Why not, or nothing.
        pub refusal: Option<Refused>,
    }
}

wire_struct! {
    /// A piece of the sender's own map: the sink's, where the source's has to be completed; the
    /// source's, where an online restore begins at the sink.
    pub struct Bitmap {
        /// First region, a multiple of 8.
        pub first_region: u64,
        /// Bit `i % 8` of byte `i / 8` is region `first_region + i`; at most
        /// [`BITMAP_CHUNK_MAX`] bytes.
        pub bits: Vec<u8>,
    }
}

wire_struct! {
    /// Asks for the hashes of a range.
    pub struct HashRequest {
        /// Comes back in the answer.
        pub request: u64,
        /// First byte.
        pub offset: u64,
        /// Bytes.
        pub length: u64,
        /// Bytes per hash.
        pub block: u32,
    }
}

wire_struct! {
    /// BLAKE3 hashes, one per block, the last block may be shorter.
    pub struct HashReply {
        /// As asked.
        pub request: u64,
        /// The hashes.
        pub hashes: Vec<[u8; 32]>,
    }
}

wire_struct! {
    /// A range of the volume in bytes.
    pub struct WireRange {
        /// First byte.
        pub offset: u64,
        /// Bytes.
        pub length: u64,
    }
}

wire_struct! {
    /// Sink to source: send these again.
    pub struct RepairRequest {
        /// The ranges.
        pub ranges: Vec<WireRange>,
    }
}

wire_struct! {
    /// Sink to source, in an online restore: somebody waits for these, send them first.
    pub struct FetchRequest {
        /// The ranges.
        pub ranges: Vec<WireRange>,
    }
}

wire_struct! {
    /// For the peer's listings.
    pub struct State {
        /// Number of the [`crate::session::FeedState`].
        pub state: u16,
        /// Bytes that the sink misses.
        pub dirty: u64,
    }
}

wire_struct! {
    /// The sender's log has durably come so far: it grows with everything that flows, at least every
    /// second, and does not shrink. A log that is found to be shorter is an older one.
    pub struct Stamp {
        /// So far.
        pub stamp: u64,
    }
}

wire_struct! {
    /// A number to be sent back.
    pub struct Nonce {
        /// The number.
        pub nonce: u64,
    }
}

wire_struct! {
    /// Nothing but the type.
    pub struct Empty {}
}

/// Declares the messages with their type number, version and body, and the match over them.
macro_rules! messages {
    ($($(#[$meta:meta])* $name:ident($body:ty) = $code:literal v $version:literal,)*) => {
        /// A control message.
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[allow(clippy::large_enum_variant)]
        pub enum Message { $($(#[$meta])* $name($body),)* }

        impl Message {
            /// Type number and version.
            fn kind(&self) -> (u16, u16) {
                match self { $(Self::$name(_) => ($code, $version),)* }
            }

            /// Name of the message, for logs.
            pub fn name(&self) -> &'static str {
                match self { $(Self::$name(_) => stringify!($name),)* }
            }

            fn body(&self) -> Result<Vec<u8>, CodecError> {
                match self { $(Self::$name(body) => codec::to_bytes(body),)* }
            }

            fn from_body(header: &ControlHeader, body: &[u8]) -> Result<Self, ControlError> {
                match (header.kind, header.version) {
                    $(($code, $version) => Ok(Self::$name(codec::from_bytes(body)?)),)*
                    $(($code, version) => Err(ControlError::Version {
                        name: stringify!($name),
                        version,
                    }),)*
                    (kind, _) => Err(ControlError::Type(kind)),
                }
            }
        }
    };
}

messages! {
    /// Who calls.
    Hello(Hello) = 1 v 2,
    /// What it knows about the feed.
    Handshake(Handshake) = 2 v 3,
    /// What will flow.
    Verdict(Verdict) = 3 v 1,
    /// No, for good.
    Refused(Refused) = 4 v 1,
    /// Sink to source: the new epoch is committed, and its own map (if asked for) was sent.
    Accepted(Empty) = 5 v 1,
    /// How data streams are known.
    StreamsOffer(StreamsOffer) = 6 v 1,
    /// Sink to source: ready for data streams.
    Ready(Empty) = 7 v 1,
    /// Progress of a stream.
    Ack(Ack) = 8 v 1,
    /// A round of copying is about to start.
    SyncStarted(SyncStarted) = 9 v 1,
    /// Sink to source: copying may start, the loss of consistency is committed.
    SyncReady(Round) = 10 v 1,
    /// Nothing is dirty.
    CaughtUp(CaughtUp) = 11 v 1,
    /// Sink to source: consistency is committed.
    ConsistentDone(Round) = 12 v 1,
    /// A mark is on its way.
    PointPrepare(PointPrepare) = 13 v 1,
    /// Sink to source: the point is committed.
    MarkDone(PointRef) = 14 v 1,
    /// Source to sink: the point is committed here, too.
    PointCommit(PointRef) = 15 v 1,
    /// Roles are to be exchanged.
    SwapRequest(SwapRequest) = 16 v 1,
    /// Whether they may be.
    SwapReply(SwapReply) = 17 v 1,
    /// A piece of the own map.
    Bitmap(Bitmap) = 18 v 1,
    /// Verification: hashes, please.
    HashRequest(HashRequest) = 20 v 1,
    /// Verification: here they are.
    HashReply(HashReply) = 21 v 1,
    /// Verification: send these again.
    RepairRequest(RepairRequest) = 22 v 1,
    /// For listings.
    State(State) = 23 v 1,
    /// Are you there?
    Keepalive(Nonce) = 24 v 1,
    /// I am.
    KeepaliveReply(Nonce) = 25 v 1,
    /// It failed; the connection ends and may be tried again.
    Error(Refused) = 26 v 1,
    /// The connection ends in good order.
    Bye(Empty) = 27 v 1,
    /// Online restore: send these first.
    FetchRequest(FetchRequest) = 28 v 1,
    /// How far the sender's log has come.
    Stamp(Stamp) = 29 v 1,
}

/// Why bytes are not a control message.
#[derive(Debug, Error)]
pub enum ControlError {
    /// The body would be too long.
    #[error("control message of {0} bytes is too long")]
    TooLong(u32),
    /// Damaged, or not a control message at all.
    #[error("control message checksum is wrong")]
    Checksum,
    /// The body is shorter or longer than the header says.
    #[error("control message body of {found} bytes, header says {expected}")]
    Length {
        /// From the header.
        expected: u32,
        /// Given.
        found: usize,
    },
    /// Unknown message.
    #[error("unknown control message type {0}")]
    Type(u16),
    /// Known message in an unknown form.
    #[error("control message {name} has unknown version {version}")]
    Version {
        /// The message.
        name: &'static str,
        /// Its version.
        version: u16,
    },
    /// The body.
    #[error("control message body")]
    Body(#[from] CodecError),
}

/// The header of a control message; a decoded one has a bounded length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlHeader {
    length: u32,
    kind: u16,
    version: u16,
    crc: u32,
}

impl ControlHeader {
    /// The header in these bytes; the type is checked with the body.
    pub fn decode(bytes: &[u8; CONTROL_HEADER_LEN]) -> Result<Self, ControlError> {
        let [l0, l1, l2, l3, k0, k1, v0, v1, c0, c1, c2, c3] = *bytes;
        let length = u32::from_be_bytes([l0, l1, l2, l3]);
        if length as usize > BODY_MAX {
            return Err(ControlError::TooLong(length));
        }
        Ok(Self {
            length,
            kind: u16::from_be_bytes([k0, k1]),
            version: u16::from_be_bytes([v0, v1]),
            crc: u32::from_be_bytes([c0, c1, c2, c3]),
        })
    }

    /// Bytes of body that follow; at most [`BODY_MAX`].
    pub fn body_len(&self) -> usize {
        self.length as usize
    }

    fn sealed_part(&self) -> [u8; 8] {
        let mut bytes = [0; 8];
        bytes[0..4].copy_from_slice(&self.length.to_be_bytes());
        bytes[4..6].copy_from_slice(&self.kind.to_be_bytes());
        bytes[6..8].copy_from_slice(&self.version.to_be_bytes());
        bytes
    }
}

impl Message {
    /// Header and body as they go over the wire.
    pub fn encode(&self) -> Result<Vec<u8>, ControlError> {
        let body = self.body()?;
        let (kind, version) = self.kind();
        let length = u32::try_from(body.len()).map_err(|_| ControlError::TooLong(u32::MAX))?;
        let header = ControlHeader {
            length,
            kind,
            version,
            crc: 0,
        };
        let sealed = header.sealed_part();
        let crc = crc32c::crc32c_append(crc32c::crc32c(&sealed), &body);
        let mut bytes = Vec::with_capacity(CONTROL_HEADER_LEN + body.len());
        bytes.extend_from_slice(&sealed);
        bytes.extend_from_slice(&crc.to_be_bytes());
        bytes.extend_from_slice(&body);
        Ok(bytes)
    }

    /// The message with this header and body.
    pub fn decode(header: &ControlHeader, body: &[u8]) -> Result<Self, ControlError> {
        if body.len() != header.body_len() {
            return Err(ControlError::Length {
                expected: header.length,
                found: body.len(),
            });
        }
        let crc = crc32c::crc32c_append(crc32c::crc32c(&header.sealed_part()), body);
        if crc != header.crc {
            return Err(ControlError::Checksum);
        }
        Self::from_body(header, body)
    }
}

#[cfg(test)]
#[path = "control_tests.rs"]
mod tests;
