//! This process among those that serve the same database: who else lives, and what this one may do alone.
//!
//! | file | what |
//! |---|---|
//! | `liveness.rs` | who is dead, by beats that stand still |
//! | `lease_keeper.rs` | which leases this run holds and may act on: the machine |
//! | `choice.rs` | which node a client is told to use |
//! | `bus/` | what nodes tell each other beside the log |
//! | this file | what drives it: the task that beats, looks and takes |
//!
//! Where one process has the database to itself nothing beats: leases are taken when they are wanted, and kept.

pub mod bus;
mod choice;
mod lease_keeper;
mod liveness;

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::store::StoreError;
use crate::store::nodes::{Lease, NewNode, NodeTables, RunId, StoredNode};

pub use choice::Candidate;
pub use lease_keeper::{ACT_FOR, LeaseKeeper};
pub use liveness::{DEAD_AFTER, LOOK_EVERY, Liveness, Look};

/// How long the end of a run may take to be written.
const FAREWELL: Duration = Duration::from_secs(5);

/// A lease as its user sees it: what it may act on now, or nothing. An effect is stored in a transaction that checks the
/// lease; whatever else is done under it ends when this changes.
pub type HeldLease = watch::Receiver<Option<Lease>>;

/// This process among those that serve the same database.
#[derive(Debug)]
pub struct Nodes {
    shared: Arc<Shared>,
    /// Beats, looks and takes.
    task: Mutex<Option<AbortOnDropHandle<()>>>,
    /// Cancelled when the admin wants this node to stop.
    leave: CancellationToken,
}

/// What the task and those who ask share.
#[derive(Debug)]
struct Shared {
    tables: Arc<NodeTables>,
    node: NewNode,
    began: Instant,
    load: AtomicI64,
    keeper: Mutex<LeaseKeeper>,
    held: Mutex<HashMap<Arc<str>, watch::Sender<Option<Lease>>>>,
    /// Where other nodes take links that hold a lease.
    links: Mutex<HashMap<Arc<str>, watch::Sender<Option<String>>>>,
    /// Somebody wants another lease.
    wanted: Notify,
}

impl Nodes {
    /// Registers this process as a run of its node and starts to beat and to look at the others, every second. Until it
    /// is stopped.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn start(tables: Arc<NodeTables>, node: NewNode) -> Result<Arc<Self>, StoreError> {
        let began = Instant::now();
        let mut keeper = LeaseKeeper::new(node.run, tables.is_alone());
        tables.register(node.clone()).await?;
        keeper.beaten(Duration::ZERO, true);
        let shared = Arc::new(Shared {
            tables,
            node,
            began,
            load: AtomicI64::new(0),
            keeper: Mutex::new(keeper),
            held: Mutex::default(),
            links: Mutex::default(),
            wanted: Notify::new(),
        });
        let task = tokio::spawn(Arc::clone(&shared).keep());
        Ok(Arc::new(Self {
            shared,
            task: Mutex::new(Some(AbortOnDropHandle::new(task))),
            leave: CancellationToken::new(),
        }))
    }

    /// This run.
    #[must_use]
    pub fn run(&self) -> RunId {
        self.shared.node.run
    }

    /// This node's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.node.name
    }

    /// Wants a lease for as long as this run lives. It comes and goes: whoever acts under it watches it.
    #[must_use]
    pub fn want(&self, name: &str) -> HeldLease {
        let name: Arc<str> = name.into();
        lock(&self.shared.keeper).want(Arc::clone(&name));
        let mut held = lock(&self.shared.held);
        let sender = held.entry(name).or_insert_with(|| watch::Sender::new(None));
        let receiver = sender.subscribe();
        self.shared.wanted.notify_one();
        receiver
    }

    /// Where the node that holds a lease takes links of others. Nothing while no other holds it that lives and takes any.
    #[must_use]
    pub fn link_of_holder(&self, name: &str) -> watch::Receiver<Option<String>> {
        let receiver = {
            let mut links = lock(&self.shared.links);
            let sender = links
                .entry(name.into())
                .or_insert_with(|| watch::Sender::new(None));
            sender.subscribe()
        };
        self.shared.publish_links();
        receiver
    }

    /// Says how much this node has to do, in connections of clients. Others see it within a second.
    pub fn set_load(&self, load: i64) {
        self.shared.load.store(load, Ordering::Relaxed);
    }

    /// The nodes as they were seen last, by name, each with whether it is dead; this one as it is now.
    #[must_use]
    pub fn all(&self) -> Vec<(StoredNode, bool)> {
        let keeper = lock(&self.shared.keeper);
        let seen = keeper.nodes().map(|(node, is_dead)| {
            let mut node = node.clone();
            if node.run == self.run() {
                node.load = self.shared.load.load(Ordering::Relaxed);
                node.draining = keeper.is_draining();
            }
            (node, is_dead)
        });
        seen.collect()
    }

    /// The nodes that a client near a zone may use, the best first. Without a zone: one that is near this node.
    #[must_use]
    pub fn for_clients(&self, zone: Option<&str>) -> Vec<Candidate> {
        let zone = zone.or(self.shared.node.zone.as_deref());
        choice::candidates(self.all(), zone)
    }

    /// The address of a node for a client that asks here. Nothing where all nodes have the same, or none.
    #[must_use]
    pub fn address_for_client(&self) -> Option<String> {
        let candidates = self.for_clients(None);
        let first = &candidates.first()?.address;
        let are_several = candidates.iter().any(|candidate| candidate.address != *first);
        are_several.then(|| choice::choose(&candidates)).flatten()
    }

    /// The address of another node, for a client that leaves this one. Nothing where no other has one of its own.
    #[must_use]
    pub fn address_elsewhere(&self) -> Option<String> {
        let NewNode { name, address, .. } = &self.shared.node;
        let mut candidates = self.for_clients(None);
        candidates.retain(|other| other.name != *name && Some(&other.address) != address.as_ref());
        choice::choose(&candidates)
    }

    /// Whether other nodes live that do not stop.
    #[must_use]
    pub fn others_serve(&self) -> bool {
        let run = self.run();
        let all = self.all();
        all.iter()
            .any(|(node, is_dead)| node.run != run && !is_dead && !node.draining)
    }

    /// Whether other nodes live, as far as it was seen.
    #[must_use]
    pub fn others_live(&self) -> bool {
        let (run, keeper) = (self.run(), lock(&self.shared.keeper));
        keeper.nodes().any(|(node, is_dead)| node.run != run && !is_dead)
    }

    /// Asks this node to drain and end.
    pub fn ask_to_leave(&self) {
        self.leave.cancel();
    }

    /// Waits until this node is asked to drain and end.
    pub async fn asked_to_leave(&self) {
        self.leave.cancelled().await;
    }

    /// Whether this node is about to stop.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        lock(&self.shared.keeper).is_draining()
    }

    /// Gives all leases back and takes none any more; the others are told that this node is about to stop.
    ///
    /// # Errors
    /// When it was not stored. Nothing is held all the same.
    pub async fn drain(&self) -> Result<(), StoreError> {
        let given = self.shared.let_go();
        let Shared { tables, node, .. } = &*self.shared;
        tables.set_draining(&node.name, true).await?;
        tables.give_back(node.run, given).await
    }

    /// Gives all leases back and ends the run. To be called when what acts under leases has ended.
    pub async fn stop(&self) {
        // What it has asked of the database goes on; a lease that it takes so is one of a run that is not there.
        drop(lock(&self.task).take());
        let given = self.shared.let_go();
        let Shared { tables, node, .. } = &*self.shared;
        let ending = async {
            tables.give_back(node.run, given).await?;
            tables.remove(node.run).await
        };
        match tokio::time::timeout(FAREWELL, ending).await {
            Ok(Ok(())) => {}
            // Others notice by the beat.
            Ok(Err(error)) => tracing::warn!(%error, "this node could not say that it stops"),
            Err(_) => tracing::warn!("this node could not say that it stops"),
        }
    }
}

impl Shared {
    /// Has nobody act under a lease any more; what is to be given back.
    fn let_go(&self) -> Vec<Arc<str>> {
        let given = lock(&self.keeper).drain();
        self.publish();
        given
    }

    async fn keep(self: Arc<Self>) {
        loop {
            let round = async {
                if let Err(error) = self.round().await {
                    tracing::warn!(%error, "this node cannot say that it lives, or see who else does");
                }
            };
            let pause = async {
                round.await;
                let pause = self.pause();
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = self.wanted.notified() => {}
                }
            };
            tokio::pin!(pause);
            // What is held ends when it is due, whatever the database takes to answer.
            loop {
                let due = self.publish();
                let until_due = async {
                    match due {
                        Some(due) => tokio::time::sleep_until(self.began + due).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = &mut pause => break,
                    () = until_due => {}
                }
            }
        }
    }

    /// How long to wait for the next round.
    fn pause(&self) -> Duration {
        let keeper = lock(&self.keeper);
        let is_settled = keeper.names().all(|name| keeper.held(name).is_some());
        match self.tables.is_alone() && is_settled {
            // Until somebody wants something.
            true => Duration::from_secs(24 * 60 * 60),
            false => keeper.look_again_in(),
        }
    }

    /// Beats, looks and takes what may be taken.
    async fn round(&self) -> Result<(), StoreError> {
        if !self.tables.is_alone() {
            self.beat().await?;
        }
        let asked = self.began.elapsed();
        let leases = self.tables.leases().await?;
        let stored = self.tables.all().await?;
        let answered = self.began.elapsed();
        let claims = {
            let mut keeper = lock(&self.keeper);
            keeper.observe(Look { asked, answered }, &leases, stored);
            keeper.claims(self.began.elapsed())
        };
        self.publish();
        self.publish_links();
        if claims.is_empty() {
            return Ok(());
        }
        let taken = self.tables.take(self.node.run, claims.clone()).await;
        // Where it is not known what was taken, the next look shows it.
        lock(&self.keeper).took(&claims, taken.as_deref().unwrap_or_default());
        self.publish();
        taken.map(drop)
    }

    async fn beat(&self) -> Result<(), StoreError> {
        let began = self.began.elapsed();
        let load = self.load.load(Ordering::Relaxed);
        let (name, run) = (&self.node.name, self.node.run);
        let is_registered = self.tables.beat(name, run, load).await?;
        lock(&self.keeper).beaten(began, is_registered);
        if is_registered {
            return Ok(());
        }
        self.publish();
        let nodes = self.tables.all().await?;
        if nodes.iter().any(|node| node.name == *name) {
            return Err(StoreError::InUse);
        }
        tracing::warn!("this node was removed while it ran; it comes back");
        let began = self.began.elapsed();
        self.tables.register(self.node.clone()).await?;
        lock(&self.keeper).beaten(began, true);
        Ok(())
    }

    /// Tells who is interested where those take links that hold leases.
    fn publish_links(&self) {
        let links = lock(&self.links);
        let keeper = lock(&self.keeper);
        for (name, sender) in links.iter() {
            let link = keeper.other_holder(name).and_then(|node| node.link.clone());
            sender.send_if_modified(|known| {
                let has_changed = *known != link;
                *known = link;
                has_changed
            });
        }
    }

    /// Tells the users of leases what they may act on. Until when that stays so by itself.
    fn publish(&self) -> Option<Duration> {
        let mut keeper = lock(&self.keeper);
        let due = keeper.tick(self.began.elapsed());
        let held = lock(&self.held);
        for (name, sender) in held.iter() {
            let lease = keeper.held(name);
            sender.send_if_modified(|known| {
                let has_changed = *known != lease;
                if has_changed {
                    match &lease {
                        Some(lease) => tracing::info!(%name, fencing = lease.fencing, "holds a lease"),
                        None => tracing::info!(%name, "holds a lease no more"),
                    }
                    *known = lease;
                }
                has_changed
            });
        }
        due
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
