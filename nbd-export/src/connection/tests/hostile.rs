//! Random requests, random bytes, random order of everything.

use super::super::*;
use super::sim::*;
use crate::wire::{CommandFlags, cmd};
use proptest::prelude::*;
use std::collections::HashMap;

#[derive(Clone, Copy, Debug)]
struct Wish {
    command: u16,
    offset: u64,
    len: u32,
    flags: u16,
}

fn wish() -> impl Strategy<Value = Wish> {
    let len = prop_oneof![
        Just(512u32),
        Just(64 * KIB),
        (1u32..800).prop_map(|n| n * 512),
        0u32..9
    ];
    let flags = prop_oneof![8 => Just(0u16), 1 => 0u16..64];
    (0u16..10, 0u64..4100, len, flags).prop_map(|(command, block, len, flags)| Wish {
        // No DISC in the middle.
        command: if command == cmd::DISC { 77 } else { command },
        offset: block * 512,
        len,
        flags,
    })
}

/// Writes go to the upper half, each to a place of its own, so that what the disk holds in the
/// end does not depend on their order; reads and the rest stay in the lower.
fn place(wish: Wish, index: usize) -> Wish {
    let len = wish.len.min(128 * KIB);
    match wish.command {
        cmd::WRITE => Wish {
            offset: (SIZE / 2 + index * 128 * 1024) as u64,
            len,
            ..wish
        },
        cmd::WRITE_ZEROES => Wish {
            offset: (SIZE * 5 / 8 + index * 64 * 1024) as u64 + (1 << 20),
            len: wish.len.min(64 * KIB),
            ..wish
        },
        // What would reach into the upper half goes past the end instead.
        cmd::READ if wish.offset + u64::from(wish.len) > SIZE as u64 / 2 => Wish {
            offset: SIZE as u64,
            ..wish
        },
        cmd::FLUSH => Wish {
            offset: 0,
            len: 0,
            ..wish
        },
        _ => wish,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    /// Whatever is asked, and however bytes, completions and sends interleave: each request is
    /// answered once and rightly, and nothing is left behind.
    #[test]
    fn every_request_is_answered_once(
        structured: bool,
        wishes in proptest::collection::vec(wish(), 1..9),
        schedule in proptest::collection::vec((0u8..3, any::<prop::sample::Index>(), 1usize..100_000), 0..200),
    ) {
        let mut sim = Sim::new(structured, small());
        let rules = Rules { max_chunk: 64 * KIB, ..sim.connection.rules };
        let mut reads = HashMap::new();
        let mut expected = HashMap::new();
        let mut disk = sim.disk.clone();
        for (index, wish) in wishes.iter().enumerate() {
            let wish = place(*wish, index);
            let cookie = index as u64;
            let head = RequestHeader {
                flags: CommandFlags::from_bits_retain(wish.flags),
                command: wish.command, cookie, offset: wish.offset, len: wish.len,
            };
            sim.input.extend_from_slice(&head.encode());
            if wish.command == cmd::READ {
                reads.insert(cookie, (wish.offset, wish.len));
            }
            let fill = vec![index as u8 + 1; wish.len as usize];
            if wish.command == cmd::WRITE {
                sim.input.extend_from_slice(&fill);
            }
            let at = wish.offset as usize..wish.offset as usize + wish.len as usize;
            let touches_bad = at.contains(&(BAD as usize));
            let answer = match rules.check(&head) {
                Err(error) => Err(error as u32),
                Ok(_) if wish.command == cmd::READ && touches_bad => Err(WireError::Io as u32),
                Ok(_) => Ok(match wish.command {
                    cmd::READ => disk[at].to_vec(),
                    cmd::WRITE => { disk[at].copy_from_slice(&fill); vec![] }
                    cmd::WRITE_ZEROES => { disk[at].fill(0); vec![] }
                    // A chunk for each context.
                    cmd::BLOCK_STATUS => [1u32, wish.len, 3, 3, wish.len, 1].map(u32::to_be_bytes).concat(),
                    _ => vec![],
                }),
            };
            expected.insert(cookie, answer);
        }
        sim.input.extend(request(cmd::DISC, 0, 0, 0));
        for (what, index, step) in schedule {
            match what {
                0 => { sim.feed(step); }
                1 if !sim.at_device.is_empty() => sim.complete(index.index(sim.at_device.len())),
                _ => { sim.send(); }
            }
        }
        sim.settle();
        prop_assert!(sim.buffers.is_empty() && sim.at_device.is_empty());
        prop_assert!(sim.connection.is_idle());
        let found = answers(&sim.output, &reads);
        if let Some(CloseReason::ReadFailed(_)) = sim.closed {
            prop_assert!(!structured);
            for (cookie, answer) in found {
                prop_assert!(Some(&answer) == expected.get(&cookie), "answer to {}", cookie);
            }
        } else {
            prop_assert_eq!(sim.closed, Some(CloseReason::Disconnect));
            for (cookie, answer) in &expected {
                prop_assert!(found.get(cookie) == Some(answer), "answer to {}", cookie);
            }
            prop_assert_eq!(found.len(), expected.len());
            prop_assert!(sim.disk == disk, "the disk differs");
        }
    }

    /// Bytes that are almost requests: no panic, bounds held (the harness checks), buffers freed.
    #[test]
    fn hostile_bytes_never_panic(
        structured: bool,
        pieces in proptest::collection::vec(
            (wish(), any::<u64>(), proptest::collection::vec(any::<u8>(), 0..600), any::<bool>()), 0..12),
        flip in proptest::option::of((any::<prop::sample::Index>(), 0u8..8)),
        schedule in proptest::collection::vec((0u8..3, any::<prop::sample::Index>(), 1usize..5000), 0..60),
        broken: bool,
    ) {
        let mut sim = Sim::new(structured, small());
        for (wish, wild, garbage, is_wild) in pieces {
            let offset = if is_wild { wild } else { wish.offset };
            let len = if is_wild { wild as u32 } else { wish.len };
            let flags = CommandFlags::from_bits_retain(wish.flags);
            sim.input.extend(header(wish.command, flags, wild, offset, len));
            sim.input.extend(garbage);
        }
        if let Some((at, bit)) = flip && !sim.input.is_empty() {
            let at = at.index(sim.input.len());
            sim.input[at] ^= 1 << bit;
        }
        for (what, index, step) in schedule {
            match what {
                0 => { sim.feed(step); }
                1 if !sim.at_device.is_empty() => sim.complete(index.index(sim.at_device.len())),
                _ => { sim.send(); }
            }
        }
        if broken { sim.connection.on_broken() } else { sim.settle(); sim.connection.on_eof() }
        sim.actions();
        prop_assert!(sim.closed.is_some());
        while !sim.at_device.is_empty() {
            sim.complete(0);
        }
        prop_assert!(sim.connection.is_idle() && sim.buffers.is_empty());
    }
}
