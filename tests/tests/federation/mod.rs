//! Homeservers that share rooms.

mod acl;
mod aliases;
mod catching_up;
mod directory;
mod history;
mod hostile;
mod keys;
mod media;
mod membership;
mod names;
mod presence;
mod profiles;
mod receipts;
mod redactions;
mod restricted;
mod rooms;
mod sizes;
mod three_servers;

use maru_tests::{TestServer, User};
use serde_json::{Value, json};

/// A public room of the first user's, on whose server it is, which the others have joined through it.
async fn room_across(host: &User, server: &TestServer, guests: &[&User]) -> String {
    let room = host.create_room(json!({ "preset": "public_chat" })).await;
    for guest in guests {
        let path = format!("/_matrix/client/v3/join/{room}?via={}", server.name());
        guest.post(&path, json!({})).await.ok();
    }
    let joined = |members: &Value| members["joined"].as_object().map_or(0, serde_json::Map::len);
    for _ in 0..200 {
        let members = host.get(&format!("rooms/{room}/joined_members")).await.ok();
        if joined(&members) == guests.len() + 1 {
            return room;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("not everybody was seen to join");
}

/// Reads a user's sync from a token on until an answer fits; the token after it.
async fn until(user: &User, since: &str, fits: impl Fn(&Value) -> bool) -> String {
    let mut since = since.to_owned();
    for _ in 0..40 {
        let synced = user.wait(&since).await;
        since = synced.next();
        if fits(&synced.0) {
            return since;
        }
    }
    panic!("it never came");
}
