//! What somebody said who left for good and had it erased.

use maru_tests::user::{encode, texts};
use maru_tests::{Synced, TestServer, User, on_both_engines};
use serde_json::{Value, json};

use super::{of_room, room_of};

on_both_engines!(
    what_an_erased_user_said_is_not_for_newcomers,
    who_leaves_without_erasing_is_read_by_newcomers,
);

/// Closes an account.
async fn close(user: &User, erase: bool) {
    let auth = json!({ "type": "m.login.password", "user": user.name, "password": user.password });
    let body = json!({ "auth": auth, "erase": erase });
    user.post("account/deactivate", body).await.ok();
}

/// Everything that a user may read of a room, by whatever way it is read.
async fn everything(user: &User, room: &str, event: &str) -> String {
    let root = encode(event);
    let mut all = vec![json!(user.history(room).await)];
    let paths = [
        of_room(room, &format!("event/{root}")),
        of_room(room, &format!("context/{root}?limit=50")),
        format!("/_matrix/client/v1/rooms/{}/relations/{root}", encode(room)),
        format!("/_matrix/client/v1/rooms/{}/threads", encode(room)),
    ];
    for path in paths {
        all.push(user.get(&path).await.ok());
    }
    let Synced(synced) = user.sync(None).await;
    all.push(synced);
    Value::from(all).to_string()
}

async fn what_an_erased_user_said_is_not_for_newcomers(server: TestServer) {
    let [alice, bob, carol, dave] = [
        server.user("alice").await,
        server.user("bob").await,
        server.user("carol").await,
        server.user("dave").await,
    ];
    let room = room_of(&[&alice, &bob]).await;
    let root = bob.send(&room, "a secret").await;
    let thread = json!({
        "msgtype": "m.text", "body": "a secret in a thread",
        "m.relates_to": { "rel_type": "m.thread", "event_id": root },
    });
    bob.send_event(&room, "m.room.message", thread).await;
    let edit = json!({
        "msgtype": "m.text", "body": "* a better secret",
        "m.new_content": { "msgtype": "m.text", "body": "a better secret" },
        "m.relates_to": { "rel_type": "m.replace", "event_id": root },
    });
    bob.send_event(&room, "m.room.message", edit).await;
    carol.join(&room).await;
    alice.send(&room, "no secret").await;
    let path = format!("user/{}/account_data/org.example", encode(&bob.id));
    bob.put(&path, json!({ "of": "bob" })).await.ok();
    close(&bob, true).await;
    dave.join(&room).await;

    let server = server.restart().await;
    for (reader, knows) in [(&alice, true), (&carol, true), (&dave, false)] {
        let reader = reader.on(server.api());
        let read = everything(&reader, &room, &root).await;
        assert_eq!(
            read.contains("secret in a thread"),
            knows,
            "{}: {read}",
            reader.name
        );
        assert_eq!(read.contains("a better secret"), knows, "{}: {read}", reader.name);
        assert!(read.contains("no secret"), "{read}");
    }
    let history = dave.on(server.api()).history(&room).await;
    assert_eq!(texts(&history), ["no secret"]);
    let mut found = history.iter();
    let erased = found.find(|event| event["event_id"] == root.as_str()).unwrap();
    assert_eq!(
        (&erased["content"], &erased["sender"]),
        (&json!({}), &json!(bob.id))
    );

    // Who was there reads it also after having been away, and state is what it was.
    let carol = carol.on(server.api());
    carol.leave(&room).await;
    carol.join(&room).await;
    assert!(everything(&carol, &room, &root).await.contains("a better secret"));
    let data = server
        .parts()
        .store
        .accounts
        .account_data_after(bob.id.as_str().try_into().unwrap(), None);
    assert!(data.await.unwrap().is_empty(), "account data goes too");
}

async fn who_leaves_without_erasing_is_read_by_newcomers(server: TestServer) {
    let [alice, bob, dave] = [
        server.user("alice").await,
        server.user("bob").await,
        server.user("dave").await,
    ];
    let room = room_of(&[&alice, &bob]).await;
    bob.send(&room, "no secret").await;
    close(&bob, false).await;
    dave.join(&room).await;
    assert_eq!(texts(&dave.history(&room).await), ["no secret"]);
}
