//! Account data and tags (client-server API, "Client config" and "Room tagging").

use std::sync::Arc;

use axum::extract::State;
use ruma::UserId;
use ruma::api::client::config::{
    get_global_account_data::v3 as get_global_account_data,
    get_room_account_data::v3 as get_room_account_data,
    set_global_account_data::v3 as set_global_account_data,
    set_room_account_data::v3 as set_room_account_data,
};
use ruma::api::client::tag::{
    create_tag::v3 as create_tag, delete_tag::v3 as delete_tag, get_tags::v3 as get_tags,
};
use ruma::serde::Raw;
use serde_json::value::RawValue;

use crate::accounts::Caller;
use crate::http::codec::extractors::{Answer, Call, Reply};
use crate::http::router::{Endpoints, Routes};
use crate::refusal::Refusal;
use crate::server::Server;

pub(in crate::http) fn routes() -> Routes {
    Routes::new()
        .endpoint::<get_global_account_data::Request, _>(get_global)
        .endpoint::<set_global_account_data::Request, _>(set_global)
        .endpoint::<get_room_account_data::Request, _>(get_of_room)
        .endpoint::<set_room_account_data::Request, _>(set_of_room)
        .endpoint::<get_tags::Request, _>(tags)
        .endpoint::<create_tag::Request, _>(set_tag)
        .endpoint::<delete_tag::Request, _>(remove_tag)
}

/// Refuses a path that names somebody else: what is private is nobody else's business.
pub(in crate::http) fn check_own(caller: &Caller, user_id: &UserId) -> Result<(), Refusal> {
    if caller.user_id == user_id {
        return Ok(());
    }
    Err(Refusal::forbidden("you may do this for yourself only"))
}

/// Stored JSON as an answer's body.
fn raw<T>(json: String) -> Result<Raw<T>, Refusal> {
    RawValue::from_string(json)
        .map(Raw::from_json)
        .map_err(Refusal::internal)
}

async fn get_global(
    State(server): State<Arc<Server>>,
    call: Call<get_global_account_data::Request>,
) -> Reply<get_global_account_data::Response> {
    let (request, caller) = (call.request, call.caller);
    check_own(&caller, &request.user_id)?;
    let data_type = request.event_type.to_string();
    let content = match data_type.as_str() {
        "m.push_rules" => server.push.account_data(&caller.user_id).await?,
        _ => server.account_data.get(&caller.user_id, None, &data_type).await?,
    };
    Ok(Answer(get_global_account_data::Response::new(raw(content)?)))
}

async fn set_global(
    State(server): State<Arc<Server>>,
    call: Call<set_global_account_data::Request>,
) -> Reply<set_global_account_data::Response> {
    let (request, caller) = (call.request, call.caller);
    check_own(&caller, &request.user_id)?;
    let (data_type, content) = (request.event_type.to_string(), request.data.json().get());
    server
        .account_data
        .set(&caller.user_id, None, &data_type, content)
        .await?;
    Ok(Answer(set_global_account_data::Response::new()))
}

async fn get_of_room(
    State(server): State<Arc<Server>>,
    call: Call<get_room_account_data::Request>,
) -> Reply<get_room_account_data::Response> {
    let (request, caller) = (call.request, call.caller);
    check_own(&caller, &request.user_id)?;
    let (room_id, data_type) = (Some(&*request.room_id), request.event_type.to_string());
    let content = server
        .account_data
        .get(&caller.user_id, room_id, &data_type)
        .await?;
    Ok(Answer(get_room_account_data::Response::new(raw(content)?)))
}

async fn set_of_room(
    State(server): State<Arc<Server>>,
    call: Call<set_room_account_data::Request>,
) -> Reply<set_room_account_data::Response> {
    let (request, caller) = (call.request, call.caller);
    check_own(&caller, &request.user_id)?;
    let (room_id, data_type) = (Some(&*request.room_id), request.event_type.to_string());
    let content = request.data.json().get();
    server
        .account_data
        .set(&caller.user_id, room_id, &data_type, content)
        .await?;
    Ok(Answer(set_room_account_data::Response::new()))
}

async fn tags(State(server): State<Arc<Server>>, call: Call<get_tags::Request>) -> Reply<get_tags::Response> {
    check_own(&call.caller, &call.request.user_id)?;
    let tags = server
        .account_data
        .tags(&call.caller.user_id, &call.request.room_id)
        .await?;
    Ok(Answer(get_tags::Response::new(tags)))
}

async fn set_tag(
    State(server): State<Arc<Server>>,
    call: Call<create_tag::Request>,
) -> Reply<create_tag::Response> {
    let (request, caller) = (call.request, call.caller);
    check_own(&caller, &request.user_id)?;
    server
        .account_data
        .set_tag(&caller.user_id, &request.room_id, request.tag, request.tag_info)
        .await?;
    Ok(Answer(create_tag::Response::new()))
}

async fn remove_tag(
    State(server): State<Arc<Server>>,
    call: Call<delete_tag::Request>,
) -> Reply<delete_tag::Response> {
    let (request, caller) = (call.request, call.caller);
    check_own(&caller, &request.user_id)?;
    server
        .account_data
        .remove_tag(&caller.user_id, &request.room_id, request.tag)
        .await?;
    Ok(Answer(delete_tag::Response::new()))
}
