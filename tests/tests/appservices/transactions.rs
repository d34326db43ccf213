//! What services are sent of the log.

use http::Method;
use maru_tests::user::encode;
use maru_tests::{Engine, TestAppservice, for_both_engines};
use serde_json::{Value, json};

use super::server_with;

for_both_engines!(
    a_service_is_sent_what_happens_around_its_users_in_order,
    a_service_hears_of_rooms_by_id_and_alias_and_of_no_others,
    a_backlog_comes_in_pieces,
);

async fn a_service_is_sent_what_happens_around_its_users_in_order(engine: Engine) {
    let service = TestAppservice::start("irc").await;
    let (server, _folder) = server_with(engine, &[(&service, "")]).await;
    let alice = server.user("alice").await;
    let ghost = service.register(server.api(), "ann").await;
    assert_eq!(ghost, service.user_id("ann", server.name()));

    let room = alice.create_room(json!({ "preset": "private_chat" })).await;
    alice.send(&room, "before anybody of the service is here").await;
    let invite = format!("rooms/{}/invite", encode(&room));
    alice.post(&invite, json!({ "user_id": ghost })).await.ok();
    let invited =
        |event: &Value| event["state_key"] == ghost.as_str() && event["content"]["membership"] == "invite";
    let invited = service.until("the invitation", |service| {
        service.events().into_iter().find(invited)
    });
    let invited = invited.await;
    assert_eq!(invited["sender"], alice.id.as_str());
    assert_eq!(invited["room_id"], room.as_str());

    service.join(server.api(), &room, Some(&ghost)).await;
    for number in 0..30 {
        alice.send(&room, &format!("number {number}")).await;
    }
    service
        .send(server.api(), &room, Some(&ghost), "from elsewhere")
        .await;
    service.hears_last(&room, "from elsewhere").await;
    let expected: Vec<String> = (0..30).map(|number| format!("number {number}")).collect();
    let texts = service.texts(&room);
    assert_eq!(texts[..30], expected, "in order, and nothing from before");
    assert_eq!(
        alice.sync(None).await.texts(&room).last().unwrap(),
        "from elsewhere"
    );

    let changed = alice
        .set_state(&room, "m.room.topic", "", json!({ "topic": "a" }))
        .await;
    let changed = service.until("the state", |service| {
        service
            .events()
            .into_iter()
            .find(|event| event["event_id"] == changed.as_str())
    });
    let changed = changed.await;
    assert_eq!(changed["state_key"], "");
    assert!(changed["unsigned"]["age"].is_number(), "{changed}");

    // The end of the stay is told, and nothing after it.
    let kick = format!("rooms/{}/kick", encode(&room));
    alice.post(&kick, json!({ "user_id": ghost })).await.ok();
    alice.send(&room, "among ourselves").await;
    let elsewhere = alice.create_room(json!({ "preset": "public_chat" })).await;
    service.join(server.api(), &elsewhere, Some(&ghost)).await;
    alice.send(&elsewhere, "here").await;
    service.hears_last(&elsewhere, "here").await;
    assert!(!service.texts(&room).contains(&"among ourselves".to_owned()));
    let left =
        |event: &Value| event["state_key"] == ghost.as_str() && event["content"]["membership"] == "leave";
    assert!(service.events().iter().any(left));
}

async fn a_service_hears_of_rooms_by_id_and_alias_and_of_no_others(engine: Engine) {
    let [by_alias, by_id] = [
        TestAppservice::start("alias").await,
        TestAppservice::start("rooms").await,
    ];
    let all_rooms = by_id
        .registration("")
        .replace("rooms: []", "rooms:\n  - exclusive: false\n    regex: '!.*'");
    let (server, folder) = server_with(engine, &[(&by_alias, "")]).await;
    std::fs::write(folder.path().join("rooms.yaml"), all_rooms).unwrap();
    let server = server.restart().await;

    let alice = server.user("alice").await;
    let named = alice.create_room(json!({ "preset": "public_chat" })).await;
    let other = alice.create_room(json!({ "preset": "public_chat" })).await;
    alice.send(&named, "not yet").await;
    by_id.hears_last(&named, "not yet").await;
    by_alias.join(server.api(), &named, None).await;
    let alias = format!("#_alias_x:{}", server.name());
    let path = format!("directory/room/{}", encode(&alias));
    let body = Some(json!({ "room_id": named }));
    by_alias
        .call(server.api(), Method::PUT, &path, None, body)
        .await
        .ok();
    let leave = format!("rooms/{}/leave", encode(&named));
    let left = by_alias.call(server.api(), Method::POST, &leave, None, Some(json!({})));
    left.await.ok();
    alice.send(&other, "elsewhere").await;
    alice.send(&named, "by its name").await;
    by_alias.hears_last(&named, "by its name").await;
    by_id.hears_last(&named, "by its name").await;
    assert_eq!(by_id.texts(&other), ["elsewhere"]);
    assert!(by_alias.texts(&other).is_empty());
    // Aliases are looked up as they are when the events are met.
    assert!(by_alias.texts(&named).ends_with(&["by its name".to_owned()]));
}

async fn a_backlog_comes_in_pieces(engine: Engine) {
    let mut service = TestAppservice::start("irc").await;
    let (server, _folder) = server_with(engine, &[(&service, "rate_limited: false")]).await;
    let alice = server.user("alice").await;
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    service.join(server.api(), &room, None).await;
    alice.send(&room, "first").await;
    service.hears_last(&room, "first").await;

    service.stop();
    let long = "x".repeat(20_000);
    for number in 0..300 {
        let filler = if number % 10 == 0 { &*long } else { "" };
        alice.send(&room, &format!("{number} {filler}")).await;
    }
    // Who has left meanwhile is given what was said before that.
    let leave = format!("rooms/{}/leave", encode(&room));
    let left = service.call(server.api(), Method::POST, &leave, None, Some(json!({})));
    left.await.ok();
    alice.send(&room, "alone again").await;
    let before = service.transactions().len();
    service.come_back().await;
    let end = |event: &Value| event["content"]["membership"] == "leave";
    service
        .until("the end", |service| {
            service.events().iter().any(end).then_some(())
        })
        .await;
    let texts = service.texts(&room);
    let numbers = texts[1..].iter().map(|text| text.split(' ').next().unwrap());
    assert_eq!(
        numbers.collect::<Vec<_>>(),
        (0..300).map(|n| n.to_string()).collect::<Vec<_>>()
    );
    let pieces = &service.transactions()[before..];
    assert!(pieces.len() >= 3, "{}", pieces.len());
    for piece in pieces {
        assert!(piece.events().len() <= 100 && piece.body.len() < 1 << 20);
    }
}
