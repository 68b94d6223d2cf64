//! Which block devices are this node's: written down, so that a daemon finds those of one that died.

use crate::daemon::state::{StateDir, StateError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use uuid::Uuid;

const FILE: &str = "ublk.json";

/// A device of this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// N of `/dev/ublkbN`.
    pub id: u32,
    /// The kernel's boot: devices do not outlive it, and numbers are given again.
    pub boot: String,
    /// The daemon that served it last. With the kernel's own note of it this tells our device from
    /// another program's that got the same number.
    pub pid: i32,
}

/// The devices of this node, by volume.
#[derive(Debug, Default)]
pub struct Records {
    all: Mutex<BTreeMap<Uuid, Record>>,
}

impl Records {
    /// Reads what an earlier daemon has left; forgets what an earlier boot has.
    pub fn load(state: &StateDir) -> Result<Self, StateError> {
        let mut all: BTreeMap<Uuid, Record> = state.read(FILE)?.unwrap_or_default();
        let boot = boot();
        all.retain(|_, record| record.boot == boot);
        Ok(Self {
            all: Mutex::new(all),
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Uuid, Record>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The volume's device.
    pub fn get(&self, volume: Uuid) -> Option<Record> {
        self.lock().get(&volume).cloned()
    }

    /// All volumes with a device.
    pub fn volumes(&self) -> Vec<Uuid> {
        self.lock().keys().copied().collect()
    }

    /// The volume has this device, served by this process; on disk when it returns.
    pub fn set(&self, state: &StateDir, volume: Uuid, id: u32) -> Result<(), StateError> {
        let record = Record {
            id,
            boot: boot(),
            pid: i32::try_from(std::process::id()).unwrap_or(0),
        };
        let mut all = self.lock();
        all.insert(volume, record);
        state.write(FILE, &*all)
    }

    /// The volume has no device any more.
    pub fn remove(&self, state: &StateDir, volume: Uuid) -> Result<(), StateError> {
        let mut all = self.lock();
        match all.remove(&volume) {
            Some(_) => state.write(FILE, &*all),
            None => Ok(()),
        }
    }
}

fn boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_survive_the_daemon_but_not_the_boot() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let (now, before) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let records = Records::load(&state).unwrap();
        records.set(&state, now, 7).unwrap();
        records.set(&state, before, 8).unwrap();
        records.lock().get_mut(&before).unwrap().boot = "another".into();
        state.write(FILE, &*records.lock()).unwrap();
        let again = Records::load(&state).unwrap();
        assert_eq!(again.get(now).map(|record| record.id), Some(7));
        assert_eq!(again.volumes(), [now]);
        again.remove(&state, now).unwrap();
        assert!(Records::load(&state).unwrap().volumes().is_empty());
    }
}
