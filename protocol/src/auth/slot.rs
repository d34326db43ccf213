//! Slots: the places of a room's state, one for each pair of event type and state key.

use std::fmt;

use ruma::events::{StateEventType, TimelineEventType};
use sha2::{Digest, Sha256};

use crate::event::Event;

/// A place in the state of a room.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StateSlot {
    /// The type of the state event.
    pub event_type: Box<str>,
    /// Its state key; often empty.
    pub state_key: Box<str>,
}

/// The first half of the SHA-256 of a slot: what persistent state trees are keyed by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotHash(pub [u8; 16]);

impl StateSlot {
    /// The slot of this type and key.
    pub fn new(event_type: &str, state_key: &str) -> Self {
        Self {
            event_type: event_type.into(),
            state_key: state_key.into(),
        }
    }

    /// The slot that an event fills, if it is a state event.
    pub fn of(event: &Event) -> Option<Self> {
        event.state_key.as_ref().map(|key| Self {
            event_type: event.event_type.clone(),
            state_key: key.clone(),
        })
    }

    /// Type, zero byte, key, hashed and cut to 128 bits. Events never carry NUL in either, so two slots
    /// never hash the same bytes.
    pub fn hash(&self) -> SlotHash {
        let mut hash = Sha256::new();
        hash.update(self.event_type.as_bytes());
        hash.update([0]);
        hash.update(self.state_key.as_bytes());
        let mut half = [0; 16];
        half.iter_mut()
            .zip(hash.finalize())
            .for_each(|(to, from)| *to = from);
        SlotHash(half)
    }

    /// The slot as ruma's maps have it.
    pub(crate) fn to_ruma(&self) -> (StateEventType, String) {
        (
            StateEventType::from(kind_of(&self.event_type).to_string()),
            self.state_key.to_string(),
        )
    }

    /// The slot of a key of ruma's maps.
    pub(crate) fn from_ruma((kind, key): &(StateEventType, String)) -> Self {
        Self::new(type_of(&kind.to_string()), key)
    }
}

impl fmt::Display for StateSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({}, {:?})", self.event_type, self.state_key)
    }
}

impl fmt::Debug for SlotHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SlotHash(")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(")")
    }
}

/// The type as ruma's enum, such that no two types become one.
///
/// ruma reads some unstable spellings as their stable type. To the rules these are two types, so such a
/// spelling is marked with NUL, which no type contains.
pub fn kind_of(event_type: &str) -> TimelineEventType {
    let kind = TimelineEventType::from(event_type);
    if kind.to_string() == event_type {
        kind
    } else {
        TimelineEventType::from(format!("\0{event_type}"))
    }
}

/// The type that [`kind_of`] was given.
pub(crate) fn type_of(kind: &str) -> &str {
    kind.strip_prefix('\0').unwrap_or(kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_separator_keeps_slots_apart() {
        let pairs = [
            ("ab", "c"),
            ("a", "bc"),
            ("abc", ""),
            ("", "abc"),
            ("m.room.name", "x"),
            ("m.room.namex", ""),
        ];
        for (at, (a_type, a_key)) in pairs.iter().enumerate() {
            for (b_type, b_key) in &pairs[at + 1..] {
                assert_ne!(
                    StateSlot::new(a_type, a_key).hash(),
                    StateSlot::new(b_type, b_key).hash()
                );
            }
        }
    }

    #[test]
    fn the_hash_is_fixed_for_ever() {
        // The first half of SHA-256 of `m.room.create` and a zero byte.
        let shown = format!("{:?}", StateSlot::new("m.room.create", "").hash());
        assert_eq!(shown, "SlotHash(88709f0b54651b8342baa919abbe6448)");
    }

    proptest! {
        #[test]
        fn ruma_and_back(event_type in "[^\0]{0,20}", key in "[^\0]{0,20}") {
            let slot = StateSlot::new(&event_type, &key);
            prop_assert_eq!(StateSlot::from_ruma(&slot.to_ruma()), slot);
        }
    }
}
