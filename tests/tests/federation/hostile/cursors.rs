//! Places in logs: a peer that claims to have what it was never sent, or that sends again what it sent before.

use maru_protocol::LogId;
use maru_protocol::wire::message::Received;
use maru_protocol::wire::{LogItem, Octets};
use maru_tests::TestServer;
use serde_json::json;

use super::liar::{Liar, LiarKeys, Victim, eventually, now_ms};

/// The texts of the messages that a peer was sent.
fn texts(heard: &[LogItem]) -> Vec<String> {
    let json = heard.iter().filter_map(|item| match item {
        LogItem::Event(event) => serde_json::from_str::<serde_json::Value>(&event.json).ok(),
        _ => None,
    });
    json.filter_map(|event| event["content"]["body"].as_str().map(str::to_owned))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_that_cannot_be_is_none() {
    let server = TestServer::start().await;
    let victim = Victim::of(&server).await;
    let alice = server.user("alice").await;
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    let keys = LiarKeys::of(31);
    let liar = Liar::with(keys.clone(), keys.signed_record(1), &victim);
    liar.join(&victim, &room).await;
    alice.send(&room, "for you").await;
    eventually("the peer is sent what is said", || {
        texts(&liar.heard()) == ["for you"]
    })
    .await;
    liar.pool.shut_down().await;

    let log_id = server.parts().store.log.id();
    let far = [&log_id.0[..], &i64::MAX.to_be_bytes()].concat();
    let before = [&log_id.0[..], &(-5_i64).to_be_bytes()].concat();
    let claims = [
        ("beyond the end", log_id, far),
        ("before the beginning", log_id, before),
        ("not ours", log_id, b"not a cursor at all".to_vec()),
        ("empty", log_id, Vec::new()),
        ("of another log", LogId([3; 16]), vec![0; 24]),
    ];
    for (case, log_id, cursor) in claims {
        let again = Liar::with(keys.clone(), keys.signed_record(now_ms()), &victim);
        again.claim_received(Some(Received {
            log_id,
            cursor: Octets::new(&cursor).unwrap(),
        }));
        again.pool.connect(&victim.name).await.unwrap();
        eventually(case, || texts(&again.heard()) == ["for you"]).await;
        again.pool.shut_down().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_again_is_there_once() {
    let server = TestServer::start().await;
    let victim = Victim::of(&server).await;
    let alice = server.user("alice").await;
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    let liar = Liar::start(32, &victim);
    let mut foothold = liar.join(&victim, &room).await;
    let mut items = Vec::new();
    for text in ["one", "two", "three"] {
        let event = foothold.message(text);
        foothold.go_on(&event);
        items.push(foothold.item(&event.json));
    }
    // Replayed in order, backwards, and each many times over.
    let backwards = items.iter().rev().cloned().collect::<Vec<_>>();
    let many = items
        .iter()
        .flat_map(|item| vec![item.clone(); 50])
        .collect::<Vec<_>>();
    for replay in [items.clone(), items, backwards, many] {
        liar.say(&victim, replay).await;
    }
    let last = foothold.message("last");
    liar.say(&victim, [foothold.item(&last.json)]).await;
    let mut synced = alice.sync(None).await;
    for _ in 0..20 {
        if synced.texts(&room).iter().any(|text| text == "last") {
            break;
        }
        synced = alice.wait(&synced.next()).await;
    }
    let history = alice.history(&room).await;
    assert_eq!(maru_tests::user::texts(&history), ["one", "two", "three", "last"]);
}
