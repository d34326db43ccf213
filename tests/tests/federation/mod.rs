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
mod restored;
mod restricted;
mod returning;
mod rooms;
mod sizes;
mod three_servers;
mod turmoil;

use maru_tests::{TestServer, User};
use serde_json::{Value, json};

/// A public room of the first user's, on whose server it is, which the others have joined through it.
async fn room_across(host: &User, server: &TestServer, guests: &[&User]) -> String {
    let room = host.create_room(json!({ "preset": "public_chat" })).await;
    for guest in guests {
        guest.join_via(&room, server.name()).await.ok();
    }
    for guest in guests {
        host.sees_member(&room, guest, "join").await;
    }
    room
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
