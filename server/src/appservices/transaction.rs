//! What a transaction holds (Application Service API, "Pushing events"; what is not specified yet, under the names of MSC2409,
//! MSC3202 and MSC4203 as well).

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use ruma::{OwnedRoomId, OwnedUserId};
use serde_json::{Map, Value, json};

use super::Sources;
use super::interest::{Picked, Picks};
use crate::appservice_registrations::Registration;
use crate::refusal::Refusal;
use crate::rooms::timeline::client_event_format::{Reader, Recency};
use crate::store::encryption::to_device::ToDevice;
use crate::store::rooms::events::StoredEvent;
use crate::store::rooms::receipts::Receipt;

/// A transaction with what was picked; none where that is nothing.
pub(super) async fn body(
    sources: &Sources,
    service: &Registration,
    picks: Picks,
) -> Result<Option<Bytes>, Refusal> {
    let events = events(sources, picks.events).await?;
    let Picks {
        receipts,
        to_device,
        device_lists,
        mut key_counts,
        ..
    } = picks;
    let is_empty = events.is_empty() && receipts.is_empty() && to_device.is_empty();
    if is_empty && device_lists.is_empty() && key_counts.is_empty() {
        return Ok(None);
    }
    let mut rest = Map::new();
    put_ephemeral(&mut rest, service, receipts.into_iter().map(receipt).collect());
    if !to_device.is_empty() {
        let messages: Vec<Value> = to_device.iter().filter_map(message).collect();
        put(&mut rest, "to_device", "de.sorunome.msc2409", json!(messages));
    }
    if service.encrypts {
        // Who reads a message that takes a key wants to know how many are left.
        let receivers = to_device
            .into_iter()
            .map(|message| (message.user_id, message.device_id));
        key_counts.extend(receivers);
        let lists = json!({ "changed": device_lists, "left": [] });
        put(&mut rest, "device_lists", "org.matrix.msc3202", lists);
        put_key_counts(&mut rest, sources, key_counts).await?;
    }
    write(sources, service, &events, &rest).await.map(Some)
}

/// A transaction with nothing but what passes.
pub(super) fn passing(service: &Registration, ephemeral: Vec<Value>) -> Bytes {
    let mut rest = Map::new();
    rest.insert("events".to_owned(), json!([]));
    put_ephemeral(&mut rest, service, ephemeral);
    Value::Object(rest).to_string().into()
}

/// Writes the events as clients read them, and what else there is behind them.
async fn write(
    sources: &Sources,
    service: &Registration,
    events: &[Arc<StoredEvent>],
    rest: &Map<String, Value>,
) -> Result<Bytes, Refusal> {
    let reader = Reader {
        user_id: &service.sender,
        device_id: None,
    };
    let format = &sources.rooms.client_events;
    let view = format.unsigned_data(reader, events, Recency::Live).await?;
    let mut out = "{\"events\":[".to_owned();
    for (at, stored) in events.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        view.write(&mut out, stored, None, true);
    }
    out.push(']');
    for (name, value) in rest {
        out.push_str(&format!(",{}:{value}", Value::from(&**name)));
    }
    out.push('}');
    Ok(out.into())
}

/// The events that were picked; those of rooms outside are read together.
async fn events(sources: &Sources, picked: Vec<Picked>) -> Result<Vec<Arc<StoredEvent>>, Refusal> {
    let outside = picked.iter().filter_map(|picked| match picked {
        Picked::Outside(nid) => Some(*nid),
        Picked::Live(_) => None,
    });
    let outside = sources
        .rooms
        .repository
        .events(&outside.collect::<Vec<_>>())
        .await?;
    let found = picked.into_iter().filter_map(|picked| match picked {
        Picked::Live(stored) => Some(stored),
        // One that has a place is given as what it is.
        Picked::Outside(nid) => outside.get(&nid).filter(|stored| stored.place.is_none()).cloned(),
    });
    Ok(found.collect())
}

/// A field under its name and the one that it was proposed under.
fn put(out: &mut Map<String, Value>, name: &str, prefix: &str, value: Value) {
    out.insert(format!("{prefix}.{name}"), value.clone());
    out.insert(name.to_owned(), value);
}

/// What passes, under the names that the service has asked for it by.
fn put_ephemeral(out: &mut Map<String, Value>, service: &Registration, ephemeral: Vec<Value>) {
    if ephemeral.is_empty() {
        return;
    }
    if service.ephemeral.unstable {
        out.insert("de.sorunome.msc2409.ephemeral".to_owned(), json!(ephemeral));
    }
    if service.ephemeral.stable {
        out.insert("ephemeral".to_owned(), json!(ephemeral));
    }
}

fn receipt((room_id, receipt): (OwnedRoomId, Receipt)) -> Value {
    let mut data = json!({ "ts": receipt.ts });
    if !receipt.thread.is_empty() {
        data["thread_id"] = json!(receipt.thread);
    }
    let content =
        json!({ receipt.event_id.as_str(): { receipt.receipt_type: { receipt.user_id.as_str(): data } } });
    json!({ "type": "m.receipt", "room_id": room_id, "content": content })
}

/// A message with the device that it is for.
fn message(message: &ToDevice) -> Option<Value> {
    let mut fields: Map<String, Value> = serde_json::from_str(&message.json).ok()?;
    fields.insert("to_user_id".to_owned(), json!(message.user_id));
    fields.insert("to_device_id".to_owned(), json!(message.device_id));
    Some(Value::Object(fields))
}

/// What the server has left of the keys of devices: two queries for all of them.
async fn put_key_counts(
    out: &mut Map<String, Value>,
    sources: &Sources,
    devices: HashSet<(OwnedUserId, String)>,
) -> Result<(), Refusal> {
    if devices.is_empty() {
        return Ok(());
    }
    let users: HashSet<String> = devices.iter().map(|(user_id, _)| user_id.to_string()).collect();
    let ids: HashSet<String> = devices.iter().map(|(_, device_id)| device_id.clone()).collect();
    let left = sources
        .store
        .encryption
        .key_counts_of(users.into_iter().collect(), ids.into_iter().collect());
    let (one_time, fallback) = left.await?;
    let mut counts: BTreeMap<OwnedUserId, BTreeMap<String, BTreeMap<String, i64>>> = BTreeMap::new();
    let mut unused: BTreeMap<OwnedUserId, BTreeMap<String, Vec<String>>> = BTreeMap::new();
    for (user_id, device_id) in &devices {
        let of_user = counts.entry(user_id.clone()).or_default();
        // Always named, because clients fill it up by that.
        of_user
            .entry(device_id.clone())
            .or_default()
            .insert("signed_curve25519".to_owned(), 0);
        let of_user = unused.entry(user_id.clone()).or_default();
        of_user.entry(device_id.clone()).or_default();
    }
    for ((user_id, device_id), algorithm, count) in one_time {
        let of_device = counts
            .get_mut(&user_id)
            .and_then(|devices| devices.get_mut(&device_id));
        if let Some(of_device) = of_device {
            of_device.insert(algorithm, count);
        }
    }
    for ((user_id, device_id), algorithm) in fallback {
        let of_device = unused
            .get_mut(&user_id)
            .and_then(|devices| devices.get_mut(&device_id));
        if let Some(of_device) = of_device {
            of_device.push(algorithm);
        }
    }
    let counts = json!(counts);
    // Bridges know it by three names.
    let old = "org.matrix.msc3202.device_one_time_key_counts";
    out.insert(old.to_owned(), counts.clone());
    put(out, "device_one_time_keys_count", "org.matrix.msc3202", counts);
    let unused = json!(unused);
    put(
        out,
        "device_unused_fallback_key_types",
        "org.matrix.msc3202",
        unused,
    );
    Ok(())
}
