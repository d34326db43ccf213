//! What services need whose users encrypt: messages to devices, counts of keys, changed device lists.

use http::Method;
use maru_tests::user::encode;
use maru_tests::{Engine, TestAppservice, for_both_engines};
use serde_json::{Value, json};

use super::server_with;

for_both_engines!(
    devices_of_a_service_are_given_what_they_need_to_encrypt,
    messages_stay_for_devices_that_sync,
);

const ENCRYPTS: &str = "receive_ephemeral: true\norg.matrix.msc3202: true\nio.element.msc4190: true";

async fn devices_of_a_service_are_given_what_they_need_to_encrypt(engine: Engine) {
    let service = TestAppservice::start("irc").await;
    let (server, _folder) = server_with(engine, &[(&service, ENCRYPTS)]).await;
    let api = server.api();
    let alice = server.user("alice").await;
    let bot = format!("@ircbot:{}", server.name());
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    service.join(api, &room, None).await;
    let call = async |method: Method, path: &str, body: Value| {
        service.call(api, method, path, None, Some(body)).await
    };
    call(Method::PUT, "devices/BRIDGE", json!({})).await;
    let keys = json!({
        "one_time_keys": { "signed_curve25519:a": { "key": "a" }, "signed_curve25519:b": { "key": "b" } },
        "fallback_keys": { "signed_curve25519:f": { "key": "f", "fallback": true } },
    });
    call(Method::POST, "keys/upload?device_id=BRIDGE", keys.clone())
        .await
        .ok();
    call(Method::POST, "keys/upload", keys)
        .await
        .refused(400, "M_INVALID_PARAM");
    let count_is = |count: u64| {
        let bot = bot.clone();
        move |counts: &Value| (counts[&bot]["BRIDGE"]["signed_curve25519"] == count).then_some(())
    };
    for name in [
        "device_one_time_keys_count",
        "org.matrix.msc3202.device_one_time_keys_count",
        "org.matrix.msc3202.device_one_time_key_counts",
    ] {
        service.receives(name, count_is(2)).await;
    }
    let unused = |types: &Value| (types[&bot]["BRIDGE"] == json!(["signed_curve25519"])).then_some(());
    service.receives("device_unused_fallback_key_types", unused).await;

    let claim = json!({ "one_time_keys": { &bot: { "BRIDGE": "signed_curve25519" } } });
    alice.post("keys/claim", claim).await.ok();
    service.receives("device_one_time_keys_count", count_is(1)).await;

    let messages = json!({ "messages": { &bot: { "BRIDGE": { "secret": 1 } } } });
    alice.put("sendToDevice/m.room.encrypted/1", messages).await.ok();
    for name in ["to_device", "de.sorunome.msc2409.to_device"] {
        let message = service
            .receives(name, |messages| messages.as_array()?.first().cloned())
            .await;
        assert_eq!(message["to_user_id"], bot.as_str());
        assert_eq!(message["to_device_id"], "BRIDGE");
        assert_eq!(
            (&message["sender"], &message["type"]),
            (&json!(alice.id), &json!("m.room.encrypted"))
        );
        assert_eq!(message["content"], json!({ "secret": 1 }));
    }
    server.data().comes_to(0, "SELECT COUNT(*) FROM to_device").await;
    server
        .data()
        .comes_to(0, "SELECT COUNT(*) FROM to_device_waiting WHERE messages > 0")
        .await;

    let new = alice.second_device().await;
    let device_keys = json!({ "device_keys": {
        "user_id": new.id, "device_id": new.device, "algorithms": [],
        "keys": { format!("ed25519:{}", new.device): "k" }, "signatures": { &new.id: { format!("ed25519:{}", new.device): "s" } },
    } });
    new.post("keys/upload", device_keys).await.ok();
    let is_changed = |lists: &Value| {
        lists["changed"]
            .as_array()?
            .contains(&json!(alice.id))
            .then_some(())
    };
    service.receives("device_lists", is_changed).await;
    service
        .receives("org.matrix.msc3202.device_lists", is_changed)
        .await;
}

async fn messages_stay_for_devices_that_sync(engine: Engine) {
    let service = TestAppservice::start("irc").await;
    let (server, _folder) = server_with(engine, &[(&service, "receive_ephemeral: true")]).await;
    let alice = server.user("alice").await;
    let ghost = service.register(server.api(), "ann").await;
    let made = service.call(
        server.api(),
        Method::PUT,
        "devices/SYNCS",
        Some(&ghost),
        Some(json!({})),
    );
    assert_eq!(made.await.status, 201);
    let messages = json!({ "messages": { &ghost: { "SYNCS": { "secret": 1 } } } });
    alice.put("sendToDevice/m.room.encrypted/1", messages).await.ok();
    service
        .receives("to_device", |messages| messages.as_array()?.first().cloned())
        .await;
    let path = format!("sync?timeout=0&device_id={}", encode("SYNCS"));
    let synced = service
        .call(server.api(), Method::GET, &path, Some(&ghost), None)
        .await
        .ok();
    assert_eq!(
        synced["to_device"]["events"][0]["content"],
        json!({ "secret": 1 })
    );
}
