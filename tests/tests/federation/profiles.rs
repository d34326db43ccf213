//! Profiles of other servers' users.

use maru_tests::user::encode;
use maru_tests::{TestServer, federate};
use serde_json::json;

use super::room_across;

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_is_read_on_its_own_server() {
    let (a, b) = (TestServer::start().await, TestServer::start().await);
    federate(&[&a, &b]).await;
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let profile = format!("profile/{}", encode(&alice.id));
    for (field, value) in [
        ("displayname", "Alice"),
        ("avatar_url", "mxc://a/b"),
        ("m.tz", "Asia/Seoul"),
    ] {
        let path = format!("{profile}/{}", encode(field));
        alice.put(&path, json!({ field: value })).await.ok();
    }
    let whole = json!({ "displayname": "Alice", "avatar_url": "mxc://a/b", "m.tz": "Asia/Seoul" });
    assert_eq!(bob.get(&profile).await.ok(), whole);
    let name = bob.get(&format!("{profile}/displayname")).await.ok();
    assert_eq!(name, json!({ "displayname": "Alice" }));
    bob.get(&format!("{profile}/org.example.none"))
        .await
        .refused(404, "M_NOT_FOUND");
    let nobody = format!("profile/{}", encode(&format!("@nobody:{}", a.name())));
    bob.get(&nobody).await.refused(404, "M_NOT_FOUND");
    // What was read is remembered, also while the server is away; a server that nobody knows is not asked.
    a.parts().peers.stop().await;
    assert_eq!(bob.get(&profile).await.ok(), whole);
    bob.get("profile/%40x%3Aelsewhere.example")
        .await
        .refused(404, "M_NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_name_shows_on_both_servers() {
    let (a, b) = (TestServer::start().await, TestServer::start().await);
    federate(&[&a, &b]).await;
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let room = room_across(&alice, &a, &[&bob]).await;
    let since = bob.sync(None).await.next();
    let path = format!("profile/{}/displayname", encode(&alice.id));
    alice.put(&path, json!({ "displayname": "Alice" })).await.ok();
    super::until(&bob, &since, |synced| {
        let timeline = synced["rooms"]["join"][&room]["timeline"]["events"].as_array();
        let mut events = timeline.into_iter().flatten();
        events.any(|event| event["content"]["displayname"] == "Alice")
    })
    .await;
}
