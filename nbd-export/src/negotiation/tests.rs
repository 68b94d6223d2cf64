//! Scripts of bytes, and hostile bytes.

use super::*;
use crate::wire::{self, TransmissionFlags};
use blockio::Limits;
use proptest::prelude::*;

struct One(usize);

impl Exports for One {
    fn list(&self) -> Vec<String> {
        (0..self.0).map(|i| format!("vg/lv{i}")).collect()
    }

    fn describe(&self, name: &str) -> Option<ExportInfo> {
        ["", "vg/lv0"].contains(&name).then(|| ExportInfo {
            name: "vg/lv0".into(),
            description: "a volume".into(),
            limits: Limits {
                size: 1 << 30,
                logical_block: 512,
                physical_block: 4096,
                minimum_io: 0,
                optimal_io: 0,
                read_only: false,
                discard: true,
                fast_zero: false,
                rotational: false,
            },
            multi_conn: true,
            contexts: ["monday", "tuesday"]
                .map(|point| format!("qemu:dirty-bitmap:{point}"))
                .into(),
        })
    }
}

fn option(option: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = wire::OPTION_MAGIC.to_be_bytes().to_vec();
    bytes.extend_from_slice(&option.to_be_bytes());
    bytes.extend_from_slice(&(data.len() as u32).to_be_bytes());
    bytes.extend_from_slice(data);
    bytes
}

fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u32).to_be_bytes(), text.as_bytes()].concat()
}

fn go(name: &str, kinds: &[u16]) -> Vec<u8> {
    let mut data = string(name);
    data.extend_from_slice(&(kinds.len() as u16).to_be_bytes());
    for kind in kinds {
        data.extend_from_slice(&kind.to_be_bytes());
    }
    data
}

fn meta(name: &str, queries: &[&str]) -> Vec<u8> {
    let mut data = string(name);
    data.extend_from_slice(&(queries.len() as u32).to_be_bytes());
    for query in queries {
        data.extend_from_slice(&string(query));
    }
    data
}

/// Replies as `(option, reply, data)`.
fn replies(mut out: &[u8]) -> Vec<(u32, u32, Vec<u8>)> {
    let word = |bytes: &[u8], at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
    let mut found = Vec::new();
    while !out.is_empty() {
        assert_eq!(out[..8], wire::OPTION_REPLY_MAGIC.to_be_bytes());
        let len = word(out, 16) as usize;
        found.push((word(out, 8), word(out, 12), out[20..20 + len].to_vec()));
        out = &out[20 + len..];
    }
    found
}

type Outcome = Result<(Progress, Vec<u8>, Vec<u8>), NegotiationError>;

/// Runs the client's bytes through, `step` at a time; progress, output, bytes left over.
fn run(exports: &One, bytes: &[u8], step: usize) -> Outcome {
    let (mut negotiation, greeting) = Negotiation::start();
    assert_eq!(greeting, *b"NBDMAGICIHAVEOPT\0\x03");
    let mut out = Vec::new();
    let (mut given, mut taken) = (0, 0);
    while taken < bytes.len() {
        given = bytes.len().min(given.max(taken) + step);
        while taken < given {
            let (n, progress) = negotiation.on_bytes(&bytes[taken..given], exports, &mut out)?;
            taken += n;
            assert!(n > 0, "nothing was consumed");
            assert!(negotiation.buffer.len() <= Negotiation::MAX_OPTION as usize);
            if progress != Progress::Continue {
                return Ok((progress, out, bytes[taken..].to_vec()));
            }
        }
    }
    Ok((Progress::Continue, out, Vec::new()))
}

fn talk(options: &[Vec<u8>]) -> Outcome {
    let mut bytes = 3u32.to_be_bytes().to_vec();
    bytes.extend(options.concat());
    let whole = run(&One(1), &bytes, usize::MAX / 2);
    for step in [1, 3, 17] {
        assert_eq!(
            run(&One(1), &bytes, step),
            whole,
            "depends on how bytes arrive"
        );
    }
    whole
}

#[test]
fn the_usual_client_gets_what_it_asks_for() {
    let (progress, out, rest) = talk(&[
        option(opt::STRUCTURED_REPLY, &[]),
        option(opt::SET_META_CONTEXT, &meta("vg/lv0", &["base:allocation"])),
        option(opt::GO, &go("vg/lv0", &[wire::info::BLOCK_SIZE])),
        b"next".to_vec(),
    ])
    .unwrap();
    assert_eq!(rest, b"next", "transmission begins after the option");
    let Progress::Chosen(negotiated) = progress else {
        panic!("{progress:?}");
    };
    assert!(negotiated.structured && negotiated.no_zeroes);
    assert_eq!(negotiated.export.name, "vg/lv0");
    let base = Context {
        id: 1,
        name: "base:allocation".into(),
    };
    assert_eq!(negotiated.contexts, [base]);
    let replies = replies(&out);
    let kinds: Vec<_> = replies.iter().map(|(o, r, _)| (*o, *r)).collect();
    assert_eq!(
        kinds,
        [
            (opt::STRUCTURED_REPLY, rep::ACK),
            (opt::SET_META_CONTEXT, rep::META_CONTEXT),
            (opt::SET_META_CONTEXT, rep::ACK),
            (opt::GO, rep::INFO),
            (opt::GO, rep::INFO),
            (opt::GO, rep::ACK),
        ]
    );
    assert_eq!(replies[1].2, *b"\0\0\0\x01base:allocation");
    let flags = TransmissionFlags::HAS_FLAGS
        | TransmissionFlags::SEND_FLUSH
        | TransmissionFlags::SEND_FUA
        | TransmissionFlags::SEND_TRIM
        | TransmissionFlags::SEND_WRITE_ZEROES
        | TransmissionFlags::SEND_DF
        | TransmissionFlags::CAN_MULTI_CONN
        | TransmissionFlags::SEND_CACHE;
    let size = (1u64 << 30).to_be_bytes();
    assert_eq!(
        replies[3].2,
        [&[0, 0][..], &size, &flags.bits().to_be_bytes()].concat()
    );
    assert_eq!(replies[4].2, [0, 3, 0, 0, 2, 0, 0, 0, 16, 0, 2, 0, 0, 0]);
}

#[test]
fn info_describes_and_goes_on() {
    let kinds = [wire::info::NAME, wire::info::DESCRIPTION, 77];
    let (progress, out, _) = talk(&[option(opt::INFO, &go("", &kinds))]).unwrap();
    assert_eq!(progress, Progress::Continue);
    let data: Vec<_> = replies(&out).into_iter().map(|r| r.2).collect();
    assert!(data.contains(&b"\0\x01vg/lv0".to_vec()));
    assert!(data.contains(&b"\0\x02a volume".to_vec()));
}

#[test]
fn export_name_has_zeroes_unless_both_agree() {
    for (client, len) in [(3u32, 10), (1, 134), (0, 134)] {
        let mut bytes = client.to_be_bytes().to_vec();
        bytes.extend(option(opt::EXPORT_NAME, b"vg/lv0"));
        let (progress, out, _) = run(&One(1), &bytes, 5).unwrap();
        assert!(matches!(progress, Progress::Chosen(_)));
        assert_eq!(out.len(), len);
        assert_eq!(out[..8], (1u64 << 30).to_be_bytes());
    }
    assert_eq!(
        talk(&[option(opt::EXPORT_NAME, b"nope")]),
        Err(NegotiationError::NoSuchExport)
    );
}

#[test]
fn refusals() {
    let cases = [
        (opt::STARTTLS, vec![], rep::ERR_UNSUP),
        (99, vec![1, 2, 3], rep::ERR_UNSUP),
        (opt::LIST, vec![0], rep::ERR_INVALID),
        (opt::STRUCTURED_REPLY, vec![0], rep::ERR_INVALID),
        (opt::GO, vec![], rep::ERR_INVALID),
        (opt::GO, go("nope", &[]), rep::ERR_UNKNOWN),
        (opt::INFO, go("nope", &[]), rep::ERR_UNKNOWN),
        // Contexts need structured replies first.
        (opt::SET_META_CONTEXT, meta("", &[]), rep::ERR_INVALID),
        (opt::LIST_META_CONTEXT, meta("", &[]), rep::ERR_INVALID),
        (opt::GO, vec![0; 17 << 10], rep::ERR_TOO_BIG),
    ];
    for (number, data, reply) in cases {
        let (progress, out, _) = talk(&[option(number, &data), option(98, &[])]).unwrap();
        assert_eq!(progress, Progress::Continue, "option {number}");
        let expected = [(number, reply, vec![]), (98, rep::ERR_UNSUP, vec![])];
        assert_eq!(replies(&out), expected);
    }
}

#[test]
fn contexts_are_listed_by_namespace_and_chosen_by_name() {
    let with = |number, queries: &[&str]| {
        let (_, out, _) = talk(&[
            option(opt::STRUCTURED_REPLY, &[]),
            option(number, &meta("vg/lv0", queries)),
        ])
        .unwrap();
        replies(&out).len() - 2
    };
    let tuesday = "qemu:dirty-bitmap:tuesday";
    assert_eq!(with(opt::LIST_META_CONTEXT, &[]), 3);
    assert_eq!(with(opt::LIST_META_CONTEXT, &["base:"]), 1);
    assert_eq!(with(opt::LIST_META_CONTEXT, &["base:allocation"]), 1);
    assert_eq!(with(opt::LIST_META_CONTEXT, &["qemu:"]), 2);
    assert_eq!(with(opt::LIST_META_CONTEXT, &["qemu:dirty-bitmap:"]), 2);
    assert_eq!(with(opt::LIST_META_CONTEXT, &["qemu:dirty"]), 0);
    assert_eq!(with(opt::LIST_META_CONTEXT, &["nbd:", tuesday]), 1);
    assert_eq!(with(opt::SET_META_CONTEXT, &["x", "base:allocation"]), 1);
    assert_eq!(
        with(opt::SET_META_CONTEXT, &["base:allocation", tuesday]),
        2
    );
    assert_eq!(with(opt::SET_META_CONTEXT, &["base:"]), 0);
    assert_eq!(with(opt::SET_META_CONTEXT, &["qemu:dirty-bitmap:"]), 0);
    assert_eq!(with(opt::SET_META_CONTEXT, &[]), 0);
}

#[test]
fn a_context_keeps_its_number_whatever_else_is_chosen() {
    let (progress, ..) = talk(&[
        option(opt::STRUCTURED_REPLY, &[]),
        option(
            opt::SET_META_CONTEXT,
            &meta("vg/lv0", &["qemu:dirty-bitmap:tuesday"]),
        ),
        option(opt::GO, &go("vg/lv0", &[])),
    ])
    .unwrap();
    let Progress::Chosen(negotiated) = progress else {
        panic!("{progress:?}");
    };
    let tuesday = Context {
        id: 3,
        name: "qemu:dirty-bitmap:tuesday".into(),
    };
    assert_eq!(negotiated.contexts, [tuesday]);
}

#[test]
fn a_context_holds_for_its_export_name_only_and_a_failed_choice_ends_it() {
    let set = option(opt::SET_META_CONTEXT, &meta("vg/lv0", &["base:allocation"]));
    for spoil in [
        option(opt::SET_META_CONTEXT, &meta("nope", &["base:allocation"])),
        option(opt::SET_META_CONTEXT, &meta("", &["base:allocation"])),
        option(opt::SET_META_CONTEXT, &[1]),
    ] {
        let (progress, ..) = talk(&[
            option(opt::STRUCTURED_REPLY, &[]),
            set.clone(),
            spoil,
            option(opt::GO, &go("vg/lv0", &[])),
        ])
        .unwrap();
        let Progress::Chosen(negotiated) = progress else {
            panic!("{progress:?}");
        };
        assert!(negotiated.contexts.is_empty());
    }
}

#[test]
fn abort_is_acknowledged() {
    let (progress, out, _) = talk(&[option(opt::ABORT, b"bye")]).unwrap();
    assert_eq!(progress, Progress::Aborted);
    assert_eq!(replies(&out), [(opt::ABORT, rep::ACK, vec![])]);
}

#[test]
fn a_scanner_is_dropped_at_once() {
    assert_eq!(
        run(&One(1), b"GET / HTTP/1.1\r\n\r\n", 4),
        Err(NegotiationError::ClientFlags(u32::from_be_bytes(*b"GET ")))
    );
    assert!(matches!(
        run(&One(1), b"\0\0\0\x03GET / HTTP/1.1\r\n\r\n", 64),
        Err(NegotiationError::Option(DecodeError::Magic(_)))
    ));
    let mut long = 3u32.to_be_bytes().to_vec();
    long.extend_from_slice(&wire::OPTION_MAGIC.to_be_bytes());
    long.extend_from_slice(&[0, 0, 0, 7, 0xff, 0xff, 0xff, 0xff]);
    assert!(matches!(
        run(&One(1), &long, 64),
        Err(NegotiationError::OptionTooLong { option: 7, .. })
    ));
    let plain = [vec![0; 4], option(opt::LIST, &[])].concat();
    assert_eq!(
        run(&One(1), &plain, 64),
        Err(NegotiationError::NotFixedNewstyle(opt::LIST))
    );
}

#[test]
fn the_budget_grows_with_the_first_list_only() {
    let run_with = |exports: usize, list: usize, other: usize| {
        let mut bytes = 3u32.to_be_bytes().to_vec();
        bytes.extend(option(opt::LIST, &[]).repeat(list));
        bytes.extend(option(opt::INFO, &go("vg/lv0", &[])).repeat(other));
        run(&One(exports), &bytes, 1 << 20).map(|_| ())
    };
    assert_eq!(run_with(1, 0, 64), Ok(()));
    assert_eq!(run_with(1, 0, 65), Err(NegotiationError::TooManyOptions));
    assert_eq!(run_with(100, 1, 463), Ok(()));
    assert_eq!(run_with(100, 2, 463), Err(NegotiationError::TooManyOptions));
}

fn any_option() -> impl Strategy<Value = Vec<u8>> {
    let name = prop_oneof![
        Just("vg/lv0"),
        Just(""),
        Just("nope"),
        Just("base:allocation")
    ];
    let data = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..40),
        (name.clone(), proptest::collection::vec(0u16..5, 0..4)).prop_map(|(n, k)| go(n, &k)),
        (name.clone(), proptest::collection::vec(name, 0..4)).prop_map(|(n, q)| meta(n, &q)),
    ];
    (0u32..12, data).prop_map(|(number, data)| option(number, &data))
}

proptest! {
    #[test]
    fn hostile_bytes_never_panic(
        flags in prop_oneof![Just(3u32), Just(1), Just(0), any::<u32>()],
        options in proptest::collection::vec(any_option(), 0..8),
        garbage in proptest::collection::vec(any::<u8>(), 0..64),
        flip in proptest::option::of((any::<prop::sample::Index>(), 0u8..8)),
        step in 1usize..64,
    ) {
        let mut bytes = [&flags.to_be_bytes()[..], &options.concat(), &garbage].concat();
        if let Some((at, bit)) = flip {
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
        }
        let stepped = run(&One(3), &bytes, step);
        prop_assert_eq!(&stepped, &run(&One(3), &bytes, usize::MAX / 2));
        if let Ok((_, out, _)) = stepped {
            prop_assert!(out.len() <= 64 + bytes.len() / 16 * 256);
        }
    }
}
