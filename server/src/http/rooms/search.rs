//! Searching messages (client-server API, "Server Side Search").

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use ruma::OwnedUserId;
use ruma::api::client::search::search_events::v3::{
    self as search_events, Criteria, EventContext, GroupingKey, OrderBy, SearchKeys,
};
use serde_json::{Map, Value, json};

use super::history::count;
use crate::accounts::Caller;
use crate::http::codec::completed_body::{Completed, Completion};
use crate::http::codec::error::ApiError;
use crate::http::codec::extractors::Call;
use crate::http::codec::raw_json::{Written, reader};
use crate::http::router::{Endpoints, Routes, unknown_path};
use crate::http::syncing::long_poll::wanted;
use crate::refusal::Refusal;
use crate::rooms::Room;
use crate::rooms::timeline::client_event_format::{Recency, UnsignedData, VisibleEvent};
use crate::rooms::timeline::surroundings::Surroundings;
use crate::search::analysis::{MOST_PHRASES, Query};
use crate::search::{Found, Group, Grouped, Hit, MOST_RESULTS, Order, Page, Search, Wish};
use crate::server::Server;
use crate::store::rooms::events::StoredEvent;
use crate::store::search::Subject;

/// Results on a page when the client does not say.
const DEFAULT_RESULTS: usize = 10;

/// Longest text that somebody may look for, in bytes.
const LONGEST_TERM: usize = 4_096;

/// Results whose senders' names are looked up at once.
const PROFILES_AT_ONCE: usize = 4;

pub(in crate::http) fn routes() -> Routes {
    Routes::new().endpoint::<Request, _>(search)
}

type Request = Completed<search_events::Request, NoContext>;

/// Who does not ask for the context of results gets none; ruma's type would have it asked for.
#[derive(Debug)]
struct NoContext;

impl Completion for NoContext {
    fn complete(fields: &mut Map<String, Value>) -> bool {
        let criteria = fields
            .get_mut("search_categories")
            .and_then(|categories| categories.get_mut("room_events"))
            .and_then(Value::as_object_mut);
        let Some(criteria) = criteria.filter(|criteria| !criteria.contains_key("event_context")) else {
            return false;
        };
        criteria.insert(
            "event_context".to_owned(),
            json!({ "before_limit": 0, "after_limit": 0 }),
        );
        true
    }
}

async fn search(State(server): State<Arc<Server>>, call: Call<Request>) -> Response {
    let Some(search) = &server.search else {
        return unknown_path().await;
    };
    let (request, caller) = (call.request.request, call.caller);
    match answer(&server, search, &caller, request).await {
        Ok(written) => written.into_response(),
        Err(refusal) => ApiError(refusal).into_response(),
    }
}

async fn answer(
    server: &Server,
    search: &Search,
    caller: &Caller,
    request: search_events::Request,
) -> Result<Written, Refusal> {
    let mut categories = Written::new();
    if let Some(criteria) = &request.search_categories.room_events {
        let (wish, page) = (wish(criteria)?, page(criteria, request.next_batch.as_deref())?);
        let found = search.find(&caller.user_id, &wish, page).await?;
        let shown = Shown::of(server, caller, criteria, &found).await?;
        categories.object("room_events", shown.written(&wish, &found));
    }
    let mut body = Written::new();
    body.object("search_categories", categories);
    Ok(body.finish())
}

/// What is looked for.
fn wish(criteria: &Criteria) -> Result<Wish, Refusal> {
    let term = &criteria.search_term;
    let query = Some(term)
        .filter(|term| term.len() <= LONGEST_TERM)
        .and_then(|term| Query::new(term));
    let why = || format!("look for {MOST_PHRASES} words at most, of {LONGEST_TERM} bytes together");
    let subject = |key: &SearchKeys| match key {
        SearchKeys::ContentBody => Some(Subject::Body),
        SearchKeys::ContentName => Some(Subject::Name),
        SearchKeys::ContentTopic => Some(Subject::Topic),
        _ => None,
    };
    let subjects = match &criteria.keys {
        Some(keys) => keys.iter().filter_map(subject).collect(),
        None => BTreeSet::from([Subject::Body, Subject::Name, Subject::Topic]),
    };
    let groups = &criteria.groupings.group_by;
    let is_by = |key: GroupingKey| groups.iter().any(|group| group.key.as_ref() == Some(&key));
    Ok(Wish {
        query: Arc::new(query.ok_or_else(|| Refusal::invalid(why()))?),
        subjects,
        filter: wanted(&criteria.filter),
        limit: criteria
            .filter
            .limit
            .map_or(DEFAULT_RESULTS, count)
            .clamp(1, MOST_RESULTS),
        by_room: is_by(GroupingKey::RoomId),
        by_sender: is_by(GroupingKey::Sender),
    })
}

/// Which page.
fn page(criteria: &Criteria, next_batch: Option<&str>) -> Result<Page, Refusal> {
    let order = match &criteria.order_by {
        None | Some(OrderBy::Rank) => Order::Rank,
        Some(OrderBy::Recent) => Order::Recent,
        Some(_) => return Err(Refusal::invalid("results are ordered by `rank` or `recent`")),
    };
    let page = match next_batch {
        None => Page::first(order),
        Some(token) => token
            .parse()
            .map_err(|_| Refusal::invalid("`next_batch` is not of a search"))?,
    };
    match page.order == order {
        true => Ok(page),
        false => Err(Refusal::invalid("`next_batch` is of a search in another order")),
    }
}

/// What is shown with the results, and how.
struct Shown {
    unsigned: UnsignedData,
    /// One a result where they are asked for.
    surroundings: Vec<Surroundings>,
    profiles: Vec<Map<String, Value>>,
    states: BTreeMap<String, Vec<VisibleEvent>>,
}

impl Shown {
    /// Looks up what is asked for: the surroundings of all results together, their senders' names result by result, the state
    /// of each room.
    async fn of(
        server: &Server,
        caller: &Caller,
        criteria: &Criteria,
        found: &Found,
    ) -> Result<Self, Refusal> {
        let events: Vec<_> = found.hits.iter().map(|hit| &hit.seen.stored).collect();
        let rooms: Vec<i64> = events
            .iter()
            .map(|stored| stored.room)
            .collect::<HashSet<_>>()
            .into_iter()
            .collect();
        let rooms = server.rooms.repository.rooms_by_nid(&rooms).await?;
        let context = &criteria.event_context;
        let surroundings = surroundings(server, caller, context, found).await?;
        let profiles = match context.include_profile {
            true => profiles(server, &rooms, found, &surroundings).await?,
            false => Vec::new(),
        };
        let mut states = BTreeMap::new();
        if criteria.include_state == Some(true) {
            for room in rooms.values() {
                let state = match server.rooms.state_reader.all_state(&caller.user_id, room).await {
                    // Who sees single events need not see the state.
                    Err(Refusal::Forbidden(_)) => Vec::new(),
                    state => state?,
                };
                let state = state.into_iter().map(|stored| VisibleEvent {
                    stored,
                    membership: None,
                });
                states.insert(room.room_id.to_string(), state.collect());
            }
        }
        let mut all: Vec<&Arc<StoredEvent>> = events;
        for seen in surroundings.iter().flat_map(Surroundings::events) {
            all.push(&seen.stored);
        }
        all.extend(states.values().flatten().map(|seen: &VisibleEvent| &seen.stored));
        let formats = &server.rooms.client_events;
        let unsigned = formats.unsigned_data(reader(caller), all, Recency::Stored);
        Ok(Self {
            unsigned: unsigned.await?,
            surroundings,
            profiles,
            states,
        })
    }

    fn written(&self, wish: &Wish, found: &Found) -> Written {
        let mut body = Written::new();
        body.value("count", &found.count);
        body.value("highlights", &wish.query.words());
        let results = found.hits.iter().enumerate();
        body.objects(
            "results",
            results.map(|(place, hit)| self.result(place, hit)).collect(),
        );
        if !self.states.is_empty() {
            let mut states = Written::new();
            for (room_id, state) in &self.states {
                states.events(room_id, &self.unsigned, state);
            }
            body.object("state", states);
        }
        if !found.groups.is_empty() {
            body.value("groups", &groups(found));
        }
        if let Some(next) = &found.next {
            body.text("next_batch", &next.to_string());
        }
        body
    }

    fn result(&self, place: usize, hit: &Hit) -> Written {
        let mut result = Written::new();
        result.value("rank", &hit.score);
        result.event("result", &self.unsigned, &hit.seen);
        let around = self.surroundings.get(place);
        let profiles = self.profiles.get(place);
        if around.is_some() || profiles.is_some() {
            let mut context = Written::new();
            if let Some(around) = around {
                context.text("start", &around.start.to_string());
                context.text("end", &around.end.to_string());
                context.events("events_before", &self.unsigned, &around.before);
                context.events("events_after", &self.unsigned, &around.after);
            }
            if let Some(profiles) = profiles {
                context.value("profile_info", profiles);
            }
            result.object("context", context);
        }
        result
    }
}

/// What stands around the results; nothing where nobody asks.
async fn surroundings(
    server: &Server,
    caller: &Caller,
    context: &EventContext,
    found: &Found,
) -> Result<Vec<Surroundings>, Refusal> {
    let (before, after) = (count(context.before_limit), count(context.after_limit));
    if before == 0 && after == 0 {
        return Ok(Vec::new());
    }
    let events: Vec<_> = found.hits.iter().map(|hit| &hit.seen.stored).collect();
    let timeline = &server.rooms.timeline;
    timeline
        .surroundings(&caller.user_id, &events, before, after)
        .await
}

/// For each result, how the senders of the events of it and around it were called then.
async fn profiles(
    server: &Server,
    rooms: &HashMap<i64, Arc<Room>>,
    found: &Found,
    surroundings: &[Surroundings],
) -> Result<Vec<Map<String, Value>>, Refusal> {
    let mut reads = Vec::new();
    for (place, hit) in found.hits.iter().enumerate() {
        let around = surroundings.get(place).into_iter().flat_map(Surroundings::events);
        let senders = around
            .chain([&hit.seen])
            .map(|seen| seen.stored.event.sender.as_str());
        reads.push(profiles_at(
            server,
            rooms.get(&hit.seen.stored.room),
            &hit.seen.stored,
            senders.collect(),
        ));
    }
    stream::iter(reads).buffered(PROFILES_AT_ONCE).try_collect().await
}

async fn profiles_at(
    server: &Server,
    room: Option<&Arc<Room>>,
    stored: &StoredEvent,
    senders: HashSet<&str>,
) -> Result<Map<String, Value>, Refusal> {
    let Some(room) = room else {
        return Ok(Map::new());
    };
    let profiles = server
        .rooms
        .state_reader
        .profiles_at(room, stored, senders)
        .await?;
    let shown = profiles.into_iter().map(|(user_id, profile)| {
        let mut fields = Map::new();
        fields.extend(
            profile
                .displayname
                .map(|name| ("displayname".to_owned(), name.into())),
        );
        fields.extend(
            profile
                .avatar_url
                .map(|url| ("avatar_url".to_owned(), url.into())),
        );
        (OwnedUserId::into(user_id), Value::Object(fields))
    });
    Ok(shown.collect())
}

/// The groups by what they are of, in the order of their first results.
fn groups(found: &Found) -> BTreeMap<&'static str, BTreeMap<&str, Value>> {
    let mut all: BTreeMap<&'static str, BTreeMap<&str, Value>> = BTreeMap::new();
    for (group, Grouped { hits, next }) in &found.groups {
        let (kind, name) = match group {
            Group::Room(room_id) => ("room_id", room_id),
            Group::Sender(sender) => ("sender", sender),
        };
        let ids = hits.iter().filter_map(|place| found.hits.get(*place));
        let ids: Vec<_> = ids.map(|hit| hit.seen.stored.event.id.as_str()).collect();
        let mut shown = json!({ "order": hits.first(), "results": ids });
        if let (Some(next), Some(shown)) = (next, shown.as_object_mut()) {
            shown.insert("next_batch".to_owned(), next.to_string().into());
        }
        all.entry(kind).or_default().insert(name, shown);
    }
    all
}
