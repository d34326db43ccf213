//! What services are asked.

use http::Method;
use maru_tests::appservice::Mood;
use maru_tests::user::encode;
use maru_tests::{Engine, TestAppservice, for_both_engines};
use serde_json::json;

use super::server_with;

for_both_engines!(
    a_service_is_pinged,
    a_user_whom_nobody_knows_is_asked_for_and_invited,
    a_room_that_nobody_knows_is_asked_for,
    networks_are_asked_together,
);

async fn a_service_is_pinged(engine: Engine) {
    let [mut service, other] = [
        TestAppservice::start("irc").await,
        TestAppservice::start("other").await,
    ];
    let (server, folder) = server_with(engine, &[(&service, ""), (&other, "")]).await;
    let silent = other
        .registration("")
        .replace("id: other", "id: silent")
        .replace("of-other", "of-silent");
    let silent = silent.replace("otherbot", "silentbot");
    let lines = silent.lines().map(|line| match line.starts_with("url:") {
        true => "url: null",
        false => line,
    });
    let silent = lines.collect::<Vec<_>>().join("\n");
    std::fs::write(folder.path().join("silent.yaml"), silent).unwrap();
    let server = server.restart().await;
    let api = server.api();
    let path = "/_matrix/client/v1/appservice/irc/ping";
    let ping = async |service: &TestAppservice| {
        let body = json!({ "transaction_id": "t" });
        service.call(api, Method::POST, path, None, Some(body)).await
    };
    let reply = ping(&service).await.ok();
    assert!(reply["duration_ms"].is_number(), "{reply}");
    assert_eq!(service.questions(), ["POST /ping"]);
    ping(&other).await.refused(403, "M_FORBIDDEN");
    let alice = server.user("alice").await;
    alice.post(path, json!({})).await.refused(403, "M_FORBIDDEN");
    service.set_mood(Mood::Refuses(418));
    let bad = ping(&service).await;
    bad.refused(502, "M_BAD_STATUS");
    assert_eq!(
        (&bad.json["status"], &bad.json["body"]),
        (&json!(418), &json!("no"))
    );
    service.stop();
    ping(&service).await.refused(502, "M_CONNECTION_FAILED");
    let path = "/_matrix/client/v1/appservice/silent/ping";
    let token = "as-token-of-silent";
    let reply = api
        .request(Method::POST, path, Some(token), Some(json!({})))
        .await;
    reply.refused(400, "M_URL_NOT_SET");
}

async fn a_user_whom_nobody_knows_is_asked_for_and_invited(engine: Engine) {
    let service = TestAppservice::start("irc").await;
    let (server, _folder) = server_with(engine, &[(&service, "")]).await;
    let alice = server.user("alice").await;
    let room = alice.create_room(json!({})).await;
    let invite = format!("rooms/{}/invite", encode(&room));
    let ghost = service.user_id("new", server.name());
    let body = json!({ "user_id": ghost });
    alice.post(&invite, body).await.refused(404, "M_NOT_FOUND");
    assert_eq!(service.questions(), [format!("GET /users/{}", encode(&ghost))]);

    service.register_on(server.api());
    let ghost = service.user_id("other", server.name());
    alice.post(&invite, json!({ "user_id": ghost })).await.ok();
    let third = service.user_id("third", server.name());
    alice.create_room(json!({ "invite": [third] })).await;
    assert_eq!(service.questions().len(), 3);
    // Whoever is nobody's is not asked for.
    let nobody = json!({ "user_id": format!("@nobody:{}", server.name()) });
    alice.post(&invite, nobody).await.refused(404, "M_NOT_FOUND");
    assert_eq!(service.questions().len(), 3);
}

async fn a_room_that_nobody_knows_is_asked_for(engine: Engine) {
    let service = TestAppservice::start("irc").await;
    let (server, _folder) = server_with(engine, &[(&service, "")]).await;
    let alice = server.user("alice").await;
    let alias = format!("#_irc_matrix:{}", server.name());
    let path = format!("directory/room/{}", encode(&alias));
    alice.get(&path).await.refused(404, "M_NOT_FOUND");
    alice.get(&path).await.refused(404, "M_NOT_FOUND");
    assert_eq!(
        service.questions(),
        [format!("GET /rooms/{}", encode(&alias))],
        "once for a while"
    );
    let create = json!({ "room_alias_name": "_irc_matrix", "preset": "public_chat" });
    let made = service
        .call(server.api(), Method::POST, "createRoom", None, Some(create))
        .await
        .ok();
    assert_eq!(alice.get(&path).await.ok()["room_id"], made["room_id"]);
    alice
        .post(&format!("join/{}", encode(&alias)), json!({}))
        .await
        .ok();
}

async fn networks_are_asked_together(engine: Engine) {
    let [one, two, mut gone] = [
        TestAppservice::start("one").await,
        TestAppservice::start("two").await,
        TestAppservice::start("gone").await,
    ];
    let services = [
        (&one, "protocols: [irc]"),
        (&two, "protocols:\n- irc\n- xmpp"),
        (&gone, "protocols: [irc]"),
    ];
    let (server, _folder) = server_with(engine, &services).await;
    gone.stop();
    let instances = |name: &str| json!({ "user_fields": ["nick"], "instances": [{ "desc": name }] });
    one.answer("/thirdparty/protocol/irc", instances("one"));
    two.answer("/thirdparty/protocol/irc", instances("two"));
    two.answer(
        "/thirdparty/user/irc?nick=ann",
        json!([{ "userid": "@_two_ann:x" }]),
    );
    one.answer(
        "/thirdparty/location/irc?channel=%23matrix",
        json!([{ "alias": "#_one_matrix:x" }]),
    );
    one.answer("/thirdparty/user?userid=%40a%3Ab", json!([{ "protocol": "irc" }]));
    two.answer("/thirdparty/location?alias=%23a%3Ab", json!("nonsense"));
    let alice = server.user("alice").await;
    let protocols = alice.get("thirdparty/protocols").await.ok();
    assert_eq!(protocols.as_object().unwrap().keys().collect::<Vec<_>>(), ["irc"]);
    assert_eq!(
        protocols["irc"]["instances"],
        json!([{ "desc": "one" }, { "desc": "two" }])
    );
    assert_eq!(
        alice.get("thirdparty/protocol/irc").await.ok()["user_fields"],
        json!(["nick"])
    );
    alice
        .get("thirdparty/protocol/none")
        .await
        .refused(404, "M_NOT_FOUND");
    let users = alice.get("thirdparty/user/irc?nick=ann").await.ok();
    assert_eq!(users, json!([{ "userid": "@_two_ann:x" }]));
    let rooms = alice.get("thirdparty/location/irc?channel=%23matrix").await.ok();
    assert_eq!(rooms, json!([{ "alias": "#_one_matrix:x" }]));
    let behind = alice.get("thirdparty/user?userid=%40a%3Ab").await.ok();
    assert_eq!(behind, json!([{ "protocol": "irc" }]));
    assert_eq!(
        alice.get("thirdparty/location?alias=%23a%3Ab").await.ok(),
        json!([])
    );
    // Nobody's token goes to a service.
    let path = format!("thirdparty/user/irc?nick=ann&access_token={}", alice.token);
    assert_eq!(server.request(Method::GET, &path, None).await.status, 200);
    assert!(
        two.questions()
            .iter()
            .all(|question| !question.contains(&alice.token))
    );
}
