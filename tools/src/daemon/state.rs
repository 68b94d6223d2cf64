//! The state directory: what the node knows that is not on its disks.
//!
//! `lock` (held while the daemon lives), `node.json`, `devices.json`, `groups.json`, `peers.json`, `events.jsonl`,
//! `archive/`. Every file is replaced as a whole: a crash leaves the old one or the new one.

use super::StartError;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// A file of the state directory larger than this is not ours.
const FILE_MAX: u64 = 16 << 20;

/// Reading or writing the state directory failed.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The kernel said no.
    #[error("{path}: {source}", path = .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file's content is not what this program writes.
    #[error("{path}: damaged: {why}", path = .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

/// Who this node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFile {
    /// Identity.
    pub uuid: Uuid,
    /// Name, chosen at the first start or by `--node`.
    pub name: String,
    /// Location tag; may be empty.
    pub location: String,
}

/// The state directory, locked.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    _lock: File,
}

impl StateDir {
    /// Creates the directory where it is missing and locks it.
    pub fn open(path: &Path) -> Result<Self, StartError> {
        let failed = |source: io::Error| StartError::StateDir {
            path: path.to_owned(),
            source,
        };
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(failed)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.join("lock"))
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StartError::StateDirInUse {
                    path: path.to_owned(),
                });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads a JSON file; `None` where it does not exist.
    pub fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, StateError> {
        let path = self.path.join(name);
        let io_error = |source| StateError::Io {
            path: path.clone(),
            source,
        };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error(error)),
        };
        let mut bytes = Vec::new();
        file.take(FILE_MAX + 1)
            .read_to_end(&mut bytes)
            .map_err(io_error)?;
        let damaged = |why: String| StateError::Damaged {
            path: path.clone(),
            why,
        };
        if bytes.len() as u64 > FILE_MAX {
            return Err(damaged("too large".into()));
        }
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| damaged(error.to_string()))
    }

    /// Replaces a JSON file.
    pub fn write<T: Serialize>(&self, name: &str, value: &T) -> Result<(), StateError> {
        let path = self.path.join(name);
        let mut bytes = serde_json::to_vec_pretty(value).map_err(|error| StateError::Damaged {
            path: path.clone(),
            why: error.to_string(),
        })?;
        bytes.push(b'\n');
        write_atomically(&path, &bytes).map_err(|source| StateError::Io { path, source })
    }

    /// Reads who this node is, or decides it at the first start. Options change it for good.
    /// The UUID is the key's.
    pub fn node(
        &self,
        uuid: Uuid,
        name: Option<&str>,
        location: Option<&str>,
    ) -> Result<NodeFile, StateError> {
        let old: Option<NodeFile> = self.read("node.json")?;
        let mut node = old.clone().unwrap_or_else(|| NodeFile {
            uuid,
            name: host_name(),
            location: String::new(),
        });
        node.uuid = uuid;
        if let Some(name) = name {
            node.name = name.to_owned();
        }
        if let Some(location) = location {
            node.location = location.to_owned();
        }
        if old.as_ref() != Some(&node) {
            self.write("node.json", &node)?;
        }
        Ok(node)
    }
}

/// Writes beside, makes it durable, then takes the place of the old file.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = path
        .parent()
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    let written = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        })
        .and_then(|()| std::fs::rename(&temporary, path));
    if let Err(error) = written {
        // The old file stands; a half-written new one is only litter.
        let _litter = std::fs::remove_file(&temporary);
        return Err(error);
    }
    File::open(dir)?.sync_all()
}

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .map(|text| text.trim().to_owned())
        .filter(|text| !text.is_empty())
        .unwrap_or_else(|| "localhost".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_keeps_its_uuid_and_takes_new_names() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(&dir.path().join("s")).unwrap();
        let uuid = Uuid::from_u128(1);
        let first = state.node(uuid, Some("a"), None).unwrap();
        let second = state.node(uuid, Some("b"), Some("cellar")).unwrap();
        let third = state.node(uuid, None, None).unwrap();
        assert_eq!(first.uuid, third.uuid);
        assert_eq!(second, third);
        assert_eq!(third.name, "b");
    }

    #[test]
    fn the_second_to_come_is_refused_until_the_first_has_gone() {
        let dir = tempfile::tempdir().unwrap();
        let first = StateDir::open(dir.path()).unwrap();
        let error = StateDir::open(dir.path()).unwrap_err();
        assert!(matches!(error, StartError::StateDirInUse { .. }));
        drop(first);
        StateDir::open(dir.path()).unwrap();
    }

    #[test]
    fn damaged_files_are_said_to_be_so() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        std::fs::write(dir.path().join("node.json"), b"{\"uuid\":").unwrap();
        let error = state.node(Uuid::from_u128(1), None, None).unwrap_err();
        assert!(matches!(error, StateError::Damaged { .. }), "{error}");
        assert_eq!(state.read::<NodeFile>("absent.json").unwrap(), None);
    }
}
