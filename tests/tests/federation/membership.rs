//! Going and being sent away, coming again, and everybody hearing of it.

use maru_tests::{Engine, TestServer, User, federate, for_both_engines, waiting::look_for};
use serde_json::{Value, json};

for_both_engines!(who_hangs_up_while_coming_in_is_in_all_the_same);

/// Two servers with a user each in a room of the first one's.
async fn hall(request: Value) -> (TestServer, TestServer, User, User, String) {
    let (a, b) = (TestServer::start().await, TestServer::start().await);
    federate(&[&a, &b]).await;
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let room = alice.create_room(request).await;
    bob.join_via(&room, a.name()).await.ok();
    (a, b, alice, bob, room)
}

async fn act(user: &User, room: &str, what: &str, whom: &User) {
    user.post(
        &format!("rooms/{room}/{what}"),
        json!({ "user_id": whom.id, "reason": "because" }),
    )
    .await
    .ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_kick_of_a_server_reaches_it_and_its_user_may_come_again() {
    let (a, _b, alice, bob, room) = hall(json!({ "preset": "public_chat" })).await;
    act(&alice, &room, "kick", &bob).await;
    assert_eq!(bob.is_out(&room).await, "leave");
    alice.send(&room, "while away").await;
    bob.join_via(&room, a.name()).await.ok();
    alice.sees_member(&room, &bob, "join").await;
    alice.send(&room, "again").await;
    bob.hears(&room, "again").await;
    bob.send(&room, "back").await;
    alice.hears(&room, "back").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ban_reaches_the_server_keeps_out_and_ends() {
    let (a, _b, alice, bob, room) = hall(json!({ "preset": "public_chat" })).await;
    act(&alice, &room, "ban", &bob).await;
    assert_eq!(bob.is_out(&room).await, "ban");
    bob.join_via(&room, a.name()).await.refused(403, "M_FORBIDDEN");
    act(&alice, &room, "unban", &bob).await;
    bob.join_via(&room, a.name()).await.ok();
    bob.send(&room, "forgiven").await;
    alice.hears(&room, "forgiven").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_who_has_left_is_banned_at_home_too_and_can_be_invited_again() {
    let (_a, _b, alice, bob, room) = hall(json!({ "preset": "public_chat" })).await;
    bob.leave(&room).await;
    alice.sees_member(&room, &bob, "leave").await;
    alice.invite(&room, &bob).await;
    bob.is_invited(&room).await;
    bob.join(&room).await;
    bob.send(&room, "again").await;
    alice.hears(&room, "again").await;
    bob.leave(&room).await;
    alice.sees_member(&room, &bob, "leave").await;
    bob.post(&format!("rooms/{room}/forget"), json!({})).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declined_invitation_can_be_forgotten() {
    let (a, b) = (TestServer::start().await, TestServer::start().await);
    federate(&[&a, &b]).await;
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let room = alice.create_room(json!({})).await;
    alice.invite(&room, &bob).await;
    bob.is_invited(&room).await;
    let forget = format!("rooms/{room}/forget");
    bob.post(&forget, json!({})).await.refused(400, "M_BAD_STATE");
    bob.leave(&room).await;
    alice.sees_member(&room, &bob, "leave").await;
    bob.post(&forget, json!({})).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invitation_that_is_taken_back_is_gone() {
    let (a, b) = (TestServer::start().await, TestServer::start().await);
    federate(&[&a, &b]).await;
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let room = alice.create_room(json!({})).await;
    alice.invite(&room, &bob).await;
    bob.is_invited(&room).await;
    act(&alice, &room, "kick", &bob).await;
    bob.until("the end of the invitation", |synced| {
        synced.0["rooms"]["invite"][&room].is_null().then_some(())
    })
    .await;
    bob.post(&format!("rooms/{room}/join"), json!({}))
        .await
        .refused(403, "M_FORBIDDEN");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_come_in_at_once_from_two_servers() {
    let servers = TestServer::start_several().await;
    let [a, b, c] = &servers;
    federate(&[a, b, c]).await;
    let alice = a.user("alice").await;
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    let mut guests = Vec::new();
    for at in 0..3 {
        guests.push(b.user(&format!("b{at}")).await);
        guests.push(c.user(&format!("c{at}")).await);
    }
    let coming = guests.iter().map(|guest| guest.join_via(&room, a.name()));
    for reply in futures_util::future::join_all(coming).await {
        reply.ok();
    }
    for guest in &guests {
        alice.sees_member(&room, guest, "join").await;
        guests[0].sees_member(&room, guest, "join").await;
        guests[1].sees_member(&room, guest, "join").await;
    }
    for guest in &guests {
        guest.send(&room, &format!("{} is here", guest.name)).await;
    }
    for listener in [&alice, &guests[0], &guests[1]] {
        for guest in &guests {
            listener.hears(&room, &format!("{} is here", guest.name)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_that_is_not_federated_lets_nobody_in() {
    let (a, b) = (TestServer::start().await, TestServer::start().await);
    federate(&[&a, &b]).await;
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let request = json!({ "preset": "public_chat", "creation_content": { "m.federate": false } });
    let room = alice.create_room(request).await;
    bob.join_via(&room, a.name()).await.refused(403, "M_FORBIDDEN");
    let invite = alice
        .post(&format!("rooms/{room}/invite"), json!({ "user_id": bob.id }))
        .await;
    invite.refused(403, "M_FORBIDDEN");
}

#[tokio::test(flavor = "multi_thread")]
async fn power_changes_and_upgrades_cross() {
    let (_a, b, alice, bob, room) = hall(json!({ "preset": "public_chat", "room_version": "11" })).await;
    let levels = format!("rooms/{room}/state/m.room.power_levels");
    let mut content = alice.get(&levels).await.ok();
    content["users"][&bob.id] = json!(100);
    alice.put(&levels, content).await.ok();
    bob.until("the power", |synced| {
        let events = synced.events(&room);
        let state = synced.room(&room)["state"]["events"].as_array().cloned();
        let mut all = events.into_iter().chain(state.unwrap_or_default());
        all.any(|event| event["content"]["users"][&bob.id] == 100)
            .then_some(())
    })
    .await;
    bob.set_state(&room, "m.room.name", "", json!({ "name": "Bob's" }))
        .await;
    let upgraded = bob
        .post(&format!("rooms/{room}/upgrade"), json!({ "new_version": "12" }))
        .await
        .ok();
    let replacement = upgraded["replacement_room"].as_str().unwrap().to_owned();
    alice
        .until("the tombstone", |synced| {
            let events = synced.events(&room);
            let told = events
                .iter()
                .any(|event| event["content"]["replacement_room"] == replacement.as_str());
            told.then_some(())
        })
        .await;
    alice.join_via(&replacement, b.name()).await.ok();
    alice.send(&replacement, "moved").await;
    bob.hears(&replacement, "moved").await;
}

/// Whoever asked to come in hangs up once the other server has let him in.
async fn who_hangs_up_while_coming_in_is_in_all_the_same(engine: Engine) {
    let (a, b) = (TestServer::start().await, TestServer::start_on(engine).await);
    federate(&[&a, &b]).await;
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    for _ in 0..3 {
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        tokio::select! {
            () = alice.sees_member(&room, &bob, "join") => {}
            joined = bob.join_via(&room, a.name()) => drop(joined.ok()),
        }
        look_for("the room", async || {
            let rooms = bob.get("joined_rooms").await.ok();
            let joined = rooms["joined_rooms"].as_array().unwrap().contains(&json!(room));
            joined.then_some(()).ok_or(rooms.to_string())
        })
        .await;
        alice.send(&room, "welcome").await;
        bob.hears(&room, "welcome").await;
    }
}
