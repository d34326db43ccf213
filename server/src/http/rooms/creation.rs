//! Making rooms (client-server API, "Creation").

use std::sync::Arc;

use axum::extract::State;
use maru_protocol::version::RoomVersion;
use ruma::api::client::room::Visibility;
use ruma::api::client::room::create_room::v3 as create_room;
use ruma::serde::Raw;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::http::codec::extractors::{Answer, Call, Reply};
use crate::http::codec::spending::spend_by_content;
use crate::http::router::{Endpoints, Routes};
use crate::limits::Budget;
use crate::refusal::Refusal;
use crate::rooms::{NewRoomRequest, Preset, StateDraft};
use crate::server::Server;

pub(in crate::http) fn routes() -> Routes {
    Routes::new().endpoint::<create_room::Request, _>(create)
}

async fn create(
    State(server): State<Arc<Server>>,
    call: Call<create_room::Request>,
) -> Reply<create_room::Response> {
    let invites = u32::try_from(call.request.invite.len()).unwrap_or(u32::MAX);
    let events = u32::try_from(call.request.initial_state.len()).unwrap_or(u32::MAX);
    for (budget, count) in [(Budget::Invites, invites), (Budget::Events, events)] {
        spend_by_content(&server, budget, &call.caller, count)?;
    }
    let request = asked_for(&server, call)?;
    let room = server.peers.invites.create_room(request).await?;
    Ok(Answer(create_room::Response::new(room.room_id.clone())))
}

/// Turns the wire's request into the domain's.
fn asked_for(server: &Server, call: Call<create_room::Request>) -> Result<NewRoomRequest, Refusal> {
    let request = call.request;
    if !request.invite_3pid.is_empty() {
        return Err(Refusal::invalid("this server invites by user id only"));
    }
    let published = request.visibility == Visibility::Public;
    let alias = request.room_alias_name.as_deref();
    Ok(NewRoomRequest {
        creator: call.caller.user_id,
        version: version(request.room_version.as_ref())?,
        preset: preset(request.preset.as_ref(), published)?,
        creation_content: object("creation_content", request.creation_content.as_ref())?,
        power_level_content_override: object(
            "power_level_content_override",
            request.power_level_content_override.as_ref(),
        )?,
        initial_state: request
            .initial_state
            .iter()
            .map(state_draft)
            .collect::<Result<_, _>>()?,
        name: request.name,
        topic: request.topic,
        alias: alias
            .map(|localpart| server.rooms.aliases.local_alias(localpart))
            .transpose()?,
        published,
        invite: request.invite,
        is_direct: request.is_direct,
    })
}

/// The version asked for, or the default.
pub(in crate::http) fn version(id: Option<&ruma::RoomVersionId>) -> Result<RoomVersion, Refusal> {
    let Some(id) = id else {
        return Ok(RoomVersion::DEFAULT);
    };
    RoomVersion::from_id(id.as_str()).ok_or_else(|| Refusal::UnsupportedRoomVersion(id.to_string()))
}

fn preset(preset: Option<&create_room::RoomPreset>, published: bool) -> Result<Preset, Refusal> {
    match preset {
        None if published => Ok(Preset::PublicChat),
        None | Some(create_room::RoomPreset::PrivateChat) => Ok(Preset::PrivateChat),
        Some(create_room::RoomPreset::PublicChat) => Ok(Preset::PublicChat),
        Some(create_room::RoomPreset::TrustedPrivateChat) => Ok(Preset::TrustedPrivateChat),
        Some(other) => Err(Refusal::BadJson(format!(
            "there is no preset {:?}",
            other.as_str()
        ))),
    }
}

/// A part of the request that is kept as the client wrote it.
fn object<T>(name: &str, raw: Option<&Raw<T>>) -> Result<Map<String, Value>, Refusal> {
    let Some(raw) = raw else { return Ok(Map::new()) };
    serde_json::from_str(raw.json().get()).map_err(|_| Refusal::BadJson(format!("{name} must be an object")))
}

fn state_draft<T>(raw: &Raw<T>) -> Result<StateDraft, Refusal> {
    #[derive(Deserialize)]
    struct Given {
        #[serde(rename = "type")]
        event_type: String,
        #[serde(default)]
        state_key: String,
        content: Map<String, Value>,
    }
    let given: Given = serde_json::from_str(raw.json().get())
        .map_err(|error| Refusal::BadJson(format!("initial_state holds something else: {error}")))?;
    Ok(StateDraft::new(
        given.event_type,
        given.state_key,
        Value::Object(given.content),
    ))
}
