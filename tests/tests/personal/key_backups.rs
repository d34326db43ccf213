//! Backups of room keys.

use maru_tests::user::encode;
use maru_tests::{Engine, TestServer, User, on_both_engines};
use ruma::OwnedUserId;
use serde_json::{Value, json};

on_both_engines!(
    keys_come_back_as_they_were_backed_up,
    the_better_key_of_a_session_stays,
    only_the_newest_version_takes_keys,
    a_large_backup_comes_back_whole,
    keys_are_removed_one_by_one_and_together,
    what_is_no_backup_is_refused,
    a_closed_account_leaves_no_backup,
);

fn algorithm(key: &str) -> Value {
    json!({
        "algorithm": "m.megolm_backup.v1.curve25519-aes-sha2",
        "auth_data": { "public_key": key, "signatures": {} },
    })
}

async fn new_version(user: &User) -> String {
    let created = user.post("room_keys/version", algorithm("public")).await.ok();
    created["version"].as_str().unwrap().to_owned()
}

fn key(index: u32, forwarded: u32, verified: bool, text: &str) -> Value {
    json!({
        "first_message_index": index, "forwarded_count": forwarded, "is_verified": verified,
        "session_data": { "ephemeral": text, "ciphertext": "c", "mac": "m" },
    })
}

fn keys(version: &str, of: &str) -> String {
    format!("room_keys/keys{of}?version={version}")
}

async fn keys_come_back_as_they_were_backed_up(server: TestServer) {
    let [alice, bob] = [server.user("alice").await, server.user("bob").await];
    alice.get("room_keys/version").await.refused(404, "M_NOT_FOUND");
    let version = new_version(&alice).await;
    let described = alice.get("room_keys/version").await.ok();
    assert_eq!(
        (&described["count"], &described["version"]),
        (&json!(0), &json!(version))
    );
    assert_eq!(described["auth_data"], algorithm("public")["auth_data"]);
    assert_eq!(alice.get(&keys(&version, "")).await.ok(), json!({ "rooms": {} }));
    assert_eq!(
        alice.get(&keys(&version, "/!a")).await.ok(),
        json!({ "sessions": {} })
    );
    alice
        .get(&keys(&version, "/!a/s1"))
        .await
        .refused(404, "M_NOT_FOUND");

    let (one, two, three) = (
        key(0, 0, true, "1"),
        key(1, 2, false, "2"),
        key(3, 0, true, "\"\\ 한글"),
    );
    let of_two_rooms =
        json!({ "rooms": { "!a": { "sessions": { "s1": one } }, "!b": { "sessions": { "s/2": two } } } });
    let stored = alice.put(&keys(&version, ""), of_two_rooms).await.ok();
    assert_eq!(stored["count"], 2);
    let of_room = json!({ "sessions": { "s3": three } });
    let more = alice.put(&keys(&version, "/!b"), of_room).await.ok();
    assert_eq!(more["count"], 3);
    assert_ne!(stored["etag"], more["etag"]);
    let again = alice.put(&keys(&version, "/!a/s1"), one.clone()).await.ok();
    assert_eq!(again, more, "nothing has changed");

    let server = server.restart().await;
    let [alice, bob] = [alice.on(server.api()), bob.on(server.api())];
    let all = json!({ "rooms": {
        "!a": { "sessions": { "s1": one } }, "!b": { "sessions": { "s/2": two, "s3": three } },
    } });
    assert_eq!(alice.get(&keys(&version, "")).await.ok(), all);
    assert_eq!(alice.get(&keys(&version, "/!b")).await.ok(), all["rooms"]["!b"]);
    let session = format!("/!b/{}", encode("s/2"));
    assert_eq!(alice.get(&keys(&version, &session)).await.ok(), two);
    let described = alice.get(&format!("room_keys/version/{version}")).await.ok();
    assert_eq!(
        (&described["count"], &described["etag"]),
        (&json!(3), &more["etag"])
    );
    // It is nobody else's.
    bob.get(&keys(&version, "")).await.refused(404, "M_NOT_FOUND");
    bob.put(&keys(&version, "/!a/s1"), one)
        .await
        .refused(404, "M_NOT_FOUND");
}

async fn the_better_key_of_a_session_stays(server: TestServer) {
    let alice = server.user("alice").await;
    let version = new_version(&alice).await;
    let path = keys(&version, "/!a/s1");
    // Each is better than all before it, so that those never come back.
    let ranked = [
        key(9, 9, false, "0"),
        key(9, 8, false, "1"),
        key(8, 9, false, "2"),
        key(9, 9, true, "3"),
        key(9, 0, true, "4"),
        key(0, 5, true, "5"),
    ];
    let mut etags = Vec::new();
    for (rank, better) in ranked.iter().enumerate() {
        for worse in &ranked[..rank] {
            alice.put(&path, worse.clone()).await.ok();
        }
        let stored = alice.put(&path, better.clone()).await.ok();
        assert_eq!(stored["count"], 1);
        assert_eq!(&alice.get(&path).await.ok(), better);
        assert!(!etags.contains(&stored["etag"]));
        etags.push(stored["etag"].clone());
    }
    let equal = key(0, 5, true, "another of the same rank");
    assert_eq!(alice.put(&path, equal).await.ok()["etag"], etags[5]);
    assert_eq!(alice.get(&path).await.ok(), ranked[5]);
}

async fn only_the_newest_version_takes_keys(server: TestServer) {
    let alice = server.user("alice").await;
    let old = new_version(&alice).await;
    alice.put(&keys(&old, "/!a/s1"), key(0, 0, true, "1")).await.ok();
    let new = new_version(&alice).await;
    assert_ne!(old, new);
    let refused = alice.put(&keys(&old, "/!a/s2"), key(0, 0, true, "2")).await;
    refused.refused(403, "M_WRONG_ROOM_KEYS_VERSION");
    assert_eq!(refused.json["current_version"], json!(new));
    // What is there can still be read.
    assert_eq!(alice.get(&keys(&old, "/!a/s1")).await.ok(), key(0, 0, true, "1"));
    let path = format!("room_keys/version/{new}");
    alice.delete(&path).await.ok();
    alice.delete(&path).await.refused(404, "M_NOT_FOUND");
    alice.get(&path).await.refused(404, "M_NOT_FOUND");
    assert_eq!(alice.get("room_keys/version").await.ok()["version"], json!(old));
    let newest = new_version(&alice).await;
    assert!(newest != new && newest != old, "a number is never used again");

    let mut changed = algorithm("other");
    changed["version"] = json!(newest);
    let path = format!("room_keys/version/{newest}");
    alice.put(&path, changed.clone()).await.ok();
    assert_eq!(alice.get(&path).await.ok()["auth_data"], changed["auth_data"]);
    changed["version"] = json!(old);
    alice
        .put(&path, changed.clone())
        .await
        .refused(400, "M_INVALID_PARAM");
    changed["version"] = json!(newest);
    changed["algorithm"] = json!("org.example.other");
    alice.put(&path, changed).await.refused(400, "M_INVALID_PARAM");
}

async fn a_large_backup_comes_back_whole(server: TestServer) {
    let alice = server.user("alice").await;
    let version = new_version(&alice).await;
    let mut rooms = serde_json::Map::new();
    for (room, sessions) in [("!a", 250), ("!b", 1), ("!c", 600), ("!d", 249)] {
        let sessions = (0..sessions).map(|n| (format!("s{n:04}"), key(n, 0, true, "x")));
        rooms.insert(
            room.to_owned(),
            json!({ "sessions": serde_json::Map::from_iter(sessions) }),
        );
    }
    let all = json!({ "rooms": rooms });
    let stored = alice.put(&keys(&version, ""), all.clone()).await.ok();
    assert_eq!(stored["count"], 1100);
    assert_eq!(alice.get(&keys(&version, "")).await.ok(), all);
    for room in ["!a", "!b", "!c", "!d"] {
        let of_room = alice.get(&keys(&version, &format!("/{room}"))).await.ok();
        assert_eq!(of_room, all["rooms"][room]);
    }
}

async fn keys_are_removed_one_by_one_and_together(server: TestServer) {
    let alice = server.user("alice").await;
    let version = new_version(&alice).await;
    let one = || key(0, 0, true, "x");
    let all = json!({ "rooms": {
        "!a": { "sessions": { "s1": one(), "s2": one() } }, "!b": { "sessions": { "s1": one(), "s3": one() } },
    } });
    alice.put(&keys(&version, ""), all).await.ok();
    for (of, left) in [("/!a/s1", 3), ("/!a/s1", 3), ("/!b", 1), ("", 0)] {
        let removed = alice.delete(&keys(&version, of)).await.ok();
        assert_eq!(removed["count"], left, "{of}");
        let described = alice.get("room_keys/version").await.ok();
        assert_eq!(
            (&described["count"], &described["etag"]),
            (&json!(left), &removed["etag"])
        );
    }
    assert_eq!(alice.get(&keys(&version, "")).await.ok(), json!({ "rooms": {} }));
    alice.delete(&keys("7", "")).await.refused(404, "M_NOT_FOUND");
}

async fn what_is_no_backup_is_refused(server: TestServer) {
    let alice = server.user("alice").await;
    for version in [
        json!({}),
        json!({ "algorithm": 3, "auth_data": {} }),
        json!({ "algorithm": "a", "auth_data": [] }),
    ] {
        alice
            .post("room_keys/version", version)
            .await
            .refused(400, "M_BAD_JSON");
    }
    let large = json!({ "algorithm": "a", "auth_data": { "text": "x".repeat(70_000) } });
    alice
        .post("room_keys/version", large)
        .await
        .refused(413, "M_TOO_LARGE");
    let version = new_version(&alice).await;
    let path = keys(&version, "/!a/s1");
    for (field, wrong) in [
        ("first_message_index", json!(-1)),
        ("first_message_index", json!(1.5)),
        ("forwarded_count", json!("0")),
        ("is_verified", json!(1)),
        ("session_data", json!("text")),
    ] {
        let mut bad = key(0, 0, true, "1");
        bad[field] = wrong;
        alice.put(&path, bad).await.refused(400, "M_BAD_JSON");
    }
    alice
        .put(&path, key(0, 0, true, &"x".repeat(70_000)))
        .await
        .refused(413, "M_TOO_LARGE");
    let long = keys(&version, &format!("/!a/{}", "s".repeat(300)));
    alice
        .put(&long, key(0, 0, true, "1"))
        .await
        .refused(400, "M_INVALID_PARAM");
    for unknown in ["0", "-1", "99", "none", "99999999999999999999"] {
        alice.put(&keys(unknown, "/!a/s1"), key(0, 0, true, "1")).await;
        alice.get(&keys(unknown, "")).await.refused(404, "M_NOT_FOUND");
    }
    assert_eq!(alice.get("room_keys/version").await.ok()["count"], 0);
}

async fn a_closed_account_leaves_no_backup(server: TestServer) {
    let alice = server.user("alice").await;
    let version = new_version(&alice).await;
    alice
        .put(&keys(&version, "/!a/s1"), key(0, 0, true, "1"))
        .await
        .ok();
    let user_id: OwnedUserId = alice.id.clone().try_into().unwrap();
    let tables = &server.parts().store.encryption;
    let held = async || {
        let keys = tables
            .room_keys(&user_id, 1, (None, None), &Default::default())
            .await;
        let backup = tables.key_backup(&user_id, None).await.unwrap();
        (backup.is_some(), keys.unwrap().len())
    };
    assert_eq!(held().await, (true, 1));
    let auth = json!({ "type": "m.login.password", "password": alice.password,
        "identifier": { "type": "m.id.user", "user": alice.id } });
    alice
        .post("account/deactivate", json!({ "auth": auth }))
        .await
        .ok();
    assert_eq!(held().await, (false, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_have_a_quota() {
    let server = TestServer::start_with(Engine::Sqlite, |config| {
        config.limits.key_backup_keys = 2;
        config.limits.key_backup_bytes = 1000;
    })
    .await;
    let alice = server.user("alice").await;
    let old = new_version(&alice).await;
    let put = async |version: &str, of: &str, text: &str| {
        alice.put(&keys(version, of), key(5, 0, true, text)).await
    };
    put(&old, "/!a/s1", "x").await.ok();
    put(&old, "/!a/s2", "x").await.ok();
    put(&old, "/!a/s3", "x")
        .await
        .refused(403, "M_RESOURCE_LIMIT_EXCEEDED");
    // Of all versions together.
    let new = new_version(&alice).await;
    put(&new, "/!a/s1", "x")
        .await
        .refused(403, "M_RESOURCE_LIMIT_EXCEEDED");
    alice.delete(&format!("room_keys/version/{old}")).await.ok();
    put(&new, "/!a/s1", "x").await.ok();
    put(&new, "/!a/s2", &"x".repeat(1000))
        .await
        .refused(403, "M_RESOURCE_LIMIT_EXCEEDED");
    alice
        .put(&keys(&new, "/!a/s1"), key(4, 0, true, &"x".repeat(1000)))
        .await
        .refused(403, "M_RESOURCE_LIMIT_EXCEEDED");
    alice
        .put(&keys(&new, "/!a/s1"), key(4, 0, true, &"x".repeat(800)))
        .await
        .ok();
    for _ in 0..19 {
        new_version(&alice).await;
    }
    let refused = alice.post("room_keys/version", algorithm("public")).await;
    refused.refused(403, "M_RESOURCE_LIMIT_EXCEEDED");
}
