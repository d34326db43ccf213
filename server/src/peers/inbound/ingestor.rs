//! Ingest of received events into rooms, with what follows for their servers.

use maru_protocol::destinations;
use std::sync::Arc;

use crate::identity::Identity;
use crate::peers::backfill::scheduler::BackfillQueue;
use crate::peers::dependencies::Dependencies;
use crate::peers::inbound::departed_servers::DepartedServers;
use crate::peers::rpc_client::RpcClient;
use crate::refusal::Refusal;
use crate::rooms::Room;
use crate::rooms::Rooms;
use crate::rooms::ingest::{Incoming, IngestResult};

/// The way of received events into a room, from the inbox and from gaps alike.
#[derive(Debug)]
pub(in crate::peers) struct Ingestor {
    identity: Arc<Identity>,
    rooms: Arc<Rooms>,
    rpc: Arc<RpcClient>,
    departed: Arc<DepartedServers>,
    queue: Arc<BackfillQueue>,
}

impl Ingestor {
    pub(in crate::peers) fn new(
        dependencies: &Dependencies,
        departed: Arc<DepartedServers>,
        queue: Arc<BackfillQueue>,
    ) -> Self {
        Self {
            identity: Arc::clone(&dependencies.identity),
            rooms: Arc::clone(&dependencies.rooms),
            rpc: Arc::clone(&dependencies.rpc),
            departed,
            queue,
        }
    }

    /// Takes events into a room. A server that is found to be in it is sent the forward extremities: what was sent while this server
    /// did not know of it was not meant for it. Where that is this server, what it missed meanwhile is fetched. One that
    /// says something and is not in it is noted as departed.
    ///
    /// # Errors
    /// Those of [`Ingest::ingest`](crate::rooms::Ingest::ingest).
    pub(in crate::peers) async fn take_in(
        &self,
        room: &Arc<Room>,
        events: Vec<Incoming>,
    ) -> Result<Vec<IngestResult>, Refusal> {
        // What is filled beside the inbox may bring the same events.
        let lock = self.rooms.ingest_locks.lock(&room.room_id).await;
        let known = Arc::clone(&room.head().servers);
        // By its log comes what a server has just said, also where that was fetched a moment before.
        let said = events
            .iter()
            .map(|incoming| incoming.inbox.map(|_| Arc::clone(&incoming.event)));
        let said: Vec<_> = said.collect();
        let taken = self.rooms.ingest.ingest(&lock, room, events).await?;
        let head = room.head();
        for (event, taken) in said.iter().zip(&taken) {
            if let (Some(event), Some(outcome)) = (event, taken.outcome())
                && destinations::is_stray(&head.servers, event.sender.server_name(), Some(outcome))
            {
                self.departed.note(event.sender.server_name(), room);
            }
        }
        let own = &self.identity.server_name;
        let came_in = !known.contains_key(own) && head.servers.contains_key(own);
        if room.take_new_gap() || came_in {
            // What is missing there is left to backfill.
            self.queue.add(&room.room_id);
        }
        destinations::found(&known, &head.servers).for_each(|name| self.rpc.announce_extremities(name));
        Ok(taken)
    }
}
