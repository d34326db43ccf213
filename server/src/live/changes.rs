//! What changed last of what lives in memory only, for who was not listening when it did.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// The newest change of each thing, and in which order they came. Beyond `capacity` things the one that changed longest
/// ago is forgotten: who has not heard of it by then does not hear of it from here.
#[derive(Debug)]
pub(super) struct Changes<K> {
    capacity: usize,
    at: HashMap<K, u64>,
    by_counter: BTreeMap<u64, K>,
}

impl<K: Clone + Eq + Hash> Changes<K> {
    /// Nothing has changed.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            at: HashMap::new(),
            by_counter: BTreeMap::new(),
        }
    }

    /// Notes a change under a counter that no other change has.
    pub(super) fn note(&mut self, thing: K, counter: u64) {
        if let Some(before) = self.at.insert(thing.clone(), counter) {
            self.by_counter.remove(&before);
        }
        self.by_counter.insert(counter, thing);
        if self.at.len() > self.capacity
            && let Some((_, oldest)) = self.by_counter.pop_first()
        {
            self.at.remove(&oldest);
        }
    }

    /// What changed after a counter. Costs grow with that.
    pub(super) fn after(&self, counter: u64) -> impl Iterator<Item = &K> {
        self.by_counter
            .range(counter.saturating_add(1)..)
            .map(|(_, thing)| thing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thing_counts_by_its_newest_change() {
        let mut changes = Changes::new(3);
        for (counter, thing) in (1..).zip([7, 8, 7, 9]) {
            changes.note(thing, counter);
        }
        assert_eq!(changes.after(0).collect::<Vec<_>>(), [&8, &7, &9]);
        assert_eq!(changes.after(2).collect::<Vec<_>>(), [&7, &9]);
        assert_eq!(changes.after(4).count(), 0);
        changes.note(10, 5);
        assert_eq!(changes.after(0).collect::<Vec<_>>(), [&7, &9, &10]);
    }
}
