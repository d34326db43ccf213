//! How much account data a user may have.

use maru_tests::{Engine, TestServer, User};
use serde_json::json;

use super::{of_room, of_user, room_of};

#[tokio::test(flavor = "multi_thread")]
async fn account_data_has_a_quota() {
    let server = TestServer::start_with(Engine::Sqlite, |config| {
        config.limits.account_data_items = 3;
        config.limits.account_data_bytes = 1000;
    })
    .await;
    let [alice, bob] = [server.user("alice").await, server.user("bob").await];
    let room = room_of(&[&alice, &bob]).await;
    let set = async |user: &User, path: &str, size: usize| {
        let path = of_user(user, path);
        user.put(&path, json!({ "text": "x".repeat(size) })).await
    };
    let in_room = of_room(&room, "account_data/b");
    set(&alice, "account_data/a", 400).await.ok();
    set(&alice, &in_room, 400).await.ok();
    set(&alice, "account_data/c", 400)
        .await
        .refused(413, "M_TOO_LARGE");
    set(&alice, "account_data/a", 100).await.ok();
    set(&alice, "account_data/c", 400).await.ok();
    set(&alice, "account_data/c", 401).await.ok();
    set(&alice, "account_data/c", 900)
        .await
        .refused(413, "M_TOO_LARGE");
    // By number.
    set(&alice, "account_data/d", 1).await.refused(413, "M_TOO_LARGE");
    let tag = of_user(&alice, &of_room(&room, "tags/u.work"));
    alice.put(&tag, json!({})).await.refused(413, "M_TOO_LARGE");
    // What the server writes for the user is bounded by itself, and others have their own.
    let event = bob.send(&room, "hello").await;
    let markers = of_room(&room, "read_markers");
    alice.post(&markers, json!({ "m.fully_read": event })).await.ok();
    set(&bob, "account_data/a", 900).await.ok();
    let server = server.restart().await;
    let alice = alice.on(server.api());
    set(&alice, "account_data/d", 1).await.refused(413, "M_TOO_LARGE");
    let long = 600_000;
    set(&bob.on(server.api()), "account_data/a", long)
        .await
        .refused(413, "M_TOO_LARGE");
}
