//! Checks of PDUs before they are stored in the inbox: one that is malformed, or that its server has not signed, is
//! dropped here and takes no place in the inbox, where others of the room would wait behind it.

use std::collections::HashMap;
use std::sync::Arc;

use maru_protocol::event::{Event, VerifyError};
use maru_protocol::wire::log::Event as EventItem;
use ruma::{RoomId, ServerName};

use super::drop_counters::{DropCounters, Dropped};
use super::throttle::Throttle;
use super::verify::{EventVerifier, RoomFormat};
use crate::peers::dependencies::Dependencies;
use crate::refusal::Refusal;
use crate::rooms::Rooms;
use crate::store::federation::inbox::Arrived;

/// An event for the inbox.
pub(in crate::peers) struct Prechecked {
    /// As it came.
    pub(in crate::peers) arrived: Arrived,
    /// Verified, where that could be done before the room is looked at.
    pub(in crate::peers) event: Option<Arc<Event>>,
}

/// The event, if it is of a user of the server that sent it by its log.
pub(in crate::peers) fn of_sender(event: Arc<Event>, peer: &ServerName) -> Result<Arc<Event>, Dropped> {
    match event.sender.server_name() == peer {
        true => Ok(event),
        false => Err(Dropped::OtherServer),
    }
}

/// Whether an event may turn out to be good all the same, because others must have signed it too, whose records may come.
fn may_turn_out_good(why: &Dropped, peer: &ServerName) -> bool {
    matches!(why, Dropped::Verify(VerifyError::NoKnownSignature(signer)) if signer != peer)
}

/// The checks of what a log brings, before it is stored.
#[derive(Debug)]
pub(in crate::peers) struct Precheck {
    rooms: Arc<Rooms>,
    verifier: Arc<EventVerifier>,
    drops: Arc<DropCounters>,
    throttle: Arc<Throttle>,
}

impl Precheck {
    pub(in crate::peers) fn new(dependencies: &Dependencies, throttle: Arc<Throttle>) -> Self {
        Self {
            rooms: Arc::clone(&dependencies.rooms),
            verifier: Arc::clone(&dependencies.verifier),
            drops: Arc::clone(&dependencies.drops),
            throttle,
        }
    }

    /// Drops and counts the events of a peer's log that fail the checks that need no room, and answers the others in their
    /// order. Those of rooms that are not in memory are not looked at yet.
    ///
    /// # Errors
    /// Only when the server is ending.
    pub(in crate::peers) async fn check(
        &self,
        peer: &ServerName,
        items: Vec<EventItem>,
    ) -> Result<Vec<Prechecked>, Refusal> {
        let mut verified: HashMap<usize, Result<Arc<Event>, Dropped>> = HashMap::with_capacity(items.len());
        let mut rooms: HashMap<&RoomId, Vec<usize>> = HashMap::new();
        for (number, item) in items.iter().enumerate() {
            rooms.entry(&item.room_id).or_default().push(number);
        }
        for (room_id, numbers) in rooms {
            let Some(room) = self.rooms.repository.cache().named(room_id) else {
                continue;
            };
            let texts = numbers.iter().filter_map(|number| items.get(*number));
            let texts = texts.map(|item| item.json.clone()).collect();
            let events = self
                .verifier
                .verify_one_task(RoomFormat::of(&room), texts)
                .await?;
            verified.extend(numbers.into_iter().zip(events));
        }
        let mut sorted = Vec::with_capacity(items.len());
        for (number, item) in items.into_iter().enumerate() {
            let event = verified.remove(&number);
            let event = event.map(|event| event.and_then(|event| of_sender(event, peer)));
            let event = match event.transpose() {
                Ok(event) => event,
                Err(why) if may_turn_out_good(&why, peer) => None,
                Err(why) => {
                    tracing::debug!(%peer, %why, "a peer sent an event that is dropped");
                    self.drops.count(&why);
                    self.throttle.dropped(peer);
                    continue;
                }
            };
            let (room_id, json) = (item.room_id, item.json.into());
            sorted.push(Prechecked {
                arrived: Arrived { room_id, json },
                event,
            });
        }
        Ok(sorted)
    }
}
