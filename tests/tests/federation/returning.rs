//! Servers that have left a room, or think so, and come back: what they alone know of it counts everywhere, and what the
//! others count them in for reaches them.

use maru::clock::Clock;
use maru_tests::{Engine, TestServer, User, federate, for_both_engines, reunite};
use serde_json::json;

for_both_engines!(who_has_long_left_is_not_dialled);

/// Gives or takes a member's power over others: 50 is what kicking and banning takes.
async fn empower(host: &User, room: &str, whom: &User, power: u32) -> String {
    let levels = format!("rooms/{room}/state/m.room.power_levels");
    let mut content = host.get(&levels).await.ok();
    content["users"][&whom.id] = json!(power);
    host.set_state(room, "m.room.power_levels", "", content).await
}

async fn sees_event(user: &User, room: &str, event: &str) {
    user.until("an event", |synced| {
        let state = synced.room(room)["state"]["events"].as_array().cloned();
        let mut all = synced.events(room).into_iter().chain(state.unwrap_or_default());
        all.any(|shown| shown["event_id"] == event).then_some(())
    })
    .await;
}

/// B bans one of its own while nobody hears of it, and leaves. C, which B does not know to be in the room, would let the
/// banned one in: B's replica remembers, and C learns of it.
#[tokio::test(flavor = "multi_thread")]
async fn who_comes_again_through_another_server_stays_banned() {
    let [a, b, c] = TestServer::start_several().await;
    federate(&[&a, &b]).await;
    let (alice, bob, carol) = (a.user("alice").await, b.user("bob").await, c.user("carol").await);
    let dave = b.user("dave").await;
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    for user in [&bob, &dave] {
        user.join_via(&room, a.name()).await.ok();
        alice.sees_member(&room, user, "join").await;
    }
    let power = empower(&alice, &room, &bob, 50).await;
    sees_event(&bob, &room, &power).await;

    let b = b.shut_down().await;
    federate(&[&a, &c]).await;
    carol.join_via(&room, a.name()).await.ok();
    a.shut_down().await;
    let b = b.start().await;
    let (bob, dave) = (bob.on(b.api()), dave.on(b.api()));
    let ban = json!({ "user_id": dave.id });
    bob.post(&format!("rooms/{room}/ban"), ban).await.ok();
    bob.leave(&room).await;
    federate(&[&b, &c]).await;
    carol.sees_member(&room, &dave, "join").await;

    dave.join_via(&room, c.name()).await.refused(403, "M_FORBIDDEN");
    carol.sees_member(&room, &dave, "ban").await;
    carol.sees_member(&room, &bob, "leave").await;
}

/// C kicks B's only user while A takes from C the power to do so: by all that was said the user is still in the room. C has
/// told B of the kick, and A tells B of nothing, but where its replica ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_kick_that_is_undone_elsewhere_is_undone_for_who_was_kicked() {
    let [a, b, c] = TestServer::start_several().await;
    let addresses = federate(&[&a, &b, &c]).await;
    let (alice, bob, carol) = (a.user("alice").await, b.user("bob").await, c.user("carol").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    for user in [&bob, &carol] {
        user.join_via(&room, a.name()).await.ok();
    }
    let power = empower(&alice, &room, &carol, 50).await;
    sees_event(&carol, &room, &power).await;
    carol.sees_member(&room, &bob, "join").await;
    bob.sees_member(&room, &carol, "join").await;
    sees_event(&bob, &room, &power).await;

    let a = a.shut_down().await;
    let kick = json!({ "user_id": bob.id });
    carol.post(&format!("rooms/{room}/kick"), kick).await.ok();
    assert_eq!(bob.is_out(&room).await, "leave");
    carol.send(&room, "he is out").await;
    let c = c.shut_down().await;
    let a = a.start().await;
    let alice = alice.on(a.api());
    empower(&alice, &room, &carol, 0).await;

    // A learns of the kick, by which nothing changes for it.
    let b_address = addresses[1];
    let c = c.start().await;
    federate(&[&a, &c]).await;
    alice.hears(&room, "he is out").await;
    alice.sees_member(&room, &bob, "join").await;
    reunite(&a, &b, b_address).await;
    bob.sees_member(&room, &bob, "join").await;
    bob.send(&room, "here I am").await;
    alice.hears(&room, "here I am").await;
    alice.send(&room, "there you are").await;
    let carol = carol.on(c.api());
    carol.hears(&room, "here I am").await;
    carol.sees_member(&room, &bob, "join").await;
}

/// While neither hears the other, A kicks B's only user and leaves, and somebody else of B comes in. So by A's account nobody
/// of B was there to be told that A has left, and B sends to A what A does not take: what A lacks settles it.
#[tokio::test(flavor = "multi_thread")]
async fn who_came_back_unseen_hears_that_the_other_has_left() {
    let (a, b) = (TestServer::start().await, TestServer::start().await);
    federate(&[&a, &b]).await;
    let (alice, bob, dave) = (a.user("alice").await, b.user("bob").await, b.user("dave").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join_via(&room, a.name()).await.ok();
    alice.sees_member(&room, &bob, "join").await;

    let b = b.shut_down().await;
    let kick = json!({ "user_id": bob.id });
    alice.post(&format!("rooms/{room}/kick"), kick).await.ok();
    alice.leave(&room).await;
    let a = a.shut_down().await;
    let b = b.start().await;
    let dave = dave.on(b.api());
    dave.join(&room).await;
    let a = a.start().await;
    federate(&[&a, &b]).await;

    dave.sees_member(&room, &bob, "leave").await;
    dave.sees_member(&room, &alice, "leave").await;
}

/// A server has left the only room that it shared with another. That one starts again: a day later the first may not know
/// yet how it went, and is looked for; a year later it is not.
async fn who_has_long_left_is_not_dialled(engine: Engine) {
    let (a, b) = (TestServer::start_on(engine).await, TestServer::start().await);
    federate(&[&a, &b]).await;
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join_via(&room, a.name()).await.ok();
    bob.leave(&room).await;
    alice.sees_member(&room, &bob, "leave").await;
    let name = b.parts().identity.server_name.clone();
    b.shut_down().await;

    let (day, mut a) = (24 * 60 * 60 * 1000, a);
    for (days, is_wanted) in [(1, true), (365, false)] {
        let later = Clock::Manual((Clock::System.now_ms() + days * day).into());
        a = a.shut_down().await.start_at(later).await;
        a.open_federation().await;
        let pool = a.parts().peers.pool().unwrap();
        assert_eq!(pool.peer(&name).is_some(), is_wanted, "after {days} days");
    }
}
