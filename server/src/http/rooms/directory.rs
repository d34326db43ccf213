//! The public directory (client-server API, "Published room directory").

use std::sync::Arc;

use axum::extract::State;
use ruma::UInt;
use ruma::api::client::directory::get_public_rooms::v3 as get_public_rooms;
use ruma::api::client::directory::get_public_rooms_filtered::v3 as get_public_rooms_filtered;
use ruma::api::client::directory::get_room_visibility::v3 as get_room_visibility;
use ruma::api::client::directory::set_room_visibility::v3 as set_room_visibility;
use ruma::api::client::room::Visibility;
use ruma::directory::PublicRoomsChunk;
use ruma::{OwnedServerName, ServerName};

use crate::http::codec::extractors::{Answer, Call, Reply};
use crate::http::codec::optional_auth::Asker;
use crate::http::router::{Endpoints, Routes};
use crate::refusal::Refusal;
use crate::rooms::{DirectoryPage, DirectoryQuery, PageToken};
use crate::server::Server;

pub(in crate::http) fn routes() -> Routes {
    Routes::new()
        .endpoint::<get_public_rooms::Request, _>(list)
        .endpoint::<get_public_rooms_filtered::Request, _>(search)
        .endpoint::<get_room_visibility::Request, _>(visibility)
        .endpoint::<set_room_visibility::Request, _>(set_visibility)
}

async fn list(
    State(server): State<Arc<Server>>,
    Asker(asker): Asker,
    call: Call<get_public_rooms::Request>,
) -> Reply<get_public_rooms::Response> {
    let request = call.request;
    let mut response = get_public_rooms::Response::new(Vec::new());
    if let Some(other) = elsewhere(&server, request.server.as_ref()) {
        server.peers.servers.check_asked_for(asker.as_deref(), other)?;
        let since = request.since.as_deref();
        let theirs = server
            .peers
            .directories
            .public_rooms(other, request.limit.map(count), since, None)
            .await?;
        response.total_room_count_estimate = theirs.total.and_then(|total| UInt::try_from(total).ok());
        (response.next_batch, response.prev_batch) = (theirs.next, theirs.previous);
        response.chunk = theirs.rooms;
        return Ok(Answer(response));
    }
    let page = server
        .rooms
        .directory
        .page(&query(request.limit, request.since.as_deref())?)
        .await?;
    (response.next_batch, response.prev_batch) = around(&page);
    response.total_room_count_estimate = UInt::try_from(page.total).ok();
    response.chunk = page.rooms.into_iter().map(PublicRoomsChunk::from).collect();
    Ok(Answer(response))
}

async fn search(
    State(server): State<Arc<Server>>,
    call: Call<get_public_rooms_filtered::Request>,
) -> Reply<get_public_rooms_filtered::Response> {
    let request = call.request;
    let mut response = get_public_rooms_filtered::Response::new();
    let term = request.filter.generic_search_term.filter(|term| !term.is_empty());
    let types = request.filter.room_types.iter();
    let room_types: Vec<_> = types.map(|kind| kind.as_str().map(str::to_owned)).collect();
    if let Some(other) = elsewhere(&server, request.server.as_ref()) {
        let limit = request.limit.map(count);
        let theirs = server
            .peers
            .directories
            .public_rooms(other, limit, request.since.as_deref(), term.as_deref())
            .await?;
        let wanted = |room: &PublicRoomsChunk| {
            let kind = room.room_type.as_ref().map(|kind| kind.as_str().to_owned());
            room_types.is_empty() || room_types.contains(&kind)
        };
        response.total_room_count_estimate = theirs.total.and_then(|total| UInt::try_from(total).ok());
        (response.next_batch, response.prev_batch) = (theirs.next, theirs.previous);
        response.chunk = theirs.rooms.into_iter().filter(wanted).collect();
        return Ok(Answer(response));
    }
    let mut asked = query(request.limit, request.since.as_deref())?;
    (asked.term, asked.room_types) = (term, room_types);
    let page = server.rooms.directory.page(&asked).await?;
    (response.next_batch, response.prev_batch) = around(&page);
    response.total_room_count_estimate = UInt::try_from(page.total).ok();
    response.chunk = page.rooms.into_iter().map(PublicRoomsChunk::from).collect();
    Ok(Answer(response))
}

async fn visibility(
    State(server): State<Arc<Server>>,
    call: Call<get_room_visibility::Request>,
) -> Reply<get_room_visibility::Response> {
    let room = server.rooms.repository.room(&call.request.room_id).await?;
    let visibility = if server.rooms.directory.is_published(&room).await? {
        Visibility::Public
    } else {
        Visibility::Private
    };
    Ok(Answer(get_room_visibility::Response::new(visibility)))
}

async fn set_visibility(
    State(server): State<Arc<Server>>,
    call: Call<set_room_visibility::Request>,
) -> Reply<set_room_visibility::Response> {
    let room = server.rooms.repository.room(&call.request.room_id).await?;
    let published = call.request.visibility == Visibility::Public;
    server
        .rooms
        .directory
        .publish(&room, &call.caller.user_id, published)
        .await?;
    Ok(Answer(set_room_visibility::Response::new()))
}

/// The server whose directory is asked for, if it is not this one.
fn elsewhere<'n>(server: &Server, asked: Option<&'n OwnedServerName>) -> Option<&'n ServerName> {
    asked
        .map(AsRef::as_ref)
        .filter(|other| *other != server.identity.name())
}

fn count(limit: UInt) -> usize {
    usize::try_from(u64::from(limit)).unwrap_or(usize::MAX)
}

fn query(limit: Option<UInt>, since: Option<&str>) -> Result<DirectoryQuery, Refusal> {
    Ok(DirectoryQuery {
        limit: limit.map(count),
        from: since.map(str::parse).transpose()?.unwrap_or_default(),
        ..DirectoryQuery::default()
    })
}

/// Tokens for the next and the previous page.
fn around(page: &DirectoryPage) -> (Option<String>, Option<String>) {
    let text = |token: PageToken| token.to_string();
    (page.next().map(text), page.previous().map(text))
}
