//! Fills a window from the user's inbox: no query at all.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use maru_protocol::cursor::{Place, Position};

use super::filter::Filter;
use super::shown::Shown;
use super::window::{JoinedWindow, Window};
use crate::accounts::Caller;
use crate::live::{Fresh, Item};
use crate::rooms::RoomCache;
use crate::store::accounts::account_data::GLOBAL;
use crate::store::rooms::events::StoredEvent;
use crate::store::rooms::receipts::Receipt;

/// The window that an inbox shows, or none where the database must be asked:
/// when the user's own memberships changed, when a room's timeline has a gap, or when a room, or what an event is without
/// its content, is no longer in memory.
pub(super) fn window(
    fresh: Fresh,
    since: Position,
    caller: &Caller,
    (shown, filter): (Shown<'_>, &Filter),
    table: &RoomCache,
) -> Option<Window> {
    let mut window = Window {
        since: Some(since),
        until: fresh.position,
        presence: fresh.presence,
        ..Window::default()
    };
    for delivery in fresh.deliveries {
        match delivery.item {
            Item::Event(stored) => {
                if is_own_membership(&stored, caller) || stored.follows_gap() {
                    return None;
                }
                let joined = room(&mut window.joined, stored.room, table)?;
                joined.unread = true;
                joined.timeline.push(stored);
            }
            Item::Sent(transaction) if transaction.device_id == caller.device_id => {
                window
                    .sent
                    .insert(transaction.event_id.clone(), transaction.transaction_id.clone());
            }
            Item::Sent(_) => {}
            Item::Notified(notification) => room(&mut window.joined, notification.room, table)?.unread = true,
            Item::Receipt(receipt) => {
                let joined = room(&mut window.joined, receipt.room, table)?;
                joined.unread |= receipt.user_id == caller.user_id;
                joined.receipts.push((*receipt).clone());
            }
            Item::AccountData(data) if data.room == GLOBAL => {
                window
                    .account_data
                    .retain(|older| older.data_type != data.data_type);
                window.account_data.push((*data).clone());
            }
            Item::AccountData(data) => {
                let joined = room(&mut window.joined, data.room, table)?;
                joined
                    .account_data
                    .retain(|older| older.data_type != data.data_type);
                joined.account_data.push((*data).clone());
            }
            Item::ToDevice(message) if message.device_id == caller.device_id => {
                window.to_device.push(message.json.clone());
            }
            Item::ToDevice(_) => {}
            Item::DeviceList(user_id) => window.device_lists.push(user_id),
        }
    }
    for nid in fresh.typing {
        room(&mut window.joined, nid, table)?.typing = true;
    }
    window.device_lists.sort_unstable();
    window.device_lists.dedup();
    // Account data may be of rooms that the user is not in.
    let is_meant = |joined: &JoinedWindow| {
        joined.room.is_joined(&caller.user_id) && filter.wants_room(joined.room.room_id.as_str())
    };
    window.joined.retain(|_, joined| is_meant(joined));
    for joined in window.joined.values_mut() {
        keep_furthest(&mut joined.receipts);
        take_redactions(joined, table)?;
        shown.cut(joined, filter.timeline_limit());
    }
    Some(window)
}

fn is_own_membership(stored: &StoredEvent, caller: &Caller) -> bool {
    stored.event.is_state_at("m.room.member", caller.user_id.as_str())
}

fn room<'w>(
    joined: &'w mut BTreeMap<i64, JoinedWindow>,
    nid: i64,
    table: &RoomCache,
) -> Option<&'w mut JoinedWindow> {
    match joined.entry(nid) {
        std::collections::btree_map::Entry::Occupied(entry) => Some(entry.into_mut()),
        std::collections::btree_map::Entry::Vacant(entry) => {
            Some(entry.insert(JoinedWindow::of(table.get(nid)?)))
        }
    }
}

/// Of several receipts of a user for one thing, only the furthest counts, whatever the order in which they came.
fn keep_furthest(receipts: &mut Vec<Receipt>) {
    if receipts.len() < 2 {
        return;
    }
    let mut furthest: HashMap<_, Place> = HashMap::new();
    for receipt in &*receipts {
        let place = furthest.entry(receipt.key()).or_default();
        *place = receipt.place.max(*place);
    }
    let is_furthest = |receipt: &Receipt| furthest.get(&receipt.key()) == Some(&receipt.place);
    let kept: Vec<bool> = receipts.iter().map(is_furthest).collect();
    let mut kept = kept.into_iter();
    receipts.retain(|_| kept.next() == Some(true));
}

/// An event that was redacted meanwhile is shown without its content: its redaction is in the same window.
fn take_redactions(joined: &mut JoinedWindow, table: &RoomCache) -> Option<()> {
    let is_redaction = |stored: &Arc<StoredEvent>| &*stored.event.event_type == "m.room.redaction";
    if joined.timeline.iter().any(is_redaction) {
        for stored in &mut joined.timeline {
            *stored = table.events.get(&stored.nid)?;
        }
    }
    Some(())
}

/// Of several events for one slot of the state, only the last counts.
pub(super) fn last_of_each_slot(events: Vec<Arc<StoredEvent>>) -> Vec<Arc<StoredEvent>> {
    let mut seen = std::collections::HashSet::new();
    let mut last: Vec<_> = events
        .into_iter()
        .rev()
        .filter(|stored| seen.insert((stored.event.event_type.clone(), stored.event.state_key.clone())))
        .collect();
    last.reverse();
    last
}
