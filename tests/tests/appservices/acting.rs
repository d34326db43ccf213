//! Whom services act as, and what is theirs alone.

use http::Method;
use maru_tests::user::encode;
use maru_tests::{Engine, TestAppservice, TestServer, for_both_engines};
use serde_json::json;

use super::server_with;

for_both_engines!(
    a_service_acts_as_its_users_and_nobody_else,
    what_is_a_services_alone_is_refused_to_others,
    a_service_makes_devices_and_removes_them_without_a_password,
    a_service_says_when_a_message_was_written,
    only_who_is_exempt_is_not_limited,
    registrations_are_checked_at_the_start,
);

async fn a_service_acts_as_its_users_and_nobody_else(engine: Engine) {
    let service = TestAppservice::start("irc").await;
    let (server, _folder) = server_with(engine, &[(&service, "")]).await;
    let api = server.api();
    let alice = server.user("alice").await;
    let who = async |user: Option<&str>| service.call(api, Method::GET, "account/whoami", user, None).await;

    // Its own user is there from the start.
    let own = who(None).await.ok();
    assert_eq!(own["user_id"], format!("@ircbot:{}", server.name()));
    assert!(own.get("device_id").is_none());
    let ghost = service.user_id("ann", server.name());
    who(Some(&ghost)).await.refused(403, "M_FORBIDDEN");
    service.register(api, "ann").await;
    assert_eq!(who(Some(&ghost)).await.ok()["user_id"], ghost.as_str());
    who(Some(&alice.id)).await.refused(403, "M_FORBIDDEN");
    who(Some("@_irc_ann:elsewhere.example"))
        .await
        .refused(403, "M_FORBIDDEN");
    who(Some("nobody")).await.refused(400, "M_INVALID_PARAM");
    // A query names nobody for others.
    let as_ghost = alice
        .get(&format!("account/whoami?user_id={}", encode(&ghost)))
        .await;
    assert_eq!(as_ghost.ok()["user_id"], alice.id.as_str());

    // A login of a service starts a session like any other.
    let body = json!({
        "type": "m.login.application_service",
        "identifier": { "type": "m.id.user", "user": ghost },
        "device_id": "GHOST",
    });
    let login = service
        .call(api, Method::POST, "login", None, Some(body.clone()))
        .await
        .ok();
    let token = login["access_token"].as_str().unwrap();
    let session = api
        .request(Method::GET, "account/whoami", Some(token), None)
        .await
        .ok();
    assert_eq!(
        (&session["user_id"], &session["device_id"]),
        (&json!(ghost), &json!("GHOST"))
    );
    api.request(Method::POST, "login", None, Some(body))
        .await
        .refused(401, "M_MISSING_TOKEN");
    let other = json!({ "type": "m.login.application_service", "identifier": { "type": "m.id.user", "user": alice.id } });
    service
        .call(api, Method::POST, "login", None, Some(other))
        .await
        .refused(400, "M_EXCLUSIVE");
    let flows = api.request(Method::GET, "login", None, None).await.ok();
    let flows = flows["flows"].as_array().unwrap();
    assert!(
        flows
            .iter()
            .any(|flow| flow["type"] == "m.login.application_service")
    );

    // It may poll, as its clients do.
    let synced = service
        .call(api, Method::GET, "sync?timeout=0", Some(&ghost), None)
        .await;
    assert!(synced.ok()["next_batch"].is_string());

    // Whose account is closed, nobody acts as any more.
    who(Some(&ghost)).await.ok();
    server
        .parts()
        .accounts
        .deactivate(<&ruma::UserId>::try_from(ghost.as_str()).unwrap(), None, false)
        .await
        .unwrap();
    who(Some(&ghost)).await.refused(403, "M_FORBIDDEN");
}

async fn what_is_a_services_alone_is_refused_to_others(engine: Engine) {
    let [irc, other] = [
        TestAppservice::start("irc").await,
        TestAppservice::start("other").await,
    ];
    let (server, _folder) = server_with(engine, &[(&irc, ""), (&other, "")]).await;
    let api = server.api();
    let alice = server.user("alice").await;
    let by_anybody = |name: &str| {
        let body =
            json!({ "username": name, "password": "long enough", "auth": { "type": "m.login.dummy" } });
        api.request(Method::POST, "register", None, Some(body))
    };
    for name in ["_irc_ann", "ircbot"] {
        let reply = by_anybody(name).await;
        assert!(
            ["M_EXCLUSIVE", "M_USER_IN_USE"].contains(&reply.json["errcode"].as_str().unwrap()),
            "{name}"
        );
    }
    let path = "register/available?username=_irc_ann";
    api.request(Method::GET, path, None, None)
        .await
        .refused(400, "M_EXCLUSIVE");
    let by_service = async |service: &TestAppservice, name: &str| {
        let body = json!({ "type": "m.login.application_service", "username": name });
        service
            .call(api, Method::POST, "register", None, Some(body))
            .await
    };
    by_service(&other, "_irc_ann").await.refused(400, "M_EXCLUSIVE");
    by_service(&irc, "ann").await.refused(400, "M_EXCLUSIVE");
    let registered = by_service(&irc, "_irc_Ann[m]").await.ok();
    assert!(registered["access_token"].is_string() && registered["device_id"].is_string());
    by_service(&irc, "_irc_Ann[m]")
        .await
        .refused(400, "M_USER_IN_USE");
    let body = json!({ "type": "m.login.application_service", "username": "_irc_bob" });
    let stranger = api.request(Method::POST, "register", None, Some(body)).await;
    stranger.refused(401, "M_MISSING_TOKEN");

    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    irc.join(api, &room, None).await;
    let alias = format!("#_irc_x:{}", server.name());
    let path = format!("directory/room/{}", encode(&alias));
    let body = json!({ "room_id": room });
    alice.put(&path, body.clone()).await.refused(400, "M_EXCLUSIVE");
    let with_alias = json!({ "room_alias_name": "_irc_y" });
    alice
        .post("createRoom", with_alias.clone())
        .await
        .refused(400, "M_EXCLUSIVE");
    irc.call(api, Method::PUT, &path, None, Some(body)).await.ok();
    irc.call(api, Method::POST, "createRoom", None, Some(with_alias))
        .await
        .ok();
}

async fn a_service_makes_devices_and_removes_them_without_a_password(engine: Engine) {
    let service = TestAppservice::start("irc").await;
    let (server, _folder) = server_with(engine, &[(&service, "")]).await;
    let api = server.api();
    let ghost = service.register(api, "ann").await;
    let call =
        async |method: Method, path: &str, body| service.call(api, method, path, Some(&ghost), body).await;

    let on_unknown = call(Method::GET, "account/whoami?device_id=BRIDGE", None).await;
    on_unknown.refused(400, "M_UNKNOWN_DEVICE");
    let made = call(
        Method::PUT,
        "devices/BRIDGE",
        Some(json!({ "display_name": "Bridge" })),
    )
    .await;
    assert_eq!(made.status, 201);
    let again = call(
        Method::PUT,
        "devices/BRIDGE",
        Some(json!({ "display_name": "Same" })),
    )
    .await;
    assert_eq!(again.status, 200);
    for name in ["device_id", "org.matrix.msc3202.device_id"] {
        let who = call(Method::GET, &format!("account/whoami?{name}=BRIDGE"), None)
            .await
            .ok();
        assert_eq!(who["device_id"], "BRIDGE");
    }
    let devices = call(Method::GET, "devices", None).await.ok();
    assert_eq!(devices["devices"][0]["display_name"], "Same");
    call(Method::DELETE, "devices/BRIDGE", Some(json!({}))).await.ok();
    let devices = call(Method::GET, "devices", None).await.ok();
    assert_eq!(devices["devices"], json!([]));
    // Others make no device, and prove who they are.
    let alice = server.user("alice").await;
    alice
        .put("devices/NEW", json!({}))
        .await
        .refused(404, "M_NOT_FOUND");
    let path = format!("devices/{}", alice.device);
    assert_eq!(
        alice.request(Method::DELETE, &path, Some(json!({}))).await.status,
        401
    );
}

async fn a_service_says_when_a_message_was_written(engine: Engine) {
    let service = TestAppservice::start("irc").await;
    let (server, _folder) = server_with(engine, &[(&service, "")]).await;
    let api = server.api();
    let alice = server.user("alice").await;
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    service.join(api, &room, None).await;
    let levels = format!("rooms/{}/state/m.room.power_levels/", encode(&room));
    let mut levels_now = alice.get(&levels).await.ok();
    levels_now["users"][format!("@ircbot:{}", server.name())] = json!(100);
    alice.put(&levels, levels_now).await.ok();
    let put = async |path: &str, body| {
        let path = format!("rooms/{}/{path}?ts=1000000", encode(&room));
        let reply = service.call(api, Method::PUT, &path, None, Some(body)).await.ok();
        let event = reply["event_id"].as_str().unwrap().to_owned();
        let event = alice
            .get(&format!("rooms/{}/event/{}", encode(&room), encode(&event)))
            .await
            .ok();
        event["origin_server_ts"].as_u64().unwrap()
    };
    assert_eq!(
        put("send/m.room.message/1", json!({ "body": "old" })).await,
        1_000_000
    );
    assert_eq!(
        put("state/m.room.topic/", json!({ "topic": "old" })).await,
        1_000_000
    );
    let event = alice.send(&room, "new").await;
    assert_eq!(
        put(&format!("redact/{}/2", encode(&event)), json!({})).await,
        1_000_000
    );
    let path = format!("rooms/{}/send/m.room.message/3?ts=1000000", encode(&room));
    let event = alice.put(&path, json!({ "body": "mine" })).await.ok();
    let event = event["event_id"].as_str().unwrap();
    let event = alice
        .get(&format!("rooms/{}/event/{}", encode(&room), encode(event)))
        .await
        .ok();
    assert!(
        event["origin_server_ts"].as_u64().unwrap() > 1_000_000,
        "nobody else is believed"
    );
}

async fn only_who_is_exempt_is_not_limited(engine: Engine) {
    let [fast, slow] = [
        TestAppservice::start("fast").await,
        TestAppservice::start("slow").await,
    ];
    let folder = tempfile::tempdir().unwrap();
    let _ = fast.register_in(folder.path(), "rate_limited: false");
    let _ = slow.register_in(folder.path(), "");
    let path = folder.path().to_owned();
    let server = TestServer::start_with(engine, |config| {
        config.application_services = vec![path];
        config.rate_limits = true;
    });
    let server = server.await;
    let statuses = async |service: &TestAppservice| {
        let mut refused = 0;
        for number in 0..60 {
            let body = json!({
                "type": "m.login.application_service",
                "username": format!("_{}_{number}", service.id),
                "inhibit_login": true,
            });
            let reply = service
                .call(server.api(), Method::POST, "register", None, Some(body))
                .await;
            refused += usize::from(reply.status == 429);
        }
        refused
    };
    assert_eq!(statuses(&fast).await, 0);
    assert!(statuses(&slow).await > 0);
}

async fn registrations_are_checked_at_the_start(engine: Engine) {
    let service = TestAppservice::start("irc").await;
    let (server, folder) = server_with(engine, &[(&service, "")]).await;
    let text = service.registration("").replace("'@_irc_.*'", "'@_irc_('");
    std::fs::write(folder.path().join("irc.yaml"), text).unwrap();
    let mut stopped = server.shut_down().await;
    let path = folder.path().to_owned();
    stopped.change(|config| config.application_services = vec![path]);
    let error = stopped.try_start().await.unwrap_err().to_string();
    assert!(
        error.contains("irc.yaml") && error.contains("`namespaces.users[0].regex`"),
        "{error}"
    );
}
