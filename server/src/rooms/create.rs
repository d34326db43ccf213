//! Creation of rooms (client-server API, "Creation").

pub(super) mod initial_state;

use std::sync::Arc;

use maru_protocol::canonical::Content;
use maru_protocol::cursor::{Place, Position};
use maru_protocol::event::Draft;
use maru_protocol::limits;
use maru_protocol::state::State;
use maru_protocol::version::RoomVersion;
use ruma::{OwnedRoomAliasId, OwnedUserId, RoomId};
use serde_json::{Map, Value};

use super::Room;
use super::discovery::aliases::check_may_make;
use crate::appservice_registrations::Registrations;
use crate::clock::Clock;
use crate::identity::Identity;
use crate::refusal::Refusal;
use crate::rooms::{Appender, Memberships};
use crate::store::Store;
use crate::store::accounts::member_profiles::People;
use crate::store::rooms::{NewAlias, NewRoom, RoomHead};

/// Most users that a new room may invite, and most events of its `initial_state`. More come one by one later.
pub(super) const MOST_AT_ONCE: usize = 1_000;

/// A ready-made set of rules for a new room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// Members invite members.
    PrivateChat,
    /// The same, and everybody invited has the creator's power.
    TrustedPrivateChat,
    /// Anybody may join.
    PublicChat,
}

/// A state event of a room that is being made.
#[derive(Clone, Debug)]
pub struct StateDraft {
    /// Its type.
    pub event_type: String,
    /// Its state key.
    pub state_key: String,
    /// Its content, a JSON object.
    pub content: Value,
}

impl StateDraft {
    /// A state event with this type, key and content.
    pub fn new(event_type: impl Into<String>, state_key: impl Into<String>, content: Value) -> Self {
        Self {
            event_type: event_type.into(),
            state_key: state_key.into(),
            content,
        }
    }
}

/// What somebody asks a new room to be.
#[derive(Clone, Debug)]
pub struct NewRoomRequest {
    /// Who makes it.
    pub creator: OwnedUserId,
    /// Its version.
    pub version: RoomVersion,
    /// Its rules.
    pub preset: Preset,
    /// More keys of the create event.
    pub creation_content: Map<String, Value>,
    /// Keys that replace those of the power levels event.
    pub power_level_content_override: Map<String, Value>,
    /// State events, set after the preset's.
    pub initial_state: Vec<StateDraft>,
    /// `m.room.name`.
    pub name: Option<String>,
    /// `m.room.topic`.
    pub topic: Option<String>,
    /// A name in the directory, which becomes the canonical alias.
    pub alias: Option<OwnedRoomAliasId>,
    /// Whether it is listed in the public directory.
    pub published: bool,
    /// Who is invited.
    pub invite: Vec<OwnedUserId>,
    /// Whether the invitations are for a direct conversation.
    pub is_direct: bool,
}

/// What a new room is to be, with everything decided.
pub(super) struct Plan {
    pub(super) creator: OwnedUserId,
    pub(super) version: RoomVersion,
    pub(super) create: Content,
    pub(super) state: Vec<StateDraft>,
    pub(super) alias: Option<OwnedRoomAliasId>,
    pub(super) published: bool,
}

/// The first events of a room, in order: the create event, then the rest.
pub(super) struct FirstEvents {
    pub(super) new_room: NewRoom,
    pub(super) version: RoomVersion,
    pub(super) max_event_bytes: usize,
    pub(super) drafts: Vec<Draft>,
    /// When the last of them is made: each is a millisecond after the one before.
    pub(super) last_made: u64,
    pub(super) alias: Option<NewAlias>,
}

/// The head of a room without events.
pub(super) fn empty_head(room: i64) -> RoomHead {
    RoomHead {
        room,
        extremities: [].into(),
        state: State::default(),
        servers: Arc::default(),
        first_place: Place(1),
        last_place: Place(0),
        depth: 0,
        joined: 0,
        invited: 0,
        position: Position::START,
    }
}

/// Creation of rooms.
#[derive(Debug)]
pub struct RoomCreation {
    pub(in crate::rooms) identity: Arc<Identity>,
    pub(in crate::rooms) clock: Arc<Clock>,
    pub(in crate::rooms) store: Arc<Store>,
    pub(in crate::rooms) appender: Arc<Appender>,
    pub(in crate::rooms) memberships: Arc<Memberships>,
    pub(in crate::rooms) services: Arc<Registrations>,
}

impl RoomCreation {
    /// Creates a room, with all its first events or not at all. Users of other servers are not invited yet.
    ///
    /// # Errors
    /// When the request contradicts itself or the rules, or the alias is taken.
    pub async fn create(&self, mut request: NewRoomRequest) -> Result<Arc<Room>, Refusal> {
        if request.invite.len().max(request.initial_state.len()) > MOST_AT_ONCE {
            return Err(Refusal::invalid(format!(
                "a new room may have at most {MOST_AT_ONCE} invitations and as many initial state events"
            )));
        }
        if let Some(alias) = &request.alias {
            check_may_make(&self.services, alias, &request.creator)?;
        }
        if let Some(alias) = &request.alias
            && self.store.rooms.room_of_alias(alias).await?.is_some()
        {
            return Err(Refusal::RoomInUse(format!("the alias {alias} is taken")));
        }
        request.invite.sort_unstable();
        request.invite.dedup();
        request.invite.retain(|user_id| *user_id != request.creator);
        let local = request.invite.iter().filter(|id| self.identity.is_local(id));
        let mut people = self.memberships.invitable(local).await?;
        people.extend(self.store.accounts.people([&*request.creator]).await?);
        let first = self.first_events(request, &people)?;
        self.appender.append_new_room(first).await
    }

    fn first_events(&self, request: NewRoomRequest, people: &People) -> Result<FirstEvents, Refusal> {
        self.draft_events(Plan {
            create: initial_state::create_content(&request)?,
            state: initial_state::after_create(&request, people)?,
            version: request.version,
            creator: request.creator,
            alias: request.alias,
            published: request.published,
        })
    }

    /// Numbers a new room and drafts its events.
    pub(in crate::rooms) fn draft_events(&self, plan: Plan) -> Result<FirstEvents, Refusal> {
        let now = self.clock.now_ms();
        let nid = self.store.log.next_nid();
        let named = RoomId::new_v1(&self.identity.server_name);
        let room_id = (!plan.version.room_id_is_hash()).then(|| named.clone());
        let mut made = now.saturating_sub(1);
        let mut draft = |event_type: String, state_key: String, content: Content| Draft {
            room_id: room_id.clone(),
            sender: plan.creator.clone(),
            event_type: event_type.into(),
            state_key: Some(state_key.into()),
            content,
            redacts: None,
            origin_server_ts: {
                made += 1;
                made
            },
        };
        let max_event_bytes = limits::max_event_bytes(&plan.create);
        let mut drafts = Vec::with_capacity(plan.state.len() + 1);
        drafts.push(draft("m.room.create".to_owned(), String::new(), plan.create));
        for state in plan.state {
            let content = Content::of(&state.content).map_err(|error| Refusal::BadJson(error.to_string()))?;
            drafts.push(draft(state.event_type, state.state_key, content));
        }
        Ok(FirstEvents {
            new_room: NewRoom {
                nid,
                // Replaced by the real id where that is the hash of the create event.
                room_id: named,
                version: plan.version.as_str().to_owned(),
                published: plan.published,
                created_at: i64::try_from(now).unwrap_or(i64::MAX),
            },
            version: plan.version,
            max_event_bytes,
            drafts,
            last_made: made,
            alias: plan.alias.map(|alias| NewAlias {
                alias,
                room: nid,
                creator: plan.creator.clone(),
            }),
        })
    }
}
