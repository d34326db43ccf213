//! Searching messages: what is found, by whom, and what the index goes through.

mod asking;
mod index;
mod seeing;
mod servers;

use maru::admin::{AdminCommand, AdminReply, ReaderLine, ReadersCommand, execute};
use maru_tests::waiting::look_for;
use maru_tests::{TestServer, User};
use serde_json::{Value, json};

/// What a search answers.
async fn searched(user: &User, criteria: Value) -> Value {
    searched_from(user, criteria, None).await
}

/// What a later page of a search answers.
async fn searched_from(user: &User, criteria: Value, next_batch: Option<&str>) -> Value {
    let path = next_batch.map_or("search".to_owned(), |token| format!("search?next_batch={token}"));
    let body = json!({ "search_categories": { "room_events": criteria } });
    user.post(&path, body).await.ok()["search_categories"]["room_events"].clone()
}

/// The events that are found by a text, the newest first, as their ids.
async fn found(user: &User, term: &str) -> Vec<String> {
    let criteria = json!({ "search_term": term, "order_by": "recent", "filter": { "limit": 100 } });
    ids(&searched(user, criteria).await)
}

/// The ids of the events in an answer.
fn ids(answer: &Value) -> Vec<String> {
    let results = answer["results"].as_array().unwrap_or_else(|| panic!("{answer}"));
    let id = |result: &Value| result["result"]["event_id"].as_str().unwrap().to_owned();
    results.iter().map(id).collect()
}

/// The reader that keeps the index.
async fn reader(server: &TestServer) -> Option<ReaderLine> {
    let listed = execute(server.parts(), AdminCommand::Readers(ReadersCommand::List)).await;
    let AdminReply::Readers { readers } = listed else {
        panic!("{listed:?}");
    };
    let mut readers = readers.into_iter();
    readers.find(|reader| reader.reader == "search/0")
}

/// Waits until the index holds what is in the log.
async fn caught_up(server: &TestServer) {
    look_for("an index that has caught up", async || {
        let reader = reader(server).await;
        let is_done = |reader: &ReaderLine| reader.lag == 0 && reader.building.is_none();
        reader
            .as_ref()
            .is_some_and(is_done)
            .then_some(())
            .ok_or(format!("{reader:?}"))
    })
    .await;
}

/// An edit of a message.
async fn edit(user: &User, room: &str, event: &str, text: &str) -> String {
    let content = json!({
        "msgtype": "m.text", "body": format!("* {text}"),
        "m.new_content": { "msgtype": "m.text", "body": text },
        "m.relates_to": { "rel_type": "m.replace", "event_id": event },
    });
    user.send_event(room, "m.room.message", content).await
}
