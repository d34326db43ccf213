//! Forms: what applications and browsers send, as bytes.

use std::sync::Arc;

use axum::extract::{FromRequest, Request};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header;

use super::pages::{Language, turned_away};
use super::turned_on;
use crate::config::Limits;
use crate::http::codec::extractors::read_body;
use crate::http::codec::spending::{Spender, spend};
use crate::oauth::{OAuthError, Parameters};
use crate::refusal::Refusal;
use crate::server::Server;

/// Most bytes of a form, or of what an application says of itself.
const BYTES: usize = 32 * 1024;

/// Reads a body that a stranger sends, and that is small.
pub(super) async fn read_small(request: Request, server: &Server) -> Result<Bytes, Response> {
    let small = Limits {
        request_body_bytes: BYTES.min(server.limits.request_body_bytes),
        ..server.limits.clone()
    };
    read_body(request.into_body(), &small, false).await
}

/// The form of an application. What is wrong with it is said as JSON.
#[derive(Debug)]
pub(super) struct ApplicationForm(pub(super) Parameters);

impl FromRequest<Arc<Server>> for ApplicationForm {
    type Rejection = Response;

    async fn from_request(request: Request, server: &Arc<Server>) -> Result<Self, Response> {
        turned_on(server).await?;
        let spent = spend(server, request.extensions(), Spender::Stranger);
        spent.map_err(|refusal| OAuthError::from(refusal).into_response())?;
        match read(request, server).await {
            Ok(parameters) => Ok(Self(parameters)),
            Err(Unread::Answered(response)) => Err(response),
            Err(Unread::Wrong(error)) => Err(error.into_response()),
        }
    }
}

/// The form of a page. What is wrong with it is said on a page.
#[derive(Debug)]
pub(super) struct PageForm(pub(super) Parameters);

impl FromRequest<Arc<Server>> for PageForm {
    type Rejection = Response;

    async fn from_request(request: Request, server: &Arc<Server>) -> Result<Self, Response> {
        turned_on(server).await?;
        let language = Language::of(request.headers());
        let path = request.uri().path().to_owned();
        let spent = spend(server, request.extensions(), Spender::Stranger);
        spent.map_err(|refusal| turned_away(server, language, &path, &refusal))?;
        match read(request, server).await {
            Ok(parameters) => Ok(Self(parameters)),
            Err(Unread::Answered(response)) => Err(response),
            Err(Unread::Wrong(error)) => {
                let refusal = Refusal::invalid(error.description);
                Err(turned_away(server, language, &path, &refusal))
            }
        }
    }
}

enum Unread {
    Answered(Response),
    Wrong(OAuthError),
}

async fn read(request: Request, server: &Arc<Server>) -> Result<Parameters, Unread> {
    let kind = request.headers().get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    let is_form = kind.eq_ignore_ascii_case("application/x-www-form-urlencoded");
    let body = read_small(request, server).await.map_err(Unread::Answered)?;
    if !is_form {
        let why = "this is no form (application/x-www-form-urlencoded)";
        return Err(Unread::Wrong(OAuthError::invalid_request(why)));
    }
    Parameters::read(&body).map_err(Unread::Wrong)
}
