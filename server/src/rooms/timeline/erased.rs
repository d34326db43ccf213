//! Users who left for good and had their messages erased (client-server API, "Deactivating an account"): whoever comes
//! into a room afterwards, a user or a server, gets the redacted form of what they said. Who could read it before still
//! can. State stays as it is, or the room would change. Other servers are not told: they go on with what they have.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use futures_util::future::{BoxFuture, ready};
use maru_protocol::cursor::{Place, Position};
use maru_protocol::event::{Event, redact};
use maru_protocol::visibility::Membership;
use ruma::{OwnedUserId, ServerName, UserId};

use super::client_event_format::VisibleEvent;
use crate::refusal::Refusal;
use crate::rooms::Room;
use crate::store::log::{Committed, Mirror, Record};
use crate::store::rooms::events::StoredEvent;
use crate::store::{Store, StoreError};

/// Membership events of one reader that are read at once while looking for the first join.
const MEMBER_EVENTS: usize = 32;

/// Users whose messages are erased, and the log positions at which they were. All in memory; a few bytes a user.
#[derive(Debug)]
pub struct ErasedUsers {
    pub(in crate::rooms) store: Arc<Store>,
    pub(in crate::rooms) users: RwLock<HashMap<OwnedUserId, Position>>,
}

impl ErasedUsers {
    /// Nobody, until [`ErasedUsers::load`].
    pub(in crate::rooms) fn new(store: Arc<Store>) -> Self {
        Self {
            store,
            users: RwLock::default(),
        }
    }

    /// When the messages of the event's sender were erased, for an event that this concerns.
    fn at(&self, event: &Event) -> Option<Position> {
        let erased = self.users.read().unwrap_or_else(PoisonError::into_inner);
        match event.state_key {
            None => erased.get(&event.sender).copied(),
            Some(_) => None,
        }
    }

    /// Reads whose messages are erased. To be called once, before anybody reads events.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn load(&self) -> Result<(), Refusal> {
        let stored = self.store.accounts.erased_users().await?;
        *self.users.write().unwrap_or_else(PoisonError::into_inner) = stored;
        Ok(())
    }

    /// Takes over that a user's messages are erased from a log position on.
    pub fn note(&self, user_id: OwnedUserId, at: Position) {
        let mut erased = self.users.write().unwrap_or_else(PoisonError::into_inner);
        erased.insert(user_id, at);
    }

    /// Puts the redacted form in the place of what was erased before the reader came. Costs nothing where nothing of it
    /// is among the events, else the reader's membership events of the room.
    pub(in crate::rooms) async fn redact_for_user(
        &self,
        reader: &UserId,
        room: &Room,
        seen: &mut [VisibleEvent],
    ) -> Result<(), Refusal> {
        let was_there = |seen: &VisibleEvent| seen.membership == Some(Membership::Join);
        let mut concerned = seen
            .iter()
            .filter(|seen| !was_there(seen) && self.at(&seen.stored.event).is_some());
        if concerned.next().is_none() {
            return Ok(());
        }
        let joined_at = self.first_join(reader, room).await?;
        for seen in seen.iter_mut().filter(|seen| !was_there(seen)) {
            let came_before = |at: Position| joined_at.is_some_and(|joined_at| joined_at <= at);
            if self.at(&seen.stored.event).is_some_and(|at| !came_before(at)) {
                let event = redact(&seen.stored.event, room.version).map_err(Refusal::internal)?;
                seen.stored = Arc::new(seen.stored.with_event(Arc::new(event)));
            }
        }
        Ok(())
    }

    /// Like [`ErasedUsers::redact_for_user`], for a server that is in the room or was.
    pub(in crate::rooms) async fn redact_for_server(
        &self,
        room: &Room,
        server_name: &ServerName,
        events: &mut [Arc<Event>],
    ) -> Result<(), Refusal> {
        if !events.iter().any(|event| self.at(event).is_some()) {
            return Ok(());
        }
        let since = self
            .store
            .federation
            .first_interest(room.nid, server_name)
            .await?;
        for event in events {
            let came_before = |at: Position| since.is_some_and(|since| since <= at);
            if self.at(event).is_some_and(|at| !came_before(at)) {
                *event = Arc::new(redact(event, room.version).map_err(Refusal::internal)?);
            }
        }
        Ok(())
    }

    /// When a user first joined a room, as far as this server knows.
    async fn first_join(&self, user_id: &UserId, room: &Room) -> Result<Option<Position>, Refusal> {
        let (mut below, mut first) = (Place(i64::MAX), None);
        loop {
            let events = self
                .store
                .rooms
                .slot_history(room.nid, "m.room.member", user_id.as_str(), below, MEMBER_EVENTS)
                .await?;
            let joined = |stored: &&Arc<StoredEvent>| Membership::of(&stored.event) == Some(Membership::Join);
            let joins = events
                .iter()
                .filter(joined)
                .filter_map(|stored| stored.position());
            first = joins.chain(first).min();
            match events.last().and_then(|stored| stored.place) {
                Some(place) if events.len() == MEMBER_EVENTS => below = place,
                _ => return Ok(first),
            }
        }
    }
}

impl Mirror for ErasedUsers {
    fn follow<'f>(&'f self, records: &'f [Committed]) -> BoxFuture<'f, Result<(), StoreError>> {
        for committed in records {
            if let Record::Erased(erased) = &committed.record {
                self.note(erased.user_id.clone(), erased.at);
            }
        }
        Box::pin(ready(Ok(())))
    }
}
