//! Scripts, one story each.

mod hostile;
mod sim;

use super::*;
use crate::wire::{CommandFlags, cmd};
use sim::*;
use std::collections::HashMap;

#[test]
fn a_write_and_a_read_have_the_documented_bytes() {
    let mut sim = Sim::new(false, ConnectionConfig::default());
    sim.input = request(cmd::WRITE, 0x11, 512, 512);
    sim.input.extend_from_slice(&[0xaa; 512]);
    sim.settle();
    assert_eq!(
        sim.output,
        [
            &[0x67, 0x44, 0x66, 0x98, 0, 0, 0, 0][..],
            &0x11u64.to_be_bytes()
        ]
        .concat()
    );
    assert_eq!(sim.disk[512..1024], [0xaa; 512]);
    sim.output.clear();
    sim.input = request(cmd::READ, 0x12, 512, 512);
    sim.settle();
    assert_eq!(word(&sim.output, 4), 0);
    assert_eq!(sim.output[16..], [0xaa; 512]);
    assert!(sim.connection.is_idle());
}

#[test]
fn flags_reach_the_device() {
    let mut sim = Sim::new(true, ConnectionConfig::default());
    let all = CommandFlags::FUA | CommandFlags::NO_HOLE | CommandFlags::FAST_ZERO;
    sim.input = header(cmd::WRITE_ZEROES, all, 1, 0, 4096);
    sim.input
        .extend(header(cmd::TRIM, CommandFlags::FUA, 2, 0, 4096));
    sim.input.extend(request(cmd::FLUSH, 3, 0, 0));
    sim.input.extend(request(cmd::CACHE, 4, 0, 4096));
    sim.settle();
    let seen: Vec<_> = sim
        .submitted
        .iter()
        .map(|action| match action {
            Action::Submit { op, flags, .. } => (*op, *flags),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        seen,
        [
            (
                Op::WriteZeroes,
                Flags::FUA | Flags::NO_UNMAP | Flags::FAST_ZERO
            ),
            (Op::Discard, Flags::FUA),
            (Op::Flush, Flags::empty()),
            (Op::Prefetch, Flags::empty()),
        ]
    );
    // A discard that the device does not know is no error.
    let answers = answers(&sim.output, &HashMap::new());
    assert!((1..=4).all(|cookie| answers[&cookie] == Ok(Vec::new())));
}

#[test]
fn a_refused_write_is_drained() {
    let mut sim = Sim::new(false, ConnectionConfig::default());
    sim.input = request(cmd::WRITE, 1, SIZE as u64, 4096);
    sim.input.extend(vec![0x25; 4096]);
    sim.input.extend(request(cmd::FLUSH, 2, 0, 0));
    sim.settle();
    let answers = answers(&sim.output, &HashMap::new());
    assert_eq!(answers[&1], Err(WireError::NoSpace as u32));
    assert_eq!(answers[&2], Ok(Vec::new()));
}

#[test]
fn disconnect_waits_for_what_was_asked_and_ignores_the_rest() {
    let mut sim = Sim::new(true, ConnectionConfig::default());
    sim.input = request(cmd::READ, 1, 0, 4096);
    sim.input.extend(request(cmd::DISC, 2, 0, 0));
    sim.input.extend(request(cmd::FLUSH, 3, 0, 0));
    sim.feed(usize::MAX);
    assert_eq!(sim.connection.wants(), Wants::End);
    sim.connection.on_eof();
    assert_eq!(sim.closed, None);
    sim.settle();
    assert_eq!(sim.closed, Some(CloseReason::Disconnect));
    let answers = answers(&sim.output, &HashMap::from([(1, (0, 4096))]));
    assert_eq!(answers.keys().collect::<Vec<_>>(), [&1]);
}

#[test]
fn shutdown_finishes_a_write_that_is_half_received() {
    let mut sim = Sim::new(false, ConnectionConfig::default());
    sim.input = request(cmd::WRITE, 1, 0, 4096);
    sim.feed(usize::MAX);
    sim.connection.shutdown();
    sim.actions();
    assert_eq!(sim.closed, None);
    sim.input = vec![1; 4096];
    sim.settle();
    assert_eq!(sim.closed, Some(CloseReason::Shutdown));
    assert_eq!(sim.output.len(), 16);
}

#[test]
fn nonsense_ends_the_connection_and_releases_buffers_as_they_come_back() {
    let mut sim = Sim::new(true, ConnectionConfig::default());
    sim.input = request(cmd::READ, 1, 0, 4096);
    sim.input.extend(request(cmd::READ, 2, 0, 4096));
    sim.input.extend([0; 28]);
    sim.feed(28 * 2);
    sim.complete(0);
    sim.feed(28);
    assert!(matches!(sim.closed, Some(CloseReason::Protocol(_))));
    assert!(!sim.connection.is_idle() && sim.buffers.len() == 1);
    sim.complete(0);
    assert!(sim.connection.is_idle() && sim.buffers.is_empty());
    assert_eq!(sim.output, []);
}

#[test]
fn a_client_that_takes_no_answers_is_held_back() {
    let config = small();
    let mut sim = Sim::new(true, config);
    for cookie in 0..100 {
        sim.input.extend(request(cmd::READ, cookie, 0, 64 * KIB));
    }
    loop {
        let moved = sim.feed(usize::MAX);
        if !sim.at_device.is_empty() {
            sim.complete(0);
        } else if !moved {
            break;
        }
    }
    assert_eq!(sim.connection.wants(), Wants::Nothing);
    assert_eq!(sim.connection.held_bytes().0, config.max_read_bytes);
    assert_eq!(sim.input.len(), (100 - config.max_requests) * 28);
    sim.settle();
    let reads = (0..100).map(|cookie| (cookie, (0, 64 * KIB))).collect();
    assert_eq!(answers(&sim.output, &reads).len(), 100);
}

#[test]
fn a_long_simple_read_streams_and_an_error_in_it_cuts_the_connection() {
    let mut sim = Sim::new(false, small());
    sim.input = request(cmd::READ, 1, 0, 2 << 20);
    sim.settle();
    // What was sent before the bad piece is in order.
    assert_eq!(sim.closed, Some(CloseReason::ReadFailed(WireError::Io)));
    let data = &sim.output[16..];
    assert!(!data.is_empty() && data.len() as u64 <= BAD);
    assert!(*data == DISK[..data.len()], "not what the disk holds");
    assert!(sim.buffers.is_empty() && sim.connection.is_idle());
}

#[test]
fn a_short_simple_read_fails_in_good_order() {
    let mut sim = Sim::new(false, small());
    sim.input = request(cmd::READ, 1, BAD - 64 * 1024, 128 * KIB);
    sim.input.extend(request(cmd::READ, 2, 0, 512));
    sim.settle();
    let reads = HashMap::from([(1, (BAD - 64 * 1024, 128 * KIB)), (2, (0, 512))]);
    let answers = answers(&sim.output, &reads);
    assert_eq!(answers[&1], Err(WireError::Io as u32));
    assert!(answers[&2].is_ok());
    assert!(sim.buffers.is_empty() && sim.connection.is_idle());
}

#[test]
fn a_structured_read_names_the_piece_that_failed() {
    let mut sim = Sim::new(true, small());
    let start = BAD - 64 * 1024;
    sim.input = request(cmd::READ, 1, start, 128 * KIB);
    sim.settle();
    let tail = &sim.output[sim.output.len() - 34..];
    assert_eq!(tail[4..8], [0, 1, 0x80, 2], "done, error with offset");
    assert_eq!(tail[26..], BAD.to_be_bytes());
    // The good piece had been sent before.
    assert_eq!(sim.output.len(), 28 + 64 * 1024 + 34);
}

#[test]
fn a_streamed_read_that_fails_before_its_first_byte_is_sent_is_a_plain_error() {
    let mut sim = Sim::new(false, small());
    let at = (BAD - 64 * 1024, 256 * KIB);
    sim.input = request(cmd::READ, 1, at.0, at.1);
    sim.feed(usize::MAX);
    assert_eq!(sim.at_device.len(), 3);
    // The first piece puts the reply into the queue, the second fails, the third comes late.
    sim.complete(0);
    sim.complete(0);
    assert!(sim.send());
    assert_eq!((sim.buffers.len(), sim.connection.is_idle()), (1, false));
    sim.complete(0);
    assert!(sim.buffers.is_empty() && sim.connection.is_idle());
    sim.settle();
    let answers = answers(&sim.output, &HashMap::from([(1, at)]));
    assert_eq!(answers[&1], Err(WireError::Io as u32));
    assert_eq!((sim.output.len(), sim.closed), (16, None));
}

#[test]
fn the_rest_of_a_write_that_fails_is_drained() {
    let mut sim = Sim::new(false, small());
    sim.input = request(cmd::WRITE, 1, BAD - 64 * 1024, 512 * KIB);
    sim.input.extend(vec![1; 512 << 10]);
    sim.input.extend(request(cmd::FLUSH, 2, 0, 0));
    sim.settle();
    let answers = answers(&sim.output, &HashMap::new());
    assert_eq!(answers[&1], Err(WireError::Io as u32));
    assert_eq!(answers[&2], Ok(Vec::new()));
    // A good piece, the bad one, one that was being received by then; and the flush.
    assert_eq!(sim.submitted.len(), 4);
    assert!(sim.buffers.is_empty() && sim.connection.is_idle());
}
