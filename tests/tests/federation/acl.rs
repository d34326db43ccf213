//! Rooms that keep servers out.

use maru_tests::{TestServer, federate};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_kept_out_is_heard_no_more_and_cannot_come_in() {
    let servers = TestServer::start_several().await;
    let [a, b, c] = &servers;
    federate(&[a, b, c]).await;
    let (alice, bob, carol) = (a.user("alice").await, b.user("bob").await, c.user("carol").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join_via(&room, a.name()).await.ok();
    bob.send(&room, "still here").await;
    alice.hears(&room, "still here").await;
    let acl = json!({ "allow": ["*"], "deny": [b.name(), c.name()] });
    let event = alice.set_state(&room, "m.room.server_acl", "", acl).await;
    bob.until("the rule", |synced| {
        synced.timeline(&room).contains(&event).then_some(())
    })
    .await;
    bob.send(&room, "unheard").await;
    carol.join_via(&room, a.name()).await.refused(403, "M_FORBIDDEN");
    let invite = format!("rooms/{room}/invite");
    alice
        .post(&invite, json!({ "user_id": carol.id }))
        .await
        .refused(403, "M_FORBIDDEN");
    alice.send(&room, "among us").await;
    let acl = json!({ "allow": ["*"], "deny": [] });
    alice.set_state(&room, "m.room.server_acl", "", acl).await;
    carol.join_via(&room, a.name()).await.ok();
    carol.send(&room, "at last").await;
    alice.hears(&room, "at last").await;
    let heard = maru_tests::user::texts(&alice.history(&room).await);
    assert!(heard.contains(&"among us".to_owned()));
    assert!(!heard.contains(&"unheard".to_owned()), "{heard:?}");
}
