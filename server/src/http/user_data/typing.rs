//! Typing (client-server API, "Typing notifications").

use std::sync::Arc;

use axum::extract::State;
use ruma::api::client::typing::create_typing_event::v3 as create_typing_event;
use serde_json::{Map, Value};

use super::account_data::check_own;
use crate::http::codec::completed_body::{Completed, Completion};
use crate::http::codec::extractors::{Answer, Call, Reply};
use crate::http::router::{Endpoints, Routes};
use crate::server::Server;

/// How long somebody counts as typing who does not say, in milliseconds.
const DEFAULT_MS: u64 = 30_000;

pub(in crate::http) fn routes() -> Routes {
    Routes::new().endpoint::<create_typing_event::Request, _>(set)
}

/// The time may be missing, as the specification has it; ruma's type wants it from those who type.
#[derive(Debug)]
struct Timeout;

impl Completion for Timeout {
    fn complete(fields: &mut Map<String, Value>) -> bool {
        let is_missing = fields.get("timeout").is_none_or(Value::is_null);
        if is_missing {
            fields.insert("timeout".into(), DEFAULT_MS.into());
        }
        is_missing
    }
}

async fn set(
    State(server): State<Arc<Server>>,
    call: Call<Completed<create_typing_event::Request, Timeout>>,
) -> Reply<create_typing_event::Response> {
    let (Completed { request, .. }, caller) = (call.request, call.caller);
    check_own(&caller, &request.user_id)?;
    let room = server.rooms.repository.room(&request.room_id).await?;
    let timeout = match request.state {
        create_typing_event::Typing::Yes(info) => Some(info.timeout),
        create_typing_event::Typing::No => None,
    };
    server.typing.set(&room, &caller.user_id, timeout)?;
    Ok(Answer(create_typing_event::Response::new()))
}
