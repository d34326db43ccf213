//! Who calls by an application service's token: the user and the device that the query names (Application Service API,
//! "Identity assertion").

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::{FromRequestParts, Query};
use http::Uri;
use http::request::Parts;
use ruma::api::auth_scheme::{AccessTokenOptional, AuthScheme};
use serde::Deserialize;

use crate::accounts::Caller;
use crate::appservice_registrations::Registration;
use crate::http::transport::client_address::ClientAddress;
use crate::refusal::Refusal;
use crate::server::Server;

/// Whom the service acts as, and on which device.
#[derive(Debug, Default, Deserialize)]
struct Named {
    user_id: Option<String>,
    device_id: Option<String>,
    /// `device_id` before it was specified.
    #[serde(rename = "org.matrix.msc3202.device_id")]
    unstable_device_id: Option<String>,
}

/// Who presents a token: a user with a session, or an application service that acts as one of its users.
pub(in crate::http) async fn caller(
    server: &Server,
    token: &str,
    uri: &Uri,
    address: ClientAddress,
) -> Result<Caller, Refusal> {
    let Some(service) = server.accounts.service_of(token) else {
        return server.accounts.caller_from(token, address.0).await;
    };
    let named = Query::<Named>::try_from_uri(uri);
    let Query(named) = named.map_err(|_| Refusal::invalid("the query cannot be read"))?;
    let has_nul = |text: &Option<String>| text.as_ref().is_some_and(|text| text.contains('\0'));
    if [&named.user_id, &named.device_id, &named.unstable_device_id]
        .into_iter()
        .any(has_nul)
    {
        return Err(Refusal::invalid("the query contains a NUL character"));
    }
    let device_id = named.device_id.or(named.unstable_device_id);
    let caller = server
        .accounts
        .service_caller(service, named.user_id.as_deref(), device_id);
    caller.await
}

/// The application service that makes a request which others make without a token.
#[derive(Debug)]
pub(in crate::http) struct ByService(pub(in crate::http) Option<Arc<Registration>>);

impl FromRequestParts<Arc<Server>> for ByService {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, server: &Arc<Server>) -> Result<Self, Infallible> {
        let mut head = http::Request::new(());
        *head.headers_mut() = parts.headers.clone();
        *head.uri_mut() = parts.uri.clone();
        Ok(Self(service(server, &head)))
    }
}

/// The application service whose token a request carries, if it does.
pub(in crate::http) fn service<B>(server: &Server, request: &http::Request<B>) -> Option<Arc<Registration>> {
    let presented = AccessTokenOptional::extract_authentication(request);
    server.accounts.service_of(presented.ok().flatten()?.as_str())
}
