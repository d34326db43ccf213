//! The little of a room that somebody outside may see (client-server API, "Stripped state").

use std::sync::Arc;

use maru_protocol::auth::StateSlot;
use maru_protocol::state::State;
use ruma::UserId;

use crate::refusal::Refusal;
use crate::rooms::{Room, Summaries};
use crate::store::rooms::events::StoredEvent;

/// The state that an invited user is shown.
const SHOWN: [&str; 8] = [
    "m.room.create",
    "m.room.join_rules",
    "m.room.canonical_alias",
    "m.room.avatar",
    "m.room.name",
    "m.room.topic",
    "m.room.encryption",
    "m.room.history_visibility",
];

impl Summaries {
    /// The shown events of a state, and the membership of a user, who invites.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn shown_state(
        &self,
        state: &State,
        inviter: Option<&UserId>,
    ) -> Result<Vec<Arc<StoredEvent>>, Refusal> {
        let slots = SHOWN
            .iter()
            .map(|event_type| (*event_type, ""))
            .chain(inviter.map(|id| ("m.room.member", id.as_str())));
        let nids: Vec<_> = slots
            .filter_map(|(kind, key)| state.get(&StateSlot::new(kind, key).hash()))
            .collect();
        let mut events: Vec<Arc<StoredEvent>> = self.repository.events(&nids).await?.into_values().collect();
        events.sort_unstable_by_key(|stored| stored.nid);
        Ok(events)
    }

    /// The shown state of a room as JSON, one text an event.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn stripped_state(&self, room: &Room, inviter: &UserId) -> Result<Vec<String>, Refusal> {
        let events = self.shown_state(&room.head().state, Some(inviter)).await?;
        let stripped = |stored: &Arc<StoredEvent>| {
            let mut text = String::new();
            stored.event.write_stripped(&mut text);
            text
        };
        Ok(events.iter().map(stripped).collect())
    }
}
