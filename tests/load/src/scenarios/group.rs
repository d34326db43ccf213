//! A room in which every member listens: from the start of a send until the last listener has the message.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use clap::Args;
use futures_util::future::try_join_all;
use serde::Serialize;

use crate::context::Context;
use crate::error::LoadError;
use crate::exactly_once::{Marker, Tally};
use crate::listen::{Listener, Transport};
use crate::matrix::{Room, Session};
use crate::measure::{Latencies, Stopwatch};
use crate::report::Outcome;

/// How many listen, and how much they hear.
#[derive(Debug, Clone, Serialize, Args)]
pub(crate) struct Size {
    /// How the members listen
    #[arg(long, value_enum, default_value_t = Transport::LongPoll)]
    pub(crate) transport: Transport,
    /// Members, all of them listening
    #[arg(long, default_value_t = 100)]
    pub(crate) members: usize,
    /// Members who also send, in turn
    #[arg(long, default_value_t = 4)]
    pub(crate) senders: usize,
    /// Messages a second; 200 by WebSocket and 50 by long-poll unless given
    #[arg(long)]
    pub(crate) rate: Option<f64>,
    /// How long
    #[arg(long, default_value_t = 20.0)]
    pub(crate) seconds: f64,
}

/// How long one long-poll lasts.
const POLL: Duration = Duration::from_secs(30);
/// How long the last message may take, and how long doubles are waited for once all have come.
const GRACE: Duration = Duration::from_secs(20);
const LINGER: Duration = Duration::from_millis(500);

/// What all listeners together have seen.
struct Board {
    ready: Cell<usize>,
    /// Listeners that have everything.
    complete: Cell<usize>,
    messages: RefCell<Vec<Message>>,
}

#[derive(Clone, Copy)]
struct Message {
    started: Instant,
    /// When the latest of the listeners so far had it.
    heard: Instant,
    listeners: usize,
}

pub(super) async fn run(size: &Size, context: &Context, outcome: &mut Outcome) -> Result<(), LoadError> {
    let rate = size.rate.unwrap_or(match size.transport {
        Transport::LongPoll => 50.0,
        Transport::Websocket => 200.0,
    });
    if !(rate > 0.0 && size.seconds > 0.0 && (1..=size.members).contains(&size.senders)) {
        return Err(LoadError::Usage(
            "group needs a rate, a time, and senders among the members".into(),
        ));
    }
    let messages = (rate * size.seconds).ceil() as usize;
    let mut members = context.sessions(size.members).await?;
    let room = context.room(&mut members.iter_mut().collect::<Vec<_>>()).await?;
    let mut senders = members;
    let listeners: Vec<_> = senders.iter().map(|member| member.user.clone()).collect();
    senders.truncate(size.senders);

    let marker = context.marker();
    let now = Instant::now();
    let unheard = Message {
        started: now,
        heard: now,
        listeners: 0,
    };
    let board = Board {
        ready: Cell::new(0),
        complete: Cell::new(0),
        messages: RefCell::new(vec![unheard; messages]),
    };
    let tallies = RefCell::new(vec![Tally::new(messages); size.members]);
    let listening = try_join_all(listeners.iter().enumerate().map(async |(index, user)| {
        let mut listener = Listener::start(size.transport, context, user, POLL).await?;
        board.ready.set(board.ready.get() + 1);
        loop {
            let news = listener.next().await?;
            board.hear(&news, &marker, tallies.borrow_mut().get_mut(index), size.members);
        }
        // Listeners end when the conductor is done and drops them.
        #[allow(unreachable_code)]
        Ok::<(), LoadError>(())
    }));
    let conducting = async {
        board
            .until(
                |board| board.ready.get() == size.members,
                Duration::from_secs(120),
            )
            .await?;
        let stopwatch = Stopwatch::start(&context.watched)?;
        let late = send_at_rate(&mut senders, &room, &marker, &board, rate, messages).await?;
        // Not all may ever hear everything: the tallies say so better than a timeout would.
        let _ = board
            .until(|board| board.complete.get() == size.members, GRACE)
            .await;
        let usage = stopwatch.usage()?;
        tokio::time::sleep(LINGER).await;
        Ok::<_, LoadError>((usage, late))
    };
    let (usage, late) = tokio::select! {
        ended = listening => return Err(ended.err().unwrap_or_else(|| LoadError::Protocol("listeners ended".into()))),
        conducted = conducting => conducted?,
    };

    for tally in tallies.borrow().iter() {
        tally.verdict().map_err(|discrepancy| LoadError::NotExactlyOnce {
            what: "a listener".into(),
            discrepancy,
        })?;
    }
    let until_last = board
        .messages
        .borrow()
        .iter()
        .map(|message| message.heard - message.started)
        .collect();
    outcome.latencies("send_to_last_listener", &Latencies::new(until_last));
    outcome.latencies("behind_schedule", &Latencies::new(late));
    outcome.figure("messages_per_second", messages as f64 / usage.wall.as_secs_f64());
    outcome.cpu(&usage, messages, "message");
    outcome.busy(&usage);
    if context.judge {
        let (latency, cpu) = match size.transport {
            Transport::LongPoll => (15.0, 6.0),
            Transport::Websocket => (5.0, 2.0),
        };
        outcome.at_most("send_to_last_listener_median_ms", latency);
        outcome.at_most("server_cpu_ms_per_message", cpu);
    }
    Ok(())
}

impl Board {
    /// Counts what one listener has received.
    fn hear(&self, news: &[u8], marker: &Marker, tally: Option<&mut Tally>, listeners: usize) {
        let now = Instant::now();
        let (Some(tally), mut messages) = (tally, self.messages.borrow_mut()) else {
            return;
        };
        let before = tally.complete();
        for number in marker.find(news) {
            if let (true, Some(message)) = (tally.note(number), messages.get_mut(number)) {
                message.heard = now;
                message.listeners += 1;
                debug_assert!(message.listeners <= listeners);
            }
        }
        if tally.complete() && !before {
            self.complete.set(self.complete.get() + 1);
        }
    }

    /// Waits, looking rarely enough not to cost anything.
    async fn until(&self, holds: impl Fn(&Self) -> bool, patience: Duration) -> Result<(), LoadError> {
        let deadline = Instant::now() + patience;
        while !holds(self) {
            if Instant::now() > deadline {
                return Err(LoadError::Timeout("waiting for the listeners".into()));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }
}

/// Sends every message at its time, the senders taking turns, and returns how far behind its time each one started:
/// senders that are all busy would otherwise hide a slow server.
async fn send_at_rate(
    senders: &mut [Session],
    room: &Room,
    marker: &Marker,
    board: &Board,
    rate: f64,
    messages: usize,
) -> Result<Vec<Duration>, LoadError> {
    let (start, step) = (Instant::now(), senders.len());
    let shares = try_join_all(senders.iter_mut().enumerate().map(async |(first, sender)| {
        let mut late = Vec::new();
        for number in (first..messages).step_by(step) {
            let due = start + Duration::from_secs_f64(number as f64 / rate);
            tokio::time::sleep_until(due.into()).await;
            let (transaction, text) = (format!("t{number}"), marker.text(number));
            let started = Instant::now();
            if let Some(message) = board.messages.borrow_mut().get_mut(number) {
                message.started = started;
            }
            late.push(started.saturating_duration_since(due));
            sender.send(room, &transaction, &text).await?;
        }
        Ok::<_, LoadError>(late)
    }));
    Ok(shares.await?.into_iter().flatten().collect())
}
