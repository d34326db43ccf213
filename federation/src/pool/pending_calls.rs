//! What a connection has asked of the homeserver and waits for.

use std::{collections::VecDeque, sync::Arc};

use maru_protocol::{
    LogId, SignedRecord,
    wire::{
        CloseCode, Cursor, LogItem,
        message::{Received, RoomExtremities},
    },
};
use tokio::{sync::OwnedMutexGuard, time::Instant};

use super::peer::{OtherStays, Peer, Taken};
use super::shared::Shared;
use crate::{
    homeserver::{Claim, Failure, Homeserver, LogPage, Rejection},
    limits,
    link::{BoxFuture, Link},
};

/// How one piece of work came out.
pub(super) enum Outcome {
    Judged(Result<(Taken, OwnedMutexGuard<()>), Rejection>),
    Received(Option<Received>),
    Page(LogPage),
    Stored,
    Extremities(Vec<RoomExtremities>),
    Acknowledged,
    Heard(Result<(), Rejection>),
    Failed(Failure),
}

/// Something that a peer said and that the server is told of, one after the other.
pub(super) enum Heard {
    Extremities(Vec<RoomExtremities>),
    Record(SignedRecord),
}

/// One piece of work, if it is under way.
type Slot = Option<BoxFuture<'static, Outcome>>;

/// The work under way: at most one of each kind, which the session sees to.
pub(super) struct Work<H> {
    server: Arc<H>,
    greeting: Slot,
    reading: Slot,
    storing: Slot,
    extremities: Slot,
    acknowledging: Slot,
    hearing: Slot,
    /// The newest acknowledgement that the server was not told of yet.
    acknowledged: Option<Cursor>,
    /// What was heard meanwhile, a bounded number of frames.
    heard: VecDeque<Heard>,
    peer: Option<Arc<Peer>>,
}

impl<H: Homeserver> Work<H> {
    pub(super) fn new(server: Arc<H>) -> Self {
        Self {
            server,
            greeting: None,
            reading: None,
            storing: None,
            extremities: None,
            acknowledging: None,
            hearing: None,
            acknowledged: None,
            heard: VecDeque::new(),
            peer: None,
        }
    }

    /// Judges a claim; for a peer that may come in, settles which of its connections stays and waits for
    /// the stores of the one before.
    pub(super) fn judge(&mut self, claim: Claim, shared: Arc<Shared<H>>, link: Arc<dyn Link>, dialled: bool) {
        let server = self.server.clone();
        self.greeting = Some(Box::pin(async move {
            let name = claim.name.clone();
            if let Err(rejection) = server.judge(claim).await {
                return Outcome::Judged(Err(rejection));
            }
            let take = |peer: &Arc<Peer>| {
                let id = peer.take_connection(&link, shared.own_key, dialled, Instant::now())?;
                Ok::<_, OtherStays>(Taken::new(peer.clone(), id))
            };
            let Ok(taken) = shared.registry.with(&name, take) else {
                return Outcome::Judged(Err(Rejection::new(CloseCode::Overloaded, "too many peers")));
            };
            let Ok(taken) = taken else {
                return Outcome::Judged(Err(Rejection::new(
                    CloseCode::Duplicate,
                    "another connection stays",
                )));
            };
            let storing = taken.peer.storing.clone().lock_owned().await;
            Outcome::Judged(Ok((taken, storing)))
        }));
    }

    pub(super) fn load_received(&mut self, peer: &Arc<Peer>) {
        let (server, peer) = (self.server.clone(), peer.clone());
        self.greeting = Some(Box::pin(async move {
            server
                .received(&peer.name)
                .await
                .map_or_else(Outcome::Failed, Outcome::Received)
        }));
    }

    pub(super) fn read_log(
        &mut self,
        peer: &Arc<Peer>,
        after: Option<Cursor>,
        max_items: usize,
        max_bytes: usize,
    ) {
        let (server, peer) = (self.server.clone(), peer.clone());
        self.reading = Some(Box::pin(async move {
            let page = server.read_log(&peer.name, after, max_items, max_bytes).await;
            page.map_or_else(Outcome::Failed, Outcome::Page)
        }));
    }

    pub(super) fn store(&mut self, peer: &Arc<Peer>, log_id: LogId, items: Vec<LogItem>, cursor: Cursor) {
        let (server, peer) = (self.server.clone(), peer.clone());
        self.storing = Some(Box::pin(async move {
            let stored = server.store(&peer.name, log_id, items, cursor).await;
            stored.map_or_else(Outcome::Failed, |()| Outcome::Stored)
        }));
    }

    pub(super) fn load_extremities(&mut self, peer: &Arc<Peer>) {
        let (server, peer) = (self.server.clone(), peer.clone());
        self.extremities = Some(Box::pin(async move {
            let rooms = server.extremities(&peer.name).await;
            rooms.map_or_else(Outcome::Failed, Outcome::Extremities)
        }));
    }

    /// Tells the server of an acknowledgement; of several that come while it is told of one, only the last.
    pub(super) fn acknowledged(&mut self, peer: &Arc<Peer>, cursor: Cursor) {
        self.peer = Some(peer.clone());
        self.acknowledged = Some(cursor);
        self.go_on();
    }

    pub(super) fn hear(&mut self, peer: &Arc<Peer>, heard: Heard) {
        self.peer = Some(peer.clone());
        self.heard.push_back(heard);
        self.go_on();
    }

    /// Begins what waits for its turn.
    fn go_on(&mut self) {
        let Some(peer) = &self.peer else {
            return;
        };
        if self.acknowledging.is_none()
            && let Some(cursor) = self.acknowledged.take()
        {
            let (server, peer) = (self.server.clone(), peer.clone());
            self.acknowledging = Some(Box::pin(async move {
                let told = server.acknowledged(&peer.name, cursor).await;
                told.map_or_else(Outcome::Failed, |()| Outcome::Acknowledged)
            }));
        }
        if self.hearing.is_none()
            && let Some(heard) = self.heard.pop_front()
        {
            let (server, peer) = (self.server.clone(), peer.clone());
            self.hearing = Some(Box::pin(async move {
                match heard {
                    Heard::Extremities(rooms) => {
                        server.heard_extremities(&peer.name, rooms).await;
                        Outcome::Heard(Ok(()))
                    }
                    Heard::Record(record) => Outcome::Heard(server.heard_record(&peer.name, record).await),
                }
            }));
        }
    }

    /// Whether the peer may say more: not while much of what it said is still to be told.
    pub(super) fn listens(&self) -> bool {
        self.heard.len() < limits::MAX_HEARD_WAITING
    }

    /// The next piece that is done. Waits for ever while there is none. May be dropped and called again.
    ///
    /// What makes us speak waits while the peer does not listen, so that nothing piles up for it.
    pub(super) async fn next(&mut self, may_speak: bool) -> Outcome {
        let outcome = tokio::select! {
            outcome = finish(&mut self.greeting) => outcome,
            outcome = finish(&mut self.storing), if may_speak => outcome,
            outcome = finish(&mut self.reading), if may_speak => outcome,
            outcome = finish(&mut self.extremities), if may_speak => outcome,
            outcome = finish(&mut self.acknowledging) => outcome,
            outcome = finish(&mut self.hearing) => outcome,
        };
        self.go_on();
        outcome
    }

    /// Waits until a store that is under way has ended.
    pub(super) async fn finish_store(&mut self) {
        if let Some(storing) = self.storing.take() {
            storing.await;
        }
    }
}

/// Waits for a piece of work and empties its slot.
async fn finish(slot: &mut Slot) -> Outcome {
    match slot {
        Some(work) => {
            let outcome = work.await;
            *slot = None;
            outcome
        }
        None => std::future::pending().await,
    }
}
