//! Codes and refresh tokens to tokens, and tokens given back (RFC 6749, section 3.2; RFC 7009).

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{Method, StatusCode};
use serde_json::json;

use super::form::ApplicationForm;
use super::{secret_json, turned_on};
use crate::http::router::Routes;
use crate::http::transport::client_address::ClientAddress;
use crate::oauth::{OAuthError, Tokens};
use crate::server::Server;

pub(super) fn routes() -> Routes {
    Routes::new()
        .serve(Method::POST, "/oauth/token", token)
        .serve(Method::POST, "/oauth/revoke", revoke)
}

async fn token(
    State(server): State<Arc<Server>>,
    address: ClientAddress,
    ApplicationForm(form): ApplicationForm,
) -> Result<Response, Response> {
    let oauth = turned_on(&server).await?;
    Ok(answer(oauth.token(&form, address.0).await))
}

fn answer(tokens: Result<Tokens, OAuthError>) -> Response {
    let tokens = match tokens {
        Ok(tokens) => tokens,
        Err(error) => return error.into_response(),
    };
    let mut body = json!({ "access_token": tokens.access_token, "token_type": "Bearer" });
    if let Some(refresh_token) = tokens.refresh_token {
        body["refresh_token"] = json!(refresh_token);
    }
    if let Some(expires_in) = tokens.expires_in {
        body["expires_in"] = json!(expires_in.as_secs());
    }
    if let Some(scope) = tokens.scope {
        body["scope"] = json!(scope);
    }
    secret_json(StatusCode::OK, &body)
}

async fn revoke(
    State(server): State<Arc<Server>>,
    ApplicationForm(form): ApplicationForm,
) -> Result<Response, Response> {
    let oauth = turned_on(&server).await?;
    oauth.revoke(&form).await.map_err(IntoResponse::into_response)?;
    Ok(secret_json(StatusCode::OK, &json!({})))
}
