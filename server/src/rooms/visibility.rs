//! Visibility of events to users: the one way by which every reading path decides it (client-server API, "Room history
//! visibility"). The rule itself is [`may_see`]; here are the facts it asks for.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use maru_protocol::auth::{SlotHash, StateSlot};
use maru_protocol::cursor::Place;
use maru_protocol::state::{EventNid, State, StateNid};
use maru_protocol::visibility::{Around, HistoryVisibility, Membership, Sight, may_see};
use ruma::{OwnedUserId, UserId};

use crate::push::{IGNORED_USERS, ignored_users};
use crate::store::accounts::account_data::GLOBAL;

use super::Room;
use super::timeline::client_event_format::VisibleEvent;
use crate::refusal::Refusal;
use crate::rooms::{ErasedUsers, RoomRepository};
use crate::store::Store;
use crate::store::rooms::events::{Outcome, StoredEvent};

/// Membership events of one user that are read at once while looking for the last join.
const MEMBER_EVENTS: usize = 32;

/// Membership of a reader in a room, past ones included, seen from now.
#[derive(Clone, Debug)]
pub enum ReaderMembership {
    /// Joined.
    Member,
    /// Was joined once and is no longer.
    Departed {
        /// Where the user last joined.
        joined_at: Place,
        /// The event that ended it.
        departure: Arc<StoredEvent>,
    },
    /// Was never joined, or has forgotten it.
    Stranger,
}

impl ReaderMembership {
    /// Whether the user joined at any point after `place`.
    fn joined_after(&self, place: Place) -> bool {
        match self {
            Self::Member => true,
            Self::Departed { joined_at, .. } => *joined_at > place,
            Self::Stranger => false,
        }
    }
}

/// The two slots of a state that decide what a user sees.
struct Slots {
    visibility: SlotHash,
    member: SlotHash,
}

/// What those slots held at some state.
#[derive(Clone, Copy)]
struct SlotContents {
    visibility: Option<EventNid>,
    member: Option<EventNid>,
}

/// Which events of a room a user may see.
#[derive(Debug)]
pub struct Visibility {
    pub(in crate::rooms) store: Arc<Store>,
    pub(in crate::rooms) repository: Arc<RoomRepository>,
    pub(in crate::rooms) erased: Arc<ErasedUsers>,
}

impl Visibility {
    /// Membership of a reader in a room. Costs nothing for members; for others the room's membership events about the user,
    /// back to the last join.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn membership_of(&self, user_id: &UserId, room: &Room) -> Result<ReaderMembership, Refusal> {
        if room.is_joined(user_id) {
            return Ok(ReaderMembership::Member);
        }
        let current = self.store.rooms.membership(room.nid, user_id).await?;
        if current.is_none_or(|current| current.forgotten) {
            return Ok(ReaderMembership::Stranger);
        }
        let mut below = Place(i64::MAX);
        let mut departure = None;
        loop {
            let events = self
                .store
                .rooms
                .slot_history(room.nid, "m.room.member", user_id.as_str(), below, MEMBER_EVENTS)
                .await?;
            for stored in &events {
                if Membership::of(&stored.event) == Some(Membership::Join) {
                    return Ok(match (departure, stored.place) {
                        (Some(departure), Some(joined_at)) => {
                            ReaderMembership::Departed { joined_at, departure }
                        }
                        // The join is on its way into memory.
                        _ => ReaderMembership::Member,
                    });
                }
                departure = Some(Arc::clone(stored));
            }
            match events.last().and_then(|stored| stored.place) {
                Some(place) if events.len() == MEMBER_EVENTS => below = place,
                _ => return Ok(ReaderMembership::Stranger),
            }
        }
    }

    /// Those of some timeline events of a room that a user may see, in the same order.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn visible(
        &self,
        user_id: &UserId,
        room: &Room,
        events: Vec<Arc<StoredEvent>>,
    ) -> Result<Vec<Arc<StoredEvent>>, Refusal> {
        let reader = self.membership_of(user_id, room).await?;
        let seen = self.visible_events(user_id, room, &reader, events).await?;
        Ok(seen.into_iter().map(|seen| seen.stored).collect())
    }

    /// The newest of some timeline events of a room, back to the last one that a user may not see; and whether there is one
    /// such. What comes before it is for those who read on backwards: a timeline in the middle of which something is
    /// left out would leave out changes of the room's state with it.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn visible_end(
        &self,
        user_id: &UserId,
        room: &Room,
        mut events: Vec<Arc<StoredEvent>>,
    ) -> Result<(Vec<Arc<StoredEvent>>, bool), Refusal> {
        events.retain(|stored| stored.outcome == Outcome::Accepted);
        let mut visible = self.visible(user_id, room, events.clone()).await?;
        let seen: HashSet<EventNid> = visible.iter().map(|stored| stored.nid).collect();
        let hidden = events.iter().rposition(|stored| !seen.contains(&stored.nid));
        let after = events.len() - hidden.map_or(0, |hidden| hidden + 1);
        // Not the given ones: some are seen in another form.
        Ok((
            visible.split_off(visible.len().saturating_sub(after)),
            hidden.is_some(),
        ))
    }

    /// Like [`Visibility::visible`], for a reader whose membership is known, and with the user's membership at each event. At most
    /// two queries, however many events; none when the room's state did not change among them.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn visible_events(
        &self,
        user_id: &UserId,
        room: &Room,
        reader: &ReaderMembership,
        events: Vec<Arc<StoredEvent>>,
    ) -> Result<Vec<VisibleEvent>, Refusal> {
        let slots = Slots {
            visibility: StateSlot::new("m.room.history_visibility", "").hash(),
            member: StateSlot::new("m.room.member", user_id.as_str()).hash(),
        };
        let facts = self.facts_after(room, &slots, &events).await?;
        let replaced = events.iter().filter(|stored| changes_sight(stored, user_id));
        let replaced = replaced.filter_map(|stored| stored.replaces);
        let held = facts
            .values()
            .flat_map(|facts| [facts.visibility, facts.member])
            .flatten();
        let needed: HashSet<EventNid> = held.chain(replaced).collect();
        let known = self
            .repository
            .events(&needed.into_iter().collect::<Vec<_>>())
            .await?;
        let visibilities: HashMap<EventNid, HistoryVisibility> = known
            .iter()
            .filter(|(_, stored)| &*stored.event.event_type == "m.room.history_visibility")
            .map(|(nid, stored)| (*nid, HistoryVisibility::of(&stored.event)))
            .collect();
        let memberships: HashMap<EventNid, Membership> = known
            .iter()
            .filter_map(|(nid, stored)| Some((*nid, Membership::of(&stored.event)?)))
            .collect();
        let visibility = |nid: Option<EventNid>| {
            nid.and_then(|nid| visibilities.get(&nid).copied())
                .unwrap_or_default()
        };
        let membership = |nid: Option<EventNid>| {
            nid.and_then(|nid| memberships.get(&nid).copied())
                .unwrap_or(Membership::Leave)
        };
        let see = |stored: Arc<StoredEvent>| {
            let (place, state) = (stored.place?, stored.state?);
            let after = facts.get(&state)?;
            let mut sight = Sight {
                visibility: Around::unchanged(visibility(after.visibility)),
                membership: Around::unchanged(membership(after.member)),
                joined_later: reader.joined_after(place),
            };
            if stored.event.is_state_at("m.room.history_visibility", "") {
                sight.visibility.before = visibility(stored.replaces);
            } else if stored.event.is_state_at("m.room.member", user_id.as_str()) {
                sight.membership.before = membership(stored.replaces);
            }
            let allowed = stored.outcome == Outcome::Accepted && may_see(sight);
            allowed.then_some(VisibleEvent {
                stored,
                membership: Some(sight.membership.after),
            })
        };
        let mut seen: Vec<VisibleEvent> = events.into_iter().filter_map(see).collect();
        self.erased.redact_for_user(user_id, room, &mut seen).await?;
        Ok(seen)
    }

    /// What the two slots held in the state after each event, by state.
    async fn facts_after(
        &self,
        room: &Room,
        slots: &Slots,
        events: &[Arc<StoredEvent>],
    ) -> Result<HashMap<StateNid, SlotContents>, Refusal> {
        let read = |state: &State| SlotContents {
            visibility: state.get(&slots.visibility),
            member: state.get(&slots.member),
        };
        let states = self.repository.states_after(room, events).await?;
        Ok(states.iter().map(|(nid, state)| (*nid, read(state))).collect())
    }

    /// Those of some events, of any rooms, that a user may see.
    pub(in crate::rooms) async fn visible_anywhere(
        &self,
        user_id: &UserId,
        events: Vec<Arc<StoredEvent>>,
    ) -> Result<Vec<Arc<StoredEvent>>, Refusal> {
        let mut by_room: HashMap<i64, Vec<_>> = HashMap::new();
        for stored in events {
            by_room.entry(stored.room).or_default().push(stored);
        }
        let mut visible = Vec::new();
        for (nid, events) in by_room {
            if let Some(room) = self.repository.room_by_nid(nid).await? {
                visible.extend(self.visible(user_id, &room, events).await?);
            }
        }
        Ok(visible)
    }

    /// Whose events a user does not want to see (client-server API, "Ignoring users").
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn ignored_by(&self, user_id: &UserId) -> Result<HashSet<OwnedUserId>, Refusal> {
        let data = self
            .store
            .accounts
            .account_data(user_id, GLOBAL, IGNORED_USERS)
            .await?;
        Ok(data.map(|data| ignored_users(&data.content)).unwrap_or_default())
    }
}

/// Whether an event changes what this user may see.
fn changes_sight(stored: &StoredEvent, user_id: &UserId) -> bool {
    stored.event.is_state_at("m.room.history_visibility", "")
        || stored.event.is_state_at("m.room.member", user_id.as_str())
}
