//! What the pool of connections asks of this server.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use maru_federation::Homeserver;
use maru_federation::homeserver::{Claim, Failure, Finished, LogPage, Parts, Rejection};
use maru_protocol::cursor::LogId;
use maru_protocol::record::{SignedRecord, VerifiedRecord};
use maru_protocol::wire::CloseCode;
use maru_protocol::wire::answer::Refused;
use maru_protocol::wire::datagram::Datagram;
use maru_protocol::wire::log::{Cursor, LogItem};
use maru_protocol::wire::message::{Received, RoomExtremities};
use maru_protocol::wire::request::Request;
use ruma::{OwnedEventId, ServerName};

use super::Peers;
use super::identity::keyring::NotKept;
use super::inbound::inbox_quota::InboxQuota;
use crate::refusal::Refusal;
use crate::store::federation::inbox::ReceivedLog;
use crate::store::log::Record;

/// How long a full inbox may hold up a peer before its connection is closed: less than the peer waits for an acknowledgement.
const INBOX_PATIENCE: Duration = Duration::from_secs(90);

/// How often a full inbox is looked at again.
const INBOX_LOOK: Duration = Duration::from_millis(200);

/// The server as the pool sees it: shared, so that work can go on after a call has returned.
#[derive(Debug)]
pub(super) struct PoolAdapter {
    peers: Arc<Peers>,
    record: SignedRecord,
}

fn failure(refusal: impl Into<Refusal>) -> Failure {
    Failure(refusal.into().in_full())
}

fn rejection(not_kept: &NotKept) -> Rejection {
    let code = match not_kept {
        NotKept::Invalid(_) => CloseCode::NotProven,
        NotKept::Unproven(_) | NotKept::NotLookedUp(..) | NotKept::TooMany => CloseCode::Unavailable,
        NotKept::KeyChanged(_) => CloseCode::KeyChanged,
        NotKept::Conflict(_) => CloseCode::RecordConflict,
    };
    Rejection::new(code, not_kept.to_string())
}

impl PoolAdapter {
    /// The adapter of a server with a published record of its own.
    pub(super) fn new(peers: Arc<Peers>, record: SignedRecord) -> Self {
        Self { peers, record }
    }

    /// Keeps the record of a server at `address` that has proven to hold its TLS key.
    async fn keep(&self, record: &VerifiedRecord, address: Option<IpAddr>) -> Result<(), Rejection> {
        match self.peers.servers.keep_proven(record, address).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(not_kept)) => Err(rejection(&not_kept)),
            Err(refusal) => Err(Rejection::new(CloseCode::Unavailable, refusal.to_string())),
        }
    }
}

impl Homeserver for PoolAdapter {
    fn name(&self) -> &ServerName {
        self.peers.identity.name()
    }

    fn own_record(&self) -> SignedRecord {
        self.record.clone()
    }

    fn log_id(&self) -> LogId {
        self.peers.store.log.id()
    }

    fn keeps_connected(&self, peer: &ServerName) -> bool {
        self.peers.servers.sharing().contains(peer)
    }

    async fn judge(&self, claim: Claim) -> Result<(), Rejection> {
        let peers = &self.peers;
        if !peers.servers.is_allowed(&claim.name) {
            return Err(Rejection::new(
                CloseCode::Denied,
                "this server does not speak with yours",
            ));
        }
        let record = claim
            .record
            .verify()
            .map_err(|error| Rejection::new(CloseCode::NotProven, error.to_string()))?;
        if record.name != claim.name || record.tls_key != claim.tls_key {
            return Err(Rejection::new(
                CloseCode::NotProven,
                "the record is not of that name and connection",
            ));
        }
        if !record.is_current(peers.clock.now_ms()) {
            return Err(Rejection::new(
                CloseCode::RecordOutdated,
                "the record has expired",
            ));
        }
        let address = claim.address.map(|address| address.ip());
        self.keep(&record, address).await?;
        let newest = peers.servers.keyring().newest(&claim.name);
        if newest.is_some_and(|newest| newest.sequence > record.sequence) {
            return Err(Rejection::new(
                CloseCode::RecordOutdated,
                "a newer record of that server is known",
            ));
        }
        peers.servers.addresses().learn(&record);
        Ok(())
    }

    async fn heard_record(&self, peer: &ServerName, record: SignedRecord) -> Result<(), Rejection> {
        let verified = record
            .verify()
            .map_err(|error| Rejection::new(CloseCode::NotProven, error.to_string()))?;
        if verified.name != peer {
            return Err(Rejection::new(
                CloseCode::NotProven,
                "the record is of another server",
            ));
        }
        self.keep(&verified, None).await?;
        self.peers.servers.addresses().learn(&verified);
        Ok(())
    }

    async fn received(&self, peer: &ServerName) -> Result<Option<Received>, Failure> {
        let received = self
            .peers
            .store
            .federation
            .received_of(peer)
            .await
            .map_err(failure)?;
        Ok(received.and_then(|received| {
            Some(Received {
                log_id: received.log_id,
                cursor: Cursor::new(&received.cursor)?,
            })
        }))
    }

    async fn store(
        &self,
        peer: &ServerName,
        log_id: LogId,
        items: Vec<LogItem>,
        cursor: Cursor,
    ) -> Result<(), Failure> {
        self.peers
            .heard_log(peer, log_id, items, cursor)
            .await
            .map_err(failure)
    }

    async fn read_log(
        &self,
        peer: &ServerName,
        after: Option<Cursor>,
        max_items: usize,
        max_bytes: usize,
    ) -> Result<LogPage, Failure> {
        self.peers
            .page_for(peer, after, max_items, max_bytes)
            .await
            .map_err(failure)
    }

    async fn acknowledged(&self, peer: &ServerName, cursor: Cursor) -> Result<(), Failure> {
        self.peers.delivered(peer, &cursor).await.map_err(failure)
    }

    async fn extremities(&self, peer: &ServerName) -> Result<Vec<RoomExtremities>, Failure> {
        self.peers.extremities_for(peer).await.map_err(failure)
    }

    async fn heard_extremities(&self, peer: &ServerName, rooms: Vec<RoomExtremities>) {
        self.peers.compare_all(peer, rooms);
    }

    async fn answer(&self, peer: &ServerName, request: Request, parts: Parts) -> Result<Finished, Refused> {
        self.peers.answer_request(peer, request, parts).await
    }

    fn heard_datagram(&self, peer: &ServerName, datagram: Datagram) {
        self.peers.heard_datagram(peer, datagram);
    }

    fn connected(&self, peer: &ServerName, connected: bool) {
        self.peers.connection_changed(peer, connected);
    }
}

/// The event that a receipt waits for.
fn awaited_event(record: &Record) -> Option<OwnedEventId> {
    match record {
        Record::WaitingReceipt(receipt) => Some(receipt.event_id.clone()),
        _ => None,
    }
}

impl Peers {
    /// Stores what a peer's log holds, and has it ingested.
    async fn heard_log(
        self: &Arc<Self>,
        peer: &ServerName,
        log_id: LogId,
        items: Vec<LogItem>,
        cursor: Cursor,
    ) -> Result<(), Refusal> {
        if let Some(pause) = self.throttle.pause(peer) {
            tokio::time::sleep(pause).await;
        }
        self.room_in_inbox(peer).await?;
        let mut events = Vec::with_capacity(items.len());
        let mut skipped = Vec::new();
        let (mut messages, mut lists, mut receipts) = (Vec::new(), Vec::new(), Vec::new());
        for item in items {
            match item {
                LogItem::Event(event) => events.push(event),
                LogItem::Skipped(room) => skipped.push(RoomExtremities {
                    room_id: room.room_id,
                    extremities: room.extremities,
                }),
                LogItem::ToDevice(message) => messages.push(message),
                LogItem::DeviceList(change) => lists.push(change),
                LogItem::Receipt(receipt) => receipts.push(receipt),
            }
        }
        // A user whose devices changed is told of before the messages that need the new keys.
        let mut records = self.heard_device_lists(peer, lists).await?;
        records.extend(self.heard_messages(peer, messages).await?);
        records.extend(self.heard_receipts(peer, receipts).await?);
        let awaited: Vec<_> = records.iter().filter_map(awaited_event).collect();
        let received = ReceivedLog {
            log_id,
            cursor: cursor.to_vec(),
        };
        let sorted = self.sorted(peer, events).await?.into_iter();
        let (arrived, events): (Vec<_>, Vec<_>) = sorted.map(|sorted| (sorted.arrived, sorted.event)).unzip();
        let now = self.clock.now_ms();
        let receiving = self.store.log.receive(peer, received, arrived, records, now);
        let rows = receiving.rows();
        self.inbox.remember(rows.iter().map(|row| row.nid).zip(events));
        let came = InboxQuota {
            events: rows.len() as u64,
            bytes: rows.iter().map(|row| row.arrived.json.len() as u64).sum(),
        };
        self.inbox_sizes.came(peer, came);
        self.ingest(receiving).await?;
        // Some may have come while their receipts were being stored.
        self.receipts.settle(awaited).await?;
        self.compare_all(peer, skipped);
        Ok(())
    }

    /// Waits until there is room in the inbox for more of a peer. Meanwhile nothing is acknowledged, so the peer's window
    /// holds it up, and nobody else.
    async fn room_in_inbox(&self, peer: &ServerName) -> Result<(), Refusal> {
        let has_room = |size: &InboxQuota| {
            size.events <= self.settings.inbox_events && size.bytes <= self.settings.inbox_bytes
        };
        if self.inbox_sizes.at_most(peer).is_some_and(|size| has_room(&size)) {
            return Ok(());
        }
        let deadline = tokio::time::Instant::now() + INBOX_PATIENCE;
        loop {
            let (events, bytes) = self.store.federation.inbox_size(peer).await?;
            let size = InboxQuota { events, bytes };
            self.inbox_sizes.counted(peer, size);
            if has_room(&size) {
                return Ok(());
            }
            if tokio::time::Instant::now() >= deadline {
                return Err(Refusal::Unavailable("the inbox is full".into()));
            }
            tokio::time::sleep(INBOX_LOOK).await;
        }
    }

    /// Has what is missing up to where a peer's replicas end fetched in the background, each room by itself.
    fn compare_all(self: &Arc<Self>, peer: &ServerName, rooms: Vec<RoomExtremities>) {
        for room in rooms {
            self.work_on(room.room_id, |work| work.told(peer.to_owned(), room.extremities));
        }
    }
}
