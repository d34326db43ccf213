//! Profiles (client-server API, "Profiles").

use std::sync::Arc;

use axum::extract::State;
use ruma::UserId;
use ruma::api::client::profile::delete_profile_field::v3 as delete_profile_field;
use ruma::api::client::profile::get_profile::v3 as get_profile;
use ruma::api::client::profile::get_profile_field::v3 as get_profile_field;
use ruma::api::client::profile::set_profile_field::v3 as set_profile_field;
use ruma::profile::ProfileFieldValue;

use crate::accounts::Caller;
use crate::http::codec::extractors::{Answer, Call, Reply};
use crate::http::router::{Endpoints, Routes};
use crate::refusal::Refusal;
use crate::server::Server;

pub(in crate::http) fn routes() -> Routes {
    Routes::new()
        .endpoint::<get_profile::Request, _>(profile)
        .endpoint::<get_profile_field::Request, _>(field)
        .endpoint::<set_profile_field::Request, _>(set_field)
        .endpoint::<delete_profile_field::Request, _>(delete_field)
}

async fn profile(
    State(server): State<Arc<Server>>,
    call: Call<get_profile::Request>,
) -> Reply<get_profile::Response> {
    let profile = server.peers.profiles.profile(&call.request.user_id).await?;
    Ok(Answer(profile.into_iter().collect()))
}

async fn field(
    State(server): State<Arc<Server>>,
    call: Call<get_profile_field::Request>,
) -> Reply<get_profile_field::Response> {
    let (user_id, field) = (&call.request.user_id, call.request.field.as_str());
    let value = server.peers.profiles.profile_field(user_id, field).await?;
    let value = ProfileFieldValue::new(field, value).map_err(Refusal::internal)?;
    Ok(Answer(get_profile_field::Response::new(value)))
}

async fn set_field(
    State(server): State<Arc<Server>>,
    call: Call<set_profile_field::Request>,
) -> Reply<set_profile_field::Response> {
    let request = call.request;
    check_own(&call.caller, &request.user_id)?;
    let (field, value) = (request.value.field_name(), request.value.value().into_owned());
    server
        .accounts
        .set_profile_field(&request.user_id, field.as_str(), Some(value))
        .await?;
    Ok(Answer(set_profile_field::Response::new()))
}

async fn delete_field(
    State(server): State<Arc<Server>>,
    call: Call<delete_profile_field::Request>,
) -> Reply<delete_profile_field::Response> {
    let request = call.request;
    check_own(&call.caller, &request.user_id)?;
    server
        .accounts
        .set_profile_field(&request.user_id, request.field.as_str(), None)
        .await?;
    Ok(Answer(delete_profile_field::Response::new()))
}

/// Everybody changes their own profile only.
fn check_own(caller: &Caller, user_id: &UserId) -> Result<(), Refusal> {
    if caller.user_id == user_id {
        return Ok(());
    }
    Err(Refusal::forbidden("this is somebody else's profile"))
}
