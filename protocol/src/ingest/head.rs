//! The head of a room: its forward extremities and its current state.

use std::sync::Arc;

use ruma::OwnedEventId;

use crate::limits::MAX_PREV_EVENTS;
use crate::state::State;

/// An accepted event without accepted children, and the state after it.
#[derive(Clone, Debug)]
pub struct Extremity {
    /// The event.
    pub id: OwnedEventId,
    /// The state after it.
    pub state: State,
}

/// What the next event of a room is built on and judged by.
#[derive(Clone, Debug, Default)]
pub struct Head {
    /// The forward extremities, oldest first. At most [`MAX_PREV_EVENTS`]: beyond that the oldest go, whose events stay
    /// in the room and in its state.
    pub extremities: Arc<[Extremity]>,
    /// The room's current state: what the states after the extremities resolve to.
    pub state: State,
}

impl Head {
    /// A head of one event.
    #[must_use]
    pub fn at(id: OwnedEventId, state: State) -> Self {
        Self {
            extremities: [Extremity {
                id,
                state: state.clone(),
            }]
            .into(),
            state,
        }
    }

    /// The extremities after an event that names `prev_events`.
    #[must_use]
    pub fn extremities_with(&self, new: Extremity, prev_events: &[OwnedEventId]) -> Vec<Extremity> {
        let mut extremities: Vec<_> = self
            .extremities
            .iter()
            .filter(|old| old.id != new.id && !prev_events.contains(&old.id))
            .cloned()
            .collect();
        extremities.push(new);
        let superfluous = extremities.len().saturating_sub(MAX_PREV_EVENTS);
        extremities.drain(..superfluous);
        extremities
    }
}
