//! Data streams whose TLS records the kernel makes, beside those that are made in user space. Where the kernel does not do
//! it, what is left is that nothing goes wrong and that the reason is told.

mod support;

use blockio::ByteRange;
use feedplex::counters::PathReason;
use feedplex::streams::{BulkConfig, BulkSender, RateLimiter, StreamError, receive};
use feedplex::transport::ktls::{DEFAULT_KEY_BYTES, KernelTls, UserTls};
use std::io::{Read, Write};
use std::sync::Arc;
use support::streams::*;
use support::*;

/// Bytes sent: few, because the kernels that have this are emulated here.
const SENT: u64 = 4 * MIB;

fn here() -> Option<KernelTls> {
    let kernel = KernelTls::probe(DEFAULT_KEY_BYTES);
    match kernel.state() {
        Ok(()) => Some(kernel),
        Err(why) => {
            eprintln!("no kernel TLS here: {why}");
            None
        }
    }
}

#[test]
fn without_the_kernel_it_stays_in_user_space_and_says_why() {
    let kernel = KernelTls::probe(DEFAULT_KEY_BYTES);
    let (near, far) = tls_pair_with(&kernel, &KernelTls::off());
    match kernel.state() {
        Ok(()) => {
            assert!(near.is_kernel_tls());
            assert_eq!(near.copy_reason(), None);
        }
        Err(why) => assert_eq!(near.copy_reason(), Some(PathReason::Tls(why))),
    }
    assert!(
        near.bare_socket().is_none(),
        "its bytes are not the stream's"
    );
    assert_eq!(
        far.copy_reason(),
        Some(PathReason::Tls(UserTls::Configured))
    );
    assert!(far.splice_socket().is_none());
}

#[test]
fn bulk_goes_by_splice_to_and_from_kernel_records() {
    let Some(kernel) = here() else { return };
    let off = KernelTls::off();
    let source = Plex::new(SIZE);
    source.write(0, &pattern(SENT, 7));
    let whole = ByteRange::new(0, SENT);
    for (sending, receiving) in [(&kernel, &kernel), (&kernel, &off), (&off, &kernel)] {
        for plexes in [1, 2] {
            let sink = Arc::new(TestVolume::new(plexes, SIZE));
            let pair = tls_pair_with(sending, receiving);
            let by_kernel = [pair.0.is_kernel_tls(), pair.1.is_kernel_tls()];
            assert_eq!(
                by_kernel,
                [sending.state().is_ok(), receiving.state().is_ok()]
            );
            let began = std::time::Instant::now();
            eprintln!("kernel TLS at {by_kernel:?}, {plexes} plexes");
            let (sent, received) = bulk_copy(pair, &source, &sink, &[whole]);
            eprintln!("took {:?}", began.elapsed());
            for plex in &sink.plexes {
                assert!(plex.read(whole) == source.read(whole));
            }
            for (side, by_kernel) in [(sent, by_kernel[0]), (received, by_kernel[1])] {
                match by_kernel {
                    true => assert_eq!((side.payload_copied_bytes, side.reasons), (0, vec![])),
                    false => assert_eq!(side.payload_kernel_bytes, 0),
                }
                assert_eq!(side.payload_kernel_bytes + side.payload_copied_bytes, SENT);
            }
        }
    }
}

#[test]
fn small_and_large_writes_are_the_same_on_both_sides() {
    let Some(kernel) = here() else { return };
    let off = KernelTls::off();
    for (near, far) in [(&kernel, &kernel), (&kernel, &off), (&off, &kernel)] {
        let (mut near, mut far) = tls_pair_with(near, far);
        let sent = pattern(3 * MIB, 8);
        let expected = sent.clone();
        let writer = std::thread::spawn(move || {
            let mut rest = &sent[..];
            for len in [1, 15, 16384, 16385, 100_000].iter().cycle() {
                let (now, later) = rest.split_at((*len).min(rest.len()));
                near.write_all(now).unwrap();
                rest = later;
                if rest.is_empty() {
                    near.flush().unwrap();
                    return near;
                }
            }
            near
        });
        let mut received = vec![0; expected.len()];
        far.read_exact(&mut received).unwrap();
        assert!(received == expected);
        // And the end of it, without a goodbye.
        writer.join().unwrap().stopper().unwrap().stop();
        let end = far.read(&mut [0; 16]);
        assert!(matches!(&end, Ok(0)) || end.is_err(), "{end:?}");
    }
}

#[test]
fn a_key_that_is_used_up_ends_the_stream() {
    let key = KernelTls::probe(2 * MIB);
    if key.state().is_err() {
        return;
    }
    let source = Plex::new(SIZE);
    source.write(0, &pattern(SENT, 9));
    let (near, far) = tls_pair_with(&key, &key);
    let (end, receiver_ended) = on_end();
    let sink = Arc::new(TestVolume::new(1, SIZE));
    let receiver = receive("sink", config(), far, sink, progress(), counters(), end).unwrap();
    let told = Told::default();
    let (end, ended) = on_end();
    let limiter = Arc::new(RateLimiter::new(0));
    let acks = told.tracker();
    let (sender, thread) = BulkSender::start(
        "bulk",
        BulkConfig::default(),
        near,
        acks,
        limiter,
        counters(),
        end,
    )
    .unwrap();
    sender
        .try_send(job(&source, 1, ByteRange::new(0, SENT)))
        .unwrap();
    let error = ended.recv_timeout(PATIENCE).unwrap().unwrap_err();
    assert!(matches!(error, StreamError::KeyUsedUp), "{error}");
    thread.join(PATIENCE).unwrap();
    // Between two frames or within one, as it happens.
    let _how = receiver_ended.recv_timeout(PATIENCE).unwrap();
    receiver.join(PATIENCE).unwrap();
}
