//! What clients read of a room's history: what is here, and what others have of it from before this server was there.

use std::sync::Arc;
use std::time::Duration;

use maru_protocol::wire::request::history::{self, Timestamp};
use ruma::{EventId, UserId};
use tokio::time::{Instant, timeout_at};

use crate::peers::backfill::event_fetcher::EventFetcher;
use crate::peers::backfill::history::Backfill;
use crate::peers::dependencies::Dependencies;
use crate::peers::rpc_client::RpcClient;
use crate::refusal::Refusal;
use crate::rooms::Room;
use crate::rooms::Rooms;
use crate::rooms::timeline::client_event_format::VisibleEvent;
use crate::rooms::timeline::history::{EventContext, EventPredicate, PageRequest, TimelinePage};
use crate::store::rooms::events::Direction;

/// Most pages of the past that are fetched for one request.
const MOST_FETCHED: usize = 4;

/// How long a reader waits for what others have of a room's history. What is on its way then comes all the same.
const PATIENCE: Duration = Duration::from_secs(30);

/// Most servers that are asked for the event at a time.
const MOST_SERVERS: usize = 4;

/// A room's history as clients read it.
#[derive(Debug)]
pub struct FederatedHistory {
    rooms: Arc<Rooms>,
    rpc: Arc<RpcClient>,
    fetcher: Arc<EventFetcher>,
    backfill: Arc<Backfill>,
}

impl FederatedHistory {
    pub(in crate::peers) fn new(
        dependencies: &Dependencies,
        fetcher: Arc<EventFetcher>,
        backfill: Arc<Backfill>,
    ) -> Self {
        Self {
            rooms: Arc::clone(&dependencies.rooms),
            rpc: Arc::clone(&dependencies.rpc),
            fetcher,
            backfill,
        }
    }

    /// A page of a room's timeline. Where it reaches a gap, what is missing is fetched from others.
    ///
    /// # Errors
    /// Those of [`TimelineReader::messages`](crate::rooms::TimelineReader::messages). That nobody fills a gap is no error: what lies beyond is
    /// read all the same, and where nothing does, history ends there for now.
    pub async fn messages(
        self: &Arc<Self>,
        user_id: &UserId,
        room: &Arc<Room>,
        request: PageRequest<'_>,
    ) -> Result<TimelinePage, Refusal> {
        let mut page = self
            .rooms
            .timeline
            .messages(user_id, room, request.clone())
            .await?;
        let (mut fetched, deadline) = (0, Instant::now() + PATIENCE);
        while let Some(gap) = page.gap.take() {
            fetched += 1;
            let is_filled = fetched <= MOST_FETCHED && self.backfill.page_by(room, &gap, deadline).await;
            let is_first = gap.before <= room.head().first_place;
            if !is_filled && is_first {
                // An empty page without anybody who gives more is an end, or clients would ask for ever.
                page.end = page.end.filter(|_| !page.chunk.is_empty());
                break;
            }
            let next = PageRequest {
                from: page.end,
                limit: request.limit.saturating_sub(page.chunk.len()),
                passing: (!is_filled).then_some(gap.before),
                ..request.clone()
            };
            page.go_on_with(self.rooms.timeline.messages(user_id, room, next).await?);
        }
        Ok(page)
    }

    /// An event with up to `limit` events around it.
    ///
    /// # Errors
    /// Those of [`TimelineReader::context`](crate::rooms::TimelineReader::context).
    pub async fn context(
        self: &Arc<Self>,
        user_id: &UserId,
        room: &Arc<Room>,
        event_id: &EventId,
        limit: usize,
        wanted: EventPredicate<'_>,
        lazy_members: bool,
    ) -> Result<EventContext, Refusal> {
        self.event(user_id, room, event_id).await?;
        let deadline = Instant::now() + PATIENCE;
        let around = || {
            self.rooms
                .timeline
                .context(user_id, room, event_id, limit, wanted, lazy_members)
        };
        let context = around().await?;
        match &context.gap {
            Some(gap) if self.backfill.page_by(room, gap, deadline).await => around().await,
            _ => Ok(context),
        }
    }

    /// One event of a room's timeline.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] when there is no such event, or the user may not see it.
    pub async fn event(
        self: &Arc<Self>,
        user_id: &UserId,
        room: &Arc<Room>,
        event_id: &EventId,
    ) -> Result<VisibleEvent, Refusal> {
        let missing = match self.rooms.timeline.visible_event(user_id, room, event_id).await {
            Err(Refusal::NotFound(missing)) => missing,
            found => return found,
        };
        let deadline = Instant::now() + PATIENCE;
        if self.rooms.timeline.may_read(user_id, room).await?
            && self.backfill.reach(room, event_id, deadline).await?
        {
            return self.rooms.timeline.visible_event(user_id, room, event_id).await;
        }
        Err(Refusal::NotFound(missing))
    }

    /// The event closest to a time, also where only others have it.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] when there is none that the user may see.
    pub async fn event_at_time(
        self: &Arc<Self>,
        user_id: &UserId,
        room: &Arc<Room>,
        time_ms: u64,
        direction: Direction,
    ) -> Result<VisibleEvent, Refusal> {
        let here = self
            .rooms
            .timeline
            .event_at_time(user_id, room, time_ms, direction)
            .await;
        let at_the_edge = match &here {
            Err(Refusal::NotFound(_)) => true,
            Err(_) => false,
            Ok(seen) => direction == Direction::Forward && seen.stored.place <= Some(room.head().first_place),
        };
        if !at_the_edge || self.backfill.newest_gap(room).await?.is_none() {
            return here;
        }
        let deadline = Instant::now() + PATIENCE;
        let wire = match direction {
            Direction::Forward => history::Direction::Forwards,
            Direction::Backward => history::Direction::Backwards,
        };
        for server in self.fetcher.candidates_in(room, None).iter().take(MOST_SERVERS) {
            let call = Timestamp {
                room_id: room.room_id.clone(),
                ts: time_ms,
                direction: wire,
            };
            let Ok(Ok(nearest)) = timeout_at(deadline, self.rpc.request(server, call)).await else {
                continue;
            };
            if let Ok(found) = self.event(user_id, room, &nearest.event_id).await {
                return Ok(found);
            }
        }
        here
    }
}
