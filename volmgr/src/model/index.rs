//! What a list of volumes is asked again and again: who has this name, this UUID, which extents are in
//! use. Kept up to date with each volume that comes, changes or goes.

use super::extents::DiskUse;
use super::sorted::Sorted;
use super::volume::Volume;
use std::sync::Arc;
use uuid::Uuid;

/// The index. Only of volumes of which no two share a name, a UUID or an extent: whether they do is
/// what it finds out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    names: Sorted<Arc<str>, u64>,
    uuids: Sorted<Uuid, u64>,
    disks: Sorted<Uuid, DiskUse>,
}

/// Two volumes share what is one's own, or a volume uses a run that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clash;

impl Index {
    /// The key of the volume of this name.
    pub fn named(&self, name: &str) -> Option<u64> {
        self.names.get(name).copied()
    }

    /// The key of the volume of this UUID.
    pub fn of(&self, uuid: Uuid) -> Option<u64> {
        self.uuids.get(&uuid).copied()
    }

    /// The use of each disk that is used at all.
    pub fn disks(&self) -> &Sorted<Uuid, DiskUse> {
        &self.disks
    }

    /// A volume is there now. After a clash the index is good for nothing.
    pub fn add(&mut self, key: u64, volume: &Volume) -> Result<(), Clash> {
        self.add_name(key, volume)?;
        self.add_uuid(key, volume)?;
        self.add_runs(volume)
    }

    /// A volume is gone.
    pub fn remove(&mut self, volume: &Volume) {
        self.names.remove(&*volume.name);
        self.uuids.remove(&volume.uuid);
        self.remove_runs(volume);
    }

    /// A volume is another one now. After a clash the index is good for nothing.
    pub fn change(&mut self, key: u64, old: &Volume, new: &Volume) -> Result<(), Clash> {
        if old.name != new.name {
            self.names.remove(&*old.name);
            self.add_name(key, new)?;
        }
        if old.uuid != new.uuid {
            self.uuids.remove(&old.uuid);
            self.add_uuid(key, new)?;
        }
        if !old.extent_runs().eq(new.extent_runs()) {
            self.remove_runs(old);
            self.add_runs(new)?;
        }
        Ok(())
    }

    fn add_name(&mut self, key: u64, volume: &Volume) -> Result<(), Clash> {
        first(self.names.insert(volume.name.as_str().into(), key))
    }

    fn add_uuid(&mut self, key: u64, volume: &Volume) -> Result<(), Clash> {
        first(self.uuids.insert(volume.uuid, key))
    }

    fn add_runs(&mut self, volume: &Volume) -> Result<(), Clash> {
        for (pv, start, len) in volume.extent_runs() {
            let mut disk = self.disks.get(&pv).cloned().unwrap_or_default();
            if !disk.take(start, len) {
                return Err(Clash);
            }
            self.disks.insert(pv, disk);
        }
        Ok(())
    }

    fn remove_runs(&mut self, volume: &Volume) {
        for (pv, start, len) in volume.extent_runs() {
            let Some(mut disk) = self.disks.get(&pv).cloned() else {
                continue;
            };
            disk.give(start, len);
            match disk.used() {
                0 => self.disks.remove(&pv),
                _ => self.disks.insert(pv, disk),
            };
        }
    }
}

fn first(before: Option<u64>) -> Result<(), Clash> {
    match before {
        None => Ok(()),
        Some(_) => Err(Clash),
    }
}
