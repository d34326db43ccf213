//! Who somebody is, for services beside this server (client-server API, "OpenID").

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use http::Method;
use ruma::api::client::account::request_openid_token::v3 as request_openid_token;
use ruma::authentication::TokenType;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::accounts::OPENID_LIFETIME;
use crate::http::codec::error::ApiError;
use crate::http::codec::extractors::{Answer, Call, Reply};
use crate::http::router::{Endpoints, Routes};
use crate::refusal::Refusal;
use crate::server::Server;

/// Where services ask, as if they were another homeserver (server-server API, "OpenID").
const USERINFO: &str = "/_matrix/federation/v1/openid/userinfo";

pub(in crate::http) fn routes() -> Routes {
    Routes::new()
        .endpoint::<request_openid_token::Request, _>(token)
        .serve(Method::GET, USERINFO, userinfo)
}

async fn token(
    State(server): State<Arc<Server>>,
    call: Call<request_openid_token::Request>,
) -> Reply<request_openid_token::Response> {
    let user_id = &call.caller.user_id;
    if call.request.user_id != *user_id {
        return Err(Refusal::forbidden("you can ask for a token of yours only").into());
    }
    Ok(Answer(request_openid_token::Response::new(
        server.accounts.openid_token(user_id),
        TokenType::Bearer,
        server.identity.server_name.clone(),
        OPENID_LIFETIME,
    )))
}

#[derive(Deserialize)]
struct Asked {
    access_token: Option<String>,
}

async fn userinfo(
    State(server): State<Arc<Server>>,
    Query(asked): Query<Asked>,
) -> Result<Json<Value>, ApiError> {
    let token = asked.access_token.ok_or(Refusal::MissingToken)?;
    let user_id = server.accounts.openid_user(&token).await?;
    Ok(Json(json!({ "sub": user_id })))
}
