//! What this node remembers of its groups: that it has used them, and which disks it went on without.
//!
//! A disk that was given up does not know that it was. Where it is all that is here, its metadata looks like that of a
//! healthy group, and its data is what it was then: to go on with that would be to lose, without a word, what has been
//! written since. So the node writes down that it gives a disk up before the commit that does, in `groups.json`
//! in the state directory; a group of which only such disks are here is not used until the others come, or an admin
//! accepts the older state. A group that is new to this node, and not whole, is not activated by itself either: nobody here
//! knows what the disks that are away have.
//!
//! A node without this memory (its state directory lost) takes such a group for new.

use crate::daemon::state::write_atomically;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use uuid::Uuid;
use volmgr::model::Group;

/// Group, then PV that was given up, then the number of the commit that did.
pub type Remembered = BTreeMap<Uuid, BTreeMap<Uuid, u64>>;

/// Name of the file in the state directory.
pub const FILE: &str = "groups.json";

/// The memory, and its file.
#[derive(Debug)]
pub struct Memory {
    path: PathBuf,
    groups: Mutex<Remembered>,
}

impl Memory {
    /// With what the file has.
    pub fn new(path: PathBuf, groups: Remembered) -> Self {
        Self {
            path,
            groups: Mutex::new(groups),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Remembered> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes it; what cannot be written is said, and known as long as the daemon runs: local I/O does not stop for a
    /// state directory that takes no writes.
    fn change(&self, change: impl FnOnce(&mut Remembered)) {
        let mut groups = self.lock();
        let mut next = groups.clone();
        change(&mut next);
        if next == *groups {
            return;
        }
        *groups = next;
        let written = serde_json::to_vec_pretty(&*groups)
            .map_err(std::io::Error::other)
            .and_then(|text| write_atomically(&self.path, &text));
        if let Err(error) = written {
            tracing::warn!(path = %self.path.display(), %error, "cannot remember the groups' disks");
        }
    }

    /// Has this node used the group?
    pub fn knows(&self, group: Uuid) -> bool {
        self.lock().contains_key(&group)
    }

    /// It uses it now.
    pub fn meet(&self, group: Uuid) {
        if !self.knows(group) {
            self.change(|groups| {
                groups.entry(group).or_default();
            });
        }
    }

    /// The group is nobody's any more, or another node's.
    pub fn forget(&self, group: Uuid) {
        self.change(|groups| {
            groups.remove(&group);
        });
    }

    /// To be called before the commit `seqno` that goes on without these disks.
    pub fn give_up(&self, group: Uuid, pvs: &[Uuid], seqno: u64) {
        self.change(|groups| {
            let given_up = groups.entry(group).or_default();
            for pv in pvs {
                given_up.entry(*pv).or_insert(seqno);
            }
        });
    }

    /// The disks that this version of the group, which is in use, does without are those that were given up.
    pub fn agree(&self, group: &Group) {
        if !self.knows(group.uuid) {
            return;
        }
        self.change(|groups| {
            groups.entry(group.uuid).or_default().retain(|pv, _| {
                group
                    .pv(*pv)
                    .is_some_and(|listed| listed.missing_since.is_some())
            });
        });
    }

    /// Was each of the disks that are here given up by a later version than this one? Then the number of the commit that
    /// did.
    pub fn newer_than(&self, group: &Group, here: &[Uuid]) -> Option<u64> {
        let groups = self.lock();
        let given_up = groups.get(&group.uuid)?;
        let since = |pv: &Uuid| {
            let listed = group.pv(*pv)?;
            let since = *given_up.get(pv)?;
            (listed.missing_since.is_none() && since > group.seqno).then_some(since)
        };
        let all: Option<Vec<u64>> = here.iter().map(since).collect();
        all?.into_iter().max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use volmgr::model::Pv;

    fn group(seqno: u64, pvs: &[(u128, bool)]) -> Group {
        let pv = |(n, missing): &(u128, bool)| Pv {
            uuid: Uuid::from_u128(*n),
            size: 1 << 30,
            data_start: 1 << 20,
            extent_count: 100,
            path_hint: String::new(),
            missing_since: missing.then_some(5),
            spare: false,
            tags: Default::default(),
        };
        Group {
            uuid: Uuid::from_u128(100),
            name: "vg".to_owned(),
            extent_size: 1 << 22,
            seqno,
            commit: Uuid::from_u128(u128::from(seqno)),
            exported: false,
            handover: None,
            tags: Default::default(),
            pvs: pvs.iter().map(pv).collect(),
            volumes: Default::default(),
        }
    }

    #[test]
    fn disks_that_were_given_up_are_known() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let [one, two] = [Uuid::from_u128(1), Uuid::from_u128(2)];
        let memory = Memory::new(path.clone(), Remembered::default());
        let before = group(4, &[(1, false), (2, false)]);
        assert!(!memory.knows(before.uuid));
        assert_eq!(memory.newer_than(&before, &[one]), None);
        memory.give_up(before.uuid, &[two], 5);

        // As the next daemon knows it.
        let read = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let memory = Memory::new(path, read);
        assert!(memory.knows(before.uuid));
        assert_eq!(memory.newer_than(&before, &[two]), Some(5));
        // With one that was not given up, what is newest is here.
        assert_eq!(memory.newer_than(&before, &[one, two]), None);
        assert_eq!(memory.newer_than(&before, &[one]), None);
        let after = group(6, &[(1, false), (2, true)]);
        memory.agree(&after);
        assert_eq!(memory.newer_than(&before, &[two]), Some(5));
        // It is back, and has been taken back.
        memory.agree(&group(7, &[(1, false), (2, false)]));
        assert_eq!(memory.newer_than(&before, &[two]), None);
        memory.forget(before.uuid);
        assert!(!memory.knows(before.uuid));
    }
}
