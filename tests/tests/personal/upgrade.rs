//! What a user keeps about a room, after the room was replaced by another.

use maru_tests::user::encode;
use maru_tests::{TestServer, User, on_both_engines};
use serde_json::{Value, json};

use super::{of_user, room_of};

on_both_engines!(settings_follow_into_the_room_that_replaces_another);

async fn tag(user: &User, room: &str, tag: &str) {
    let path = of_user(user, &format!("rooms/{}/tags/{tag}", encode(room)));
    user.put(&path, json!({ "order": 0.25 })).await.ok();
}

async fn tags(user: &User, room: &str) -> Value {
    let path = of_user(user, &format!("rooms/{}/tags", encode(room)));
    user.get(&path).await.ok()["tags"].clone()
}

/// The ids of a user's rules of one kind.
async fn rules(user: &User, kind: &str) -> Vec<String> {
    let rules = user.get("pushrules/global/").await.ok();
    let ids = rules[kind].as_array().unwrap().iter();
    ids.map(|rule| rule["rule_id"].as_str().unwrap().to_owned())
        .collect()
}

async fn settings_follow_into_the_room_that_replaces_another(server: TestServer) {
    let [alice, bob] = [server.user("alice").await, server.user("bob").await];
    let old = room_of(&[&alice, &bob]).await;
    let other = room_of(&[&alice, &bob]).await;
    for user in [&alice, &bob] {
        tag(user, &old, "m.favourite").await;
        let direct = json!({ "@carol:example.org": [old, other], "@dave:example.org": [other] });
        user.put(&of_user(user, "account_data/m.direct"), direct)
            .await
            .ok();
        let quiet = json!({ "actions": [] });
        user.put(&format!("pushrules/global/room/{}", encode(&old)), quiet)
            .await
            .ok();
        let mute = json!({
            "actions": [], "conditions": [{ "kind": "event_match", "key": "room_id", "pattern": old }],
        });
        user.put(&format!("pushrules/global/override/{}", encode(&old)), mute)
            .await
            .ok();
    }
    let off = format!("pushrules/global/override/{}/enabled", encode(&old));
    bob.put(&off, json!({ "enabled": false })).await.ok();

    let path = format!("rooms/{}/upgrade", encode(&old));
    let upgraded = alice.post(&path, json!({ "new_version": "12" })).await.ok();
    let new = upgraded["replacement_room"].as_str().unwrap().to_owned();
    bob.join(&new).await;
    for user in [&alice, &bob] {
        assert_eq!(
            tags(user, &new).await,
            json!({ "m.favourite": { "order": 0.25 } })
        );
        let direct = user.get(&of_user(user, "account_data/m.direct")).await.ok();
        let wanted = json!({ "@carol:example.org": [old, other, new], "@dave:example.org": [other] });
        assert_eq!(direct, wanted);
        assert!(rules(user, "room").await.contains(&new));
        assert!(rules(user, "override").await.contains(&new));
    }
    let path = format!("pushrules/global/override/{}", encode(&new));
    let of_bob = bob.get(&path).await.ok();
    assert_eq!(of_bob["enabled"], false);
    assert_eq!(of_bob["conditions"][0]["pattern"], new.as_str());

    // Who comes again keeps what was changed meanwhile.
    tag(&bob, &new, "u.work").await;
    bob.delete(&of_user(
        &bob,
        &format!("rooms/{}/tags/m.favourite", encode(&new)),
    ))
    .await
    .ok();
    bob.leave(&new).await;
    bob.join(&new).await;
    assert_eq!(tags(&bob, &new).await, json!({ "u.work": { "order": 0.25 } }));

    // A room that only claims to replace another is given nothing.
    let claim = json!({
        "preset": "public_chat", "creation_content": { "predecessor": { "room_id": other, "event_id": "$x" } },
    });
    tag(&bob, &other, "u.tea").await;
    let claimed = alice.create_room(claim).await;
    bob.join(&claimed).await;
    assert_eq!(tags(&bob, &claimed).await, json!({}));
}
