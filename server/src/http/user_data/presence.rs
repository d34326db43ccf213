//! Presence (client-server API, "Presence").

use std::sync::Arc;

use axum::extract::State;
use ruma::api::client::presence::{get_presence::v3 as get_presence, set_presence::v3 as set_presence};
use serde_json::Value;

use super::account_data::check_own;
use crate::http::codec::error::ApiError;
use crate::http::codec::extractors::{Answer, Call, Reply};
use crate::http::router::{Endpoints, Routes};
use crate::server::Server;

pub(in crate::http) fn routes() -> Routes {
    Routes::new()
        .endpoint::<get_presence::Request, _>(get)
        .endpoint::<set_presence::Request, _>(set)
}

/// The answer is the content of an `m.presence` event.
async fn get(
    State(server): State<Arc<Server>>,
    call: Call<get_presence::Request>,
) -> Result<axum::Json<Value>, ApiError> {
    let content = server
        .presence
        .ask(&call.caller.user_id, &call.request.user_id)
        .await?;
    Ok(axum::Json(content))
}

async fn set(
    State(server): State<Arc<Server>>,
    call: Call<set_presence::Request>,
) -> Reply<set_presence::Response> {
    let (request, caller) = (call.request, call.caller);
    check_own(&caller, &request.user_id)?;
    server
        .presence
        .set(&caller.user_id, &request.presence, request.status_msg)?;
    Ok(Answer(set_presence::Response::new()))
}
