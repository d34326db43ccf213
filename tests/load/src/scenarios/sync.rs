//! The first sync of an account with many rooms, and syncs with nothing new, which must not cost more for it.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use clap::Args;
use futures_util::future::try_join_all;
use serde::Serialize;
use serde_json::Value;

use crate::context::{Context, SETUP_CONCURRENCY};
use crate::error::LoadError;
use crate::exactly_once::Marker;
use crate::matrix::{Session, User, read_json};
use crate::measure::{Latencies, Stopwatch, millis};
use crate::report::Outcome;
use crate::scan::Field;

/// How much there is to sync.
#[derive(Debug, Clone, Serialize, Args)]
pub(crate) struct Size {
    /// Rooms of the account
    #[arg(long, default_value_t = 500)]
    pub(crate) rooms: usize,
    /// Messages in each room
    #[arg(long, default_value_t = 50)]
    pub(crate) messages: usize,
    /// Rooms of a second account, to compare with
    #[arg(long, default_value_t = 10)]
    pub(crate) few_rooms: usize,
    /// First syncs
    #[arg(long, default_value_t = 5)]
    pub(crate) firsts: usize,
    /// Syncs with nothing new
    #[arg(long, default_value_t = 1000)]
    pub(crate) repeats: usize,
    /// Timeline limit of the filter; no filter unless given
    #[arg(long)]
    pub(crate) timeline_limit: Option<usize>,
}

/// An account with rooms full of messages.
struct Account {
    user: User,
    rooms: HashSet<String>,
    marker: Marker,
}

pub(super) async fn run(size: &Size, context: &Context, outcome: &mut Outcome) -> Result<(), LoadError> {
    let filter = size
        .timeline_limit
        .map(|limit| format!(r#"{{"room":{{"timeline":{{"limit":{limit}}}}}}}"#));
    let many = Account::new(context, size.rooms, size.messages).await?;
    let few = Account::new(context, size.few_rooms, size.messages).await?;

    let mut latencies = Vec::new();
    let mut answer = Vec::new();
    let mut session = many.session(context).await?;
    let stopwatch = Stopwatch::start(&context.watched)?;
    for _ in 0..size.firsts {
        let started = Instant::now();
        let body = session.sync(None, Duration::ZERO, filter.as_deref()).await?;
        latencies.push(started.elapsed());
        answer = body.to_vec();
    }
    let usage = stopwatch.usage()?;
    outcome.figure(
        "first_sync_coldest_ms",
        latencies.first().copied().map_or(0.0, millis),
    );
    outcome.figure("first_sync_mib", answer.len() as f64 / 1_048_576.0);
    outcome.latencies("first_sync", &Latencies::new(latencies));
    outcome.cpu(&usage, size.firsts, "first_sync");
    many.verify(&answer, size.messages)?;

    for (name, account) in [("many", &many), ("few", &few)] {
        nothing_new(name, account, size.repeats, context, outcome).await?;
    }
    if context.judge {
        outcome.at_most("first_sync_coldest_ms", 400.0);
        outcome.at_most("server_cpu_ms_per_sync_with_many_rooms", 0.5);
        outcome.at_most("server_cpu_ms_per_sync_with_few_rooms", 0.5);
    }
    Ok(())
}

/// Syncs again and again with the newest cursor, without waiting.
async fn nothing_new(
    name: &str,
    account: &Account,
    repeats: usize,
    context: &Context,
    outcome: &mut Outcome,
) -> Result<(), LoadError> {
    let next_batch = Field::new("\"next_batch\"");
    let mut session = account.session(context).await?;
    let first = session.sync(None, Duration::ZERO, None).await?;
    let mut since = next_batch.of(&first)?.to_owned();
    let mut latencies = Vec::with_capacity(repeats);
    let mut longest = 0;
    let stopwatch = Stopwatch::start(&context.watched)?;
    for _ in 0..repeats {
        let started = Instant::now();
        let body = session.sync(Some(&since), Duration::ZERO, None).await?;
        latencies.push(started.elapsed());
        since = next_batch.of(&body)?.to_owned();
        longest = body.len().max(longest);
    }
    outcome.latencies(&format!("sync_with_{name}_rooms"), &Latencies::new(latencies));
    outcome.figure(format!("sync_with_{name}_rooms_longest_bytes"), longest as f64);
    outcome.cpu(&stopwatch.usage()?, repeats, &format!("sync_with_{name}_rooms"));
    let last = session.sync(Some(&since), Duration::ZERO, None).await?;
    let last = read_json("/sync", &last)?;
    if last
        .pointer("/rooms/join")
        .and_then(Value::as_object)
        .is_some_and(|rooms| !rooms.is_empty())
    {
        return Err(LoadError::Verification(
            "a sync with nothing new brings rooms".into(),
        ));
    }
    Ok(())
}

impl Account {
    /// One account that makes all its rooms and fills them over several connections.
    async fn new(context: &Context, rooms: usize, messages: usize) -> Result<Self, LoadError> {
        let users = context.users(1).await?;
        let user = users
            .into_iter()
            .next()
            .ok_or_else(|| LoadError::Usage("no account was made".into()))?;
        let marker = context.marker();
        let shares = try_join_all((0..SETUP_CONCURRENCY).map(|worker| {
            let (mut session, marker) = (Session::new(context.target.clone(), user.clone()), &marker);
            async move {
                let mut share = Vec::new();
                for index in (worker..rooms).step_by(SETUP_CONCURRENCY) {
                    let room = session.create_room().await?;
                    for message in 0..messages {
                        let number = index * messages + message;
                        session
                            .send(&room, &format!("t{number}"), &marker.text(number))
                            .await?;
                    }
                    share.push(room.id);
                }
                Ok::<_, LoadError>(share)
            }
        }));
        let rooms = shares.await?.into_iter().flatten().collect();
        Ok(Self { user, rooms, marker })
    }

    async fn session(&self, context: &Context) -> Result<Session, LoadError> {
        let mut session = Session::new(context.target.clone(), self.user.clone());
        session.whoami().await?;
        Ok(session)
    }

    /// Every room is there, each with its newest messages without a gap and in order, and none of them twice.
    fn verify(&self, answer: &[u8], messages: usize) -> Result<(), LoadError> {
        let wrong = |why: String| Err(LoadError::Verification(format!("the first sync {why}")));
        let answer = read_json("/sync", answer)?;
        let joined = answer
            .pointer("/rooms/join")
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default();
        let joined: HashMap<String, Value> = joined.into_iter().collect();
        if joined.keys().collect::<HashSet<_>>() != self.rooms.iter().collect::<HashSet<_>>() {
            return wrong(format!("has {} rooms of {}", joined.len(), self.rooms.len()));
        }
        for (id, room) in &joined {
            let events = room
                .pointer("/timeline/events")
                .and_then(Value::as_array)
                .cloned()
                .unwrap_or_default();
            let texts = events
                .iter()
                .filter_map(|event| event.pointer("/content/body").and_then(Value::as_str));
            let numbers: Vec<usize> = texts
                .flat_map(|text| self.marker.find(text.as_bytes()).collect::<Vec<_>>())
                .collect();
            let consecutive = numbers.windows(2).all(|pair| pair[1] == pair[0].wrapping_add(1));
            let newest = numbers
                .last()
                .is_none_or(|last| last % messages.max(1) == messages - 1);
            if !consecutive || !newest || (numbers.is_empty() && messages > 0) {
                return wrong(format!("has the wrong messages in {id}: {numbers:?}"));
            }
        }
        Ok(())
    }
}
