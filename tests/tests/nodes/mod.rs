//! Several nodes on one PostgreSQL: each serves any client, and all of them see one log.

mod moving;
mod one_log;

use maru_tests::{Engine, TestServer};

/// Two nodes of one homeserver.
async fn two_nodes() -> [TestServer; 2] {
    let one = TestServer::start_on(Engine::Postgres).await;
    let two = one.start_node("two").await;
    [one, two]
}
