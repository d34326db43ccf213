//! Servers that go on in a room for a user who is banned: they were restored from a backup that is older than that. Who
//! banned is gone with its server, so nobody's log says it again.

use maru_tests::{Engine, TestServer, federate, for_both_engines, reunite};
use serde_json::json;

for_both_engines!(
    who_goes_back_to_before_a_ban_hears_of_it,
    who_goes_back_to_before_a_ban_and_has_what_came_last_hears_of_it,
);

async fn who_goes_back_to_before_a_ban_hears_of_it(engine: Engine) {
    Box::pin(is_banned_again(engine, &["bob"])).await;
}

/// A hears of the ban before it hears that B's other user has left, which is in the backup: by its account B went with that.
async fn who_goes_back_to_before_a_ban_and_has_what_came_last_hears_of_it(engine: Engine) {
    Box::pin(is_banned_again(engine, &["bob", "dave"])).await;
}

/// C bans the first of B's users while the second, if any, leaves; B goes back to before it knew of the ban.
async fn is_banned_again(engine: Engine, names: &[&str]) {
    let (a, b, c) = (
        TestServer::start_on(engine).await,
        TestServer::start_on(engine).await,
        TestServer::start().await,
    );
    let addresses = federate(&[&a, &b, &c]).await;
    let (alice, carol) = (a.user("alice").await, c.user("carol").await);
    let levels = json!({ "users": { &carol.id: 50 } });
    let room = json!({ "preset": "public_chat", "power_level_content_override": levels });
    let room = alice.create_room(room).await;
    carol.join_via(&room, a.name()).await.ok();
    let mut users = Vec::new();
    for name in names {
        let user = b.user(name).await;
        user.join_via(&room, a.name()).await.ok();
        carol.sees_member(&room, &user, "join").await;
        users.push(user);
    }

    // Nobody reaches it.
    let b = b.restart().await;
    for user in &users[1..] {
        user.on(b.api()).leave(&room).await;
    }
    let b = b.shut_down().await;
    let backup = b.back_up().await;
    let ban = json!({ "user_id": users[0].id });
    carol.post(&format!("rooms/{room}/ban"), ban).await.ok();
    alice.sees_member(&room, &users[0], "ban").await;
    c.shut_down().await;
    let b = b.start().await;
    reunite(&b, &a, addresses[0]).await;
    for user in &users[1..] {
        alice.sees_member(&room, user, "leave").await;
    }

    let b = b.shut_down().await.restore(backup).await.start().await;
    let bob = users[0].on(b.api());
    bob.send(&room, "still here").await;
    reunite(&b, &a, addresses[0]).await;
    assert_eq!(bob.is_out(&room).await, "ban");
    let again = json!({ "msgtype": "m.text", "body": "still here" });
    let again = bob.send_as(&room, "m.room.message", "again", again).await;
    again.refused(403, "M_FORBIDDEN");
    alice.send(&room, "he is not").await;
    assert_eq!(alice.sync(None).await.texts(&room), ["he is not"]);
}
