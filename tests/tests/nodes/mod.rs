//! Several nodes on one PostgreSQL: each serves any client, and all of them see one log.

mod beyond;
mod by_the_leader;
mod choosing;
mod clients;
mod draining;
mod failures;
mod led;
mod moving;
mod nats;
mod one_log;
mod passing;

use maru_tests::user::User;
use maru_tests::{Engine, TestServer};

/// Two nodes of one homeserver.
async fn two_nodes() -> [TestServer; 2] {
    let one = TestServer::start_on(Engine::Postgres).await;
    let two = one.start_node("two").await;
    [one, two]
}

/// The next messages of a room after a token, once there are any.
async fn next_texts(user: &User, room: &str, mut since: String) -> Vec<String> {
    loop {
        let heard = user.wait(&since).await;
        match heard.texts(room) {
            texts if texts.is_empty() => since = heard.next(),
            texts => return texts,
        }
    }
}
