//! What lives in memory only, across nodes: who types and who is present at one is told at the others.

use std::time::{Duration, Instant};

use maru_tests::user::encode;
use maru_tests::waiting::look_for;
use maru_tests::websocket::Shown;
use maru_tests::{Engine, Socket, Synced, TestProcess, TestServer, User};
use serde_json::{Value, json};

use super::two_nodes;

/// Time within which another node knows.
const AT_ONCE: Duration = Duration::from_secs(20);

/// Who types in a room, if a device is told.
pub(super) fn typing(synced: &Synced, room: &str) -> Option<Value> {
    let events = synced.room(room)["ephemeral"]["events"].as_array()?;
    let event = events.iter().find(|event| event["type"] == "m.typing")?;
    Some(event["content"]["user_ids"].clone())
}

/// How somebody is, if a device is told.
pub(super) fn presence(synced: &Synced, user: &User) -> Option<Value> {
    let mut events = synced.0["presence"]["events"].as_array()?.iter();
    let event = events.rfind(|event| event["sender"] == user.id.as_str())?;
    Some(event["content"]["presence"].clone())
}

pub(super) async fn types(user: &User, room: &str, timeout_ms: Option<u32>) {
    let path = format!("rooms/{}/typing/{}", encode(room), encode(&user.id));
    let body = json!({ "typing": timeout_ms.is_some(), "timeout": timeout_ms.unwrap_or(0) });
    user.put(&path, body).await.ok();
}

async fn is(user: &User, state: &str, status: &str) {
    let body = json!({ "presence": state, "status_msg": status });
    user.put(&status_path(user), body).await.ok();
}

pub(super) fn status_path(user: &User) -> String {
    format!("presence/{}/status", encode(&user.id))
}

/// Syncs until something is told; the cursor then.
pub(super) async fn until(user: &User, since: String, what: &str, told: impl Fn(&Synced) -> bool) -> String {
    let (mut since, started) = (since, Instant::now());
    loop {
        let synced = user.wait(&since).await;
        since = synced.next();
        if told(&synced) {
            return since;
        }
        assert!(started.elapsed() < AT_ONCE * 3, "never: {what}");
    }
}

/// Two users who share a room, each at a node.
pub(super) async fn apart(one: &TestServer, two: &TestServer) -> ([User; 2], String) {
    let [alice, bob] = [one.user("alice").await, two.user("bob").await];
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    // Each node knows of both by now.
    let since = bob.sync(None).await.next();
    alice.sync(Some(&since)).await;
    ([alice, bob], room)
}

/// Nodes on which nobody goes offline for want of a poll, however slow the machine is.
async fn patient_nodes() -> [TestServer; 2] {
    let one = TestServer::start_with(Engine::Postgres, |config| {
        config.presence.offline_after_seconds = 600;
    });
    let one = one.await;
    let two = one.start_node("two").await;
    [one, two]
}

#[tokio::test]
async fn who_types_at_one_node_is_seen_at_the_other_until_the_end() {
    let [one, two] = patient_nodes().await;
    let ([alice, bob], room) = apart(&one, &two).await;
    let listening = two.listen().await;
    let mut since = bob.sync(None).await.next();
    let mut socket = Socket::open(&listening.base, &bob, Some(&since)).await;

    types(&alice, &room, Some(60_000)).await;
    let here = json!([alice.id]);
    since = until(&bob, since, "she types", |synced| {
        typing(synced, &room) == Some(here.clone())
    })
    .await;
    while typing(&socket.sync().await, &room) != Some(here.clone()) {}
    types(&alice, &room, None).await;
    since = until(&bob, since, "she has stopped", |synced| {
        typing(synced, &room) == Some(json!([]))
    })
    .await;
    while typing(&socket.sync().await, &room) != Some(json!([])) {}

    // One that runs out does so everywhere, and one that is stopped from the other node too.
    types(&alice, &room, Some(500)).await;
    since = until(&bob, since, "she types", |synced| {
        typing(synced, &room) == Some(here.clone())
    })
    .await;
    since = until(&bob, since, "it has run out", |synced| {
        typing(synced, &room) == Some(json!([]))
    })
    .await;
    types(&alice, &room, Some(60_000)).await;
    since = until(&bob, since, "she types", |synced| {
        typing(synced, &room) == Some(here.clone())
    })
    .await;
    types(&alice.on(two.api()), &room, None).await;
    until(&bob, since, "she has stopped", |synced| {
        typing(synced, &room) == Some(json!([]))
    })
    .await;
    let nobody = look_for("nobody types at the first node", async || {
        let nid = one.replica(&room).await.nid;
        let typing = one.parts().typing.typing_users(nid);
        typing.is_empty().then_some(()).ok_or(format!("{typing:?}"))
    });
    nobody.await;
}

#[tokio::test]
async fn who_types_at_a_node_that_stops_has_stopped_at_the_other() {
    let [one, two] = patient_nodes().await;
    let ([alice, bob], room) = apart(&one, &two).await;
    let since = bob.sync(None).await.next();
    types(&alice, &room, Some(120_000)).await;
    let here = json!([alice.id]);
    let since = until(&bob, since, "she types", |synced| {
        typing(synced, &room) == Some(here.clone())
    })
    .await;
    one.shut_down().await;
    until(&bob, since, "she has stopped", |synced| {
        typing(synced, &room) == Some(json!([]))
    })
    .await;
}

#[tokio::test]
async fn presence_at_one_node_is_told_and_answered_at_the_other() {
    let [one, two] = patient_nodes().await;
    let ([alice, bob], _) = apart(&one, &two).await;
    let since = bob.sync(None).await.next();
    is(&alice, "unavailable", "at lunch").await;
    let since = until(&bob, since, "at lunch", |synced| {
        presence(synced, &alice) == Some(json!("unavailable"))
    });
    let since = since.await;
    let asked = bob.get(&status_path(&alice)).await.ok();
    assert_eq!(
        (&asked["presence"], &asked["status_msg"]),
        (&json!("unavailable"), &json!("at lunch"))
    );
    // A poll, at whatever node, brings a user back, and says nothing else of the status.
    alice.on(two.api()).sync(None).await;
    until(&bob, since, "back", |synced| {
        presence(synced, &alice) == Some(json!("online"))
    })
    .await;
    let back = look_for("it is known at the first node", async || {
        let asked = bob.on(one.api()).get(&status_path(&alice)).await.ok();
        (asked["presence"] == "online")
            .then_some(asked.clone())
            .ok_or(asked.to_string())
    });
    assert_eq!(back.await["status_msg"], "at lunch");
}

#[tokio::test]
async fn a_user_is_offline_when_no_node_has_the_user() {
    let one = TestServer::start_with(Engine::Postgres, |config| {
        config.presence.offline_after_seconds = 2
    });
    let one = one.await;
    let two = one.start_node("two").await;
    let ([alice, bob], _) = apart(&one, &two).await;
    let since = bob.sync(None).await.next();
    let is_told = |state: &'static str| {
        let alice = &alice;
        move |synced: &Synced| presence(synced, alice) == Some(json!(state))
    };
    let since = until(&bob, since, "she is gone", is_told("offline")).await;
    alice.sync(None).await;
    let since = until(&bob, since, "she comes", is_told("online")).await;
    // For thrice the time her only heartbeats are at the other node.
    let (began, mut since) = (Instant::now(), since);
    let there = alice.on(one.api());
    while began.elapsed() < Duration::from_secs(6) {
        there.sync(None).await;
        let synced = bob
            .sync_with(&format!("timeout=300&since={}", encode(&since)))
            .await;
        let told = presence(&synced, &alice);
        assert!(
            told.is_none() || told == Some(json!("online")),
            "she was here all the time"
        );
        since = synced.next();
    }
    until(&bob, since, "she is gone", |synced| {
        presence(synced, &alice) == Some(json!("offline"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_at_a_node_that_is_killed_has_stopped_typing_and_is_offline_before_long() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("maru.toml");
    std::fs::write(&file, "[presence]\noffline_after_seconds = 2\n").unwrap();
    let config = ["--config", file.to_str().unwrap()];
    let mut one = TestProcess::start(Engine::Postgres, &config).await;
    let flags = [&config[..], &["--node-name", "two"]].concat();
    let two = TestProcess::start_on(one.data().beside(), &flags).await;
    let [alice, bob] = [one.user("alice").await, two.user("bob").await];
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    let since = bob.sync(None).await.next();
    types(&alice, &room, Some(120_000)).await;
    let here = json!([alice.id]);
    let since = until(&bob, since, "she types", |synced| {
        typing(synced, &room) == Some(here.clone())
    })
    .await;
    is(&alice, "unavailable", "").await;
    let is_told = |state: &'static str| {
        let alice = &alice;
        move |synced: &Synced| presence(synced, alice) == Some(json!(state))
    };
    let since = until(&bob, since, "she is there", is_told("unavailable")).await;
    one.kill().await;
    let since = until(&bob, since, "she is gone", is_told("offline")).await;
    until(&bob, since, "she has stopped", |synced| {
        typing(synced, &room) == Some(json!([]))
    })
    .await;
}

#[tokio::test]
async fn a_node_that_starts_learns_who_is_there() {
    let one = TestServer::start_with(Engine::Postgres, |config| {
        config.presence.offline_after_seconds = 600;
    });
    let one = one.await;
    let [alice, bob] = [one.user("alice").await, one.user("bob").await];
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    is(&alice, "unavailable", "at lunch").await;
    types(&alice, &room, Some(120_000)).await;
    let two = one.start_node("two").await;
    let there = bob.on(two.api());
    let learnt = look_for("the new node knows of her", async || {
        let asked = there.get(&status_path(&alice)).await.ok();
        (asked["presence"] == "unavailable")
            .then_some(asked.clone())
            .ok_or(asked.to_string())
    });
    assert_eq!(learnt.await["status_msg"], "at lunch");
    let here = json!([alice.id]);
    let since = there.sync(None).await;
    if typing(&since, &room) != Some(here.clone()) {
        until(&there, since.next(), "she types", |synced| {
            typing(synced, &room) == Some(here.clone())
        })
        .await;
    }
}

/// A plain load balancer sends each request to another node.
#[tokio::test]
async fn a_device_that_goes_from_node_to_node_is_told_each_change_and_then_waits() {
    let [one, two] = two_nodes().await;
    let ([alice, bob], room) = apart(&one, &two).await;
    let (here, there) = (bob.on(one.api()), bob.on(two.api()));
    // Each node tells it all once.
    types(&alice, &room, Some(60_000)).await;
    let mut since = until(&there, there.sync(None).await.next(), "she types", |synced| {
        typing(synced, &room) == Some(json!([alice.id]))
    })
    .await;
    for expected in [json!([]), json!([alice.id]), json!([])] {
        let is_typing = expected != json!([]);
        types(&alice, &room, is_typing.then_some(60_000)).await;
        // Told at one of them, and perhaps at the other as well.
        let (mut last, mut answers, started) = (Value::Null, 0, Instant::now());
        loop {
            let mut is_quiet = true;
            for node in [&here, &there] {
                let synced = node
                    .sync_with(&format!("timeout=1000&since={}", encode(&since)))
                    .await;
                since = synced.next();
                if let Some(told) = typing(&synced, &room) {
                    (last, is_quiet) = (told, false);
                    answers += 1;
                }
            }
            if is_quiet && last == expected {
                break;
            }
            assert!(answers < 8, "told again and again: {last}");
            assert!(started.elapsed() < AT_ONCE * 3, "never told");
        }
    }
    // What changes while the device is at the other node is told when it comes back.
    types(&alice, &room, Some(60_000)).await;
    since = until(&there, since, "she types", |synced| {
        typing(synced, &room) == Some(json!([alice.id]))
    })
    .await;
    types(&alice, &room, None).await;
    until(&here, since, "she has stopped", |synced| {
        typing(synced, &room) == Some(json!([]))
    })
    .await;
}

#[tokio::test]
async fn a_message_to_a_device_that_waits_at_another_node_is_there_at_once() {
    let [one, two] = two_nodes().await;
    let ([alice, bob], _) = apart(&one, &two).await;
    let listening = two.listen().await;
    let since = bob.sync(None).await.next();
    let query = format!("since={}", encode(&since));
    let mut socket = Socket::connect(&listening.base, &bob.token, Shown::Header, &query)
        .await
        .unwrap();
    let notes = |synced: &Synced| {
        synced.0["to_device"]["events"]
            .as_array()
            .cloned()
            .unwrap_or_default()
    };
    let waiting = {
        let bob = bob.clone();
        tokio::spawn(async move {
            let mut since = since;
            loop {
                let synced = bob.wait(&since).await;
                match notes(&synced).pop() {
                    Some(note) => return (note, Instant::now()),
                    None => since = synced.next(),
                }
            }
        })
    };
    let sent = Instant::now();
    let path = format!("sendToDevice/org.example.note/{}", alice.transaction());
    let messages = json!({ "messages": { bob.id.clone(): { bob.device.clone(): { "text": "안녕" } } } });
    alice.put(&path, messages).await.ok();
    let (note, at) = waiting.await.unwrap();
    assert_eq!(note["content"]["text"], "안녕");
    // Not by the look every two seconds: that would come for half of them after one.
    println!("to another node's device within {:?}", at - sent);
    let framed = loop {
        if let Some(note) = notes(&socket.sync().await).pop() {
            break note;
        }
    };
    assert_eq!(framed, note);
}
