//! Receipts of other servers' users, out of the words of the protocol.

use std::collections::BTreeSet;
use std::sync::Arc;

use maru_protocol::limits::MAX_ID_BYTES;
use maru_protocol::wire::log::Receipt;
use ruma::{OwnedRoomId, ServerName};

use crate::observe::metrics;
use crate::peers::dependencies::Dependencies;
use crate::peers::membership::local_rooms::LocalRooms;
use crate::receipts::Receipts;
use crate::receipts::{HeardReceipt, Thread};
use crate::refusal::Refusal;
use crate::rooms::Rooms;
use crate::store::log::Record;

/// The reader of receipts in peers' logs.
#[derive(Debug)]
pub(in crate::peers) struct ReceiptEdus {
    rooms: Arc<Rooms>,
    local: Arc<LocalRooms>,
    receipts: Arc<Receipts>,
}

impl ReceiptEdus {
    pub(in crate::peers) fn new(dependencies: &Dependencies, receipts: Arc<Receipts>) -> Self {
        Self {
            rooms: Arc::clone(&dependencies.rooms),
            local: Arc::clone(&dependencies.local),
            receipts,
        }
    }

    /// What a peer's receipts become. Those that are not the peer's to tell are refused, and so are those for rooms whose
    /// server ACL keeps the peer out.
    pub(in crate::peers) async fn records_of(
        &self,
        peer: &ServerName,
        receipts: Vec<Receipt>,
    ) -> Result<Vec<Record>, Refusal> {
        let before = receipts.len();
        let heard: Vec<_> = receipts
            .into_iter()
            .filter_map(|receipt| heard(peer, receipt))
            .collect();
        let heard = self.where_admitted(peer, heard).await?;
        metrics::PEER_ITEMS_REFUSED.add((before - heard.len()) as u64);
        self.receipts.judge(heard).await
    }

    /// Those for rooms that this server is in and that let the peer take part. Rooms and their ACLs are held in memory.
    async fn where_admitted(
        &self,
        peer: &ServerName,
        mut heard: Vec<HeardReceipt>,
    ) -> Result<Vec<HeardReceipt>, Refusal> {
        let rooms: BTreeSet<OwnedRoomId> = heard.iter().map(|heard| heard.room_id.clone()).collect();
        let mut admitting = BTreeSet::new();
        for room_id in rooms {
            if let Some(room) = self.local.present(&room_id).await?
                && self.rooms.repository.admits(&room, peer).await?
            {
                admitting.insert(room_id);
            }
        }
        heard.retain(|heard| admitting.contains(&heard.room_id));
        Ok(heard)
    }
}

fn heard(peer: &ServerName, receipt: Receipt) -> Option<HeardReceipt> {
    // What no identifier of an event is must not keep the rest of the peer's log from being stored.
    let is_id = receipt.event_id.as_str().len() <= MAX_ID_BYTES && !receipt.event_id.as_str().contains('\0');
    let is_theirs = receipt.user_id.server_name() == peer && &*receipt.receipt_type == "m.read";
    let thread = match receipt.thread.as_deref() {
        None => Thread::Unthreaded,
        Some("") => return None,
        Some(name) if name.contains('\0') => return None,
        Some(name) => Thread::named(name)?,
    };
    (is_theirs && is_id).then_some(HeardReceipt {
        room_id: receipt.room_id,
        user_id: receipt.user_id,
        event_id: receipt.event_id,
        thread,
        ts: i64::try_from(receipt.ts).ok()?,
    })
}
