//! Making a room (client-server API, "Creation").

use std::sync::Arc;

use maru_protocol::canonical::Content;
use maru_protocol::cursor::Place;
use maru_protocol::event::Draft;
use maru_protocol::limits;
use maru_protocol::state::State;
use maru_protocol::version::RoomVersion;
use ruma::{OwnedRoomAliasId, OwnedUserId, RoomId};
use serde_json::{Value, json};

use super::{Room, Rooms};
use crate::refusal::Refusal;
use crate::store::rooms::{NewAlias, NewRoom, RoomHead};

/// A ready-made set of rules for a new room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// Members invite members.
    PrivateChat,
    /// The same, and everybody invited has the creator's power.
    TrustedPrivateChat,
    /// Anybody may join.
    PublicChat,
}

/// What somebody asks a new room to be.
#[derive(Clone, Debug)]
pub struct NewRoomRequest {
    /// Who makes it.
    pub creator: OwnedUserId,
    /// Its version.
    pub version: RoomVersion,
    /// Its rules.
    pub preset: Preset,
    /// More keys of the create event.
    pub creation_content: serde_json::Map<String, Value>,
    /// Keys that replace those of the power levels event.
    pub power_level_content_override: serde_json::Map<String, Value>,
    /// State events (type, state key, content), set after the preset's.
    pub initial_state: Vec<(String, String, Value)>,
    /// `m.room.name`.
    pub name: Option<String>,
    /// `m.room.topic`.
    pub topic: Option<String>,
    /// A name in the directory, which becomes the canonical alias.
    pub alias: Option<OwnedRoomAliasId>,
    /// Whether it is listed in the public directory.
    pub published: bool,
    /// Who is invited.
    pub invite: Vec<OwnedUserId>,
    /// Whether the invitations are for a direct conversation.
    pub is_direct: bool,
}

/// The first events of a room, in order: the create event, then the rest.
pub(super) struct FirstEvents {
    pub(super) new_room: NewRoom,
    pub(super) version: RoomVersion,
    pub(super) max_event_bytes: usize,
    pub(super) drafts: Vec<Draft>,
    pub(super) alias: Option<NewAlias>,
}

/// The head of a room without events.
pub(super) fn empty_head(room: i64) -> RoomHead {
    RoomHead {
        room,
        extremities: [].into(),
        state: State::default(),
        first_place: Place(1),
        last_place: Place(0),
        depth: 0,
        joined: 0,
        invited: 0,
    }
}

impl Rooms {
    /// Makes a room, with all its first events or not at all.
    ///
    /// # Errors
    /// When the request contradicts itself or the rules, or the alias is taken.
    pub async fn create(&self, request: NewRoomRequest) -> Result<Arc<Room>, Refusal> {
        if let Some(alias) = &request.alias
            && self.store.room_of_alias(alias).await?.is_some()
        {
            return Err(Refusal::RoomInUse(format!("the alias {alias} is taken")));
        }
        let first = self.first_events(request)?;
        self.append_new_room(first).await
    }

    fn first_events(&self, request: NewRoomRequest) -> Result<FirstEvents, Refusal> {
        let now = self.clock.now_ms();
        let nid = self.store.next_nid();
        let version = request.version;
        let create = create_content(&request)?;
        let room_id = if version.room_id_is_hash() {
            None
        } else {
            Some(RoomId::new_v1(&self.identity.server_name))
        };
        let state = initial_state(&request)?;
        let draft = |event_type: &str, state_key: &str, content: Content| Draft {
            room_id: room_id.clone(),
            sender: request.creator.clone(),
            event_type: event_type.into(),
            state_key: Some(state_key.into()),
            content,
            redacts: None,
            origin_server_ts: now,
        };
        let max_event_bytes = limits::max_event_bytes(&create);
        let mut drafts = vec![draft("m.room.create", "", create)];
        for (event_type, state_key, content) in state {
            let content = Content::of(&content).map_err(|error| Refusal::BadJson(error.to_string()))?;
            drafts.push(draft(&event_type, &state_key, content));
        }
        Ok(FirstEvents {
            new_room: NewRoom {
                nid,
                room_id: room_id.unwrap_or_else(|| RoomId::new_v1(&self.identity.server_name)),
                version: version.as_str().to_owned(),
                published: request.published,
                created_at: i64::try_from(now).unwrap_or(i64::MAX),
            },
            version,
            max_event_bytes,
            drafts,
            alias: request.alias.map(|alias| NewAlias {
                alias,
                room: nid,
                creator: request.creator.clone(),
            }),
        })
    }
}

fn create_content(request: &NewRoomRequest) -> Result<Content, Refusal> {
    let mut content = request.creation_content.clone();
    if request.version.create_names_creator() {
        content.insert("creator".into(), json!(request.creator));
    }
    content.insert("room_version".into(), json!(request.version.as_str()));
    content.insert(
        limits::MAX_EVENT_BYTES_FIELD.into(),
        json!(limits::LARGE_MAX_EVENT_BYTES),
    );
    Content::of(&content).map_err(|error| Refusal::BadJson(error.to_string()))
}

/// The state after the create event, in the order that the specification gives.
fn initial_state(request: &NewRoomRequest) -> Result<Vec<(String, String, Value)>, Refusal> {
    let creator = request.creator.to_string();
    let mut state = vec![(
        "m.room.member".to_owned(),
        creator,
        json!({ "membership": "join" }),
    )];
    state.push(("m.room.power_levels".into(), String::new(), power_levels(request)));
    if let Some(alias) = &request.alias {
        state.push((
            "m.room.canonical_alias".into(),
            String::new(),
            json!({ "alias": alias }),
        ));
    }
    let (join_rule, history, guests) = match request.preset {
        Preset::PrivateChat | Preset::TrustedPrivateChat => ("invite", "shared", "can_join"),
        Preset::PublicChat => ("public", "shared", "forbidden"),
    };
    let preset = [
        ("m.room.join_rules", json!({ "join_rule": join_rule })),
        (
            "m.room.history_visibility",
            json!({ "history_visibility": history }),
        ),
        ("m.room.guest_access", json!({ "guest_access": guests })),
    ];
    let overridden = |event_type: &str| {
        request
            .initial_state
            .iter()
            .any(|(given, key, _)| given == event_type && key.is_empty())
    };
    for (event_type, content) in preset {
        if !overridden(event_type) {
            state.push((event_type.into(), String::new(), content));
        }
    }
    for (event_type, state_key, content) in &request.initial_state {
        if matches!(event_type.as_str(), "m.room.create" | "m.room.member") {
            return Err(Refusal::InvalidRoomState(format!(
                "{event_type} cannot be part of the initial state"
            )));
        }
        state.push((event_type.clone(), state_key.clone(), content.clone()));
    }
    if let Some(name) = &request.name {
        state.push(("m.room.name".into(), String::new(), json!({ "name": name })));
    }
    if let Some(topic) = &request.topic {
        state.push(("m.room.topic".into(), String::new(), json!({ "topic": topic })));
    }
    for user_id in &request.invite {
        let mut content = json!({ "membership": "invite" });
        if request.is_direct {
            content["is_direct"] = json!(true);
        }
        state.push(("m.room.member".into(), user_id.to_string(), content));
    }
    Ok(state)
}

/// Power levels of a new room. From version 12 on the creators stand above them and are not listed.
fn power_levels(request: &NewRoomRequest) -> Value {
    let privileged = request.version.creators_are_privileged();
    let mut users = serde_json::Map::new();
    if !privileged {
        users.insert(request.creator.to_string(), json!(100));
    }
    if request.preset == Preset::TrustedPrivateChat && !privileged {
        users.extend(
            request
                .invite
                .iter()
                .map(|user_id| (user_id.to_string(), json!(100))),
        );
    }
    let mut content = json!({
        "users": users,
        "users_default": 0,
        "events": {
            "m.room.name": 50,
            "m.room.avatar": 50,
            "m.room.canonical_alias": 50,
            "m.room.power_levels": 100,
            "m.room.history_visibility": 100,
            "m.room.encryption": 100,
            "m.room.server_acl": 100,
            "m.room.tombstone": if privileged { 150 } else { 100 },
        },
        "events_default": 0,
        "state_default": 50,
        "ban": 50,
        "kick": 50,
        "redact": 50,
        "invite": 0,
        "historical": 100,
    });
    if let Some(content) = content.as_object_mut() {
        content.extend(request.power_level_content_override.clone());
    }
    content
}
