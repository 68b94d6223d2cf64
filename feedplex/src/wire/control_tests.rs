//! Control messages: golden bytes, roundtrips, hostile bytes.

use super::*;
use proptest::prelude::*;

fn decode(bytes: &[u8]) -> Result<Message, ControlError> {
    let (header, body) = bytes
        .split_first_chunk::<CONTROL_HEADER_LEN>()
        .ok_or(ControlError::Checksum)?;
    Message::decode(&ControlHeader::decode(header)?, body)
}

fn id(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

fn hello() -> Message {
    Message::Hello(Hello {
        version_min: 1,
        version_max: 1,
        features: 0,
        node: id(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10),
        name: "alpha".into(),
        fingerprint: "sha256:00ff".into(),
        run: id(0x11),
    })
}

fn handshake() -> Message {
    Message::Handshake(Handshake {
        feed: id(1),
        target: "vgb/web".into(),
        create: true,
        volume: id(2),
        name: "vga/web".into(),
        size: 1 << 30,
        region_size: 65536,
        role: Role::Source,
        role_epoch: 3,
        swap: false,
        online: true,
        sync_mode: true,
        block: true,
        intent: Intent::Detaching {
            point: id(4),
            name: "monday".into(),
        },
        known: true,
        fresh: false,
        seeded: true,
        consistent: false,
        dirty: true,
        discard_peer: false,
        discard_local: false,
        epochs: vec![id(5), id(6)],
        stamp: 9,
        seen: 0x0102_0304,
        generation: id(7),
        history: vec![id(8)],
    })
}

#[test]
fn golden_hello_and_handshake() {
    let hello_bytes = hello().encode().expect("encodes");
    let handshake_bytes = handshake().encode().expect("encodes");
    assert_eq!(
        hex::encode(hello_bytes),
        include_str!("../../golden/hello-v2.hex").trim()
    );
    assert_eq!(
        hex::encode(handshake_bytes),
        include_str!("../../golden/handshake-v3.hex").trim()
    );
}

#[test]
fn every_message_survives() {
    let refused = Refused {
        code: RefusalCode::Diverged,
        text: "both changed".into(),
    };
    let messages = [
        hello(),
        handshake(),
        Message::Verdict(Verdict {
            flow: FlowKind::IncrementalUnion,
            epoch: id(9),
        }),
        Message::Refused(refused.clone()),
        Message::Accepted(Empty {}),
        Message::StreamsOffer(StreamsOffer {
            session: id(1),
            token: Token([7; 32]),
            count: 3,
        }),
        Message::Ready(Empty {}),
        Message::Stamp(Stamp { stamp: 77 }),
        Message::Ack(Ack {
            stream: 1,
            applied: 9,
            durable: 8,
        }),
        Message::SyncStarted(SyncStarted {
            round: 1,
            flow: FlowKind::Full,
            bytes: 77,
        }),
        Message::SyncReady(Round { round: 1 }),
        Message::CaughtUp(CaughtUp {
            round: 1,
            live_sequence: 5,
            generation: id(1),
            history: vec![id(2)],
        }),
        Message::ConsistentDone(Round { round: 1 }),
        Message::PointPrepare(PointPrepare {
            point: id(2),
            name: "p".into(),
            time: 1,
        }),
        Message::MarkDone(PointRef { point: id(2) }),
        Message::PointCommit(PointRef { point: id(2) }),
        Message::SwapRequest(SwapRequest { role_epoch: 2 }),
        Message::SwapReply(SwapReply {
            refusal: Some(refused.clone()),
        }),
        Message::SwapReply(SwapReply { refusal: None }),
        Message::Bitmap(Bitmap {
            first_region: 8,
            bits: vec![0xa5; BITMAP_CHUNK_MAX],
        }),
        Message::HashRequest(HashRequest {
            request: 1,
            offset: 2,
            length: 3,
            block: 4,
        }),
        Message::HashReply(HashReply {
            request: 1,
            hashes: vec![[1; 32]; 3],
        }),
        Message::RepairRequest(RepairRequest {
            ranges: vec![WireRange {
                offset: 0,
                length: 1,
            }],
        }),
        Message::FetchRequest(FetchRequest {
            ranges: vec![WireRange {
                offset: 65536,
                length: 65536,
            }],
        }),
        Message::State(State { state: 1, dirty: 2 }),
        Message::Keepalive(Nonce { nonce: 1 }),
        Message::KeepaliveReply(Nonce { nonce: 1 }),
        Message::Error(refused),
        Message::Bye(Empty {}),
    ];
    let mut kinds = std::collections::BTreeSet::new();
    for message in messages {
        kinds.insert(message.kind().0);
        let bytes = message.encode().expect("encodes");
        let decoded = decode(&bytes).unwrap_or_else(|e| panic!("{}: {e}", message.name()));
        assert_eq!(decoded, message);
    }
    assert_eq!(kinds.len(), 28, "a message is missing from this test");
}

#[test]
fn too_long_is_refused_from_the_header() {
    let mut bytes = hello().encode().expect("encodes");
    bytes[0..4].copy_from_slice(&u32::MAX.to_be_bytes());
    assert!(matches!(decode(&bytes), Err(ControlError::TooLong(_))));
}

#[test]
fn a_message_that_would_be_too_long_is_not_sent() {
    let message = Message::Bitmap(Bitmap {
        first_region: 0,
        bits: vec![0; BODY_MAX],
    });
    assert!(message.encode().is_err());
}

/// Makes the checksum right again, so that the body's decoder is what is tested.
fn reseal(bytes: &mut [u8]) {
    let length = u32::try_from(bytes.len() - CONTROL_HEADER_LEN).expect("short");
    bytes[0..4].copy_from_slice(&length.to_be_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..8]), &bytes[CONTROL_HEADER_LEN..]);
    bytes[8..12].copy_from_slice(&crc.to_be_bytes());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn mutated_messages_decode_or_fail(
        which in any::<bool>(),
        at in any::<prop::sample::Index>(),
        put in proptest::collection::vec(any::<u8>(), 1..8),
        cut in proptest::option::of(any::<prop::sample::Index>()),
        sealed in any::<bool>(),
    ) {
        let message = if which { hello() } else { handshake() };
        let mut bytes = message.encode().expect("encodes");
        let from = at.index(bytes.len());
        for (byte, new) in bytes[from..].iter_mut().zip(put) {
            *byte = new;
        }
        if let Some(cut) = cut {
            bytes.truncate(CONTROL_HEADER_LEN + cut.index(bytes.len() - CONTROL_HEADER_LEN));
        }
        if sealed {
            reseal(&mut bytes);
        }
        if let Ok(message) = decode(&bytes) {
            prop_assert_eq!(message.encode().expect("what was decoded encodes"), bytes);
        }
    }

    #[test]
    fn any_body_of_any_type_decodes_or_fails(
        kind in 0u16..30,
        version in 1u16..3,
        body in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut bytes = vec![0; CONTROL_HEADER_LEN];
        bytes[4..6].copy_from_slice(&kind.to_be_bytes());
        bytes[6..8].copy_from_slice(&version.to_be_bytes());
        bytes.extend(body);
        reseal(&mut bytes);
        if let Ok(message) = decode(&bytes) {
            prop_assert_eq!(message.encode().expect("what was decoded encodes"), bytes);
        }
    }
}
