//! Sending events (client-server API, "Sending events to a room" and "Redactions").

use std::sync::Arc;

use axum::extract::State;
use maru_protocol::canonical::{CanonicalError, Content};
use ruma::api::client::message::send_message_event::v3 as send_message_event;

use super::call::{Answer, Call, Reply};
use super::router::{Endpoints, Routes};
use crate::accounts::Caller;
use crate::refusal::Refusal;
use crate::rooms::Transaction;
use crate::server::Server;

pub(super) fn routes() -> Routes {
    Routes::new().endpoint::<send_message_event::Request, _>(send)
}

async fn send(
    State(server): State<Arc<Server>>,
    call: Call<send_message_event::Request>,
) -> Reply<send_message_event::Response> {
    let (request, caller) = (call.request, call.caller);
    let room = server.rooms.room(&request.room_id).await?;
    let content = content(request.body.json().get())?;
    let transaction = transaction(&caller, "send", request.txn_id.as_str());
    let event_type = request.event_type.to_string();
    let stored = server
        .rooms
        .send(&room, &caller.user_id, &event_type, content, Some(&transaction))
        .await?;
    Ok(Answer(send_message_event::Response::new(stored.event.id.clone())))
}

/// Event content as a client sent it.
pub(super) fn content(json: &str) -> Result<Content, Refusal> {
    Content::parse(json).map_err(|error: CanonicalError| Refusal::BadJson(error.to_string()))
}

/// A client's transaction id, which belongs to its device.
pub(super) fn transaction(caller: &Caller, scope: &'static str, transaction_id: &str) -> Transaction {
    Transaction {
        user_id: caller.user_id.clone(),
        device_id: caller.device_id.clone(),
        scope,
        transaction_id: transaction_id.to_owned(),
    }
}
