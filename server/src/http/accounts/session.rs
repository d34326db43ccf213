//! The caller's session: who it is, and its end (client-server API, "Logout" and "Current account information").

use std::sync::Arc;

use axum::extract::State;
use ruma::api::client::account::whoami::v3 as whoami;
use ruma::api::client::session::logout::v3 as logout;
use ruma::api::client::session::logout_all::v3 as logout_all;

use crate::http::codec::extractors::{Answer, Call, Reply};
use crate::http::router::{Endpoints, Routes};
use crate::server::Server;
use crate::store::accounts::devices::Devices;

pub(in crate::http) fn routes() -> Routes {
    Routes::new()
        .endpoint::<whoami::Request, _>(who_am_i)
        .endpoint::<logout::Request, _>(log_out)
        .endpoint::<logout_all::Request, _>(log_out_all)
}

async fn who_am_i(call: Call<whoami::Request>) -> Reply<whoami::Response> {
    let mut response = whoami::Response::new(call.caller.user_id, false);
    let device_id = call.caller.device_id;
    response.device_id = (!device_id.is_empty()).then(|| device_id.into());
    Ok(Answer(response))
}

async fn log_out(State(server): State<Arc<Server>>, call: Call<logout::Request>) -> Reply<logout::Response> {
    server.accounts.log_out(&call.caller).await?;
    Ok(Answer(logout::Response::new()))
}

async fn log_out_all(
    State(server): State<Arc<Server>>,
    call: Call<logout_all::Request>,
) -> Reply<logout_all::Response> {
    let user_id = &call.caller.user_id;
    server
        .accounts
        .remove_devices(user_id, Devices::All, None)
        .await?;
    Ok(Answer(logout_all::Response::new()))
}
