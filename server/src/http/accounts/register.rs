//! Making an account (client-server API, "Account registration").

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use ruma::OwnedUserId;
use ruma::api::client::account::check_registration_token_validity::v1 as token_validity;
use ruma::api::client::account::get_username_availability::v3 as username_availability;
use ruma::api::client::account::register::{RegistrationKind, v3 as register};
use serde::Serialize;

use super::login::BY_SERVICE;
use crate::accounts::{NewAccount, NewDevice};
use crate::http::codec::error::ApiError;
use crate::http::codec::extractors::{Answer, Call, JsonAnswer, Reply};
use crate::http::codec::interactive_auth::attempt;
use crate::http::router::{Endpoints, Routes};
use crate::http::transport::client_address::ClientAddress;
use crate::limits::Budget;
use crate::refusal::Refusal;
use crate::server::Server;
use crate::store::accounts::credentials::Credentials;

pub(in crate::http) fn routes() -> Routes {
    Routes::new()
        .endpoint::<register::Request, _>(register)
        .endpoint::<username_availability::Request, _>(is_available)
        .endpoint::<token_validity::Request, _>(is_token_valid)
}

async fn register(
    State(server): State<Arc<Server>>,
    address: ClientAddress,
    call: Call<register::Request>,
) -> Result<JsonAnswer<Registration>, ApiError> {
    let Call { request, caller } = call;
    if request.kind == RegistrationKind::Guest {
        return Err(Refusal::GuestAccessForbidden.into());
    }
    let is_by_service = request
        .login_type
        .as_ref()
        .is_some_and(|kind| kind.as_str() == BY_SERVICE);
    if request.auth.is_some() && !is_by_service {
        server
            .budgets
            .spend(Budget::RegistrationsFromAddress, address.for_limits())?;
    }
    let device_id = request.device_id.map(|id| id.to_string());
    let device = NewDevice {
        device_id: device_id.clone(),
        display_name: request.initial_device_display_name,
        refreshable: request.refresh_token,
        address: Some(address.0),
        client: None,
    };
    device.check()?;
    let (made, proved) = if is_by_service {
        let service = caller.ok_or(Refusal::MissingToken)?;
        let made = server
            .accounts
            .register_for_service(&service, request.username, device_id)
            .await?;
        (made, Credentials::FIRST)
    } else {
        let wanted = NewAccount {
            localpart: request.username,
            password: request.password,
            device_id,
            from: address.for_limits(),
        };
        server
            .accounts
            .register(wanted, request.auth.map(attempt))
            .await?
    };
    let mut answer = Registration {
        user_id: made.user_id,
        session: None,
    };
    if !request.inhibit_login {
        let device = NewDevice {
            device_id: Some(made.device_id),
            ..device
        };
        let session = server
            .accounts
            .start_session(&answer.user_id, proved, device)
            .await?;
        answer.session = Some(FirstSession {
            access_token: session.access_token,
            device_id: session.device_id,
            refresh_token: session.refresh_token,
            expires_in_ms: session.expires_in.map(milliseconds),
        });
    }
    Ok(JsonAnswer(answer))
}

/// The answer to a registration. Not ruma's type, which has a device id of null for who is not logged in.
#[derive(Serialize)]
struct Registration {
    user_id: OwnedUserId,
    #[serde(flatten)]
    session: Option<FirstSession>,
}

#[derive(Serialize)]
struct FirstSession {
    access_token: String,
    device_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_in_ms: Option<u64>,
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

async fn is_available(
    State(server): State<Arc<Server>>,
    call: Call<username_availability::Request>,
) -> Reply<username_availability::Response> {
    server.accounts.check_may_be_had(&call.request.username).await?;
    Ok(Answer(username_availability::Response::new(true)))
}

async fn is_token_valid(
    State(server): State<Arc<Server>>,
    call: Call<token_validity::Request>,
) -> Reply<token_validity::Response> {
    let valid = server
        .accounts
        .is_valid_registration_token(&call.request.token)
        .await?;
    Ok(Answer(token_validity::Response::new(valid)))
}
