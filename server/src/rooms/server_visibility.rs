//! Visibility of events to other servers, whichever way they are sent: the one place that decides it
//! (`spec/federation.md`, "Requests"). The rule is that of users ([`may_see`]): a server sees what some user of it sees.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use maru_protocol::auth::{SlotHash, StateSlot};
use maru_protocol::cursor::Place;
use maru_protocol::event::{Event, redact};
use maru_protocol::state::{EventNid, StateNid};
use maru_protocol::visibility::{Around, HistoryVisibility, Membership, Sight, may_see};
use ruma::ServerName;

use super::Room;
use crate::refusal::Refusal;
use crate::rooms::{ErasedUsers, RoomRepository};
use crate::store::Store;
use crate::store::rooms::events::StoredEvent;

/// Membership of another server in a room, as this server knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerMembership {
    /// It has a user in the room.
    Present,
    /// It had one, up to the event at this place.
    Departed(Place),
}

/// What a state holds in the slots that decide what a server sees.
struct ServerSlotContents {
    visibility: Option<EventNid>,
    members: Vec<Option<EventNid>>,
}

/// Which events of a room another server may see.
#[derive(Debug)]
pub struct ServerVisibility {
    pub(in crate::rooms) store: Arc<Store>,
    pub(in crate::rooms) repository: Arc<RoomRepository>,
    pub(in crate::rooms) erased: Arc<ErasedUsers>,
}

impl ServerVisibility {
    /// Membership of another server in a room; none for one that never had a user in it, or none since this server is there.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn membership_of(
        &self,
        room: &Room,
        server_name: &ServerName,
    ) -> Result<Option<ServerMembership>, Refusal> {
        if room.head().servers.contains_key(server_name) {
            return Ok(Some(ServerMembership::Present));
        }
        let Some(left) = self
            .store
            .federation
            .interest_ended(room.nid, server_name)
            .await?
        else {
            return Ok(None);
        };
        let place = self.store.rooms.place_at(room.nid, left).await?;
        Ok(Some(ServerMembership::Departed(place)))
    }

    /// The events that a server may see, in the same order. Of those that none of its users may see, one that is in the
    /// room gets the redacted form, since it needs them as links between others; one that has left gets nothing.
    ///
    /// Costs a query for the states where the room's history is shared; else it grows with the users of the server that
    /// the room ever had.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn visible(
        &self,
        room: &Room,
        server_name: &ServerName,
        server_membership: ServerMembership,
        events: Vec<Arc<StoredEvent>>,
    ) -> Result<Vec<Arc<Event>>, Refusal> {
        let visibility = StateSlot::new("m.room.history_visibility", "").hash();
        let mut held = self.held_after(room, &events, visibility, &[]).await?;
        let shared =
            server_membership == ServerMembership::Present && self.all_shared(&events, &held).await?;
        if shared {
            let mut visible: Vec<_> = events.iter().map(|stored| Arc::clone(&stored.event)).collect();
            self.erased
                .redact_for_server(room, server_name, &mut visible)
                .await?;
            return Ok(visible);
        }
        let users = self.store.rooms.members_of_server(room.nid, server_name).await?;
        let slots: Vec<SlotHash> = users
            .iter()
            .map(|user_id| StateSlot::new("m.room.member", user_id.as_str()).hash())
            .collect();
        held = self.held_after(room, &events, visibility, &slots).await?;
        let replaced = events.iter().filter_map(|stored| stored.replaces);
        let known = self.events_in(&held, replaced).await?;
        let visibility_of = |nid: Option<EventNid>| {
            nid.and_then(|nid| known.get(&nid))
                .map(|stored| HistoryVisibility::of(&stored.event))
                .unwrap_or_default()
        };
        let membership_of = |nid: Option<EventNid>| {
            nid.and_then(|nid| Membership::of(&known.get(&nid)?.event))
                .unwrap_or(Membership::Leave)
        };
        let sees = |stored: &StoredEvent| {
            let Some(held) = stored.state.and_then(|state| held.get(&state)) else {
                // An outlier is state that allows other events.
                return server_membership == ServerMembership::Present;
            };
            let joined_later = match (server_membership, stored.place) {
                (ServerMembership::Present, _) => true,
                (ServerMembership::Departed(left), Some(place)) => place < left,
                (ServerMembership::Departed(_), None) => false,
            };
            let mut visibility = Around::unchanged(visibility_of(held.visibility));
            if stored.event.is_state_at("m.room.history_visibility", "") {
                visibility.before = visibility_of(stored.replaces);
            }
            // Users who were never there see what anybody sees.
            let nobody = std::iter::once((None, Membership::Leave));
            let members = users.iter().zip(&held.members);
            let members = members.map(|(user_id, nid)| (Some(user_id), membership_of(*nid)));
            nobody.chain(members).any(|(user_id, membership)| {
                let mut membership = Around::unchanged(membership);
                if user_id.is_some_and(|id| stored.event.is_state_at("m.room.member", id.as_str())) {
                    membership.before = membership_of(stored.replaces);
                }
                may_see(Sight {
                    visibility,
                    membership,
                    joined_later: joined_later && user_id.is_some(),
                })
            })
        };
        let mut visible = Vec::with_capacity(events.len());
        for stored in events {
            if sees(&stored) {
                visible.push(Arc::clone(&stored.event));
            } else if server_membership == ServerMembership::Present {
                visible.push(Arc::new(
                    redact(&stored.event, room.version).map_err(Refusal::internal)?,
                ));
            }
        }
        self.erased
            .redact_for_server(room, server_name, &mut visible)
            .await?;
        Ok(visible)
    }

    /// Whether everything among some events is for everybody who is in the room.
    async fn all_shared(
        &self,
        events: &[Arc<StoredEvent>],
        held: &HashMap<StateNid, ServerSlotContents>,
    ) -> Result<bool, Refusal> {
        let changes = events
            .iter()
            .filter(|stored| stored.event.is_state_at("m.room.history_visibility", ""));
        let known = self
            .events_in(held, changes.filter_map(|stored| stored.replaces))
            .await?;
        let of = known
            .values()
            .filter(|stored| &*stored.event.event_type == "m.room.history_visibility")
            .map(|stored| HistoryVisibility::of(&stored.event));
        let mut of = of;
        Ok(of.all(|visibility| {
            matches!(
                visibility,
                HistoryVisibility::Shared | HistoryVisibility::WorldReadable
            )
        }))
    }

    /// The events in those slots, and some more.
    async fn events_in(
        &self,
        held: &HashMap<StateNid, ServerSlotContents>,
        more: impl Iterator<Item = EventNid>,
    ) -> Result<HashMap<EventNid, Arc<StoredEvent>>, Refusal> {
        let of_states = held
            .values()
            .flat_map(|held| [held.visibility].into_iter().chain(held.members.iter().copied()))
            .flatten();
        let nids: HashSet<EventNid> = of_states.chain(more).collect();
        self.repository
            .events(&nids.into_iter().collect::<Vec<_>>())
            .await
    }

    /// What those slots hold in the state after each event, by state.
    async fn held_after(
        &self,
        room: &Room,
        events: &[Arc<StoredEvent>],
        visibility: SlotHash,
        members: &[SlotHash],
    ) -> Result<HashMap<StateNid, ServerSlotContents>, Refusal> {
        let states = self.repository.states_after(room, events).await?;
        let held = states.into_iter().map(|(nid, state)| {
            let held = ServerSlotContents {
                visibility: state.get(&visibility),
                members: members.iter().map(|slot| state.get(slot)).collect(),
            };
            (nid, held)
        });
        Ok(held.collect())
    }
}
