//! Searching many messages: rare and common words, by time and by rank, once the index has caught up.

use std::time::{Duration, Instant};

use clap::Args;
use futures_util::future::try_join_all;
use serde::Serialize;
use serde_json::{Value, json};

use crate::context::Context;
use crate::error::LoadError;
use crate::matrix::{Room, Session, read_json};
use crate::measure::{Latencies, Stopwatch, millis};
use crate::report::Outcome;

/// How much there is to search.
#[derive(Debug, Clone, Serialize, Args)]
pub(crate) struct Size {
    /// Messages in all rooms together
    #[arg(long, default_value_t = 200_000)]
    pub(crate) messages: usize,
    /// Rooms
    #[arg(long, default_value_t = 20)]
    pub(crate) rooms: usize,
    /// Members who fill the rooms at once
    #[arg(long, default_value_t = 64)]
    pub(crate) senders: usize,
    /// Searches of each kind
    #[arg(long, default_value_t = 50)]
    pub(crate) searches: usize,
}

/// Two syllables that every message has inside a longer word.
const COMMON: &str = "회의";

/// Syllables that words are made of.
const SYLLABLES: [&str; 16] = [
    "가", "나", "다", "라", "마", "바", "사", "아", "자", "차", "카", "타", "파", "하", "거", "너",
];

/// How long the index may lag behind.
const PATIENCE: Duration = Duration::from_secs(600);

pub(super) async fn run(size: &Size, context: &Context, outcome: &mut Outcome) -> Result<(), LoadError> {
    let mut senders = context.sessions(size.senders).await?;
    let mut rooms = Vec::new();
    for _ in 0..size.rooms {
        rooms.push(context.room(&mut senders.iter_mut().collect::<Vec<_>>()).await?);
    }
    let filling = Instant::now();
    fill(&mut senders, &rooms, size.messages).await?;
    outcome.figure(
        "filled_per_second",
        size.messages as f64 / filling.elapsed().as_secs_f64(),
    );
    let Some(reader) = senders.first_mut() else {
        return Err(LoadError::Usage("search needs senders".into()));
    };
    let lag = caught_up(reader, size.messages).await?;
    outcome.figure("index_lag_ms", millis(lag));

    let stopwatch = Stopwatch::start(&context.watched)?;
    let mut searches = 0;
    for (kind, order, expected) in [
        ("one", "recent", 1),
        ("rare", "rank", 1),
        ("common", "recent", 10),
        ("common", "rank", 10),
        ("room", "recent", 10),
        ("none", "recent", 0),
    ] {
        let mut latencies = Vec::new();
        for number in 0..size.searches {
            let term = match kind {
                "one" => format!("n{}", number * 7 % size.messages),
                "rare" => word(number * 31 % size.messages),
                "none" => format!("{COMMON} nowhere{number}"),
                _ => COMMON.to_owned(),
            };
            let room = rooms.first().filter(|_| kind == "room");
            let started = Instant::now();
            let found = search(reader, &term, order, room).await?;
            latencies.push(started.elapsed());
            if found < expected.min(size.messages / size.rooms.max(1)) {
                let why = format!("`{term}` finds {found} messages instead of {expected}");
                return Err(LoadError::Verification(why));
            }
        }
        searches += latencies.len();
        outcome.latencies(&format!("{kind}_{order}"), &Latencies::new(latencies));
    }
    outcome.cpu(&stopwatch.usage()?, searches, "search");
    if context.judge {
        for figure in [
            "one_recent_p99_ms",
            "rare_rank_p99_ms",
            "common_recent_p99_ms",
            "common_rank_p99_ms",
            "room_recent_p99_ms",
            "none_recent_p99_ms",
        ] {
            outcome.at_most(figure, 100.0);
        }
    }
    Ok(())
}

/// Sends all messages: every sender one after the other, all senders at once, going round the rooms.
async fn fill(senders: &mut [Session], rooms: &[Room], count: usize) -> Result<(), LoadError> {
    let step = senders.len().max(1);
    let shares = senders.iter_mut().enumerate().map(async |(first, sender)| {
        for number in (first..count).step_by(step) {
            // By the round, too: or each sender would have a room of its own.
            let Some(room) = rooms.get((number + number / step) % rooms.len().max(1)) else {
                return Err(LoadError::Usage("search needs rooms".into()));
            };
            sender.send(room, &format!("t{number}"), &text(number)).await?;
        }
        Ok(())
    });
    try_join_all(shares).await.map(drop)
}

/// The text of a message: its number as a word, a word that few others have, and what all have in common.
fn text(number: usize) -> String {
    format!("n{number} 내일{COMMON}실에서 {} 이야기를 합니다", word(number))
}

/// A word of five syllables.
fn word(number: usize) -> String {
    let base = SYLLABLES.len();
    let digits = (0..5).map(|place| number / base.pow(place) % base);
    digits.filter_map(|digit| SYLLABLES.get(digit)).copied().collect()
}

/// Waits until the newest message is found; how long.
async fn caught_up(reader: &mut Session, count: usize) -> Result<Duration, LoadError> {
    let started = Instant::now();
    let newest = format!("n{}", count.saturating_sub(1));
    while search(reader, &newest, "recent", None).await? == 0 {
        if started.elapsed() > PATIENCE {
            return Err(LoadError::Timeout("the index of search".into()));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(started.elapsed())
}

/// Searches; how many results come on the first page.
async fn search(
    reader: &mut Session,
    term: &str,
    order: &str,
    room: Option<&Room>,
) -> Result<usize, LoadError> {
    let mut criteria = json!({ "search_term": term, "order_by": order });
    if let (Some(room), Some(criteria)) = (room, criteria.as_object_mut()) {
        criteria.insert("filter".to_owned(), json!({ "rooms": [room.id] }));
    }
    let body = json!({ "search_categories": { "room_events": criteria } }).to_string();
    let answer = reader
        .fetch("POST", "/_matrix/client/v3/search", Some(body.as_bytes()))
        .await?;
    let answer = read_json("the answer to a search", &answer)?;
    let results = answer.pointer("/search_categories/room_events/results");
    Ok(results.and_then(Value::as_array).map_or(0, Vec::len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_differ_and_texts_have_what_is_looked_for() {
        assert_ne!(word(1), word(2));
        assert_eq!(word(17).chars().count(), 5);
        assert!(text(3).contains(COMMON) && text(3).contains("n3 ") && text(3).contains(&word(3)));
    }
}
