//! Two homeservers, one room: from the request to one until somebody who waits at the other has the message.

use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use crate::context::Context;
use crate::error::LoadError;
use crate::exactly_once::Tally;
use crate::listen::{Listener, Transport};
use crate::measure::{Latencies, Stopwatch};
use crate::report::Outcome;

/// How much is said, and how fast.
#[derive(Debug, Clone, Serialize, Args)]
pub(crate) struct Size {
    /// Messages a second
    #[arg(long, default_value_t = 50.0)]
    pub(crate) rate: f64,
    /// How long
    #[arg(long, default_value_t = 20.0)]
    pub(crate) seconds: f64,
}

/// How long one long-poll lasts.
const POLL: Duration = Duration::from_secs(30);
/// How long the last message may take.
const GRACE: Duration = Duration::from_secs(20);

pub(super) async fn run(size: &Size, context: &Context, outcome: &mut Outcome) -> Result<(), LoadError> {
    if !(size.rate > 0.0 && size.seconds > 0.0) {
        return Err(LoadError::Usage("relay-latency needs a rate and a time".into()));
    }
    let messages = (size.rate * size.seconds).ceil() as usize;
    let pair = super::across::Pair::meet(context, 1).await?;
    let mut senders = pair.senders;
    let Some(sender) = senders.first_mut() else {
        return Err(LoadError::Usage("relay-latency needs a sender".into()));
    };
    let mut listener =
        Listener::start(Transport::LongPoll, context.other()?, &pair.reader.user, POLL).await?;

    let marker = context.marker();
    let (start, stopwatch) = (Instant::now(), Stopwatch::start(&context.watched)?);
    let due = |number: usize| start + Duration::from_secs_f64(number as f64 / size.rate);
    let sending = async {
        let mut started = Vec::with_capacity(messages);
        for number in 0..messages {
            tokio::time::sleep_until(due(number).into()).await;
            started.push(Instant::now());
            sender
                .send(&pair.room, &format!("t{number}"), &marker.text(number))
                .await?;
        }
        Ok::<_, LoadError>(started)
    };
    let listening = async {
        let (mut tally, mut heard) = (Tally::new(messages), vec![start; messages]);
        let deadline = due(messages) + GRACE;
        while !tally.complete() && Instant::now() < deadline {
            let news = listener.next().await?;
            let now = Instant::now();
            for number in marker.find(&news) {
                if let (true, Some(slot)) = (tally.note(number), heard.get_mut(number)) {
                    *slot = now;
                }
            }
        }
        Ok::<_, LoadError>((tally, heard))
    };
    let (started, (tally, heard)) = tokio::try_join!(sending, listening)?;
    let usage = stopwatch.usage()?;

    tally.verdict().map_err(|discrepancy| LoadError::NotExactlyOnce {
        what: "the listener at the other homeserver".into(),
        discrepancy,
    })?;
    let took = heard
        .iter()
        .zip(&started)
        .map(|(heard, started)| heard.saturating_duration_since(*started));
    outcome.latencies("send_to_other_listener", &Latencies::new(took.collect()));
    outcome.cpu(&usage, messages, "message");
    outcome.busy(&usage);
    if context.judge {
        outcome.at_most("send_to_other_listener_median_ms", 5.0);
    }
    Ok(())
}
