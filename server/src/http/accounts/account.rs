//! The caller's own account (client-server API, "Account management").

use std::sync::Arc;

use axum::extract::State;
use ruma::api::client::account::ThirdPartyIdRemovalStatus;
use ruma::api::client::account::change_password::v3 as change_password;
use ruma::api::client::account::deactivate::v3 as deactivate;
use ruma::api::client::account::get_3pids::v3 as get_3pids;

use crate::http::codec::completed_body::Completed;
use crate::http::codec::extractors::{Answer, Call, Reply};
use crate::http::codec::interactive_auth::{Provable, WithToken, confirm};
use crate::http::router::{Endpoints, Routes};
use crate::server::Server;
use crate::store::accounts::devices::Devices;

pub(in crate::http) fn routes() -> Routes {
    Routes::new()
        .endpoint::<change_password::Request, _>(set_password)
        .endpoint::<deactivate::Request, _>(close)
        .endpoint::<get_3pids::Request, _>(third_party_ids)
}

async fn set_password(
    State(server): State<Arc<Server>>,
    call: Call<WithToken<Provable<change_password::Request>>>,
) -> Reply<change_password::Response> {
    let (WithToken(Completed { request, .. }), caller) = (call.request, call.caller);
    let proved = confirm(&server, &caller, "change_password", request.auth).await?;
    let log_out = if request.logout_devices {
        Devices::AllBut(caller.device_id)
    } else {
        Devices::These(Vec::new())
    };
    server
        .accounts
        .set_password(&caller.user_id, request.new_password, Some(proved), log_out)
        .await?;
    Ok(Answer(change_password::Response::new()))
}

async fn close(
    State(server): State<Arc<Server>>,
    call: Call<WithToken<Provable<deactivate::Request>>>,
) -> Reply<deactivate::Response> {
    let (WithToken(Completed { request, .. }), caller) = (call.request, call.caller);
    let proved = confirm(&server, &caller, "deactivate", request.auth).await?;
    server
        .accounts
        .deactivate(&caller.user_id, Some(proved), request.erase)
        .await?;
    let no_identity_server = ThirdPartyIdRemovalStatus::NoSupport;
    Ok(Answer(deactivate::Response::new(no_identity_server)))
}

/// Accounts have no e-mail addresses or telephone numbers here.
async fn third_party_ids(_: Call<get_3pids::Request>) -> Reply<get_3pids::Response> {
    Ok(Answer(get_3pids::Response::new(Vec::new())))
}
