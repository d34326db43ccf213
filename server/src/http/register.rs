//! Making an account (client-server API, "Account registration").

use std::sync::Arc;

use axum::extract::State;
use ruma::api::client::account::check_registration_token_validity::v1 as token_validity;
use ruma::api::client::account::get_username_availability::v3 as username_availability;
use ruma::api::client::account::register::{RegistrationKind, v3 as register};

use super::call::{Answer, Call, Reply};
use super::client_address::ClientAddress;
use super::interactive_auth::attempt;
use super::router::{Endpoints, Routes};
use crate::accounts::{NewAccount, NewDevice};
use crate::rate_limits::Limit;
use crate::refusal::Refusal;
use crate::server::Server;

pub(super) fn routes() -> Routes {
    Routes::new()
        .endpoint::<register::Request, _>(register)
        .endpoint::<username_availability::Request, _>(is_available)
        .endpoint::<token_validity::Request, _>(is_token_valid)
}

async fn register(
    State(server): State<Arc<Server>>,
    address: ClientAddress,
    call: Call<register::Request>,
) -> Reply<register::Response> {
    let request = call.request;
    if request.kind == RegistrationKind::Guest {
        return Err(Refusal::GuestAccessForbidden.into());
    }
    if request.auth.is_some() {
        server
            .rate_limits
            .check(Limit::RegistrationPerAddress, address.for_limits())?;
    }
    let password = request.password.unwrap_or_default();
    let wanted = NewAccount {
        localpart: request.username,
        password,
    };
    let user_id = server
        .accounts
        .register(wanted, request.auth.map(attempt))
        .await?;
    let mut response = register::Response::new(user_id.clone());
    if !request.inhibit_login {
        let device = NewDevice {
            device_id: request.device_id.map(|id| id.to_string()),
            display_name: request.initial_device_display_name,
            refreshable: request.refresh_token,
            address: Some(address.0),
        };
        let session = server.accounts.start_session(&user_id, device).await?;
        response.access_token = Some(session.access_token);
        response.device_id = Some(session.device_id.into());
        response.refresh_token = session.refresh_token;
        response.expires_in = session.expires_in;
    }
    Ok(Answer(response))
}

async fn is_available(
    State(server): State<Arc<Server>>,
    address: ClientAddress,
    call: Call<username_availability::Request>,
) -> Reply<username_availability::Response> {
    server
        .rate_limits
        .check(Limit::LoginPerAddress, address.for_limits())?;
    server.accounts.check_available(&call.request.username).await?;
    Ok(Answer(username_availability::Response::new(true)))
}

async fn is_token_valid(
    State(server): State<Arc<Server>>,
    address: ClientAddress,
    call: Call<token_validity::Request>,
) -> Reply<token_validity::Response> {
    let address = address.for_limits();
    server.rate_limits.check(Limit::RegistrationPerAddress, address)?;
    let valid = server
        .accounts
        .is_valid_registration_token(&call.request.token)
        .await?;
    Ok(Answer(token_validity::Response::new(valid)))
}
