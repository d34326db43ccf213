//! Backups of room keys (client-server API, "Server-side key backups").

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http::header;
use maru_protocol::canonical::write_text;
use ruma::api::client::backup::{
    RoomKeyBackup, add_backup_keys::v3 as add_keys, add_backup_keys_for_room::v3 as add_room,
    add_backup_keys_for_session::v3 as add_session, create_backup_version::v3 as create_version,
    delete_backup_keys::v3 as delete_keys, delete_backup_keys_for_room::v3 as delete_room,
    delete_backup_keys_for_session::v3 as delete_session, delete_backup_version::v3 as delete_version,
    get_backup_info::v3 as get_version, get_backup_keys::v3 as get_keys,
    get_backup_keys_for_room::v3 as get_room, get_backup_keys_for_session::v3 as get_session,
    get_latest_backup_info::v3 as get_newest, update_backup_version::v3 as update_version,
};
use ruma::{OwnedRoomId, RoomId, UInt};

use crate::http::codec::error::ApiError;
use crate::http::codec::extractors::{Answer, Call, Reply};
use crate::http::codec::raw_json::Written;
use crate::http::router::{Endpoints, Routes};
use crate::keys::{BackedUpKey, KeyBackup, KeyName, Which};
use crate::refusal::Refusal;
use crate::server::Server;

pub(in crate::http) fn routes() -> Routes {
    Routes::new()
        .endpoint::<create_version::Request, _>(create)
        .endpoint::<get_newest::Request, _>(newest)
        .endpoint::<get_version::Request, _>(version)
        .endpoint::<update_version::Request, _>(update)
        .endpoint::<delete_version::Request, _>(delete)
        .endpoint::<add_keys::Request, _>(add)
        .endpoint::<add_room::Request, _>(add_of_room)
        .endpoint::<add_session::Request, _>(add_of_session)
        .endpoint::<get_keys::Request, _>(restore)
        .endpoint::<get_room::Request, _>(restore_room)
        .endpoint::<get_session::Request, _>(restore_session)
        .endpoint::<delete_keys::Request, _>(remove)
        .endpoint::<delete_room::Request, _>(remove_of_room)
        .endpoint::<delete_session::Request, _>(remove_of_session)
}

async fn create(
    State(server): State<Arc<Server>>,
    call: Call<create_version::Request>,
) -> Reply<create_version::Response> {
    let json = call.request.algorithm.json().get();
    let version = server.key_backups.create(&call.caller.user_id, json).await?;
    Ok(Answer(create_version::Response::new(version)))
}

async fn newest(
    State(server): State<Arc<Server>>,
    call: Call<get_newest::Request>,
) -> Result<Written, ApiError> {
    let found = server.key_backups.version(&call.caller.user_id, None).await?;
    Ok(described(&found))
}

async fn version(
    State(server): State<Arc<Server>>,
    call: Call<get_version::Request>,
) -> Result<Written, ApiError> {
    let version = Some(&*call.request.version);
    let found = server.key_backups.version(&call.caller.user_id, version).await?;
    Ok(described(&found))
}

fn described(backup: &KeyBackup) -> Written {
    let mut written = Written::new();
    written.text("algorithm", &backup.algorithm);
    written.json("auth_data", &backup.auth_data);
    written.json("count", &backup.keys.to_string());
    written.text("etag", &backup.etag.to_string());
    written.text("version", &backup.version.to_string());
    written.finish()
}

async fn update(
    State(server): State<Arc<Server>>,
    call: Call<update_version::Request>,
) -> Reply<update_version::Response> {
    let (version, json) = (&call.request.version, call.request.algorithm.json().get());
    server
        .key_backups
        .update(&call.caller.user_id, version, json)
        .await?;
    Ok(Answer(update_version::Response::new()))
}

async fn delete(
    State(server): State<Arc<Server>>,
    call: Call<delete_version::Request>,
) -> Reply<delete_version::Response> {
    server
        .key_backups
        .delete(&call.caller.user_id, &call.request.version)
        .await?;
    Ok(Answer(delete_version::Response::new()))
}

fn sent<'k>(
    room_id: &'k RoomId,
    keys: &'k RoomKeyBackup,
) -> impl Iterator<Item = (&'k RoomId, &'k str, &'k str)> {
    let sessions = keys.sessions.iter();
    sessions.map(move |(session_id, key)| (room_id, &**session_id, key.json().get()))
}

fn count(keys: u64) -> UInt {
    UInt::new_saturating(keys)
}

async fn add(State(server): State<Arc<Server>>, call: Call<add_keys::Request>) -> Reply<add_keys::Response> {
    let rooms = call.request.rooms.iter();
    let keys = rooms.flat_map(|(room_id, keys)| sent(room_id, keys));
    let version = &call.request.version;
    let (etag, keys) = server
        .key_backups
        .add(&call.caller.user_id, version, keys)
        .await?;
    Ok(Answer(add_keys::Response::new(etag, count(keys))))
}

async fn add_of_room(
    State(server): State<Arc<Server>>,
    call: Call<add_room::Request>,
) -> Reply<add_room::Response> {
    let backup = RoomKeyBackup::new(call.request.sessions);
    let (keys, version) = (sent(&call.request.room_id, &backup), &call.request.version);
    let (etag, keys) = server
        .key_backups
        .add(&call.caller.user_id, version, keys)
        .await?;
    Ok(Answer(add_room::Response::new(etag, count(keys))))
}

async fn add_of_session(
    State(server): State<Arc<Server>>,
    call: Call<add_session::Request>,
) -> Reply<add_session::Response> {
    let request = call.request;
    let key = (
        &*request.room_id,
        &*request.session_id,
        request.session_data.json().get(),
    );
    let key = std::iter::once(key);
    let (etag, keys) = server
        .key_backups
        .add(&call.caller.user_id, &request.version, key)
        .await?;
    Ok(Answer(add_session::Response::new(etag, count(keys))))
}

async fn restore(
    State(server): State<Arc<Server>>,
    call: Call<get_keys::Request>,
) -> Result<Response, ApiError> {
    let (user_id, which) = (&call.caller.user_id, Which::default());
    let keys = server
        .key_backups
        .restore(user_id, &call.request.version, which)
        .await?;
    Ok(streamed(by_room(keys.pages())))
}

async fn restore_room(
    State(server): State<Arc<Server>>,
    call: Call<get_room::Request>,
) -> Result<Response, ApiError> {
    let which = of_room(call.request.room_id);
    let keys = server
        .key_backups
        .restore(&call.caller.user_id, &call.request.version, which)
        .await?;
    Ok(streamed(of_one_room(keys.pages())))
}

async fn restore_session(
    State(server): State<Arc<Server>>,
    call: Call<get_session::Request>,
) -> Result<Written, ApiError> {
    let which = of_session(call.request.room_id, call.request.session_id);
    let keys = server
        .key_backups
        .restore(&call.caller.user_id, &call.request.version, which)
        .await?;
    let mut json = String::new();
    keys.one().await?.write(&mut json);
    Ok(json.into())
}

async fn remove(
    State(server): State<Arc<Server>>,
    call: Call<delete_keys::Request>,
) -> Reply<delete_keys::Response> {
    let (user_id, which) = (&call.caller.user_id, Which::default());
    let (etag, keys) = server
        .key_backups
        .remove(user_id, &call.request.version, which)
        .await?;
    Ok(Answer(delete_keys::Response::new(etag, count(keys))))
}

async fn remove_of_room(
    State(server): State<Arc<Server>>,
    call: Call<delete_room::Request>,
) -> Reply<delete_room::Response> {
    let (user_id, which) = (&call.caller.user_id, of_room(call.request.room_id));
    let (etag, keys) = server
        .key_backups
        .remove(user_id, &call.request.version, which)
        .await?;
    Ok(Answer(delete_room::Response::new(etag, count(keys))))
}

async fn remove_of_session(
    State(server): State<Arc<Server>>,
    call: Call<delete_session::Request>,
) -> Reply<delete_session::Response> {
    let which = of_session(call.request.room_id, call.request.session_id);
    let user_id = &call.caller.user_id;
    let (etag, keys) = server
        .key_backups
        .remove(user_id, &call.request.version, which)
        .await?;
    Ok(Answer(delete_session::Response::new(etag, count(keys))))
}

fn of_room(room_id: OwnedRoomId) -> Which {
    Which {
        room_id: Some(room_id.into()),
        session_id: None,
    }
}

fn of_session(room_id: OwnedRoomId, session_id: String) -> Which {
    Which {
        session_id: Some(session_id),
        ..of_room(room_id)
    }
}

type Page = Result<Vec<(KeyName, BackedUpKey)>, Refusal>;

/// A JSON answer that is sent as it is read: a backup may be larger than what one answer should hold in memory. Where reading
/// fails the connection breaks off, and the client asks again.
fn streamed(parts: impl Stream<Item = Result<String, Refusal>> + Send + 'static) -> Response {
    let parts = parts.map(|part| part.map(Bytes::from));
    (
        [(header::CONTENT_TYPE, "application/json")],
        Body::from_stream(parts),
    )
        .into_response()
}

fn text(text: &str) -> stream::Iter<std::iter::Once<Result<String, Refusal>>> {
    stream::iter(std::iter::once(Ok(text.to_owned())))
}

/// Keys of one room.
fn of_one_room(pages: impl Stream<Item = Page>) -> impl Stream<Item = Result<String, Refusal>> {
    let mut is_first = true;
    let keys = pages.map(move |page| {
        let mut out = String::new();
        for ((_, session_id), key) in page? {
            write_key(&mut out, &session_id, &key, std::mem::take(&mut is_first));
        }
        Ok(out)
    });
    text(r#"{"sessions":{"#).chain(keys).chain(text("}}"))
}

/// Keys of all rooms, which come room by room.
fn by_room(pages: impl Stream<Item = Page>) -> impl Stream<Item = Result<String, Refusal>> {
    let mut room = None::<String>;
    let pages = pages.map(Some).chain(stream::iter([None]));
    let keys = pages.map(move |page| {
        let mut out = String::new();
        let Some(page) = page else {
            out.push_str(if room.is_some() { "}}}}" } else { "}}" });
            return Ok(out);
        };
        for ((room_id, session_id), key) in page? {
            let is_first = room.as_ref() != Some(&room_id);
            if is_first {
                out.push_str(if room.is_some() { "}}," } else { "" });
                write_text(&mut out, &room_id);
                out.push_str(r#":{"sessions":{"#);
                room = Some(room_id);
            }
            write_key(&mut out, &session_id, &key, is_first);
        }
        Ok(out)
    });
    text(r#"{"rooms":{"#).chain(keys)
}

fn write_key(out: &mut String, session_id: &str, key: &BackedUpKey, is_first: bool) {
    if !is_first {
        out.push(',');
    }
    write_text(out, session_id);
    out.push(':');
    key.write(out);
}
