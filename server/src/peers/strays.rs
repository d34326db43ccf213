//! Servers that go on in a room which they have left by this server's account, and do not know it: they were restored from
//! a backup that is older than that. They are told the event with which they went.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use maru_protocol::wire::message::RoomExtremities;
use ruma::{OwnedRoomId, OwnedServerName, ServerName};

use super::Peers;
use crate::refusal::Refusal;
use crate::rooms::Room;
use crate::store::events::Direction;

/// Most that are remembered until they are told; of the others it is noted again when they say something more.
const MOST: usize = 1_000;

/// Who is to be told of which room.
#[derive(Debug, Default)]
pub(super) struct Strays(Mutex<BTreeSet<(OwnedServerName, OwnedRoomId)>>);

impl Strays {
    fn add(&self, peer: &ServerName, room: &Room) {
        let mut strays = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if strays.len() < MOST {
            strays.insert((peer.to_owned(), room.room_id.clone()));
        }
    }

    fn take(&self, peer: &ServerName) -> Vec<OwnedRoomId> {
        let mut strays = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (of_peer, others) = std::mem::take(&mut *strays)
            .into_iter()
            .partition(|(name, _)| name == peer);
        *strays = others;
        let of_peer: BTreeSet<(OwnedServerName, OwnedRoomId)> = of_peer;
        of_peer.into_iter().map(|(_, room_id)| room_id).collect()
    }
}

impl Peers {
    /// Notes that a peer takes part in a room that it is not in, and has it told.
    pub(super) fn note_stray(&self, peer: &ServerName, room: &Room) {
        self.strays.add(peer, room);
        if let Some(road) = self.road.get() {
            road.0.owe_extremities(peer);
        }
    }

    /// The events with which a peer went from rooms that it goes on in, where it ever was there.
    ///
    /// # Errors
    /// When the database fails.
    pub(super) async fn ends_for(&self, peer: &ServerName) -> Result<Vec<RoomExtremities>, Refusal> {
        let mut ends = Vec::new();
        for room_id in self.strays.take(peer) {
            let Some(room) = self.present(&room_id).await? else {
                continue;
            };
            let Some(ended) = self.store.interest_ended(room.nid, peer).await? else {
                continue;
            };
            let place = self.store.place_at(room.nid, ended).await?;
            let end = self
                .store
                .timeline(room.nid, place, Direction::Forward, 1)
                .await?;
            if self.rooms.admits(&room, peer).await? {
                ends.extend(end.first().map(|end| RoomExtremities {
                    room_id,
                    extremities: vec![end.event.id.clone()],
                }));
            }
        }
        Ok(ends)
    }
}
