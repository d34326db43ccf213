//! Receipts and typing, as events of a room (client-server API, "Receipts" and "Typing Notifications").

use std::collections::BTreeMap;

use ruma::UserId;
use serde_json::{Value, json};

use crate::store::rooms::receipts::Receipt;

/// The receipts that a user may see, as one event; none when there are none. Private receipts are for their owner.
pub(super) fn receipts(receipts: &[Receipt], reader: &UserId) -> Option<String> {
    let mut content: BTreeMap<&str, BTreeMap<&str, serde_json::Map<String, Value>>> = BTreeMap::new();
    for receipt in receipts {
        if receipt.receipt_type != "m.read" && receipt.user_id != reader {
            continue;
        }
        let mut data = json!({ "ts": receipt.ts });
        if !receipt.thread.is_empty() {
            data["thread_id"] = json!(receipt.thread);
        }
        let of_event = content.entry(receipt.event_id.as_str()).or_default();
        of_event
            .entry(&receipt.receipt_type)
            .or_default()
            .insert(receipt.user_id.to_string(), data);
    }
    if content.is_empty() {
        return None;
    }
    Some(json!({ "type": "m.receipt", "content": content }).to_string())
}

/// Who is typing, as an event.
pub(super) fn typing<'u>(users: impl IntoIterator<Item = &'u UserId>) -> String {
    let users: Vec<_> = users.into_iter().collect();
    json!({ "type": "m.typing", "content": { "user_ids": users } }).to_string()
}
