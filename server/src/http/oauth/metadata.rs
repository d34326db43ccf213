//! What this authorization server can do (client-server API, "Server metadata discovery"; RFC 8414).

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header;
use ruma::api::client::discovery::get_authorization_server_metadata::v1 as server_metadata;
use serde_json::json;

use super::account::ACTIONS;
use super::turned_on;
use crate::config::Registration;
use crate::http::codec::extractors::Call;
use crate::http::router::{Endpoints, Routes};
use crate::server::Server;

pub(super) fn routes() -> Routes {
    Routes::new().endpoint::<server_metadata::Request, _>(metadata)
}

/// Answers as JSON rather than as ruma's type, which has no constructor.
async fn metadata(
    State(server): State<Arc<Server>>,
    _: Call<server_metadata::Request>,
) -> Result<Response, Response> {
    let oauth = turned_on(&server).await?;
    let issuer = oauth.issuer();
    let mut metadata = json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{issuer}/oauth/authorize"),
        "token_endpoint": format!("{issuer}/oauth/token"),
        "registration_endpoint": format!("{issuer}/oauth/register"),
        "revocation_endpoint": format!("{issuer}/oauth/revoke"),
        "device_authorization_endpoint": format!("{issuer}/oauth/device_authorization"),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query", "fragment"],
        "grant_types_supported": [
            "authorization_code",
            "refresh_token",
            "urn:ietf:params:oauth:grant-type:device_code",
        ],
        "token_endpoint_auth_methods_supported": ["none"],
        "revocation_endpoint_auth_methods_supported": ["none"],
        "code_challenge_methods_supported": ["S256"],
        "scopes_supported": ["urn:matrix:client:api:*"],
        "authorization_response_iss_parameter_supported": true,
        "ui_locales_supported": ["en", "ko"],
        "account_management_uri": format!("{issuer}/account"),
        "account_management_actions_supported": ACTIONS,
    });
    if server.config.registration != Registration::Closed {
        metadata["prompt_values_supported"] = json!(["create"]);
    }
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "public, max-age=300"),
    ];
    Ok((headers, metadata.to_string()).into_response())
}
