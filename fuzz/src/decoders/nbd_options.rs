//! NBD's negotiation: any bytes, in any pieces.

use super::Input;
use blockio::Limits;
use nbd_export::{ExportInfo, Exports, Negotiation, Progress, wire};

struct Two;

impl Exports for Two {
    fn list(&self) -> Vec<String> {
        vec!["vg/lv".into(), "vg/b".into()]
    }

    fn describe(&self, name: &str) -> Option<ExportInfo> {
        ["vg/lv", "vg/b", ""].contains(&name).then(|| ExportInfo {
            name: "vg/lv".into(),
            description: "a volume".into(),
            limits: Limits {
                size: 4 << 20,
                logical_block: 512,
                physical_block: 4096,
                minimum_io: 0,
                optimal_io: 0,
                read_only: false,
                discard: true,
                fast_zero: true,
                rotational: false,
            },
            multi_conn: true,
            contexts: vec!["qemu:dirty-bitmap:monday".into()],
        })
    }
}

/// Longest answer: the list of exports, or one option's information.
const ANSWER_MAX: usize = 2 * wire::MAX_STRING;

/// Options longer than this are thrown away, and answered so.
const LONG: u32 = Negotiation::MAX_OPTION;

/// Most pieces that the bytes come in.
const PIECES_MAX: usize = 1024;

/// One execution.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let step = usize::from(input.byte()).max(1);
    // The flags and each option's magic are given, so that the options are the fuzzer's to write.
    let mut bytes = Vec::new();
    if input.byte() & 1 == 0 {
        bytes.extend_from_slice(&[0, 0, 0, 3]);
        while !input.is_empty() {
            bytes.extend_from_slice(&wire::OPTION_MAGIC.to_be_bytes());
            let option = [0, 0, 0, input.byte() % 12];
            let len = u32::from(input.byte());
            let body = input.bytes(len as usize);
            let (claimed, zeroes) = match input.byte() {
                255 => (len << 12, 0),
                // Longer than is looked at, and all of it comes.
                254 => (LONG + len, LONG + len - body.len() as u32),
                _ => (body.len() as u32, 0),
            };
            bytes.extend_from_slice(&option);
            bytes.extend_from_slice(&claimed.to_be_bytes());
            bytes.extend_from_slice(body);
            bytes.resize(bytes.len() + zeroes as usize, 0);
        }
    } else {
        bytes.extend_from_slice(input.0);
    }
    let step = step.max(bytes.len() / PIECES_MAX);
    let (mut negotiation, _) = Negotiation::start();
    let mut out = Vec::new();
    let mut rest = &bytes[..];
    let mut fed = 0;
    loop {
        fed = (fed + step).min(rest.len());
        out.clear();
        match negotiation.on_bytes(&rest[..fed], &Two, &mut out) {
            Ok((consumed, Progress::Continue)) => {
                assert!(consumed <= fed && out.len() <= ANSWER_MAX);
                rest = &rest[consumed..];
                if consumed == 0 && fed == rest.len() || rest.is_empty() {
                    break;
                }
                fed = fed.saturating_sub(consumed);
            }
            Ok((consumed, Progress::Chosen(chosen))) => {
                assert!(consumed <= fed && chosen.contexts.len() <= 2);
                break;
            }
            Ok((_, Progress::Aborted)) | Err(_) => break,
        }
    }
}
