//! Membership events of a room that this server is not in: a server in the room gives facts, and this one builds its own
//! event from those that hold. What a peer sends is never signed as it came.

use std::sync::Arc;

use maru_protocol::auth::{self, StateSlot};
use maru_protocol::canonical::Content;
use maru_protocol::event::{Draft, Event, Links};
use maru_protocol::limits::{LARGE_MAX_EVENT_BYTES, MAX_JSON_DEPTH, MAX_PREV_EVENTS, max_event_bytes};
use maru_protocol::version::RoomVersion;
use maru_protocol::wire::bounded::Text;
use maru_protocol::wire::request::membership::{MakeMembership, Membership, Template};
use ruma::{RoomId, ServerName, UserId};
use serde_json::{Map, Value, json};

use crate::clock::Clock;
use crate::peers::dependencies::Dependencies;
use crate::peers::inbound::drop_counters::DropCounters;
use crate::peers::inbound::drop_counters::Dropped;
use crate::peers::inbound::verify::RoomFormat;
use crate::peers::rpc_client::RpcClient;
use crate::refusal::Refusal;
use crate::rooms::Rooms;

/// A membership that a user of this server wants.
pub(in crate::peers) struct Wish<'a> {
    pub(in crate::peers) room_id: &'a RoomId,
    pub(in crate::peers) user_id: &'a UserId,
    pub(in crate::peers) membership: Membership,
    /// The content of the event, as far as it is the user's to say.
    pub(in crate::peers) content: Map<String, Value>,
}

/// Our own event, built from a template whose fields hold.
pub(in crate::peers) struct Built {
    pub(in crate::peers) version: RoomVersion,
    pub(in crate::peers) max_event_bytes: usize,
    pub(in crate::peers) event: Arc<Event>,
}

impl Built {
    /// The format of the room's events.
    pub(in crate::peers) fn format(&self) -> RoomFormat<'_> {
        RoomFormat {
            room_id: &self.event.room_id,
            version: self.version,
            max_event_bytes: self.max_event_bytes,
        }
    }
}

/// The builder of membership events for rooms that this server is not in.
#[derive(Debug)]
pub(in crate::peers) struct MembershipBuilder {
    clock: Arc<Clock>,
    rooms: Arc<Rooms>,
    rpc: Arc<RpcClient>,
    drops: Arc<DropCounters>,
}

impl MembershipBuilder {
    pub(in crate::peers) fn new(dependencies: &Dependencies) -> Self {
        Self {
            clock: Arc::clone(&dependencies.clock),
            rooms: Arc::clone(&dependencies.rooms),
            rpc: Arc::clone(&dependencies.rpc),
            drops: Arc::clone(&dependencies.drops),
        }
    }

    /// Asks for a template and builds our own event from the fields that hold.
    pub(in crate::peers) async fn build(
        &self,
        server: &ServerName,
        wish: &Wish<'_>,
    ) -> Result<Built, Refusal> {
        let call = MakeMembership {
            room_id: wish.room_id.to_owned(),
            user_id: wish.user_id.to_owned(),
            membership: wish.membership,
            versions: RoomVersion::ALL
                .iter()
                .filter_map(|version| Text::new(version.as_str()))
                .collect(),
        };
        let template = self.rpc.request(server, call).await?;
        self.build_from(server, wish, template)
    }

    fn build_from(&self, server: &ServerName, wish: &Wish<'_>, template: Template) -> Result<Built, Refusal> {
        let wrong = |what: &str| {
            self.drops.count(&Dropped::WrongAnswer);
            Refusal::forbidden(format!("{server} answers with a wrong template: {what}"))
        };
        let version = RoomVersion::from_id(&template.version)
            .ok_or_else(|| Refusal::UnsupportedRoomVersion(template.version.to_string()))?;
        // Whose events these are is not known yet, so they cannot be verified; they only give ids and limits, and the
        // whole chain is verified with the answer to what we send.
        let parse = |json: &str| {
            let event = Event::parse(json, version, LARGE_MAX_EVENT_BYTES, MAX_JSON_DEPTH);
            event
                .ok()
                .filter(|event| event.room_id == wish.room_id)
                .ok_or_else(|| wrong("an event of it is of another room, or none"))
        };
        let create = parse(&template.create)?;
        if !create.is_state_at("m.room.create", "") {
            return Err(wrong("its create event is none"));
        }
        if RoomVersion::of_room(&create.content) != Some(version) {
            return Err(wrong("its create event is of another version"));
        }
        let events = template
            .auth_events
            .iter()
            .map(|json| parse(json))
            .collect::<Result<Vec<_>, _>>()?;
        let mut content = wish.content.clone();
        if let (Membership::Join, Some(authoriser)) = (wish.membership, template.authorised_by) {
            content.insert("join_authorised_via_users_server".into(), json!(authoriser));
        }
        let content = Content::of(&content).map_err(|error| Refusal::BadJson(error.to_string()))?;
        let slots = auth::auth_slots(
            "m.room.member",
            wish.user_id,
            Some(wish.user_id.as_str()),
            &content,
            version,
        )
        .map_err(|denied| Refusal::forbidden(denied.to_string()))?;
        let named = events
            .iter()
            .chain((!version.room_id_is_hash()).then_some(&create))
            .filter(|event| StateSlot::of(event).is_some_and(|slot| slots.contains(&slot)));
        let mut auth_events: Vec<_> = named.map(|event| event.id.clone()).collect();
        auth_events.sort();
        auth_events.dedup();
        if template.prev_events.is_empty() || template.prev_events.len() > MAX_PREV_EVENTS {
            return Err(wrong("it names no previous events, or too many"));
        }
        let draft = Draft {
            room_id: Some(wish.room_id.to_owned()),
            sender: wish.user_id.to_owned(),
            event_type: "m.room.member".into(),
            state_key: Some(wish.user_id.as_str().into()),
            content,
            redacts: None,
            origin_server_ts: self.clock.now_ms(),
        };
        let links = Links {
            prev_events: template.prev_events,
            auth_events,
            depth: template.depth,
        };
        let max_event_bytes = max_event_bytes(&create.content);
        let event = self
            .rooms
            .remote_memberships
            .build_event(draft, links, version, max_event_bytes)?;
        Ok(Built {
            version,
            max_event_bytes,
            event: Arc::new(event),
        })
    }
}
