//! Names of rooms on other servers.

use maru_tests::user::encode;
use maru_tests::{TestServer, federate};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_room_is_found_and_joined_by_its_name_on_another_server() {
    let (a, b) = (TestServer::start().await, TestServer::start().await);
    federate(&[&a, &b]).await;
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let room = alice
        .create_room(json!({ "preset": "public_chat", "room_alias_name": "hall" }))
        .await;
    let alias = encode(&format!("#hall:{}", a.name()));
    let found = bob.get(&format!("directory/room/{alias}")).await.ok();
    assert_eq!(found["room_id"], room.as_str());
    assert_eq!(found["servers"], json!([a.name()]));
    let joined = bob.post(&format!("join/{alias}"), json!({})).await.ok();
    assert_eq!(joined["room_id"], room.as_str());
    bob.send(&room, "found").await;
    alice.hears(&room, "found").await;
    let nowhere = encode(&format!("#nowhere:{}", a.name()));
    bob.get(&format!("directory/room/{nowhere}"))
        .await
        .refused(404, "M_NOT_FOUND");
    bob.post(&format!("join/{nowhere}"), json!({}))
        .await
        .refused(404, "M_NOT_FOUND");
}
