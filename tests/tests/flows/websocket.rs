//! Sync over a WebSocket, as `spec/websocket-sync.md` promises it, told by its reference client.

use http::{Method, Request, header};
use maru::config::Rate;
use maru_tests::user::encode;
use maru_tests::websocket::{PATH, SUBPROTOCOL, Shown};
use maru_tests::{Engine, Listening, Reply, Socket, Synced, TestServer, User, on_both_engines};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

on_both_engines!(
    what_is_new_is_pushed_in_order,
    messages_to_a_device_come_again_until_they_are_acknowledged,
    a_cursor_of_another_log_acknowledges_nothing,
    a_send_is_answered_and_a_retry_on_either_way_makes_no_second_message,
    a_refused_frame_is_answered_with_its_reason,
    typing_and_receipts_reach_the_others,
    a_heartbeat_says_who_is_there,
    a_logged_out_device_is_told_so,
    a_reconnect_with_the_cursor_misses_nothing,
    a_client_that_acknowledges_nothing_waits_and_misses_nothing,
);

/// Two people in a room, and the server's address.
async fn two_in_a_room(server: &TestServer) -> (Listening, User, User, String) {
    let [alice, bob] = [server.user("alice").await, server.user("bob").await];
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    (server.listen().await, alice, bob, room)
}

/// The socket of somebody who has seen everything so far.
async fn caught_up(listening: &Listening, user: &User) -> Socket {
    let since = user.sync(None).await.next();
    Socket::open(&listening.base, user, Some(&since)).await
}

/// The events of a kind that lives in memory only, in a room.
fn ephemeral(synced: &Synced, room: &str, kind: &str) -> Option<Value> {
    let events = synced.room(room)["ephemeral"]["events"].as_array()?;
    events.iter().find(|event| event["type"] == kind).cloned()
}

async fn what_is_new_is_pushed_in_order(server: TestServer) {
    let (listening, alice, bob, room) = two_in_a_room(&server).await;
    let mut socket = Socket::open(&listening.base, &alice, None).await;
    let first = socket.sync().await;
    assert!(!first.events(&room).is_empty(), "a first sync: {}", first.0);
    socket.ack(&first.next()).await;
    let mut sent = Vec::new();
    for n in 0..5 {
        sent.push(bob.send(&room, &format!("message {n}")).await);
    }
    let read = socket
        .sync_until(|synced| synced.timeline(&room).contains(&sent[4]))
        .await;
    let heard: Vec<_> = read.iter().flat_map(|synced| synced.timeline(&room)).collect();
    assert_eq!(heard, sent);
    let token = read.last().unwrap().next();
    let polled = alice.sync(Some(&token)).await;
    assert!(
        polled.timeline(&room).is_empty(),
        "the long-poll goes on from the same cursor: {}",
        polled.0
    );
}

async fn send_to_device(from: &User, to: &User, text: &str) {
    let path = format!("sendToDevice/org.example.note/{}", from.transaction());
    let messages = json!({ &to.id: { &to.device: { "text": text } } });
    from.put(&path, json!({ "messages": messages })).await.ok();
}

fn to_device(synced: &Synced) -> Vec<String> {
    let events = synced.0["to_device"]["events"].as_array();
    let texts = events.into_iter().flatten();
    texts
        .map(|event| event["content"]["text"].as_str().unwrap().to_owned())
        .collect()
}

async fn messages_to_a_device_come_again_until_they_are_acknowledged(server: TestServer) {
    let (listening, alice, bob, _) = two_in_a_room(&server).await;
    let since = alice.sync(None).await.next();
    let mut socket = Socket::open(&listening.base, &alice, Some(&since)).await;
    send_to_device(&bob, &alice, "one").await;
    let holds = |text: &'static str| move |synced: &Synced| to_device(synced) == [text];
    socket.find(holds("one")).await;
    drop(socket);

    let mut socket = Socket::open(&listening.base, &alice, Some(&since)).await;
    let again = socket.find(holds("one")).await;
    send_to_device(&bob, &alice, "two").await;
    let next = socket.find(holds("two")).await;
    socket.ack(&again.next()).await;
    socket.ack(&next.next()).await;
    // An answer to a later frame shows that the acknowledgements have been dealt with.
    socket
        .ask(
            json!({ "type": "receipt", "room_id": "!nowhere:x", "receipt_type": "m.read", "event_id": "$x" }),
        )
        .await;
    assert!(to_device(&alice.sync(None).await).is_empty(), "both are gone");
}

async fn a_cursor_of_another_log_acknowledges_nothing(server: TestServer) {
    let (listening, alice, bob, _) = two_in_a_room(&server).await;
    send_to_device(&bob, &alice, "one").await;
    let mut cursor = alice.sync(None).await.next();
    // The log id stands between the first letter and the first underscore.
    let end = cursor.find('_').unwrap();
    let digit = if &cursor[end - 1..end] == "1" { "2" } else { "1" };
    cursor.replace_range(end - 1..end, digit);
    let mut socket = Socket::open(&listening.base, &alice, Some(&cursor)).await;
    let first = socket.sync().await;
    assert_eq!(to_device(&first), ["one"], "a first sync: {}", first.0);
    assert_eq!(to_device(&alice.sync(Some(&cursor)).await), ["one"]);
}

async fn a_send_is_answered_and_a_retry_on_either_way_makes_no_second_message(server: TestServer) {
    let (listening, alice, bob, room) = two_in_a_room(&server).await;
    let [mut writer, mut reader] = [
        caught_up(&listening, &alice).await,
        caught_up(&listening, &bob).await,
    ];
    let reply = writer.send(&room, "m42", "안녕하세요").await;
    assert_eq!(reply["type"], "reply", "{reply}");
    let again = writer.send(&room, "m42", "안녕하세요").await;
    assert_eq!(again["event_id"], reply["event_id"]);
    let content = json!({ "msgtype": "m.text", "body": "안녕하세요" });
    let by_http = alice.send_as(&room, "m.room.message", "m42", content).await.ok();
    assert_eq!(by_http["event_id"], reply["event_id"]);

    let last = bob.send(&room, "and mine").await;
    let heard = reader
        .sync_until(|synced| synced.timeline(&room).contains(&last))
        .await;
    let texts: Vec<_> = heard.iter().flat_map(|synced| synced.texts(&room)).collect();
    assert_eq!(texts, ["안녕하세요", "and mine"]);
    let own = writer.find(|synced| !synced.events(&room).is_empty()).await;
    let own = own.events(&room).remove(0);
    assert_eq!(own["event_id"], reply["event_id"]);
    assert_eq!(own["unsigned"]["transaction_id"], "m42");
}

#[track_caller]
fn refused(frame: &Value, errcode: &str) {
    let found = (frame["type"].as_str(), frame["errcode"].as_str());
    assert_eq!(found, (Some("error"), Some(errcode)), "{frame}");
    assert!(
        frame["error"].as_str().is_some_and(|text| !text.is_empty()),
        "{frame}"
    );
}

async fn a_refused_frame_is_answered_with_its_reason(server: TestServer) {
    let (listening, alice, bob, room) = two_in_a_room(&server).await;
    let private = bob.create_room(json!({})).await;
    let mut socket = caught_up(&listening, &alice).await;
    refused(&socket.send(&private, "a", "hello").await, "M_FORBIDDEN");
    refused(
        &socket.send("!nowhere:example.org", "b", "hello").await,
        "M_NOT_FOUND",
    );
    let long = "각".repeat(100_001);
    refused(&socket.send(&room, "c", &long).await, "M_TOO_LARGE");
    let without_content = json!({
        "type": "send", "room_id": room, "event_type": "m.room.message", "txn_id": "d",
    });
    refused(&socket.ask(without_content).await, "M_BAD_JSON");
    let receipt =
        |kind: &str| json!({ "type": "receipt", "room_id": room, "receipt_type": kind, "event_id": "$x" });
    refused(&socket.ask(receipt("m.unheard_of")).await, "M_INVALID_PARAM");
    socket
        .tell(json!({ "type": "typing", "room_id": private, "typing": true }))
        .await;
    let error = socket.answer().await;
    refused(&error, "M_FORBIDDEN");
    assert!(error.get("id").is_none(), "{error}");
    for nul in ["\0", "a\0b"] {
        let mut frame = json!({
            "type": "send", "room_id": room, "event_type": "m.room.message", "txn_id": "e", "content": { "body": "" },
        });
        for key in ["event_type", "txn_id"] {
            let whole = frame[key].take();
            frame[key] = json!(nul);
            refused(&socket.ask(frame.clone()).await, "M_INVALID_PARAM");
            frame[key] = whole;
        }
    }
    let reply = socket.send(&room, "f", "still here").await;
    assert_eq!(reply["type"], "reply", "{reply}");
}

#[tokio::test]
async fn a_message_too_many_is_answered_with_the_time_to_wait() {
    let server = TestServer::start_with(Engine::Sqlite, |config| {
        config.rate_limits = true;
        config.rates.messages_per_user = Rate {
            per_second: 0.001,
            burst: 1,
        };
    })
    .await;
    let (listening, alice, _, room) = two_in_a_room(&server).await;
    let mut socket = caught_up(&listening, &alice).await;
    assert_eq!(socket.send(&room, "a", "one").await["type"], "reply");
    let error = socket.send(&room, "b", "two").await;
    refused(&error, "M_LIMIT_EXCEEDED");
    assert!(
        error["retry_after_ms"].as_u64().is_some_and(|ms| ms > 1000),
        "{error}"
    );
}

async fn typing_and_receipts_reach_the_others(server: TestServer) {
    let (listening, alice, bob, room) = two_in_a_room(&server).await;
    let event = alice.send(&room, "read this").await;
    let [mut alices, mut bobs] = [
        caught_up(&listening, &alice).await,
        caught_up(&listening, &bob).await,
    ];
    let typing = |synced: &Synced| ephemeral(synced, &room, "m.typing").map(|event| event["content"].clone());
    bobs.tell(json!({ "type": "typing", "room_id": room, "typing": true, "timeout": 20_000 }))
        .await;
    let heard = alices.sync_until(|synced| typing(synced).is_some()).await;
    assert_eq!(
        typing(heard.last().unwrap()),
        Some(json!({ "user_ids": [bob.id] }))
    );
    bobs.tell(json!({ "type": "typing", "room_id": room, "typing": false }))
        .await;
    let heard = alices.sync_until(|synced| typing(synced).is_some()).await;
    assert_eq!(typing(heard.last().unwrap()), Some(json!({ "user_ids": [] })));

    let receipt = json!({ "type": "receipt", "room_id": room, "receipt_type": "m.read", "event_id": event });
    let reply = bobs.ask(receipt).await;
    assert_eq!(reply["type"], "reply", "{reply}");
    assert!(reply.get("event_id").is_none(), "{reply}");
    let read = |synced: &Synced| ephemeral(synced, &room, "m.receipt");
    let heard = alices.sync_until(|synced| read(synced).is_some()).await;
    let content = read(heard.last().unwrap()).unwrap()["content"].clone();
    assert!(content[&event]["m.read"][&bob.id]["ts"].is_u64(), "{content}");
}

async fn a_heartbeat_says_who_is_there(server: TestServer) {
    let (listening, alice, bob, _) = two_in_a_room(&server).await;
    let mut alices = caught_up(&listening, &alice).await;
    let since = bob.sync(None).await.next();
    let path = format!("presence/{}/status", encode(&bob.id));
    bob.put(&path, json!({ "presence": "offline" })).await.ok();
    let query = format!("set_presence=offline&since={}", encode(&since));
    let mut bobs = Socket::connect(&listening.base, &bob.token, Shown::Header, &query)
        .await
        .unwrap();
    let presence = |wanted: &'static str| {
        let bob = bob.id.clone();
        move |synced: &Synced| {
            let events = synced.0["presence"]["events"].as_array();
            let mut events = events.into_iter().flatten();
            events.any(|event| event["sender"] == *bob && event["content"]["presence"] == wanted)
        }
    };
    alices.sync_until(presence("offline")).await;
    let idle = json!({ "type": "heartbeat", "presence": "unavailable" });
    bobs.tell(idle).await;
    alices.sync_until(presence("unavailable")).await;
    bobs.tell(json!({ "type": "heartbeat" })).await;
    alices.sync_until(presence("online")).await;
}

async fn a_logged_out_device_is_told_so(server: TestServer) {
    let (listening, alice, _, _) = two_in_a_room(&server).await;
    let other = alice.second_device().await;
    let mut socket = caught_up(&listening, &other).await;
    other.post("logout", json!({})).await.ok();
    let closed = socket.closed().await;
    assert_eq!(closed.code, Some(4401), "{closed:?}");
    assert!(!closed.reason.is_empty());

    let mut socket = caught_up(&listening, &alice).await;
    alice.post("logout/all", json!({})).await.ok();
    assert_eq!(socket.closed().await.code, Some(4401));
}

/// The texts of a room in some frames.
fn texts(read: &[Synced], room: &str) -> Vec<String> {
    read.iter().flat_map(|synced| synced.texts(room)).collect()
}

async fn a_reconnect_with_the_cursor_misses_nothing(server: TestServer) {
    const MANY_EVENTS: &str = r#"{"room":{"timeline":{"limit":100}}}"#;
    let (listening, alice, bob, room) = two_in_a_room(&server).await;
    let mut since = alice.sync(None).await.next();
    let mut heard = Vec::new();
    let query = |since: &str| format!("since={}&filter={}", encode(since), encode(MANY_EVENTS));
    for round in 0..3 {
        for n in 0..20 {
            bob.send(&room, &format!("{round}.{n}")).await;
        }
        let mut socket = Socket::connect(&listening.base, &alice.token, Shown::Header, &query(&since))
            .await
            .unwrap();
        let last = bob.send(&room, &format!("{round}.20")).await;
        let read = socket
            .sync_until(|synced| synced.timeline(&room).contains(&last))
            .await;
        heard.extend(texts(&read, &room));
        since = read.last().unwrap().next();
    }
    drop(listening);
    bob.send(&room, "before the restart").await;
    let server = server.restart().await;
    let listening = server.listen().await;
    let mut socket = Socket::connect(&listening.base, &alice.token, Shown::Header, &query(&since))
        .await
        .unwrap();
    heard.extend(socket.sync().await.texts(&room));
    let mut expected: Vec<_> = (0..3)
        .flat_map(|r| (0..21).map(move |n| format!("{r}.{n}")))
        .collect();
    expected.push("before the restart".into());
    assert_eq!(heard, expected);
}

async fn a_client_that_acknowledges_nothing_waits_and_misses_nothing(server: TestServer) {
    let (listening, alice, bob, room) = two_in_a_room(&server).await;
    let mut socket = caught_up(&listening, &alice).await;
    let mut read = Vec::new();
    for n in 0..128 {
        bob.send(&room, &format!("{n}")).await;
        read.push(socket.sync().await);
    }
    // The window is full: this one waits, and so does whatever comes after it.
    bob.send(&room, "128").await;
    let reply = socket.send(&room, "mine", "129").await;
    assert_eq!(
        reply["type"], "reply",
        "requests are answered all the same: {reply}"
    );
    socket.ack(&read.last().unwrap().next()).await;
    read.extend(
        socket
            .sync_until(|synced| synced.texts(&room).contains(&"129".into()))
            .await,
    );
    let expected: Vec<_> = (0..130).map(|n| n.to_string()).collect();
    assert_eq!(texts(&read, &room), expected);

    let mut full = caught_up(&listening, &alice).await;
    for n in 0..128 {
        bob.send(&room, &format!("{n}")).await;
        full.sync().await;
    }
    alice.post("logout", json!({})).await.ok();
    assert_eq!(
        full.closed().await.code,
        Some(4401),
        "also while the window is full"
    );
}

/// Asks for an upgrade as plain HTTP, to see the refusal whole.
async fn asked(listening: &Listening, headers: &[(http::HeaderName, String)], query: &str) -> Reply {
    let mut request = Request::builder()
        .method(Method::GET)
        .uri(format!("{PATH}?{query}"))
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        .header(header::SEC_WEBSOCKET_KEY, "bWFydS1sb2FkLW5vbmNlLg==");
    for (name, value) in headers {
        request = request.header(name, value);
    }
    listening
        .api
        .send(request.body(bytes::Bytes::new()).unwrap())
        .await
        .unwrap()
}

#[tokio::test]
async fn a_token_opens_the_door_in_the_header_or_beside_the_subprotocol() {
    let server = TestServer::start().await;
    let (listening, alice, _, _) = two_in_a_room(&server).await;
    let by_header = Socket::open(&listening.base, &alice, None).await;
    assert_eq!(by_header.chosen, None, "nothing was offered");
    let mut by_subprotocol = Socket::connect(&listening.base, &alice.token, Shown::Subprotocol, "")
        .await
        .unwrap();
    assert_eq!(by_subprotocol.chosen.as_deref(), Some(SUBPROTOCOL));
    by_subprotocol.sync().await;

    let bearer = |token: &str| vec![(header::AUTHORIZATION, format!("Bearer {token}"))];
    let beside = |offered: &str| vec![(header::SEC_WEBSOCKET_PROTOCOL, offered.to_owned())];
    asked(&listening, &[], "").await.refused(401, "M_MISSING_TOKEN");
    asked(&listening, &beside(SUBPROTOCOL), "")
        .await
        .refused(401, "M_MISSING_TOKEN");
    asked(&listening, &beside(&alice.token), "")
        .await
        .refused(401, "M_MISSING_TOKEN");
    asked(&listening, &bearer("mat_wrong"), "")
        .await
        .refused(401, "M_UNKNOWN_TOKEN");
    asked(&listening, &beside("maru.v1, mat_wrong"), "")
        .await
        .refused(401, "M_UNKNOWN_TOKEN");
    asked(&listening, &bearer(&alice.token), "since=yesterday")
        .await
        .refused(400, "M_INVALID_PARAM");
    asked(&listening, &bearer(&alice.token), "filter=none")
        .await
        .refused(400, "M_INVALID_PARAM");
    alice.get(PATH).await.refused(426, "M_UNRECOGNIZED");
}

#[tokio::test]
async fn whoever_breaks_the_protocol_is_told_how() {
    let server = TestServer::start().await;
    let (listening, alice, _, _) = two_in_a_room(&server).await;
    let first = alice.sync(None).await.next();
    let given_elsewhere = json!({ "type": "ack", "next_batch": first }).to_string();
    for message in [
        Message::text(""),
        Message::text("[]"),
        Message::text("{"),
        Message::text(r#"{"type":"shout"}"#),
        Message::text(r#"{"type":"send","id":-1}"#),
        Message::text(r#"{"type":"ack","next_batch":"yesterday"}"#),
        Message::text(given_elsewhere),
        Message::text("[".repeat(100_000)),
        Message::binary(vec![0; 10]),
    ] {
        let mut socket = caught_up(&listening, &alice).await;
        let shown = format!("{message:?}").chars().take(80).collect::<String>();
        socket.say(message).await.unwrap();
        let closed = socket.closed().await;
        assert_eq!(closed.code, Some(4400), "{shown}: {closed:?}");
        assert!(!closed.reason.is_empty(), "{shown}");
    }
    let mut socket = caught_up(&listening, &alice).await;
    // More than a frame may hold: cut off in the middle, so that the code may not arrive.
    let _ = socket.say(Message::text("x".repeat(3 << 20))).await;
    let closed = socket.closed().await;
    assert!([None, Some(4400)].contains(&closed.code), "{closed:?}");
    alice.get("account/whoami").await.ok();
}

#[tokio::test]
async fn a_server_that_stops_says_so() {
    let server = TestServer::start().await;
    let (listening, alice, _, _) = two_in_a_room(&server).await;
    let mut socket = caught_up(&listening, &alice).await;
    server.parts().stop();
    assert_eq!(socket.closed().await.code, Some(1001));
}
