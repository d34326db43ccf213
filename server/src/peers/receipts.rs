//! Receipts of other servers' users, out of the words of the protocol.

use maru_protocol::wire::log::Receipt;
use ruma::ServerName;

use super::Peers;
use crate::observe::metrics;
use crate::receipts::{HeardReceipt, Thread};
use crate::refusal::Refusal;
use crate::store::log::Record;

impl Peers {
    /// What a peer's receipts become. Those that are not the peer's to tell are refused.
    pub(super) async fn heard_receipts(
        &self,
        peer: &ServerName,
        receipts: Vec<Receipt>,
    ) -> Result<Vec<Record>, Refusal> {
        let before = receipts.len();
        let heard: Vec<_> = receipts
            .into_iter()
            .filter_map(|receipt| heard(peer, receipt))
            .collect();
        metrics::PEER_ITEMS_REFUSED.add((before - heard.len()) as u64);
        self.receipts.judge(heard).await
    }
}

fn heard(peer: &ServerName, receipt: Receipt) -> Option<HeardReceipt> {
    let is_theirs = receipt.user_id.server_name() == peer && &*receipt.receipt_type == "m.read";
    let thread = match receipt.thread.as_deref() {
        None => Thread::Unthreaded,
        Some("") => return None,
        Some(name) => Thread::named(name)?,
    };
    is_theirs.then_some(HeardReceipt {
        room_id: receipt.room_id,
        user_id: receipt.user_id,
        event_id: receipt.event_id,
        thread,
        ts: i64::try_from(receipt.ts).ok()?,
    })
}
