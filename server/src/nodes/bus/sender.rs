//! What waits to be said to the other nodes: what is new before what is said again, as much together as fits, and not more
//! often than the carrier bears.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::Item;
use super::envelope::Batch;
use super::nats::Publisher;
use crate::observe::metrics;
use crate::store::nodes::{NodeTables, RunId};

/// The pause after a notification of PostgreSQL: each takes a lock of the whole database server for a moment.
const PAUSE: Duration = Duration::from_millis(100);

/// The pause after a message by NATS.
const NATS_PAUSE: Duration = Duration::from_millis(10);

/// How long what still waits may take when the server stops.
const FAREWELL: Duration = Duration::from_secs(1);

/// How a message gets to the other nodes.
#[derive(Debug)]
pub(super) struct Carrier {
    tables: Arc<NodeTables>,
    nats: Option<Publisher>,
}

impl Carrier {
    pub(super) fn new(tables: Arc<NodeTables>, nats: Option<Publisher>) -> Self {
        Self { tables, nats }
    }

    /// Sends a message. How long to wait before the next one.
    async fn send(&self, message: String) -> Duration {
        if let Some(nats) = self.nats.as_ref().filter(|nats| nats.is_connected()) {
            nats.say(message).await;
            return NATS_PAUSE;
        }
        if let Err(error) = self.tables.tell(message).await {
            metrics::NODE_MESSAGES_DROPPED.add(1);
            tracing::debug!(%error, "other nodes are not told what this one has to say");
        }
        PAUSE
    }
}

/// The task that says what waits.
pub(super) struct Sender {
    from: RunId,
    news: mpsc::Receiver<Item>,
    repeats: mpsc::Receiver<Item>,
    carrier: Carrier,
    /// Did not fit into the message before.
    left: Option<Item>,
}

impl Sender {
    pub(super) fn new(
        from: RunId,
        news: mpsc::Receiver<Item>,
        repeats: mpsc::Receiver<Item>,
        carrier: Carrier,
    ) -> Self {
        Self {
            from,
            news,
            repeats,
            carrier,
            left: None,
        }
    }

    /// Says what comes until the server stops, and then what waits.
    pub(super) async fn run(mut self, stopping: CancellationToken) {
        while let Some(first) = self.next(&stopping).await {
            let message = self.gather(first);
            let pause = self.send(message).await;
            tokio::select! {
                () = sleep(pause) => {}
                () = stopping.cancelled() => {}
            }
        }
        let _ = timeout(FAREWELL, self.say_rest()).await;
    }

    /// What to begin a message with; none when the server stops.
    async fn next(&mut self, stopping: &CancellationToken) -> Option<Item> {
        if stopping.is_cancelled() {
            return None;
        }
        if let Some(left) = self.left.take() {
            return Some(left);
        }
        tokio::select! {
            biased;
            () = stopping.cancelled() => None,
            Some(item) = self.news.recv() => Some(item),
            Some(item) = self.repeats.recv() => Some(item),
        }
    }

    /// A message of an item and whatever waits and fits.
    fn gather(&mut self, first: Item) -> Batch {
        let mut batch = Batch::default();
        let mut next = Some(first);
        while let Some(item) = next {
            if let Err(left) = batch.add(item) {
                self.left = Some(left);
                break;
            }
            next = self.news.try_recv().or_else(|_| self.repeats.try_recv()).ok();
        }
        batch
    }

    async fn send(&self, batch: Batch) -> Duration {
        match batch.seal(self.from) {
            Some(message) => self.carrier.send(message).await,
            None => Duration::ZERO,
        }
    }

    /// Says what is new and still waits. What would only be said again is not.
    async fn say_rest(&mut self) {
        self.repeats.close();
        while self.repeats.try_recv().is_ok() {}
        while let Some(first) = self.left.take().or_else(|| self.news.try_recv().ok()) {
            let message = self.gather(first);
            self.send(message).await;
        }
    }
}
