//! Waiting for news, and coming back for them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use maru_tests::user::{encode, texts};
use maru_tests::{Reply, Synced, TestServer, User, on_both_engines};
use ruma::UserId;
use serde_json::json;
use tokio::task::JoinHandle;

on_both_engines!(
    a_poll_of_a_logged_out_device_ends_at_once,
    a_poll_of_another_device_goes_on,
    an_old_cursor_works_after_restarts,
);

/// A long-poll, longer than any test, of somebody for whom there is nothing new. It has begun to wait.
async fn begun(server: &TestServer, user: &User) -> JoinHandle<Reply> {
    let mut since = user.sync(None).await.next();
    loop {
        // The user's own presence is news once.
        let synced = user.sync(Some(&since)).await;
        if synced.0.get("presence").is_none() && synced.0.get("device_lists").is_none() {
            break;
        }
        since = synced.next();
    }
    let path = format!("sync?timeout=90000&since={}", encode(&since));
    let asking = user.clone();
    let poll = tokio::spawn(async move { asking.get(&path).await });
    let user_id = <&UserId>::try_from(&*user.id).unwrap();
    let notifier = &server.parts().notifier;
    // A session holds the inbox; the hub holds it too, and so does this question.
    while !poll.is_finished()
        && notifier
            .get(user_id)
            .is_none_or(|inbox| Arc::strong_count(&inbox) < 3)
    {
        tokio::task::yield_now().await;
    }
    poll
}

async fn a_poll_of_a_logged_out_device_ends_at_once(server: TestServer) {
    let alice = server.user("alice").await;
    let started = Instant::now();
    for n in 0..3 {
        let device = alice.second_device().await;
        let poll = begun(&server, &device).await;
        match n {
            0 => drop(device.post("logout", json!({})).await.ok()),
            // Somebody logs in on the same device.
            1 => {
                let login = json!({
                    "type": "m.login.password",
                    "identifier": { "type": "m.id.user", "user": "alice" },
                    "password": device.password,
                    "device_id": device.device,
                });
                drop(alice.post("login", login).await.ok());
            }
            _ => drop(alice.post("logout/all", json!({})).await.ok()),
        }
        poll.await.unwrap().refused(401, "M_UNKNOWN_TOKEN");
    }
    assert!(started.elapsed() < Duration::from_secs(60));
}

async fn a_poll_of_another_device_goes_on(server: TestServer) {
    let alice = server.user("alice").await;
    let room = alice.create_room(json!({})).await;
    let other = alice.second_device().await;
    let poll = begun(&server, &alice).await;
    other.post("logout", json!({})).await.ok();
    // That a device is gone may be news by itself.
    let mut synced = Synced(poll.await.unwrap().ok());
    let event = alice.send(&room, "still listening").await;
    while !synced.timeline(&room).contains(&event) {
        synced = alice.wait(&synced.next()).await;
    }
}

async fn an_old_cursor_works_after_restarts(server: TestServer) {
    let [alice, bob] = [server.user("alice").await, server.user("bob").await];
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    let since = alice.sync(None).await.next();
    let (mut server, mut expected) = (server, Vec::new());
    for round in 0..3 {
        let bob = bob.on(server.api());
        for n in 0..15 {
            let text = format!("{round}.{n}");
            bob.send(&room, &text).await;
            expected.push(text);
        }
        server = server.restart().await;
        let (news, _) = alice.on(server.api()).news(&room, &since).await;
        assert_eq!(texts(&news), expected);
    }
    let now = alice.on(server.api()).sync(Some(&since)).await.next();
    let (news, _) = alice.on(server.api()).news(&room, &now).await;
    assert!(news.is_empty(), "{news:?}");
}
