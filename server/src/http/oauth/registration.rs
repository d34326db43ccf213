//! Applications that register by themselves (RFC 7591; client-server API, "Client registration").

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{Method, StatusCode, header};

use super::form::read_small;
use super::turned_on;
use crate::http::codec::spending::{Spender, spend};
use crate::http::router::Routes;
use crate::oauth::{ErrorCode, OAuthError, Registration};
use crate::server::Server;

pub(super) fn routes() -> Routes {
    Routes::new().serve(Method::POST, "/oauth/register", register)
}

async fn register(State(server): State<Arc<Server>>, request: Request) -> Result<Response, Response> {
    let oauth = turned_on(&server).await?;
    let registration = read(&server, request).await?;
    let client = oauth.register(registration).await;
    let client = client.map_err(IntoResponse::into_response)?;
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    let body = serde_json::to_string(&client);
    let body =
        body.map_err(|error| OAuthError::from(crate::refusal::Refusal::internal(error)).into_response())?;
    Ok((StatusCode::CREATED, headers, body).into_response())
}

async fn read(server: &Arc<Server>, request: Request) -> Result<Registration, Response> {
    let unfit = |why: &str| OAuthError::new(ErrorCode::InvalidClientMetadata, why).into_response();
    let spent = spend(server, request.extensions(), Spender::Stranger);
    spent.map_err(|refusal| OAuthError::from(refusal).into_response())?;
    let body = read_small(request, server).await?;
    let checked = maru_protocol::json::check(&body);
    checked.map_err(|_| unfit("this is no JSON that is taken here"))?;
    serde_json::from_slice(&body).map_err(|_| unfit("this is not what an application says of itself"))
}
