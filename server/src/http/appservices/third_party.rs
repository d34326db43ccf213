//! Networks of others, and who and what is there (client-server API, "Third-party networks").

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use ruma::api::client::thirdparty::get_location_for_protocol::v3 as location_for_protocol;
use ruma::api::client::thirdparty::get_location_for_room_alias::v3 as location_for_alias;
use ruma::api::client::thirdparty::get_protocol::v3 as get_protocol;
use ruma::api::client::thirdparty::get_protocols::v3 as get_protocols;
use ruma::api::client::thirdparty::get_user_for_protocol::v3 as user_for_protocol;
use ruma::api::client::thirdparty::get_user_for_user_id::v3 as user_for_user_id;
use serde_json::Value;

use crate::appservices::ThirdParty;
use crate::http::codec::error::ApiError;
use crate::http::codec::extractors::{Call, JsonAnswer};
use crate::http::router::{Endpoints, Routes};
use crate::refusal::Refusal;
use crate::server::Server;

pub(in crate::http) fn routes() -> Routes {
    Routes::new()
        .endpoint::<get_protocols::Request, _>(protocols)
        .endpoint::<get_protocol::Request, _>(protocol)
        .endpoint::<user_for_protocol::Request, _>(users)
        .endpoint::<location_for_protocol::Request, _>(locations)
        .endpoint::<user_for_user_id::Request, _>(users_behind)
        .endpoint::<location_for_alias::Request, _>(locations_behind)
}

async fn protocols(
    State(server): State<Arc<Server>>,
    _: Call<get_protocols::Request>,
) -> JsonAnswer<BTreeMap<String, Value>> {
    JsonAnswer(server.appservices.protocols().await)
}

async fn protocol(
    State(server): State<Arc<Server>>,
    call: Call<get_protocol::Request>,
) -> Result<JsonAnswer<Value>, ApiError> {
    let found = server.appservices.protocol(&call.request.protocol).await;
    let found = found.ok_or_else(|| Refusal::not_found("this server knows no such network"))?;
    Ok(JsonAnswer(found))
}

async fn users(
    State(server): State<Arc<Server>>,
    call: Call<user_for_protocol::Request>,
) -> JsonAnswer<Vec<Value>> {
    let (protocol, fields) = (&call.request.protocol, &call.request.fields);
    let found = server
        .appservices
        .find_in(protocol, ThirdParty::User, fields)
        .await;
    JsonAnswer(found)
}

async fn locations(
    State(server): State<Arc<Server>>,
    call: Call<location_for_protocol::Request>,
) -> JsonAnswer<Vec<Value>> {
    let (protocol, fields) = (&call.request.protocol, &call.request.fields);
    let found = server
        .appservices
        .find_in(protocol, ThirdParty::Location, fields)
        .await;
    JsonAnswer(found)
}

async fn users_behind(
    State(server): State<Arc<Server>>,
    call: Call<user_for_user_id::Request>,
) -> JsonAnswer<Vec<Value>> {
    let name = call.request.userid.as_str();
    JsonAnswer(server.appservices.find_behind(ThirdParty::User, name).await)
}

async fn locations_behind(
    State(server): State<Arc<Server>>,
    call: Call<location_for_alias::Request>,
) -> JsonAnswer<Vec<Value>> {
    let name = call.request.alias.as_str();
    JsonAnswer(server.appservices.find_behind(ThirdParty::Location, name).await)
}
