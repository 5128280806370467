//! [`Shards`]: a hash table whose copies share what is the same in them.
//!
//! A zone that is in use cannot be changed; one that differs in few names is made from it at the cost of those.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;

/// Entries in a shard, about: so many are copied when one of them changes.
const SHARD: usize = 64;

/// A hash table in parts.
#[derive(Clone, Debug)]
pub(super) struct Shards<K, V> {
    hasher: RandomState,
    /// A power of two of them.
    shards: Vec<Arc<HashMap<K, V, RandomState>>>,
    length: usize,
}

impl<K, V> Default for Shards<K, V> {
    fn default() -> Self {
        Self::for_length(0)
    }
}

impl<K, V> Shards<K, V> {
    /// An empty table that will have about `length` entries.
    pub(super) fn for_length(length: usize) -> Self {
        let hasher = RandomState::new();
        let shard = || Arc::new(HashMap::with_hasher(hasher.clone()));
        let count = (length / SHARD).next_power_of_two();
        Self {
            shards: (0..count).map(|_| shard()).collect(),
            hasher,
            length: 0,
        }
    }

    /// Number of entries.
    pub(super) const fn len(&self) -> usize {
        self.length
    }

    /// Whether it has outgrown the length for which it was made, or has become so much shorter that it is mostly room.
    pub(super) fn is_misfit(&self) -> bool {
        let made_for = SHARD * self.shards.len();
        self.length > 4 * made_for || self.shards.len() > 16 && self.length < made_for / 8
    }
}

impl<K: Eq + Hash + Clone, V: Clone> Shards<K, V> {
    pub(super) fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.shards[self.place(key)].get(key)
    }

    /// Lets `change` make of a key's value, if there is one, what it shall be from now on; `None`: nothing.
    pub(super) fn change(&mut self, key: K, change: impl FnOnce(Option<V>) -> Option<V>) {
        let place = self.place(&key);
        let shard = Arc::make_mut(&mut self.shards[place]);
        let before = shard.remove(&key);
        self.length -= usize::from(before.is_some());
        if let Some(value) = change(before) {
            self.length += 1;
            shard.insert(key, value);
        }
    }

    fn place<Q: Hash + ?Sized>(&self, key: &Q) -> usize {
        // The tables use the low and the highest bits for themselves.
        (self.hasher.hash_one(key) >> 24) as usize & (self.shards.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_changes_alone() {
        let mut first = Shards::for_length(1000);
        for key in 0..1000 {
            first.change(key, |_| Some(key * 2));
        }
        let mut second = first.clone();
        second.change(7, |value| value.map(|value| value + 1));
        second.change(8, |_| None);
        second.change(2000, |_| Some(1));
        assert_eq!(
            (first.get(&7), first.get(&8), first.get(&2000)),
            (Some(&14), Some(&16), None)
        );
        assert_eq!(
            (second.get(&7), second.get(&8), second.get(&2000)),
            (Some(&15), None, Some(&1))
        );
        assert_eq!((first.len(), second.len()), (1000, 1000));
        let shared = first
            .shards
            .iter()
            .zip(&second.shards)
            .filter(|(a, b)| Arc::ptr_eq(a, b));
        assert!(shared.count() >= first.shards.len() - 3);
        assert!(!first.is_misfit());
        let mut shrunk: Shards<u32, u32> = Shards::for_length(10_000);
        for key in 0..3000 {
            shrunk.change(key, |_| Some(key));
        }
        assert!(!shrunk.is_misfit());
        for key in 0..2000 {
            shrunk.change(key, |_| None);
        }
        assert!(shrunk.is_misfit());
    }
}
