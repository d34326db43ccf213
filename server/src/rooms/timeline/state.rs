//! Reading a room's state: whole, one event, its members (client-server API, "Getting events for a room").
//!
//! Members read the present state, those who have left the state they left behind, and anybody that of a room whose
//! history is world-readable.

use std::collections::HashSet;
use std::sync::Arc;

use maru_protocol::auth::StateSlot;
use maru_protocol::cursor::{PageToken, Place};
use maru_protocol::state::{EventNid, State, StateNid};
use maru_protocol::visibility::{HistoryVisibility, Membership};
use ruma::{OwnedUserId, UserId};
use serde::Deserialize;

use crate::refusal::Refusal;
use crate::rooms::visibility::Standing;
use crate::rooms::{Room, Rooms};
use crate::store::rooms::events::{Direction, StoredEvent};

/// A joined member as others see them.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Profile {
    /// The name shown.
    pub displayname: Option<String>,
    /// The picture shown.
    pub avatar_url: Option<String>,
}

impl Rooms {
    /// The room with this id, for somebody who wants to read it: who may not is not told whether it exists.
    ///
    /// # Errors
    /// [`Refusal::Forbidden`] when this server does not know it.
    pub async fn room_to_read(&self, room_id: &ruma::RoomId) -> Result<Arc<Room>, Refusal> {
        self.room(room_id).await.map_err(|refusal| match refusal {
            Refusal::NotFound(_) => Refusal::forbidden("you are not in this room"),
            refusal => refusal,
        })
    }

    /// The state of a room that a user may read.
    ///
    /// # Errors
    /// [`Refusal::Forbidden`] to those who may read none.
    pub async fn readable_state(&self, user_id: &UserId, room: &Room) -> Result<State, Refusal> {
        match self.standing(user_id, room).await? {
            Standing::Member => Ok(room.head().state.clone()),
            Standing::Departed { departure, .. } => self.state_after(room, departure.state).await,
            Standing::Stranger if self.is_world_readable(room).await? => Ok(room.head().state.clone()),
            Standing::Stranger => Err(Refusal::forbidden("you are not in this room")),
        }
    }

    /// All state events that a user may read, oldest first. Costs grow with the room's state.
    ///
    /// # Errors
    /// [`Refusal::Forbidden`] to those who may read none.
    pub async fn all_state(&self, user_id: &UserId, room: &Room) -> Result<Vec<Arc<StoredEvent>>, Refusal> {
        let state = self.readable_state(user_id, room).await?;
        self.in_order(&state.events()).await
    }

    /// One state event that a user may read.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] when there is none, [`Refusal::Forbidden`] to those who may read none.
    pub async fn one_state_event(
        &self,
        user_id: &UserId,
        room: &Room,
        event_type: &str,
        state_key: &str,
    ) -> Result<Arc<StoredEvent>, Refusal> {
        let state = self.readable_state(user_id, room).await?;
        let found = self.state_event(&state, event_type, state_key).await?;
        found.ok_or_else(|| Refusal::not_found("the room has no such state"))
    }

    /// The membership events that a user may read: as they are now, or were at a token, with one membership or
    /// without one. Costs grow with everybody who was ever a member.
    ///
    /// # Errors
    /// [`Refusal::Forbidden`] to those who may read none, [`Refusal::InvalidParam`] for a token of another log.
    pub async fn member_events(
        &self,
        user_id: &UserId,
        room: &Room,
        at: Option<PageToken>,
        membership: Option<&str>,
        not_membership: Option<&str>,
    ) -> Result<Vec<Arc<StoredEvent>>, Refusal> {
        let state = match at {
            None => self.readable_state(user_id, room).await?,
            Some(token) => self.readable_state_at(user_id, room, token).await?,
        };
        let mut members = self.in_order(&state.events()).await?;
        members.retain(|stored| {
            &*stored.event.event_type == "m.room.member" && {
                let name = Membership::of(&stored.event).map(Membership::as_str);
                membership.is_none_or(|wanted| name == Some(wanted))
                    && not_membership.is_none_or(|unwanted| name != Some(unwanted))
            }
        });
        Ok(members)
    }

    /// Who is joined, and how they are called.
    ///
    /// # Errors
    /// [`Refusal::Forbidden`] to those who are not in the room.
    pub async fn joined_members(
        &self,
        user_id: &UserId,
        room: &Room,
    ) -> Result<Vec<(OwnedUserId, Profile)>, Refusal> {
        if !room.is_joined(user_id) {
            return Err(Refusal::forbidden("you are not in this room"));
        }
        let members = self.store.members(room.nid, &["join"]).await?;
        let nids: Vec<EventNid> = members.iter().map(|member| member.membership.event).collect();
        let events = self.events(&nids).await?;
        let profile = |nid: &EventNid| events.get(nid)?.event.content_as::<Profile>().ok();
        let member = |member: crate::store::rooms::StoredMembership| {
            let profile = profile(&member.membership.event).unwrap_or_default();
            (member.membership.user_id, profile)
        };
        Ok(members.into_iter().map(member).collect())
    }

    /// Whether anybody may read the room, by its present state.
    pub(in crate::rooms) async fn is_world_readable(&self, room: &Room) -> Result<bool, Refusal> {
        let event = self
            .state_event(&room.head().state, "m.room.history_visibility", "")
            .await?;
        Ok(event
            .is_some_and(|stored| HistoryVisibility::of(&stored.event) == HistoryVisibility::WorldReadable))
    }

    /// All events of the state numbered `nid`, oldest first.
    pub(in crate::rooms) async fn whole_state(
        &self,
        room: &Room,
        nid: Option<StateNid>,
    ) -> Result<Vec<Arc<StoredEvent>>, Refusal> {
        self.in_order(&self.state_after(room, nid).await?.events()).await
    }

    /// The membership events of some users in the state numbered `nid`, oldest first.
    pub(in crate::rooms) async fn members_in(
        &self,
        room: &Room,
        nid: Option<StateNid>,
        users: HashSet<&str>,
    ) -> Result<Vec<Arc<StoredEvent>>, Refusal> {
        let state = self.state_after(room, nid).await?;
        let member = |user_id: &str| state.get(&StateSlot::new("m.room.member", user_id).hash());
        self.in_order(&users.into_iter().filter_map(member).collect::<Vec<_>>())
            .await
    }

    /// The state at a token, as far as a user may read it.
    async fn readable_state_at(
        &self,
        user_id: &UserId,
        room: &Room,
        token: PageToken,
    ) -> Result<State, Refusal> {
        let boundary = self.boundary(room, token).await?;
        let readable = self.readable_state(user_id, room).await?;
        let below = Place(boundary.0.saturating_add(1));
        let before = self
            .store
            .timeline(room.nid, below, Direction::Backward, 1)
            .await?;
        let Some(at) = before.first() else {
            return Ok(readable);
        };
        // Whoever has left reads nothing that came after.
        match self.standing(user_id, room).await? {
            Standing::Departed { departure, .. } if departure.place < at.place => Ok(readable),
            _ => self.state_after(room, at.state).await,
        }
    }

    async fn state_after(&self, room: &Room, nid: Option<StateNid>) -> Result<State, Refusal> {
        let head = room.head();
        match nid {
            None => Ok(State::default()),
            Some(_) if head.state.nid() == nid => Ok(head.state.clone()),
            Some(nid) => Ok(self.store.state(nid).await?),
        }
    }

    async fn in_order(&self, nids: &[EventNid]) -> Result<Vec<Arc<StoredEvent>>, Refusal> {
        let mut events: Vec<_> = self.events(nids).await?.into_values().collect();
        events.sort_unstable_by_key(|stored| stored.nid);
        Ok(events)
    }
}
