//! Proofs in requests (client-server API, "User-interactive authentication"). The challenge itself is written by
//! `error.rs`.

use ruma::api::client::uiaa::{AuthData, UserIdentifier};

use crate::accounts::{Attempt, Caller, Proof};
use crate::rate_limits::Limit;
use crate::refusal::Refusal;
use crate::server::Server;

/// What a request's `auth` presents.
pub(super) fn attempt(auth: AuthData) -> Attempt {
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
        _ => Proof::Other,
    };
    Attempt { session, proof }
}

/// Makes sure that the user makes a request, not only somebody with the user's access token. `operation` names what is
/// asked for.
pub(super) async fn confirm(
    server: &Server,
    caller: &Caller,
    operation: &'static str,
    auth: Option<AuthData>,
) -> Result<(), Refusal> {
    if auth.is_some() {
        server
            .rate_limits
            .check(Limit::LoginPerAccount, &caller.user_id)?;
    }
    server
        .accounts
        .confirm(caller, operation, auth.map(attempt))
        .await
}
