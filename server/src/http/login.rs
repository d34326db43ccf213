//! Logging in (client-server API, "Login").

use std::sync::Arc;

use axum::extract::State;
use ruma::api::client::session::login::v3 as login;
use ruma::api::client::uiaa::UserIdentifier;

use super::call::{Answer, Call, Reply};
use super::router::{Endpoints, Routes};
use crate::refusal::Refusal;
use crate::server::Server;

pub(super) fn routes() -> Routes {
    Routes::new().endpoint::<login::Request, _>(log_in)
}

async fn log_in(State(server): State<Arc<Server>>, call: Call<login::Request>) -> Reply<login::Response> {
    let request = call.request;
    let login::LoginInfo::Password(password) = request.login_info else {
        return Err(Refusal::invalid("this server knows no such login type").into());
    };
    let name = match password.identifier {
        Some(UserIdentifier::Matrix(id)) => id.user,
        _ => return Err(Refusal::invalid("log in with a user name").into()),
    };
    let user_id = match ruma::UserId::parse(name.as_str()) {
        Ok(user_id) => user_id,
        Err(_) => server
            .identity
            .user(&name)
            .ok_or_else(|| Refusal::forbidden("the user name or password is wrong"))?,
    };
    server
        .accounts
        .check_password(&user_id, password.password)
        .await?;
    let device_id = request.device_id.map(|id| id.to_string());
    let session = server
        .accounts
        .start_session(&user_id, device_id, request.initial_device_display_name)
        .await?;
    Ok(Answer(login::Response::new(
        user_id,
        session.access_token,
        session.device_id.into(),
    )))
}
