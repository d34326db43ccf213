//! What this server can do (client-server API, "Capabilities negotiation", "Server Discovery" and "Voice over IP").

use std::sync::Arc;

use axum::extract::State;
use maru_protocol::version::RoomVersion;
use ruma::api::client::discovery::discover_homeserver;
use ruma::api::client::discovery::get_capabilities::v3 as get_capabilities;
use ruma::api::client::voip::get_turn_server_info::v3 as get_turn_server_info;

use crate::http::codec::extractors::{Answer, Call, Reply};
use crate::http::router::{Endpoints, Routes};
use crate::refusal::Refusal;
use crate::server::Server;

pub(in crate::http) fn routes() -> Routes {
    Routes::new()
        .endpoint::<get_capabilities::Request, _>(capabilities)
        .endpoint::<discover_homeserver::Request, _>(homeserver)
        .endpoint::<get_turn_server_info::Request, _>(turn_server)
}

async fn capabilities(_: Call<get_capabilities::Request>) -> Reply<get_capabilities::Response> {
    let versions =
        RoomVersion::ALL.map(|version| (version.id(), get_capabilities::RoomVersionStability::Stable));
    let mut capabilities = get_capabilities::Capabilities::default();
    capabilities.room_versions =
        get_capabilities::RoomVersionsCapability::new(RoomVersion::DEFAULT.id(), versions.into());
    capabilities.thirdparty_id_changes = get_capabilities::ThirdPartyIdChangesCapability::new(false);
    Ok(Answer(get_capabilities::Response::new(capabilities)))
}

/// Where clients reach this server, as configured. Never what a request claims: a cache would tell it to others.
async fn homeserver(
    State(server): State<Arc<Server>>,
    _: Call<discover_homeserver::Request>,
) -> Reply<discover_homeserver::Response> {
    let base_url = server.config.public_base_url.as_ref();
    let base_url = base_url.ok_or_else(|| Refusal::not_found("this server has no public address"))?;
    let info = discover_homeserver::HomeserverInfo::new(base_url.as_str().to_owned());
    Ok(Answer(discover_homeserver::Response::new(info)))
}

/// There is no TURN server: clients take an empty object for that and call without one.
async fn turn_server(_: Call<get_turn_server_info::Request>) -> axum::Json<serde_json::Value> {
    axum::Json(serde_json::json!({}))
}
