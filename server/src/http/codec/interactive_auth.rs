//! Proofs in requests (client-server API, "User-interactive authentication"). The challenge itself is written by
//! `error.rs`.

use ruma::api::auth_scheme::AccessToken;
use ruma::api::client::uiaa::{AuthData, UserIdentifier};
use ruma::api::error::DeserializationError;
use ruma::api::{IncomingRequest, Metadata};
use serde_json::{Map, Value, json};

use super::completed_body::{Completed, Completion};
use crate::accounts::{Attempt, Caller, OnPage, Proof};
use crate::limits::Budget;
use crate::refusal::Refusal;
use crate::server::Server;
use crate::store::accounts::credentials::Credentials;

/// What a request's `auth` presents.
pub(in crate::http) fn attempt(auth: AuthData) -> Attempt {
    let session = auth.session().map(str::to_owned);
    let proof = match auth {
        AuthData::Dummy(_) => Proof::Dummy,
        AuthData::RegistrationToken(proof) => Proof::RegistrationToken(proof.token),
        AuthData::Password(proof) => match proof.identifier {
            UserIdentifier::Matrix(id) => Proof::Password {
                user: Some(id.user),
                password: proof.password,
            },
            _ => Proof::Other,
        },
        AuthData::OAuth(_) => Proof::Page,
        _ => Proof::Other,
    };
    Attempt { session, proof }
}

/// A request that may carry a proof.
pub(in crate::http) type Provable<R> = Completed<R, NamedUser>;

/// Clients that name the user of a password by `user` alone, as they did before there were identifiers, are understood
/// too.
#[derive(Debug)]
pub(in crate::http) struct NamedUser;

impl Completion for NamedUser {
    fn complete(fields: &mut Map<String, Value>) -> bool {
        let auth = fields.get_mut("auth").and_then(Value::as_object_mut);
        let old = auth.filter(|auth| !auth.contains_key("identifier"));
        let Some((auth, user)) = old.and_then(|auth| auth.get("user").cloned().map(|user| (auth, user)))
        else {
            return false;
        };
        auth.insert("identifier".into(), json!({ "type": "m.id.user", "user": user }));
        true
    }
}

/// A request that needs an access token although its type calls that optional: elsewhere strangers may make it with a
/// proof that this server does not know.
#[derive(Debug)]
pub(in crate::http) struct WithToken<R>(pub(in crate::http) R);

impl<R: Metadata> Metadata for WithToken<R> {
    const METHOD: http::Method = R::METHOD;
    const RATE_LIMITED: bool = R::RATE_LIMITED;
    type Authentication = AccessToken;
    type PathBuilder = R::PathBuilder;
    const PATH_BUILDER: R::PathBuilder = R::PATH_BUILDER;
}

impl<R: IncomingRequest> IncomingRequest for WithToken<R> {
    type EndpointError = R::EndpointError;
    type OutgoingResponse = R::OutgoingResponse;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        path_args: &[&str],
    ) -> Result<Self, DeserializationError> {
        R::try_from_http_request_inner(request, path_args).map(Self)
    }
}

/// Makes sure that the user makes a request, not only somebody with the user's access token. `operation` names what is
/// asked for. What that proves, until the password changes.
pub(in crate::http) async fn confirm(
    server: &Server,
    caller: &Caller,
    operation: &'static str,
    auth: Option<AuthData>,
) -> Result<Credentials, Refusal> {
    if auth.is_some() {
        server.budgets.spend(Budget::ProofsOfDevice, caller)?;
    }
    server
        .accounts
        .confirm(caller, operation, auth.map(attempt))
        .await
}

/// As [`confirm`], for what the user of an OAuth 2.0 client approves or does on the account page.
pub(in crate::http) async fn confirm_on_page(
    server: &Server,
    caller: &Caller,
    operation: &'static str,
    auth: Option<AuthData>,
    what: OnPage,
) -> Result<Credentials, Refusal> {
    // Such a client asks again and again until the user has approved it, and has nothing judged.
    if !matches!(auth, None | Some(AuthData::OAuth(_))) {
        server.budgets.spend(Budget::ProofsOfDevice, caller)?;
    }
    server
        .accounts
        .confirm_on_page(caller, operation, auth.map(attempt), what)
        .await
}
