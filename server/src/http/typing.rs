//! Typing (client-server API, "Typing notifications").

use std::borrow::Cow;
use std::sync::Arc;

use axum::extract::State;
use ruma::api::client::typing::create_typing_event::v3 as create_typing_event;
use ruma::api::error::DeserializationError;
use ruma::api::{IncomingRequest, Metadata};
use serde_json::Value;

use super::account_data::check_own;
use super::call::{Answer, Call, Reply};
use super::router::{Endpoints, Routes};
use crate::server::Server;

/// How long somebody counts as typing who does not say, in milliseconds.
const DEFAULT_MS: u64 = 30_000;

pub(super) fn routes() -> Routes {
    Routes::new().endpoint::<create_typing_event::Request, _>(set)
}

/// A request in which the time may be missing, as the specification has it; ruma's type wants it from those who type.
#[derive(Debug)]
struct Timed<R>(R);

impl<R: Metadata> Metadata for Timed<R> {
    const METHOD: http::Method = R::METHOD;
    const RATE_LIMITED: bool = R::RATE_LIMITED;
    type Authentication = R::Authentication;
    type PathBuilder = R::PathBuilder;
    const PATH_BUILDER: R::PathBuilder = R::PATH_BUILDER;
}

impl<R: IncomingRequest> IncomingRequest for Timed<R> {
    type EndpointError = R::EndpointError;
    type OutgoingResponse = R::OutgoingResponse;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        path_args: &[&str],
    ) -> Result<Self, DeserializationError> {
        let body = with_timeout(request.body());
        R::try_from_http_request_inner(request.map(|_| &*body), path_args).map(Self)
    }
}

/// The body with a time in it.
fn with_timeout(body: &[u8]) -> Cow<'_, [u8]> {
    let Ok(Value::Object(mut fields)) = serde_json::from_slice(body) else {
        return body.into();
    };
    if fields.get("timeout").is_some_and(|timeout| !timeout.is_null()) {
        return body.into();
    }
    fields.insert("timeout".into(), DEFAULT_MS.into());
    Value::Object(fields).to_string().into_bytes().into()
}

async fn set(
    State(server): State<Arc<Server>>,
    call: Call<Timed<create_typing_event::Request>>,
) -> Reply<create_typing_event::Response> {
    let (Timed(request), caller) = (call.request, call.caller);
    check_own(&caller, &request.user_id)?;
    let room = server.rooms.room(&request.room_id).await?;
    let timeout = match request.state {
        create_typing_event::Typing::Yes(info) => Some(info.timeout),
        create_typing_event::Typing::No => None,
    };
    server.typing.set(&room, &caller.user_id, timeout)?;
    Ok(Answer(create_typing_event::Response::new()))
}
