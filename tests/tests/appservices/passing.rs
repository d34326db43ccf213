//! Who types, who has read how far and who is present, for services that want to know.

use maru_tests::user::encode;
use maru_tests::{Engine, TestAppservice, for_both_engines};
use serde_json::{Value, json};

use super::server_with;

for_both_engines!(what_passes_is_told_to_who_wants_to_know);

async fn what_passes_is_told_to_who_wants_to_know(engine: Engine) {
    let [new, old, deaf] = [
        TestAppservice::start("new").await,
        TestAppservice::start("old").await,
        TestAppservice::start("deaf").await,
    ];
    let services = [
        (&new, "receive_ephemeral: true"),
        (&old, "de.sorunome.msc2409.push_ephemeral: true"),
        (&deaf, ""),
    ];
    let (server, _folder) = server_with(engine, &services).await;
    let alice = server.user("alice").await;
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    for service in [&new, &old, &deaf] {
        service.join(server.api(), &room, None).await;
    }
    let elsewhere = alice.create_room(json!({})).await;
    let event = alice.send(&room, "hello").await;
    for service in [&new, &old, &deaf] {
        service.hears_last(&room, "hello").await;
    }
    let typing = |room: &str| format!("rooms/{}/typing/{}", encode(room), encode(&alice.id));
    alice
        .put(&typing(&elsewhere), json!({ "typing": true, "timeout": 30000 }))
        .await
        .ok();
    alice
        .put(&typing(&room), json!({ "typing": true, "timeout": 30000 }))
        .await
        .ok();
    let receipt = format!("rooms/{}/receipt/m.read/{}", encode(&room), encode(&event));
    alice.post(&receipt, json!({})).await.ok();
    let presence = format!("presence/{}/status", encode(&alice.id));
    alice
        .put(
            &presence,
            json!({ "presence": "unavailable", "status_msg": "away" }),
        )
        .await
        .ok();

    for (service, name) in [(&new, "ephemeral"), (&old, "de.sorunome.msc2409.ephemeral")] {
        let event_of = |kind: &'static str| {
            move |events: &Value| {
                let events = events.as_array()?;
                events.iter().find(|event| event["type"] == kind).cloned()
            }
        };
        let typing = service.receives(name, event_of("m.typing")).await;
        assert_eq!(typing["room_id"], room.as_str());
        assert_eq!(typing["content"]["user_ids"], json!([alice.id]));
        let receipt = service.receives(name, event_of("m.receipt")).await;
        assert_eq!(receipt["room_id"], room.as_str());
        assert!(
            receipt["content"][&event]["m.read"][&alice.id]["ts"].is_number(),
            "{receipt}"
        );
        let is_away = |events: &Value| {
            let events = events.as_array()?;
            let mut away = events
                .iter()
                .filter(|event| event["content"]["status_msg"] == "away");
            away.next().cloned()
        };
        let presence = service.receives(name, is_away).await;
        assert_eq!(
            (&presence["type"], &presence["sender"]),
            (&json!("m.presence"), &json!(alice.id))
        );
        let texts: String = service
            .taken()
            .iter()
            .map(|taken| taken.json().to_string())
            .collect();
        assert!(!texts.contains(&elsewhere), "another room");
    }
    alice.send(&room, "the end").await;
    deaf.hears_last(&room, "the end").await;
    for transaction in deaf.taken() {
        assert_eq!(
            transaction.json().as_object().unwrap().len(),
            1,
            "nothing but events"
        );
    }
    assert!(
        new.taken()
            .iter()
            .all(|taken| taken.json().get("de.sorunome.msc2409.ephemeral").is_none())
    );
}
