//! Two homeservers, one room: as many messages as its first homeserver takes, until the last is at the other.

use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use super::across::{Pair, hear_all, position};
use crate::context::Context;
use crate::error::LoadError;
use crate::exactly_once::Tally;
use crate::measure::Stopwatch;
use crate::report::Outcome;
use crate::traffic::{self, PAGE};

/// How much is relayed.
#[derive(Debug, Clone, Serialize, Args)]
pub(crate) struct Size {
    /// Members who send at the same time
    #[arg(long, default_value_t = 64)]
    pub(crate) senders: usize,
    /// Messages
    #[arg(long, default_value_t = 30_000)]
    pub(crate) messages: usize,
}

/// How long nothing may come.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) async fn run(size: &Size, context: &Context, outcome: &mut Outcome) -> Result<(), LoadError> {
    let mut pair = Pair::meet(context, size.senders).await?;
    let since = position(&mut pair.reader).await?;
    let (marker, mut tally) = (context.marker(), Tally::new(size.messages));
    let rooms_of = vec![vec![&pair.room]; pair.senders.len()];

    let (started, stopwatch) = (Instant::now(), Stopwatch::start(&context.watched)?);
    let sending = async {
        let sent = traffic::send_all(&mut pair.senders, &rooms_of, &marker, size.messages).await?;
        Ok::<_, LoadError>((sent.0, started.elapsed()))
    };
    let hearing = hear_all(&mut pair.reader, since, &marker, &mut tally, PATIENCE);
    let ((acknowledged, sending), last) = tokio::try_join!(sending, hearing)?;
    let usage = stopwatch.usage()?;

    let relayed = last.saturating_duration_since(started).as_secs_f64();
    outcome.figure("sent_per_second", size.messages as f64 / sending.as_secs_f64());
    outcome.figure("relayed_per_second", size.messages as f64 / relayed.max(1e-9));
    outcome.cpu(&usage, size.messages, "message");
    outcome.busy(&usage);
    if context.judge {
        outcome.at_least("relayed_per_second", 2_000.0);
    }
    let pages = traffic::read_history(&mut pair.reader, &pair.room, PAGE).await?;
    traffic::verify_history(&traffic::parse_pages(&pages)?, &marker, &acknowledged)
}
