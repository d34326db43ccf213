//! Rooms from outside (client-server API, "Room previews" and "Spaces").

use std::sync::Arc;

use axum::extract::State;
use http::Method;
use maru_protocol::visibility::Membership;
use ruma::UInt;
use ruma::api::client::room::get_summary::v1 as get_summary;
use ruma::api::client::space::SpaceHierarchyRoomsChunk;
use ruma::api::client::space::get_hierarchy::v1 as get_hierarchy;
use ruma::events::room::member::MembershipState;
use ruma::serde::Raw;

use crate::http::codec::extractors::{Answer, Call, Reply};
use crate::http::router::{Endpoints, Routes};
use crate::peers::HierarchyQuery;
use crate::refusal::Refusal;
use crate::rooms::TreeRoom;
use crate::server::Server;

/// By which clients ask for a summary first that know it from before the specification had it.
const OLD_SUMMARY_PATH: &str = "/_matrix/client/unstable/im.nheko.summary/summary/{room_id_or_alias}";

pub(in crate::http) fn routes() -> Routes {
    Routes::new()
        .endpoint::<get_summary::Request, _>(summary)
        .serve(Method::GET, OLD_SUMMARY_PATH, summary)
        .endpoint::<get_hierarchy::Request, _>(hierarchy)
}

async fn summary(
    State(server): State<Arc<Server>>,
    call: Call<get_summary::Request>,
) -> Reply<get_summary::Response> {
    let user_id = call.caller.as_ref().map(|caller| &*caller.user_id);
    let request = call.request;
    let (summary, membership) = server
        .peers
        .spaces
        .preview(&request.room_id_or_alias, user_id, request.via)
        .await?;
    let mut response = get_summary::Response::new(summary);
    response.membership = user_id.map(|_| on_the_wire(membership));
    Ok(Answer(response))
}

async fn hierarchy(
    State(server): State<Arc<Server>>,
    call: Call<get_hierarchy::Request>,
) -> Reply<get_hierarchy::Response> {
    let request = call.request;
    let from = request.from.as_deref().map_or(Ok(0), str::parse);
    let asked = HierarchyQuery {
        from: from.map_err(|_| Refusal::invalid("from is not a token of this space"))?,
        limit: request.limit.map(count),
        max_depth: request.max_depth.map(count),
        suggested_only: request.suggested_only,
    };
    let user_id = &call.caller.user_id;
    let page = server
        .peers
        .spaces
        .hierarchy(&request.room_id, user_id, asked)
        .await?;
    let mut response = get_hierarchy::Response::new();
    response.next_batch = page.next.map(|next| next.to_string());
    response.rooms = page.rooms.into_iter().map(chunk).collect();
    Ok(Answer(response))
}

fn count(number: UInt) -> usize {
    usize::try_from(u64::from(number)).unwrap_or(usize::MAX)
}

fn on_the_wire(membership: Option<Membership>) -> MembershipState {
    membership.map_or(MembershipState::Leave, |membership| membership.as_str().into())
}

fn chunk(room: TreeRoom) -> SpaceHierarchyRoomsChunk {
    let children = room.children.into_iter().map(|child| Raw::from_json(child.json));
    SpaceHierarchyRoomsChunk::new(room.summary, children.collect())
}
