//! Disks, volumes and connections for the stream tests.
#![allow(dead_code, reason = "each test file uses a part")]

pub mod streams;

use blockio::{ByteRange, Flags, IoError, IoErrorKind, Op};
use feedplex::counters::FeedCounters;
use feedplex::device::{DoneFn, FileSegment, PlexSegments, SinkDevice, WriteGrant};
use feedplex::identity::{Fingerprint, Identity};
use feedplex::streams::{AckTracker, OnEnd, StreamError, StreamProgress};
use feedplex::transport::ktls::KernelTls;
use feedplex::transport::{
    Acceptor, AcceptorLimits, DataStream, Security, SocketOptions, connect, tls,
};
use nix::fcntl::{FallocateFlags, fallocate};
use std::collections::HashSet;
use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};
use uuid::Uuid;

pub const MIB: u64 = 1 << 20;
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A plex of two disks, concatenated, each with something in front of its part.
pub struct Plex {
    pub disks: [Arc<File>; 2],
    pub first_len: u64,
    pub before: u64,
}

impl Plex {
    pub fn new(size: u64) -> Self {
        let first_len = (size / 2) & !4095;
        let before = 8192;
        let disk = |len| {
            let file = tempfile::tempfile().unwrap();
            file.set_len(before + len).unwrap();
            Arc::new(file)
        };
        Self {
            disks: [disk(first_len), disk(size - first_len)],
            first_len,
            before,
        }
    }

    pub fn segments(&self, range: ByteRange) -> Vec<FileSegment> {
        let parts = [
            ByteRange::new(0, self.first_len),
            ByteRange::new(self.first_len, u64::MAX / 2),
        ];
        let mut segments = Vec::new();
        for (disk, part) in self.disks.iter().zip(parts) {
            if let Some(piece) = range.intersection(part) {
                let start = piece.start() - part.start() + self.before;
                segments.push(FileSegment {
                    file: disk.clone(),
                    range: ByteRange::new(start, piece.len()),
                });
            }
        }
        segments
    }

    pub fn write(&self, offset: u64, bytes: &[u8]) {
        let mut rest = bytes;
        for segment in self.segments(ByteRange::new(offset, bytes.len() as u64)) {
            let (now, later) = rest.split_at(segment.range.len() as usize);
            segment
                .file
                .write_all_at(now, segment.range.start())
                .unwrap();
            rest = later;
        }
    }

    pub fn read(&self, range: ByteRange) -> Vec<u8> {
        let mut bytes = Vec::new();
        for segment in self.segments(range) {
            let mut piece = vec![0; segment.range.len() as usize];
            segment
                .file
                .read_exact_at(&mut piece, segment.range.start())
                .unwrap();
            bytes.extend(piece);
        }
        bytes
    }
}

/// Bytes that differ from each other and from other seeds.
pub fn pattern(len: u64, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len / 8)
        .flat_map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        })
        .collect()
}

/// A volume with some plexes that does everything at once, and can be told to fail.
pub struct TestVolume {
    pub plexes: Vec<Plex>,
    pub events: Mutex<Vec<String>>,
    /// Completions held back until a flush comes.
    pub hold_writes: Mutex<Option<Vec<DoneFn>>>,
    pub plex_results: Mutex<Vec<Vec<Result<(), IoError>>>>,
    /// This plex's disks are given out read-only.
    pub broken_plex: Option<usize>,
    pub fail_submits: bool,
}

impl TestVolume {
    pub fn new(plexes: usize, size: u64) -> Self {
        Self {
            plexes: (0..plexes).map(|_| Plex::new(size)).collect(),
            events: Mutex::default(),
            hold_writes: Mutex::default(),
            plex_results: Mutex::default(),
            broken_plex: None,
            fail_submits: false,
        }
    }

    pub fn log(&self) -> Vec<String> {
        self.events.lock().unwrap().clone()
    }
}

impl SinkDevice for TestVolume {
    fn begin_write(&self, range: ByteRange) -> Result<WriteGrant, IoError> {
        let plexes = self.plexes.iter().enumerate().map(|(number, plex)| {
            let mut segments = plex.segments(range);
            if self.broken_plex == Some(number) {
                let path = format!("/proc/self/fd/{}", {
                    use std::os::fd::AsRawFd;
                    segments[0].file.as_raw_fd()
                });
                segments[0].file = Arc::new(File::open(path).unwrap());
            }
            PlexSegments { segments }
        });
        Ok(WriteGrant {
            id: range.start(),
            plexes: plexes.collect(),
        })
    }

    fn end_write(&self, grant: WriteGrant, results: Vec<Result<(), IoError>>, done: DoneFn) {
        assert_eq!(grant.plexes.len(), results.len());
        let all_failed = !results.is_empty() && results.iter().all(Result::is_err);
        self.plex_results.lock().unwrap().push(results);
        done(if all_failed {
            Err(IoError::new(IoErrorKind::Medium))
        } else {
            Ok(())
        });
    }

    fn submit(&self, op: Op, range: ByteRange, flags: Flags, bytes: Option<Vec<u8>>, done: DoneFn) {
        let event = format!("{op:?} {range:?} {}", flags.bits());
        self.events.lock().unwrap().push(event);
        if self.fail_submits {
            return done(Err(IoError::new(IoErrorKind::NoSpace)));
        }
        match op {
            Op::Write => {
                for plex in &self.plexes {
                    plex.write(range.start(), bytes.as_ref().unwrap());
                }
                if let Some(held) = &mut *self.hold_writes.lock().unwrap() {
                    return held.push(done);
                }
            }
            Op::WriteZeroes => {
                for segment in self.plexes.iter().flat_map(|plex| plex.segments(range)) {
                    let mode =
                        FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
                    let (at, len) = (segment.range.start() as i64, segment.range.len() as i64);
                    fallocate(&segment.file, mode, at, len).unwrap();
                }
            }
            _ => {}
        }
        done(Ok(()));
    }

    fn mark(&self, point: Uuid, sequence: u64) {
        let event = format!("Mark {point} {sequence}");
        self.events.lock().unwrap().push(event);
    }
}

type Ends = Vec<(u64, Result<(), IoError>)>;

/// Tokens as they are told done.
#[derive(Clone, Default)]
pub struct Told(Arc<Mutex<Ends>>);

impl Told {
    pub fn tracker(&self) -> Arc<AckTracker> {
        let log = self.0.clone();
        Arc::new(AckTracker::new(Box::new(move |token, result| {
            log.lock().unwrap().push((token, result));
        })))
    }

    pub fn sorted(&self) -> Ends {
        let mut told = self.0.lock().unwrap().clone();
        told.sort_by_key(|(token, _)| *token);
        told
    }
}

/// How a stream ended, when it has.
pub fn on_end() -> (OnEnd, Receiver<Result<(), StreamError>>) {
    let (send, receive) = channel();
    let on_end: OnEnd = Box::new(move |result| {
        // The test may have looked away.
        let _ = send.send(result);
    });
    (on_end, receive)
}

pub fn progress() -> Arc<StreamProgress> {
    Arc::new(StreamProgress::new(|_| {}))
}

pub fn counters() -> Arc<FeedCounters> {
    Arc::new(FeedCounters::default())
}

pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Both ends of a TCP connection on loopback.
pub fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let here = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (there, _) = listener.accept().unwrap();
    (here, there)
}

pub fn plain_pair() -> (DataStream, DataStream) {
    let (here, there) = tcp_pair();
    (DataStream::plain(here), DataStream::plain(there))
}

pub const MAGIC: [u8; 8] = *b"\x93TESTING";

pub fn identity() -> Identity {
    let dir = tempfile::tempdir().unwrap();
    Identity::load_or_create(dir.path()).unwrap()
}

pub fn known(peers: &[Fingerprint]) -> Arc<RwLock<HashSet<Fingerprint>>> {
    Arc::new(RwLock::new(peers.iter().copied().collect()))
}

pub fn acceptor(identity: &Identity, peers: &[Fingerprint], plaintext: bool) -> Acceptor {
    // Short, for the tests of the limit itself.
    patient_acceptor(identity, peers, plaintext, Duration::from_millis(500))
}

pub fn patient_acceptor(
    identity: &Identity,
    peers: &[Fingerprint],
    plaintext: bool,
    timeout: Duration,
) -> Acceptor {
    let config = tls::server_config(identity, known(peers)).unwrap();
    let limits = AcceptorLimits {
        pending: 2,
        timeout,
    };
    Acceptor::new(config, MAGIC, plaintext, SocketOptions::default(), limits)
}

/// Both ends of a TLS data stream: the connecting one, the accepting one.
pub fn tls_pair() -> (DataStream, DataStream) {
    tls_pair_with(&KernelTls::off(), &KernelTls::off())
}

/// The same, each end with the help of this kernel.
pub fn tls_pair_with(connecting: &KernelTls, accepting: &KernelTls) -> (DataStream, DataStream) {
    let (connecting_kernel, accepting_kernel) = (connecting, accepting);
    let (client, server) = (identity(), identity());
    let acceptor = patient_acceptor(&server, &[client.fingerprint()], false, PATIENCE);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepting = async {
            let (tcp, from) = listener.accept().await.unwrap();
            acceptor.accept::<8>(tcp, from).await.unwrap().connection
        };
        let connecting = async {
            use tokio::io::AsyncWriteExt;
            let config = tls::client_config(&client, server.fingerprint()).unwrap();
            let options = SocketOptions::default();
            let mut connection = connect(address, None, &Security::Tls(config), &options, PATIENCE)
                .await
                .unwrap();
            assert_eq!(connection.peer(), Some(server.fingerprint()));
            connection.write_all(&MAGIC).await.unwrap();
            connection.flush().await.unwrap();
            connection
        };
        let (there, here) = tokio::join!(accepting, connecting);
        assert_eq!(there.peer(), Some(client.fingerprint()));
        (
            here.into_data(connecting_kernel).unwrap(),
            there.into_data(accepting_kernel).unwrap(),
        )
    })
}
