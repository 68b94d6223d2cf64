//! The groups this node knows: their disks, the version of each that stands, and its successors.
//!
//! Readers take a [`GroupView`], a picture of the last commit, and never wait for a disk. A commit
//! holds the group's own lock while it plans and writes. Names are looked up in the views.

mod archive;
mod commit;
mod handover;
mod memory;
mod returns;
mod scan;
mod view;

pub use archive::Kept;
pub use commit::CommitError;
pub use handover::{Carried, unfinished};
pub use memory::{FILE as MEMORY_FILE, Memory, Remembered};
pub use scan::ScanOutcome;
pub use view::{DiskPlace, GroupView};

use super::disks::{DiskKey, FilePv};
use archive::Archive;
use commit::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use uuid::Uuid;
use volmgr::model::{Group, Pv};

/// An event: kind, object, text.
pub type News = (&'static str, String, String);

/// A PV that belongs to no group, claimed.
#[derive(Debug)]
pub struct Orphan {
    /// Its UUID.
    pub uuid: Uuid,
    /// The disk.
    pub disk: FilePv,
}

/// A PV that belongs to no group, for listings.
#[derive(Clone, Debug)]
pub struct OrphanView {
    /// Its UUID.
    pub uuid: Uuid,
    /// Where it is.
    pub path: PathBuf,
    /// Size of the disk in bytes.
    pub size: u64,
}

/// What a disk is to this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// A PV without a group.
    Orphan(Uuid),
    /// A PV of this group.
    Member(String),
}

/// All groups.
#[derive(Debug)]
pub struct Groups {
    archive: Archive,
    memory: Arc<Memory>,
    table: RwLock<Table>,
}

#[derive(Debug, Default)]
struct Table {
    groups: BTreeMap<Uuid, Arc<Slot>>,
    orphans: BTreeMap<Uuid, Orphan>,
}

#[derive(Debug)]
struct Slot {
    entry: Mutex<Entry>,
    view: RwLock<Arc<GroupView>>,
}

impl Slot {
    fn new(entry: Entry) -> Self {
        let view = RwLock::new(Arc::new(entry.view()));
        Self {
            entry: Mutex::new(entry),
            view,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Entry> {
        self.entry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn view(&self) -> Arc<GroupView> {
        let view = self.view.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&view)
    }

    fn publish(&self, entry: &Entry) -> Arc<GroupView> {
        let view = Arc::new(entry.view());
        *self.view.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&view);
        view
    }
}

impl Groups {
    /// No groups yet; old versions are archived in that folder.
    pub fn new(archive: PathBuf, memory: Memory) -> Self {
        Self {
            archive: Archive::new(archive),
            memory: Arc::new(memory),
            table: RwLock::default(),
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The group of that name, as of the last commit.
    pub fn view(&self, vg: &str) -> Option<Arc<GroupView>> {
        self.slot(vg).map(|slot| slot.view())
    }

    /// All groups, by name.
    pub fn views(&self) -> Vec<Arc<GroupView>> {
        let mut views: Vec<_> = self
            .read()
            .groups
            .values()
            .map(|slot| slot.view())
            .collect();
        views.sort_by(|a, b| a.group.name.cmp(&b.group.name));
        views
    }

    /// Where two groups have one name, the one without trouble is meant.
    fn slot(&self, vg: &str) -> Option<Arc<Slot>> {
        let table = self.read();
        let mut named = table
            .groups
            .values()
            .filter(|slot| slot.view().group.name == vg);
        let first = named.next()?;
        let better = std::iter::once(first)
            .chain(named)
            .find(|slot| slot.view().trouble.is_none());
        Some(Arc::clone(better.unwrap_or(first)))
    }

    /// PVs without a group.
    pub fn orphans(&self) -> Vec<OrphanView> {
        self.read()
            .orphans
            .values()
            .map(|orphan| OrphanView {
                uuid: orphan.uuid,
                path: orphan.disk.path().to_owned(),
                size: orphan.disk.size(),
            })
            .collect()
    }

    /// Takes a PV without a group out of the list, to do something with it.
    pub fn take_orphan(&self, uuid: Uuid) -> Option<Orphan> {
        self.write().orphans.remove(&uuid)
    }

    /// Puts a PV without a group into the list.
    pub fn put_orphan(&self, orphan: Orphan) {
        self.write().orphans.insert(orphan.uuid, orphan);
    }

    /// What the disk is to this node.
    pub fn known(&self, key: DiskKey) -> Option<Known> {
        let table = self.read();
        let orphan = table.orphans.values().find(|o| o.disk.key() == key);
        if let Some(orphan) = orphan {
            return Some(Known::Orphan(orphan.uuid));
        }
        table.groups.values().find_map(|slot| {
            let view = slot.view();
            let here = view.disks.values().any(|place| place.key == key);
            here.then(|| Known::Member(view.group.name.clone()))
        })
    }

    /// Where the disks in use are.
    pub fn paths(&self) -> BTreeSet<PathBuf> {
        let orphans = self.orphans().into_iter().map(|orphan| orphan.path);
        let members = self.views();
        let members = members
            .iter()
            .flat_map(|view| view.disks.values().map(|place| place.path.clone()));
        orphans.chain(members).collect()
    }

    /// Some volume that has a feed with this peer.
    pub fn feed_of_peer(&self, peer: &str) -> Option<String> {
        self.views().iter().find_map(|view| {
            let volume = view
                .group
                .volumes
                .iter()
                .find(|volume| volume.feeds.iter().any(|feed| feed.peer == peer))?;
            Some(format!("{}/{}", view.group.name, volume.name))
        })
    }

    /// Makes a new group of these PVs. On failure they are given back as they are.
    pub fn create(&self, group: Group, orphans: Vec<Orphan>) -> Result<Vec<News>, String> {
        let uuid = group.uuid;
        let disks = orphans
            .into_iter()
            .map(|orphan| (orphan.uuid, orphan.disk))
            .collect();
        let mut entry = Entry::create(group, disks, self.memory.clone());
        match entry.create_on_disks() {
            Ok(news) => {
                self.archive.keep(&entry.group);
                let slot = Arc::new(Slot::new(entry));
                self.write().groups.insert(uuid, slot);
                Ok(news)
            }
            Err(why) => {
                for (uuid, disk) in entry.disks {
                    self.put_orphan(Orphan { uuid, disk });
                }
                Err(why)
            }
        }
    }

    /// Changes a group; see [`super::Node::commit`].
    pub fn commit<E>(
        &self,
        vg: &str,
        change: impl FnOnce(&Group) -> Result<Group, E>,
    ) -> Result<(Arc<GroupView>, Vec<News>), CommitError<E>> {
        self.commit_with(vg, Vec::new(), change)
    }

    /// Changes a group which `joining` PVs may become part of by that. Those that leave the group
    /// become PVs without one.
    pub fn commit_with<E>(
        &self,
        vg: &str,
        joining: Vec<Orphan>,
        change: impl FnOnce(&Group) -> Result<Group, E>,
    ) -> Result<(Arc<GroupView>, Vec<News>), CommitError<E>> {
        let Some(slot) = self.slot(vg) else {
            joining
                .into_iter()
                .for_each(|orphan| self.put_orphan(orphan));
            return Err(CommitError::NoGroup);
        };
        let mut entry = slot.lock();
        let joined: Vec<Uuid> = joining.iter().map(|orphan| orphan.uuid).collect();
        for orphan in joining {
            entry.disks.insert(orphan.uuid, orphan.disk);
        }
        let result = entry.commit(change);
        let listed: BTreeSet<Uuid> = entry.group.pvs.iter().map(|pv| pv.uuid).collect();
        let unlisted: Vec<Uuid> = entry
            .disks
            .keys()
            .filter(|uuid| !listed.contains(uuid))
            .copied()
            .collect();
        for uuid in unlisted {
            if let Some(disk) = entry.disks.remove(&uuid) {
                // A PV that was to join and did not is as it was; one that left was told by the
                // commit.
                self.put_orphan(Orphan { uuid, disk });
            }
        }
        let news = match result {
            Ok(news) => news,
            Err(error) => {
                tracing::debug!(?joined, "commit failed");
                return Err(error);
            }
        };
        self.archive.keep(&entry.group);
        let view = slot.publish(&entry);
        if entry.group.pvs.is_empty() {
            self.memory.forget(entry.group.uuid);
            self.write().groups.remove(&entry.group.uuid);
        }
        Ok((view, news))
    }

    /// A disk of a group has grown: takes the new room into use.
    pub fn grow_member(&self, vg: &str, key: DiskKey) -> Result<Vec<News>, String> {
        let slot = self.slot(vg).ok_or("no such group")?;
        let mut entry = slot.lock();
        let news = entry.grow(key)?;
        self.archive.keep(&entry.group);
        slot.publish(&entry);
        Ok(news)
    }

    /// Lets go of an exported group's disks, so that another node can have them; it stays listed.
    pub fn release(&self, vg: &str) {
        if let Some(slot) = self.slot(vg) {
            let mut entry = slot.lock();
            self.memory.forget(entry.group.uuid);
            entry.release();
            slot.publish(&entry);
        }
    }

    /// Claims the disks of an exported group and looks at them again: it may have been used
    /// elsewhere since it was seen here.
    pub fn reopen(&self, vg: &str) -> Result<Vec<String>, String> {
        let slot = self.slot(vg).ok_or("no such group")?;
        let mut entry = slot.lock();
        let result = entry.reopen();
        slot.publish(&entry);
        result
    }

    /// Is the group whole, or has this node used it before? What disks that are away have, only who has used it knows.
    pub fn may_start(&self, view: &GroupView) -> bool {
        let listed = |pv: &&Pv| pv.missing_since.is_none();
        let whole = !view.missing().iter().any(listed);
        whole || self.memory.knows(view.group.uuid)
    }

    /// An admin goes on with what is here, although disks that are away have newer data. Blocks.
    pub fn accept_older(&self, vg: &str) -> Result<Vec<String>, String> {
        let slot = self.slot(vg).ok_or("no such group")?;
        let mut entry = slot.lock();
        if !entry.older {
            return Err("nothing newer than what is here is known".to_owned());
        }
        self.memory.forget(entry.group.uuid);
        let result = entry.open_again();
        self.memory.meet(entry.group.uuid);
        slot.publish(&entry);
        result
    }

    /// Makes sure that what stands is on all disks that are here, and that those that are not are
    /// marked. Blocks.
    pub fn settle(&self, vg: &str) -> Result<(Arc<GroupView>, Vec<News>), String> {
        let slot = self.slot(vg).ok_or("no such group")?;
        let mut entry = slot.lock();
        if let Some(trouble) = &entry.trouble {
            return Err(trouble.clone());
        }
        let news = entry.settle()?;
        Ok((slot.publish(&entry), news))
    }

    /// Returns when the newest versions are in the archive. Blocks.
    pub fn finish_archive(&self) {
        self.archive.flush();
    }

    /// Old versions of a group's metadata as text, oldest first. Blocks.
    pub fn archived(&self, vg: &str) -> std::io::Result<Vec<Kept>> {
        self.archive.list(vg)
    }

    /// The disks of a group that are here, for I/O on extents that nobody else uses.
    pub fn disks(&self, vg: &str) -> BTreeMap<Uuid, FilePv> {
        self.slot(vg)
            .map(|slot| slot.lock().disks.clone())
            .unwrap_or_default()
    }
}
