//! The volumes of a group, shared between its versions.
//!
//! A group has thousands of volumes, and each commit makes a new version of it. So a copy of the
//! list shares its volumes with the original, and a volume is copied when one of the two changes it;
//! whether a volume is the same in two versions is first asked of its address.

use super::Volume;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::HashSet;
use std::ops::{Index, IndexMut};
use std::sync::Arc;
use uuid::Uuid;

/// The volumes, in the order in which they were made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Volumes {
    // Two levels: most copies of a group change no volume, or one.
    list: Arc<Vec<Arc<Volume>>>,
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
        self.list.iter().map(|volume| &**volume)
    }

    /// The one at this place.
    pub fn get(&self, index: usize) -> Option<&Volume> {
        self.list.get(index).map(|volume| &**volume)
    }

    /// The one of this UUID, to be changed.
    pub fn get_mut(&mut self, uuid: Uuid) -> Option<&mut Volume> {
        let index = self.iter().position(|volume| volume.uuid == uuid)?;
        Some(&mut self[index])
    }

    /// Adds one.
    pub fn push(&mut self, volume: Volume) {
        Arc::make_mut(&mut self.list).push(Arc::new(volume));
    }

    /// Takes the one at this place out.
    ///
    /// # Panics
    /// Where there is none.
    pub fn remove(&mut self, index: usize) -> Volume {
        Arc::unwrap_or_clone(Arc::make_mut(&mut self.list).remove(index))
    }

    /// Keeps those for which this is true.
    pub fn retain(&mut self, mut keep: impl FnMut(&Volume) -> bool) {
        if !self.iter().all(&mut keep) {
            Arc::make_mut(&mut self.list).retain(|volume| keep(volume));
        }
    }

    /// Changes those that `wanted` names; the others stay shared.
    pub fn update(
        &mut self,
        wanted: impl Fn(&Volume) -> bool,
        mut change: impl FnMut(&mut Volume),
    ) {
        for index in 0..self.len() {
            if wanted(&self[index]) {
                change(&mut self[index]);
            }
        }
    }

    /// What has to be done to `old` to get this list. Volumes that the two share are not looked at.
    pub fn changes_since(&self, old: &Self) -> Changes {
        let mut changes = Changes::default();
        if Arc::ptr_eq(&self.list, &old.list) {
            return changes;
        }
        let mut place = 0;
        for (before, volume) in old.list.iter().enumerate() {
            match self.list.get(place) {
                Some(now) if Arc::ptr_eq(now, volume) => place += 1,
                Some(now) if now.uuid == volume.uuid => {
                    if now != volume {
                        changes.put.push((place, Some(before)));
                    }
                    place += 1;
                }
                _ => changes.gone.push(before),
            }
        }
        changes
            .put
            .extend((place..self.len()).map(|new| (new, None)));
        // What seems to have gone and comes again later has only changed its place.
        let gone: HashSet<Uuid> = changes.gone.iter().map(|i| old[*i].uuid).collect();
        let mut new = changes.put.iter().filter(|(_, before)| before.is_none());
        changes.reordered = new.any(|(place, _)| gone.contains(&self[*place].uuid));
        changes
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
pub type Iter<'a> = std::iter::Map<std::slice::Iter<'a, Arc<Volume>>, fn(&Arc<Volume>) -> &Volume>;

impl<'a> IntoIterator for &'a Volumes {
    type Item = &'a Volume;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

impl FromIterator<Volume> for Volumes {
    fn from_iter<I: IntoIterator<Item = Volume>>(volumes: I) -> Self {
        Self {
            list: Arc::new(volumes.into_iter().map(Arc::new).collect()),
        }
    }
}

impl Index<usize> for Volumes {
    type Output = Volume;

    fn index(&self, index: usize) -> &Volume {
        &self.list[index]
    }
}

impl IndexMut<usize> for Volumes {
    fn index_mut(&mut self, index: usize) -> &mut Volume {
        Arc::make_mut(&mut Arc::make_mut(&mut self.list)[index])
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
