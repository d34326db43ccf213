//! A bounded cache: what was not asked for during a whole generation is dropped.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

/// At most two generations of `capacity` values each, or of values that weigh as much together. Reading an old value makes
/// it young again.
#[derive(Debug)]
pub struct Cache<K, V> {
    capacity: usize,
    weigh: fn(&V) -> usize,
    generations: Mutex<Generations<K, V>>,
}

#[derive(Debug)]
struct Generations<K, V> {
    young: HashMap<K, V>,
    /// Of the young ones together.
    weight: usize,
    old: HashMap<K, V>,
}

impl<K: Hash + Eq, V: Clone> Cache<K, V> {
    /// An empty cache of two generations of `capacity` values.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self::weighing(capacity, |_| 1)
    }

    /// An empty cache of two generations of values that weigh `capacity` together, or of one that weighs more.
    #[must_use]
    pub fn weighing(capacity: usize, weigh: fn(&V) -> usize) -> Self {
        Self {
            capacity,
            weigh,
            generations: Mutex::new(Generations {
                young: HashMap::new(),
                weight: 0,
                old: HashMap::new(),
            }),
        }
    }

    /// The value of `key`, if it is here.
    pub fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let mut generations = self.lock();
        if let Some(value) = generations.young.get(key) {
            return Some(value.clone());
        }
        let (key, value) = generations.old.remove_entry(key)?;
        self.insert_young(&mut generations, key, value.clone());
        Some(value)
    }

    /// Keeps a value.
    pub fn insert(&self, key: K, value: V) {
        let mut generations = self.lock();
        generations.old.remove(&key);
        self.insert_young(&mut generations, key, value);
    }

    /// Drops a value.
    pub fn remove<Q: Hash + Eq + ?Sized>(&self, key: &Q)
    where
        K: Borrow<Q>,
    {
        let mut generations = self.lock();
        if let Some(value) = generations.young.remove(key) {
            generations.weight -= (self.weigh)(&value);
        }
        generations.old.remove(key);
    }

    /// Drops the values for which `keep` is false. Costs grow with the cache.
    pub fn retain(&self, mut keep: impl FnMut(&K, &V) -> bool) {
        let mut generations = self.lock();
        generations.young.retain(|key, value| keep(key, value));
        generations.old.retain(|key, value| keep(key, value));
        generations.weight = generations.young.values().map(self.weigh).sum();
    }

    fn insert_young(&self, generations: &mut Generations<K, V>, key: K, value: V) {
        if generations.weight >= self.capacity {
            generations.old = std::mem::take(&mut generations.young);
            generations.weight = 0;
        }
        generations.weight += (self.weigh)(&value);
        if let Some(before) = generations.young.insert(key, value) {
            generations.weight -= (self.weigh)(&before);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Generations<K, V>> {
        self.generations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_the_rest_is_bounded() {
        let cache = Cache::new(10);
        for n in 0..1000 {
            cache.insert(n, n);
            assert_eq!(cache.get(&0), Some(0), "0 is asked for all the time");
        }
        let kept = (0..1000).filter(|n| cache.get(n).is_some()).count();
        assert!(kept <= 20, "{kept} values kept");
    }

    #[test]
    fn values_are_bounded_by_what_they_weigh() {
        let cache = Cache::weighing(1_000, String::len);
        for n in 0..1_000 {
            cache.insert(n % 300, "x".repeat(n % 100));
            cache.remove(&(n / 7));
        }
        let weight: usize = (0..300)
            .filter_map(|n| cache.get(&n))
            .map(|text| text.len())
            .sum();
        assert!((500..2_200).contains(&weight), "{weight} kept");
        cache.retain(|_, _| false);
        cache.insert(0, "x".repeat(5_000));
        cache.insert(1, "y".into());
        assert!(cache.get(&0).is_some() && cache.get(&1).is_some());
    }

    #[test]
    fn a_removed_value_is_gone_from_both_generations() {
        let cache = Cache::new(1);
        cache.insert(1, "a");
        cache.insert(2, "b");
        cache.remove(&1);
        cache.remove(&2);
        assert_eq!((cache.get(&1), cache.get(&2)), (None, None));
    }
}
