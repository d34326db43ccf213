//! What this server asks others.

use std::sync::Arc;

use maru_federation::Pool;
use maru_federation::pool::{Answering, RequestError};
use maru_protocol::RoomVersion;
use maru_protocol::event::Event;
use maru_protocol::wire::answer::{Part, RefusedCode};
use maru_protocol::wire::limits::{MAX_ANSWER_BYTES, MAX_PART_BYTES};
use maru_protocol::wire::request::Call;
use ruma::{OwnedServerName, RoomId, ServerName, UserId};

use super::Peers;
use super::inbound::drop_counters::Dropped;
use crate::refusal::Refusal;

/// Parts of an answer that may hold no event, such as those with records alone.
pub(super) const SPARE_PARTS: usize = 100;

/// The way to other servers.
#[derive(Clone)]
pub(super) struct RpcClient(pub(super) Pool);

impl std::fmt::Debug for RpcClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Road")
    }
}

/// Which room's events an answer holds, and by which rules they are read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject<'a> {
    pub(super) room_id: &'a RoomId,
    pub(super) version: RoomVersion,
    pub(super) max_event_bytes: usize,
}

impl Peers {
    /// The way to a server that may be spoken with.
    ///
    /// # Errors
    /// [`Refusal::Forbidden`] for one that is kept out, and where this server does not federate.
    pub(super) fn road_to(&self, peer: &ServerName) -> Result<&RpcClient, Refusal> {
        self.check_allowed(peer)?;
        self.rpc_client.get().ok_or_else(|| {
            Refusal::forbidden("this server does not reach others: `federation_listen` is not set")
        })
    }

    /// Whether a server may be asked for somebody: no stranger makes this one dial whom he likes, so without an account only
    /// servers that are known here are asked.
    ///
    /// # Errors
    /// [`Refusal::MissingToken`] where one has to log in for that.
    pub fn check_asked_for(&self, asker: Option<&UserId>, server: &ServerName) -> Result<(), Refusal> {
        let may_ask = asker.is_some() || server == self.identity.name() || self.is_known(server);
        may_ask.then_some(()).ok_or(Refusal::MissingToken)
    }

    /// Whether a server is one of those that this one has to do with.
    pub(super) fn is_known(&self, server: &ServerName) -> bool {
        self.shares_a_room(server)
            || self.keyring.newest(server).is_some()
            || self.book.named().iter().any(|name| name == server)
    }

    /// Asks a peer.
    ///
    /// # Errors
    /// What the peer says, or that it cannot be reached.
    pub(super) async fn ask<C: Call>(&self, peer: &ServerName, call: C) -> Result<Answering<C>, Refusal> {
        let rpc_client = self.road_to(peer)?;
        rpc_client
            .0
            .request(peer, call)
            .await
            .map_err(|error| refusal(peer, error))
    }

    /// Asks a peer for what is told in one piece.
    ///
    /// # Errors
    /// What the peer says, or that it cannot be reached.
    pub(super) async fn ask_once<C: Call>(&self, peer: &ServerName, call: C) -> Result<C::Done, Refusal> {
        let answer = self.ask(peer, call).await?;
        answer.done().await.map_err(|error| refusal(peer, error))
    }

    /// Reads the events of an answer to its end, all of them into memory; those that do not verify are left out.
    pub(super) async fn read_events<C: Call>(
        &self,
        mut answer: Answering<C>,
        subject: Subject<'_>,
        most: usize,
    ) -> Result<(Vec<Arc<Event>>, C::Done), Refusal> {
        let peer = answer.peer().clone();
        let too_much = || {
            self.drops.count(&Dropped::TooMuch);
            Refusal::forbidden(format!("{peer} answers with too much"))
        };
        let mut events = Vec::new();
        // What is dropped counts, too: an answer ends some time, whatever it holds.
        let (mut left, mut bytes_left) = (most + SPARE_PARTS, MAX_ANSWER_BYTES);
        while let Some(part) = answer.part().await.map_err(|error| refusal(&peer, error))? {
            let bytes = bytes_of(&part).ok_or_else(too_much)?;
            left = left.checked_sub(part.events.len().max(1)).ok_or_else(too_much)?;
            bytes_left = bytes_left.checked_sub(bytes).ok_or_else(too_much)?;
            events.extend(self.verified_part(&peer, subject, part).await?);
        }
        let done = answer.done().await.map_err(|error| refusal(&peer, error))?;
        Ok((events, done))
    }

    /// Servers to ask about a room: the preferred ones first, then those that are in it, without this one.
    pub(super) fn candidates(
        &self,
        preferred: impl IntoIterator<Item = OwnedServerName>,
        room: Option<&crate::rooms::Room>,
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

/// The bytes of the events in a part; none where they are more than a part may have.
pub(super) fn bytes_of(part: &Part) -> Option<usize> {
    let bytes = part.events.iter().map(|json| json.len()).sum();
    (bytes <= MAX_PART_BYTES).then_some(bytes)
}

/// What a failed request is to the person who waits for it.
pub(super) fn refusal(peer: &ServerName, error: RequestError) -> Refusal {
    match error {
        RequestError::Refused(refused) => {
            let reason = refused.reason.to_string();
            match refused.code {
                RefusedCode::NotFound => Refusal::NotFound(reason),
                RefusedCode::Forbidden => Refusal::Forbidden(reason),
                RefusedCode::UnsupportedVersion => Refusal::UnsupportedRoomVersion(reason),
                RefusedCode::Invalid => Refusal::BadJson(reason),
                RefusedCode::TooLarge => Refusal::TooLarge(reason),
                _ => Refusal::Unavailable(format!("{peer}: {reason}")),
            }
        }
        error => Refusal::Unavailable(format!("{peer}: {error}")),
    }
}
