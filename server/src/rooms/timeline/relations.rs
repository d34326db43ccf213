//! What was said about an event, and the threads of a room (client-server API, "Relationships API" and "Querying
//! threads in a room").

use std::collections::HashMap;

use maru_protocol::cursor::{PageToken, Place};
use ruma::{EventId, UserId};

use super::client_event_format::VisibleEvent;
use super::history::MOST_EVENTS;
use crate::refusal::Refusal;
use crate::rooms::{Room, TimelineReader};
use crate::store::rooms::events::{Direction, StoredEvent};
use crate::store::rooms::relations::RelationQuery;

/// Through how many events indirect relations are followed.
pub const DEEPEST: u8 = 3;

/// Which relations of an event are asked for.
#[derive(Clone, Debug)]
pub struct RelationsRequest<'a> {
    /// The event.
    pub event_id: &'a EventId,
    /// Only relations of this kind.
    pub kind: Option<&'a str>,
    /// Only events of this type.
    pub event_type: Option<&'a str>,
    /// Whether relations to related events count too, [`DEEPEST`] events deep.
    pub recurse: bool,
    /// Where to start.
    pub from: Option<PageToken>,
    /// Where to stop.
    pub to: Option<PageToken>,
    /// Which way.
    pub direction: Direction,
    /// How many events.
    pub limit: usize,
}

/// A page of events that are not neighbours in the timeline.
#[derive(Debug)]
pub struct Related {
    /// The events.
    pub chunk: Vec<VisibleEvent>,
    /// Where to go on, if there is more.
    pub next: Option<PageToken>,
}

impl TimelineReader {
    /// The events that relate to an event.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] when there is no such event, or the user may not see it.
    pub async fn related(
        &self,
        user_id: &UserId,
        room: &Room,
        request: RelationsRequest<'_>,
    ) -> Result<Related, Refusal> {
        self.visible_event(user_id, room, request.event_id).await?;
        let from = match (request.from, request.direction) {
            (Some(token), _) => Place(self.repository.boundary(room, token).await?.0.saturating_add(1)),
            (None, Direction::Backward) => Place(i64::MAX),
            (None, Direction::Forward) => Place(i64::MIN),
        };
        let limit = request.limit.clamp(1, MOST_EVENTS);
        let mut events = self
            .store
            .rooms
            .related(RelationQuery {
                room: room.nid,
                to: request.event_id,
                depth: if request.recurse { DEEPEST } else { 1 },
                kind: request.kind,
                event_type: request.event_type,
                from,
                direction: request.direction,
                limit,
            })
            .await?;
        let mut next = events.last().filter(|_| events.len() == limit).and_then(|last| {
            let place = last.place?;
            Some(match request.direction {
                Direction::Backward => Place(place.0.saturating_sub(1)),
                Direction::Forward => place,
            })
        });
        if let Some(token) = request.to {
            let to = self.repository.boundary(room, token).await?;
            let is_within = |stored: &StoredEvent| match request.direction {
                Direction::Backward => stored.place > Some(to),
                Direction::Forward => stored.place <= Some(to),
            };
            next = next.filter(|_| events.last().is_some_and(|last| is_within(last)));
            events.retain(|stored| is_within(stored));
        }
        let reader = self.visibility.membership_of(user_id, room).await?;
        Ok(Related {
            chunk: self
                .visibility
                .visible_events(user_id, room, &reader, events)
                .await?,
            next: next.map(PageToken::Place),
        })
    }

    /// The roots of a room's threads, latest activity first; with `participated`, of those that the user started or
    /// took part in.
    ///
    /// # Errors
    /// [`Refusal::Forbidden`] to those who may not read the room.
    pub async fn threads(
        &self,
        user_id: &UserId,
        room: &Room,
        participated: bool,
        from: Option<PageToken>,
        limit: usize,
    ) -> Result<Related, Refusal> {
        self.state_reader.readable_state(user_id, room).await?;
        let below = match from {
            Some(token) => Place(self.repository.boundary(room, token).await?.0.saturating_add(1)),
            None => Place(i64::MAX),
        };
        let limit = limit.clamp(1, MOST_EVENTS);
        let by = participated.then_some(user_id);
        let threads = self.store.rooms.threads(room.nid, below, by, limit).await?;
        let next = threads.last().filter(|_| threads.len() == limit);
        let next = next.map(|last| PageToken::Place(Place(last.latest.0.saturating_sub(1))));
        let roots = threads.iter().map(|thread| thread.root.to_string()).collect();
        let mut roots = self.store.rooms.events_by_id(roots).await?;
        roots.retain(|stored| stored.room == room.nid);
        let latest: HashMap<_, _> = threads
            .iter()
            .map(|thread| (&thread.root, thread.latest))
            .collect();
        roots.sort_by_key(|stored| std::cmp::Reverse(latest.get(&stored.event.id).copied()));
        let reader = self.visibility.membership_of(user_id, room).await?;
        Ok(Related {
            chunk: self
                .visibility
                .visible_events(user_id, room, &reader, roots)
                .await?,
            next,
        })
    }
}
