//! The size of events is a rule of their room.

use maru_tests::chance::Chance;
use maru_tests::{Engine, TestServer, federate, for_both_engines};
use serde_json::json;

for_both_engines!(no_relation_holds_up_a_room);

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_hangul_characters_cross_intact() {
    let (a, b) = (TestServer::start().await, TestServer::start().await);
    federate(&[&a, &b]).await;
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join_via(&room, a.name()).await.ok();
    let long: String = "가나다라마바사아자차".repeat(10_000);
    assert_eq!(long.chars().count(), 100_000);
    alice.send(&room, &long).await;
    bob.hears(&room, &long).await;
    bob.send(&room, &long).await;
    alice.hears_last(&room, &long).await;
    // Beyond the room's limit nothing is signed.
    let content = json!({ "msgtype": "m.text", "body": "x", "more": "y".repeat(1_048_576) });
    let reply = alice.send_as(&room, "m.room.message", "large", content).await;
    reply.refused(413, "M_TOO_LARGE");
}

/// Relations are looked up by an index, whose entries PostgreSQL keeps short; and its texts hold no NUL.
async fn no_relation_holds_up_a_room(engine: Engine) {
    let (a, b) = (TestServer::start_on(engine).await, TestServer::start().await);
    federate(&[&a, &b]).await;
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join_via(&room, a.name()).await.ok();
    let mut chance = Chance(1);
    let long: String = (0..50_000)
        .filter_map(|_| char::from_digit(u32::try_from(chance.below(36)).unwrap(), 36))
        .collect();
    for (kind, target) in [
        (&*long, "$target"),
        ("m.thread", &*format!("${long}")),
        ("m.thread", "$\0"),
        ("\0", "$target"),
    ] {
        let relation = json!({ "rel_type": kind, "event_id": target });
        let content = json!({ "msgtype": "m.text", "body": "of something", "m.relates_to": relation });
        bob.send_event(&room, "m.room.message", content).await;
    }
    bob.send(&room, "and on").await;
    alice.hears(&room, "and on").await;
}
