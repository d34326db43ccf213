//! Users of other servers come into rooms through this one, and leave them.

use std::sync::Arc;
use std::time::Duration;

use maru_federation::homeserver::Parts;
use maru_protocol::auth::{self, StateSlot};
use maru_protocol::canonical::Content;
use maru_protocol::event::{Event, countersign};
use maru_protocol::ingest::Outcome;
use maru_protocol::limits::MAX_JSON_DEPTH;
use maru_protocol::visibility;
use maru_protocol::wire::answer::{Refused, RefusedCode};
use maru_protocol::wire::bounded::{Json, Text};
use maru_protocol::wire::request::membership::{
    Admission, MakeMembership, Membership, SendMembership, Template,
};
use ruma::{OwnedUserId, RoomId, ServerName};
use serde::Deserialize;
use serde_json::json;

use super::refused;
use crate::peers::inbound::verify::RoomFormat;
use crate::peers::request_handlers::RequestHandlers;
use crate::refusal::Refusal;
use crate::rooms::Room;
use crate::rooms::ingest::{Incoming, IngestResult};

/// How long a request about a membership waits until this node knows what others have committed before it.
const CAUGHT_UP_WITHIN: Duration = Duration::from_secs(5);

fn invalid(why: impl std::fmt::Display) -> Refused {
    Refused::new(RefusedCode::Invalid, &why.to_string())
}

/// What a user asks for, in the words of events.
fn wanted(membership: Membership) -> visibility::Membership {
    match membership {
        Membership::Join => visibility::Membership::Join,
        Membership::Leave => visibility::Membership::Leave,
        Membership::Knock => visibility::Membership::Knock,
    }
}

/// Who vouches for a join, by the event's own account.
fn voucher(event: &Event) -> Option<OwnedUserId> {
    #[derive(Deserialize)]
    struct Vouched {
        join_authorised_via_users_server: OwnedUserId,
    }
    let vouched = event.content_as::<Vouched>().ok()?;
    Some(vouched.join_authorised_via_users_server)
}

impl RequestHandlers {
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
        let room = self.open_room(peer, &call.room_id).await?;
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
        let wanted = wanted(call.membership);
        self.rooms
            .join_rules
            .check_request(room, &call.user_id, wanted)
            .await?;
        let authorised_by = match call.membership {
            Membership::Join => self.rooms.join_rules.authoriser(room, &call.user_id).await?,
            _ => None,
        };
        let mut content = json!({ "membership": wanted.as_str() });
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
        let events = self.rooms.repository.events(&nids).await?;
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

    /// Takes the membership event of a user of a peer into the room, and sends what the peer needs to be in it.
    pub(super) async fn send_membership(
        self: &Arc<Self>,
        peer: &ServerName,
        call: SendMembership,
        parts: &Parts,
    ) -> Result<Admission, Refused> {
        let room = self.open_room(peer, &call.room_id).await?;
        let json = self.vouched_for(&room, peer, &call.event).await?;
        let event = self
            .verifier
            .verify(&json, RoomFormat::of(&room))
            .map_err(invalid)?;
        let taken = {
            let lock = self.rooms.ingest_locks.lock(&room.room_id).await;
            let incoming = vec![Incoming::live(Arc::clone(&event))];
            self.rooms
                .ingest
                .ingest(&lock, &room, incoming)
                .await
                .map_err(refused)?
        };
        match taken.into_iter().next() {
            Some(IngestResult::Known(Outcome::Accepted)) => {}
            Some(IngestResult::Known(_)) => {
                return Err(Refused::new(RefusedCode::Forbidden, "it was turned down before"));
            }
            Some(IngestResult::Stored(verdict)) => {
                if let Some(denied) = verdict.reason {
                    return Err(Refused::new(RefusedCode::Forbidden, &denied.reason));
                }
            }
            _ => return Err(invalid("the event names events that are not here")),
        }
        self.rpc.announce_extremities_in(&room, peer);
        let mut admission = Admission {
            event: event.json.clone().into(),
            state: Vec::new(),
            extremities: room.head().extremities.iter().map(|tip| tip.id.clone()).collect(),
            stripped_state: Vec::new(),
        };
        match visibility::Membership::of(&event) {
            Some(visibility::Membership::Join) => {
                admission.state = self.send_room(&room, peer, &event, parts).await?;
            }
            Some(visibility::Membership::Knock) => {
                let shown = self.rooms.summaries.stripped_state(&room, &event.sender).await;
                let shown = shown.map_err(refused)?;
                admission.stripped_state = shown.iter().map(|json| Json::from(&**json)).collect();
            }
            _ => {}
        }
        Ok(admission)
    }

    /// The membership event of a user of a peer, with this server's signature where one of its users vouches for the join.
    async fn vouched_for(
        &self,
        room: &Arc<Room>,
        peer: &ServerName,
        json: &str,
    ) -> Result<Box<str>, Refused> {
        let event =
            Event::parse(json, room.version, room.max_event_bytes, MAX_JSON_DEPTH).map_err(invalid)?;
        let about_itself = event.is_state_at("m.room.member", event.sender.as_str());
        if !about_itself || event.sender.server_name() != peer {
            return Err(Refused::new(
                RefusedCode::Forbidden,
                "not a membership event of a user of your server",
            ));
        }
        let asked = visibility::Membership::of(&event);
        if !matches!(
            asked,
            Some(
                visibility::Membership::Join | visibility::Membership::Leave | visibility::Membership::Knock
            )
        ) {
            return Err(invalid("no membership that is asked for by a request"));
        }
        let ours = voucher(&event).filter(|user_id| self.identity.is_local(user_id));
        if ours.is_none() || event.room_id != room.room_id {
            return Ok(json.into());
        }
        // Whether the user is where the join rule says is known to this server alone: the signature says so to others.
        self.rooms
            .join_rules
            .authoriser(room, &event.sender)
            .await
            .map_err(refused)?;
        let identity = &self.identity;
        let signed = countersign(
            &event,
            room.version,
            room.max_event_bytes,
            identity.name(),
            &identity.signing_key,
        );
        Ok((*signed.map_err(invalid)?.json).into())
    }

    /// Hands out a whole room: the state before a join, with its auth chain and the records of its servers. Answers which
    /// events are the state.
    async fn send_room(
        &self,
        room: &Room,
        peer: &ServerName,
        join: &Event,
        parts: &Parts,
    ) -> Result<Vec<ruma::OwnedEventId>, Refused> {
        let stored = self.store.rooms.event(&join.id).await;
        let stored = stored.map_err(|error| refused(error.into()))?;
        let before = match &stored {
            Some(stored) => self.state_before(stored).await.map_err(refused)?,
            None => None,
        };
        let head = room.head();
        self.send_room_state(peer, &before.unwrap_or_default(), head.servers.keys(), parts)
            .await
    }

    /// A room that this server is in, whose rules will say who may come.
    async fn open_room(&self, peer: &ServerName, room_id: &RoomId) -> Result<Arc<Room>, Refused> {
        let unknown = || Refused::new(RefusedCode::NotFound, "this server is not in that room");
        // What lets the user in may just have been done on another node, whose user was told so.
        let caught_up = self.store.log.catch_up(CAUGHT_UP_WITHIN).await;
        caught_up.map_err(|error| refused(error.into()))?;
        let room = self
            .local
            .present(room_id)
            .await
            .map_err(refused)?
            .ok_or_else(unknown)?;
        self.check_admitted(peer, &room).await?;
        Ok(room)
    }
}
