//! Propagation of a user's name and picture: member events repeat them, so a new profile is sent to every room of the user.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::{StreamExt, stream};
use maru_protocol::auth::StateSlot;
use maru_protocol::state::EventNid;
use maru_protocol::visibility::Membership;
use ruma::UserId;
use serde_json::{Map, Value};

use super::member_content;
use crate::refusal::Refusal;
use crate::rooms::{Memberships, Room, RoomRepository, Sender};
use crate::store::Store;
use crate::store::rooms::events::StoredEvent;

/// Rooms that a new profile is sent to at once.
const ROOMS_AT_ONCE: usize = 64;

/// How often it is sent again because the profile changed meanwhile.
const ROUNDS: usize = 3;

/// What is not carried over from the member event before: it belonged to that event.
const OF_ONE_EVENT: [&str; 4] = [
    "displayname",
    "avatar_url",
    "reason",
    "join_authorised_via_users_server",
];

type Events = HashMap<EventNid, Arc<StoredEvent>>;

/// Propagation of changed profiles into membership events.
#[derive(Debug)]
pub struct ProfilePropagation {
    pub(in crate::rooms) store: Arc<Store>,
    pub(in crate::rooms) repository: Arc<RoomRepository>,
    pub(in crate::rooms) memberships: Arc<Memberships>,
}

impl ProfilePropagation {
    /// Shows a user's new name or picture in every room that the user is in. A room that refuses it is left as it is.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn propagate(&self, user_id: &UserId) -> Result<(), Refusal> {
        let mut people = self.store.accounts.people([user_id]).await?;
        for _ in 0..ROUNDS {
            self.propagate_to(
                user_id,
                member_content(Membership::Join, people.get(user_id), None),
            )
            .await?;
            // Of two changes at once, the later one must be what rooms show in the end.
            let now = self.store.accounts.people([user_id]).await?;
            if now == people {
                break;
            }
            people = now;
        }
        Ok(())
    }

    async fn propagate_to(&self, user_id: &UserId, shown: Map<String, Value>) -> Result<(), Refusal> {
        let mut rooms = Vec::new();
        for stored in self.store.rooms.memberships_of(user_id).await? {
            if stored.membership.membership == "join" {
                rooms.extend(self.repository.room_by_nid(stored.membership.room).await?);
            }
        }
        let member = StateSlot::new("m.room.member", user_id.as_str());
        let events = self.needed_by(&rooms, &member).await?;
        let changes = rooms.into_iter().filter_map(|room| {
            let event = events.get(&room.head().state.get(&member.hash())?)?;
            Some((room, renewed(event, &shown)?))
        });
        stream::iter(changes)
            .for_each_concurrent(ROOMS_AT_ONCE, |(room, content)| async move {
                if let Err(error) = self
                    .memberships
                    .set_member(&room, Sender::now(user_id), user_id, content)
                    .await
                {
                    tracing::info!(room = %room.room_id, %error, "a room was not told of a new profile");
                }
            })
            .await;
        Ok(())
    }

    /// The user's member event and whatever the rules will ask for, of all rooms in one query.
    async fn needed_by(&self, rooms: &[Arc<Room>], member: &StateSlot) -> Result<Events, Refusal> {
        let slots = [
            member.hash(),
            StateSlot::new("m.room.create", "").hash(),
            StateSlot::new("m.room.power_levels", "").hash(),
            StateSlot::new("m.room.join_rules", "").hash(),
        ];
        let mut needed = Vec::with_capacity(rooms.len() * slots.len());
        for room in rooms {
            let state = &room.head().state;
            needed.extend(slots.iter().filter_map(|slot| state.get(slot)));
        }
        self.repository.events(&needed).await
    }
}

/// A member event's content with this name and picture; `None` where it shows them already.
fn renewed(event: &StoredEvent, shown: &Map<String, Value>) -> Option<Map<String, Value>> {
    let before: Map<String, Value> = event.event.content_as().unwrap_or_default();
    let same = |field| before.get(field) == shown.get(field);
    if same("displayname") && same("avatar_url") {
        return None;
    }
    let mut content = before;
    content.retain(|field, _| !OF_ONE_EVENT.contains(&field.as_str()));
    content.extend(shown.clone());
    Some(content)
}
