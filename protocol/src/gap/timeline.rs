//! Where events stand in a room's timeline, and the gaps in it: what a replica writes of them, and in which change.
//!
//! A gap stands before a place and names what is missing there. It is opened in the change that stores the event at that
//! place, and moves in the change that stores a whole page of what was missing. Whoever is cut off in between leaves it as it
//! was: a gap that is gone while something is missing is found by nobody again.

use std::collections::BTreeSet;
use std::sync::Arc;

use ruma::OwnedEventId;

use crate::cursor::Place;
use crate::event::Event;

/// Where the next live event stands: at the end of the timeline, in a new stretch of it where something is missing before
/// the event.
#[must_use]
pub fn next_place(last: Place, is_missing: bool) -> Place {
    match is_missing {
        true => last.next_stretch(),
        false => Place(last.0 + 1),
    }
}

/// A page of the past on its way into the timeline, right before the event after a gap.
#[derive(Debug)]
pub struct Filling {
    before: Place,
    first: Place,
    named: BTreeSet<OwnedEventId>,
    stored: BTreeSet<OwnedEventId>,
}

/// What becomes of a gap, in the change that stores a page of what was missing there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// The place before which it was.
    pub from: Place,
    /// The place before which it is now.
    pub to: Place,
    /// What is missing there; nothing closes the gap.
    pub missing: Vec<OwnedEventId>,
}

impl Filling {
    /// Makes room for a page of so many events before a place, where these are missing.
    #[must_use]
    pub fn new(before: Place, missing: &[OwnedEventId], events: usize) -> Self {
        let events = i64::try_from(events).unwrap_or(i64::MAX);
        Self {
            before,
            first: Place(before.0.saturating_sub(events)),
            named: missing.iter().cloned().collect(),
            stored: BTreeSet::new(),
        }
    }

    /// The places of the events, oldest first.
    pub fn places(&self) -> impl Iterator<Item = Place> + use<> {
        (self.first.0..self.before.0).map(Place)
    }

    /// An event of the page, oldest first, and whether it is stored with it. What it names may be missing.
    pub fn took(&mut self, event: &Arc<Event>, is_stored: bool) {
        self.named.extend(event.prev_events.iter().cloned());
        if is_stored {
            self.stored.insert(event.id.clone());
        }
    }

    /// What may be missing now: those of [them](super::missing::Missing::of) that are, go with [`Filling::moved`].
    #[must_use]
    pub fn named(&self) -> Vec<OwnedEventId> {
        self.named.difference(&self.stored).cloned().collect()
    }

    /// What becomes of the gap, in one change with the page.
    #[must_use]
    pub fn moved(&self, missing: Vec<OwnedEventId>) -> Moved {
        Moved {
            from: self.before,
            to: if self.stored.is_empty() {
                self.before
            } else {
                self.first
            },
            missing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_room::{ALICE, Branch, Story};
    use crate::version::RoomVersion;

    fn message(story: &mut Story, branch: &mut Branch) -> Arc<Event> {
        let content = serde_json::json!({ "body": "" });
        story
            .send(branch, ALICE, "m.room.message", None, content)
            .unwrap()
    }

    #[test]
    fn a_page_stands_before_its_gap_which_moves_before_it() {
        let (mut story, mut branch) = Story::public_room(RoomVersion::V12);
        let events: Vec<_> = (0..3).map(|_| message(&mut story, &mut branch)).collect();
        let last = events[2].id.clone();
        let mut filling = Filling::new(Place(100), &[last], 2);
        assert_eq!(filling.places().collect::<Vec<_>>(), [Place(98), Place(99)]);
        filling.took(&events[1], true);
        filling.took(&events[2], true);
        let lacks = filling.named();
        assert_eq!(lacks, [events[0].id.clone()]);
        let moved = filling.moved(lacks.clone());
        assert_eq!((moved.from, moved.to), (Place(100), Place(98)));
        assert_eq!(moved.missing, lacks);
    }

    #[test]
    fn a_gap_stays_where_nothing_is_stored() {
        let (mut story, mut branch) = Story::public_room(RoomVersion::V12);
        let event = message(&mut story, &mut branch);
        let mut filling = Filling::new(Place(100), std::slice::from_ref(&event.id), 1);
        filling.took(&event, false);
        assert!(filling.named().contains(&event.id));
        assert_eq!(filling.moved(Vec::new()).to, Place(100));
        assert_eq!(next_place(Place(7), false), Place(8));
        assert!(next_place(Place(7), true).begins_stretch());
    }
}
