//! Receipt of a page of a peer's log: everything in it is stored in one commit with the peer's cursor.

use std::sync::Arc;
use std::time::Duration;

use maru_protocol::cursor::LogId;
use maru_protocol::wire::log::{Cursor, LogItem};
use maru_protocol::wire::message::RoomExtremities;
use ruma::{OwnedEventId, ServerName};

use super::inbox_quota::InboxQuota;
use crate::clock::Clock;
use crate::peers::dependencies::Dependencies;
use crate::peers::edus::device_lists::DeviceListEdus;
use crate::peers::edus::receipts::ReceiptEdus;
use crate::peers::edus::to_device::ToDeviceEdus;
use crate::peers::inbound::inbox_quota::InboxQuotas;
use crate::peers::inbound::inbox_worker::InboxWorker;
use crate::peers::inbound::pdu_precheck::Precheck;
use crate::peers::inbound::throttle::Throttle;
use crate::receipts::Receipts;
use crate::refusal::Refusal;
use crate::store::Store;
use crate::store::federation::inbox::ReceivedLog;
use crate::store::log::Record;

/// How long a full inbox may hold up a peer before its connection is closed: less than the peer waits for an acknowledgement.
const INBOX_PATIENCE: Duration = Duration::from_secs(90);

/// How often a full inbox is looked at again.
const INBOX_LOOK: Duration = Duration::from_millis(200);

/// The parts that read what a log holds beside events.
#[derive(Debug)]
pub(in crate::peers) struct EduReaders {
    pub(in crate::peers) to_device: ToDeviceEdus,
    pub(in crate::peers) device_lists: DeviceListEdus,
    pub(in crate::peers) receipts: ReceiptEdus,
}

/// The receiver of peers' logs.
#[derive(Debug)]
pub(in crate::peers) struct LogReceiver {
    clock: Arc<Clock>,
    store: Arc<Store>,
    receipts: Arc<Receipts>,
    throttle: Arc<Throttle>,
    worker: Arc<InboxWorker>,
    precheck: Precheck,
    edus: EduReaders,
    quota: InboxQuota,
    quotas: InboxQuotas,
}

impl LogReceiver {
    pub(in crate::peers) fn new(
        dependencies: &Dependencies,
        receipts: Arc<Receipts>,
        throttle: Arc<Throttle>,
        worker: Arc<InboxWorker>,
        precheck: Precheck,
        edus: EduReaders,
        quota: InboxQuota,
    ) -> Self {
        Self {
            clock: Arc::clone(&dependencies.clock),
            store: Arc::clone(&dependencies.store),
            receipts,
            throttle,
            worker,
            precheck,
            edus,
            quota,
            quotas: InboxQuotas::default(),
        }
    }

    /// Begins to receive, perhaps after another node has.
    pub(in crate::peers) fn begin(&self) {
        self.quotas.forget();
    }

    /// Stores what a peer's log holds, and has it ingested.
    pub(in crate::peers) async fn receive(
        self: &Arc<Self>,
        peer: &ServerName,
        log_id: LogId,
        items: Vec<LogItem>,
        cursor: Cursor,
    ) -> Result<(), Refusal> {
        if let Some(pause) = self.throttle.pause(peer) {
            tokio::time::sleep(pause).await;
        }
        self.wait_for_quota(peer).await?;
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
        let mut records = self.edus.device_lists.records_of(peer, lists).await?;
        records.extend(self.edus.to_device.records_of(peer, messages).await?);
        records.extend(self.edus.receipts.records_of(peer, receipts).await?);
        let awaited: Vec<_> = records.iter().filter_map(awaited_event).collect();
        let received = ReceivedLog {
            log_id,
            cursor: cursor.to_vec(),
        };
        let sorted = self.precheck.check(peer, events).await?.into_iter();
        let (arrived, events): (Vec<_>, Vec<_>) = sorted.map(|sorted| (sorted.arrived, sorted.event)).unzip();
        let now = self.clock.now_ms();
        let receiving = self.store.log.receive(peer, received, arrived, records, now);
        let rows = receiving.rows();
        self.worker.remember(rows.iter().map(|row| row.nid).zip(events));
        let came = InboxQuota {
            events: rows.len() as u64,
            bytes: rows.iter().map(|row| row.arrived.json.len() as u64).sum(),
        };
        self.quotas.came(peer, came);
        self.worker.ingest(receiving).await?;
        // Some may have come while their receipts were being stored.
        self.receipts.settle(awaited).await?;
        self.worker.compare_all(peer, skipped);
        Ok(())
    }

    /// Waits until there is room in the inbox for more of a peer. Meanwhile nothing is acknowledged, so the peer's window
    /// holds it up, and nobody else.
    async fn wait_for_quota(&self, peer: &ServerName) -> Result<(), Refusal> {
        let has_room = |size: &InboxQuota| size.events <= self.quota.events && size.bytes <= self.quota.bytes;
        if self.quotas.at_most(peer).is_some_and(|size| has_room(&size)) {
            return Ok(());
        }
        let deadline = tokio::time::Instant::now() + INBOX_PATIENCE;
        loop {
            let (events, bytes) = self.store.federation.inbox_size(peer).await?;
            let size = InboxQuota { events, bytes };
            self.quotas.counted(peer, size);
            if has_room(&size) {
                return Ok(());
            }
            if tokio::time::Instant::now() >= deadline {
                return Err(Refusal::Unavailable("the inbox is full".into()));
            }
            tokio::time::sleep(INBOX_LOOK).await;
        }
    }
}

/// The event that a receipt waits for.
fn awaited_event(record: &Record) -> Option<OwnedEventId> {
    match record {
        Record::WaitingReceipt(receipt) => Some(receipt.event_id.clone()),
        _ => None,
    }
}
