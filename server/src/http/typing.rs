//! Typing (client-server API, "Typing notifications").

use std::sync::Arc;

use axum::extract::State;
use ruma::api::client::typing::create_typing_event::v3 as create_typing_event;

use super::account_data::check_own;
use super::call::{Answer, Call, Reply};
use super::router::{Endpoints, Routes};
use crate::server::Server;

pub(super) fn routes() -> Routes {
    Routes::new().endpoint::<create_typing_event::Request, _>(set)
}

async fn set(
    State(server): State<Arc<Server>>,
    call: Call<create_typing_event::Request>,
) -> Reply<create_typing_event::Response> {
    let (request, caller) = (call.request, call.caller);
    check_own(&caller, &request.user_id)?;
    let room = server.rooms.room(&request.room_id).await?;
    let timeout = match request.state {
        create_typing_event::Typing::Yes(info) => Some(info.timeout),
        create_typing_event::Typing::No => None,
    };
    server.typing.set(&room, &caller.user_id, timeout)?;
    Ok(Answer(create_typing_event::Response::new()))
}
