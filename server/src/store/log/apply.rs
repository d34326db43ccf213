//! Applies a batch of log records to the tables: one bulk insert per table, whatever the batch holds.
//!
//! Where a batch holds several records for one row (a room's head, a user's receipt), the last one wins.

use std::collections::{HashMap, HashSet};

use super::{Committed, Record};
use crate::store::StoreError;
use crate::store::accounts::account_data;
use crate::store::encryption::to_device;
use crate::store::engine::{Connection, query};
use crate::store::federation::{destination_intervals, inbox, peer_messages};
use crate::store::rooms::{
    aliases, events, gaps, heads, memberships, notifications, receipts, room, shared_rooms, state, threads,
};

/// The records of one kind, with their positions.
macro_rules! pick {
    ($batch:expr, $kind:path) => {
        $batch.iter().filter_map(|committed| match &committed.record {
            $kind(item) => Some((committed.position.0, item)),
            _ => None,
        })
    };
}

/// Stores the records of a batch.
pub(super) async fn apply(connection: &mut Connection, batch: &[Committed]) -> Result<(), StoreError> {
    let new_rooms: Vec<_> = pick!(batch, Record::Room).map(|(_, room)| room).collect();
    if !new_rooms.is_empty() {
        room::store(connection, new_rooms).await?;
    }
    let states: Vec<_> = pick!(batch, Record::State).map(|(_, state)| state).collect();
    if !states.is_empty() {
        state::store(connection, states).await?;
    }
    let placed: Vec<i64> = pick!(batch, Record::Placed).map(|(_, nid)| nid.0).collect();
    if !placed.is_empty() {
        query("DELETE FROM events WHERE nid = ANY($1) AND place IS NULL")
            .bind(placed)
            .run(&mut *connection)
            .await?;
    }
    let new_events: Vec<_> = pick!(batch, Record::Event).collect();
    if !new_events.is_empty() {
        threads::count(connection, new_events.iter().map(|(_, stored)| *stored)).await?;
        notifications::note_sent(connection, new_events.iter().map(|(_, stored)| *stored)).await?;
        events::store(connection, new_events).await?;
    }
    let gaps: Vec<_> = pick!(batch, Record::Gap).map(|(_, change)| change).collect();
    if !gaps.is_empty() {
        gaps::store(connection, gaps).await?;
    }
    for (_, redaction) in pick!(batch, Record::Redaction) {
        events::redact(connection, redaction).await?;
    }
    let early: Vec<_> = pick!(batch, Record::EarlyRedaction)
        .map(|(_, early)| early)
        .collect();
    if !early.is_empty() {
        events::store_early_redactions(connection, early).await?;
    }
    let heads: HashMap<_, _> = pick!(batch, Record::Head)
        .map(|(position, head)| (head.room, (position, head)))
        .collect();
    if !heads.is_empty() {
        heads::store(connection, heads.into_values().collect()).await?;
    }
    memberships::store(connection, pick!(batch, Record::Membership)).await?;
    let transactions: Vec<_> = pick!(batch, Record::Transaction).collect();
    if !transactions.is_empty() {
        events::store_transactions(connection, transactions).await?;
    }
    let notified: Vec<_> = pick!(batch, Record::Notification).map(|(_, item)| item).collect();
    if !notified.is_empty() {
        notifications::store(connection, notified).await?;
    }
    let interests: Vec<_> = pick!(batch, Record::Interest).collect();
    if !interests.is_empty() {
        destination_intervals::store(connection, interests).await?;
    }
    let ingested: HashSet<i64> = pick!(batch, Record::Ingested).map(|(_, nid)| *nid).collect();
    let received: Vec<_> = pick!(batch, Record::Received)
        .map(|(_, received)| received)
        .collect();
    if !received.is_empty() {
        inbox::store(connection, received, &ingested).await?;
    }
    if !ingested.is_empty() {
        query("DELETE FROM inbox WHERE nid = ANY($1)")
            .bind(ingested.into_iter().collect::<Vec<_>>())
            .run(connection)
            .await?;
    }
    let aliases: Vec<_> = pick!(batch, Record::Alias).map(|(_, alias)| alias).collect();
    if !aliases.is_empty() {
        aliases::store(connection, aliases).await?;
    }
    // A receipt never moves back, whatever the order in which two devices sent theirs.
    let mut receipts: Vec<_> = pick!(batch, Record::Receipt).collect();
    receipts.sort_by_key(|(_, receipt)| receipt.place);
    let latest: HashMap<_, _> = receipts
        .into_iter()
        .map(|(position, receipt)| (receipt.key(), (position, receipt)))
        .collect();
    if !latest.is_empty() {
        receipts::store(connection, latest.into_values().collect()).await?;
    }
    let data: HashMap<_, _> = pick!(batch, Record::AccountData)
        .map(|(position, d)| ((&d.user_id, d.room, &d.data_type), (position, d)))
        .collect();
    if !data.is_empty() {
        account_data::store(connection, data.into_values().collect()).await?;
    }
    let messages: Vec<_> = pick!(batch, Record::ToDevice).collect();
    if !messages.is_empty() {
        to_device::store(connection, messages).await?;
    }
    for (position, change) in pick!(batch, Record::DeviceList) {
        if change.for_one {
            shared_rooms::store_for_one(connection, position, change).await?;
            continue;
        }
        query("INSERT INTO device_lists (user_id, position, own) VALUES ($1, $2, $3) ON CONFLICT (user_id) DO UPDATE SET position = excluded.position")
            .bind(change.user_id.as_str())
            .bind(position)
            .bind(change.own)
            .run(&mut *connection)
            .await?;
    }
    let waiting: HashMap<_, _> = pick!(batch, Record::WaitingReceipt)
        .map(|(_, receipt)| (receipt.key(), receipt))
        .collect();
    if !waiting.is_empty() {
        receipts::store_waiting(connection, waiting.into_values().collect()).await?;
    }
    let of_peers: Vec<_> = pick!(batch, Record::PeerMessage).collect();
    if !of_peers.is_empty() {
        peer_messages::store(connection, of_peers).await?;
    }
    let heard: HashMap<_, _> = pick!(batch, Record::HeardMessage)
        .map(|(_, heard)| (heard.key(), heard))
        .collect();
    if !heard.is_empty() {
        peer_messages::store_heard(connection, heard.into_values().collect()).await?;
    }
    for (_, delivered) in pick!(batch, Record::Delivered) {
        peer_messages::drop_delivered(connection, delivered).await?;
    }
    Ok(())
}
