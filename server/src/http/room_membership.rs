//! Coming and going (client-server API, "Room membership").

use std::sync::Arc;

use axum::extract::State;
use maru_protocol::canonical::Content;
use ruma::api::client::membership::join_room_by_id::v3 as join_room_by_id;
use serde_json::json;

use super::call::{Answer, Call, Reply};
use super::router::{Endpoints, Routes};
use crate::refusal::Refusal;
use crate::server::Server;

pub(super) fn routes() -> Routes {
    Routes::new().endpoint::<join_room_by_id::Request, _>(join_by_id)
}

async fn join_by_id(
    State(server): State<Arc<Server>>,
    call: Call<join_room_by_id::Request>,
) -> Reply<join_room_by_id::Response> {
    let room = server.rooms.room(&call.request.room_id).await?;
    let content = Content::of(&json!({ "membership": "join" })).map_err(Refusal::internal)?;
    let user_id = &call.caller.user_id;
    server
        .rooms
        .set_state(&room, user_id, "m.room.member", user_id.as_str(), content)
        .await?;
    Ok(Answer(join_room_by_id::Response::new(room.room_id.clone())))
}
