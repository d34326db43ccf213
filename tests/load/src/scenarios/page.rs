//! Paging back through a long history.

use clap::Args;
use serde::Serialize;

use crate::context::Context;
use crate::error::LoadError;
use crate::measure::Stopwatch;
use crate::report::Outcome;
use crate::traffic::{self, PAGE};

/// How long the history is.
#[derive(Debug, Clone, Serialize, Args)]
pub(crate) struct Size {
    /// Messages in the room
    #[arg(long, default_value_t = 100_000)]
    pub(crate) messages: usize,
    /// Members who fill the room at once
    #[arg(long, default_value_t = 64)]
    pub(crate) senders: usize,
    /// Events asked for at a time; servers may give fewer
    #[arg(long, default_value_t = PAGE)]
    pub(crate) limit: usize,
}

pub(super) async fn run(size: &Size, context: &Context, outcome: &mut Outcome) -> Result<(), LoadError> {
    let mut senders = context.sessions(size.senders).await?;
    let room = context.room(&mut senders.iter_mut().collect::<Vec<_>>()).await?;
    let marker = context.marker();
    let rooms_of = vec![vec![&room]; senders.len()];
    let (acknowledged, _) = traffic::send_all(&mut senders, &rooms_of, &marker, size.messages).await?;
    let Some(reader) = senders.first_mut() else {
        return Err(LoadError::Usage("page needs senders".into()));
    };

    let stopwatch = Stopwatch::start(&context.watched)?;
    let pages = traffic::read_history(reader, &room, size.limit).await?;
    let usage = stopwatch.usage()?;

    let bytes: usize = pages.iter().map(|page| page.len()).sum();
    let pages = traffic::parse_pages(&pages)?;
    let events: usize = pages.iter().map(|page| page.chunk.len()).sum();
    outcome.figure("events_per_second", events as f64 / usage.wall.as_secs_f64());
    outcome.figure("pages", pages.len() as f64);
    outcome.figure("mib", bytes as f64 / 1_048_576.0);
    outcome.cpu(&usage, events, "event");
    outcome.busy(&usage);
    if context.judge {
        outcome.at_least("events_per_second", 50_000.0);
    }
    traffic::verify_history(&pages, &marker, &acknowledged)
}
