//! Both ends of an invitation between servers.

use std::sync::Arc;

use maru_protocol::RoomVersion;
use maru_protocol::limits::LARGE_MAX_EVENT_BYTES;
use maru_protocol::wire::answer::{Refused, RefusedCode};
use maru_protocol::wire::bounded::{Json, Text};
use maru_protocol::wire::request::membership::{Invite, Invited};
use ruma::{OwnedRoomId, ServerName, UserId};

use super::Peers;
use super::answers::refused;
use crate::refusal::Refusal;
use crate::rooms::Room;
use crate::rooms::ingest::{Incoming, Taken};
use crate::store::inbox::InInbox;

impl Peers {
    /// Invites somebody, of this server or another. Another server agrees before the invitation enters the room.
    ///
    /// # Errors
    /// What the rules say, or what the other server does.
    pub async fn invite(
        self: &Arc<Self>,
        room: &Arc<Room>,
        sender: &UserId,
        target: &UserId,
        reason: Option<String>,
    ) -> Result<(), Refusal> {
        if self.identity.is_local(target) {
            return self.rooms.invite(room, sender, target, reason).await;
        }
        let draft = self.rooms.invite_draft(room, sender, target, reason)?;
        let event = self.rooms.propose(room, draft).await?;
        let server = target.server_name();
        let head = room.head();
        let call = Invite {
            room_id: room.room_id.clone(),
            version: Text::cut(room.version.as_str()),
            event: event.json.clone().into(),
            stripped_state: self
                .rooms
                .stripped_state(room, sender)
                .await?
                .iter()
                .map(|json| Json::from(&**json))
                .collect(),
            records: self
                .keyring
                .records(head.servers.keys().map(AsRef::as_ref).take(16)),
        };
        let answer = self.ask(server, call).await?;
        answer
            .done()
            .await
            .map_err(|error| super::ask::refusal(server, error))?;
        let mut incoming = Incoming::live(event);
        incoming.own = true;
        match self.rooms.take_in(room, vec![incoming]).await?.pop() {
            Some(Taken::Stored(verdict)) if verdict.reason.is_some() => {
                Err(Refusal::forbidden("the room has changed meanwhile, try again"))
            }
            Some(Taken::Stored(_) | Taken::Known) => {
                self.wake_room(room);
                Ok(())
            }
            _ => Err(Refusal::internal("an invitation that cannot be stored")),
        }
    }

    /// A peer invites a user of this server.
    pub(super) async fn invited(&self, peer: &ServerName, invite: Invite) -> Result<Invited, Refused> {
        let invalid = |why: &str| Refused::new(RefusedCode::Invalid, why);
        let version = RoomVersion::from_id(&invite.version)
            .ok_or_else(|| Refused::new(RefusedCode::UnsupportedVersion, &invite.version))?;
        for record in &invite.records {
            let _ = self.keyring.keep(&self.store, record).await.map_err(refused)?;
        }
        let event = self
            .verify(&invite.event, &invite.room_id, version, LARGE_MAX_EVENT_BYTES)
            .map_err(|why| invalid(&why.to_string()))?;
        if event.sender.server_name() != peer {
            return Err(Refused::new(
                RefusedCode::Forbidden,
                "the inviting user belongs to another server",
            ));
        }
        let target = event
            .state_key
            .as_deref()
            .and_then(|key| <&UserId>::try_from(key).ok());
        let is_invite = event.content.as_str().contains("\"membership\":\"invite\"");
        let local = target.is_some_and(|user_id| self.identity.is_local(user_id));
        if &*event.event_type != "m.room.member" || !is_invite || !local {
            return Err(invalid("the event invites nobody of this server"));
        }
        // In a room that this server is in, the event comes by the log and is judged like any other.
        let present = self.rooms.room(&invite.room_id).await.ok();
        let own = &self.identity.server_name;
        if present.is_none_or(|room| !room.head().servers.contains_key(own)) {
            let stripped: Vec<&str> = invite.stripped_state.iter().map(|json| &**json).collect();
            let stripped: Vec<&str> = stripped.into_iter().filter(|json| is_stripped(json)).collect();
            let stripped = format!("[{}]", stripped.join(","));
            self.rooms
                .outside_membership(&invite.room_id, version, event, Some(stripped))
                .await
                .map_err(refused)?;
        }
        Ok(Invited { event: invite.event })
    }

    /// Events for a room that this server is not in: what becomes of invitations.
    pub(super) async fn outside_events(
        &self,
        room_id: &OwnedRoomId,
        rows: Vec<InInbox>,
    ) -> Result<(), Refusal> {
        let nids = rows.iter().map(|row| row.nid).collect();
        for row in rows {
            let Some(stored) = self.store.room(room_id).await? else {
                continue;
            };
            let Some(version) = RoomVersion::from_id(&stored.version) else {
                continue;
            };
            let Ok(event) = self.verify(&row.arrived.json, room_id, version, LARGE_MAX_EVENT_BYTES) else {
                continue;
            };
            let target = event
                .state_key
                .as_deref()
                .and_then(|key| <&UserId>::try_from(key).ok());
            let Some(target) = target.filter(|user_id| self.identity.is_local(user_id)) else {
                continue;
            };
            let outside = self.rooms.membership_outside(room_id, target).await?;
            let open = outside
                .is_some_and(|(stored, _)| ["invite", "knock"].contains(&&*stored.membership.membership));
            let same_server = event.sender.server_name() == row.server_name;
            if open && same_server && &*event.event_type == "m.room.member" {
                self.rooms
                    .outside_membership(room_id, version, event, None)
                    .await?;
            }
        }
        self.drop_rows(nids).await
    }
}

/// Whether a text is one stripped state event: an object with the fields that clients read.
fn is_stripped(json: &str) -> bool {
    #[derive(serde::Deserialize)]
    struct Stripped {
        #[serde(rename = "type")]
        _type: String,
        #[serde(rename = "state_key")]
        _state_key: String,
        #[serde(rename = "sender")]
        _sender: ruma::OwnedUserId,
        #[serde(rename = "content")]
        _content: serde_json::Map<String, serde_json::Value>,
    }
    json.len() <= 65_536 && serde_json::from_str::<Stripped>(json).is_ok()
}
