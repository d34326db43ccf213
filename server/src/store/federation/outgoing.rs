//! What the log holds for a peer beside room events: messages to devices, changed device lists, receipts.
//!
//! Of device lists and receipts only the newest counts, so they are read from what is current and nothing is kept for a
//! peer. Only messages are ([`super::peer_messages`]).

use maru_protocol::cursor::{Place, Position};
use ruma::{OwnedRoomId, OwnedUserId, ServerName};

use super::peer_messages::PeerMessage;
use crate::store::StoreError;
use crate::store::engine::{Row, query};
use crate::store::federation::FederationTables;
use crate::store::rooms::receipts::Receipt;

/// One thing that a peer is to hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForPeer {
    /// A message to one of its users' devices.
    Message(PeerMessage),
    /// The devices or keys of this user, who shares a room with the peer, have changed.
    DeviceList(OwnedUserId),
    /// How far a user has read in a room that the peer is in.
    Receipt(OwnedRoomId, Receipt),
}

fn device_list(row: &Row) -> Result<(Position, ForPeer), StoreError> {
    let user_id = row.get::<String>(1)?.try_into();
    let user_id = user_id.map_err(|error| StoreError::corrupt("device_lists", error))?;
    Ok((Position(row.get(0)?), ForPeer::DeviceList(user_id)))
}

fn receipt(row: &Row) -> Result<(Position, ForPeer), StoreError> {
    let bad = |error: ruma::IdParseError| StoreError::corrupt("receipts", error);
    let room_id = row.get::<String>(1)?.try_into().map_err(bad)?;
    let receipt = Receipt {
        room: row.get(2)?,
        user_id: row.get::<String>(3)?.try_into().map_err(bad)?,
        receipt_type: row.get(4)?,
        thread: row.get(5)?,
        event_id: row.get::<String>(6)?.try_into().map_err(bad)?,
        place: Place(row.get(7)?),
        ts: row.get(8)?,
        own: true,
    };
    Ok((Position(row.get(0)?), ForPeer::Receipt(room_id, receipt)))
}

impl FederationTables {
    /// What a peer is to hear of beside events after a position and up to another, in log order, and the position up to
    /// which it is all. At most `limit` of each kind are read, and nothing where only events are new.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn others_for(
        &self,
        peer: &ServerName,
        after: Position,
        up_to: Position,
        limit: usize,
    ) -> Result<(Vec<(Position, ForPeer)>, Position), StoreError> {
        if after >= self.log.newest_for_peers() {
            return Ok((Vec::new(), up_to.max(after)));
        }
        let (messages, lists, receipts) = tokio::try_join!(
            self.messages_for(peer, after, up_to, limit),
            self.device_lists_for(peer, after, up_to, limit),
            self.receipts_for(peer, after, up_to, limit),
        )?;
        let messages: Vec<_> = messages
            .into_iter()
            .map(|(position, message)| (position, ForPeer::Message(message)))
            .collect();
        let mut reached = up_to.max(after);
        let mut all = Vec::new();
        for kind in [messages, lists, receipts] {
            if let Some((last, _)) = kind.last().filter(|_| kind.len() >= limit) {
                reached = reached.min(*last);
            }
            all.extend(kind);
        }
        all.retain(|(position, _)| *position <= reached);
        all.sort_by_key(|(position, _)| *position);
        Ok((all, reached))
    }

    /// Users of this server who share a room with a peer and whose devices changed. Costs grow with the changes.
    async fn device_lists_for(
        &self,
        peer: &ServerName,
        after: Position,
        up_to: Position,
        limit: usize,
    ) -> Result<Vec<(Position, ForPeer)>, StoreError> {
        let rows = query(
            "SELECT d.position, d.user_id FROM device_lists AS d \
             WHERE d.own = 1 AND d.position > $2 AND d.position <= $3 AND ( \
               SELECT 1 FROM memberships AS m JOIN interests AS i ON i.room = m.room \
               WHERE m.user_id = d.user_id AND m.membership = 'join' \
                 AND i.server_name = $1 AND i.to_position IS NULL LIMIT 1) IS NOT NULL \
             ORDER BY d.position LIMIT $4",
        );
        let rows = rows
            .bind(peer.as_str())
            .bind(after.0)
            .bind(up_to.0)
            .bind(i64::try_from(limit).unwrap_or(i64::MAX));
        rows.all(&self.readers).await?.iter().map(device_list).collect()
    }

    /// Public receipts of this server's users in the rooms that a peer is in. Costs grow with those rooms.
    async fn receipts_for(
        &self,
        peer: &ServerName,
        after: Position,
        up_to: Position,
        limit: usize,
    ) -> Result<Vec<(Position, ForPeer)>, StoreError> {
        let rows = query(
            "SELECT r.position, rooms.room_id, r.room, r.user_id, r.type, r.thread, r.event_id, r.place, r.ts \
             FROM interests AS i \
             JOIN receipts AS r ON r.room = i.room AND r.own = 1 AND r.type = 'm.read' \
               AND r.position > $2 AND r.position <= $3 \
             JOIN rooms ON rooms.nid = i.room \
             WHERE i.server_name = $1 AND i.to_position IS NULL ORDER BY r.position LIMIT $4",
        );
        let rows = rows
            .bind(peer.as_str())
            .bind(after.0)
            .bind(up_to.0)
            .bind(i64::try_from(limit).unwrap_or(i64::MAX));
        rows.all(&self.readers).await?.iter().map(receipt).collect()
    }
}
