//! Rooms that this server is not in and one of its users is asked into: invitations, their end, and knocks.
//!
//! The room's state is not here, so its rules cannot be checked. What counts is that the event is signed by its sender's
//! server, and what the user is shown is what that server says of the room.

use std::sync::Arc;

use maru_protocol::RoomVersion;
use maru_protocol::canonical::Content;
use maru_protocol::destinations::membership;
use maru_protocol::event::{Draft, Event, Links, build};
use maru_protocol::limits::DEFAULT_MAX_EVENT_BYTES;
use maru_protocol::state::EventNid;
use ruma::{OwnedUserId, UserId};
use serde_json::{Map, Value};

use crate::clock::Clock;
use crate::identity::Identity;
use crate::refusal::Refusal;
use crate::rooms::ingest::IngestLock;
use crate::rooms::{Appender, Room, RoomNumbers};
use crate::store::Store;
use crate::store::log::{Change, Record};
use crate::store::rooms::events::StoredEvent;
use crate::store::rooms::{Membership, StoredMembership};

/// Memberships of local users in rooms that this server is not in.
#[derive(Debug)]
pub struct RemoteMemberships {
    pub(in crate::rooms) identity: Arc<Identity>,
    pub(in crate::rooms) clock: Arc<Clock>,
    pub(in crate::rooms) store: Arc<Store>,
    pub(in crate::rooms) numbers: Arc<RoomNumbers>,
    pub(in crate::rooms) appender: Arc<Appender>,
}

impl RemoteMemberships {
    /// Stores a membership of a local user in the locked room, which this server is not in. `stripped_state` is a JSON array of what
    /// the user may know of the room.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] when there is no such user here.
    pub async fn store_membership(
        &self,
        ingest_lock: &IngestLock,
        version: RoomVersion,
        event: Arc<Event>,
        stripped_state: Option<String>,
    ) -> Result<(), Refusal> {
        let user_id = subject(&event)?;
        let membership = membership(&event).ok_or_else(|| Refusal::BadJson("no membership".into()))?;
        let people = self.store.accounts.people([&*user_id]).await?;
        if people.get(&*user_id).is_none_or(|person| person.deactivated) {
            return Err(Refusal::not_found(format!("there is no user {user_id}")));
        }
        if self.store.rooms.event(&event.id).await?.is_some() {
            return Ok(());
        }
        let room = self.numbers.of_invite(ingest_lock.room_id(), version).await?;
        let nid = EventNid(self.store.log.next_nid());
        let own = self.identity.is_local(&event.sender);
        let mut stored = StoredEvent::new(event, nid, room, None, None);
        stored.own = own;
        let change = Change::new(vec![
            Record::Event(Arc::new(stored)),
            Record::Membership(Membership {
                room,
                user_id,
                membership,
                event: nid,
                stripped_state,
            }),
        ]);
        self.store.log.append(change).await?;
        Ok(())
    }

    /// A user's membership in a room of which no more than that may be known here.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn stored_membership(
        &self,
        room_id: &ruma::RoomId,
        user_id: &UserId,
    ) -> Result<Option<(StoredMembership, RoomVersion)>, Refusal> {
        let Some(room) = self.store.rooms.room(room_id).await? else {
            return Ok(None);
        };
        let version = RoomVersion::from_id(&room.version)
            .ok_or_else(|| Refusal::UnsupportedRoomVersion(room.version.clone()))?;
        let membership = self.store.rooms.membership(room.nid, user_id).await?;
        Ok(membership.map(|membership| (membership, version)))
    }

    /// Builds an event that another server has to accept before it is stored here. The links are fields that were
    /// checked, never a template that is signed as it came.
    ///
    /// # Errors
    /// When the fields make no event.
    pub fn build_event(
        &self,
        draft: Draft,
        links: Links,
        version: RoomVersion,
        max_event_bytes: usize,
    ) -> Result<Event, Refusal> {
        let identity = &self.identity;
        build(
            draft,
            links,
            version,
            max_event_bytes,
            &identity.server_name,
            &identity.signing_key,
        )
        .map_err(|error| Refusal::forbidden(error.to_string()))
    }

    /// A membership event of a user for the user itself, for another server to accept or for nobody else.
    ///
    /// # Errors
    /// When the fields make no event.
    pub fn build_member_event(
        &self,
        room_id: &ruma::RoomId,
        user_id: &UserId,
        content: Map<String, Value>,
        links: Links,
        version: RoomVersion,
    ) -> Result<Event, Refusal> {
        let draft = Draft {
            room_id: Some(room_id.to_owned()),
            sender: user_id.to_owned(),
            event_type: "m.room.member".into(),
            state_key: Some(user_id.as_str().into()),
            content: Content::of(&content).map_err(|error| Refusal::BadJson(error.to_string()))?,
            redacts: None,
            origin_server_ts: self.clock.now_ms(),
        };
        self.build_event(draft, links, version, DEFAULT_MAX_EVENT_BYTES)
    }

    /// Builds an event on a room's head without storing it, for another server to accept first. It is then taken in like
    /// an event that comes from elsewhere.
    ///
    /// # Errors
    /// What the rules say.
    pub async fn propose(&self, room: &Arc<Room>, draft: Draft) -> Result<Arc<Event>, Refusal> {
        self.appender.build_unstored(room, draft).await.map(Arc::new)
    }
}

fn subject(event: &Event) -> Result<OwnedUserId, Refusal> {
    event
        .state_key
        .as_deref()
        .filter(|_| &*event.event_type == "m.room.member")
        .and_then(|key| key.try_into().ok())
        .ok_or_else(|| Refusal::BadJson("not a membership event".into()))
}
