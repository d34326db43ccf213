//! Which room a name means, and which servers may help into it.

use std::sync::Arc;

use maru_protocol::wire::request::directory::Alias;
use ruma::{OwnedRoomId, OwnedServerName, OwnedUserId, RoomAliasId, RoomId, RoomOrAliasId, UserId};
use serde::Deserialize;

use crate::identity::Identity;
use crate::peers::rpc_client::RpcClient;
use crate::refusal::Refusal;
use crate::rooms::Room;
use crate::rooms::Rooms;
use crate::store::rooms::Membership;

/// Most servers that are asked for one room, one after the other.
const MOST_SERVERS: usize = 8;

/// Most servers that are named with an alias.
const MOST_NAMED: usize = 50;

/// The resolver of room names, with candidates for a join.
#[derive(Debug)]
pub struct RoomResolver {
    identity: Arc<Identity>,
    rooms: Arc<Rooms>,
    rpc: Arc<RpcClient>,
}

impl RoomResolver {
    pub(in crate::peers) fn new(identity: Arc<Identity>, rooms: Arc<Rooms>, rpc: Arc<RpcClient>) -> Self {
        Self { identity, rooms, rpc }
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
            let room = self.rooms.aliases.room_of(alias).await?;
            let head = room.head();
            let own = &self.identity.server_name;
            let others = head.servers.keys().filter(|name| *name != own);
            let servers = [own].into_iter().chain(others).take(MOST_NAMED);
            return Ok((room.room_id.clone(), servers.cloned().collect()));
        }
        let call = Alias {
            alias: alias.to_owned(),
        };
        let done = self.rpc.request(server_name, call).await?;
        Ok((done.room_id, done.servers))
    }

    /// The servers of those whom a user was shown with an invitation or a knock, that of whoever invited or knocked first.
    pub(in crate::peers) async fn shown_with(
        &self,
        membership: &Membership,
    ) -> Result<Vec<OwnedServerName>, Refusal> {
        let nid = membership.event;
        let sender = self.rooms.repository.events(&[nid]).await?.remove(&nid);
        let sender = sender.map(|stored| stored.event.sender.server_name().to_owned());
        let shown = membership.stripped_state.as_deref().map(servers_in);
        Ok(sender.into_iter().chain(shown.unwrap_or_default()).collect())
    }

    /// Servers to ask: whoever invited the user, those given, those of the users that an invitation or a knock shows, the
    /// one that a room id names, and those that are or were in the room.
    pub(in crate::peers) async fn candidates_for(
        &self,
        room_id: &RoomId,
        user_id: &UserId,
        via: Vec<OwnedServerName>,
    ) -> Result<Vec<OwnedServerName>, Refusal> {
        let shown = match self
            .rooms
            .remote_memberships
            .stored_membership(room_id, user_id)
            .await?
        {
            Some((stored, _)) => self.shown_with(&stored.membership).await?,
            None => Vec::new(),
        };
        let inviter = shown.first().cloned().into_iter();
        let mut preferred: Vec<_> = inviter.chain(via).chain(shown).collect();
        preferred.extend(room_id.server_name().map(ToOwned::to_owned));
        let room = self.rooms.repository.room(room_id).await.ok();
        let mut candidates = self.candidates(preferred, room.as_deref());
        candidates.truncate(MOST_SERVERS);
        Ok(candidates)
    }

    /// Servers to ask about a room: the preferred ones first, then those that are in it, without this one.
    pub(in crate::peers) fn candidates(
        &self,
        preferred: impl IntoIterator<Item = OwnedServerName>,
        room: Option<&Room>,
    ) -> Vec<OwnedServerName> {
        let members = room
            .into_iter()
            .flat_map(|room| room.head().servers.keys().cloned().collect::<Vec<_>>());
        let mut candidates: Vec<OwnedServerName> = Vec::new();
        for name in preferred.into_iter().chain(members) {
            if name != self.identity.server_name && !candidates.contains(&name) {
                candidates.push(name);
            }
        }
        candidates
    }
}

/// The servers of the users in some stripped state.
fn servers_in(stripped_state: &str) -> Vec<OwnedServerName> {
    #[derive(Deserialize)]
    struct Stripped {
        sender: OwnedUserId,
    }
    let stripped: Vec<Stripped> = serde_json::from_str(stripped_state).unwrap_or_default();
    stripped
        .into_iter()
        .map(|event| event.sender.server_name().to_owned())
        .collect()
}
