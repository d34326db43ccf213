//! Events as one reader's client sees them: the shared JSON with this reader's `unsigned` around it (client-server API,
//! "Room event format" and "Aggregations of child events").
//!
//! [`ClientEventFormat::unsigned_data`] looks up what a whole page of events needs in a constant number of queries; [`UnsignedData::write`] then
//! writes each event without asking anybody.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use maru_protocol::canonical::write_text;
use maru_protocol::state::EventNid;
use maru_protocol::visibility::Membership;
use ruma::{EventId, OwnedEventId, UserId};

use crate::clock::Clock;
use crate::refusal::Refusal;
use crate::rooms::{Aggregations, RoomRepository, Visibility};
use crate::store::Store;
use crate::store::rooms::events::StoredEvent;

/// Who reads.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    /// The user.
    pub user_id: &'a UserId,
    /// The device, which is told its own transaction ids.
    pub device_id: Option<&'a str>,
}

/// Where the events of a view come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recency {
    /// They have just become durable, or they are state: nothing relates to them, and who sent them knows by
    /// [`UnsignedData::sent_as`]. Costs no query, except for redactions and for a replaced state event that is not in memory.
    Live,
    /// The reader is told of all that relates to them anyway: transaction ids are looked up, relations are not.
    Followed,
    /// They may be old: relations and transaction ids are looked up too.
    Stored,
}

/// An event that its reader may see.
#[derive(Clone, Debug)]
pub struct VisibleEvent {
    /// The event.
    pub stored: Arc<StoredEvent>,
    /// The reader's membership at the event, changes by the event included; none where it is not told.
    pub membership: Option<Membership>,
}

/// Data of a page of events that differs per reader, for `unsigned` and the form of redacted events.
#[derive(Debug, Default)]
pub struct UnsignedData {
    now_ms: u64,
    /// State events that events of the page replaced.
    replaced: HashMap<EventNid, Arc<StoredEvent>>,
    /// Redaction events that the reader may see, by their ids.
    redactions: HashMap<OwnedEventId, Arc<StoredEvent>>,
    /// The reader's own device's transaction ids, by event id.
    transactions: HashMap<String, String>,
    /// `m.relations`, by event id: the text of a JSON object.
    pub(in crate::rooms) relations: HashMap<OwnedEventId, String>,
}

/// Lookup of what events need to be written for one reader.
#[derive(Debug)]
pub struct ClientEventFormat {
    pub(in crate::rooms) clock: Arc<Clock>,
    pub(in crate::rooms) store: Arc<Store>,
    pub(in crate::rooms) repository: Arc<RoomRepository>,
    pub(in crate::rooms) visibility: Arc<Visibility>,
    pub(in crate::rooms) aggregations: Arc<Aggregations>,
}

impl ClientEventFormat {
    /// Looks up what writing these events for `reader` needs: at most a handful of queries, however many events.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn unsigned_data<'e>(
        &self,
        reader: Reader<'_>,
        events: impl IntoIterator<Item = &'e Arc<StoredEvent>> + Send,
        recency: Recency,
    ) -> Result<UnsignedData, Refusal> {
        let events: Vec<_> = events.into_iter().collect();
        let mut view = UnsignedData {
            now_ms: self.clock.now_ms(),
            ..UnsignedData::default()
        };
        let replaced: Vec<_> = events.iter().filter_map(|stored| stored.replaces).collect();
        view.replaced = self.repository.events(&replaced).await?;
        view.redactions = self.redactions_of(reader, &events).await?;
        if recency == Recency::Live {
            return Ok(view);
        }
        let transactions = self.own_transactions(reader, &events);
        if recency == Recency::Followed {
            view.transactions = transactions.await?;
            return Ok(view);
        }
        let counts = self.aggregations.relation_counts(reader, &events);
        let (transactions, counts) = tokio::try_join!(transactions, counts)?;
        view.transactions = transactions;
        self.aggregations
            .bundle_counted(&mut view, reader, &events, counts)
            .await?;
        Ok(view)
    }

    async fn own_transactions(
        &self,
        reader: Reader<'_>,
        events: &[&Arc<StoredEvent>],
    ) -> Result<HashMap<String, String>, Refusal> {
        let Some(device_id) = reader.device_id else {
            return Ok(HashMap::new());
        };
        let own = events
            .iter()
            .filter(|stored| stored.event.sender == reader.user_id);
        let positions = own.filter_map(|stored| Some(stored.position()?.0)).collect();
        Ok(self
            .store
            .rooms
            .transaction_ids(reader.user_id, device_id, positions)
            .await?)
    }

    /// The events that redacted some of these, those that the reader may see: who has left is not told what was done
    /// and why since.
    async fn redactions_of(
        &self,
        reader: Reader<'_>,
        events: &[&Arc<StoredEvent>],
    ) -> Result<HashMap<OwnedEventId, Arc<StoredEvent>>, Refusal> {
        let ids = events.iter().filter_map(|stored| stored.redacted_by.as_ref());
        let ids: Vec<_> = ids.map(ToString::to_string).collect();
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        let redactions = self.store.rooms.events_by_id(ids).await?;
        let redactions = self
            .visibility
            .visible_anywhere(reader.user_id, redactions)
            .await?;
        Ok(redactions
            .into_iter()
            .map(|stored| (stored.event.id.clone(), stored))
            .collect())
    }
}

impl UnsignedData {
    /// The time that ages of events are counted to, in milliseconds since 1970.
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// Names the transaction under which the reader's device sent an event.
    pub fn sent_as(&mut self, event_id: &EventId, transaction_id: &str) {
        self.transactions
            .insert(event_id.to_string(), transaction_id.to_owned());
    }

    /// Appends an event. `room_id` is left out where the answer around it names the room.
    pub fn write(
        &self,
        out: &mut String,
        stored: &StoredEvent,
        membership: Option<Membership>,
        with_room_id: bool,
    ) {
        let relations = self.relations.get(&stored.event.id).map(String::as_str);
        stored.event.write_client_with(out, with_room_id, |out| {
            self.write_unsigned(out, stored, membership, relations);
        });
    }

    /// Appends an event that stands inside another one's `m.relations`, with these relations of its own.
    pub(in crate::rooms) fn write_child(
        &self,
        out: &mut String,
        stored: &StoredEvent,
        relations: Option<&str>,
    ) {
        stored.event.write_client_with(out, true, |out| {
            self.write_unsigned(out, stored, None, relations);
        });
    }

    /// Appends a JSON array of events with their room id.
    pub fn write_list<'s>(&self, out: &mut String, seen: impl IntoIterator<Item = &'s VisibleEvent>) {
        out.push('[');
        for (at, seen) in seen.into_iter().enumerate() {
            if at > 0 {
                out.push(',');
            }
            self.write(out, &seen.stored, seen.membership, true);
        }
        out.push(']');
    }

    fn write_unsigned(
        &self,
        out: &mut String,
        stored: &StoredEvent,
        membership: Option<Membership>,
        relations: Option<&str>,
    ) {
        let event = &stored.event;
        let age = self.now_ms.saturating_sub(event.origin_server_ts);
        let _ = write!(out, "{{\"age\":{age}");
        if let Some(relations) = relations {
            let _ = write!(out, ",\"m.relations\":{relations}");
        }
        if let Some(membership) = membership {
            let _ = write!(out, ",\"membership\":\"{}\"", membership.as_str());
        }
        if let Some(before) = stored.replaces.and_then(|nid| self.replaced.get(&nid)) {
            let _ = write!(out, ",\"prev_content\":{}", before.event.content.as_str());
            write_field(out, "prev_sender", before.event.sender.as_str());
            write_field(out, "replaces_state", before.event.id.as_str());
        }
        if let Some(redaction) = stored.redacted_by.as_ref().and_then(|id| self.redactions.get(id)) {
            out.push_str(",\"redacted_because\":");
            let age = self.now_ms.saturating_sub(redaction.event.origin_server_ts);
            redaction.event.write_client_with(out, true, |out| {
                let _ = write!(out, "{{\"age\":{age}}}");
            });
        }
        if let Some(transaction_id) = self.transactions.get(event.id.as_str()) {
            write_field(out, "transaction_id", transaction_id);
        }
        out.push('}');
    }
}

/// Appends `,"name":"text"`.
fn write_field(out: &mut String, name: &str, text: &str) {
    out.push_str(",\"");
    out.push_str(name);
    out.push_str("\":");
    write_text(out, text);
}
