//! The state before an event: whole with its auth chain, or as far as it differs from one that the peer knows.
//!
//! It may be large, so no more of it is in memory than the part that is being sent. Its events are sent in the order of
//! their local numbers: an event is numbered once those are here that allow it, so each comes after those.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use maru_federation::homeserver::{Finished, Parts};
use maru_protocol::auth::{SlotHash, StateSlot};
use maru_protocol::state::{EventNid, State, StateNid};
use maru_protocol::wire::answer::{Part, Refused, RefusedCode};
use maru_protocol::wire::limits::{MAX_AUTH_CHAIN, MAX_EVENTS, MAX_STATE_BYTES, MAX_STATE_IDS};
use maru_protocol::wire::request::state::{self, Difference, Extent, StateIds};
use ruma::{EventId, OwnedEventId, OwnedServerName, ServerName};
use tokio::time::timeout;

use super::{Asked, PART_BYTES, refused};
use crate::fair_semaphore::Permit;
use crate::peers::request_handlers::RequestHandlers;
use crate::refusal::Refusal;
use crate::store::Store;
use crate::store::rooms::event_sizes::Size;
use crate::store::rooms::events::StoredEvent;

/// States that are sent at the same time.
pub(in crate::peers) const STATES_IN_ALL: usize = 8;

/// Those of them that go to one server; it waits for more.
pub(in crate::peers) const STATES_OF_ONE: usize = 2;

/// How long a state may take to be sent: others wait for theirs.
const LONGEST: Duration = Duration::from_secs(600);

/// Most servers whose records go before a state; those of the others go with their events.
const MOST_SERVERS: usize = maru_protocol::wire::limits::MAX_RECORDS;

/// A slot of a state, and what is in it instead.
pub(in crate::peers) type Change = (SlotHash, Option<EventNid>);

impl RequestHandlers {
    /// The state before an event that the peer may see.
    pub(super) async fn state(
        &self,
        peer: &ServerName,
        call: state::State,
        parts: &Parts,
    ) -> Result<Finished, Refused> {
        let asked = self.room_for(peer, &call.room_id).await?;
        let before = self.visible_state_before(peer, &asked, &call.at).await;
        let before = before
            .map_err(refused)?
            .ok_or_else(|| refused(Refusal::not_found("the room has no such event")))?;
        let reference = match &call.beside {
            Some(id) => self
                .visible_state_before(peer, &asked, id)
                .await
                .map_err(refused)?,
            None => None,
        };
        let telling = async {
            let _permit = self.state_permit(peer).await?;
            if let Some(reference) = reference
                && let Some(ids) = self.send_difference(&reference, &before, parts).await?
            {
                return Ok(ids);
            }
            Ok(StateIds {
                state: self.send_state(&before, std::iter::empty(), parts).await?,
                difference: None,
            })
        };
        Finished::done::<state::State>(in_time(telling).await?)
    }

    /// Waits until a state may be sent to a peer.
    async fn state_permit(&self, peer: &ServerName) -> Result<Permit<OwnedServerName>, Refused> {
        let permit = self.state_permits.acquire(peer.to_owned()).await;
        permit.map_err(|_| Refused::new(RefusedCode::LimitExceeded, "too many states at the same time"))
    }

    /// A whole room: the state that somebody comes into, as [`send_state`](Self::send_state) sends it.
    pub(super) async fn send_room_state(
        &self,
        peer: &ServerName,
        state: &State,
        servers: impl Iterator<Item = &OwnedServerName>,
        parts: &Parts,
    ) -> Result<Vec<OwnedEventId>, Refused> {
        in_time(async {
            let _permit = self.state_permit(peer).await?;
            self.send_state(state, servers, parts).await
        })
        .await
    }

    /// The state before an event of a room, if the peer may see the event and the state is known.
    async fn visible_state_before(
        &self,
        peer: &ServerName,
        Asked { room, audience }: &Asked,
        at: &EventId,
    ) -> Result<Option<State>, Refusal> {
        let found = self.events_of(room, &[at.to_owned()]).await?;
        let Some(at) = found.first().cloned() else {
            return Ok(None);
        };
        if self
            .rooms
            .server_visibility
            .visible(room, peer, *audience, found)
            .await?
            .is_empty()
        {
            return Ok(None);
        }
        self.state_before(&at).await
    }

    /// Sends all events of a state and its auth chain, each after those that allow it, and answers which are the state.
    /// The records of `servers` go first.
    ///
    /// Costs grow with the state, which is read twice; in memory only numbers and ids.
    async fn send_state(
        &self,
        state: &State,
        servers: impl Iterator<Item = &OwnedServerName>,
        parts: &Parts,
    ) -> Result<Vec<OwnedEventId>, Refused> {
        let too_large = || {
            let why = "the state of the room is too large to be told";
            Refused::new(RefusedCode::TooLarge, why)
        };
        let nids = state.events();
        if nids.len() > MAX_STATE_IDS {
            return Err(too_large());
        }
        let sizes = self.with_auth_chain(&nids).await.map_err(refused)?;
        let sizes = sizes.ok_or_else(too_large)?;
        let first = Part {
            extent: Some(extent(nids.len(), sizes.len().saturating_sub(nids.len()))),
            records: self.records_of(servers.take(MOST_SERVERS).map(AsRef::as_ref)),
            ..Part::default()
        };
        parts.send(first).await?;
        self.send_stored(&sizes, parts).await?;
        let ids = self.store.rooms.event_ids(&nids).await;
        ids.map_err(|error| refused(error.into()))
    }

    /// Sends the events in which a state differs from one that the peer knows. None where the whole is not much more.
    async fn send_difference(
        &self,
        reference: &State,
        state: &State,
        parts: &Parts,
    ) -> Result<Option<StateIds>, Refused> {
        let changes = reference.changes_to(state);
        let filled = state.entries().len();
        if changes.len() > filled / 2 {
            return Ok(None);
        }
        let there: Vec<_> = changes.iter().filter_map(|(_, event)| *event).collect();
        let emptied = changes.iter().filter(|(_, event)| event.is_none());
        let gone: Vec<_> = emptied.filter_map(|(slot, _)| reference.get(slot)).collect();
        let failed = |error: crate::store::StoreError| refused(error.into());
        let mut sizes = self.store.rooms.event_sizes(&there).await.map_err(failed)?;
        sizes.sort_by_key(|size| size.nid);
        let first = Part {
            extent: Some(extent(sizes.len(), 0)),
            ..Part::default()
        };
        parts.send(first).await?;
        self.send_stored(&sizes, parts).await?;
        Ok(Some(StateIds {
            state: self.store.rooms.event_ids(&there).await.map_err(failed)?,
            difference: Some(Difference {
                gone: self.store.rooms.event_ids(&gone).await.map_err(failed)?,
                filled: filled as u64,
            }),
        }))
    }

    /// Sends stored events in their order, with the records of their servers; no more than a part is read at a time.
    async fn send_stored(&self, sizes: &[Size], parts: &Parts) -> Result<(), Refused> {
        let mut given = BTreeSet::new();
        for sizes in by_parts(sizes) {
            let nids: Vec<_> = sizes.iter().map(|size| size.nid).collect();
            let events = self.store.rooms.events_by_nid(&nids).await;
            let mut events = events.map_err(|error| refused(error.into()))?;
            let events: Vec<_> = nids.iter().filter_map(|nid| events.remove(nid)).collect();
            let events: Vec<_> = events.into_iter().map(|stored| stored.event.clone()).collect();
            self.send_events(&events, &mut given, parts).await?;
        }
        Ok(())
    }

    /// The state before an event, as far as it is known.
    pub(super) async fn state_before(&self, at: &StoredEvent) -> Result<Option<State>, Refusal> {
        let around = state_around(&self.store, at).await?;
        // It only serves to be looked at: the number is that of no state.
        Ok(around.map(|(after, back)| after.with(StateNid(0), back)))
    }

    /// Events and everything that allows them, in the order of their numbers. None where that is more than may be sent. A
    /// few queries for each generation, and one for each part.
    async fn with_auth_chain(&self, nids: &[EventNid]) -> Result<Option<Vec<Size>>, Refusal> {
        let most = nids.len() + MAX_AUTH_CHAIN;
        let mut found = BTreeMap::new();
        let mut named: HashSet<OwnedEventId> = HashSet::new();
        let mut generation = self.store.rooms.event_sizes(nids).await?;
        while !generation.is_empty() {
            found.extend(generation.iter().map(|size| (size.nid, size.bytes)));
            let bytes: usize = found.values().sum();
            if found.len() > most || bytes > MAX_STATE_BYTES {
                return Ok(None);
            }
            let mut open = Vec::new();
            for sizes in by_parts(&generation) {
                let nids: Vec<_> = sizes.iter().map(|size| size.nid).collect();
                for stored in self.store.rooms.events_by_nid(&nids).await?.into_values() {
                    let new = stored.event.auth_events.iter();
                    let new = new.filter(|id| !named.contains(*id)).cloned().collect::<Vec<_>>();
                    open.extend(new.iter().map(ToString::to_string));
                    named.extend(new);
                }
                if named.len() > most {
                    return Ok(None);
                }
            }
            generation = self.store.rooms.event_sizes_by_id(open).await?;
            generation.retain(|size| !found.contains_key(&size.nid));
        }
        let sizes = found.into_iter().map(|(nid, bytes)| Size { nid, bytes });
        Ok(Some(sizes.collect()))
    }
}

/// The state after an event, and what to change in it for the one before: where it is state, what it replaced is back
/// in its slot.
pub(in crate::peers) async fn state_around(
    store: &Store,
    at: &StoredEvent,
) -> Result<Option<(State, Option<Change>)>, Refusal> {
    let Some(nid) = at.state else { return Ok(None) };
    let after = store.rooms.state(nid).await?;
    let slot = StateSlot::of(&at.event).map(|slot| slot.hash());
    let filled = slot.filter(|slot| after.get(slot) == Some(at.nid));
    Ok(Some((after, filled.map(|slot| (slot, at.replaces)))))
}

/// Tells a state, or gives up when that takes too long.
async fn in_time<T>(telling: impl Future<Output = Result<T, Refused>>) -> Result<T, Refused> {
    let sent = timeout(LONGEST, telling).await;
    sent.unwrap_or_else(|_| Err(Refused::new(RefusedCode::Unavailable, "took too long")))
}

/// Events in parts of as many as an answer's part may hold, at least one each.
fn by_parts(mut sizes: &[Size]) -> impl Iterator<Item = &[Size]> {
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = sizes.iter().take(MAX_EVENTS).take_while(|size| {
            bytes += size.bytes;
            bytes <= PART_BYTES
        });
        let count = fits.count().max(1).min(sizes.len());
        let (part, rest) = sizes.split_at(count);
        sizes = rest;
        (!part.is_empty()).then_some(part)
    })
}

fn extent(state: usize, chain: usize) -> Extent {
    Extent {
        state: state as u64,
        chain: chain as u64,
    }
}

#[cfg(test)]
mod tests {
    use crate::peers::request_handlers::state::*;

    #[test]
    fn a_part_holds_as_many_events_as_it_may_and_one_at_least() {
        let sizes = |bytes: &[usize]| -> Vec<Size> {
            let numbered = (0..).zip(bytes);
            numbered
                .map(|(nid, &bytes)| Size {
                    nid: EventNid(nid),
                    bytes,
                })
                .collect()
        };
        let counts = |bytes: &[usize]| by_parts(&sizes(bytes)).map(<[_]>::len).collect::<Vec<_>>();
        assert_eq!(counts(&[]), [0; 0]);
        assert_eq!(
            counts(&[PART_BYTES + 1, PART_BYTES, 1, PART_BYTES - 1, 1]),
            [1, 1, 2, 1]
        );
        assert_eq!(counts(&[1; MAX_EVENTS + 1]), [MAX_EVENTS, 1]);
    }
}
