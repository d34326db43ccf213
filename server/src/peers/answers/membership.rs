//! Users of other servers come into rooms through this one, and leave them.

use std::sync::Arc;

use maru_federation::homeserver::Parts;
use maru_protocol::auth::{self, StateSlot};
use maru_protocol::canonical::Content;
use maru_protocol::wire::answer::{Refused, RefusedCode};
use maru_protocol::wire::bounded::{Json, Text};
use maru_protocol::wire::request::membership::{
    Admission, MakeMembership, Membership, SendMembership, Template,
};
use ruma::ServerName;
use serde_json::json;

use super::refused;
use crate::peers::Peers;
use crate::refusal::Refusal;
use crate::rooms::Room;
use crate::rooms::ingest::{Incoming, Taken};

fn named(membership: Membership) -> &'static str {
    match membership {
        Membership::Join => "join",
        Membership::Leave => "leave",
        Membership::Knock => "knock",
    }
}

impl Peers {
    /// What a user of a peer needs to build a membership event.
    pub(super) async fn make_membership(
        &self,
        peer: &ServerName,
        call: MakeMembership,
    ) -> Result<Template, Refused> {
        if call.user_id.server_name() != peer {
            return Err(Refused::new(
                RefusedCode::Forbidden,
                "that user belongs to another server",
            ));
        }
        let room = self.open_room(&call.room_id).await?;
        if !call
            .versions
            .iter()
            .any(|version| **version == *room.version.as_str())
        {
            return Err(Refused::new(
                RefusedCode::UnsupportedVersion,
                room.version.as_str(),
            ));
        }
        self.template_of(&room, &call).await.map_err(refused)
    }

    async fn template_of(&self, room: &Arc<Room>, call: &MakeMembership) -> Result<Template, Refusal> {
        let authorised_by = match call.membership {
            Membership::Join => self.rooms.authoriser(room, &call.user_id).await?,
            _ => None,
        };
        let mut content = json!({ "membership": named(call.membership) });
        if let Some(authoriser) = &authorised_by {
            content["join_authorised_via_users_server"] = json!(authoriser);
        }
        let content = Content::of(&content).map_err(Refusal::internal)?;
        let slots = auth::auth_slots(
            "m.room.member",
            &call.user_id,
            Some(call.user_id.as_str()),
            &content,
            room.version,
        )
        .map_err(|denied| Refusal::forbidden(denied.to_string()))?;
        let head = room.head();
        let create = StateSlot::new("m.room.create", "");
        let nids: Vec<_> = slots
            .iter()
            .chain([&create])
            .filter_map(|slot| head.state.get(&slot.hash()))
            .collect();
        let events = self.rooms.events(&nids).await?;
        let create = head.state.get(&create.hash()).and_then(|nid| events.get(&nid));
        let create = create.ok_or_else(|| Refusal::internal("a room without a create event"))?;
        let named = slots
            .iter()
            .filter_map(|slot| events.get(&head.state.get(&slot.hash())?));
        Ok(Template {
            version: Text::cut(room.version.as_str()),
            create: create.event.json.clone().into(),
            auth_events: named
                .map(|stored| Json::from(Arc::clone(&stored.event.json)))
                .collect(),
            prev_events: head.extremities.iter().map(|tip| tip.id.clone()).collect(),
            depth: head.depth + 1,
            authorised_by,
        })
    }

    /// Takes the membership event of a user of a peer into the room, and tells what the peer needs to be in it.
    pub(super) async fn send_membership(
        self: &Arc<Self>,
        peer: &ServerName,
        call: SendMembership,
        parts: &Parts,
    ) -> Result<Admission, Refused> {
        let room = self.open_room(&call.room_id).await?;
        let invalid = |why: String| Refused::new(RefusedCode::Invalid, &why);
        let event = self
            .verify(&call.event, &room.room_id, room.version, room.max_event_bytes)
            .map_err(|why| invalid(why.to_string()))?;
        let about_itself = event.is_state_at("m.room.member", event.sender.as_str());
        if !about_itself || event.sender.server_name() != peer {
            return Err(Refused::new(
                RefusedCode::Forbidden,
                "not a membership event of a user of your server",
            ));
        }
        let taken = self
            .rooms
            .take_in(&room, vec![Incoming::live(Arc::clone(&event))])
            .await
            .map_err(refused)?;
        match taken.into_iter().next() {
            Some(Taken::Known) => {}
            Some(Taken::Stored(verdict)) => {
                if let Some(denied) = verdict.reason {
                    return Err(Refused::new(RefusedCode::Forbidden, &denied.reason));
                }
            }
            _ => return Err(invalid("the event names events that are not here".to_owned())),
        }
        let mut admission = Admission {
            event: event.json.clone().into(),
            state: Vec::new(),
            extremities: room.head().extremities.iter().map(|tip| tip.id.clone()).collect(),
            stripped_state: Vec::new(),
        };
        if event.content.as_str().contains("\"membership\":\"join\"") {
            let stored = self
                .events_of(&room, std::slice::from_ref(&event.id))
                .await
                .map_err(refused)?;
            let before = match stored.first() {
                Some(stored) => self.state_before(stored).await.map_err(refused)?,
                None => None,
            };
            let state = self.whole(&before.unwrap_or_default()).await.map_err(refused)?;
            let all = self.with_auth_chain(&state).await.map_err(refused)?;
            let servers = room.head();
            self.give_records(servers.servers.keys().map(AsRef::as_ref), parts)
                .await?;
            self.give(&all, parts).await?;
            admission.state = state.iter().map(|stored| stored.event.id.clone()).collect();
        }
        Ok(admission)
    }

    /// A room that this server is in, whose rules will say who may come.
    async fn open_room(&self, room_id: &ruma::RoomId) -> Result<Arc<Room>, Refused> {
        let unknown = || Refused::new(RefusedCode::NotFound, "this server is not in that room");
        let room = self.rooms.room(room_id).await.map_err(|_| unknown())?;
        let present = room.head().servers.contains_key(&self.identity.server_name);
        present.then_some(room).ok_or_else(unknown)
    }
}
