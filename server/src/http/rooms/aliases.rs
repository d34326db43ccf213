//! Names of rooms (client-server API, "Room aliases").

use std::sync::Arc;

use axum::extract::State;
use ruma::api::client::alias::create_alias::v3 as create_alias;
use ruma::api::client::alias::delete_alias::v3 as delete_alias;
use ruma::api::client::alias::get_alias::v3 as get_alias;
use ruma::api::client::room::aliases::v3 as room_aliases;

use crate::http::codec::extractors::{Answer, Call, Reply};
use crate::http::codec::optional_auth::Asker;
use crate::http::router::{Endpoints, Routes};
use crate::server::Server;

pub(in crate::http) fn routes() -> Routes {
    Routes::new()
        .endpoint::<create_alias::Request, _>(create)
        .endpoint::<get_alias::Request, _>(get)
        .endpoint::<delete_alias::Request, _>(delete)
        .endpoint::<room_aliases::Request, _>(of_room)
}

async fn create(
    State(server): State<Arc<Server>>,
    call: Call<create_alias::Request>,
) -> Reply<create_alias::Response> {
    let room = server.rooms.repository.room(&call.request.room_id).await?;
    let creator = &call.caller.user_id;
    server
        .rooms
        .aliases
        .add(&call.request.room_alias, &room, creator)
        .await?;
    Ok(Answer(create_alias::Response::new()))
}

async fn get(
    State(server): State<Arc<Server>>,
    Asker(asker): Asker,
    call: Call<get_alias::Request>,
) -> Reply<get_alias::Response> {
    let owner = call.request.room_alias.server_name();
    server.peers.servers.check_asked_for(asker.as_deref(), owner)?;
    let (room_id, servers) = server
        .peers
        .resolver
        .resolve_alias(&call.request.room_alias)
        .await?;
    Ok(Answer(get_alias::Response::new(room_id, servers)))
}

async fn delete(
    State(server): State<Arc<Server>>,
    call: Call<delete_alias::Request>,
) -> Reply<delete_alias::Response> {
    let user_id = &call.caller.user_id;
    server
        .rooms
        .aliases
        .remove(&call.request.room_alias, user_id)
        .await?;
    Ok(Answer(delete_alias::Response::new()))
}

async fn of_room(
    State(server): State<Arc<Server>>,
    call: Call<room_aliases::Request>,
) -> Reply<room_aliases::Response> {
    let room = server.rooms.repository.room(&call.request.room_id).await?;
    let aliases = server.rooms.aliases.of_room(&room, &call.caller.user_id).await?;
    Ok(Answer(room_aliases::Response::new(aliases)))
}
