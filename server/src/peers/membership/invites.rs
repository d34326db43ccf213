//! Both ends of an invitation between servers.

use std::sync::Arc;

use maru_protocol::RoomVersion;
use maru_protocol::event::countersign;
use maru_protocol::ingest::Outcome;
use maru_protocol::limits::LARGE_MAX_EVENT_BYTES;
use maru_protocol::visibility::Membership;
use maru_protocol::wire::answer::{Refused, RefusedCode};
use maru_protocol::wire::bounded::{Json, Text};
use maru_protocol::wire::request::membership::{Invite, Invited};
use ruma::{OwnedUserId, ServerName, UserId};
use serde_json::{Map, Value, json};

use super::to_the_end;
use crate::identity::Identity;
use crate::peers::dependencies::Dependencies;
use crate::peers::identity::known_servers::KnownServers;
use crate::peers::inbound::verify::EventVerifier;
use crate::peers::inbound::verify::RoomFormat;
use crate::peers::membership::local_rooms::LocalRooms;
use crate::peers::request_handlers::refused;
use crate::peers::rpc_client::RpcClient;
use crate::refusal::Refusal;
use crate::rooms::Rooms;
use crate::rooms::ingest::{Incoming, IngestResult};
use crate::rooms::{NewRoomRequest, Room};
use crate::tasks::Tasks;

/// Both ends of an invitation between servers.
#[derive(Debug)]
pub struct Invites {
    identity: Arc<Identity>,
    rooms: Arc<Rooms>,
    local: Arc<LocalRooms>,
    rpc: Arc<RpcClient>,
    servers: Arc<KnownServers>,
    verifier: Arc<EventVerifier>,
    tasks: Arc<Tasks>,
}

impl Invites {
    pub(in crate::peers) fn new(dependencies: &Dependencies) -> Self {
        Self {
            identity: Arc::clone(&dependencies.identity),
            rooms: Arc::clone(&dependencies.rooms),
            local: Arc::clone(&dependencies.local),
            rpc: Arc::clone(&dependencies.rpc),
            servers: Arc::clone(&dependencies.servers),
            verifier: Arc::clone(&dependencies.verifier),
            tasks: Arc::clone(&dependencies.tasks),
        }
    }

    /// Makes a room and invites those who are to be in it.
    ///
    /// # Errors
    /// When the request contradicts itself or the rules, or names users of servers that this one does not speak with. The
    /// room is made before users of other servers are invited: what becomes of that is in the program's log alone.
    pub async fn create_room(self: &Arc<Self>, request: NewRoomRequest) -> Result<Arc<Room>, Refusal> {
        let (creator, is_direct) = (request.creator.clone(), request.is_direct);
        let others = request.invite.iter().filter(|id| !self.identity.is_local(id));
        let others: Vec<OwnedUserId> = others.cloned().collect();
        for target in &others {
            self.rpc.check_open_to(target.server_name())?;
        }
        let room = self.rooms.creation.create(request).await?;
        let more = || {
            is_direct
                .then(|| ("is_direct".to_owned(), json!(true)))
                .into_iter()
        };
        for target in others {
            let content = self.rooms.memberships.invite_content(None, more());
            if let Err(refusal) = self.invite_with(&room, &creator, &target, content).await {
                tracing::warn!(room = %room.room_id, %target, %refusal, "not invited");
            }
        }
        Ok(room)
    }

    /// Invites somebody, of this server or another.
    ///
    /// # Errors
    /// What the rules say, or what the other server does.
    pub async fn invite(
        self: &Arc<Self>,
        room: &Arc<Room>,
        sender: &UserId,
        target: &UserId,
        reason: Option<String>,
    ) -> Result<(), Refusal> {
        if self.identity.is_local(target) {
            return self.rooms.memberships.invite(room, sender, target, reason).await;
        }
        let content = self.rooms.memberships.invite_content(reason, None);
        let (invites, room) = (Arc::clone(self), Arc::clone(room));
        let (sender, target) = (sender.to_owned(), target.to_owned());
        to_the_end(&self.tasks, async move {
            invites.invite_with(&room, &sender, &target, content).await
        })
        .await
    }

    /// Invites somebody of another server. One that is not in the room agrees before the invitation enters the room; one
    /// that is hears of it like of every event.
    async fn invite_with(
        self: &Arc<Self>,
        room: &Arc<Room>,
        sender: &UserId,
        target: &UserId,
        content: Map<String, Value>,
    ) -> Result<(), Refusal> {
        let server = target.server_name();
        if !self.rooms.repository.is_federated(room).await?
            || !self.rooms.repository.admits(room, server).await?
        {
            return Err(Refusal::forbidden(format!(
                "the room does not let users of {server} in"
            )));
        }
        let draft = self
            .rooms
            .memberships
            .invite_draft(room, sender, target, &content)?;
        let head = room.head();
        if head.servers.contains_key(server) {
            return self
                .rooms
                .appender
                .append(room, draft, &|_| Vec::new())
                .await
                .map(drop);
        }
        let event = self.rooms.remote_memberships.propose(room, draft).await?;
        let call = Invite {
            room_id: room.room_id.clone(),
            version: Text::cut(room.version.as_str()),
            event: event.json.clone().into(),
            stripped_state: self
                .rooms
                .summaries
                .stripped_state(room, sender)
                .await?
                .iter()
                .map(|json| Json::from(&**json))
                .collect(),
            records: self
                .servers
                .keyring()
                .records(head.servers.keys().map(AsRef::as_ref).take(16)),
        };
        let done = self.rpc.request(server, call).await?;
        let signed = self
            .verifier
            .verify(&done.event, RoomFormat::of(room))
            .map_err(|why| Refusal::forbidden(format!("{server} answers with a wrong event: {why}")))?;
        if signed.id != event.id || signed.content.as_str() != event.content.as_str() {
            return Err(Refusal::forbidden(format!(
                "{server} answers with another event than was sent"
            )));
        }
        let mut incoming = Incoming::live(signed);
        incoming.own = true;
        let taken = {
            let lock = self.rooms.ingest_locks.lock(&room.room_id).await;
            self.rooms.ingest.ingest(&lock, room, vec![incoming]).await?
        };
        match taken.first().and_then(IngestResult::outcome) {
            Some(Outcome::Accepted) => {
                self.rpc.wake_room(room);
                Ok(())
            }
            Some(_) => Err(Refusal::forbidden("the room has changed meanwhile, try again")),
            None => Err(Refusal::internal("an invitation that cannot be stored")),
        }
    }

    /// A peer invites a user of this server.
    pub(in crate::peers) async fn receive(
        &self,
        peer: &ServerName,
        invite: Invite,
    ) -> Result<Invited, Refused> {
        let invalid = |why: &str| Refused::new(RefusedCode::Invalid, why);
        let version = RoomVersion::from_id(&invite.version)
            .ok_or_else(|| Refused::new(RefusedCode::UnsupportedVersion, &invite.version))?;
        for record in &invite.records {
            let _ = self.servers.keep_if_known(record).await.map_err(refused)?;
        }
        let event = self
            .verifier
            .verify(
                &invite.event,
                RoomFormat::without_create(&invite.room_id, version),
            )
            .map_err(|why| invalid(&why.to_string()))?;
        if event.sender.server_name() != peer {
            return Err(Refused::new(
                RefusedCode::Forbidden,
                "the inviting user belongs to another server",
            ));
        }
        let target = event
            .state_key
            .as_deref()
            .and_then(|key| <&UserId>::try_from(key).ok());
        let is_invite = Membership::of(&event) == Some(Membership::Invite);
        let local = target.is_some_and(|user_id| self.identity.is_local(user_id));
        if &*event.event_type != "m.room.member" || !is_invite || !local {
            return Err(invalid("the event invites nobody of this server"));
        }
        if let Some(target) = target {
            self.rooms
                .memberships
                .ask_for_unknown(target)
                .await
                .map_err(refused)?;
        }
        let signed = countersign(
            &event,
            version,
            LARGE_MAX_EVENT_BYTES,
            self.identity.name(),
            &self.identity.signing_key,
        );
        let signed = Arc::new(signed.map_err(|error| invalid(&error.to_string()))?);
        let json = Json::from(Arc::clone(&signed.json));
        // In a room that this server is in, the event comes by the log and is judged like any other.
        if self
            .local
            .settled(&invite.room_id)
            .await
            .map_err(refused)?
            .is_none()
        {
            let lock = self.rooms.ingest_locks.lock(&invite.room_id).await;
            self.rooms
                .remote_memberships
                .store_membership(&lock, version, signed, Some(stripped(&invite.stripped_state)))
                .await
                .map_err(refused)?;
        }
        Ok(Invited { event: json })
    }
}

/// Stripped state of a peer as it is kept: a JSON array of those entries that clients can read.
pub(in crate::peers) fn stripped(events: &[Json]) -> String {
    let events: Vec<&str> = events
        .iter()
        .map(|json| &**json)
        .filter(|json| is_stripped(json))
        .collect();
    format!("[{}]", events.join(","))
}

/// Whether a text is one stripped state event: an object with the fields that clients read.
fn is_stripped(json: &str) -> bool {
    #[derive(serde::Deserialize)]
    struct Stripped {
        #[serde(rename = "type")]
        _type: String,
        #[serde(rename = "state_key")]
        _state_key: String,
        #[serde(rename = "sender")]
        _sender: ruma::OwnedUserId,
        #[serde(rename = "content")]
        _content: serde_json::Map<String, serde_json::Value>,
    }
    json.len() <= 65_536 && serde_json::from_str::<Stripped>(json).is_ok()
}
