//! Which room a name means, and which servers may help into it.

use std::sync::Arc;

use maru_protocol::join_decision::heeds;
use maru_protocol::wire::request::directory::Alias;
use ruma::{
    OwnedRoomId, OwnedServerName, OwnedUserId, RoomAliasId, RoomId, RoomOrAliasId, ServerName, UserId,
};
use serde::Deserialize;

use crate::peers::Peers;
use crate::refusal::Refusal;
use crate::rooms::Room;
use crate::store::rooms::Membership;

/// Most servers that are asked for one room, one after the other.
const MOST_SERVERS: usize = 8;

/// Most servers that are named with an alias.
const MOST_NAMED: usize = 50;

impl Peers {
    /// The room with this id if it is here, whether this server has a user in it or has left it.
    pub(in crate::peers) async fn replica(&self, room_id: &RoomId) -> Result<Option<Arc<Room>>, Refusal> {
        match self.rooms.repository.room(room_id).await {
            Ok(room) => Ok(Some(room)),
            Err(Refusal::NotFound(_)) => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }

    /// The room with this id if this server has a user in it.
    pub(in crate::peers) async fn present(&self, room_id: &RoomId) -> Result<Option<Arc<Room>>, Refusal> {
        let room = self.replica(room_id).await?;
        Ok(room.filter(|room| room.head().servers.contains_key(&self.identity.server_name)))
    }

    /// Like [`Peers::present`], once nobody of this server is on the way into the room.
    pub(in crate::peers) async fn settled(&self, room_id: &RoomId) -> Result<Option<Arc<Room>>, Refusal> {
        if let Some(room) = self.present(room_id).await? {
            return Ok(Some(room));
        }
        let _turn = self.turns.take(room_id).await;
        self.present(room_id).await
    }

    /// A room of which a peer tells where it ends, once nobody of this server is on the way into it; none where that does not
    /// concern this server.
    pub(in crate::peers) async fn heeded(
        &self,
        room_id: &RoomId,
        peer: &ServerName,
    ) -> Result<Option<Arc<Room>>, Refusal> {
        if let Some(room) = self.settled(room_id).await? {
            return Ok(Some(room));
        }
        let Some(room) = self.replica(room_id).await? else {
            return Ok(None);
        };
        let was_in = self
            .store
            .federation
            .interest_ended(room.nid, peer)
            .await?
            .is_some();
        let is_heeded = heeds(self.identity.name(), Some(&room.head().servers), peer, was_in);
        Ok(is_heeded.then_some(room))
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
            let room = self.rooms.repository.room_of_alias(alias).await?;
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
    pub(in crate::peers) async fn who_knows(
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
