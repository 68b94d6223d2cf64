//! A volume on temporary files, its lane, and a unix socket for clients.

use crate::lane::{DiskSpec, LaneEvent, LaneHandle, LaneSpec, NbdClient, NbdContext};
use blockio::ByteRange;
use nbd_export::{ExportInfo, Exports, Negotiation, Progress};
use regionmap::log::Geometry;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;
use uuid::Uuid;
use volmgr::engine::{DiskId, DiskRange, Piece, PlexId, PlexLayout, VolumeLayout};
use volmgr::model::PlexState;

pub const MIB: u64 = 1 << 20;
/// Size of the volumes here.
pub const SIZE: u64 = 32 * MIB;
const REGION: u64 = 64 << 10;
/// Where a plex begins on its disk.
pub const DATA: u64 = MIB;

/// What the volume is made of.
#[derive(Clone, Copy)]
pub struct Shape {
    pub plexes: u32,
    /// Columns of each plex; 1 is concatenated.
    pub columns: u32,
}

pub struct Rig {
    pub folder: tempfile::TempDir,
    pub spec: LaneSpec,
    pub shape: Shape,
    pub runtime: tokio::runtime::Runtime,
    pub handle: LaneHandle,
    pub notes: Arc<Mutex<Vec<String>>>,
    current: Arc<Mutex<LaneHandle>>,
    /// What the control plane last committed.
    pub states: Arc<Mutex<Vec<(PlexId, PlexState)>>>,
}

struct One(ExportInfo);

impl Exports for One {
    fn list(&self) -> Vec<String> {
        vec![self.0.name.clone()]
    }

    fn describe(&self, name: &str) -> Option<ExportInfo> {
        (name == self.0.name).then(|| self.0.clone())
    }
}

fn geometry() -> Geometry {
    Geometry {
        volume: Uuid::from_u128(7),
        size: SIZE,
        region_size: REGION,
    }
}

/// Disks and layout for the shape: each column is a file, the log copy of each plex is on its
/// first.
fn build(shape: Shape, folder: &std::path::Path) -> LaneSpec {
    let log_bytes = geometry().log_bytes().expect("size");
    let column_len = SIZE / u64::from(shape.columns);
    let (mut disks, mut plexes, mut log) = (Vec::new(), Vec::new(), Vec::new());
    for plex in 0..shape.plexes {
        let mut columns = Vec::new();
        for column in 0..shape.columns {
            let id = DiskId(disks.len() as u32);
            let path = folder.join(format!("disk-{plex}-{column}"));
            let file = fs::File::create(&path).expect("create");
            file.set_len(DATA + column_len + log_bytes.next_multiple_of(MIB))
                .expect("size");
            columns.push(DiskRange {
                disk: id,
                range: ByteRange::new(DATA, column_len),
            });
            if column == 0 {
                let at = DATA + column_len;
                for (offset, bytes) in geometry().format(&[]) {
                    file.write_all_at(&bytes, at + offset).expect("log");
                }
                log.push(DiskRange {
                    disk: id,
                    range: ByteRange::new(at, log_bytes),
                });
            }
            disks.push(DiskSpec::new(path, Uuid::from_u128(u128::from(id.0) + 100)));
        }
        let map = match shape.columns {
            1 => columns.into_iter().map(Piece::Concat).collect(),
            _ => vec![Piece::Striped {
                stripe_size: 64 << 10,
                columns,
            }],
        };
        plexes.push(PlexLayout {
            id: PlexId(plex),
            state: PlexState::Active,
            map_slot: plex + 1,
            map,
        });
    }
    let layout = VolumeLayout {
        points: Vec::new(),
        size: SIZE,
        region_size: REGION,
        plexes,
        feeds: Vec::new(),
        log,
        fed: false,
        whole: true,
        restore: None,
    };
    LaneSpec::new("vg/lv", layout, disks)
}

impl Rig {
    pub fn new(plexes: u32, columns: u32) -> Self {
        Self::with(plexes, columns, |_| ())
    }

    pub fn with(plexes: u32, columns: u32, change: impl FnOnce(&mut LaneSpec)) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let shape = Shape { plexes, columns };
        let mut spec = build(shape, folder.path());
        change(&mut spec);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("runtime");
        let (handle, events) = LaneHandle::start(spec.clone()).expect("lane");
        let rig = Self {
            current: Arc::new(Mutex::new(handle.clone())),
            folder,
            spec,
            shape,
            runtime,
            handle,
            notes: Arc::default(),
            states: Arc::default(),
        };
        rig.control_plane(events);
        rig.listen();
        rig
    }

    /// Commits what the lane wants committed, and remembers what it says.
    fn control_plane(&self, mut events: mpsc::Receiver<LaneEvent>) {
        let (handle, notes, states) =
            (self.handle.clone(), self.notes.clone(), self.states.clone());
        self.runtime.spawn(async move {
            while let Some(event) = events.recv().await {
                match event {
                    LaneEvent::CommitPlexState {
                        io, plex, state, ..
                    } => {
                        states.lock().expect("lock").push((plex, state));
                        handle.commit_done(io, Ok(()));
                    }
                    LaneEvent::Note(note) => {
                        notes.lock().expect("lock").push(format!("{note:?}"));
                    }
                    LaneEvent::Stopped { failure } => {
                        assert_eq!(failure, None);
                        return;
                    }
                }
            }
        });
    }

    fn listen(&self) {
        let listener = UnixListener::bind(self.folder.path().join("nbd")).expect("bind");
        let current = Arc::clone(&self.current);
        // Ends with the process.
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                let handle = current.lock().expect("lock").clone();
                std::thread::spawn(move || negotiate(socket.expect("accept"), &handle));
            }
        });
    }

    /// Starts the lane again on the same disks.
    pub fn restart(&mut self) {
        let committed = self.states.lock().expect("lock").clone();
        for (plex, state) in committed {
            for known in &mut self.spec.layout.plexes {
                if known.id == plex {
                    known.state = state;
                }
            }
        }
        let (handle, events) = LaneHandle::start(self.spec.clone()).expect("lane");
        self.handle = handle.clone();
        *self.current.lock().expect("lock") = handle;
        self.control_plane(events);
    }

    pub fn stop(&self) {
        self.runtime
            .block_on(async {
                let wait = std::time::Duration::from_secs(20);
                tokio::time::timeout(wait, self.handle.stop()).await
            })
            .expect("in time")
            .expect("stop");
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn uri(&self) -> String {
        format!("nbd+unix:///vg/lv?socket={}", self.path("nbd").display())
    }

    /// What a plex holds, read from its files behind the lane's back.
    pub fn plex(&self, plex: u32) -> Vec<u8> {
        let columns: Vec<Vec<u8>> = (0..self.shape.columns)
            .map(|column| {
                let mut file =
                    fs::File::open(self.path(&format!("disk-{plex}-{column}"))).expect("open");
                let mut bytes = Vec::new();
                file.read_to_end(&mut bytes).expect("read");
                let len = (SIZE / u64::from(self.shape.columns)) as usize;
                bytes[DATA as usize..DATA as usize + len].to_vec()
            })
            .collect();
        let stripe = if columns.len() == 1 {
            SIZE as usize
        } else {
            64 << 10
        };
        let mut whole = Vec::with_capacity(SIZE as usize);
        for row in 0..columns[0].len().div_ceil(stripe) {
            for column in &columns {
                whole.extend_from_slice(
                    &column[row * stripe..((row + 1) * stripe).min(column.len())],
                );
            }
        }
        whole
    }

    /// Asserts that all plexes are equal, and returns what they hold.
    pub fn plexes_equal(&self) -> Vec<u8> {
        let first = self.plex(0);
        for plex in 1..self.shape.plexes {
            let other = self.plex(plex);
            let differs = first.iter().zip(&other).position(|(a, b)| a != b);
            assert_eq!(differs, None, "plex{plex} differs from plex0 at this byte");
        }
        first
    }

    /// Waits until `check` holds, for 20 seconds at most.
    pub fn wait(&self, what: &str, mut check: impl FnMut() -> bool) {
        let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while !check() {
            assert!(
                std::time::Instant::now() < until,
                "{what}: {:?}",
                self.notes
            );
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // Stopped already is fine; a lane that hangs is ended with the process.
        let wait = std::time::Duration::from_secs(20);
        let _stopped = self
            .runtime
            .block_on(async { tokio::time::timeout(wait, self.handle.stop()).await });
    }
}

fn negotiate(mut socket: UnixStream, handle: &LaneHandle) {
    let exports = One(ExportInfo {
        name: "vg/lv".into(),
        description: String::new(),
        limits: handle.limits(),
        multi_conn: true,
        contexts: Vec::new(),
    });
    let (mut negotiation, greeting) = Negotiation::start();
    let sent = socket.write_all(&greeting);
    let mut input = Vec::new();
    let mut chunk = [0; 4096];
    if sent.is_err() {
        return;
    }
    loop {
        let mut out = Vec::new();
        let Ok((used, progress)) = negotiation.on_bytes(&input, &exports, &mut out) else {
            return;
        };
        input.drain(..used);
        if socket.write_all(&out).is_err() {
            return;
        }
        match progress {
            Progress::Chosen(negotiated) => {
                let client = NbdClient {
                    contexts: vec![NbdContext::Allocation; negotiated.contexts.len()],
                    socket: socket.into(),
                    negotiated: *negotiated,
                    received: input,
                    peer: "test".into(),
                };
                // A lane that is being stopped hangs up.
                let _stopped = handle.add_nbd(client);
                return;
            }
            Progress::Aborted => return,
            Progress::Continue if used > 0 && !input.is_empty() => {}
            Progress::Continue => match socket.read(&mut chunk) {
                Ok(0) | Err(_) => return,
                Ok(bytes) => input.extend_from_slice(&chunk[..bytes]),
            },
        }
    }
}

/// Is it there? Says so where it is not.
pub fn have(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        println!("skipped: {program} not installed");
    }
    found
}

/// Runs it, for a minute at most; what it printed, and whether it went well.
pub fn try_run(program: &str, args: &[&str]) -> (bool, String) {
    let output = Command::new("timeout")
        .arg("60")
        .arg(program)
        .args(args)
        .output()
        .expect("run");
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), said)
}

/// The same, and it must go well.
pub fn run(program: &str, args: &[&str]) -> String {
    let (good, said) = try_run(program, args);
    assert!(good, "{program} {args:?}: {said}");
    said
}

/// Random-looking bytes with a hole in the middle.
pub fn sample(seed: u32) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32 ^ seed;
    let mut bytes: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take(SIZE as usize)
    .collect();
    bytes[5 << 20..9 << 20].fill(0);
    bytes
}
