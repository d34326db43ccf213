//! Push rules (client-server API, "Push rules API").

use std::sync::Arc;

use axum::extract::State;
use ruma::api::client::push::{
    delete_pushrule::v3 as delete_pushrule, get_pushrule::v3 as get_pushrule,
    get_pushrule_actions::v3 as get_pushrule_actions, get_pushrule_enabled::v3 as get_pushrule_enabled,
    get_pushrules_all::v3 as get_pushrules_all, get_pushrules_global_scope::v3 as get_pushrules_global_scope,
    set_pushrule::v3 as set_pushrule, set_pushrule_actions::v3 as set_pushrule_actions,
    set_pushrule_enabled::v3 as set_pushrule_enabled,
};
use serde_json::Value;

use crate::http::codec::error::ApiError;
use crate::http::codec::extractors::{Answer, Call, JsonAnswer, Reply};
use crate::http::codec::raw_json::Written;
use crate::http::router::{Endpoints, Routes};
use crate::push::find;
use crate::server::Server;

pub(in crate::http) fn routes() -> Routes {
    Routes::new()
        .endpoint::<get_pushrules_all::Request, _>(all)
        .endpoint::<get_pushrules_global_scope::Request, _>(global)
        .endpoint::<get_pushrule::Request, _>(get)
        .endpoint::<set_pushrule::Request, _>(set)
        .endpoint::<delete_pushrule::Request, _>(remove)
        .endpoint::<get_pushrule_enabled::Request, _>(enabled)
        .endpoint::<set_pushrule_enabled::Request, _>(set_enabled)
        .endpoint::<get_pushrule_actions::Request, _>(actions)
        .endpoint::<set_pushrule_actions::Request, _>(set_actions)
}

async fn all(
    State(server): State<Arc<Server>>,
    call: Call<get_pushrules_all::Request>,
) -> Result<Written, ApiError> {
    let rules = server.push.account_data(&call.caller.user_id).await?;
    Ok(Written::from(rules))
}

async fn global(
    State(server): State<Arc<Server>>,
    call: Call<get_pushrules_global_scope::Request>,
) -> Result<JsonAnswer<Value>, ApiError> {
    let rules = server.push.by_kind(&call.caller.user_id).await?;
    Ok(JsonAnswer(rules))
}

async fn get(
    State(server): State<Arc<Server>>,
    call: Call<get_pushrule::Request>,
) -> Reply<get_pushrule::Response> {
    let rules = server.push.rules(&call.caller.user_id).await?;
    let rule = find(&rules, &call.request.kind, &call.request.rule_id)?;
    Ok(Answer(get_pushrule::Response::new(rule.into())))
}

async fn set(
    State(server): State<Arc<Server>>,
    call: Call<set_pushrule::Request>,
) -> Reply<set_pushrule::Response> {
    let (request, caller) = (call.request, call.caller);
    server
        .push
        .set_rule(&caller.user_id, request.rule, request.after, request.before)
        .await?;
    Ok(Answer(set_pushrule::Response::new()))
}

async fn remove(
    State(server): State<Arc<Server>>,
    call: Call<delete_pushrule::Request>,
) -> Reply<delete_pushrule::Response> {
    let (request, caller) = (call.request, call.caller);
    server
        .push
        .remove_rule(&caller.user_id, request.kind, request.rule_id)
        .await?;
    Ok(Answer(delete_pushrule::Response::new()))
}

async fn enabled(
    State(server): State<Arc<Server>>,
    call: Call<get_pushrule_enabled::Request>,
) -> Reply<get_pushrule_enabled::Response> {
    let rules = server.push.rules(&call.caller.user_id).await?;
    let rule = find(&rules, &call.request.kind, &call.request.rule_id)?;
    Ok(Answer(get_pushrule_enabled::Response::new(rule.enabled())))
}

async fn set_enabled(
    State(server): State<Arc<Server>>,
    call: Call<set_pushrule_enabled::Request>,
) -> Reply<set_pushrule_enabled::Response> {
    let (request, caller) = (call.request, call.caller);
    server
        .push
        .set_enabled(&caller.user_id, request.kind, request.rule_id, request.enabled)
        .await?;
    Ok(Answer(set_pushrule_enabled::Response::new()))
}

async fn actions(
    State(server): State<Arc<Server>>,
    call: Call<get_pushrule_actions::Request>,
) -> Reply<get_pushrule_actions::Response> {
    let rules = server.push.rules(&call.caller.user_id).await?;
    let rule = find(&rules, &call.request.kind, &call.request.rule_id)?;
    Ok(Answer(get_pushrule_actions::Response::new(
        rule.actions().to_vec(),
    )))
}

async fn set_actions(
    State(server): State<Arc<Server>>,
    call: Call<set_pushrule_actions::Request>,
) -> Reply<set_pushrule_actions::Response> {
    let (request, caller) = (call.request, call.caller);
    server
        .push
        .set_actions(&caller.user_id, request.kind, request.rule_id, request.actions)
        .await?;
    Ok(Answer(set_pushrule_actions::Response::new()))
}
