//! Members that are told when they speak (client-server API, "Lazy-loading room members").

use maru_tests::user::encode;
use maru_tests::{Synced, TestServer, User, on_both_engines};
use serde_json::{Value, json};

on_both_engines!(
    what_a_device_was_told_holds_from_its_cursor_on,
    a_limited_timeline_comes_with_its_speakers,
    redundant_members_are_those_who_speak,
    who_speaks_and_then_changes_is_told_as_before,
);

/// A sync that loads members lazily, with this limit of timelines.
async fn lazily(user: &User, since: Option<&str>, limit: usize, redundant: bool) -> Synced {
    let filter = json!({ "room": {
        "timeline": { "limit": limit },
        "state": { "lazy_load_members": true, "include_redundant_members": redundant },
    } });
    let since = since
        .map(|since| format!("&since={}", encode(since)))
        .unwrap_or_default();
    let filter = encode(&filter.to_string());
    user.sync_with(&format!("timeout=0&filter={filter}{since}")).await
}

/// The users whose memberships stand in a room's state.
fn members(synced: &Synced, room: &str) -> Vec<String> {
    let events = synced.room(room)["state"]["events"].as_array().cloned();
    let members = events
        .into_iter()
        .flatten()
        .filter(|event| event["type"] == "m.room.member");
    let key = |event: Value| event["state_key"].as_str().unwrap().to_owned();
    let mut members: Vec<_> = members.map(key).collect();
    members.sort_unstable();
    members
}

/// Alice's room, with the others in it, who have said nothing so far.
async fn hall(server: &TestServer) -> ([User; 3], String) {
    let people = [
        server.user("alice").await,
        server.user("bob").await,
        server.user("carol").await,
    ];
    let [alice, bob, carol] = &people;
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    carol.join(&room).await;
    alice.send(&room, "welcome").await;
    (people, room)
}

async fn what_a_device_was_told_holds_from_its_cursor_on(server: TestServer) {
    let ([alice, bob, carol], room) = hall(&server).await;
    let stored = lazily(&alice, None, 1, false).await;
    assert_eq!(members(&stored, &room), std::slice::from_ref(&alice.id));
    let stored = stored.next();
    bob.send(&room, "one").await;
    let first = lazily(&alice, Some(&stored), 10, false).await;
    assert_eq!(members(&first, &room), std::slice::from_ref(&bob.id));
    // The page is loaded again and comes back with what it had stored.
    for _ in 0..2 {
        let again = lazily(&alice, Some(&stored), 10, false).await;
        assert_eq!(members(&again, &room), std::slice::from_ref(&bob.id));
    }
    // So does one that begins with many more events, in which bob does not stand, and goes on from there.
    for _ in 0..12 {
        carol.send(&room, "many").await;
    }
    let limited = lazily(&alice, Some(&stored), 10, false).await;
    assert_eq!(members(&limited, &room), [alice.id.clone(), carol.id.clone()]);
    bob.send(&room, "two").await;
    let next = lazily(&alice, Some(&limited.next()), 10, false).await;
    assert_eq!(members(&next, &room), std::slice::from_ref(&bob.id));
    // Nobody is told twice on one way.
    bob.send(&room, "three").await;
    carol.send(&room, "three").await;
    let last = lazily(&alice, Some(&next.next()), 10, false).await;
    assert!(members(&last, &room).is_empty());
}

async fn a_limited_timeline_comes_with_its_speakers(server: TestServer) {
    let ([alice, bob, _], room) = hall(&server).await;
    bob.send(&room, "one").await;
    let told = lazily(&alice, None, 10, false).await;
    for _ in 0..4 {
        bob.send(&room, "many").await;
    }
    let limited = lazily(&alice, Some(&told.next()), 2, false).await;
    assert_eq!(limited.room(&room)["timeline"]["limited"], true);
    assert_eq!(members(&limited, &room), [alice.id.clone(), bob.id.clone()]);
}

async fn redundant_members_are_those_who_speak(server: TestServer) {
    let ([alice, bob, _], room) = hall(&server).await;
    let mut since = lazily(&alice, None, 10, true).await.next();
    for _ in 0..2 {
        bob.send(&room, "again").await;
        let synced = lazily(&alice, Some(&since), 10, true).await;
        assert_eq!(members(&synced, &room), std::slice::from_ref(&bob.id));
        since = synced.next();
    }
}

async fn who_speaks_and_then_changes_is_told_as_before(server: TestServer) {
    let ([alice, bob, _], room) = hall(&server).await;
    let since = lazily(&alice, None, 1, false).await.next();
    bob.send(&room, "one").await;
    let path = format!("profile/{}/displayname", encode(&bob.id));
    bob.put(&path, json!({ "displayname": "Robert" })).await.ok();
    bob.send(&room, "two").await;
    let synced = lazily(&alice, Some(&since), 10, false).await;
    assert_eq!(synced.timeline(&room).len(), 3);
    assert_eq!(members(&synced, &room), std::slice::from_ref(&bob.id));
    let state = &synced.room(&room)["state"]["events"];
    assert_ne!(state[0]["content"]["displayname"], "Robert", "{state:#}");
    // Where the state is told as it is after the timeline, it is the new one.
    let filter = json!({ "room": { "state": { "lazy_load_members": true } } });
    let query = format!(
        "timeout=0&use_state_after=true&filter={}&since={}",
        encode(&filter.to_string()),
        encode(&since)
    );
    let synced = alice.second_device().await.sync_with(&query).await;
    let state = &synced.room(&room)["state_after"]["events"];
    let names: Vec<_> = state
        .as_array()
        .unwrap()
        .iter()
        .map(|event| &event["content"]["displayname"])
        .collect();
    assert_eq!(names, ["Robert"], "{state:#}");
}
