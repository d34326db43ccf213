//! One sender, one message after the other: how long somebody waits for an acknowledgement on a quiet server.

use clap::Args;
use serde::Serialize;

use crate::context::Context;
use crate::error::LoadError;
use crate::measure::Stopwatch;
use crate::report::Outcome;
use crate::traffic::{self, PAGE};

/// How much is sent.
#[derive(Debug, Clone, Serialize, Args)]
pub(crate) struct Size {
    /// Messages, one after the other
    #[arg(long, default_value_t = 3_000)]
    pub(crate) messages: usize,
    /// Members of the room
    #[arg(long, default_value_t = 100)]
    pub(crate) members: usize,
}

pub(super) async fn run(size: &Size, context: &Context, outcome: &mut Outcome) -> Result<(), LoadError> {
    let mut sessions = context.sessions(size.members).await?;
    let room = context.room(&mut sessions.iter_mut().collect::<Vec<_>>()).await?;
    sessions.truncate(1);

    let marker = context.marker();
    let stopwatch = Stopwatch::start(&context.watched)?;
    let (acknowledged, latencies) =
        traffic::send_all(&mut sessions, &[vec![&room]], &marker, size.messages).await?;
    let usage = stopwatch.usage()?;

    outcome.latencies("request", &latencies);
    outcome.cpu(&usage, size.messages, "message");
    outcome.busy(&usage);
    if context.judge {
        outcome.at_most("request_median_ms", 1.5);
    }
    for session in &mut sessions {
        let pages = traffic::parse_pages(&traffic::read_history(session, &room, PAGE).await?)?;
        traffic::verify_history(&pages, &marker, &acknowledged)?;
    }
    Ok(())
}
