//! Reading a room's state: whole, one event, its members (client-server API, "Getting events for a room").
//!
//! Members read the present state, those who have left the state they left behind, and anybody that of a room whose
//! history is world-readable.

use std::collections::HashSet;
use std::sync::Arc;

use maru_protocol::auth::StateSlot;
use maru_protocol::cursor::{PageToken, Place};
use maru_protocol::state::{EventNid, State, StateNid};
use maru_protocol::visibility::Membership;
use ruma::{OwnedUserId, UserId};
use serde::Deserialize;

use crate::refusal::Refusal;
use crate::rooms::visibility::ReaderMembership;
use crate::rooms::{Room, RoomRepository, Visibility};
use crate::store::Store;
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

/// The state of rooms as users may read it.
#[derive(Debug)]
pub struct StateReader {
    pub(in crate::rooms) store: Arc<Store>,
    pub(in crate::rooms) repository: Arc<RoomRepository>,
    pub(in crate::rooms) visibility: Arc<Visibility>,
}

impl StateReader {
    /// The state of a room that a user may read.
    ///
    /// # Errors
    /// [`Refusal::Forbidden`] to those who may read none.
    pub async fn readable_state(&self, user_id: &UserId, room: &Room) -> Result<State, Refusal> {
        match self.visibility.membership_of(user_id, room).await? {
            ReaderMembership::Member => Ok(room.head().state.clone()),
            ReaderMembership::Departed { departure, .. } => {
                self.repository.state_after(room, departure.state).await
            }
            ReaderMembership::Stranger if self.repository.is_world_readable(room).await? => {
                Ok(room.head().state.clone())
            }
            ReaderMembership::Stranger => Err(Refusal::forbidden("you are not in this room")),
        }
    }

    /// All state events that a user may read, oldest first. Costs grow with the room's state.
    ///
    /// # Errors
    /// [`Refusal::Forbidden`] to those who may read none.
    pub async fn all_state(&self, user_id: &UserId, room: &Room) -> Result<Vec<Arc<StoredEvent>>, Refusal> {
        let state = self.readable_state(user_id, room).await?;
        self.repository.events_in_order(&state.events()).await
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
        let found = self.repository.state_event(&state, event_type, state_key).await?;
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
        let mut members = self.repository.events_in_order(&state.events()).await?;
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
        let members = self.store.rooms.members(room.nid, &["join"]).await?;
        let nids: Vec<EventNid> = members.iter().map(|member| member.membership.event).collect();
        let events = self.repository.events(&nids).await?;
        let profile = |nid: &EventNid| events.get(nid)?.event.content_as::<Profile>().ok();
        let member = |member: crate::store::rooms::StoredMembership| {
            let profile = profile(&member.membership.event).unwrap_or_default();
            (member.membership.user_id, profile)
        };
        Ok(members.into_iter().map(member).collect())
    }

    /// How some users were called in the state after an event. Costs grow with the users.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn profiles_at(
        &self,
        room: &Room,
        stored: &StoredEvent,
        users: HashSet<&str>,
    ) -> Result<Vec<(OwnedUserId, Profile)>, Refusal> {
        let members = self.members_in(room, stored.state, users).await?;
        let profile = |member: &Arc<StoredEvent>| {
            let user_id = member.event.state_key.as_deref()?.try_into().ok()?;
            Some((user_id, member.event.content_as().ok()?))
        };
        Ok(members.iter().filter_map(profile).collect())
    }

    /// All events of the state numbered `nid`, oldest first.
    pub(in crate::rooms) async fn whole_state(
        &self,
        room: &Room,
        nid: Option<StateNid>,
    ) -> Result<Vec<Arc<StoredEvent>>, Refusal> {
        self.repository
            .events_in_order(&self.repository.state_after(room, nid).await?.events())
            .await
    }

    /// The membership events of some users in the state numbered `nid`, oldest first.
    pub(in crate::rooms) async fn members_in(
        &self,
        room: &Room,
        nid: Option<StateNid>,
        users: HashSet<&str>,
    ) -> Result<Vec<Arc<StoredEvent>>, Refusal> {
        let state = self.repository.state_after(room, nid).await?;
        let member = |user_id: &str| state.get(&StateSlot::new("m.room.member", user_id).hash());
        self.repository
            .events_in_order(&users.into_iter().filter_map(member).collect::<Vec<_>>())
            .await
    }

    /// The state at a token, as far as a user may read it.
    async fn readable_state_at(
        &self,
        user_id: &UserId,
        room: &Room,
        token: PageToken,
    ) -> Result<State, Refusal> {
        let boundary = self.repository.boundary(room, token).await?;
        let readable = self.readable_state(user_id, room).await?;
        let below = Place(boundary.0.saturating_add(1));
        let before = self
            .store
            .rooms
            .timeline(room.nid, below, Direction::Backward, 1)
            .await?;
        let Some(at) = before.first() else {
            return Ok(readable);
        };
        // Whoever has left reads nothing that came after.
        match self.visibility.membership_of(user_id, room).await? {
            ReaderMembership::Departed { departure, .. } if departure.place < at.place => Ok(readable),
            _ => self.repository.state_after(room, at.state).await,
        }
    }
}
