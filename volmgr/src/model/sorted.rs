//! A sorted map whose copies share what they have in common.
//!
//! Two levels: a list of chunks of entries. A copy costs a reference count; a change copies one chunk and
//! the list of chunks, where another copy still has them: with ten thousand entries some hundred
//! of them, not all.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

/// Entries in a chunk at most.
const CHUNK: usize = 128;

/// Entries of a chunk, sorted; never none.
pub type Chunk<K, V> = Vec<(K, V)>;

/// The map.
#[derive(Clone)]
pub struct Sorted<K, V> {
    chunks: Arc<Vec<Arc<Chunk<K, V>>>>,
    len: usize,
}

impl<K, V> Default for Sorted<K, V> {
    fn default() -> Self {
        Self {
            chunks: Arc::default(),
            len: 0,
        }
    }
}

impl<K, V> Sorted<K, V> {
    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// There is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All entries, sorted.
    pub fn iter(&self) -> Entries<'_, K, V> {
        Entries {
            chunks: self.chunks.iter(),
            chunk: [].iter(),
            left: self.len,
        }
    }

    /// The entries as they are kept: chunks that two maps share are the same in both.
    #[cfg(test)]
    pub fn chunks(&self) -> &[Arc<Chunk<K, V>>] {
        &self.chunks
    }

    /// The last entry.
    pub fn last(&self) -> Option<&(K, V)> {
        self.chunks.last()?.last()
    }

    /// The entry at this place.
    pub fn nth(&self, mut place: usize) -> Option<&(K, V)> {
        for chunk in self.chunks.iter() {
            match chunk.get(place) {
                Some(entry) => return Some(entry),
                None => place -= chunk.len(),
            }
        }
        None
    }
}

impl<K: Ord + Clone, V: Clone> Sorted<K, V> {
    /// Chunk and place in it of the first entry from this key on.
    fn find<Q: Ord + ?Sized>(&self, key: &Q) -> (usize, usize)
    where
        K: Borrow<Q>,
    {
        let before = |entry: &(K, V)| entry.0.borrow() < key;
        let chunk = self
            .chunks
            .partition_point(|chunk| chunk.last().is_some_and(before));
        let place = self
            .chunks
            .get(chunk)
            .map_or(0, |chunk| chunk.partition_point(before));
        (chunk, place)
    }

    fn at(&self, (chunk, place): (usize, usize)) -> Option<&(K, V)> {
        self.chunks.get(chunk)?.get(place)
    }

    /// The value of this key.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let entry = self.first_from(key)?;
        (entry.0.borrow() == key).then_some(&entry.1)
    }

    /// The first entry whose key is this one or greater.
    pub fn first_from<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&(K, V)>
    where
        K: Borrow<Q>,
    {
        self.at(self.find(key))
    }

    /// The last entry whose key is less than this one.
    pub fn last_before<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&(K, V)>
    where
        K: Borrow<Q>,
    {
        let (chunk, place) = self.find(key);
        match place.checked_sub(1) {
            Some(place) => self.at((chunk, place)),
            None => self.chunks.get(chunk.checked_sub(1)?)?.last(),
        }
    }

    /// How many entries have a lesser key.
    pub fn rank<Q: Ord + ?Sized>(&self, key: &Q) -> usize
    where
        K: Borrow<Q>,
    {
        let (chunk, place) = self.find(key);
        let before = self.chunks.iter().take(chunk);
        before.map(|chunk| chunk.len()).sum::<usize>() + place
    }

    /// Puts an entry in; the value that the key had.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let (mut at, mut place) = self.find(&key);
        let chunks = Arc::make_mut(&mut self.chunks);
        if at == chunks.len() {
            // Behind everything.
            match chunks.len().checked_sub(1) {
                Some(last) if chunks[last].len() < CHUNK => {
                    (at, place) = (last, chunks[last].len())
                }
                _ => {
                    chunks.push(Arc::new(vec![(key, value)]));
                    self.len += 1;
                    return None;
                }
            }
        }
        let chunk = Arc::make_mut(&mut chunks[at]);
        if let Some(entry) = chunk.get_mut(place).filter(|entry| entry.0 == key) {
            return Some(std::mem::replace(&mut entry.1, value));
        }
        chunk.insert(place, (key, value));
        self.len += 1;
        if chunk.len() > CHUNK {
            let rest = chunk.split_off(CHUNK / 2);
            chunks.insert(at + 1, Arc::new(rest));
        }
        None
    }

    /// Takes an entry out.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let (at, place) = self.find(key);
        self.at((at, place))
            .filter(|entry| entry.0.borrow() == key)?;
        let chunks = Arc::make_mut(&mut self.chunks);
        let chunk = Arc::make_mut(&mut chunks[at]);
        let (_, value) = chunk.remove(place);
        self.len -= 1;
        let left = chunk.len();
        if left == 0 {
            chunks.remove(at);
        } else if chunks
            .get(at + 1)
            .is_some_and(|next| left + next.len() <= CHUNK / 2)
        {
            // Or many removals would leave a chunk for each entry.
            let next = chunks.remove(at + 1);
            Arc::make_mut(&mut chunks[at]).extend(next.iter().cloned());
        }
        Some(value)
    }
}

impl<K: Ord + Clone, V: Clone> FromIterator<(K, V)> for Sorted<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut map = Self::default();
        for (key, value) in entries {
            map.insert(key, value);
        }
        map
    }
}

impl<K: PartialEq, V: PartialEq> PartialEq for Sorted<K, V> {
    /// By what is in it, not by how it is kept.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.chunks, &other.chunks)
            || self.len == other.len && self.iter().eq(other.iter())
    }
}

impl<K: Eq, V: Eq> Eq for Sorted<K, V> {}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for Sorted<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.iter().map(|(k, v)| (k, v)))
            .finish()
    }
}

/// The entries of a map, sorted.
#[derive(Debug)]
pub struct Entries<'a, K, V> {
    chunks: std::slice::Iter<'a, Arc<Chunk<K, V>>>,
    chunk: std::slice::Iter<'a, (K, V)>,
    left: usize,
}

impl<K, V> Clone for Entries<'_, K, V> {
    fn clone(&self) -> Self {
        Self {
            chunks: self.chunks.clone(),
            chunk: self.chunk.clone(),
            left: self.left,
        }
    }
}

impl<'a, K, V> Iterator for Entries<'a, K, V> {
    type Item = &'a (K, V);

    fn next(&mut self) -> Option<&'a (K, V)> {
        loop {
            if let Some(entry) = self.chunk.next() {
                self.left -= 1;
                return Some(entry);
            }
            self.chunk = self.chunks.next()?.iter();
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<K, V> ExactSizeIterator for Entries<'_, K, V> {}

/// What is the same in two maps and what is not, in the order of both: see [`Walk::step`].
#[derive(Debug)]
pub struct Walk<'a, K, V> {
    old: Side<'a, K, V>,
    new: Side<'a, K, V>,
}

/// The next value of a map with its place, where there is one.
pub type Next<'a, V> = Option<(usize, &'a V)>;

#[derive(Debug)]
struct Side<'a, K, V> {
    chunks: &'a [Arc<Chunk<K, V>>],
    /// In the first of the chunks.
    at: usize,
    /// In the whole map.
    place: usize,
}

impl<'a, K, V> Side<'a, K, V> {
    fn new(map: &'a Sorted<K, V>) -> Self {
        Self {
            chunks: &map.chunks,
            at: 0,
            place: 0,
        }
    }

    fn peek(&self) -> Next<'a, V> {
        let entry = self.chunks.first()?.get(self.at)?;
        Some((self.place, &entry.1))
    }

    fn advance(&mut self, by: usize) {
        self.place += by;
        self.at += by;
        if self.chunks.first().is_some_and(|c| self.at >= c.len()) {
            (self.chunks, self.at) = (&self.chunks[1..], 0);
        }
    }
}

impl<'a, K, V> Walk<'a, K, V> {
    /// From the start of both.
    pub fn new(old: &'a Sorted<K, V>, new: &'a Sorted<K, V>) -> Self {
        let (old, new) = (Side::new(old), Side::new(new));
        Self { old, new }
    }

    /// The next entries of both, with their places, once chunks that both share have been passed over.
    pub fn peek(&mut self) -> (Next<'a, V>, Next<'a, V>) {
        while self.old.at == 0
            && self.new.at == 0
            && let (Some(old), Some(new)) = (self.old.chunks.first(), self.new.chunks.first())
            && Arc::ptr_eq(old, new)
        {
            self.step(Ordering::Equal, old.len());
        }
        (self.old.peek(), self.new.peek())
    }

    /// Goes on by so many entries: in the old one (less), in the new one (greater), in both (equal).
    pub fn step(&mut self, side: Ordering, by: usize) {
        if side.is_le() {
            self.old.advance(by);
        }
        if side.is_ge() {
            self.new.advance(by);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        /// It does what a `BTreeMap` does, and copies stay what they were.
        #[test]
        fn as_a_map_of_the_standard_library(
            start in 0u16..400,
            ops in proptest::collection::vec((0u8..5, 0u16..500), 0..300),
        ) {
            let mut naive: BTreeMap<u16, u16> = (0..start).map(|n| (n, n)).collect();
            let mut map: Sorted<u16, u16> = naive.iter().map(|(k, v)| (*k, *v)).collect();
            let (first, copy) = (naive.clone(), map.clone());
            for (op, key) in ops {
                match op {
                    0 | 1 => prop_assert_eq!(map.remove(&key), naive.remove(&key)),
                    _ => prop_assert_eq!(map.insert(key, u16::from(op)), naive.insert(key, u16::from(op))),
                }
                prop_assert_eq!(map.len(), naive.len());
                let both = |(k, v): (&u16, &u16)| (*k, *v);
                prop_assert_eq!(map.get(&key), naive.get(&key));
                prop_assert_eq!(map.first_from(&key).copied(), naive.range(key..).next().map(both));
                prop_assert_eq!(map.last_before(&key).copied(), naive.range(..key).next_back().map(both));
                prop_assert_eq!(map.rank(&key), naive.range(..key).count());
                let place = usize::from(key) % 300;
                prop_assert_eq!(map.nth(place).copied(), naive.iter().nth(place).map(both));
                prop_assert_eq!(map.last().copied(), naive.last_key_value().map(both));
            }
            prop_assert!(map.iter().map(|(k, v)| (k, v)).eq(naive.iter()));
            prop_assert!(copy.iter().map(|(k, v)| (k, v)).eq(first.iter()));
            prop_assert!(map.chunks().iter().all(|c| !c.is_empty() && c.len() <= CHUNK));
            let again: Sorted<u16, u16> = naive.into_iter().collect();
            prop_assert_eq!(&again, &map);
        }

        /// A walk meets every entry of both that is not in a chunk of both.
        #[test]
        fn a_walk_leaves_out_what_is_shared(
            gone in proptest::collection::btree_set(0u16..1000, 0..20),
            new in proptest::collection::btree_set(1000u16..1010, 0..9),
        ) {
            let old: Sorted<u16, u16> = (0..1000).map(|n| (n, n)).collect();
            let mut map = old.clone();
            gone.iter().for_each(|n| { map.remove(n); });
            new.iter().for_each(|n| { map.insert(*n, *n); });
            let mut walk = Walk::new(&old, &map);
            let (mut lost, mut found, mut seen) = (Vec::new(), Vec::new(), 0);
            loop {
                seen += 1;
                let side = match walk.peek() {
                    (None, None) => break,
                    (Some((_, a)), Some((_, b))) => a.cmp(b),
                    (Some(_), None) => Ordering::Less,
                    (None, Some(_)) => Ordering::Greater,
                };
                match walk.peek() {
                    (Some((place, a)), _) if side.is_lt() => {
                        prop_assert_eq!(old.nth(place).map(|e| e.1), Some(*a));
                        lost.push(*a);
                    }
                    (_, Some((place, b))) if side.is_gt() => {
                        prop_assert_eq!(map.nth(place).map(|e| e.1), Some(*b));
                        found.push(*b);
                    }
                    _ => {}
                }
                walk.step(side, 1);
            }
            prop_assert!(lost.iter().eq(gone.iter()));
            prop_assert!(found.iter().eq(new.iter()));
            prop_assert!(seen <= 1 + CHUNK * 2 * (2 + gone.len()) );
            if gone.is_empty() && new.is_empty() {
                prop_assert_eq!(seen, 1);
            }
        }
    }
}
