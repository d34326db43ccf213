//! Two people and a room: the thinnest thread through everything.

use maru::config::Rate;
use maru_tests::user::{encode, texts};
use maru_tests::{TestServer, on_both_engines};
use serde_json::json;

on_both_engines!(
    a_hundred_thousand_characters_arrive_intact,
    invitations_of_a_new_room_count_like_others,
    a_retry_makes_no_second_message,
    a_retry_after_a_restart_makes_no_second_message
);

/// Every Hangul syllable in turn.
fn hangul(characters: u32) -> String {
    (0..characters)
        .map(|n| char::from_u32(0xAC00 + n % 11_172).unwrap())
        .collect()
}

async fn a_hundred_thousand_characters_arrive_intact(server: TestServer) {
    let [alice, bob] = [server.user("alice").await, server.user("bob").await];
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    let since = bob.sync(None).await.next();
    let text = hangul(100_000);
    let event = alice.send(&room, &text).await;
    let (news, _) = bob.news(&room, &since).await;
    assert!(texts(&news) == [text.clone()], "by sync");
    let content = json!({ "msgtype": "m.text", "body": hangul(100_001) });
    alice
        .send_as(&room, "m.room.message", "too-long", content)
        .await
        .refused(413, "M_TOO_LARGE");

    let server = server.restart().await;
    let bob = bob.on(server.api());
    let path = format!("rooms/{}/event/{}", encode(&room), encode(&event));
    let read = bob.get(&path).await.ok();
    assert!(read["content"]["body"] == text, "from the database");
    let last = bob.history(&room).await.pop().unwrap();
    assert_eq!(last["event_id"], *event, "the longer one was not stored");
}

async fn invitations_of_a_new_room_count_like_others(server: TestServer) {
    let engine = server.data().engine();
    drop(server);
    let server = TestServer::start_with(engine, |config| {
        config.rate_limits = true;
        config.rates.invites_per_user = Rate {
            per_second: 0.001,
            burst: 3,
        };
    })
    .await;
    let alice = server.user("alice").await;
    let mut others = Vec::new();
    for name in ["bob", "carol", "dave", "erin"] {
        others.push(server.user(name).await.id);
    }
    let room = alice.create_room(json!({ "invite": others[..2] })).await;
    let too_many = alice.post("createRoom", json!({ "invite": others[2..] })).await;
    too_many.refused(429, "M_LIMIT_EXCEEDED");
    assert!(too_many.headers.contains_key("retry-after"));
    let invite = async |whom: &str| {
        let path = format!("rooms/{}/invite", encode(&room));
        alice.post(&path, json!({ "user_id": whom })).await
    };
    invite(&others[2]).await.ok();
    invite(&others[3]).await.refused(429, "M_LIMIT_EXCEEDED");
    alice.create_room(json!({})).await;
}

async fn a_retry_makes_no_second_message(server: TestServer) {
    let alice = server.user("alice").await;
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    let content = json!({ "msgtype": "m.text", "body": "once" });
    let send = || alice.send_as(&room, "m.room.message", "one", content.clone());
    let (first, second) = tokio::join!(send(), send());
    let third = send().await.ok();
    assert_eq!(first.ok(), third);
    assert_eq!(second.ok(), third);
    let other = alice
        .send_as(&room, "m.room.message", "two", content.clone())
        .await;
    assert_ne!(other.ok(), third);
}

async fn a_retry_after_a_restart_makes_no_second_message(server: TestServer) {
    let alice = server.user("alice").await;
    let room = alice.create_room(json!({})).await;
    let content = json!({ "msgtype": "m.text", "body": "once" });
    let before = alice
        .send_as(&room, "m.room.message", "one", content.clone())
        .await
        .ok();
    let server = server.restart().await;
    let alice = alice.on(server.api());
    let after = alice.send_as(&room, "m.room.message", "one", content).await.ok();
    assert_eq!(before, after);
}
