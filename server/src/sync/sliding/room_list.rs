//! The rooms of a user by activity, and which of them a request asks for (MSC4186, "Lists and subscriptions").

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use maru_protocol::auth::StateSlot;
use maru_protocol::cursor::Position;
use ruma::{OwnedRoomId, RoomId};
use serde::Deserialize;

use super::request::{Filters, RoomConfig, SlidingRequest};
use crate::accounts::Caller;
use crate::refusal::Refusal;
use crate::store::accounts::account_data::{AccountData, GLOBAL};
use crate::store::rooms::StoredMembership;
use crate::store::rooms::events::StoredEvent;
use crate::sync::Sync;
use crate::sync::window::Window;

/// The account data that says which rooms are direct chats.
pub(super) const DIRECT: &str = "m.direct";

/// The account data of a room that says which tags it has.
const TAG: &str = "m.tag";

/// A user's rooms as they are at a position: those that the user is in, is invited to or has knocked on.
#[derive(Clone, Debug)]
pub(super) struct RoomList {
    /// The position.
    pub(super) until: Position,
    rooms: Arc<[StoredMembership]>,
    places: Arc<HashMap<i64, usize>>,
    by_id: Arc<HashMap<OwnedRoomId, usize>>,
    /// When something last happened in each room.
    activity: Vec<Position>,
    direct: Arc<HashSet<OwnedRoomId>>,
    /// Tags by room, where a request has asked for them.
    tags: Option<Arc<HashMap<i64, BTreeSet<String>>>>,
}

/// A room that a request asks for.
#[derive(Clone, Debug)]
pub(super) struct Asked<'r> {
    /// The user's membership.
    pub(super) membership: StoredMembership,
    /// What is wanted of it, by all that asks for it together.
    pub(super) config: RoomConfig,
    /// The lists that it is in a window of.
    pub(super) lists: Vec<&'r str>,
    /// Whether it is asked for by itself.
    pub(super) is_subscribed: bool,
}

/// What a request asks for.
#[derive(Debug, Default)]
pub(super) struct Choice<'r> {
    /// The rooms, by local number.
    pub(super) rooms: BTreeMap<i64, Asked<'r>>,
    /// How many rooms each list has.
    pub(super) counts: Vec<(&'r str, usize)>,
}

impl RoomList {
    /// The list as the database has it, made from the user's memberships as they are at a position. Costs grow with the
    /// rooms.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub(super) async fn read(
        sync: &Sync,
        caller: &Caller,
        memberships: Vec<StoredMembership>,
        until: Position,
    ) -> Result<Self, Refusal> {
        let is_listed =
            |m: &StoredMembership| matches!(m.membership.membership.as_str(), "join" | "invite" | "knock");
        let rooms: Arc<[_]> = memberships.into_iter().filter(is_listed).collect();
        let joined = rooms.iter().filter(|m| m.membership.membership == "join");
        let joined = joined.map(|m| m.membership.room).collect();
        let activity = sync.store.rooms.activity(joined).await?;
        let active = |m: &StoredMembership| activity.get(&m.membership.room).copied().unwrap_or(m.position);
        let direct = sync
            .store
            .accounts
            .account_data(&caller.user_id, GLOBAL, DIRECT)
            .await?;
        let numbered = || rooms.iter().enumerate();
        Ok(Self {
            until,
            places: Arc::new(numbered().map(|(at, m)| (m.membership.room, at)).collect()),
            by_id: Arc::new(numbered().map(|(at, m)| (m.room_id.clone(), at)).collect()),
            activity: rooms.iter().map(active).collect(),
            direct: Arc::new(direct.map(|data| direct_rooms(&data)).unwrap_or_default()),
            tags: None,
            rooms,
        })
    }

    /// The list after a window in which the user's memberships did not change, and the rooms that became direct chats in
    /// it or are none any more.
    pub(super) fn after(&self, window: &Window) -> (Self, HashSet<OwnedRoomId>) {
        let mut list = self.clone();
        list.until = window.until;
        for (nid, joined) in &window.joined {
            let newest = joined.timeline.iter().chain(&joined.skipped_state);
            let newest = newest.filter_map(|stored| stored.position()).max();
            if let (Some(newest), Some(at)) = (newest, self.places.get(nid))
                && let Some(activity) = list.activity.get_mut(*at)
            {
                *activity = newest.max(*activity);
            }
            for data in joined.account_data.iter().filter(|data| data.data_type == TAG) {
                if let Some(tags) = &mut list.tags {
                    Arc::make_mut(tags).insert(*nid, tags_of(data));
                }
            }
        }
        let mut changed = HashSet::new();
        if let Some(data) = window.account_data.iter().find(|data| data.data_type == DIRECT) {
            let direct = direct_rooms(data);
            changed = direct.symmetric_difference(&self.direct).cloned().collect();
            list.direct = Arc::new(direct);
        }
        (list, changed)
    }

    /// About what it takes in memory, in bytes.
    pub(super) fn weight(&self) -> usize {
        512 + self.rooms.len() * 512
    }

    /// Whether a room is a direct chat.
    pub(super) fn is_direct(&self, room_id: &RoomId) -> bool {
        self.direct.contains(room_id)
    }

    /// What a request asks for among these rooms. Costs grow with the rooms, and where a filter looks at their state, with
    /// a read of what is not in memory.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub(super) async fn choose<'r>(
        &mut self,
        sync: &Sync,
        caller: &Caller,
        request: &'r SlidingRequest,
    ) -> Result<Choice<'r>, Refusal> {
        let mut choice = Choice::default();
        let mut by_activity: Vec<usize> = (0..self.rooms.len()).collect();
        by_activity.sort_by_key(|at| std::cmp::Reverse(self.activity.get(*at).copied()));
        let facts = self.facts(sync, caller, request).await?;
        for (name, list) in &request.lists {
            let spaces = match &list.filters.spaces {
                Some(spaces) => Some(self.children(sync, spaces).await?),
                None => None,
            };
            let filtered: Vec<usize> = by_activity
                .iter()
                .copied()
                .filter(|at| self.passes(*at, &list.filters, &facts, spaces.as_ref()))
                .collect();
            choice.counts.push((name, filtered.len()));
            let whole = [(0, usize::MAX)];
            let ranges = list.ranges.as_deref().unwrap_or(&whole);
            let in_range = |place: usize| ranges.iter().any(|(from, to)| (*from..=*to).contains(&place));
            for (place, at) in filtered.into_iter().enumerate() {
                if in_range(place)
                    && let Some(asked) = self.asked(&mut choice, at, &list.config)
                {
                    asked.lists.push(name);
                }
            }
        }
        for (room_id, config) in &request.subscriptions {
            if let Some(at) = self.by_id.get(room_id)
                && let Some(asked) = self.asked(&mut choice, *at, config)
            {
                asked.is_subscribed = true;
            }
        }
        Ok(choice)
    }

    /// Notes that a room is asked for.
    fn asked<'c, 'r>(
        &self,
        choice: &'c mut Choice<'r>,
        at: usize,
        config: &RoomConfig,
    ) -> Option<&'c mut Asked<'r>> {
        let membership = self.rooms.get(at)?;
        let asked = choice
            .rooms
            .entry(membership.membership.room)
            .or_insert_with(|| Asked {
                membership: membership.clone(),
                config: config.clone(),
                lists: Vec::new(),
                is_subscribed: false,
            });
        asked.config.join(config);
        Some(asked)
    }

    fn passes(
        &self,
        at: usize,
        filters: &Filters,
        facts: &HashMap<i64, Facts>,
        children: Option<&HashSet<OwnedRoomId>>,
    ) -> bool {
        let Some(membership) = self.rooms.get(at) else {
            return false;
        };
        let nid = membership.membership.room;
        let is_invited = membership.membership.membership == "invite";
        let is = |wanted: Option<bool>, is: bool| wanted.is_none_or(|wanted| wanted == is);
        if !is(filters.is_dm, self.direct.contains(&membership.room_id))
            || !is(filters.is_invited, is_invited)
            || children.is_some_and(|children| !children.contains(&membership.room_id))
        {
            return false;
        }
        if filters.looks_at_tags() {
            let none = BTreeSet::new();
            let tags = self
                .tags
                .as_ref()
                .and_then(|tags| tags.get(&nid))
                .unwrap_or(&none);
            let has = |wanted: &BTreeSet<String>| wanted.iter().any(|tag| tags.contains(tag));
            if filters.tags.as_ref().is_some_and(|wanted| !has(wanted)) || has(&filters.not_tags) {
                return false;
            }
        }
        if filters.looks_at_state() {
            let Some(facts) = facts.get(&nid) else {
                return false;
            };
            let has = |types: &BTreeSet<Option<String>>| types.contains(&facts.room_type);
            return is(filters.is_encrypted, facts.is_encrypted)
                && filters.room_types.as_ref().is_none_or(has)
                && !has(&filters.not_room_types);
        }
        true
    }

    /// What filters must know of rooms: their state, and the tags, which stay in memory.
    async fn facts(
        &mut self,
        sync: &Sync,
        caller: &Caller,
        request: &SlidingRequest,
    ) -> Result<HashMap<i64, Facts>, Refusal> {
        let mut filters = request.lists.values().map(|list| &list.filters);
        if self.tags.is_none() && filters.clone().any(Filters::looks_at_tags) {
            let stored = sync
                .store
                .accounts
                .account_data_of_type(&caller.user_id, TAG)
                .await?;
            let tags = stored.iter().map(|data| (data.room, tags_of(data))).collect();
            self.tags = Some(Arc::new(tags));
        }
        if !filters.any(Filters::looks_at_state) {
            return Ok(HashMap::new());
        }
        self.state_facts(sync).await
    }

    /// Type and encryption of all rooms, of those that this server is not in by what the invitation shows.
    async fn state_facts(&self, sync: &Sync) -> Result<HashMap<i64, Facts>, Refusal> {
        let mut facts = HashMap::new();
        let mut local = Vec::new();
        for listed in &*self.rooms {
            match &listed.membership.stripped_state {
                Some(stripped) => drop(facts.insert(listed.membership.room, Facts::of_stripped(stripped))),
                None => local.push(listed.membership.room),
            }
        }
        let rooms = sync.rooms.repository.rooms_by_nid(&local).await?;
        let create = StateSlot::new("m.room.create", "").hash();
        let created = rooms.values().filter_map(|room| room.head().state.get(&create));
        let created = sync.rooms.repository.events(&created.collect::<Vec<_>>()).await?;
        let encryption = StateSlot::new("m.room.encryption", "").hash();
        for (nid, room) in rooms {
            let state = room.head().state.clone();
            let created = state.get(&create).and_then(|nid| created.get(&nid));
            facts.insert(
                nid,
                Facts {
                    room_type: created.and_then(|created| room_type(created)),
                    is_encrypted: state.get(&encryption).is_some(),
                },
            );
        }
        Ok(facts)
    }

    /// The children of those of these spaces that the user is in.
    async fn children(
        &self,
        sync: &Sync,
        spaces: &BTreeSet<OwnedRoomId>,
    ) -> Result<HashSet<OwnedRoomId>, Refusal> {
        let joined = spaces
            .iter()
            .filter_map(|space| self.rooms.get(*self.by_id.get(space)?));
        let joined = joined.filter(|m| m.membership.membership == "join");
        let joined: Vec<i64> = joined.map(|m| m.membership.room).collect();
        let rooms = sync.rooms.repository.rooms_by_nid(&joined).await?;
        let state = rooms.values().flat_map(|room| room.head().state.events());
        let state = sync
            .store
            .rooms
            .without_members(&state.collect::<Vec<_>>())
            .await?;
        let state = sync.rooms.repository.events(&state).await?;
        let child = |stored: &Arc<StoredEvent>| {
            let event = &stored.event;
            if &*event.event_type != "m.space.child" {
                return None;
            }
            let child = event.content_as::<Child>().ok()?;
            child.via.filter(|via| !via.is_empty())?;
            OwnedRoomId::try_from(event.state_key.as_deref()?).ok()
        };
        Ok(state.values().filter_map(child).collect())
    }
}

/// What filters look at of a room's state.
#[derive(Clone, Debug, Default)]
struct Facts {
    room_type: Option<String>,
    is_encrypted: bool,
}

#[derive(Deserialize)]
struct Create {
    #[serde(rename = "type")]
    room_type: Option<String>,
}

#[derive(Deserialize)]
struct Child {
    via: Option<Vec<String>>,
}

impl Facts {
    fn of_stripped(stripped: &str) -> Self {
        #[derive(Deserialize)]
        struct Stripped {
            #[serde(rename = "type")]
            event_type: String,
            content: serde_json::Value,
        }
        let events: Vec<Stripped> = serde_json::from_str(stripped).unwrap_or_default();
        let mut facts = Self::default();
        for event in events {
            match event.event_type.as_str() {
                "m.room.create" => {
                    let create = serde_json::from_value::<Create>(event.content);
                    facts.room_type = create.ok().and_then(|create| create.room_type);
                }
                "m.room.encryption" => facts.is_encrypted = true,
                _ => {}
            }
        }
        facts
    }
}

fn room_type(created: &StoredEvent) -> Option<String> {
    created.event.content_as::<Create>().ok()?.room_type
}

/// The rooms of `m.direct`, whoever they are with.
fn direct_rooms(data: &AccountData) -> HashSet<OwnedRoomId> {
    let direct: BTreeMap<String, serde_json::Value> = serde_json::from_str(&data.content).unwrap_or_default();
    let rooms = direct.values().filter_map(|rooms| rooms.as_array()).flatten();
    rooms
        .filter_map(|room| OwnedRoomId::try_from(room.as_str()?).ok())
        .collect()
}

/// The tags of `m.tag`.
fn tags_of(data: &AccountData) -> BTreeSet<String> {
    #[derive(Deserialize)]
    struct Tags {
        tags: BTreeMap<String, serde::de::IgnoredAny>,
    }
    let tags = serde_json::from_str::<Tags>(&data.content);
    tags.map(|tags| tags.tags.into_keys().collect())
        .unwrap_or_default()
}
