//! Events of a room, for a server that is or was in it. Which of them it may be told, and in which form, is decided by
//! [`ServerVisibility::visible`](crate::rooms::ServerVisibility::visible) alone.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use maru_federation::homeserver::{Finished, Parts};
use maru_protocol::ingest::Outcome;
use maru_protocol::wire::answer::Refused;
use maru_protocol::wire::limits::MAX_ANSWER_BYTES;
use maru_protocol::wire::request::Nothing;
use maru_protocol::wire::request::history::{self, Backfill, Events, MissingEvents, Nearest, Timestamp};
use ruma::{OwnedEventId, ServerName};

use super::{Asked, refused};
use crate::peers::request_handlers::RequestHandlers;
use crate::refusal::Refusal;
use crate::rooms::Room;
use crate::store::rooms::events::{Direction, StoredEvent};

/// Most events of one answer.
const MOST_EVENTS: usize = 500;

/// Events that are read from the database together: the largest ones are of 1 MiB each.
const READ_TOGETHER: usize = 20;

/// Events near a time that are looked at for one that the peer may see.
const MOST_NEAR: usize = 100;

impl RequestHandlers {
    /// The events before some others, those included.
    pub(super) async fn backfill(
        &self,
        peer: &ServerName,
        call: Backfill,
        parts: &maru_federation::homeserver::Parts,
    ) -> Result<Finished, Refused> {
        let asked = self.room_for(peer, &call.room_id).await?;
        let limit = usize::try_from(call.limit).unwrap_or(MOST_EVENTS);
        let events = self
            .walk_back(&asked.room, call.from, &HashSet::new(), limit)
            .await
            .map_err(refused)?;
        self.send_visible(peer, &asked, events, parts).await?;
        Finished::done::<Backfill>(Nothing {})
    }

    /// The ancestors of some events as far as others that the peer has.
    pub(super) async fn missing_events(
        &self,
        peer: &ServerName,
        call: MissingEvents,
        parts: &Parts,
    ) -> Result<Finished, Refused> {
        let asked = self.room_for(peer, &call.room_id).await?;
        let limit = usize::try_from(call.limit).unwrap_or(MOST_EVENTS);
        let latest = self.events_of(&asked.room, &call.latest).await.map_err(refused)?;
        let from = latest
            .iter()
            .flat_map(|stored| stored.event.prev_events.iter().cloned());
        let mut stop: HashSet<OwnedEventId> = call.earliest.into_iter().collect();
        stop.extend(call.latest);
        let events = self
            .walk_back(&asked.room, from.collect(), &stop, limit)
            .await
            .map_err(refused)?;
        self.send_visible(peer, &asked, events, parts).await?;
        Finished::done::<MissingEvents>(Nothing {})
    }

    /// Single events of a room.
    pub(super) async fn events(
        &self,
        peer: &ServerName,
        call: Events,
        parts: &Parts,
    ) -> Result<Finished, Refused> {
        let asked = self.room_for(peer, &call.room_id).await?;
        let mut bytes_left = MAX_ANSWER_BYTES;
        let events = self.events_within(&asked.room, &call.ids, &mut bytes_left).await;
        self.send_visible(peer, &asked, events.map_err(refused)?, parts)
            .await?;
        Finished::done::<Events>(Nothing {})
    }

    /// The event nearest to a time.
    pub(super) async fn timestamp(&self, peer: &ServerName, call: Timestamp) -> Result<Nearest, Refused> {
        let asked = self.room_for(peer, &call.room_id).await?;
        let direction = match call.direction {
            history::Direction::Forwards => Direction::Forward,
            history::Direction::Backwards => Direction::Backward,
        };
        let near = self
            .rooms
            .timeline
            .near_time(&asked.room, call.ts, direction, MOST_NEAR);
        let near = near.await.map_err(refused)?;
        let visible = self
            .rooms
            .server_visibility
            .visible(&asked.room, peer, asked.audience, near)
            .await;
        let visible = visible.map_err(refused)?;
        let nearest = visible.first().ok_or_else(|| {
            refused(Refusal::not_found(
                "the room has no event at that time for your server",
            ))
        })?;
        Ok(Nearest {
            event_id: nearest.id.clone(),
            ts: nearest.origin_server_ts,
        })
    }

    /// Sends those of some events that the peer may see.
    async fn send_visible(
        &self,
        peer: &ServerName,
        asked: &Asked,
        events: Vec<Arc<StoredEvent>>,
        parts: &Parts,
    ) -> Result<(), Refused> {
        let visible = self
            .rooms
            .server_visibility
            .visible(&asked.room, peer, asked.audience, events)
            .await;
        self.send_events(&visible.map_err(refused)?, &mut BTreeSet::new(), parts)
            .await
    }

    pub(super) async fn events_of(
        &self,
        room: &Room,
        ids: &[OwnedEventId],
    ) -> Result<Vec<Arc<StoredEvent>>, Refusal> {
        let ids = ids.iter().map(ToString::to_string).collect();
        let mut events = self.store.rooms.events_by_id(ids).await?;
        events.retain(|stored| stored.room == room.nid && stored.outcome != Outcome::Rejected);
        Ok(events)
    }

    /// Those of some events that have no more bytes together than are left, which are taken off.
    async fn events_within(
        &self,
        room: &Room,
        ids: &[OwnedEventId],
        bytes_left: &mut usize,
    ) -> Result<Vec<Arc<StoredEvent>>, Refusal> {
        let mut within = Vec::new();
        for ids in ids.chunks(READ_TOGETHER) {
            for stored in self.events_of(room, ids).await? {
                let Some(left) = bytes_left.checked_sub(stored.event.json.len()) else {
                    *bytes_left = 0;
                    return Ok(within);
                };
                *bytes_left = left;
                within.push(stored);
            }
        }
        Ok(within)
    }

    /// Events from some on towards the past, a generation at a time and newest first, answered oldest first. One query a
    /// generation.
    async fn walk_back(
        &self,
        room: &Room,
        from: Vec<OwnedEventId>,
        stop: &HashSet<OwnedEventId>,
        limit: usize,
    ) -> Result<Vec<Arc<StoredEvent>>, Refusal> {
        let (limit, mut bytes_left) = (limit.min(MOST_EVENTS), MAX_ANSWER_BYTES);
        let mut found: HashMap<OwnedEventId, Arc<StoredEvent>> = HashMap::new();
        let mut open: Vec<OwnedEventId> = from.into_iter().filter(|id| !stop.contains(id)).collect();
        while !open.is_empty() && found.len() < limit {
            let mut generation = self.events_within(room, &open, &mut bytes_left).await?;
            // What hangs nowhere here has no history behind it.
            generation.retain(|stored| stored.state.is_some());
            generation.sort_by_key(|stored| std::cmp::Reverse(stored.event.depth));
            generation.truncate(limit - found.len());
            let mut next = Vec::new();
            for stored in generation {
                next.extend(stored.event.prev_events.iter().cloned());
                found.insert(stored.event.id.clone(), stored);
            }
            next.sort_unstable();
            next.dedup();
            next.retain(|id| !stop.contains(id) && !found.contains_key(id));
            open = next;
        }
        let mut events: Vec<_> = found.into_values().collect();
        events.sort_by_key(|stored| (stored.event.depth, stored.place));
        Ok(events)
    }
}
