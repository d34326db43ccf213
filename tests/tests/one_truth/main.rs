//! Sync answers from memory and from the database, and both must be what the specification says.
//!
//! Random histories of several people and devices. Every answer is checked against a plain model. In the end every
//! cursor that was ever given out is asked with once more, of the running server and of the same server after a
//! restart, which has nothing in memory: both must answer the same.
//!
//! `MARU_ONE_TRUTH_SEED=17` replays one history, `MARU_ONE_TRUTH_HISTORIES=100` runs more of them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test may stop where something cannot be"
)]

mod history;
mod model;
mod passing;
mod races;
mod reading;

use maru::config::Config;
use maru_tests::{Engine, TestServer, for_both_engines};
use serde_json::Value;

use history::History;

for_both_engines!(memory_and_database_say_the_same);

/// Histories that are run where nobody says how many, and how long each is.
const HISTORIES: u64 = 4;
const STEPS: usize = 150;

async fn memory_and_database_say_the_same(engine: Engine) {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .map(|value| value.parse::<u64>().unwrap())
    };
    let seeds = match number("MARU_ONE_TRUTH_SEED") {
        Some(seed) => seed..=seed,
        None => 1..=number("MARU_ONE_TRUTH_HISTORIES").unwrap_or(HISTORIES),
    };
    for seed in seeds {
        Box::pin(run(engine, seed)).await;
    }
}

async fn run(engine: Engine, seed: u64) {
    println!("history {seed}");
    // Everybody is asked before what the server said ahead of the restart is void.
    let patient = |config: &mut Config| config.presence.offline_after_seconds = 600;
    let server = TestServer::start_with(engine, patient).await;
    let mut history = History::begin(&server, seed).await;
    for _ in 0..STEPS {
        history.go_on().await;
    }
    let from_memory = answers(&history).await;
    let server = server.restart().await;
    history.move_to(&server);
    let from_database = answers(&history).await;
    for ((device, cursor, one), (_, _, other)) in from_memory.iter().zip(&from_database) {
        let wish = &history.devices[*device].wish;
        let (one, other) = (comparable(one, wish.lazy), comparable(other, wish.lazy));
        assert!(
            one == other,
            "{}\nhistory {seed}, device {device}, cursor {cursor:?}: from memory\n{one:#}\nfrom the database\n{other:#}",
            history.story.join("\n")
        );
    }
}

/// What every device is answered that comes with any of its cursors, or with none. All of them are right.
async fn answers(history: &History) -> Vec<(usize, Option<usize>, Value)> {
    let mut answers = Vec::new();
    for (at, device) in history.devices.iter().enumerate() {
        for cursor in (0..device.cursors.len()).map(Some).chain([None]) {
            let answer = history.ask(at, cursor).await.0;
            if let Err(error) = history.check(at, cursor, &answer) {
                panic!("{}\nin the end {error}\n{answer:#}", history.story.join("\n"));
            }
            answers.push((at, cursor, answer));
        }
    }
    answers
}

/// An answer without what may differ: cursors, ages, what lives in memory only, and, where members are sent as they are
/// needed, members.
fn comparable(answer: &Value, lazy: bool) -> Value {
    let mut answer = answer.clone();
    let object = answer.as_object_mut().unwrap();
    for name in ["next_batch", "presence"] {
        object.remove(name);
    }
    strip(&mut answer);
    for room in answer["rooms"]["join"].as_object_mut().into_iter().flatten() {
        let parts = room.1.as_object_mut().unwrap();
        let state = parts
            .entry("state")
            .or_insert_with(|| serde_json::json!({ "events": [] }));
        let events = state["events"].as_array_mut().unwrap();
        events.retain(|event| !lazy || event["type"] != "m.room.member");
        events.sort_by_key(ToString::to_string);
    }
    answer
}

/// Removes the ages of events.
fn strip(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.remove("age");
            object.values_mut().for_each(strip);
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        _ => {}
    }
}
