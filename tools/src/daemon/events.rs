//! The event log: what happened on this node, for the admin. Append-only, bounded, followable.
//!
//! The file is JSON lines; when it has grown to [`FILE_BYTES_MAX`] it becomes `events.1.jsonl` and
//! a new one begins, so the two together are bounded. An event that cannot be written is still
//! logged and followed: the event log is no reason to stop serving.

use crate::api::{Row, Value};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::broadcast;

/// Size at which the file is rotated.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Events kept in memory for `events`.
const RECENT_MAX: usize = 2_000;
/// Events a follower may lag behind before it misses some.
const FOLLOW_BACKLOG: usize = 256;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When, in seconds since 1970-01-01 UTC.
    pub time: u64,
    /// What kind of event: `pv-missing`, `plex-stale`, `feed-live`, …
    pub kind: String,
    /// What it happened to: a path, `VG`, `VG/LV`, a peer.
    pub object: String,
    /// In words.
    pub text: String,
}

impl Event {
    /// As a row of the listing.
    pub fn row(&self) -> Row {
        super::rows::row([
            ("event_time", Value::Time(self.time)),
            ("event_kind", Value::Text(self.kind.clone())),
            ("event_object", Value::Text(self.object.clone())),
            ("event_text", Value::Text(self.text.clone())),
        ])
    }
}

/// The log.
#[derive(Debug)]
pub struct EventLog {
    path: PathBuf,
    inner: Mutex<Inner>,
    followers: broadcast::Sender<Event>,
}

#[derive(Debug)]
struct Inner {
    file: Option<File>,
    bytes: u64,
    recent: VecDeque<Event>,
    /// Events by kind since the start.
    counts: BTreeMap<String, u64>,
    /// Writing failed; said once.
    failed: bool,
}

impl EventLog {
    /// Opens the log in the state directory and remembers the newest events of earlier runs.
    pub fn open(state_dir: &Path) -> Self {
        let path = state_dir.join("events.jsonl");
        let mut recent = VecDeque::new();
        for path in [rotated(&path), path.clone()] {
            if let Err(error) = load(&path, &mut recent) {
                tracing::warn!(path = %path.display(), %error, "cannot read old events");
            }
        }
        let (followers, _) = broadcast::channel(FOLLOW_BACKLOG);
        let mut inner = Inner {
            file: None,
            bytes: 0,
            recent,
            counts: BTreeMap::new(),
            failed: false,
        };
        inner.reopen(&path);
        Self {
            path,
            inner: Mutex::new(inner),
            followers,
        }
    }

    /// Records an event.
    pub fn record(&self, kind: &str, object: &str, text: &str) {
        let event = Event {
            time: now(),
            kind: kind.to_owned(),
            object: object.to_owned(),
            text: text.to_owned(),
        };
        tracing::info!(kind, object, "{text}");
        let mut inner = self
            .inner
            .lock()
            .unwrap_or_else(|poison| poison.into_inner());
        inner.append(&self.path, &event);
        *inner.counts.entry(event.kind.clone()).or_default() += 1;
        if inner.recent.len() == RECENT_MAX {
            inner.recent.pop_front();
        }
        inner.recent.push_back(event.clone());
        // No follower is no error.
        let _followers = self.followers.send(event);
    }

    /// The newest events, oldest first.
    pub fn recent(&self) -> Vec<Event> {
        let inner = self
            .inner
            .lock()
            .unwrap_or_else(|poison| poison.into_inner());
        inner.recent.iter().cloned().collect()
    }

    /// How many events of each kind there were since the start.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        let inner = self
            .inner
            .lock()
            .unwrap_or_else(|poison| poison.into_inner());
        inner.counts.clone()
    }

    /// The newest events and all that come after them, without a gap between.
    pub fn follow(&self) -> (Vec<Event>, broadcast::Receiver<Event>) {
        let inner = self
            .inner
            .lock()
            .unwrap_or_else(|poison| poison.into_inner());
        let receiver = self.followers.subscribe();
        (inner.recent.iter().cloned().collect(), receiver)
    }
}

impl Inner {
    fn reopen(&mut self, path: &Path) {
        let opened = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path)
            .and_then(|file| Ok((file.metadata()?.len(), file)));
        match opened {
            Ok((bytes, file)) => {
                self.bytes = bytes;
                self.file = Some(file);
            }
            Err(error) => self.complain(path, &error),
        }
    }

    fn append(&mut self, path: &Path, event: &Event) {
        if self.bytes >= FILE_BYTES_MAX {
            self.file = None;
            match std::fs::rename(path, rotated(path)) {
                Ok(()) => self.reopen(path),
                Err(error) => self.complain(path, &error),
            }
        }
        if self.file.is_none() {
            self.reopen(path);
        }
        let Some(file) = &mut self.file else { return };
        let written = serde_json::to_vec(event)
            .map_err(io::Error::from)
            .and_then(|mut line| {
                line.push(b'\n');
                file.write_all(&line)?;
                Ok(line.len() as u64)
            });
        match written {
            Ok(bytes) => {
                self.bytes += bytes;
                self.failed = false;
            }
            Err(error) => self.complain(path, &error),
        }
    }

    fn complain(&mut self, path: &Path, error: &io::Error) {
        if !self.failed {
            tracing::warn!(path = %path.display(), %error, "cannot write the event log");
        }
        self.failed = true;
    }
}

fn rotated(path: &Path) -> PathBuf {
    path.with_file_name("events.1.jsonl")
}

fn load(path: &Path, recent: &mut VecDeque<Event>) -> io::Result<()> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for line in BufReader::new(file.take(2 * FILE_BYTES_MAX)).split(b'\n') {
        // A line torn by a crash is skipped; the next one is whole again.
        if let Ok(event) = serde_json::from_slice(&line?) {
            if recent.len() == RECENT_MAX {
                recent.pop_front();
            }
            recent.push_back(event);
        }
    }
    Ok(())
}

/// Seconds since 1970-01-01 UTC.
pub fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_survive_a_restart_and_a_torn_line() {
        let dir = tempfile::tempdir().unwrap();
        EventLog::open(dir.path()).record("vg-created", "vg0", "created");
        let mut file = OpenOptions::new()
            .append(true)
            .open(dir.path().join("events.jsonl"))
            .unwrap();
        file.write_all(b"{\"time\":1,\n").unwrap();
        let log = EventLog::open(dir.path());
        log.record("vg-removed", "vg0", "removed");
        let kinds: Vec<_> = log.recent().into_iter().map(|event| event.kind).collect();
        assert_eq!(kinds, ["vg-created", "vg-removed"]);
    }

    #[test]
    fn the_files_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let log = EventLog::open(dir.path());
        let text = "x".repeat(64 << 10);
        for _ in 0..64 {
            log.record("noise", "vg0", &text);
        }
        let total: u64 = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .sum();
        assert!(total < 2 * FILE_BYTES_MAX + (256 << 10), "{total}");
        assert!(total > FILE_BYTES_MAX / 2);
    }

    #[test]
    fn followers_get_what_comes_after() {
        let dir = tempfile::tempdir().unwrap();
        let log = EventLog::open(dir.path());
        log.record("a", "x", "");
        let (old, mut new) = log.follow();
        assert_eq!(old.len(), 1);
        log.record("b", "x", "");
        assert_eq!(new.try_recv().unwrap().kind, "b");
    }
}
