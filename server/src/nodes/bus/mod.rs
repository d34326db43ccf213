//! What nodes tell each other beside the log: that it has moved on, and short messages about what lives in memory only.
//!
//! All of it is a hint, said once to whoever listens. What is lost only delays: every node looks at the log every two seconds,
//! and what goes on in memory is said again. It goes by NATS where that is configured and connected, else by PostgreSQL's own
//! notifications; a node listens to both. A process that has the database to itself says nothing and listens to nobody.
//!
//! | file | what |
//! |---|---|
//! | `envelope.rs` | a message as bytes: who says what; and what is no message |
//! | `commit_signal.rs` | how far the log has come, for whom NATS tells it |
//! | `sender.rs` | what waits to be said: said together, and not too often |
//! | `receiver.rs` | what was heard, and whether there is anybody to talk to |
//! | `nats.rs` | NATS |

mod commit_signal;
mod envelope;
mod nats;
mod receiver;
mod sender;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::mpsc;

pub use commit_signal::CommitSignal;
pub use nats::{NatsError, NatsSettings};

use self::envelope::MOST_ITEM_BYTES;
use self::nats::Nats;
use self::receiver::Receiver;
use self::sender::{Carrier, Sender};
use super::Nodes;
use crate::observe::metrics;
use crate::store::Store;
use crate::tasks::Tasks;

/// News that wait to be said. Further ones are lost.
const WAITING: usize = 4_096;

/// What waits to be said again. Further ones are lost, and said at the next time.
const WAITING_REPEATS: usize = 1_024;

/// Messages heard that wait to be dealt with. Further ones are lost.
const WAITING_HEARD: usize = 256;

/// A thing said: a JSON value that the bus does not look into.
pub type Item = Box<RawValue>;

/// What comes from the other nodes.
#[derive(Debug)]
pub enum Heard {
    /// This node has begun to listen, or does so again after a time in which it may have missed something.
    Listening,
    /// Another node said these.
    Said(Vec<Item>),
}

/// The way to tell the other nodes something. Nothing is said, and it costs next to nothing, where there are none.
#[derive(Clone, Debug)]
pub struct Bus {
    has_listeners: Arc<AtomicBool>,
    news: mpsc::Sender<Item>,
    repeats: mpsc::Sender<Item>,
}

/// The other end of a [`Bus`].
#[derive(Debug)]
pub struct BusEnd {
    has_listeners: Arc<AtomicBool>,
    news: mpsc::Receiver<Item>,
    repeats: mpsc::Receiver<Item>,
    commits: Arc<CommitSignal>,
}

impl Bus {
    /// A way on which nothing goes before its other end was started, which then also tells of `commits` where NATS carries
    /// them.
    #[must_use]
    pub fn new(commits: Arc<CommitSignal>) -> (Self, BusEnd) {
        let has_listeners = Arc::new(AtomicBool::new(false));
        let (news, new) = mpsc::channel(WAITING);
        let (repeats, repeated) = mpsc::channel(WAITING_REPEATS);
        let bus = Self {
            has_listeners: Arc::clone(&has_listeners),
            news,
            repeats,
        };
        let end = BusEnd {
            has_listeners,
            news: new,
            repeats: repeated,
            commits,
        };
        (bus, end)
    }

    /// Whether there may be other nodes.
    #[must_use]
    pub fn has_listeners(&self) -> bool {
        self.has_listeners.load(Ordering::Relaxed)
    }

    /// Says something new: within a tenth of a second, before all that is said again. Lost where too much waits.
    pub fn say(&self, item: &impl Serialize) {
        self.offer(&self.news, item);
    }

    /// Says something again, when there is time for it. Lost where too much waits.
    pub fn repeat(&self, item: &impl Serialize) {
        self.offer(&self.repeats, item);
    }

    /// Says something again, and waits until there is room for it: for whoever has much to say.
    pub async fn repeat_in_turn(&self, item: &impl Serialize) {
        if let Some(item) = self.item(item) {
            let _ = self.repeats.send(item).await;
        }
    }

    fn offer(&self, queue: &mpsc::Sender<Item>, item: &impl Serialize) {
        if let Some(item) = self.item(item)
            && queue.try_send(item).is_err()
        {
            metrics::NODE_MESSAGES_DROPPED.add(1);
        }
    }

    /// A thing as it is said; none where nobody listens.
    fn item(&self, item: &impl Serialize) -> Option<Item> {
        if !self.has_listeners() {
            return None;
        }
        let item = serde_json::value::to_raw_value(item).ok();
        let item = item.filter(|item| item.get().len() <= MOST_ITEM_BYTES);
        if item.is_none() {
            metrics::NODE_MESSAGES_DROPPED.add(1);
        }
        item
    }
}

impl BusEnd {
    /// Begins to say what comes and to listen, until the server stops: by PostgreSQL's notifications, and by NATS where there
    /// is one. What is heard comes out.
    ///
    /// # Errors
    /// When what NATS wants to be told of us cannot be read. A server that is not there is waited for, without end.
    pub async fn start(
        self,
        nodes: &Arc<Nodes>,
        store: &Arc<Store>,
        nats: Option<NatsSettings>,
        tasks: &Tasks,
    ) -> Result<mpsc::Receiver<Heard>, NatsError> {
        let (heard, hears) = mpsc::channel(WAITING_HEARD);
        if store.nodes.is_alone() {
            return Ok(hears);
        }
        let nats = match nats {
            Some(settings) => Some(Nats::connect(settings, store.log.id(), Arc::clone(&self.commits)).await?),
            None => None,
        };
        let receiver = Receiver::new(Arc::clone(nodes), Arc::clone(store), self.has_listeners, heard);
        let carrier = Carrier::new(Arc::clone(&store.nodes), nats.as_ref().map(Nats::publisher));
        let sender = Sender::new(nodes.run(), self.news, self.repeats, carrier);
        drop(tasks.finish("node_messages_out", sender.run(tasks.stopping())));
        if let Some(nats) = &nats {
            tasks.until_stop("node_commits_out", nats.publisher().tell_commits(self.commits));
        }
        tasks.until_stop("node_messages_in", receiver.run(nats));
        Ok(hears)
    }
}
