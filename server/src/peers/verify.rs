//! The checks of a received event that need no room: form, signatures, hash (server-server specification, "Checks
//! performed on receipt of a PDU", 1 to 3).

use std::sync::Arc;

use maru_protocol::RoomVersion;
use maru_protocol::event::Event;
use ruma::RoomId;

use super::Peers;
use super::dropped::Dropped;

impl Peers {
    /// Reads and verifies an event of a room. Costs a signature check, about 40 µs.
    pub(super) fn verify(
        &self,
        json: &str,
        room_id: &RoomId,
        version: RoomVersion,
        max_event_bytes: usize,
    ) -> Result<Arc<Event>, Dropped> {
        let sent_at = sent_at(json);
        let received = Event::receive(json, version, max_event_bytes, |server_name, key_id| {
            self.keyring.event_key(server_name, key_id, sent_at)
        })?;
        if received.event.room_id != room_id {
            return Err(Dropped::OtherRoom);
        }
        Ok(Arc::new(received.event))
    }
}

/// When the event says it was sent; signed by the key that this decides about.
fn sent_at(json: &str) -> u64 {
    #[derive(serde::Deserialize)]
    struct Sent {
        origin_server_ts: u64,
    }
    serde_json::from_str::<Sent>(json).map_or(u64::MAX, |sent| sent.origin_server_ts)
}
