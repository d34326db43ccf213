//! A homeserver that was away gets everything that was said meanwhile, from what the other has stored.

use std::time::{Duration, Instant};

use clap::Args;
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;

use super::across::{hear_all, position};
use crate::context::Context;
use crate::error::LoadError;
use crate::exactly_once::Tally;
use crate::matrix::Room;
use crate::measure::Stopwatch;
use crate::report::Outcome;
use crate::traffic::{self, PAGE};

/// How much is missed.
#[derive(Debug, Clone, Serialize, Args)]
pub(crate) struct Size {
    /// Rooms that both are in; what is missed of one stays below the homeserver's backlog threshold
    #[arg(long, default_value_t = 50)]
    pub(crate) rooms: usize,
    /// Messages, spread over all rooms
    #[arg(long, default_value_t = 50_000)]
    pub(crate) messages: usize,
    /// Users who say them
    #[arg(long, default_value_t = 64)]
    pub(crate) senders: usize,
}

/// How long nothing may come: a connection may first have to be found dead.
const PATIENCE: Duration = Duration::from_secs(60);

/// The second homeserver, stopped until this goes.
struct Stopped(Pid);

impl Stopped {
    fn stop(context: &Context) -> Result<Self, LoadError> {
        let id = context.watched.other.pids.first().copied();
        let pid = id.and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let pid = pid.ok_or_else(|| LoadError::Usage("catch-up needs --other-pid".into()))?;
        let stopped = kill_process(pid, Signal::STOP);
        stopped.map_err(|error| LoadError::Io {
            what: "stopping the second homeserver".into(),
            source: error.into(),
        })?;
        Ok(Self(pid))
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::CONT);
    }
}

pub(super) async fn run(size: &Size, context: &Context, outcome: &mut Outcome) -> Result<(), LoadError> {
    let mut senders = context.sessions(size.senders).await?;
    let mut readers = context.other()?.sessions(1).await?;
    let (Some(reader), Some(first)) = (readers.first_mut(), senders.first_mut()) else {
        return Err(LoadError::Usage("catch-up needs senders".into()));
    };
    let server_name = first.server_name().await?;
    let mut rooms: Vec<Room> = Vec::new();
    for _ in 0..size.rooms {
        let room = context.room(&mut senders.iter_mut().collect::<Vec<_>>()).await?;
        reader.join_through(&room, &server_name).await?;
        rooms.push(room);
    }
    let since = position(reader).await?;
    let (marker, mut tally) = (context.marker(), Tally::new(size.messages));
    let rooms_of = vec![rooms.iter().collect::<Vec<_>>(); senders.len()];

    let away = Stopped::stop(context)?;
    let sent = traffic::send_all(&mut senders, &rooms_of, &marker, size.messages).await;
    drop(away);
    let (acknowledged, _) = sent?;
    let (started, stopwatch) = (Instant::now(), Stopwatch::start(&context.watched)?);
    let last = hear_all(reader, since, &marker, &mut tally, PATIENCE).await?;
    let usage = stopwatch.usage()?;

    let took = last.saturating_duration_since(started).as_secs_f64();
    outcome.figure("caught_up_per_second", size.messages as f64 / took.max(1e-9));
    outcome.cpu(&usage, size.messages, "message");
    outcome.busy(&usage);
    if context.judge {
        outcome.at_least("caught_up_per_second", 5_000.0);
    }
    let mut pages = Vec::new();
    for room in &rooms {
        pages.extend(traffic::read_history(reader, room, PAGE).await?);
    }
    traffic::verify_history(&traffic::parse_pages(&pages)?, &marker, &acknowledged)
}
