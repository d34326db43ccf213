//! What the other nodes say, by whatever carrier it comes, and whether there are any.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use maru_protocol::cursor::Position;
use tokio::sync::{broadcast, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::envelope::{self, NoMessage};
use super::nats::{Arrived, Nats};
use super::{Heard, Nodes};
use crate::observe::metrics;
use crate::store::Store;
use crate::store::nodes::Notification;

/// How often to look whether there are other nodes.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long after one was heard, or this one began to listen, there is taken to be another node, whatever is known of the
/// table.
const HEARD_LATELY: Duration = Duration::from_secs(5);

/// The task that listens.
pub(super) struct Receiver {
    nodes: Arc<Nodes>,
    store: Arc<Store>,
    has_listeners: Arc<AtomicBool>,
    heard: mpsc::Sender<Heard>,
    heard_at: Instant,
}

impl Receiver {
    pub(super) fn new(
        nodes: Arc<Nodes>,
        store: Arc<Store>,
        has_listeners: Arc<AtomicBool>,
        heard: mpsc::Sender<Heard>,
    ) -> Self {
        Self {
            nodes,
            store,
            has_listeners,
            heard,
            heard_at: Instant::now(),
        }
    }

    /// Listens until it is dropped.
    pub(super) async fn run(mut self, mut nats: Option<Nats>) {
        let mut notifications = self.store.nodes.notifications();
        // PostgreSQL may be listened to already, of which nothing more is heard then.
        self.begin();
        let mut due = interval(LOOK_EVERY);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                notification = notifications.recv() => match notification {
                    Ok(Notification::Listening) => self.begin(),
                    Ok(Notification::Told(message)) => self.hear(message.as_bytes()),
                    // What was dropped is said again.
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return,
                },
                arrived = next(&mut nats) => match arrived {
                    Arrived::Connected => self.begin(),
                    Arrived::Committed(position) => self.look_up_to(&position),
                    Arrived::Said(message) => self.hear(&message),
                },
                _ = due.tick() => self.look_for_others(),
            }
        }
    }

    /// This node listens from now on, and may have missed something.
    fn begin(&mut self) {
        self.heard_at = Instant::now();
        self.look_for_others();
        self.pass_on(Heard::Listening);
    }

    fn hear(&mut self, message: &[u8]) {
        let (from, items) = match envelope::open(message) {
            Ok(opened) => opened,
            Err(refused) => return refuse(refused),
        };
        if from != self.nodes.run() {
            self.heard_at = Instant::now();
            self.has_listeners.store(true, Ordering::Relaxed);
            metrics::NODE_MESSAGES_HEARD.add(items.len() as u64);
            self.pass_on(Heard::Said(items));
        }
    }

    /// Nobody who is slow with what was said holds up what is said of the log.
    fn pass_on(&self, heard: Heard) {
        if self.heard.try_send(heard).is_err() {
            metrics::NODE_MESSAGES_DROPPED.add(1);
        }
    }

    /// Another node says by NATS how far it has brought the log.
    fn look_up_to(&self, position: &[u8]) {
        let position = std::str::from_utf8(position)
            .ok()
            .and_then(|text| text.parse().ok());
        match position.map(Position) {
            Some(position) => self.store.log.hint(position),
            None => refuse(NoMessage::Malformed),
        }
    }

    fn look_for_others(&self) {
        let has_listeners = self.heard_at.elapsed() < HEARD_LATELY || self.nodes.others_live();
        self.has_listeners.store(has_listeners, Ordering::Relaxed);
    }
}

fn refuse(why: NoMessage) {
    metrics::NODE_MESSAGES_REFUSED.add(1);
    tracing::debug!(%why, "something between nodes is no message");
}

/// The next that arrives by NATS; never anything where there is none.
async fn next(nats: &mut Option<Nats>) -> Arrived {
    match nats {
        Some(nats) => nats.next().await,
        None => std::future::pending().await,
    }
}
