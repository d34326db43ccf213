//! Who asks what anybody may ask.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::request::Parts;
use ruma::OwnedUserId;
use ruma::api::auth_scheme::{AccessTokenOptional, AuthScheme};

use super::extractors::Authenticate;
use crate::http::transport::client_address::ClientAddress;
use crate::server::Server;

/// The user who asks, where a request carries a valid token though the endpoint needs none: for strangers this server does
/// not ask others.
#[derive(Debug)]
pub(in crate::http) struct Asker(pub(in crate::http) Option<OwnedUserId>);

impl FromRequestParts<Arc<Server>> for Asker {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, server: &Arc<Server>) -> Result<Self, Infallible> {
        let mut head = http::Request::new(());
        *head.headers_mut() = parts.headers.clone();
        *head.uri_mut() = parts.uri.clone();
        let presented = AccessTokenOptional::extract_authentication(&head).unwrap_or_default();
        let address = parts
            .extensions
            .get::<ClientAddress>()
            .copied()
            .unwrap_or_default();
        let caller = AccessTokenOptional::who(server, presented, &parts.uri, address).await;
        Ok(Self(caller.ok().flatten().map(|caller| caller.user_id)))
    }
}
