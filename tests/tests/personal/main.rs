//! What belongs to one user or device over the client API: account data, receipts, push rules, typing, presence, keys,
//! messages to devices, media.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test may stop where something cannot be"
)]

mod erased;
mod key_backups;
mod keys;
mod media;
mod media_in_a_bucket;
mod quota;
mod upgrade;

use maru_tests::user::encode;
use maru_tests::{Synced, TestServer, User, on_both_engines};
use serde_json::{Value, json};

on_both_engines!(
    account_data_is_kept_and_told_to_all_devices,
    what_only_the_server_writes_is_refused,
    tags_are_changed_one_by_one,
    filters_are_kept_once,
    a_receipt_never_moves_back,
    private_receipts_stay_private,
    counts_follow_the_push_rules,
    own_push_rules_decide_for_their_owner_alone,
    push_rules_are_checked,
    push_rules_that_make_too_much_work_are_refused,
    every_kind_of_push_rule_is_there,
    typing_is_told_and_ends,
    presence_is_for_those_who_share_a_room,
    a_client_finds_what_it_asks_for_first,
);

/// A public room with these people in it.
async fn room_of(people: &[&User]) -> String {
    let room = people[0].create_room(json!({ "preset": "public_chat" })).await;
    for user in &people[1..] {
        user.join(&room).await;
    }
    room
}

fn of_user(user: &User, rest: &str) -> String {
    format!("user/{}/{rest}", encode(&user.id))
}

fn of_room(room: &str, rest: &str) -> String {
    format!("rooms/{}/{rest}", encode(room))
}

/// The content of the first event of a type in a list.
fn content<'v>(events: &'v Value, event_type: &str) -> Option<&'v Value> {
    let mut events = events.as_array()?.iter();
    Some(&events.find(|event| event["type"] == event_type)?["content"])
}

async fn account_data_is_kept_and_told_to_all_devices(server: TestServer) {
    let alice = server.user("alice").await;
    let phone = alice.second_device().await;
    let room = room_of(&[&alice]).await;
    let since = phone.sync(None).await.next();
    let global = of_user(&alice, "account_data/m.direct");
    let data = json!({ "@bob:example.org": ["!room"], "float": 0.5 });
    alice.get(&global).await.refused(404, "M_NOT_FOUND");
    alice.put(&global, data.clone()).await.ok();
    assert_eq!(phone.get(&global).await.ok(), data);
    let of_the_room = of_user(
        &alice,
        &format!("rooms/{}/account_data/org.example", encode(&room)),
    );
    alice.put(&of_the_room, json!({ "a": 1 })).await.ok();
    let synced = phone.sync(Some(&since)).await;
    assert_eq!(
        content(&synced.0["account_data"]["events"], "m.direct"),
        Some(&data)
    );
    let in_room = &synced.room(&room)["account_data"]["events"];
    assert_eq!(content(in_room, "org.example"), Some(&json!({ "a": 1 })));
}

async fn what_only_the_server_writes_is_refused(server: TestServer) {
    let [alice, bob] = [server.user("alice").await, server.user("bob").await];
    let room = room_of(&[&alice]).await;
    for rest in [
        "account_data/m.push_rules".to_owned(),
        format!("rooms/{}/account_data/m.fully_read", encode(&room)),
    ] {
        let path = of_user(&alice, &rest);
        alice.put(&path, json!({})).await.refused(405, "M_BAD_JSON");
        bob.put(&path, json!({})).await.refused(403, "M_FORBIDDEN");
    }
    let path = of_user(&alice, "account_data/a");
    alice.put(&path, json!([])).await.refused(400, "M_BAD_JSON");
    let foreign = of_user(&bob, &format!("rooms/{}/account_data/a", encode(&room)));
    bob.put(&foreign, json!({})).await.refused(404, "M_NOT_FOUND");
}

async fn tags_are_changed_one_by_one(server: TestServer) {
    let alice = server.user("alice").await;
    let room = room_of(&[&alice]).await;
    let tags = of_user(&alice, &format!("rooms/{}/tags", encode(&room)));
    alice
        .put(&format!("{tags}/m.favourite"), json!({ "order": 0.5 }))
        .await
        .ok();
    alice.put(&format!("{tags}/u.work"), json!({})).await.ok();
    let both = json!({ "tags": { "m.favourite": { "order": 0.5 }, "u.work": {} } });
    assert_eq!(alice.get(&tags).await.ok(), both);
    let synced = alice.sync(None).await;
    assert_eq!(
        content(&synced.room(&room)["account_data"]["events"], "m.tag"),
        Some(&both)
    );
    alice.delete(&format!("{tags}/m.favourite")).await.ok();
    assert_eq!(alice.get(&tags).await.ok(), json!({ "tags": { "u.work": {} } }));
}

async fn filters_are_kept_once(server: TestServer) {
    let [alice, bob] = [server.user("alice").await, server.user("bob").await];
    let filter = json!({ "room": { "timeline": { "limit": 7 } } });
    let path = of_user(&alice, "filter");
    let first = alice.post(&path, filter.clone()).await.ok()["filter_id"].clone();
    assert_eq!(alice.post(&path, filter.clone()).await.ok()["filter_id"], first);
    let other = alice.post(&path, json!({})).await.ok()["filter_id"].clone();
    assert_ne!(other, first);
    let stored = format!("{path}/{}", first.as_str().unwrap());
    assert_eq!(alice.get(&stored).await.ok(), filter);
    bob.get(&stored).await.refused(403, "M_FORBIDDEN");
    alice
        .get(&format!("{path}/none"))
        .await
        .refused(404, "M_NOT_FOUND");
    alice
        .post(&path, json!({ "room": 3 }))
        .await
        .refused(400, "M_BAD_JSON");
}

/// The receipts in a sync: type, reader and event.
fn receipts(synced: &Synced, room: &str) -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    let content = content(&synced.room(room)["ephemeral"]["events"], "m.receipt").cloned();
    for (event, types) in content.unwrap_or(json!({})).as_object().unwrap() {
        for (kind, readers) in types.as_object().unwrap() {
            for reader in readers.as_object().unwrap().keys() {
                found.push((kind.clone(), reader.clone(), event.clone()));
            }
        }
    }
    found
}

async fn a_receipt_never_moves_back(server: TestServer) {
    let [alice, bob] = [server.user("alice").await, server.user("bob").await];
    let room = room_of(&[&alice, &bob]).await;
    let (first, second) = (alice.send(&room, "1").await, alice.send(&room, "2").await);
    let since = alice.sync(None).await.next();
    for event in [&second, &first] {
        let path = of_room(&room, &format!("receipt/m.read/{}", encode(event)));
        bob.post(&path, json!({})).await.ok();
    }
    let expected = vec![("m.read".to_owned(), bob.id.clone(), second.clone())];
    assert_eq!(receipts(&alice.sync(Some(&since)).await, &room), expected);
    assert_eq!(receipts(&alice.sync(None).await, &room), expected);
    let markers = of_room(&room, "read_markers");
    for event in [&second, &first] {
        bob.post(&markers, json!({ "m.fully_read": event })).await.ok();
    }
    let marker = of_user(
        &bob,
        &format!("rooms/{}/account_data/m.fully_read", encode(&room)),
    );
    assert_eq!(bob.get(&marker).await.ok(), json!({ "event_id": second }));
    let unknown = of_room(&room, "receipt/m.read/$unknown");
    bob.post(&unknown, json!({})).await.refused(404, "M_NOT_FOUND");
    let wrong = of_room(&room, &format!("receipt/m.fully_read/{}", encode(&second)));
    bob.post(&wrong, json!({ "thread_id": "main" }))
        .await
        .refused(400, "M_INVALID_PARAM");
}

async fn private_receipts_stay_private(server: TestServer) {
    let [alice, bob] = [server.user("alice").await, server.user("bob").await];
    let room = room_of(&[&alice, &bob]).await;
    let event = alice.send(&room, "1").await;
    let path = of_room(&room, &format!("receipt/m.read.private/{}", encode(&event)));
    bob.post(&path, json!({})).await.ok();
    assert_eq!(receipts(&alice.sync(None).await, &room), []);
    let own = ("m.read.private".to_owned(), bob.id.clone(), event);
    assert_eq!(receipts(&bob.sync(None).await, &room), [own]);
}

/// Unread and highlighted messages in a room.
async fn unread(user: &User, room: &str) -> (u64, u64) {
    let synced = user.sync(None).await;
    let counts = &synced.room(room)["unread_notifications"];
    let count = |name: &str| counts[name].as_u64().unwrap_or(0);
    (count("notification_count"), count("highlight_count"))
}

async fn say(user: &User, room: &str, content: Value) -> String {
    user.send_event(room, "m.room.message", content).await
}

async fn counts_follow_the_push_rules(server: TestServer) {
    let [alice, bob] = [server.user("alice").await, server.user("bob").await];
    let carol = server.user("carol").await;
    let room = room_of(&[&alice, &bob, &carol]).await;
    let first = alice.send(&room, "hello").await;
    say(
        &alice,
        &room,
        json!({ "msgtype": "m.notice", "body": "a machine speaks" }),
    )
    .await;
    let edit = json!({ "msgtype": "m.text", "body": "* hello", "m.new_content": { "msgtype": "m.text", "body": "hello" },
        "m.relates_to": { "rel_type": "m.replace", "event_id": first } });
    say(&alice, &room, edit).await;
    assert_eq!(unread(&bob, &room).await, (1, 0));
    let mention =
        json!({ "msgtype": "m.text", "body": "bob", "m.mentions": { "user_ids": [bob.id, alice.id] } });
    let mention = say(&alice, &room, mention).await;
    assert_eq!(unread(&bob, &room).await, (2, 1));
    assert_eq!(unread(&carol, &room).await, (2, 0));
    assert_eq!(unread(&alice, &room).await, (0, 0));
    // Only who has the power to can mention everybody.
    let everybody = json!({ "msgtype": "m.text", "body": "@room", "m.mentions": { "room": true } });
    say(&alice, &room, everybody.clone()).await;
    assert_eq!(unread(&carol, &room).await, (3, 1));
    say(&bob, &room, everybody).await;
    assert_eq!(unread(&carol, &room).await, (4, 1));
    assert_eq!(unread(&bob, &room).await, (0, 0), "who speaks has read");
    alice.redact(&room, &mention).await;
    assert_eq!(
        unread(&carol, &room).await,
        (3, 1),
        "a redacted message counts no more"
    );
    let read = of_room(
        &room,
        &format!("receipt/m.read/{}", encode(&alice.send(&room, "bye").await)),
    );
    carol.post(&read, json!({})).await.ok();
    assert_eq!(unread(&carol, &room).await, (0, 0));
}

async fn own_push_rules_decide_for_their_owner_alone(server: TestServer) {
    let [alice, bob] = [server.user("alice").await, server.user("bob").await];
    let carol = server.user("carol").await;
    let room = room_of(&[&alice, &bob, &carol]).await;
    let since = bob.sync(None).await.next();
    let muted = format!("pushrules/global/room/{}", encode(&room));
    bob.put(&muted, json!({ "actions": [] })).await.ok();
    let rules = bob.sync(Some(&since)).await;
    let rules = content(&rules.0["account_data"]["events"], "m.push_rules")
        .cloned()
        .unwrap();
    assert_eq!(rules["global"]["room"][0]["rule_id"], room.as_str());
    assert_eq!(rules["global"]["override"][0]["rule_id"], ".m.rule.master");
    alice.send(&room, "hello").await;
    assert_eq!(
        (unread(&bob, &room).await, unread(&carol, &room).await),
        ((0, 0), (1, 0))
    );
    let cake = json!({ "pattern": "cake", "actions": ["notify", { "set_tweak": "highlight" }] });
    bob.put("pushrules/global/content/cake", cake).await.ok();
    alice.send(&room, "There is Cake.").await;
    assert_eq!(
        (unread(&bob, &room).await, unread(&carol, &room).await),
        ((1, 1), (2, 0))
    );
    // In a room that is joined later, and after a restart, the rules hold as well.
    let server = server.restart().await;
    let [alice, bob] = [alice.on(server.api()), bob.on(server.api())];
    let later = room_of(&[&alice, &bob]).await;
    alice.send(&later, "no pancake").await;
    alice.send(&later, "cake again").await;
    assert_eq!(unread(&bob, &later).await, (2, 1));
    bob.delete("pushrules/global/content/cake").await.ok();
    alice.send(&later, "the last cake").await;
    assert_eq!(unread(&bob, &later).await, (3, 1));
}

async fn push_rules_are_checked(server: TestServer) {
    let alice = server.user("alice").await;
    let all = alice.get("pushrules/").await.ok();
    assert_eq!(all["global"]["underride"][0]["rule_id"], ".m.rule.call");
    let notices = "pushrules/global/override/.m.rule.suppress_notices";
    assert_eq!(alice.get(notices).await.ok()["enabled"], true);
    alice
        .put(&format!("{notices}/enabled"), json!({ "enabled": false }))
        .await
        .ok();
    assert_eq!(
        alice.get(&format!("{notices}/enabled")).await.ok(),
        json!({ "enabled": false })
    );
    alice
        .put(&format!("{notices}/actions"), json!({ "actions": ["notify"] }))
        .await
        .ok();
    assert_eq!(
        alice.get(&format!("{notices}/actions")).await.ok(),
        json!({ "actions": ["notify"] })
    );
    alice.delete(notices).await.refused(400, "M_INVALID_PARAM");
    alice
        .delete("pushrules/global/content/none")
        .await
        .refused(404, "M_NOT_FOUND");
    alice
        .get("pushrules/global/content/none")
        .await
        .refused(404, "M_NOT_FOUND");
    let rule = json!({ "actions": ["notify"], "pattern": "x" });
    alice
        .put("pushrules/global/content/.mine", rule.clone())
        .await
        .refused(400, "M_INVALID_PARAM");
    alice.put("pushrules/global/content/a", rule.clone()).await.ok();
    alice
        .put("pushrules/global/content/b?after=a", rule.clone())
        .await
        .ok();
    alice
        .put("pushrules/global/content/c?before=none", rule.clone())
        .await
        .refused(404, "M_NOT_FOUND");
    let rules = alice.get("pushrules/").await.ok();
    let ids: Vec<_> = rules["global"]["content"]
        .as_array()
        .unwrap()
        .iter()
        .map(|rule| &rule["rule_id"])
        .collect();
    assert_eq!(ids, ["a", "b"]);
    let long = json!({ "actions": [], "pattern": "?".repeat(100_000) });
    alice
        .put("pushrules/global/content/d", long)
        .await
        .refused(413, "M_TOO_LARGE");
}

async fn push_rules_that_make_too_much_work_are_refused(server: TestServer) {
    let [alice, bob] = [server.user("alice").await, server.user("bob").await];
    let room = room_of(&[&alice, &bob]).await;
    let condition =
        |pattern: &str| json!({ "kind": "event_match", "key": "content.body", "pattern": pattern });
    let rule = |conditions: Vec<Value>| json!({ "actions": ["notify"], "conditions": conditions });
    let wild = rule(vec![condition("*?*?*?*?*?*?*?*?"); 50]);
    let plain = rule(vec![condition("word"); 49]);
    let mut long = rule(vec![condition("word")]);
    long["actions"] = json!([{ "set_tweak": "sound", "value": "x".repeat(40_000) }]);
    for (kind, rule, fitting) in [("wild", wild, 2), ("plain", plain, 18), ("long", long, 1)] {
        let path = |n: usize| format!("pushrules/global/override/{kind}{n}");
        for n in 0..fitting {
            alice.put(&path(n), rule.clone()).await.ok();
        }
        alice
            .put(&path(fitting), rule.clone())
            .await
            .refused(413, "M_TOO_LARGE");
        alice.get(&path(fitting)).await.refused(404, "M_NOT_FOUND");
    }
    let changed = json!({ "actions": vec![json!({ "set_tweak": "sound", "value": "x".repeat(900) }); 50] });
    alice
        .put("pushrules/global/override/wild0/actions", changed)
        .await
        .refused(413, "M_TOO_LARGE");
    // What the rules have no steps left for is judged by the others.
    let since = alice.sync(None).await.next();
    for (body, highlights) in [("x".repeat(100_000), 0), (format!("hello {}", alice.id), 0)] {
        bob.send(&room, &body).await;
        let synced = alice.sync(Some(&since)).await;
        let counts = &synced.room(&room)["unread_notifications"];
        assert_eq!(counts["highlight_count"], highlights);
        assert!(counts["notification_count"].as_u64().unwrap() > 0);
    }
}

async fn every_kind_of_push_rule_is_there(server: TestServer) {
    let alice = server.user("alice").await;
    let changed = async || {
        let rule = json!({ "actions": ["notify"], "pattern": "tea" });
        alice.put("pushrules/global/content/tea", rule).await.ok();
        alice.delete("pushrules/global/content/tea").await.ok();
    };
    let path = of_user(&alice, "account_data/m.push_rules");
    for round in 0..2 {
        let since = alice.sync(None).await.next();
        let rules = alice.get("pushrules/").await.ok()["global"].clone();
        for kind in ["override", "content", "room", "sender", "underride"] {
            assert!(rules[kind].is_array(), "round {round}: no {kind} in {rules}");
        }
        assert_eq!(alice.get("pushrules/global/").await.ok(), rules);
        assert_eq!(alice.get(&path).await.ok()["global"], rules);
        let synced = alice.sync(None).await.0;
        let told = content(&synced["account_data"]["events"], "m.push_rules").unwrap();
        assert_eq!(told["global"], rules);
        changed().await;
        let synced = alice.sync(Some(&since)).await.0;
        let told = content(&synced["account_data"]["events"], "m.push_rules").unwrap();
        assert_eq!(told["global"], alice.get("pushrules/").await.ok()["global"]);
    }
}

async fn typing_is_told_and_ends(server: TestServer) {
    let [alice, bob] = [server.user("alice").await, server.user("bob").await];
    let room = room_of(&[&alice, &bob]).await;
    let since = alice.sync(None).await.next();
    let path = of_room(&room, &format!("typing/{}", encode(&bob.id)));
    alice
        .put(&path, json!({ "typing": true, "timeout": 1000 }))
        .await
        .refused(403, "M_FORBIDDEN");
    bob.put(&path, json!({ "typing": true, "timeout": 60_000 }))
        .await
        .ok();
    let typing = |synced: &Synced| content(&synced.room(&room)["ephemeral"]["events"], "m.typing").cloned();
    let synced = alice.wait(&since).await;
    assert_eq!(typing(&synced), Some(json!({ "user_ids": [bob.id] })));
    bob.put(&path, json!({ "typing": false })).await.ok();
    let synced = alice.wait(&synced.next()).await;
    assert_eq!(typing(&synced), Some(json!({ "user_ids": [] })));
    // For how long need not be said.
    bob.put(&path, json!({ "typing": true })).await.ok();
    let synced = alice.wait(&synced.next()).await;
    assert_eq!(typing(&synced), Some(json!({ "user_ids": [bob.id] })));
    bob.put(&path, json!({ "typing": false })).await.ok();
    let synced = alice.wait(&synced.next()).await;
    bob.put(&path, json!({})).await.refused(400, "M_BAD_JSON");
    // What is not ended by hand ends by itself.
    bob.put(&path, json!({ "typing": true, "timeout": 1 })).await.ok();
    let mut synced = alice.wait(&synced.next()).await;
    while typing(&synced) != Some(json!({ "user_ids": [] })) {
        synced = alice.wait(&synced.next()).await;
    }
    let elsewhere = room_of(&[&alice]).await;
    let path = of_room(&elsewhere, &format!("typing/{}", encode(&bob.id)));
    bob.put(&path, json!({ "typing": true, "timeout": 1 }))
        .await
        .refused(403, "M_FORBIDDEN");
}

async fn presence_is_for_those_who_share_a_room(server: TestServer) {
    let [alice, bob] = [server.user("alice").await, server.user("bob").await];
    let mallory = server.user("mallory").await;
    room_of(&[&alice, &bob]).await;
    let since = alice.sync(None).await.next();
    let path = format!("presence/{}/status", encode(&bob.id));
    alice
        .put(&path, json!({ "presence": "online" }))
        .await
        .refused(403, "M_FORBIDDEN");
    let status = json!({ "presence": "unavailable", "status_msg": "at lunch" });
    bob.put(&path, status).await.ok();
    let seen = alice.get(&path).await.ok();
    assert_eq!(
        (&seen["presence"], &seen["status_msg"]),
        (&json!("unavailable"), &json!("at lunch"))
    );
    mallory.get(&path).await.refused(403, "M_FORBIDDEN");
    bob.put(&path, json!({ "presence": "dancing" }))
        .await
        .refused(400, "M_INVALID_PARAM");
    let told = |synced: &Synced| {
        let events = synced.0["presence"]["events"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        events
            .into_iter()
            .find(|event| event["sender"] == bob.id.as_str())
    };
    let mut synced = alice.wait(&since).await;
    while told(&synced).is_none() {
        synced = alice.wait(&synced.next()).await;
    }
    assert_eq!(told(&synced).unwrap()["content"]["presence"], "unavailable");
}

async fn a_client_finds_what_it_asks_for_first(server: TestServer) {
    let alice = server.user("alice").await;
    let capabilities = alice.get("capabilities").await.ok();
    let versions = &capabilities["capabilities"]["m.room_versions"];
    assert_eq!(versions["default"], "12");
    assert_eq!(
        versions["available"],
        json!({ "10": "stable", "11": "stable", "12": "stable" })
    );
    assert_eq!(alice.get("voip/turnServer").await.ok(), json!({}));
}
