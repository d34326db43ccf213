//! Concurrent creation of rooms.

use std::collections::HashSet;
use std::time::Instant;

use clap::Args;
use futures_util::future::try_join_all;
use serde::Serialize;

use crate::context::Context;
use crate::error::LoadError;
use crate::measure::{Latencies, Stopwatch};
use crate::report::Outcome;

/// How many rooms.
#[derive(Debug, Clone, Serialize, Args)]
pub(crate) struct Size {
    /// Rooms altogether
    #[arg(long, default_value_t = 3_000)]
    pub(crate) rooms: usize,
    /// Creators, each with an account and a connection of its own
    #[arg(long, default_value_t = 32)]
    pub(crate) concurrency: usize,
}

pub(super) async fn run(size: &Size, context: &Context, outcome: &mut Outcome) -> Result<(), LoadError> {
    if size.concurrency == 0 {
        return Err(LoadError::Usage("create-room needs creators".into()));
    }
    let mut creators = context.sessions(size.concurrency).await?;
    let stopwatch = Stopwatch::start(&context.watched)?;
    let shares = try_join_all(creators.iter_mut().enumerate().map(async |(first, creator)| {
        let mut share = Vec::new();
        for _ in (first..size.rooms).step_by(size.concurrency) {
            let started = Instant::now();
            let room = creator.create_room().await?;
            share.push((room.id, started.elapsed()));
        }
        Ok::<_, LoadError>(share)
    }));
    let shares = shares.await?;
    let usage = stopwatch.usage()?;

    let durations = shares.iter().flatten().map(|(_, duration)| *duration).collect();
    outcome.figure("rooms_per_second", size.rooms as f64 / usage.wall.as_secs_f64());
    outcome.latencies("create", &Latencies::new(durations));
    outcome.cpu(&usage, size.rooms, "room");
    outcome.busy(&usage);
    if context.judge {
        outcome.at_least("rooms_per_second", 500.0);
    }

    let mut everywhere = HashSet::new();
    for (creator, share) in creators.iter_mut().zip(&shares) {
        let made: HashSet<&str> = share.iter().map(|(id, _)| id.as_str()).collect();
        let joined = creator.joined_rooms().await?;
        let joined: HashSet<&str> = joined.iter().map(String::as_str).collect();
        if made.len() != share.len() || made != joined {
            let (made, joined) = (share.len(), joined.len());
            return Err(LoadError::Verification(format!(
                "{made} rooms were made, their creator is in {joined}"
            )));
        }
        everywhere.extend(made);
    }
    if everywhere.len() != size.rooms {
        return Err(LoadError::Verification("two creators were given one room".into()));
    }
    Ok(())
}
