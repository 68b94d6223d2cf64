//! Things in flight under names that are not reused: an index and a count of its uses.

/// A name in a [`Slab`].
pub(crate) type Key = u64;

#[derive(Debug)]
pub(crate) struct Slab<T> {
    entries: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            free: Vec::new(),
        }
    }
}

fn split(key: Key) -> (usize, u32) {
    ((key & u64::from(u32::MAX)) as usize, (key >> 32) as u32)
}

impl<T> Slab<T> {
    pub fn insert(&mut self, value: T) -> Key {
        let index = self.free.pop().unwrap_or_else(|| {
            self.entries.push((0, None));
            (self.entries.len() - 1) as u32
        });
        let entry = &mut self.entries[index as usize];
        entry.1 = Some(value);
        u64::from(entry.0) << 32 | u64::from(index)
    }

    pub fn get(&self, key: Key) -> Option<&T> {
        let (index, count) = split(key);
        let entry = self.entries.get(index).filter(|e| e.0 == count)?;
        entry.1.as_ref()
    }

    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let (index, count) = split(key);
        let entry = self.entries.get_mut(index).filter(|e| e.0 == count)?;
        entry.1.as_mut()
    }

    /// Takes it out; `None` for a name that is not, or no longer, in use.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        let (index, count) = split(key);
        let entry = self.entries.get_mut(index).filter(|e| e.0 == count)?;
        let value = entry.1.take()?;
        entry.0 = entry.0.wrapping_add(1);
        self.free.push(index as u32);
        Some(value)
    }

    pub fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.entries.iter_mut().filter_map(|e| e.1.as_mut())
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.entries.iter().filter_map(|e| e.1.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_good_once() {
        let mut slab = Slab::default();
        let a = slab.insert('a');
        assert_eq!(slab.remove(a), Some('a'));
        let b = slab.insert('b');
        assert_ne!(a, b);
        assert_eq!(slab.remove(a), None);
        assert_eq!(slab.get(a), None);
        assert_eq!(slab.get_mut(b), Some(&mut 'b'));
        assert_eq!(slab.len(), 1);
    }
}
