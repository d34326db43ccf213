//! What is taken back is gone everywhere.

use maru_tests::user::encode;
use maru_tests::{TestServer, federate};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_redaction_reaches_those_who_have_the_event_and_those_who_come_later() {
    let servers = TestServer::start_several().await;
    let [a, b, c] = &servers;
    federate(&[a, b, c]).await;
    let (alice, bob, carol) = (a.user("alice").await, b.user("bob").await, c.user("carol").await);
    for version in ["10", "12"] {
        let room = alice
            .create_room(json!({ "preset": "public_chat", "room_version": version }))
            .await;
        bob.join_via(&room, a.name()).await.ok();
        let said = bob.send(&room, "regretted").await;
        alice.hears(&room, "regretted").await;
        let redaction = bob.redact(&room, &said).await;
        alice
            .until("the redaction", |synced| {
                synced.timeline(&room).contains(&redaction).then_some(())
            })
            .await;
        // One that comes later has the redaction in its first page and the event in a later one.
        carol.join_via(&room, a.name()).await.ok();
        carol.history(&room).await;
        for user in [&alice, &bob, &carol] {
            let event = user
                .get(&format!("rooms/{room}/event/{}", encode(&said)))
                .await
                .ok();
            assert_eq!(event["content"], json!({}), "{}", user.id);
            assert_eq!(
                event["unsigned"]["redacted_because"]["event_id"],
                redaction.as_str()
            );
        }
        for server in [a, b, c] {
            let stored = server
                .parts()
                .store
                .rooms
                .event(said.as_str().try_into().unwrap())
                .await
                .unwrap();
            assert!(!stored.unwrap().event.json.contains("regretted"));
        }
    }
}
