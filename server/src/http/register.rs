//! Making an account (client-server API, "Account registration").

use std::sync::Arc;

use axum::extract::State;
use ruma::api::client::account::register::v3 as register;

use super::call::{Answer, Call, Reply};
use super::router::{Endpoints, Routes};
use crate::refusal::Refusal;
use crate::server::Server;

pub(super) fn routes() -> Routes {
    Routes::new().endpoint::<register::Request, _>(register)
}

async fn register(
    State(server): State<Arc<Server>>,
    call: Call<register::Request>,
) -> Reply<register::Response> {
    let request = call.request;
    let username = request
        .username
        .ok_or_else(|| Refusal::MissingParam("a user name is needed".into()))?;
    let password = request
        .password
        .ok_or_else(|| Refusal::MissingParam("a password is needed".into()))?;
    let user_id = server.accounts.create(&username, password).await?;
    let mut response = register::Response::new(user_id.clone());
    if !request.inhibit_login {
        let device_id = request.device_id.map(|id| id.to_string());
        let session = server
            .accounts
            .start_session(&user_id, device_id, request.initial_device_display_name)
            .await?;
        response.access_token = Some(session.access_token);
        response.device_id = Some(session.device_id.into());
    }
    Ok(Answer(response))
}
