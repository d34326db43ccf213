//! Coming into a room, asking to be invited, and leaving, for users of this server: here where this server is in the
//! room, else through a server that is.

use std::sync::Arc;

use maru_protocol::event::{Event, Links};
use maru_protocol::join_decision::{Standing, Step};
use maru_protocol::version::RoomVersion;
use maru_protocol::wire::message::RoomExtremities;
use maru_protocol::wire::nodes::{Compare, Note};
use maru_protocol::wire::request::membership::{Admission, Membership, SendMembership};
use ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, RoomId, RoomOrAliasId, ServerName, UserId};
use serde_json::{Map, json};

use super::invites::stripped;
use super::make_membership::{Built, Wish};
use super::to_the_end;
use crate::identity::Identity;
use crate::peers::backfill::missing_events::GapFiller;
use crate::peers::backfill::remote_state::StateFetcher;
use crate::peers::backfill::scheduler::BackfillQueue;
use crate::peers::dependencies::Dependencies;
use crate::peers::inbound::drop_counters::DropCounters;
use crate::peers::inbound::drop_counters::Dropped;
use crate::peers::inbound::inbox_worker::InboxWorker;
use crate::peers::inbound::verify::EventVerifier;
use crate::peers::membership::local_rooms::LocalRooms;
use crate::peers::membership::make_membership::MembershipBuilder;
use crate::peers::membership::room_resolution::RoomResolver;
use crate::peers::rpc_client::RpcClient;
use crate::refusal::Refusal;
use crate::rooms::Room;
use crate::rooms::Rooms;
use crate::rooms::ingest::{Incoming, IngestResult, JoinImport};
use crate::store::Store;
use crate::tasks::Tasks;

/// The failure to report of two: what a server says that knows the room is worth more than that another one cannot be
/// reached.
fn weightier(before: Refusal, now: Refusal) -> Refusal {
    match (&before, &now) {
        (Refusal::NotFound(_), _) => now,
        (_, Refusal::Unavailable(_) | Refusal::NotFound(_)) => before,
        _ => now,
    }
}

fn nobody_is_known() -> Refusal {
    Refusal::not_found("no server is known that is in that room")
}

/// Joins, knocks and leaves of users of this server, local or through other servers.
#[derive(Debug)]
pub struct RemoteMembership {
    identity: Arc<Identity>,
    store: Arc<Store>,
    rooms: Arc<Rooms>,
    local: Arc<LocalRooms>,
    resolver: Arc<RoomResolver>,
    rpc: Arc<RpcClient>,
    verifier: Arc<EventVerifier>,
    drops: Arc<DropCounters>,
    builder: Arc<MembershipBuilder>,
    states: Arc<StateFetcher>,
    gap_filler: Arc<GapFiller>,
    worker: Arc<InboxWorker>,
    queue: Arc<BackfillQueue>,
    tasks: Arc<Tasks>,
}

impl RemoteMembership {
    pub(in crate::peers) fn new(
        dependencies: &Dependencies,
        builder: Arc<MembershipBuilder>,
        states: Arc<StateFetcher>,
        gap_filler: Arc<GapFiller>,
        worker: Arc<InboxWorker>,
        queue: Arc<BackfillQueue>,
    ) -> Self {
        Self {
            identity: Arc::clone(&dependencies.identity),
            store: Arc::clone(&dependencies.store),
            rooms: Arc::clone(&dependencies.rooms),
            local: Arc::clone(&dependencies.local),
            resolver: Arc::clone(&dependencies.resolver),
            rpc: Arc::clone(&dependencies.rpc),
            verifier: Arc::clone(&dependencies.verifier),
            drops: Arc::clone(&dependencies.drops),
            builder,
            states,
            gap_filler,
            worker,
            queue,
            tasks: Arc::clone(&dependencies.tasks),
        }
    }

    /// Joins a user of this server to a room, here if this server is in it and may let the user in, else through another.
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
        let (room_id, via) = self.resolver.locate(name, via).await?;
        let (membership, user_id) = (Arc::clone(self), user_id.to_owned());
        to_the_end(&self.tasks, async move {
            membership.join_room(room_id, &user_id, via, reason).await
        })
        .await
    }

    async fn join_room(
        self: &Arc<Self>,
        room_id: OwnedRoomId,
        user_id: &UserId,
        via: Vec<OwnedServerName>,
        reason: Option<String>,
    ) -> Result<OwnedRoomId, Refusal> {
        if self.join_here(&room_id, user_id, &reason).await? {
            return Ok(room_id);
        }
        let _lock = self.local.lock_join(&room_id).await;
        // Somebody else of this server may have come in meanwhile.
        if self.join_here(&room_id, user_id, &reason).await? {
            return Ok(room_id);
        }
        let servers = self.resolver.candidates_for(&room_id, user_id, via).await?;
        if servers.is_empty() {
            return Err(nobody_is_known());
        }
        // So may somebody who asked another node.
        let hold = self.rpc.hold_join(&room_id).await?;
        let joined = match &hold {
            Some(_) if self.join_here(&room_id, user_id, &reason).await? => Ok(()),
            _ => self.join_through_any(&servers, &room_id, user_id, reason).await,
        };
        if let Some(hold) = hold {
            hold.end(self.store.log.position()).await;
        }
        joined.map(|()| room_id)
    }

    async fn join_through_any(
        self: &Arc<Self>,
        servers: &[OwnedServerName],
        room_id: &RoomId,
        user_id: &UserId,
        reason: Option<String>,
    ) -> Result<(), Refusal> {
        let wish = Wish {
            room_id,
            user_id,
            membership: Membership::Join,
            content: self
                .rooms
                .memberships
                .join_content(user_id, reason, Map::new())
                .await?,
        };
        let mut why = nobody_is_known();
        for server in servers {
            match self.join_through(server, &wish).await {
                Ok(()) => {
                    if let Some(room) = self.local.present(room_id).await? {
                        self.rooms.settings_carry_over.carry_over(&room, user_id).await;
                    }
                    return Ok(());
                }
                Err(refusal) => why = weightier(why, refusal),
            }
        }
        Err(why)
    }

    /// Joins without asking anybody; false where others have to be asked, because this server is not in the room or has
    /// nobody who could vouch for the user.
    async fn join_here(
        &self,
        room_id: &RoomId,
        user_id: &UserId,
        reason: &Option<String>,
    ) -> Result<bool, Refusal> {
        let Some(room) = self.local.present(room_id).await? else {
            return Ok(false);
        };
        match self.rooms.memberships.join(&room, user_id, reason.clone()).await {
            Ok(()) => Ok(true),
            Err(Refusal::UnableToAuthoriseJoin(_)) if room.head().servers.len() > 1 => Ok(false),
            Err(refusal) => Err(refusal),
        }
    }

    /// Asks to be invited.
    ///
    /// # Errors
    /// What the room's rules say, or that no server in the room can be reached.
    pub async fn knock(
        self: &Arc<Self>,
        name: &RoomOrAliasId,
        user_id: &UserId,
        via: Vec<OwnedServerName>,
        reason: Option<String>,
    ) -> Result<OwnedRoomId, Refusal> {
        let (room_id, via) = self.resolver.locate(name, via).await?;
        if let Some(room) = self.local.settled(&room_id).await? {
            self.rooms.memberships.knock(&room, user_id, reason).await?;
            return Ok(room_id);
        }
        let (membership, user_id) = (Arc::clone(self), user_id.to_owned());
        to_the_end(&self.tasks, async move {
            let servers = membership
                .resolver
                .candidates_for(&room_id, &user_id, via)
                .await?;
            let wish = Wish {
                room_id: &room_id,
                user_id: &user_id,
                membership: Membership::Knock,
                content: membership
                    .rooms
                    .memberships
                    .knock_content(&user_id, reason)
                    .await?,
            };
            membership.step_through_any(&servers, &wish).await?;
            Ok(room_id)
        })
        .await
    }

    /// Takes a user out of a room, or takes back a knock on, or declines an invitation to, one that this server is not in.
    /// Where nobody can be reached who would hear of it, it is so for the user at least.
    ///
    /// # Errors
    /// What the room's rules say.
    pub async fn leave(
        self: &Arc<Self>,
        room_id: &RoomId,
        user_id: &UserId,
        reason: Option<String>,
    ) -> Result<(), Refusal> {
        if let Some(room) = self.local.settled(room_id).await? {
            return self.rooms.memberships.leave(&room, user_id, reason).await;
        }
        let membership = Arc::clone(self);
        let (room_id, user_id) = (room_id.to_owned(), user_id.to_owned());
        to_the_end(&self.tasks, async move {
            membership.leave_outside(&room_id, &user_id, reason).await
        })
        .await
    }

    async fn leave_outside(
        &self,
        room_id: &RoomId,
        user_id: &UserId,
        reason: Option<String>,
    ) -> Result<(), Refusal> {
        let outside = self
            .rooms
            .remote_memberships
            .stored_membership(room_id, user_id)
            .await?;
        let Some((stored, version)) = outside else {
            return Err(Refusal::not_found("this server does not know that room"));
        };
        match &*stored.membership.membership {
            "invite" | "knock" => {}
            "ban" => return Err(Refusal::forbidden("you are banned from that room")),
            _ => return Ok(()),
        }
        let servers = self.resolver.candidates_for(room_id, user_id, Vec::new()).await?;
        let mut content = Map::new();
        content.insert("membership".into(), json!("leave"));
        content.extend(reason.map(|reason| ("reason".to_owned(), json!(reason))));
        let wish = Wish {
            room_id,
            user_id,
            membership: Membership::Leave,
            content,
        };
        match self.step_through_any(&servers, &wish).await {
            Ok(()) => Ok(()),
            Err(refusal) => {
                tracing::info!(%room_id, %refusal, "a user leaves a room without its servers");
                let nid = stored.membership.event;
                let last = self.rooms.repository.events(&[nid]).await?.remove(&nid);
                let last = last.ok_or_else(|| Refusal::internal("a membership without its event"))?;
                self.leave_alone(&wish, version, &last.event).await
            }
        }
    }

    async fn join_through(self: &Arc<Self>, server: &ServerName, wish: &Wish<'_>) -> Result<(), Refusal> {
        let built = self.builder.build(server, wish).await?;
        let call = SendMembership {
            room_id: wish.room_id.to_owned(),
            event: built.event.json.clone().into(),
        };
        let answer = self.rpc.request_stream(server, call).await?;
        let format = built.format();
        let number = self
            .rooms
            .numbers
            .of_version(&format.room_id.to_owned(), built.version)
            .await?;
        let done = self.states.read_state(answer, format, number).await?;
        let join = self.accepted(server, &built, &done.event)?;
        if self.goes_on(server, &join).await? {
            return Ok(());
        }
        let arrival = JoinImport {
            version: built.version,
            state: done.state,
            join,
        };
        let arrived = async {
            let lock = self.rooms.ingest_locks.lock(wish.room_id).await;
            self.rooms.join_importer.import(&lock, arrival).await
        };
        let room = arrived.await.inspect_err(|refusal| {
            if matches!(refusal, Refusal::Forbidden(_)) {
                self.drops.count(&Dropped::WrongAnswer);
            }
        })?;
        self.rpc.wake_room(&room);
        self.queue.add(&room.room_id);
        self.compare(server, room.room_id.clone(), done.extremities);
        Ok(())
    }

    /// Has fetched what is missing up to where a server's replica of a room ends, by the node that leads.
    fn compare(&self, server: &ServerName, room_id: OwnedRoomId, extremities: Vec<OwnedEventId>) {
        let room = RoomExtremities { room_id, extremities };
        let compare = |at| {
            let (peer, room) = (server.to_owned(), room.clone());
            Note::Compare(Compare { peer, room, at })
        };
        if !self.rpc.leave_to_leader(compare) {
            self.worker.compare_all(server, vec![room]);
        }
    }

    /// Our own event as a server in the room accepted it: it may carry more signatures, and nothing else is new.
    fn accepted(&self, server: &ServerName, built: &Built, json: &str) -> Result<Arc<Event>, Refusal> {
        let wrong = |what: String| {
            self.drops.count(&Dropped::WrongAnswer);
            Refusal::forbidden(format!("{server} answers with {what}"))
        };
        let sent = &built.event;
        let event = self
            .verifier
            .verify(json, built.format())
            .map_err(|why| wrong(format!("a wrong event: {why}")))?;
        if event.id != sent.id || event.content.as_str() != sent.content.as_str() {
            return Err(wrong("another event than was sent".to_owned()));
        }
        Ok(event)
    }

    /// Lets a room that is here go on to a join, after its history up to it. False where it is to begin with the state that the server sent.
    async fn goes_on(self: &Arc<Self>, server: &ServerName, join: &Arc<Event>) -> Result<bool, Refusal> {
        let room = self.local.replica(&join.room_id).await?;
        let standing = |room: &Room| Standing::of(self.identity.name(), Some(&room.head().servers));
        let before = room.as_ref().map_or(Standing::Unknown, |room| standing(room));
        let (Some(room), Step::GoOn) = (room, Step::first(before)) else {
            return Ok(false);
        };
        let mut incoming = Incoming::live(Arc::clone(join));
        (incoming.own, incoming.accepted) = (true, before == Standing::Outside);
        let taken = self.take_in_own(&room, server, incoming).await;
        match Step::after(before, standing(&room), taken.is_ok()) {
            Step::Begin => {
                let refusal = taken.err();
                tracing::info!(room = %room.room_id, ?refusal, "a room begins anew");
                Ok(false)
            }
            Step::Refused => {
                self.rpc.announce_extremities(server);
                let closed = || Refusal::forbidden("the room does not let the user in any more");
                Err(taken.err().unwrap_or_else(closed))
            }
            Step::Entered | Step::GoOn => Ok(true),
        }
    }

    /// Takes an event of ours that another server accepted into a room that is here, after all that it names.
    async fn take_in_own(
        self: &Arc<Self>,
        room: &Arc<Room>,
        server: &ServerName,
        incoming: Incoming,
    ) -> Result<(), Refusal> {
        let taken = {
            // The room's servers may be faster in telling of it.
            let lock = self.rooms.ingest_locks.lock(&room.room_id).await;
            self.rooms
                .ingest
                .ingest(&lock, room, vec![incoming.clone()])
                .await?
        };
        match taken.into_iter().next() {
            Some(IngestResult::Stored(verdict)) => {
                if let Some(denied) = verdict.reason {
                    return Err(Refusal::forbidden(denied.reason));
                }
            }
            Some(IngestResult::Lacks { .. }) => {
                let id = incoming.event.id.clone();
                self.gap_filler.fill_before(room, server, incoming).await?;
                if self
                    .store
                    .rooms
                    .event(&id)
                    .await?
                    .is_none_or(|stored| stored.place.is_none())
                {
                    return Err(Refusal::forbidden("what the room has come to does not allow it"));
                }
            }
            _ => {}
        }
        self.rpc.wake_room(room);
        Ok(())
    }

    async fn step_through_any(&self, servers: &[OwnedServerName], wish: &Wish<'_>) -> Result<(), Refusal> {
        let mut why = nobody_is_known();
        for server in servers {
            match self.step_through(server, wish).await {
                Ok(()) => return Ok(()),
                Err(refusal) => why = weightier(why, refusal),
            }
        }
        Err(why)
    }

    /// Sends a leave or knock of a room that this server is not in, and remembers it once it is accepted.
    async fn step_through(&self, server: &ServerName, wish: &Wish<'_>) -> Result<(), Refusal> {
        let built = self.builder.build(server, wish).await?;
        let call = SendMembership {
            room_id: wish.room_id.to_owned(),
            event: built.event.json.clone().into(),
        };
        let Admission { stripped_state, .. } = self.rpc.request(server, call).await?;
        let shown = (wish.membership == Membership::Knock).then(|| stripped(&stripped_state));
        let lock = self.rooms.ingest_locks.lock(wish.room_id).await;
        self.rooms
            .remote_memberships
            .store_membership(&lock, built.version, built.event, shown)
            .await
    }

    /// Lets a user out of an invitation or a knock that nobody else hears of, by an event that stays here.
    async fn leave_alone(
        &self,
        wish: &Wish<'_>,
        version: RoomVersion,
        last: &Arc<Event>,
    ) -> Result<(), Refusal> {
        let links = Links {
            prev_events: vec![last.id.clone()],
            auth_events: vec![last.id.clone()],
            depth: last.depth.saturating_add(1),
        };
        let event = self.rooms.remote_memberships.build_member_event(
            wish.room_id,
            wish.user_id,
            wish.content.clone(),
            links,
            version,
        )?;
        let lock = self.rooms.ingest_locks.lock(wish.room_id).await;
        self.rooms
            .remote_memberships
            .store_membership(&lock, version, Arc::new(event), None)
            .await
    }
}

#[cfg(test)]
mod tests {
    use crate::peers::membership::remote_join::*;

    #[test]
    fn a_room_s_own_words_count_more_than_silence() {
        let silent = || Refusal::Unavailable("x".into());
        let forbidden = || Refusal::forbidden("y");
        let nobody = Refusal::not_found("z");
        assert!(matches!(weightier(nobody, silent()), Refusal::Unavailable(_)));
        assert!(matches!(weightier(silent(), forbidden()), Refusal::Forbidden(_)));
        assert!(matches!(weightier(forbidden(), silent()), Refusal::Forbidden(_)));
    }
}
