//! Moving a room to another version (client-server API, "Room Upgrades").

use std::sync::Arc;

use axum::extract::State;
use ruma::api::client::room::upgrade_room::v3 as upgrade_room;

use super::creation::version;
use crate::http::codec::extractors::{Answer, Call, Reply};
use crate::http::router::{Endpoints, Routes};
use crate::server::Server;

pub(in crate::http) fn routes() -> Routes {
    Routes::new().endpoint::<upgrade_room::Request, _>(upgrade)
}

async fn upgrade(
    State(server): State<Arc<Server>>,
    call: Call<upgrade_room::Request>,
) -> Reply<upgrade_room::Response> {
    let request = call.request;
    let version = version(Some(&request.new_version))?;
    let old = server.rooms.repository.room(&request.room_id).await?;
    let user_id = &call.caller.user_id;
    let new = server
        .rooms
        .upgrade
        .upgrade(&old, user_id, version, request.additional_creators)
        .await?;
    Ok(Answer(upgrade_room::Response::new(new.room_id.clone())))
}
