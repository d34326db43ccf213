//! The request of sliding sync as clients write it. Both forms are read, whichever path they are sent to.

use std::collections::{BTreeMap, BTreeSet};

use ruma::{OwnedRoomId, UserId};
use serde::Deserialize;

use crate::refusal::Refusal;
use crate::sync::sliding::request::{
    Dialect, Extensions, Filters, List, RoomConfig, Scope, SlidingRequest, ToDevice,
};
use crate::sync::sliding::required_state::{RequiredState, Rule, Slots};

/// Longest name of a connection or a list, in bytes.
const NAME_BYTES: usize = 255;

/// Most lists of a request.
const LISTS: usize = 100;

/// Most single rooms of a request.
const SUBSCRIPTIONS: usize = 1_000;

/// Most ranges of a list.
const RANGES: usize = 20;

/// Most slots of rooms' states that a request names.
const SLOTS: usize = 300;

/// Longest type or state key of a slot, in bytes: no event has a longer one.
const SLOT_BYTES: usize = 255;

/// Longest types and state keys of a request together, in bytes.
const SLOTS_BYTES: usize = 32 * 1024;

/// Most spaces by whose children the lists of a request are filtered.
const SPACES: usize = 100;

/// What the older form writes in the query, and the newer one in the body.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Parameters {
    pub(super) pos: Option<String>,
    /// How long to wait, in milliseconds.
    pub(super) timeout: Option<u64>,
    pub(super) set_presence: Option<String>,
}

/// The body.
#[derive(Debug, Deserialize)]
pub(super) struct Body {
    #[serde(flatten)]
    parameters: Parameters,
    #[serde(default)]
    conn_id: String,
    #[serde(default)]
    lists: BTreeMap<String, ListBody>,
    #[serde(default)]
    room_subscriptions: BTreeMap<OwnedRoomId, RoomBody>,
    #[serde(default)]
    extensions: ExtensionsBody,
}

#[derive(Debug, Deserialize)]
struct ListBody {
    range: Option<(u64, u64)>,
    ranges: Option<Vec<(u64, u64)>>,
    filters: Option<FiltersBody>,
    #[serde(flatten)]
    room: RoomBody,
}

#[derive(Debug, Deserialize)]
struct RoomBody {
    timeline_limit: u64,
    #[serde(default)]
    required_state: RequiredStateBody,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum RequiredStateBody {
    Pairs(Vec<(String, String)>),
    Rule(RuleBody),
}

impl Default for RequiredStateBody {
    fn default() -> Self {
        Self::Pairs(Vec::new())
    }
}

#[derive(Debug, Deserialize)]
struct RuleBody {
    #[serde(default)]
    include: Vec<SlotsBody>,
    #[serde(default)]
    exclude: Vec<SlotsBody>,
    #[serde(default)]
    lazy_members: bool,
}

#[derive(Debug, Deserialize)]
struct SlotsBody {
    #[serde(rename = "type")]
    event_type: Option<String>,
    state_key: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct FiltersBody {
    is_dm: Option<bool>,
    spaces: Option<BTreeSet<OwnedRoomId>>,
    is_encrypted: Option<bool>,
    #[serde(alias = "is_invite")]
    is_invited: Option<bool>,
    room_types: Option<BTreeSet<Option<String>>>,
    not_room_types: Option<BTreeSet<Option<String>>>,
    tags: Option<BTreeSet<String>>,
    not_tags: Option<BTreeSet<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ExtensionsBody {
    to_device: Option<ToDeviceBody>,
    e2ee: Option<Enabled>,
    account_data: Option<ScopeBody>,
    receipts: Option<ScopeBody>,
    typing: Option<ScopeBody>,
}

#[derive(Debug, Deserialize)]
struct Enabled {
    #[serde(default)]
    enabled: bool,
}

#[derive(Debug, Deserialize)]
struct ToDeviceBody {
    #[serde(default)]
    enabled: bool,
    since: Option<String>,
    limit: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct ScopeBody {
    #[serde(default)]
    enabled: bool,
    lists: Option<BTreeSet<String>>,
    rooms: Option<BTreeSet<String>>,
}

impl Body {
    /// The domain's form of a request, and its parameters.
    ///
    /// # Errors
    /// [`Refusal::InvalidParam`] when something is not within the limits.
    pub(super) fn read(
        self,
        query: Parameters,
        dialect: Dialect,
        user_id: &UserId,
    ) -> Result<(Parameters, SlidingRequest), Refusal> {
        let is_name = |name: &str| name.len() <= NAME_BYTES && !name.contains('\0');
        if !is_name(&self.conn_id) || !self.lists.keys().all(|name| is_name(name)) {
            let why = format!("names of connections and lists have up to {NAME_BYTES} bytes and no NUL");
            return Err(Refusal::InvalidParam(why));
        }
        if self.lists.len() > LISTS || self.room_subscriptions.len() > SUBSCRIPTIONS {
            let why = format!("a request has up to {LISTS} lists and {SUBSCRIPTIONS} rooms");
            return Err(Refusal::InvalidParam(why));
        }
        self.check_sizes()?;
        let lists = self.lists.into_iter();
        let lists = lists.map(|(name, list)| Ok((name, list.read(user_id)?)));
        let rooms = self.room_subscriptions.into_iter();
        let rooms = rooms.map(|(room_id, room)| Ok((room_id, room.read(user_id)?)));
        let request = SlidingRequest {
            conn_id: self.conn_id,
            lists: lists.collect::<Result<_, Refusal>>()?,
            subscriptions: rooms.collect::<Result<_, Refusal>>()?,
            extensions: self.extensions.read()?,
            dialect,
        };
        let parameters = Parameters {
            pos: query.pos.or(self.parameters.pos),
            timeout: query.timeout.or(self.parameters.timeout),
            set_presence: query.set_presence.or(self.parameters.set_presence),
        };
        Ok((parameters, request))
    }

    /// What is kept of a request, and compared with every room, has limits over all of it.
    fn check_sizes(&self) -> Result<(), Refusal> {
        let rooms = self.lists.values().map(|list| &list.room);
        let rooms = rooms.chain(self.room_subscriptions.values());
        let texts: Vec<usize> = rooms.flat_map(|room| room.required_state.lengths()).collect();
        if texts.len() > 2 * SLOTS || texts.iter().sum::<usize>() > SLOTS_BYTES {
            let why =
                format!("a request names up to {SLOTS} kinds of state, of {SLOTS_BYTES} bytes together");
            return Err(Refusal::InvalidParam(why));
        }
        if texts.iter().any(|length| *length > SLOT_BYTES) {
            let why = format!("types and state keys have up to {SLOT_BYTES} bytes");
            return Err(Refusal::InvalidParam(why));
        }
        let filters = self.lists.values().filter_map(|list| list.filters.as_ref());
        let spaces = filters.filter_map(|filters| filters.spaces.as_ref());
        if spaces.map(BTreeSet::len).sum::<usize>() > SPACES {
            return Err(Refusal::InvalidParam(format!(
                "a request names up to {SPACES} spaces"
            )));
        }
        Ok(())
    }
}

impl RequiredStateBody {
    /// Lengths of its types and state keys, in bytes; two for each slot.
    fn lengths(&self) -> Vec<usize> {
        match self {
            Self::Pairs(pairs) => pairs
                .iter()
                .flat_map(|(one, other)| [one.len(), other.len()])
                .collect(),
            Self::Rule(rule) => {
                let slots = rule.include.iter().chain(&rule.exclude);
                let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
                slots
                    .flat_map(|slots| [length(&slots.event_type), length(&slots.state_key)])
                    .collect()
            }
        }
    }
}

fn size(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

impl ListBody {
    fn read(self, user_id: &UserId) -> Result<List, Refusal> {
        let ranges = self.ranges.or(self.range.map(|range| vec![range]));
        if ranges.as_ref().is_some_and(|ranges| ranges.len() > RANGES) {
            return Err(Refusal::InvalidParam(format!("a list has up to {RANGES} ranges")));
        }
        let range = |(from, to)| (size(from), size(to));
        let filters = self.filters.unwrap_or_default();
        Ok(List {
            ranges: ranges.map(|ranges| ranges.into_iter().map(range).collect()),
            config: self.room.read(user_id)?,
            filters: Filters {
                is_dm: filters.is_dm,
                spaces: filters.spaces,
                is_encrypted: filters.is_encrypted,
                is_invited: filters.is_invited,
                // An empty list is no choice in the older form.
                room_types: filters.room_types.filter(|types| !types.is_empty()),
                not_room_types: filters.not_room_types.unwrap_or_default(),
                tags: filters.tags,
                not_tags: filters.not_tags.unwrap_or_default(),
            },
        })
    }
}

impl RoomBody {
    fn read(self, user_id: &UserId) -> Result<RoomConfig, Refusal> {
        let rule = match self.required_state {
            RequiredStateBody::Pairs(pairs) => rule_of(pairs, user_id),
            RequiredStateBody::Rule(rule) => Rule {
                include: rule.include.into_iter().map(slots).collect(),
                exclude: rule.exclude.into_iter().map(slots).collect(),
                lazy_members: rule.lazy_members,
            },
        };
        Ok(RoomConfig::new(
            size(self.timeline_limit),
            RequiredState::from(rule),
        ))
    }
}

fn slots(body: SlotsBody) -> Slots {
    Slots {
        event_type: body.event_type,
        state_key: body.state_key,
    }
}

/// The older form: pairs of type and state key, in which `*` is any, `$ME` the user, and `$LAZY` stands for who speaks.
fn rule_of(pairs: Vec<(String, String)>, user_id: &UserId) -> Rule {
    let mut rule = Rule::default();
    let any_or = |text: String| Some(text).filter(|text| text != "*");
    for (event_type, state_key) in pairs {
        let state_key = match state_key.as_str() {
            "$LAZY" => {
                rule.lazy_members = true;
                continue;
            }
            "$ME" => Some(user_id.to_string()),
            _ => any_or(state_key),
        };
        rule.include.insert(Slots {
            event_type: any_or(event_type),
            state_key,
        });
    }
    rule
}

impl ExtensionsBody {
    fn read(self) -> Result<Extensions, Refusal> {
        let to_device = self.to_device.filter(|wanted| wanted.enabled);
        let since = to_device.as_ref().and_then(|wanted| wanted.since.as_deref());
        // A token that is not of this server acknowledges nothing.
        let since = since.and_then(|since| since.parse().ok());
        Ok(Extensions {
            to_device: to_device.map(|wanted| ToDevice {
                since,
                limit: wanted.limit.map(size),
            }),
            e2ee: self.e2ee.is_some_and(|wanted| wanted.enabled),
            account_data: scope(self.account_data)?,
            receipts: scope(self.receipts)?,
            typing: scope(self.typing)?,
        })
    }
}

/// The rooms that an extension is wanted of; `*` stands for all that are asked for by themselves.
fn scope(body: Option<ScopeBody>) -> Result<Option<Scope>, Refusal> {
    let Some(body) = body.filter(|body| body.enabled) else {
        return Ok(None);
    };
    let rooms = body.rooms.filter(|rooms| !rooms.contains("*"));
    let room =
        |room: String| OwnedRoomId::try_from(room).map_err(|error| Refusal::invalid(error.to_string()));
    let rooms = rooms.map(|rooms| rooms.into_iter().map(room).collect::<Result<_, _>>());
    Ok(Some(Scope {
        lists: body.lists.filter(|lists| !lists.contains("*")),
        rooms: rooms.transpose()?,
    }))
}
