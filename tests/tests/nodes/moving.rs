//! A device that goes from node to node with its cursor and its token, as behind a plain load balancer.

use maru_tests::user::encode;
use serde_json::{Value, json};

use super::two_nodes;

#[tokio::test]
async fn a_cursor_of_one_node_is_good_on_another_at_once() {
    let [one, two] = two_nodes().await;
    let alice = one.user("alice").await;
    let there = alice.on(two.api());
    let room = alice.create_room(json!({})).await;
    let mut since = alice.sync(None).await.next();
    for n in 0..20 {
        // Sent on one node, read with the newest cursor on the other: never a first sync, never a gap.
        let (sends, reads) = if n % 2 == 0 {
            (&alice, &there)
        } else {
            (&there, &alice)
        };
        let event = sends.send(&room, &format!("{n}")).await;
        since = sends.sync(Some(&since)).await.next();
        let synced = reads.sync(Some(&since)).await;
        assert_eq!(
            synced.0["rooms"],
            Value::Null,
            "nothing is new, least of all everything: {:#}",
            synced.0
        );
        since = synced.next();
        let read = reads
            .get(&format!("rooms/{}/event/{}", encode(&room), encode(&event)))
            .await
            .ok();
        assert_eq!(read["content"]["body"], format!("{n}"));
    }
}

#[tokio::test]
async fn a_cursor_at_a_commit_of_which_nobody_hears_is_good_on_the_node_that_made_it() {
    let [one, two] = two_nodes().await;
    let alice = one.user("alice").await;
    let bob = two.user("bob").await;
    // A login token takes a position, and no device hears of it.
    bob.post(
        "/_matrix/client/v1/login/get_token",
        json!({ "auth": {
        "type": "m.login.password",
        "identifier": { "type": "m.id.user", "user": bob.name },
        "password": bob.password,
    } }),
    )
    .await
    .ok();
    // The other node comes that far, and gives it to a device, which goes to the one that made it.
    let position = two.parts().store.log.position();
    one.parts().notifier.reached(position).await;
    let since = alice.sync(None).await.next();
    let synced = alice.on(two.api()).sync(Some(&since)).await;
    assert_eq!(synced.0["rooms"], Value::Null, "{:#}", synced.0);
}

#[tokio::test]
async fn who_logs_out_on_one_node_is_logged_out_on_the_other() {
    let [one, two] = two_nodes().await;
    let alice = one.user("alice").await;
    let phone = alice.second_device().await;
    let there = phone.on(two.api());
    let since = there.sync(None).await.next();
    let waiting = {
        let (there, since) = (there.clone(), since.clone());
        tokio::spawn(async move {
            let mut since = since;
            loop {
                let path = format!("sync?timeout=30000&since={}", encode(&since));
                let reply = there.get(&path).await;
                if reply.status == 401 {
                    return reply;
                }
                since = reply.ok()["next_batch"].as_str().unwrap().to_owned();
            }
        })
    };
    phone.post("logout", json!({})).await.ok();
    waiting.await.unwrap().refused(401, "M_UNKNOWN_TOKEN");
    there.get("account/whoami").await.refused(401, "M_UNKNOWN_TOKEN");
}

#[tokio::test]
async fn a_retry_on_another_node_makes_no_second_message() {
    let [one, two] = two_nodes().await;
    let alice = one.user("alice").await;
    let there = alice.on(two.api());
    let room = alice.create_room(json!({})).await;
    let content = json!({ "msgtype": "m.text", "body": "once" });
    // The other node has the ids of the device in memory before this one is used.
    there
        .send_as(&room, "m.room.message", "first", content.clone())
        .await
        .ok();
    let sent = alice
        .send_as(&room, "m.room.message", "txn", content.clone())
        .await
        .ok();
    let again = there
        .send_as(&room, "m.room.message", "txn", content.clone())
        .await
        .ok();
    assert_eq!(sent["event_id"], again["event_id"]);
    // Both at once.
    let (left, right) = tokio::join!(
        alice.send_as(&room, "m.room.message", "both", content.clone()),
        there.send_as(&room, "m.room.message", "both", content.clone())
    );
    assert_eq!(left.ok()["event_id"], right.ok()["event_id"]);
    let history = alice.history(&room).await;
    let messages = history.iter().filter(|event| event["type"] == "m.room.message");
    assert_eq!(messages.count(), 3);
}

#[tokio::test]
async fn an_action_that_is_begun_on_one_node_is_confirmed_on_another() {
    let [one, two] = two_nodes().await;
    let alice = one.user("alice").await;
    let there = alice.on(two.api());
    let phone = alice.second_device().await;
    let asked = alice
        .post("delete_devices", json!({ "devices": [phone.device] }))
        .await;
    assert_eq!(asked.status, 401);
    let session = asked.json["session"].clone();
    let auth = json!({
        "type": "m.login.password",
        "identifier": { "type": "m.id.user", "user": alice.name },
        "password": alice.password,
        "session": session,
    });
    there
        .post(
            "delete_devices",
            json!({ "devices": [phone.device], "auth": auth }),
        )
        .await
        .ok();
    phone.get("account/whoami").await.refused(401, "M_UNKNOWN_TOKEN");
}

#[tokio::test]
async fn keys_that_are_claimed_on_one_node_are_missed_on_the_other() {
    let [one, two] = two_nodes().await;
    let [alice, bob] = [one.user("alice").await, two.user("bob").await];
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    let keys = json!({ "one_time_keys": {
        "signed_curve25519:A": { "key": "a", "signatures": {} },
        "signed_curve25519:B": { "key": "b", "signatures": {} },
    } });
    alice.post("keys/upload", keys).await.ok();
    let since = alice.sync(None).await;
    assert_eq!(since.0["device_one_time_keys_count"]["signed_curve25519"], 2);
    let claim =
        json!({ "one_time_keys": { alice.id.clone(): { alice.device.clone(): "signed_curve25519" } } });
    let claimed = bob.post("keys/claim", claim).await.ok();
    assert!(claimed["one_time_keys"][&alice.id].is_object(), "{claimed}");
    // A cursor of the other node makes this one come as far.
    bob.set_state(
        &bob.create_room(json!({})).await,
        "m.room.topic",
        "",
        json!({ "topic": "later" }),
    )
    .await;
    let later = bob.sync(None).await.next();
    bob.on(one.api()).sync(Some(&later)).await;
    let synced = alice.sync(Some(&since.next())).await;
    assert_eq!(synced.0["device_one_time_keys_count"]["signed_curve25519"], 1);
}

#[tokio::test]
async fn rules_that_are_made_on_one_node_count_on_the_other() {
    let [one, two] = two_nodes().await;
    let [alice, bob] = [one.user("alice").await, two.user("bob").await];
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    let rule = json!({ "actions": ["notify", { "set_tweak": "highlight" }], "pattern": "마루" });
    alice.put("pushrules/global/content/maru", rule).await.ok();
    let since = alice.sync(None).await.next();
    // A cursor of the one makes the other come as far.
    alice.on(two.api()).sync(Some(&since)).await;
    bob.send(&room, "a word on 마루 here").await;
    let later = bob.sync(None).await.next();
    bob.on(one.api()).sync(Some(&later)).await;
    let synced = alice.sync(Some(&since)).await;
    assert_eq!(synced.texts(&room), ["a word on 마루 here"], "{:#}", synced.0);
    let unread = synced.room(&room)["unread_notifications"].clone();
    assert_eq!(unread["highlight_count"], 1, "{unread}");
}
