//! Coming into a room and leaving one through a server that is in it.

use std::sync::Arc;

use maru_protocol::auth::{self, StateSlot};
use maru_protocol::canonical::Content;
use maru_protocol::event::{Draft, Event, Links};
use maru_protocol::gap::work::Work;
use maru_protocol::limits::{LARGE_MAX_EVENT_BYTES, MAX_PREV_EVENTS, max_event_bytes};
use maru_protocol::version::RoomVersion;
use maru_protocol::wire::request::directory::Alias;
use maru_protocol::wire::request::membership::{MakeMembership, Membership, SendMembership, Template};
use ruma::{OwnedRoomId, OwnedServerName, RoomAliasId, RoomId, RoomOrAliasId, ServerName, UserId};
use serde_json::{Map, Value, json};

use super::Peers;
use super::ask::Subject;
use super::fetch::LARGEST_STATE;
use crate::refusal::Refusal;
use crate::rooms::Room;
use crate::rooms::ingest::Arrival;

/// Most servers that are asked for one room, one after the other.
const MOST_SERVERS: usize = 8;

/// A membership that a user of this server wants.
struct Wish<'a> {
    room_id: &'a RoomId,
    user_id: &'a UserId,
    membership: Membership,
    content: Map<String, Value>,
}

/// A template whose fields have been checked.
struct Checked {
    version: RoomVersion,
    max_event_bytes: usize,
    event: Arc<Event>,
}

impl Peers {
    /// Joins a user of this server to a room, here if this server is in it, else through another.
    ///
    /// # Errors
    /// What the room's rules say, or that no server in the room can be reached.
    pub async fn join(
        self: &Arc<Self>,
        name: &RoomOrAliasId,
        user_id: &UserId,
        via: Vec<OwnedServerName>,
        reason: Option<String>,
    ) -> Result<OwnedRoomId, Refusal> {
        let (room_id, via) = self.locate(name, via).await?;
        if let Some(room) = self.present(&room_id).await? {
            self.rooms.join(&room, user_id, reason).await?;
            return Ok(room_id);
        }
        let servers = self.who_knows(&room_id, user_id, via).await?;
        let content = self.rooms.join_content(user_id, reason, Map::new()).await?;
        let wish = Wish {
            room_id: &room_id,
            user_id,
            membership: Membership::Join,
            content,
        };
        let mut last = Refusal::not_found("no server is known that is in that room");
        for server in &servers {
            match self.join_through(server, &wish).await {
                Ok(()) => return Ok(room_id),
                Err(refusal) => last = refusal,
            }
        }
        Err(last)
    }

    /// Takes a user out of a room, or declines an invitation to one that this server is not in.
    ///
    /// # Errors
    /// What the room's rules say.
    pub async fn leave(
        self: &Arc<Self>,
        room_id: &RoomId,
        user_id: &UserId,
        reason: Option<String>,
    ) -> Result<(), Refusal> {
        if let Some(room) = self.present(room_id).await? {
            return self.rooms.leave(&room, user_id, reason).await;
        }
        let outside = self.rooms.membership_outside(room_id, user_id).await?;
        let Some((stored, version)) = outside else {
            return Err(Refusal::not_found("this server does not know that room"));
        };
        if !["invite", "knock"].contains(&&*stored.membership.membership) {
            return Ok(());
        }
        let servers = self.who_knows(&room_id.to_owned(), user_id, Vec::new()).await?;
        let mut content = Map::new();
        content.insert("membership".into(), json!("leave"));
        content.extend(reason.map(|reason| ("reason".to_owned(), json!(reason))));
        let wish = Wish {
            room_id,
            user_id,
            membership: Membership::Leave,
            content,
        };
        let mut last = Refusal::Unavailable("no server of that room can be reached".into());
        for server in &servers {
            match self.step_through(server, &wish, version).await {
                Ok(()) => return Ok(()),
                Err(refusal) => last = refusal,
            }
        }
        Err(last)
    }

    /// The room with this name if this server has a user in it.
    async fn present(&self, room_id: &RoomId) -> Result<Option<Arc<Room>>, Refusal> {
        match self.rooms.room(room_id).await {
            Ok(room) if room.head().servers.contains_key(&self.identity.server_name) => Ok(Some(room)),
            Ok(_) | Err(Refusal::NotFound(_)) => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }

    /// The id of a room and the servers that may help into it.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] for an alias that names nothing.
    pub async fn locate(
        &self,
        name: &RoomOrAliasId,
        mut via: Vec<OwnedServerName>,
    ) -> Result<(OwnedRoomId, Vec<OwnedServerName>), Refusal> {
        let alias = match <&RoomId>::try_from(name) {
            Ok(room_id) => return Ok((room_id.to_owned(), via)),
            Err(alias) => alias,
        };
        let (room_id, servers) = self.resolve_alias(alias).await?;
        via.extend(servers);
        Ok((room_id, via))
    }

    /// The room that an alias names, by this server or the one whose alias it is, with servers that are in it.
    ///
    /// # Errors
    /// [`Refusal::NotFound`], or that its server cannot be reached.
    pub async fn resolve_alias(
        &self,
        alias: &RoomAliasId,
    ) -> Result<(OwnedRoomId, Vec<OwnedServerName>), Refusal> {
        let server_name = alias.server_name();
        if server_name == self.identity.name() {
            let room = self.rooms.room_of_alias(alias).await?;
            let servers = room.head().servers.keys().cloned().collect();
            return Ok((room.room_id.clone(), servers));
        }
        let answer = self
            .ask(
                server_name,
                Alias {
                    alias: alias.to_owned(),
                },
            )
            .await?;
        let done = answer
            .done()
            .await
            .map_err(|error| super::ask::refusal(server_name, error))?;
        Ok((done.room_id, done.servers))
    }

    /// Servers to ask: those given, whoever invited the user, and the one that a room id names.
    async fn who_knows(
        &self,
        room_id: &OwnedRoomId,
        user_id: &UserId,
        via: Vec<OwnedServerName>,
    ) -> Result<Vec<OwnedServerName>, Refusal> {
        let mut preferred = Vec::new();
        if let Some((stored, _)) = self.rooms.membership_outside(room_id, user_id).await? {
            let nid = stored.membership.event;
            if let Some(event) = self.rooms.events(&[nid]).await?.remove(&nid) {
                preferred.push(event.event.sender.server_name().to_owned());
            }
        }
        preferred.extend(via);
        preferred.extend(room_id.server_name().map(ToOwned::to_owned));
        let room = self.rooms.room(room_id).await.ok();
        let mut candidates = self.candidates(preferred, room.as_deref());
        candidates.truncate(MOST_SERVERS);
        Ok(candidates)
    }

    async fn join_through(self: &Arc<Self>, server: &ServerName, wish: &Wish<'_>) -> Result<(), Refusal> {
        let checked = self.template(server, wish).await?;
        let call = SendMembership {
            room_id: wish.room_id.to_owned(),
            event: checked.event.json.clone().into(),
        };
        let answer = self.ask(server, call).await?;
        let subject = Subject {
            room_id: wish.room_id,
            version: checked.version,
            max_event_bytes: checked.max_event_bytes,
        };
        let (events, done) = self.read_events(answer, subject, LARGEST_STATE).await?;
        // The answer may carry more signatures on our event, and nothing else.
        let join = self
            .verify(
                &done.event,
                wish.room_id,
                checked.version,
                checked.max_event_bytes,
            )
            .map_err(|why| Refusal::forbidden(format!("{server} answers with a wrong event: {why}")))?;
        if join.id != checked.event.id {
            return Err(Refusal::forbidden(format!(
                "{server} answers with another event than was sent"
            )));
        }
        let room = self
            .rooms
            .arrive(Arrival {
                room_id: wish.room_id.to_owned(),
                version: checked.version,
                events,
                state: done.state,
                join,
            })
            .await?;
        self.wake_room(&room);
        let told = |work: &mut Work| work.told(server.to_owned(), done.extremities);
        self.work_on(room.room_id.clone(), told);
        Ok(())
    }

    /// Sends a leave or knock of a room that this server is not in, and remembers it once it is accepted.
    async fn step_through(
        &self,
        server: &ServerName,
        wish: &Wish<'_>,
        version: RoomVersion,
    ) -> Result<(), Refusal> {
        let checked = self.template(server, wish).await?;
        if checked.version != version {
            return Err(Refusal::forbidden("the room has another version than it had"));
        }
        let call = SendMembership {
            room_id: wish.room_id.to_owned(),
            event: checked.event.json.clone().into(),
        };
        let answer = self.ask(server, call).await?;
        answer
            .done()
            .await
            .map_err(|error| super::ask::refusal(server, error))?;
        let room_id = wish.room_id.to_owned();
        self.rooms
            .outside_membership(&room_id, version, checked.event, None)
            .await
    }

    /// Asks for a template and builds our own event from the fields that hold.
    async fn template(&self, server: &ServerName, wish: &Wish<'_>) -> Result<Checked, Refusal> {
        let call = MakeMembership {
            room_id: wish.room_id.to_owned(),
            user_id: wish.user_id.to_owned(),
            membership: wish.membership,
            versions: RoomVersion::ALL
                .iter()
                .filter_map(|version| maru_protocol::wire::bounded::Text::new(version.as_str()))
                .collect(),
        };
        let answer = self.ask(server, call).await?;
        let template = answer
            .done()
            .await
            .map_err(|error| super::ask::refusal(server, error))?;
        self.check_template(server, wish, template)
    }

    fn check_template(
        &self,
        server: &ServerName,
        wish: &Wish<'_>,
        template: Template,
    ) -> Result<Checked, Refusal> {
        let wrong =
            |what: &str| Refusal::forbidden(format!("{server} answers with a wrong template: {what}"));
        let version = RoomVersion::from_id(&template.version)
            .ok_or_else(|| Refusal::UnsupportedRoomVersion(template.version.to_string()))?;
        // Whose events these are is not known yet, so they cannot be verified; they only give ids and limits, and the
        // whole chain is verified with the answer to what we send.
        let parse = |json: &str| {
            let event = Event::parse(
                json,
                version,
                LARGE_MAX_EVENT_BYTES,
                maru_protocol::limits::MAX_JSON_DEPTH,
            );
            event
                .ok()
                .filter(|event| event.room_id == wish.room_id)
                .ok_or_else(|| wrong("an event of it is of another room, or none"))
        };
        let create = parse(&template.create)?;
        if !create.is_state_at("m.room.create", "") {
            return Err(wrong("its create event is none"));
        }
        let events = template
            .auth_events
            .iter()
            .map(|json| parse(json))
            .collect::<Result<Vec<_>, _>>()?;
        let mut content = wish.content.clone();
        if let (Membership::Join, Some(authoriser)) = (wish.membership, template.authorised_by) {
            content.insert("join_authorised_via_users_server".into(), json!(authoriser));
        }
        let content = Content::of(&content).map_err(|error| Refusal::BadJson(error.to_string()))?;
        let slots = auth::auth_slots(
            "m.room.member",
            wish.user_id,
            Some(wish.user_id.as_str()),
            &content,
            version,
        )
        .map_err(|denied| Refusal::forbidden(denied.to_string()))?;
        let named = events
            .iter()
            .chain((!version.room_id_is_hash()).then_some(&create))
            .filter(|event| StateSlot::of(event).is_some_and(|slot| slots.contains(&slot)));
        let mut auth_events: Vec<_> = named.map(|event| event.id.clone()).collect();
        auth_events.sort();
        auth_events.dedup();
        if template.prev_events.is_empty() || template.prev_events.len() > MAX_PREV_EVENTS {
            return Err(wrong("it names no previous events, or too many"));
        }
        let draft = Draft {
            room_id: Some(wish.room_id.to_owned()),
            sender: wish.user_id.to_owned(),
            event_type: "m.room.member".into(),
            state_key: Some(wish.user_id.as_str().into()),
            content,
            redacts: None,
            origin_server_ts: self.clock.now_ms(),
        };
        let links = Links {
            prev_events: template.prev_events,
            auth_events,
            depth: template.depth,
        };
        let max_event_bytes = max_event_bytes(&create.content);
        let event = self
            .rooms
            .build_for_others(draft, links, version, max_event_bytes)?;
        Ok(Checked {
            version,
            max_event_bytes,
            event: Arc::new(event),
        })
    }

    /// Wakes the peers of a room: something in it may be for them.
    pub(super) fn wake_room(&self, room: &Room) {
        if let Some(road) = self.road.get() {
            let head = room.head();
            let others = head
                .servers
                .keys()
                .filter(|name| **name != self.identity.server_name);
            others.for_each(|name| road.0.wake(name));
        }
    }
}
