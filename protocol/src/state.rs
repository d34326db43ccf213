//! Room state as a persistent structure of geometric runs.
//!
//! A [`State`] maps slots (event type and state key) to events. Changing it makes a new state that shares almost
//! everything with the old one: a [`Run`] holds the entries that differ from the run `below` it, and runs of equal
//! size are merged, so their sizes at least double from the top down. One change costs one stored run of O(log n)
//! entries on average, reading one slot costs O(log n) runs, and reading all of them O(n) entries. Forks share
//! their common part. A hundred thousand joins are a hundred thousand rows of about nine entries each.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::auth::SlotHash;

/// This server's local number for an event. Never leaves the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EventNid(pub i64);

/// This server's local number for a state: that of the event that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StateNid(pub i64);

/// Stands for a slot that a state resolution emptied.
const EMPTIED: EventNid = EventNid(0);

/// Bytes of one entry in a stored run.
const ENTRY_BYTES: usize = 24;

/// Some entries of a state, over the run below.
#[derive(Debug)]
pub struct Run {
    /// The state whose top this run is.
    pub nid: StateNid,
    /// The older, larger rest.
    pub below: Option<Arc<Run>>,
    /// Sorted by slot.
    entries: Box<[(SlotHash, EventNid)]>,
}

impl Run {
    /// A run read back from storage.
    ///
    /// # Errors
    /// When `bytes` are not what [`Run::to_bytes`] makes.
    pub fn from_bytes(nid: StateNid, below: Option<Arc<Run>>, bytes: &[u8]) -> Result<Self, BadRun> {
        let entries: Option<Box<[_]>> = bytes.chunks(ENTRY_BYTES).map(entry_from_bytes).collect();
        let entries = entries.ok_or(BadRun)?;
        if !entries.is_sorted_by_key(|(slot, _)| *slot) {
            return Err(BadRun);
        }
        Ok(Self { nid, below, entries })
    }

    /// The entries as they are stored: 16 bytes of slot and 8 bytes of event number, big-endian, sorted by slot.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.entries.len() * ENTRY_BYTES);
        for (slot, event) in &self.entries {
            bytes.extend_from_slice(&slot.0);
            bytes.extend_from_slice(&event.0.to_be_bytes());
        }
        bytes
    }

    fn get(&self, slot: &SlotHash) -> Option<EventNid> {
        let at = self.entries.binary_search_by_key(slot, |(slot, _)| *slot).ok()?;
        self.entries.get(at).map(|(_, event)| *event)
    }
}

/// Stored bytes that are not a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a stored run of a room's state")]
pub struct BadRun;

fn entry_from_bytes(bytes: &[u8]) -> Option<(SlotHash, EventNid)> {
    let slot = bytes.get(..16)?.try_into().ok()?;
    let event = bytes.get(16..ENTRY_BYTES)?.try_into().ok()?;
    Some((SlotHash(slot), EventNid(i64::from_be_bytes(event))))
}

/// A room's state at some event. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct State(Option<Arc<Run>>);

impl State {
    /// The state whose top run this is.
    #[must_use]
    pub fn from_run(top: Arc<Run>) -> Self {
        Self(Some(top))
    }

    /// The top run; none for the empty state.
    #[must_use]
    pub fn top(&self) -> Option<&Arc<Run>> {
        self.0.as_ref()
    }

    /// Its number; none for the empty state.
    #[must_use]
    pub fn nid(&self) -> Option<StateNid> {
        self.0.as_ref().map(|run| run.nid)
    }

    /// The event in a slot.
    #[must_use]
    pub fn get(&self, slot: &SlotHash) -> Option<EventNid> {
        self.runs()
            .find_map(|run| run.get(slot))
            .filter(|event| *event != EMPTIED)
    }

    /// All filled slots.
    #[must_use]
    pub fn entries(&self) -> BTreeMap<SlotHash, EventNid> {
        let mut all = BTreeMap::new();
        for run in self.runs() {
            for (slot, event) in &run.entries {
                all.entry(*slot).or_insert(*event);
            }
        }
        all.retain(|_, event| *event != EMPTIED);
        all
    }

    /// The events of all filled slots, in no order that means anything.
    #[must_use]
    pub fn events(&self) -> Vec<EventNid> {
        self.entries().into_values().collect()
    }

    /// This state with some slots changed (`None` empties one), numbered `nid`.
    #[must_use]
    pub fn with(
        &self,
        nid: StateNid,
        changes: impl IntoIterator<Item = (SlotHash, Option<EventNid>)>,
    ) -> Self {
        let mut entries: BTreeMap<_, _> = changes
            .into_iter()
            .map(|(slot, event)| (slot, event.unwrap_or(EMPTIED)))
            .collect();
        let mut below = self.0.clone();
        while let Some(run) = below.take_if(|run| run.entries.len() <= entries.len()) {
            for (slot, event) in &run.entries {
                entries.entry(*slot).or_insert(*event);
            }
            below = run.below.clone();
        }
        if below.is_none() {
            entries.retain(|_, event| *event != EMPTIED);
        }
        Self(Some(Arc::new(Run {
            nid,
            below,
            entries: entries.into_iter().collect(),
        })))
    }

    /// The slots in which `other` differs from this state, with `other`'s event there.
    ///
    /// Runs that both stand on are passed over: of a state and one that was made of it, only the runs of the change are
    /// read, a few entries on average. States that share nothing cost all their entries.
    #[must_use]
    pub fn changes_to(&self, other: &Self) -> Vec<(SlotHash, Option<EventNid>)> {
        let below: HashSet<*const Run> = self.runs().map(std::ptr::from_ref).collect();
        let shared = other
            .runs()
            .map(std::ptr::from_ref)
            .find(|run| below.contains(run));
        let above = |state: &'_ Self| -> BTreeSet<SlotHash> {
            let runs = state
                .runs()
                .take_while(|run| Some(std::ptr::from_ref(*run)) != shared);
            runs.flat_map(|run| run.entries.iter().map(|(slot, _)| *slot))
                .collect()
        };
        let mut slots = above(self);
        slots.extend(above(other));
        let after = slots.into_iter().map(|slot| (slot, other.get(&slot)));
        after.filter(|(slot, event)| self.get(slot) != *event).collect()
    }

    fn runs(&self) -> impl Iterator<Item = &Run> {
        std::iter::successors(self.0.as_deref(), |run| run.below.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn slot(n: u16) -> SlotHash {
        let mut bytes = [0; 16];
        bytes[..2].copy_from_slice(&n.to_be_bytes());
        SlotHash(bytes)
    }

    /// Compares every slot.
    fn changed(old: &State, new: &State) -> Vec<(SlotHash, Option<EventNid>)> {
        let (old, new) = (old.entries(), new.entries());
        let slots: BTreeSet<_> = old.keys().chain(new.keys()).copied().collect();
        let slots = slots.into_iter().filter(|slot| old.get(slot) != new.get(slot));
        slots.map(|slot| (slot, new.get(&slot).copied())).collect()
    }

    proptest! {
        #[test]
        fn behaves_like_a_map(steps in prop::collection::vec(prop::collection::vec((0_u16..40, 0_i64..4), 1..6), 1..60)) {
            let (mut state, mut map) = (State::default(), BTreeMap::new());
            let first = State::default().with(StateNid(0), [(slot(0), Some(EventNid(1))), (slot(1), Some(EventNid(2)))]);
            let mut nid = 0;
            for step in steps {
                nid += 1;
                for (key, kind) in &step {
                    if *kind == 0 { map.remove(&slot(*key)); } else { map.insert(slot(*key), EventNid(nid * 10 + kind)); }
                }
                let last: BTreeMap<_, _> = step.into_iter().collect::<Vec<_>>().into_iter().collect();
                let changes = last.iter().map(|(key, kind)| (slot(*key), (*kind != 0).then_some(EventNid(nid * 10 + kind))));
                for (key, kind) in &last {
                    if *kind == 0 { map.remove(&slot(*key)); } else { map.insert(slot(*key), EventNid(nid * 10 + kind)); }
                }
                let next = state.with(StateNid(nid), changes);
                prop_assert_eq!(state.changes_to(&next), changed(&state, &next));
                prop_assert_eq!(next.changes_to(&state), changed(&next, &state));
                prop_assert_eq!(first.changes_to(&next), changed(&first, &next));
                state = next;
                prop_assert_eq!(&state.entries(), &map);
                for key in 0..40 {
                    prop_assert_eq!(state.get(&slot(key)), map.get(&slot(key)).copied());
                }
            }
        }

        #[test]
        fn runs_survive_storage(keys in prop::collection::btree_set(any::<u16>(), 1..50)) {
            let state = State::default().with(StateNid(1), keys.iter().map(|k| (slot(*k), Some(EventNid(i64::from(*k) + 1)))));
            let top = state.top().unwrap();
            let read = Run::from_bytes(StateNid(1), None, &top.to_bytes()).unwrap();
            prop_assert_eq!(State::from_run(Arc::new(read)).entries(), state.entries());
        }
    }

    /// The promise to storage: rows grow with changes, entries with changes times the logarithm of the members.
    #[test]
    fn a_hundred_thousand_joins_cost_few_entries() {
        let joins: u64 = 100_000;
        let (mut state, mut entries, mut deepest) = (State::default(), 0, 0);
        for n in 1..=joins {
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&n.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes());
            let nid = i64::try_from(n).unwrap();
            state = state.with(StateNid(nid), [(SlotHash(bytes), Some(EventNid(nid)))]);
            entries += state.top().unwrap().entries.len();
            deepest = deepest.max(state.runs().count());
        }
        assert!(entries < 10 * 100_000, "{entries} entries in 100,000 rows");
        assert!(deepest <= 17, "{deepest} runs to read one state");
        assert_eq!(state.entries().len(), 100_000);
    }

    #[test]
    fn torn_bytes_are_no_run() {
        assert_eq!(Run::from_bytes(StateNid(1), None, &[0; 23]).err(), Some(BadRun));
    }
}
