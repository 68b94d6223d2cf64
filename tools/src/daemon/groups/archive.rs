//! The last versions of each group as readable text in the state directory, for rescue.
//!
//! A thread of its own writes them: the disks have a version before anybody hears of it, and a large
//! group's text takes longer than its commit. Versions that come faster than they can be written are
//! kept up to the number that the folder holds; of more, the oldest are passed over.

use crate::daemon::state::write_atomically;
use std::collections::VecDeque;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use volmgr::metadata::group_to_text;
use volmgr::model::Group;

/// Versions kept of each group.
const VERSIONS_MAX: usize = 20;
/// The thread rests this many times as long as it has worked, so that it takes little from others.
const REST: u32 = 4;
/// But no longer than this.
const REST_MAX: Duration = Duration::from_secs(2);

/// A folder of old versions, `VG_SEQNO.json`.
#[derive(Debug)]
pub struct Archive {
    dir: PathBuf,
    queue: Arc<Queue>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// One version in the folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Number of its commit.
    pub seqno: u64,
    /// Where it is.
    pub path: PathBuf,
}

#[derive(Debug, Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    pending: VecDeque<Group>,
    writing: bool,
    /// Who waits for all that is pending to be written: no rest.
    waiting: usize,
    stop: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let woken = self.changed.wait(state);
        woken.unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread.
    fn work(&self, dir: &Path) {
        let mut state = self.lock();
        loop {
            let Some(group) = state.pending.pop_front() else {
                if state.stop {
                    return;
                }
                state = self.wait(state);
                continue;
            };
            state.writing = true;
            drop(state);
            let began = Instant::now();
            if let Err(error) = write(dir, &group) {
                // The disks have it already: this is worth a warning, no more.
                tracing::warn!(vg = group.name, %error, "cannot archive the group's metadata");
            }
            let rest_until = Instant::now() + (began.elapsed() * REST).min(REST_MAX);
            state = self.lock();
            state.writing = false;
            self.changed.notify_all();
            while !state.stop && state.waiting == 0 {
                let left = rest_until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                let woken = self.changed.wait_timeout(state, left);
                state = woken.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }
}

impl Archive {
    /// In that folder, which is made when first needed.
    pub fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            queue: Arc::default(),
            thread: Mutex::default(),
        }
    }

    /// Keeps a version; returns at once.
    pub fn keep(&self, group: &Group) {
        let mut state = self.queue.lock();
        let same = |pending: &&Group| pending.uuid == group.uuid;
        if state.pending.iter().filter(same).count() >= VERSIONS_MAX {
            let oldest = state.pending.iter().position(|p| p.uuid == group.uuid);
            oldest.map(|oldest| state.pending.remove(oldest));
        }
        state.pending.push_back(group.clone());
        drop(state);
        self.queue.changed.notify_all();
        self.begin();
    }

    fn begin(&self) {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if thread.is_some() {
            return;
        }
        let (queue, dir) = (Arc::clone(&self.queue), self.dir.clone());
        let named = std::thread::Builder::new().name("archive".into());
        match named.spawn(move || queue.work(&dir)) {
            Ok(handle) => *thread = Some(handle),
            Err(error) => tracing::warn!(%error, "cannot archive metadata"),
        }
    }

    /// Returns when all that was given to [`Archive::keep`] is in the folder. Blocks.
    pub fn flush(&self) {
        let mut state = self.queue.lock();
        state.waiting += 1;
        self.queue.changed.notify_all();
        let running = || self.thread.lock().is_ok_and(|thread| thread.is_some());
        while (state.writing || !state.pending.is_empty()) && running() {
            state = self.queue.wait(state);
        }
        state.waiting -= 1;
    }

    /// The versions of a group in the folder, oldest first. Blocks.
    pub fn list(&self, vg: &str) -> io::Result<Vec<Kept>> {
        self.flush();
        match versions(&self.dir, vg) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            other => other,
        }
    }
}

impl Drop for Archive {
    fn drop(&mut self) {
        self.queue.lock().stop = true;
        self.queue.changed.notify_all();
        let thread = self
            .thread
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = thread.take()
            && thread.join().is_err()
        {
            tracing::warn!("the archive's thread has ended badly");
        }
    }
}

fn write(dir: &Path, group: &Group) -> io::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)?;
    let file = format!("{}_{:010}.json", group.name, group.seqno);
    write_atomically(&dir.join(file), group_to_text(group).as_bytes())?;
    let mut versions = versions(dir, &group.name)?;
    let keep = VERSIONS_MAX.min(versions.len());
    versions.truncate(versions.len() - keep);
    for version in versions {
        std::fs::remove_file(version.path)?;
    }
    Ok(())
}

/// Files of a group, oldest first.
fn versions(dir: &Path, vg: &str) -> io::Result<Vec<Kept>> {
    let mut versions = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if let Some(seqno) = version_of(&path, vg) {
            versions.push(Kept { seqno, path });
        }
    }
    versions.sort_by_key(|version| version.seqno);
    Ok(versions)
}

/// The sequence number in a file's name, where the file is of this group. Group names may contain
/// underscores: what follows the last one is the number.
fn version_of(path: &Path, vg: &str) -> Option<u64> {
    let name = path.file_name()?.to_str()?.strip_suffix(".json")?;
    let (group, seqno) = name.rsplit_once('_')?;
    (group == vg).then(|| seqno.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn group() -> Group {
        Group {
            uuid: Uuid::from_u128(1),
            name: "vg_a".into(),
            extent_size: 4 << 20,
            seqno: 1,
            commit: Uuid::from_u128(2),
            exported: false,
            handover: None,
            tags: Default::default(),
            pvs: Vec::new(),
            volumes: Default::default(),
        }
    }

    #[test]
    fn the_newest_versions_stay_and_other_groups_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let archive = Archive::new(dir.path().join("archive"));
        assert_eq!(archive.list("vg_a").unwrap(), []);
        let mut group = group();
        archive.keep(&group);
        (group.name, group.uuid) = ("vg".into(), Uuid::from_u128(3));
        for seqno in 1..=30 {
            group.seqno = seqno;
            archive.keep(&group);
        }
        let versions = archive.list("vg").unwrap();
        assert_eq!(versions.len(), VERSIONS_MAX);
        assert_eq!(versions[0].seqno, 11);
        assert_eq!(archive.list("vg_a").unwrap().len(), 1);
    }

    #[test]
    fn what_is_pending_at_the_end_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let archive = Archive::new(dir.path().to_owned());
        let mut group = group();
        for seqno in 1..=5 {
            group.seqno = seqno;
            archive.keep(&group);
        }
        drop(archive);
        assert_eq!(versions(dir.path(), "vg_a").unwrap().len(), 5);
    }
}
