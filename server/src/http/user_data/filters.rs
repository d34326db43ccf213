//! Stored filters (client-server API, "Filtering").

use std::sync::Arc;

use axum::extract::State;
use ruma::api::client::filter::{create_filter::v3 as create_filter, get_filter::v3 as get_filter};

use super::account_data::check_own;
use crate::http::codec::extractors::{Answer, Call, Reply};
use crate::http::router::{Endpoints, Routes};
use crate::refusal::Refusal;
use crate::server::Server;

pub(in crate::http) fn routes() -> Routes {
    Routes::new()
        .endpoint::<create_filter::Request, _>(create)
        .endpoint::<get_filter::Request, _>(get)
}

async fn create(
    State(server): State<Arc<Server>>,
    call: Call<create_filter::Request>,
) -> Reply<create_filter::Response> {
    check_own(&call.caller, &call.request.user_id)?;
    let json = serde_json::to_string(&call.request.filter).map_err(Refusal::internal)?;
    let filter_id = server
        .account_data
        .keep_filter(&call.caller.user_id, json)
        .await?;
    Ok(Answer(create_filter::Response::new(filter_id)))
}

async fn get(
    State(server): State<Arc<Server>>,
    call: Call<get_filter::Request>,
) -> Reply<get_filter::Response> {
    check_own(&call.caller, &call.request.user_id)?;
    let json = server
        .account_data
        .filter(&call.caller.user_id, &call.request.filter_id)
        .await?;
    let filter = serde_json::from_str(&json).map_err(Refusal::internal)?;
    Ok(Answer(get_filter::Response::new(filter)))
}
