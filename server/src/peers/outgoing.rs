//! The log as it is sent to a peer: this server's own events, read from the log within the peer's intervals, and in between, by
//! position, what else the log holds for the peer. One cursor counts for all of it.

use std::collections::HashSet;
use std::sync::Arc;

use maru_federation::homeserver::LogPage;
use maru_protocol::cursor::Position;
use maru_protocol::log_paging::{Page, Room, cursor_at, position_of};
use maru_protocol::wire::bounded::Text;
use maru_protocol::wire::log::{Cursor, DeviceList, Event, LogItem, Receipt, Skipped, ToDevice};
use maru_protocol::wire::message::RoomExtremities;
use ruma::ServerName;

use crate::live::RecentEvents;
use crate::peers::dependencies::Dependencies;
use crate::peers::inbound::departed_servers::DepartedServers;
use crate::refusal::Refusal;
use crate::rooms::Rooms;
use crate::store::Store;
use crate::store::federation::outgoing::ForPeer;
use crate::store::federation::peer_messages::Delivered;
use crate::store::rooms::events::StoredEvent;

/// The log as peers read it.
#[derive(Debug)]
pub(in crate::peers) struct OutgoingLog {
    store: Arc<Store>,
    rooms: Arc<Rooms>,
    tail: Arc<RecentEvents>,
    departed: Arc<DepartedServers>,
    backlog_events: usize,
}

impl OutgoingLog {
    pub(in crate::peers) fn new(
        dependencies: &Dependencies,
        tail: Arc<RecentEvents>,
        departed: Arc<DepartedServers>,
        backlog_events: usize,
    ) -> Self {
        Self {
            store: Arc::clone(&dependencies.store),
            rooms: Arc::clone(&dependencies.rooms),
            tail,
            departed,
            backlog_events,
        }
    }

    /// The next page of the log for a peer. Rooms with more waiting than the peer is meant to be sent are skipped: the
    /// peer is told where they end and fetches the rest.
    pub(super) async fn page_for(
        &self,
        peer: &ServerName,
        after: Option<Cursor>,
        max_items: usize,
        max_bytes: usize,
    ) -> Result<LogPage, Refusal> {
        let log_id = self.store.log.id();
        let after = after.and_then(|cursor| position_of(&cursor, log_id, self.store.log.position()));
        let after = after.unwrap_or(Position::START);
        let skipped = self.skip_backlog(peer, after).await?;
        let (waiting, complete) = self.waiting_for(peer, after, max_items.max(1)).await?;
        let room = Room {
            items: max_items,
            bytes: max_bytes,
        };
        let Page { items, reached } = Page::fill(after, skipped, waiting, complete, room);
        Ok(LogPage {
            more: reached < self.store.log.position(),
            items,
            cursor: cursor_at(log_id, reached),
        })
    }

    /// What waits for a peer after a position, in log order, and the position up to which it is all. At most `limit` of
    /// each kind.
    async fn waiting_for(
        &self,
        peer: &ServerName,
        after: Position,
        limit: usize,
    ) -> Result<(Vec<(Position, LogItem)>, Position), Refusal> {
        let (events, reached) = self.tail.events_for(&self.store, peer, after, limit).await?;
        let kept_out = self
            .kept_out(peer, events.iter().map(|stored| stored.room))
            .await?;
        // A server that is kept out is told so, and nothing more.
        let is_sent = |stored: &&Arc<StoredEvent>| {
            !kept_out.contains(&stored.room) || &*stored.event.event_type == "m.room.server_acl"
        };
        let (others, reached) = self
            .store
            .federation
            .others_for(peer, after, reached, limit)
            .await?;
        let events = events.iter().filter(is_sent).filter_map(|stored| {
            let item = LogItem::Event(Event {
                room_id: stored.event.room_id.clone(),
                json: stored.event.json.clone().into(),
            });
            Some((stored.position()?, item))
        });
        let others = others
            .into_iter()
            .filter_map(|(position, other)| Some((position, item_of(other)?)));
        let mut waiting: Vec<_> = events
            .filter(|(position, _)| *position <= reached)
            .chain(others)
            .collect();
        waiting.sort_by_key(|(position, _)| *position);
        Ok((waiting, reached))
    }

    /// Drops what was kept for a peer that has it now. Events are not: they are read from the rooms' own history.
    pub(super) async fn delivered(&self, peer: &ServerName, cursor: &Cursor) -> Result<(), Refusal> {
        let end = self.store.log.position();
        let Some(up_to) = position_of(cursor, self.store.log.id(), end) else {
            return Ok(());
        };
        let delivered = Delivered {
            server_name: peer.to_owned(),
            up_to,
        };
        Ok(self.store.federation.drop_delivered(delivered).await?)
    }

    /// Skips the rooms in which too much waits for a peer.
    async fn skip_backlog(&self, peer: &ServerName, after: Position) -> Result<Vec<LogItem>, Refusal> {
        let behind = self.store.log.position().0 - after.0;
        if behind <= i64::try_from(self.backlog_events).unwrap_or(i64::MAX) {
            return Ok(Vec::new());
        }
        let mut skipped = Vec::new();
        for waiting in self.store.federation.waiting_for(peer, after).await? {
            let threshold = self.backlog_events;
            if !self
                .store
                .federation
                .waits_more_than(waiting.room, after, threshold)
                .await?
            {
                continue;
            }
            let Some(room) = self.rooms.repository.room_by_nid(waiting.room).await? else {
                continue;
            };
            self.store
                .federation
                .skip_to(peer, waiting.room, self.store.log.position())
                .await?;
            self.tail.forget(peer);
            skipped.push(LogItem::Skipped(Skipped {
                room_id: room.room_id.clone(),
                extremities: room.head().extremities.iter().map(|tip| tip.id.clone()).collect(),
            }));
        }
        Ok(skipped)
    }

    /// Those of some rooms whose server ACL keeps a peer out.
    async fn kept_out(
        &self,
        peer: &ServerName,
        rooms: impl Iterator<Item = i64>,
    ) -> Result<HashSet<i64>, Refusal> {
        let nids: HashSet<i64> = rooms.collect();
        let nids: Vec<i64> = nids.into_iter().collect();
        let mut kept_out = HashSet::new();
        for (nid, room) in self.rooms.repository.rooms_by_nid(&nids).await? {
            if !self.rooms.repository.admits(&room, peer).await? {
                kept_out.insert(nid);
            }
        }
        Ok(kept_out)
    }

    /// Where this server's replicas of the rooms end that it shares with a peer, and with what the peer went from those that
    /// it has left without knowing it.
    pub(super) async fn extremities_for(&self, peer: &ServerName) -> Result<Vec<RoomExtremities>, Refusal> {
        let shared = self.store.federation.rooms_shared_with(peer).await?;
        let nids: Vec<i64> = shared.iter().map(|(nid, _)| *nid).collect();
        let rooms = self.rooms.repository.rooms_by_nid(&nids).await?;
        let kept_out = self.kept_out(peer, nids.iter().copied()).await?;
        let rooms = rooms.into_values().filter(|room| !kept_out.contains(&room.nid));
        let shared = rooms.map(|room| RoomExtremities {
            room_id: room.room_id.clone(),
            extremities: room.head().extremities.iter().map(|tip| tip.id.clone()).collect(),
        });
        Ok(shared
            .chain(self.departed.extremities_for_departed(peer).await?)
            .collect())
    }
}

/// What a peer hears, in the words of the protocol; none for what these have no room for, which is never stored.
fn item_of(other: ForPeer) -> Option<LogItem> {
    Some(match other {
        ForPeer::Message(message) => LogItem::ToDevice(ToDevice {
            message_id: Text::new(&message.message_id)?,
            sender: message.sender,
            user_id: message.user_id,
            device_id: message.device_id.into(),
            event_type: Text::new(&message.event_type)?,
            content: message.content.as_str().into(),
        }),
        ForPeer::DeviceList(user_id) => LogItem::DeviceList(DeviceList { user_id }),
        ForPeer::Receipt(room_id, receipt) => LogItem::Receipt(Receipt {
            room_id,
            user_id: receipt.user_id,
            receipt_type: Text::new(&receipt.receipt_type)?,
            event_id: receipt.event_id,
            thread: match receipt.thread.as_str() {
                "" => None,
                thread => Some(Text::new(thread)?),
            },
            ts: u64::try_from(receipt.ts).unwrap_or(0),
        }),
    })
}
