//! Making rooms (client-server API, "Creation").

use std::sync::Arc;

use axum::extract::State;
use maru_protocol::version::RoomVersion;
use ruma::api::client::room::Visibility;
use ruma::api::client::room::create_room::v3 as create_room;

use super::call::{Answer, Call, Reply};
use super::router::{Endpoints, Routes};
use crate::refusal::Refusal;
use crate::rooms::{NewRoomRequest, Preset};
use crate::server::Server;

pub(super) fn routes() -> Routes {
    Routes::new().endpoint::<create_room::Request, _>(create)
}

async fn create(
    State(server): State<Arc<Server>>,
    call: Call<create_room::Request>,
) -> Reply<create_room::Response> {
    let request = asked_for(call)?;
    let room = server.rooms.create(request).await?;
    Ok(Answer(create_room::Response::new(room.room_id.clone())))
}

/// Turns the wire's request into the domain's.
fn asked_for(call: Call<create_room::Request>) -> Result<NewRoomRequest, Refusal> {
    let request = call.request;
    let published = request.visibility == Visibility::Public;
    let preset = match request.preset {
        Some(create_room::RoomPreset::PublicChat) => Preset::PublicChat,
        Some(create_room::RoomPreset::TrustedPrivateChat) => Preset::TrustedPrivateChat,
        Some(_) => Preset::PrivateChat,
        None if published => Preset::PublicChat,
        None => Preset::PrivateChat,
    };
    let version = match &request.room_version {
        None => RoomVersion::DEFAULT,
        Some(id) => RoomVersion::from_id(id.as_str())
            .ok_or_else(|| Refusal::UnsupportedRoomVersion(id.to_string()))?,
    };
    Ok(NewRoomRequest {
        creator: call.caller.user_id,
        version,
        preset,
        creation_content: serde_json::Map::new(),
        power_level_content_override: serde_json::Map::new(),
        initial_state: Vec::new(),
        name: request.name,
        topic: request.topic,
        alias: None,
        published,
        invite: request.invite,
        is_direct: request.is_direct,
    })
}
