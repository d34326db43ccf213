//! Coming and going (client-server API, "Room membership").

use std::sync::Arc;

use axum::extract::State;
use ruma::api::client::knock::knock_room::v3 as knock_room;
use ruma::api::client::membership::ban_user::v3 as ban_user;
use ruma::api::client::membership::forget_room::v3 as forget_room;
use ruma::api::client::membership::invite_user::v3 as invite_user;
use ruma::api::client::membership::join_room_by_id::v3 as join_room_by_id;
use ruma::api::client::membership::join_room_by_id_or_alias::v3 as join_room_by_id_or_alias;
use ruma::api::client::membership::joined_rooms::v3 as joined_rooms;
use ruma::api::client::membership::kick_user::v3 as kick_user;
use ruma::api::client::membership::leave_room::v3 as leave_room;
use ruma::api::client::membership::unban_user::v3 as unban_user;

use crate::http::codec::extractors::{Answer, Call, Reply};
use crate::http::router::{Endpoints, Routes};
use crate::refusal::Refusal;
use crate::server::Server;

pub(in crate::http) fn routes() -> Routes {
    Routes::new()
        .endpoint::<joined_rooms::Request, _>(joined)
        .endpoint::<join_room_by_id::Request, _>(join_by_id)
        .endpoint::<join_room_by_id_or_alias::Request, _>(join_by_id_or_alias)
        .endpoint::<knock_room::Request, _>(knock)
        .endpoint::<invite_user::Request, _>(invite)
        .endpoint::<leave_room::Request, _>(leave)
        .endpoint::<forget_room::Request, _>(forget)
        .endpoint::<kick_user::Request, _>(kick)
        .endpoint::<ban_user::Request, _>(ban)
        .endpoint::<unban_user::Request, _>(unban)
}

async fn joined(
    State(server): State<Arc<Server>>,
    call: Call<joined_rooms::Request>,
) -> Reply<joined_rooms::Response> {
    let rooms = server
        .rooms
        .memberships
        .joined_rooms(&call.caller.user_id)
        .await?;
    Ok(Answer(joined_rooms::Response::new(rooms)))
}

async fn join_by_id(
    State(server): State<Arc<Server>>,
    call: Call<join_room_by_id::Request>,
) -> Reply<join_room_by_id::Response> {
    let joined = server
        .peers
        .membership
        .join(
            (&*call.request.room_id).into(),
            &call.caller.user_id,
            Vec::new(),
            call.request.reason,
        )
        .await?;
    Ok(Answer(join_room_by_id::Response::new(joined)))
}

async fn join_by_id_or_alias(
    State(server): State<Arc<Server>>,
    call: Call<join_room_by_id_or_alias::Request>,
) -> Reply<join_room_by_id_or_alias::Response> {
    let joined = server
        .peers
        .membership
        .join(
            &call.request.room_id_or_alias,
            &call.caller.user_id,
            call.request.via,
            call.request.reason,
        )
        .await?;
    Ok(Answer(join_room_by_id_or_alias::Response::new(joined)))
}

async fn knock(
    State(server): State<Arc<Server>>,
    call: Call<knock_room::Request>,
) -> Reply<knock_room::Response> {
    let (request, user_id) = (call.request, &call.caller.user_id);
    let name = &request.room_id_or_alias;
    let knocked = server
        .peers
        .membership
        .knock(name, user_id, request.via, request.reason)
        .await?;
    Ok(Answer(knock_room::Response::new(knocked)))
}

async fn invite(
    State(server): State<Arc<Server>>,
    call: Call<invite_user::Request>,
) -> Reply<invite_user::Response> {
    let invite_user::InvitationRecipient::UserId(invited) = call.request.recipient else {
        return Err(Refusal::invalid("this server invites by user id only").into());
    };
    let room = server.rooms.repository.room(&call.request.room_id).await?;
    let sender = &call.caller.user_id;
    server
        .peers
        .invites
        .invite(&room, sender, &invited.user_id, invited.reason)
        .await?;
    Ok(Answer(invite_user::Response::new()))
}

async fn leave(
    State(server): State<Arc<Server>>,
    call: Call<leave_room::Request>,
) -> Reply<leave_room::Response> {
    server
        .peers
        .membership
        .leave(&call.request.room_id, &call.caller.user_id, call.request.reason)
        .await?;
    Ok(Answer(leave_room::Response::new()))
}

async fn forget(
    State(server): State<Arc<Server>>,
    call: Call<forget_room::Request>,
) -> Reply<forget_room::Response> {
    let user_id = &call.caller.user_id;
    server
        .rooms
        .memberships
        .forget(&call.request.room_id, user_id)
        .await?;
    Ok(Answer(forget_room::Response::new()))
}

async fn kick(
    State(server): State<Arc<Server>>,
    call: Call<kick_user::Request>,
) -> Reply<kick_user::Response> {
    let request = call.request;
    let room = server.rooms.repository.room(&request.room_id).await?;
    let sender = &call.caller.user_id;
    server
        .rooms
        .memberships
        .kick(&room, sender, &request.user_id, request.reason)
        .await?;
    Ok(Answer(kick_user::Response::new()))
}

async fn ban(State(server): State<Arc<Server>>, call: Call<ban_user::Request>) -> Reply<ban_user::Response> {
    let request = call.request;
    let room = server.rooms.repository.room(&request.room_id).await?;
    let sender = &call.caller.user_id;
    server
        .rooms
        .memberships
        .ban(&room, sender, &request.user_id, request.reason)
        .await?;
    Ok(Answer(ban_user::Response::new()))
}

async fn unban(
    State(server): State<Arc<Server>>,
    call: Call<unban_user::Request>,
) -> Reply<unban_user::Response> {
    let request = call.request;
    let room = server.rooms.repository.room(&request.room_id).await?;
    let sender = &call.caller.user_id;
    server
        .rooms
        .memberships
        .unban(&room, sender, &request.user_id, request.reason)
        .await?;
    Ok(Answer(unban_user::Response::new()))
}
