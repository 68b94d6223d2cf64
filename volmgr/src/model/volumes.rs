//! The volumes of a group, shared between its versions.
//!
//! A group has thousands of volumes, and each commit makes a new version of it. So a copy of the
//! list shares its volumes with the original, and a volume is copied when one of the two changes it;
//! whether a volume is the same in two versions is first asked of its address. An index goes with
//! the list, so that nothing that is asked of one volume looks at all.

use super::Volume;
use super::extents::DiskUse;
use super::index::{Clash, Index};
use super::sorted::{Entries, Sorted, Walk};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use uuid::Uuid;

/// From so many volumes on that go at once the list is made anew.
const MANY: usize = 64;

/// The volumes, in the order in which they were made.
#[derive(Clone)]
pub struct Volumes {
    /// By a key that grows; it says nothing outside of this list.
    list: Sorted<u64, Arc<Volume>>,
    next: u64,
    /// None where volumes share a name, a UUID or an extent, which no valid group's do, or did at
    /// some moment.
    index: Option<Index>,
}

impl Default for Volumes {
    fn default() -> Self {
        Self {
            list: Sorted::default(),
            next: 0,
            index: Some(Index::default()),
        }
    }
}

impl Volumes {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// There is none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// All of them.
    pub fn iter(&self) -> Iter<'_> {
        self.list.iter().map(|(_, volume)| &**volume)
    }

    /// The one at this place.
    pub fn get(&self, index: usize) -> Option<&Volume> {
        self.list.nth(index).map(|(_, volume)| &**volume)
    }

    /// The one of this name.
    pub fn named(&self, name: &str) -> Option<&Volume> {
        match &self.index {
            Some(index) => self.list.get(&index.named(name)?).map(|volume| &**volume),
            None => self.iter().find(|volume| volume.name == name),
        }
    }

    /// The one of this UUID.
    pub fn of(&self, uuid: Uuid) -> Option<&Volume> {
        match &self.index {
            Some(index) => self.list.get(&index.of(uuid)?).map(|volume| &**volume),
            None => self.iter().find(|volume| volume.uuid == uuid),
        }
    }

    /// The place of the one of this name.
    pub fn place_of(&self, name: &str) -> Option<usize> {
        match &self.index {
            Some(index) => Some(self.list.rank(&index.named(name)?)),
            None => self.iter().position(|volume| volume.name == name),
        }
    }

    /// The one of this UUID, to be changed.
    pub fn get_mut(&mut self, uuid: Uuid) -> Option<VolumeMut<'_>> {
        let key = match &self.index {
            Some(index) => index.of(uuid)?,
            None => self.list.iter().find(|(_, v)| v.uuid == uuid)?.0,
        };
        Some(self.change(key))
    }

    /// The one at this place, to be changed.
    ///
    /// # Panics
    /// Where there is none.
    pub fn at_mut(&mut self, index: usize) -> VolumeMut<'_> {
        let (key, _) = self.list.nth(index).expect("no volume at this place");
        self.change(*key)
    }

    fn change(&mut self, key: u64) -> VolumeMut<'_> {
        let before = Arc::clone(self.list.get(&key).expect("a key of this list"));
        VolumeMut {
            now: Arc::clone(&before),
            before,
            key,
            of: self,
        }
    }

    /// Adds one.
    pub fn push(&mut self, volume: Volume) {
        self.append(Arc::new(volume));
    }

    fn append(&mut self, volume: Arc<Volume>) {
        let key = self.next;
        self.next += 1;
        self.reindex(|index| index.add(key, &volume));
        self.list.insert(key, volume);
    }

    fn reindex(&mut self, change: impl FnOnce(&mut Index) -> Result<(), Clash>) {
        if let Some(index) = &mut self.index
            && change(index).is_err()
        {
            self.index = None;
        }
    }

    /// Takes the one at this place out.
    ///
    /// # Panics
    /// Where there is none.
    pub fn remove(&mut self, index: usize) -> Volume {
        let (key, _) = self.list.nth(index).expect("no volume at this place");
        let volume = self.take(*key).expect("a key of this list");
        Arc::unwrap_or_clone(volume)
    }

    fn take(&mut self, key: u64) -> Option<Arc<Volume>> {
        let volume = self.list.remove(&key)?;
        if let Some(index) = &mut self.index {
            index.remove(&volume);
        }
        Some(volume)
    }

    /// Keeps those for which this is true.
    pub fn retain(&mut self, mut keep: impl FnMut(&Volume) -> bool) {
        let all = self.list.iter();
        let gone: Vec<u64> = all.filter(|(_, v)| !keep(v)).map(|(key, _)| *key).collect();
        if gone.len() < MANY {
            for key in gone {
                self.take(key);
            }
            return;
        }
        let gone: HashSet<u64> = gone.into_iter().collect();
        let stay = self.list.iter().filter(|(key, _)| !gone.contains(key));
        *self = stay.map(|(_, volume)| Arc::clone(volume)).collect();
    }

    /// Changes those that `wanted` names; the others stay shared.
    pub fn update(
        &mut self,
        wanted: impl Fn(&Volume) -> bool,
        mut change: impl FnMut(&mut Volume),
    ) {
        let all = self.list.iter();
        let keys: Vec<u64> = all
            .filter(|(_, v)| wanted(v))
            .map(|(key, _)| *key)
            .collect();
        for key in keys {
            change(&mut self.change(key));
        }
    }

    /// No two volumes share a name, a UUID or an extent, and each run of extents is one. False, too,
    /// where they once did: [`Volumes::look_again`].
    pub fn is_indexed(&self) -> bool {
        self.index.is_some()
    }

    /// Makes the index anew where a change on the way had none.
    pub fn look_again(&mut self) {
        if self.index.is_none() {
            *self = self.list.iter().map(|(_, v)| Arc::clone(v)).collect();
        }
    }

    /// The use of each disk that a volume lies on, by PV; `None` where it has to be counted.
    pub(crate) fn disks(&self) -> Option<&Sorted<Uuid, DiskUse>> {
        self.index.as_ref().map(Index::disks)
    }

    /// What has to be done to `old` to get this list. Volumes that the two share are not looked at.
    pub fn changes_since(&self, old: &Self) -> Changes {
        let mut changes = Changes::default();
        let mut walk = Walk::new(&old.list, &self.list);
        loop {
            match walk.peek() {
                (Some((before, was)), Some((place, is))) if was.uuid == is.uuid => {
                    if !Arc::ptr_eq(was, is) && was != is {
                        changes.put.push((place, Some(before)));
                    }
                    walk.step(Ordering::Equal, 1);
                }
                (Some((before, _)), _) => {
                    changes.gone.push(before);
                    walk.step(Ordering::Less, 1);
                }
                (None, Some((place, _))) => {
                    changes.put.push((place, None));
                    walk.step(Ordering::Greater, 1);
                }
                (None, None) => break,
            }
        }
        // What seems to have gone and comes again later has only changed its place.
        let volumes = |list: &Self, place: usize| list.get(place).map(|volume| volume.uuid);
        let gone = changes.gone.iter().filter_map(|i| volumes(old, *i));
        let gone: HashSet<Uuid> = gone.collect();
        let mut new = changes.put.iter().filter(|(_, before)| before.is_none());
        changes.reordered = !gone.is_empty()
            && new.any(|(place, _)| volumes(self, *place).is_some_and(|v| gone.contains(&v)));
        changes
    }
}

/// A volume that is being changed. Its list knows of it when this goes.
#[derive(Debug)]
pub struct VolumeMut<'a> {
    of: &'a mut Volumes,
    key: u64,
    before: Arc<Volume>,
    now: Arc<Volume>,
}

impl Deref for VolumeMut<'_> {
    type Target = Volume;

    fn deref(&self) -> &Volume {
        &self.now
    }
}

impl DerefMut for VolumeMut<'_> {
    fn deref_mut(&mut self) -> &mut Volume {
        Arc::make_mut(&mut self.now)
    }
}

impl Drop for VolumeMut<'_> {
    fn drop(&mut self) {
        if Arc::ptr_eq(&self.before, &self.now) {
            return;
        }
        let (key, before, now) = (self.key, &self.before, &self.now);
        self.of.reindex(|index| index.change(key, before, now));
        self.of.list.insert(key, Arc::clone(now));
    }
}

/// What leads from one list to another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Places in the old list of the volumes that are gone.
    pub gone: Vec<usize>,
    /// Places in the new list of the volumes that are new or changed, and in the old one of what
    /// they were.
    pub put: Vec<(usize, Option<usize>)>,
    /// Volumes have changed their order: the rest says too little.
    pub reordered: bool,
}

/// The volumes of a [`Volumes`].
pub type Iter<'a> =
    std::iter::Map<Entries<'a, u64, Arc<Volume>>, fn(&(u64, Arc<Volume>)) -> &Volume>;

impl<'a> IntoIterator for &'a Volumes {
    type Item = &'a Volume;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

impl FromIterator<Volume> for Volumes {
    fn from_iter<I: IntoIterator<Item = Volume>>(volumes: I) -> Self {
        volumes.into_iter().map(Arc::new).collect()
    }
}

impl FromIterator<Arc<Volume>> for Volumes {
    fn from_iter<I: IntoIterator<Item = Arc<Volume>>>(volumes: I) -> Self {
        let mut all = Self::new();
        for volume in volumes {
            all.append(volume);
        }
        all
    }
}

impl PartialEq for Volumes {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.changes_since(other) == Changes::default()
    }
}

impl Eq for Volumes {}

impl fmt::Debug for Volumes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self).finish()
    }
}

impl std::ops::Index<usize> for Volumes {
    type Output = Volume;

    fn index(&self, index: usize) -> &Volume {
        self.get(index).expect("no volume at this place")
    }
}

impl Serialize for Volumes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self)
    }
}

impl<'de> Deserialize<'de> for Volumes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::<Volume>::deserialize(deserializer).map(Self::from_iter)
    }
}

#[cfg(test)]
#[path = "volumes_tests.rs"]
mod tests;
