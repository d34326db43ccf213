//! Full replicas: the past of a room that this server has come into is fetched in the background, so that it outlives the
//! servers that have it now. Which room is next, and which of its gaps, the [schedule](maru_protocol::gap::schedule) says.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use maru_protocol::cursor::Place;
use maru_protocol::gap::backfill::PAGE;
use maru_protocol::gap::schedule::{Ended, Next, Schedule};
use maru_protocol::wire::nodes::{self, Note};
use ruma::{OwnedRoomId, OwnedServerName, RoomId};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::fair_semaphore::FairSemaphore;
use crate::peers::MOST_WAITING;
use crate::peers::backfill::event_fetcher::EventFetcher;
use crate::peers::backfill::history::Backfill;
use crate::peers::dependencies::Dependencies;
use crate::peers::leader::term::Term;
use crate::peers::membership::local_rooms::LocalRooms;
use crate::peers::rpc_client::RpcClient;
use crate::refusal::Refusal;
use crate::rooms::Room;
use crate::rooms::Rooms;
use crate::store::Store;
use crate::tasks::Tasks;

/// Pages that are fetched at the same time in the background, each of up to 8 MiB.
const AT_ONCE: usize = 8;

/// Those of them that one server is asked for first.
const OF_ONE: usize = 2;

/// The queue of rooms whose past is being fetched, a page of each at a time. Bounded by the rooms of this server. It is the node
/// that leads whose queue is worked on.
#[derive(Debug)]
pub(in crate::peers) struct BackfillQueue {
    rpc: Arc<RpcClient>,
    schedule: Mutex<Schedule<OwnedRoomId>>,
    wakeup: Notify,
    since: Instant,
    permits: FairSemaphore<OwnedServerName>,
}

impl BackfillQueue {
    pub(in crate::peers) fn new(dependencies: &Dependencies) -> Self {
        Self {
            rpc: Arc::clone(&dependencies.rpc),
            schedule: Mutex::default(),
            wakeup: Notify::new(),
            since: Instant::now(),
            permits: FairSemaphore::new(AT_ONCE, OF_ONE, MOST_WAITING),
        }
    }

    /// Adds a room that this server has come into, or in which something is missing.
    pub(in crate::peers) fn add(&self, room_id: &RoomId) {
        let backfill = |at| {
            let room_id = room_id.to_owned();
            Note::Backfill(nodes::Backfill { room_id, at })
        };
        if self.rpc.leave_to_leader(backfill) {
            return;
        }
        self.lock().add(room_id.to_owned());
        self.wakeup.notify_one();
    }

    /// The next room, and from where on back its gaps are to be filled. It is being worked on until [`BackfillQueue::ended`].
    async fn take(&self) -> (OwnedRoomId, Place) {
        loop {
            let now = self.since.elapsed();
            let next = self.lock().next(now);
            match next {
                Next::Fetch(room_id, from) => return (room_id, from),
                Next::Wait(until) => {
                    drop(timeout(until.saturating_sub(now), self.wakeup.notified()).await);
                }
                Next::Rest => self.wakeup.notified().await,
            }
        }
    }

    fn ended(&self, room_id: &OwnedRoomId, ended: Ended) {
        self.lock().ended(room_id, ended, self.since.elapsed());
        self.wakeup.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Schedule<OwnedRoomId>> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Full replicas: the backfill of all rooms in the background.
#[derive(Debug)]
pub(in crate::peers) struct BackfillScheduler {
    store: Arc<Store>,
    rooms: Arc<Rooms>,
    local: Arc<LocalRooms>,
    fetcher: Arc<EventFetcher>,
    backfill: Arc<Backfill>,
    queue: Arc<BackfillQueue>,
    tasks: Arc<Tasks>,
}

impl BackfillScheduler {
    pub(in crate::peers) fn new(
        dependencies: &Dependencies,
        fetcher: Arc<EventFetcher>,
        backfill: Arc<Backfill>,
        queue: Arc<BackfillQueue>,
    ) -> Self {
        Self {
            store: Arc::clone(&dependencies.store),
            rooms: Arc::clone(&dependencies.rooms),
            local: Arc::clone(&dependencies.local),
            fetcher,
            backfill,
            queue,
            tasks: Arc::clone(&dependencies.tasks),
        }
    }

    /// Begins to make replicas whole, those of all rooms with other servers, for a term.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub(in crate::peers) async fn start(self: &Arc<Self>, term: &Term) -> Result<(), Refusal> {
        for room_id in self.store.federation.rooms_with_others().await? {
            self.queue.add(&room_id);
        }
        let scheduler = Arc::downgrade(self);
        term.keep(&self.tasks, "backfill", move || run(Weak::clone(&scheduler)));
        Ok(())
    }

    /// Fetches one page for the first gap of a room from a place on back, once it has a permit: few rooms at a time, and the
    /// permits are fair among the servers that are asked first, so that one that answers slowly holds up no rooms but its own.
    async fn next_page(self: &Arc<Self>, room_id: &RoomId, from: Place) -> Result<Ended, Refusal> {
        let Some(room) = self.local.present(room_id).await? else {
            return Ok(Ended::Gone);
        };
        let candidates = self.fetcher.candidates_in(&room, None);
        let Some(first) = candidates.first() else {
            return Ok(Ended::Gone);
        };
        let permit = self.queue.permits.acquire(first.clone()).await;
        let _permit = permit.map_err(|_| Refusal::Unavailable(format!("too much of {first} waits")))?;
        let Some(gap) = self.rooms.gaps.gap_back_from(&room, from).await? else {
            return Ok(Ended::Whole);
        };
        match self.backfill.page(&room, &gap).await {
            Ok(true) => Ok(Ended::Page(cost(&room))),
            Ok(false) => Ok(Ended::InVain(gap.before)),
            Err(refusal) => {
                log_failure(room_id, &refusal);
                Ok(Ended::InVain(gap.before))
            }
        }
    }
}

/// Writes into the log why nothing came, at a level that fits whose fault it is.
fn log_failure(room_id: &RoomId, refusal: &Refusal) {
    match refusal {
        Refusal::Unavailable(_) | Refusal::NotFound(_) | Refusal::Forbidden(_) => {
            tracing::debug!(%room_id, %refusal, "the past of a room is not fetched for now");
        }
        _ => tracing::warn!(%room_id, %refusal, "the past of a room is not fetched for now"),
    }
}

/// Roughly what a page of a room's past costs: its events, and the state before the earliest of them.
fn cost(room: &Room) -> usize {
    let members = usize::try_from(room.head().joined).unwrap_or(usize::MAX);
    members.saturating_mul(2).saturating_add(PAGE as usize)
}

/// Has a page of each room that is not whole fetched, and then the next. Each room is a task that waits for a permit.
async fn run(scheduler: Weak<BackfillScheduler>) {
    loop {
        let Some(queue) = scheduler.upgrade().map(|scheduler| Arc::clone(&scheduler.queue)) else {
            return;
        };
        let (room_id, from) = queue.take().await;
        let Some(scheduler) = scheduler.upgrade() else {
            return;
        };
        let tasks = Arc::clone(&scheduler.tasks);
        tasks.until_stop("backfill_page", async move {
            let ended = scheduler.next_page(&room_id, from).await;
            drop(scheduler);
            let ended = ended.unwrap_or_else(|refusal| {
                log_failure(&room_id, &refusal);
                Ended::Failed
            });
            queue.ended(&room_id, ended);
        });
    }
}
