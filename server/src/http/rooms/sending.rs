//! Sending events (client-server API, "Sending events to a room" and "Redactions").

use std::sync::Arc;

use axum::Extension;
use axum::extract::{FromRequestParts, Query, State};
use http::request::Parts;
use maru_protocol::canonical::{CanonicalError, Content};
use ruma::api::client::message::send_message_event::v3 as send_message_event;
use ruma::api::client::redact::redact_event::v3 as redact_event;
use ruma::api::client::state::send_state_event::v3 as send_state_event;
use serde::Deserialize;
use serde_json::json;

use crate::accounts::Caller;
use crate::http::codec::error::ApiError;
use crate::http::codec::extractors::{Answer, Call, Reply};
use crate::http::codec::spending::spend_by_content;
use crate::http::rooms::state::EMPTY_STATE_KEY;
use crate::http::router::{Endpoints, Routes};
use crate::limits::Budget;
use crate::refusal::Refusal;
use crate::rooms::{Room, Sender, Transaction};
use crate::server::Server;
use crate::sync::Sending;

pub(in crate::http) fn routes() -> Routes {
    let routes = Routes::new()
        .endpoint::<send_message_event::Request, _>(send)
        .endpoint::<redact_event::Request, _>(redact)
        .endpoint::<send_state_event::Request, _>(set_state);
    EMPTY_STATE_KEY.into_iter().fold(routes, |routes, path| {
        routes.serve(http::Method::PUT, path, set_state)
    })
}

/// An answer that the device's own sync waits for.
type Sent<T> = Result<(Extension<Sending>, Answer<T>), ApiError>;

async fn send(
    State(server): State<Arc<Server>>,
    call: Call<send_message_event::Request>,
) -> Sent<send_message_event::Response> {
    let (request, caller) = (call.request, call.caller);
    let unanswered = server.sync.sending(&caller);
    let room = server.rooms.repository.room(&request.room_id).await?;
    let content = content(request.body.json().get())?;
    let event_type = request.event_type.to_string();
    let transaction = sending(&caller, &room, &event_type, request.txn_id.as_str());
    let sender = sender(&caller, request.timestamp.map(|at| at.get().into()));
    let stored = server
        .rooms
        .appender
        .send(&room, sender, &event_type, content, Some(&transaction))
        .await?;
    let answer = Answer(send_message_event::Response::new(stored.event.id.clone()));
    Ok((Extension(unanswered), answer))
}

async fn redact(
    State(server): State<Arc<Server>>,
    Timestamp(timestamp): Timestamp,
    call: Call<redact_event::Request>,
) -> Sent<redact_event::Response> {
    let (request, caller) = (call.request, call.caller);
    let unanswered = server.sync.sending(&caller);
    let room = server.rooms.repository.room(&request.room_id).await?;
    let content = match &request.reason {
        Some(reason) => Content::of(&json!({ "reason": reason })).map_err(Refusal::internal)?,
        None => Content::empty(),
    };
    let scope = format!("redact/{}/{}", room.nid, request.event_id);
    let transaction = transaction(&caller, scope, request.txn_id.as_str());
    let stored = server
        .rooms
        .appender
        .redact(
            &room,
            sender(&caller, timestamp),
            &request.event_id,
            content,
            Some(&transaction),
        )
        .await?;
    let answer = Answer(redact_event::Response::new(stored.event.id.clone()));
    Ok((Extension(unanswered), answer))
}

async fn set_state(
    State(server): State<Arc<Server>>,
    call: Call<send_state_event::Request>,
) -> Reply<send_state_event::Response> {
    let (request, caller) = (call.request, call.caller);
    let room = server.rooms.repository.room(&request.room_id).await?;
    let content = content(request.body.json().get())?;
    let event_type = request.event_type.to_string();
    if let Some(budget) = membership_budget(&event_type, &content) {
        spend_by_content(&server, budget, &caller, 1)?;
    }
    let sender = sender(&caller, request.timestamp.map(|at| at.get().into()));
    let stored = server
        .rooms
        .state_sender
        .set_state(&room, sender, &event_type, &request.state_key, content)
        .await?;
    Ok(Answer(send_state_event::Response::new(stored.event.id.clone())))
}

/// Who sends an event, and when. Application services say when it was said elsewhere; nobody else is believed.
fn sender(caller: &Caller, at: Option<u64>) -> Sender<'_> {
    Sender {
        user_id: &caller.user_id,
        at: at.filter(|_| caller.service.is_some()),
    }
}

/// `ts` in the query of a redaction, which ruma's type leaves out.
struct Timestamp(Option<u64>);

impl FromRequestParts<Arc<Server>> for Timestamp {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Server>) -> Result<Self, ApiError> {
        #[derive(Deserialize)]
        struct Stamped {
            ts: Option<u64>,
        }
        let stamped = Query::<Stamped>::try_from_uri(&parts.uri);
        let Query(stamped) = stamped.map_err(|_| Refusal::invalid("ts is no time in milliseconds"))?;
        Ok(Self(stamped.ts))
    }
}

/// What a membership costs besides being an event, by whatever way it is set.
fn membership_budget(event_type: &str, content: &Content) -> Option<Budget> {
    #[derive(Deserialize)]
    struct Member {
        membership: String,
    }
    if event_type != "m.room.member" {
        return None;
    }
    let member = content.get::<Member>().ok();
    match member.as_ref().map(|member| &*member.membership) {
        Some("invite") => Some(Budget::Invites),
        Some("join" | "knock") => Some(Budget::Joins),
        _ => None,
    }
}

/// Event content as a client sent it.
pub(in crate::http) fn content(json: &str) -> Result<Content, Refusal> {
    Content::parse(json).map_err(|error: CanonicalError| Refusal::BadJson(error.to_string()))
}

/// The transaction id of a message, by whichever way it was sent.
pub(in crate::http) fn sending(
    caller: &Caller,
    room: &Room,
    event_type: &str,
    transaction_id: &str,
) -> Transaction {
    transaction(caller, format!("send/{}/{event_type}", room.nid), transaction_id)
}

/// A client's transaction id, which belongs to its device and to the path of the request.
fn transaction(caller: &Caller, scope: String, transaction_id: &str) -> Transaction {
    Transaction {
        user_id: caller.user_id.clone(),
        device_id: caller.device_id.clone(),
        scope,
        transaction_id: transaction_id.to_owned(),
    }
}
