//! What of the state of rooms is sent: the events that the request requires, and those of which a room's name and picture are
//! made (MSC4186, "Room results").

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use maru_protocol::auth::StateSlot;
use maru_protocol::state::{EventNid, State};
use ruma::OwnedUserId;
use serde::Deserialize;

use super::connection::Connection;
use super::gather::Gathered;
use super::request::RoomConfig;
use super::required_state::RequiredState;
use crate::accounts::Caller;
use crate::refusal::Refusal;
use crate::store::rooms::events::StoredEvent;
use crate::sync::lazy_members::GivenMembers;
use crate::sync::window::JoinedWindow;
use crate::sync::{Sync, members};

/// Members who stand for the name of a room without one.
const HEROES: usize = 5;

/// What is sent of a room's state.
#[derive(Debug, Default)]
pub(super) struct SentState {
    /// The events that are required.
    pub(super) required: Vec<Arc<StoredEvent>>,
    /// The name, where it is sent: none in it where the room has none any more.
    pub(super) name: Option<Option<String>>,
    /// The picture, likewise.
    pub(super) avatar: Option<Option<String>>,
    /// The members who stand for the name, where they are sent.
    pub(super) heroes: Option<Vec<Hero>>,
}

/// A member who stands for a room's name.
#[derive(Debug)]
pub(super) struct Hero {
    pub(super) user_id: OwnedUserId,
    pub(super) display_name: Option<String>,
    pub(super) avatar_url: Option<String>,
}

/// The events that are needed of one room.
#[derive(Debug, Default)]
struct Needed {
    required: Vec<EventNid>,
    name: Option<EventNid>,
    avatar: Option<EventNid>,
    heroes: Vec<(OwnedUserId, Option<EventNid>)>,
    sends_heroes: bool,
    is_whole: bool,
}

/// A state's event of a type, with the empty state key.
fn at(state: &State, event_type: &str) -> Option<EventNid> {
    state.get(&StateSlot::new(event_type, "").hash())
}

/// The state to send of the rooms that have been gathered, in a handful of queries.
///
/// # Errors
/// When the database cannot be read.
pub(super) async fn of_rooms(
    sync: &Sync,
    caller: &Caller,
    connection: &Connection,
    gathered: &Gathered<'_>,
    given: &GivenMembers,
) -> Result<HashMap<i64, SentState>, Refusal> {
    let heroes = heroes(sync, caller, gathered).await?;
    let mut needed: HashMap<i64, Needed> = HashMap::new();
    for (nid, joined, config) in rooms(gathered) {
        let state = joined.room.head().state.clone();
        let expanded = gathered.expanded.get(&nid);
        let wider = connection
            .config(nid)
            .filter(|before| before.required_state != config.required_state);
        let mut need = Needed {
            is_whole: joined.entire,
            ..Needed::default()
        };
        if joined.entire {
            need.required = matching(sync, &state, &config.required_state, None).await?;
            need.name = at(&state, "m.room.name");
            need.avatar = at(&state, "m.room.avatar");
        } else if let Some(before) = wider {
            let before = Some(&before.required_state);
            need.required = matching(sync, &state, &config.required_state, before).await?;
        }
        if config.required_state.loads_members_lazily() {
            let timeline = joined
                .timeline
                .iter()
                .chain(expanded.into_iter().flat_map(|expanded| &expanded.timeline));
            let mut speakers = speakers(&state, timeline);
            if !joined.entire && !joined.limited {
                given.keep_new(&mut speakers);
            }
            given.remember(&speakers, gathered.window.until);
            need.required.extend(speakers);
        }
        if let Some(heroes) = heroes.get(&nid) {
            need.sends_heroes = true;
            let member =
                |user_id: &OwnedUserId| state.get(&StateSlot::new("m.room.member", user_id.as_str()).hash());
            need.heroes = heroes
                .iter()
                .map(|user_id| (user_id.clone(), member(user_id)))
                .collect();
        }
        needed.insert(nid, need);
    }
    let all = needed.values().flat_map(|need| {
        let heroes = need.heroes.iter().filter_map(|(_, event)| *event);
        let shown = [need.name, need.avatar].into_iter().flatten();
        need.required.iter().copied().chain(shown).chain(heroes)
    });
    let all: Vec<EventNid> = all.collect();
    let events = sync.rooms.repository.events(&all).await?;
    let mut states = HashMap::new();
    for (nid, joined, config) in rooms(gathered) {
        if let Some(need) = needed.remove(&nid) {
            states.insert(nid, sent(joined, config, need, &events));
        }
    }
    Ok(states)
}

/// The rooms of which something is sent, each with what is wanted of it.
fn rooms<'g>(gathered: &'g Gathered<'_>) -> impl Iterator<Item = (i64, &'g JoinedWindow, &'g RoomConfig)> {
    let joined = gathered.window.joined.iter();
    joined.filter_map(|(nid, joined)| Some((*nid, joined, &gathered.choice.rooms.get(nid)?.config)))
}

/// The events of a state that are wanted now and were not before. Costs grow with the state where types or keys are not
/// named.
async fn matching(
    sync: &Sync,
    state: &State,
    wanted: &RequiredState,
    before: Option<&RequiredState>,
) -> Result<Vec<EventNid>, Refusal> {
    let is_new = |event_type: &str, state_key: &str| {
        wanted.wants(event_type, state_key)
            && before.is_none_or(|before| !before.wants(event_type, state_key))
    };
    if let Some(named) = wanted.named() {
        let named = named
            .into_iter()
            .filter(|(event_type, state_key)| is_new(event_type, state_key));
        let event =
            |(event_type, state_key): (&str, &str)| state.get(&StateSlot::new(event_type, state_key).hash());
        return Ok(named.filter_map(event).collect());
    }
    let mut events = state.events();
    if !wanted.may_want_all_members() {
        // Members who are named are looked up among those that are left out here.
        let mut others = sync.store.rooms.without_members(&events).await?;
        others.extend(
            wanted
                .named_members()
                .filter_map(|user_id| state.get(&StateSlot::new("m.room.member", user_id).hash())),
        );
        events = others;
    }
    let loaded = sync.rooms.repository.events(&events).await?;
    events.retain(|nid| {
        let event = loaded.get(nid).map(|stored| &stored.event);
        event.is_some_and(|event| is_new(&event.event_type, event.state_key.as_deref().unwrap_or_default()))
    });
    Ok(events)
}

/// The membership events of those who speak in a timeline, and of those whom it is about.
fn speakers<'t>(state: &State, timeline: impl Iterator<Item = &'t Arc<StoredEvent>>) -> Vec<EventNid> {
    let mut users = HashSet::new();
    for stored in timeline {
        users.insert(stored.event.sender.as_str());
        users.extend(members::subject(&stored.event).map(|user_id| user_id.as_str()));
    }
    let member = |user_id: &str| state.get(&StateSlot::new("m.room.member", user_id).hash());
    users.into_iter().filter_map(member).collect()
}

/// The members who stand for rooms without a name, of those rooms whose members changed.
async fn heroes(
    sync: &Sync,
    caller: &Caller,
    gathered: &Gathered<'_>,
) -> Result<HashMap<i64, Vec<OwnedUserId>>, Refusal> {
    let is_nameless = |joined: &&JoinedWindow| {
        let state = &joined.room.head().state;
        members::changed(joined) && at(state, "m.room.name").is_none()
    };
    let joined = gathered.window.joined.values().filter(is_nameless);
    let rooms: Vec<i64> = joined.map(|joined| joined.room.nid).collect();
    let mut heroes = sync
        .store
        .rooms
        .heroes(rooms.clone(), &caller.user_id, HEROES)
        .await?;
    for room in rooms {
        heroes.entry(room).or_default();
    }
    Ok(heroes)
}

#[derive(Deserialize)]
struct Name {
    name: Option<String>,
}

#[derive(Deserialize)]
struct Avatar {
    url: Option<String>,
}

#[derive(Deserialize)]
struct Profile {
    displayname: Option<String>,
    avatar_url: Option<String>,
}

fn name(stored: &StoredEvent) -> Option<String> {
    let name = stored.event.content_as::<Name>().ok()?.name;
    name.filter(|name| !name.is_empty())
}

fn avatar(stored: &StoredEvent) -> Option<String> {
    let url = stored.event.content_as::<Avatar>().ok()?.url;
    url.filter(|url| !url.is_empty())
}

/// Puts together what is sent of a room's state.
fn sent(
    joined: &JoinedWindow,
    config: &RoomConfig,
    need: Needed,
    events: &HashMap<EventNid, Arc<StoredEvent>>,
) -> SentState {
    let mut sent = SentState::default();
    let mut required: BTreeMap<(&str, &str), Arc<StoredEvent>> = BTreeMap::new();
    let loaded: Vec<_> = need.required.iter().filter_map(|nid| events.get(nid)).collect();
    let lazily = config.required_state.loads_members_lazily() && !joined.limited;
    let is_wanted = |stored: &&Arc<StoredEvent>| {
        let event = &stored.event;
        let state_key = event.state_key.as_deref().unwrap_or_default();
        config.required_state.wants(&event.event_type, state_key)
            || (lazily && members::subject(event).is_some())
    };
    let changed = joined.state_events().filter(|_| !need.is_whole);
    let changed: Vec<_> = changed.filter(is_wanted).collect();
    // What the room's state has now is at least as new as what came last in the window.
    for stored in changed.into_iter().chain(loaded) {
        let event = &stored.event;
        let slot = (&*event.event_type, event.state_key.as_deref().unwrap_or_default());
        required.insert(slot, Arc::clone(stored));
    }
    sent.required = required.into_values().collect();
    if need.is_whole {
        sent.name = need.name.and_then(|nid| name(events.get(&nid)?)).map(Some);
        sent.avatar = need.avatar.and_then(|nid| avatar(events.get(&nid)?)).map(Some);
    } else {
        let newest = |event_type: &str| {
            let of_type = joined
                .state_events()
                .filter(|stored| stored.event.is_state_at(event_type, ""));
            of_type.last()
        };
        sent.name = newest("m.room.name").map(|stored| name(stored));
        sent.avatar = newest("m.room.avatar").map(|stored| avatar(stored));
    }
    sent.heroes = need.sends_heroes.then(|| {
        let hero = |(user_id, event): (OwnedUserId, Option<EventNid>)| {
            let profile = event.and_then(|nid| events.get(&nid)?.event.content_as::<Profile>().ok());
            Hero {
                user_id,
                display_name: profile.as_ref().and_then(|profile| profile.displayname.clone()),
                avatar_url: profile.and_then(|profile| profile.avatar_url),
            }
        };
        need.heroes.into_iter().map(hero).collect()
    });
    sent
}
