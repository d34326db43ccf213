//! Reports to the admin (client-server API, "Reporting Content").

use std::sync::Arc;

use axum::extract::State;
use ruma::api::client::reporting::report_user::v3 as report_user;
use ruma::api::client::room::{report_content::v3 as report_content, report_room::v3 as report_room};

use crate::http::codec::extractors::{Answer, Call, Reply};
use crate::http::router::{Endpoints, Routes};
use crate::server::Server;

pub(in crate::http) fn routes() -> Routes {
    Routes::new()
        .endpoint::<report_content::Request, _>(event)
        .endpoint::<report_room::Request, _>(room)
        .endpoint::<report_user::Request, _>(user)
}

async fn event(
    State(server): State<Arc<Server>>,
    call: Call<report_content::Request>,
) -> Reply<report_content::Response> {
    let (request, reporter) = (call.request, &call.caller.user_id);
    let reason = request.reason.unwrap_or_default();
    let reported = server
        .moderation
        .report_event(reporter, &request.room_id, &request.event_id, reason);
    reported.await?;
    Ok(Answer(report_content::Response::new()))
}

async fn room(
    State(server): State<Arc<Server>>,
    call: Call<report_room::Request>,
) -> Reply<report_room::Response> {
    let (request, reporter) = (call.request, &call.caller.user_id);
    server
        .moderation
        .report_room(reporter, &request.room_id, request.reason)
        .await?;
    Ok(Answer(report_room::Response::new()))
}

async fn user(
    State(server): State<Arc<Server>>,
    call: Call<report_user::Request>,
) -> Reply<report_user::Response> {
    let (request, reporter) = (call.request, &call.caller.user_id);
    server
        .moderation
        .report_user(reporter, request.user_id, request.reason)
        .await?;
    Ok(Answer(report_user::Response::new()))
}
