//! Messages to devices and receipts that are said twice, in the name of others, or where their server has no say.

use maru_protocol::wire::LogItem;
use maru_protocol::wire::bounded::Text;
use maru_protocol::wire::log::{Receipt, ToDevice};
use maru_tests::{TestServer, User};
use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId};
use serde_json::{Value, json};

use super::foothold::Foothold;
use super::liar::{Liar, Victim, now_ms};

/// The texts of messages that have come to a user's device.
async fn messages(user: &User) -> Vec<Value> {
    let synced = user.sync(None).await;
    let events = synced.0["to_device"]["events"].as_array();
    let events = events.into_iter().flatten();
    events.map(|event| event["content"]["text"].clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_comes_once_and_from_its_own_server_alone() {
    let server = TestServer::start().await;
    let victim = Victim::of(&server).await;
    let alice = server.user("alice").await;
    let liar = Liar::start(61, &victim);
    let own = format!("@liar:{}", liar.name);
    let message = |id: &str, sender: &str, text: &str| {
        LogItem::ToDevice(ToDevice {
            message_id: Text::new(id).unwrap(),
            sender: OwnedUserId::try_from(sender).unwrap(),
            user_id: OwnedUserId::try_from(&*alice.id).unwrap(),
            device_id: alice.device.as_str().into(),
            event_type: Text::new("org.example.hello").unwrap(),
            content: json!({ "text": text }).to_string().as_str().into(),
        })
    };
    let said = [
        message("1", &own, "first"),
        message("1", &own, "first, said twice"),
        message("2", "@somebody:elsewhere.example", "of a third server"),
        message("3", &alice.id, "of the victim itself"),
        message("4", &own, "second"),
    ];
    liar.say(&victim, said).await;
    // A log that is read again from its beginning, as after a restore.
    liar.say(
        &victim,
        [message("1", &own, "once more"), message("5", &own, "third")],
    )
    .await;
    assert_eq!(messages(&alice).await, ["first", "second", "third"]);
}

/// Each large one is for many devices, and they are more than one page may become.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_comes_also_after_too_much_for_others() {
    let server = TestServer::start().await;
    let victim = Victim::of(&server).await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let devices = format!(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 80) \
         INSERT INTO devices (user_id, device_id, created_at) SELECT '{}', 'MORE' || i, 0 FROM n",
        alice.id
    );
    server.data().run(&devices).await;
    let liar = Liar::start(64, &victim);
    let message = |id: usize, to: &User, text: &str| {
        LogItem::ToDevice(ToDevice {
            message_id: Text::new(&id.to_string()).unwrap(),
            sender: OwnedUserId::try_from(format!("@liar:{}", liar.name)).unwrap(),
            user_id: OwnedUserId::try_from(&*to.id).unwrap(),
            device_id: "*".into(),
            event_type: Text::new("org.example.hello").unwrap(),
            content: json!({ "text": text }).to_string().as_str().into(),
        })
    };
    let large = "x".repeat(65_000);
    let mut said: Vec<_> = (0..7).map(|id| message(id, &alice, &large)).collect();
    said.push(message(7, &bob, "small"));
    liar.say(&victim, said).await;
    assert_eq!(messages(&bob).await, ["small"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_count_from_their_own_server_where_it_is_let_in() {
    let server = TestServer::start().await;
    let victim = Victim::of(&server).await;
    let alice = server.user("alice").await;
    let liar = Liar::start(62, &victim);
    let other = Liar::start(63, &victim);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    let (inside, beside) = (liar.join(&victim, &room).await, other.join(&victim, &room).await);
    let (first, second) = (alice.send(&room, "one").await, alice.send(&room, "two").await);
    let receipt = |of: &Foothold, event: &str| {
        LogItem::Receipt(Receipt {
            room_id: OwnedRoomId::try_from(&*room).unwrap(),
            user_id: of.user.clone(),
            receipt_type: Text::new("m.read").unwrap(),
            event_id: OwnedEventId::try_from(event).unwrap(),
            thread: None,
            ts: now_ms(),
        })
    };
    let elsewhere = "SELECT COUNT(*) FROM receipts WHERE own = 0";
    liar.say(&victim, [receipt(&beside, &first)]).await;
    assert_eq!(
        server.data().number(elsewhere).await,
        0,
        "of another server's user"
    );
    let said = [
        receipt(&inside, "$\0"),
        receipt(&inside, &first),
        receipt(&inside, &first),
    ];
    liar.say(&victim, said).await;
    assert_eq!(server.data().number(elsewhere).await, 1);

    let acl = json!({ "allow": ["*"], "deny": [liar.name] });
    alice.set_state(&room, "m.room.server_acl", "", acl).await;
    liar.say(&victim, [receipt(&inside, &second)]).await;
    other.say(&victim, [receipt(&beside, &second)]).await;
    let read = server.data();
    let moved = "SELECT COUNT(*) FROM receipts WHERE own = 0 AND place = (SELECT MAX(place) FROM receipts)";
    assert_eq!(read.number(elsewhere).await, 2);
    assert_eq!(
        read.number(moved).await,
        1,
        "the one that is kept out has not moved"
    );
}
