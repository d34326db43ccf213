//! Rooms that are on other servers, seen from outside: the directory, previews, spaces.

use http::Method;
use maru_tests::user::encode;
use maru_tests::{TestServer, federate};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn the_directory_of_another_server_is_read_page_by_page_and_searched() {
    let (a, b) = (TestServer::start().await, TestServer::start().await);
    federate(&[&a, &b]).await;
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    for name in ["Tea", "Coffee", "Cocoa"] {
        alice
            .create_room(json!({ "preset": "public_chat", "visibility": "public", "name": name }))
            .await;
    }
    alice.create_room(json!({ "name": "Secret" })).await;
    let path = format!("publicRooms?server={}&limit=2", a.name());
    let first = bob.get(&path).await.ok();
    assert_eq!(first["chunk"].as_array().unwrap().len(), 2);
    assert_eq!(first["total_room_count_estimate"], 3);
    let next = first["next_batch"].as_str().unwrap();
    let second = bob.get(&format!("{path}&since={next}")).await.ok();
    assert_eq!(second["chunk"].as_array().unwrap().len(), 1);
    assert!(second["next_batch"].is_null());
    let previous = second["prev_batch"].as_str().unwrap();
    let before = bob.get(&format!("{path}&since={previous}")).await.ok();
    assert_eq!(
        before["chunk"], first["chunk"],
        "the last room does not come again"
    );
    let search = json!({ "filter": { "generic_search_term": "coff" } });
    let found = bob
        .post(&format!("publicRooms?server={}", a.name()), search)
        .await
        .ok();
    let names: Vec<_> = found["chunk"]
        .as_array()
        .unwrap()
        .iter()
        .map(|room| &room["name"])
        .collect();
    assert_eq!(names, ["Coffee"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_space_leads_through_rooms_of_other_servers() {
    let (a, b) = (TestServer::start().await, TestServer::start().await);
    federate(&[&a, &b]).await;
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let space_of = |name: &str| json!({ "preset": "public_chat", "name": name, "creation_content": { "type": "m.space" } });
    let top = bob.create_room(space_of("Top")).await;
    let inner = alice.create_room(space_of("Inner")).await;
    let leaf = alice
        .create_room(json!({ "preset": "public_chat", "name": "Leaf" }))
        .await;
    let hidden = alice.create_room(json!({ "name": "Hidden" })).await;
    let via = json!({ "via": [a.name()] });
    bob.set_state(&top, "m.space.child", &inner, via.clone()).await;
    alice.set_state(&inner, "m.space.child", &leaf, via.clone()).await;
    alice.set_state(&inner, "m.space.child", &hidden, via).await;

    let path = format!("/_matrix/client/v1/rooms/{}/hierarchy", encode(&top));
    let tree = bob.get(&path).await.ok();
    let rooms = tree["rooms"].as_array().unwrap();
    let names: Vec<_> = rooms.iter().map(|room| room["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["Top", "Inner", "Leaf"]);
    assert_eq!(rooms[1]["children_state"].as_array().unwrap().len(), 2);
    let page = bob.get(&format!("{path}?limit=2")).await.ok();
    assert_eq!(page["rooms"].as_array().unwrap().len(), 2);
    let rest = bob
        .get(&format!(
            "{path}?limit=2&from={}",
            page["next_batch"].as_str().unwrap()
        ))
        .await
        .ok();
    assert_eq!(rest["rooms"][0]["name"], "Leaf");

    let preview = format!(
        "/_matrix/client/v1/room_summary/{}?via={}",
        encode(&leaf),
        a.name()
    );
    let summary = bob.get(&preview).await.ok();
    assert_eq!(summary["name"], "Leaf");
    assert_eq!(summary["membership"], "leave");
    let preview = format!(
        "/_matrix/client/v1/room_summary/{}?via={}",
        encode(&hidden),
        a.name()
    );
    bob.get(&preview).await.refused(404, "M_NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_have_nobody_asked_but_servers_that_are_known() {
    let (a, b) = (TestServer::start().await, TestServer::start().await);
    federate(&[&a, &b]).await;
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    alice
        .create_room(json!({ "preset": "public_chat", "visibility": "public", "room_alias_name": "hall" }))
        .await;
    let paths = |server: &str| {
        [
            format!("/_matrix/client/v3/publicRooms?server={server}"),
            format!(
                "/_matrix/client/v3/directory/room/{}",
                encode(&format!("#hall:{server}"))
            ),
        ]
    };
    for path in paths(a.name()) {
        b.request(Method::GET, &path, None).await.ok();
    }
    for path in paths("nobody.invalid") {
        let stranger = b.request(Method::GET, &path, None).await;
        stranger.refused(401, "M_MISSING_TOKEN");
        // Who has an account has it asked, and hears that it is not to be reached.
        bob.get(&path).await.refused(503, "M_UNKNOWN");
    }
}
