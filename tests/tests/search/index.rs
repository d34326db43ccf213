//! What the index goes through: it is built of old databases and anew, survives kills, and can be turned off.

use std::time::Duration;

use maru::admin::{AdminCommand, AdminReply, ReadersCommand, execute};
use maru_tests::waiting::look_for;
use maru_tests::{Engine, TestProcess, TestServer, for_both_engines, on_both_engines};
use serde_json::json;

use super::{caught_up, edit, found, reader};

on_both_engines!(
    an_old_database_is_indexed_after_an_upgrade,
    the_index_is_built_anew_from_the_journal,
    the_index_is_built_anew_from_what_is_stored,
);
for_both_engines!(
    a_server_that_does_not_search_has_no_index,
    a_kill_in_the_middle_of_indexing_loses_nothing,
);

/// Has the reader begin again.
async fn rewind(server: &TestServer) {
    let command = ReadersCommand::Rewind {
        name: "search".to_owned(),
        position: 0,
        skip: false,
    };
    let done = execute(server.parts(), AdminCommand::Readers(command)).await;
    assert!(matches!(done, AdminReply::Done { .. }), "{done:?}");
}

const EMPTY: [&str; 2] = [
    "DELETE FROM search_index WHERE rowid > 0",
    "DELETE FROM search_index",
];

/// Empties the index past the server.
async fn empty(server: &TestServer) {
    let of_engine = usize::from(server.data().engine() == Engine::Postgres);
    server.data().run(EMPTY[of_engine]).await;
    assert_eq!(server.data().number("SELECT COUNT(*) FROM search_index").await, 0);
}

async fn an_old_database_is_indexed_after_an_upgrade(server: TestServer) {
    let alice = server.user("alice").await;
    let room = alice.create_room(json!({})).await;
    let mut sent = Vec::new();
    for n in 0..250 {
        sent.push(alice.send(&room, &format!("old message {n}")).await);
    }
    edit(&alice, &room, &sent[0], "mended text").await;
    alice.redact(&room, &sent[1]).await;
    caught_up(&server).await;
    let stopped = server.shut_down().await;
    // As the program before the index left it, the journal dropped meanwhile.
    let data = stopped.data();
    let of_engine = usize::from(data.engine() == Engine::Postgres);
    data.run(EMPTY[of_engine]).await;
    data.run("DELETE FROM search_edits; DELETE FROM readers WHERE name = 'search'; DELETE FROM commits")
        .await;
    let server = stopped.start().await;
    let alice = alice.on(server.api());
    // Meanwhile people talk.
    let new = alice.send(&room, "new message").await;
    caught_up(&server).await;
    assert_eq!(found(&alice, "new").await, [&*new]);
    assert_eq!(found(&alice, "249").await, [&*sent[249]]);
    assert_eq!(found(&alice, "message 137").await, [&*sent[137]]);
    assert_eq!(found(&alice, "mended").await, [&*sent[0]]);
    assert!(found(&alice, "message 0").await.is_empty() && found(&alice, "message 1").await.is_empty());
    let indexed = server.data().number("SELECT COUNT(*) FROM search_index").await;
    assert_eq!(indexed, 250, "all but what was redacted");
}

async fn the_index_is_built_anew_from_the_journal(server: TestServer) {
    let alice = server.user("alice").await;
    let room = alice.create_room(json!({})).await;
    let said = alice.send(&room, "something").await;
    caught_up(&server).await;
    empty(&server).await;
    assert!(found(&alice, "something").await.is_empty());
    rewind(&server).await;
    caught_up(&server).await;
    assert_eq!(found(&alice, "something").await, [&*said]);
    assert_eq!(reader(&server).await.unwrap().set_aside, 0);
}

async fn the_index_is_built_anew_from_what_is_stored(server: TestServer) {
    let alice = server.user("alice").await;
    let room = alice.create_room(json!({})).await;
    let said = alice.send(&room, "something").await;
    let edited = alice.send(&room, "wrong").await;
    let mended = edit(&alice, &room, &edited, "right").await;
    caught_up(&server).await;
    // The journal reaches back for some days only.
    empty(&server).await;
    server.data().run("DELETE FROM commits").await;
    rewind(&server).await;
    caught_up(&server).await;
    assert_eq!(found(&alice, "something").await, [&*said]);
    assert_eq!(found(&alice, "right").await, [&*edited]);
    // It follows the log again, where it was when that began.
    alice.redact(&room, &mended).await;
    let later = alice.send(&room, "later").await;
    caught_up(&server).await;
    assert_eq!(found(&alice, "later").await, [&*later]);
    assert_eq!(found(&alice, "wrong").await, [&*edited]);
    let reader = reader(&server).await.unwrap();
    assert_eq!((reader.set_aside, reader.failures, reader.paused), (0, 0, false));
}

async fn a_server_that_does_not_search_has_no_index(engine: Engine) {
    let server = TestServer::start_on(engine).await;
    let alice = server.user("alice").await;
    let room = alice.create_room(json!({})).await;
    let said = alice.send(&room, "something").await;
    caught_up(&server).await;
    let mut stopped = server.shut_down().await;
    stopped.change(|config| config.search = false);
    let server = stopped.start().await;
    let alice = alice.on(server.api());
    let body = json!({ "search_categories": { "room_events": { "search_term": "something" } } });
    alice.post("search", body).await.refused(404, "M_UNRECOGNIZED");
    let redacted = alice.send(&room, "something else").await;
    alice.redact(&room, &redacted).await;
    let data = server.data();
    assert_eq!(data.number("SELECT COUNT(*) FROM search_index").await, 0);
    assert_eq!(
        data.number("SELECT COUNT(*) FROM readers WHERE name = 'search'")
            .await,
        0
    );
    let mut stopped = server.shut_down().await;
    stopped.change(|config| config.search = true);
    let server = stopped.start().await;
    caught_up(&server).await;
    let alice = alice.on(server.api());
    assert_eq!(found(&alice, "something").await, [&*said]);
}

async fn a_kill_in_the_middle_of_indexing_loses_nothing(engine: Engine) {
    let mut process = TestProcess::start(engine, &[]).await;
    let alice = process.user("alice").await;
    let room = alice.create_room(json!({})).await;
    let mut sent = Vec::new();
    for round in 0..3 {
        for n in 0..60 {
            sent.push(
                alice
                    .on(process.api())
                    .send(&room, &format!("message {round}x{n}"))
                    .await,
            );
        }
        // While the reader is somewhere among them.
        tokio::time::sleep(Duration::from_millis(150 * round)).await;
        process.kill().await;
        process = process.restart().await;
    }
    let alice = alice.on(process.api());
    let mut missing = sent.len();
    look_for("all messages in the index", async || {
        let mut pages = Vec::new();
        let mut path = "search".to_owned();
        loop {
            let criteria =
                json!({ "search_term": "message", "order_by": "recent", "filter": { "limit": 100 } });
            let body = json!({ "search_categories": { "room_events": criteria } });
            let answer = alice.post(&path, body).await.ok()["search_categories"]["room_events"].clone();
            pages.extend(super::ids(&answer));
            match answer["next_batch"].as_str() {
                Some(next) => path = format!("search?next_batch={next}"),
                None => break,
            }
        }
        missing = sent.len() - pages.len();
        pages.reverse();
        (pages == sent)
            .then_some(())
            .ok_or(format!("{missing} are missing"))
    })
    .await;
    assert_eq!(
        process
            .data()
            .number("SELECT COUNT(*) FROM readers_set_aside")
            .await,
        0
    );
}
