//! What a new room's first events say, in the order that the specification gives (client-server API,
//! `POST /createRoom`). Pure.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use maru_protocol::canonical::Content;
use maru_protocol::limits;
use maru_protocol::visibility::Membership;
use ruma::UserId;
use serde_json::{Map, Value, json};

use super::{NewRoomRequest, Preset, StateDraft};
use crate::refusal::Refusal;
use crate::rooms::membership::member_content;
use crate::store::accounts::member_profiles::People;

/// The content of the create event. The version, the creator and the size of events are not the client's to choose.
pub(in crate::rooms) fn create_content(request: &NewRoomRequest) -> Result<Content, Refusal> {
    let mut content = request.creation_content.clone();
    content.remove("creator");
    if request.version.create_names_creator() {
        content.insert("creator".into(), json!(request.creator));
    }
    if request.version.creators_are_privileged() {
        let creators = additional_creators(request)?;
        if creators.is_empty() {
            content.remove("additional_creators");
        } else {
            content.insert("additional_creators".into(), json!(creators));
        }
    }
    content.insert("room_version".into(), json!(request.version.as_str()));
    if request.version.room_id_is_hash() {
        // Two rooms of one user in one millisecond would otherwise have one create event, and one id.
        let nonce = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 12]>());
        content.insert("maru.nonce".into(), json!(nonce));
    }
    content.insert(
        limits::MAX_EVENT_BYTES_FIELD.into(),
        json!(limits::LARGE_MAX_EVENT_BYTES),
    );
    Content::of(&content).map_err(|error| Refusal::BadJson(error.to_string()))
}

/// Who stands beside the creator: those named, and in a trusted private chat everybody invited.
fn additional_creators(request: &NewRoomRequest) -> Result<Vec<String>, Refusal> {
    let given = request.creation_content.get("additional_creators").cloned();
    let mut creators: Vec<String> = serde_json::from_value(given.unwrap_or_else(|| json!([])))
        .map_err(|_| Refusal::BadJson("additional_creators must be a list of user ids".into()))?;
    if let Some(bad) = creators
        .iter()
        .find(|id| <&UserId>::try_from(id.as_str()).is_err())
    {
        return Err(Refusal::BadJson(format!(
            "additional creator {bad:?} is not a user id"
        )));
    }
    if request.preset == Preset::TrustedPrivateChat {
        creators.extend(request.invite.iter().map(ToString::to_string));
    }
    creators.sort_unstable();
    creators.dedup();
    creators.retain(|id| id != request.creator.as_str());
    Ok(creators)
}

/// The state after the create event. `people` are the creator and those who are invited at once.
pub(in crate::rooms) fn after_create(
    request: &NewRoomRequest,
    people: &People,
) -> Result<Vec<StateDraft>, Refusal> {
    let creator = people.get(&request.creator);
    let mut state = vec![
        StateDraft::new(
            "m.room.member",
            request.creator.as_str(),
            Value::Object(member_content(Membership::Join, creator, None)),
        ),
        power_levels(request),
    ];
    if let Some(alias) = &request.alias {
        state.push(StateDraft::new(
            "m.room.canonical_alias",
            "",
            json!({ "alias": alias }),
        ));
    }
    state.extend(of_preset(request));
    for given in &request.initial_state {
        match given.event_type.as_str() {
            "m.room.create" | "m.room.member" => {
                return Err(Refusal::InvalidRoomState(format!(
                    "{} cannot be part of the initial state",
                    given.event_type
                )));
            }
            // In its own place already.
            "m.room.power_levels" if given.state_key.is_empty() => {}
            _ => state.push(given.clone()),
        }
    }
    if let Some(name) = &request.name {
        state.push(StateDraft::new("m.room.name", "", json!({ "name": name })));
    }
    if let Some(topic) = &request.topic {
        let rich = json!({ "topic": topic, "m.topic": { "m.text": [{ "body": topic }] } });
        state.push(StateDraft::new("m.room.topic", "", rich));
    }
    for user_id in request.invite.iter().filter(|id| people.contains_key(&***id)) {
        let mut content = member_content(Membership::Invite, people.get(user_id), None);
        if request.is_direct {
            content.insert("is_direct".into(), json!(true));
        }
        state.push(StateDraft::new(
            "m.room.member",
            user_id.as_str(),
            Value::Object(content),
        ));
    }
    Ok(state)
}

/// The preset's rules, without those that the initial state sets.
fn of_preset(request: &NewRoomRequest) -> Vec<StateDraft> {
    let (join_rule, guests) = match request.preset {
        Preset::PrivateChat | Preset::TrustedPrivateChat => ("invite", "can_join"),
        Preset::PublicChat => ("public", "forbidden"),
    };
    let mut preset = vec![
        StateDraft::new("m.room.join_rules", "", json!({ "join_rule": join_rule })),
        StateDraft::new(
            "m.room.history_visibility",
            "",
            json!({ "history_visibility": "shared" }),
        ),
        StateDraft::new("m.room.guest_access", "", json!({ "guest_access": guests })),
    ];
    preset.retain(|draft| initial(request, &draft.event_type).is_none());
    preset
}

/// The content that the initial state gives to a type, with the empty state key.
fn initial<'r>(request: &'r NewRoomRequest, event_type: &str) -> Option<&'r Value> {
    let mut given = request.initial_state.iter().rev();
    let draft = given.find(|draft| draft.event_type == event_type && draft.state_key.is_empty());
    draft.map(|draft| &draft.content)
}

/// Power levels of a new room. From version 12 on the creators stand above them and are not listed.
fn power_levels(request: &NewRoomRequest) -> StateDraft {
    if let Some(content) = initial(request, "m.room.power_levels") {
        return StateDraft::new("m.room.power_levels", "", content.clone());
    }
    let privileged = request.version.creators_are_privileged();
    let mut users = Map::new();
    if !privileged {
        users.insert(request.creator.to_string(), json!(100));
        if request.preset == Preset::TrustedPrivateChat {
            users.extend(request.invite.iter().map(|id| (id.to_string(), json!(100))));
        }
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
        "invite": if request.preset == Preset::PublicChat { 50 } else { 0 },
        "historical": 100,
    });
    if let Some(content) = content.as_object_mut() {
        content.extend(request.power_level_content_override.clone());
    }
    StateDraft::new("m.room.power_levels", "", content)
}
