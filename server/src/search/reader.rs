//! The reader of the log that keeps the index.
//!
//! What the index holds of an event is made of the event and its newest edit as they are when the reader comes to them, so
//! that it does not matter how often it does, or in which order: it may begin again at any time.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use maru_protocol::cursor::Place;
use maru_protocol::ingest::Outcome;
use maru_protocol::state::EventNid;

use super::NAME;
use super::analysis::tokens;
use super::document::{subject_of, text_of};
use crate::readers::actions::Tuning;
use crate::readers::{Begins, Reader, ReaderError};
use crate::store::log::{Committed, Record};
use crate::store::readers::Effects;
use crate::store::rooms::events::StoredEvent;
use crate::store::search::{Document, DocumentKey, IndexChange};
use crate::store::{Store, StoreError};

/// Positions whose events come into the index together: their transaction is short, since on SQLite messages wait for it.
const POSITIONS: usize = 100;

/// Bytes of events that come into the index together: of long messages, a few.
const BYTES: usize = 64 * 1024;

/// How long after a page the next one is read. An event is found, and what was redacted is out of the index, so much later.
const LINGER: Duration = Duration::from_millis(400);

/// How many times as long as it took to put events into the index it is idle: who sends messages comes first.
const IDLE: u32 = 8;

/// Keeps the index of full-text search.
#[derive(Debug)]
pub struct SearchReader {
    store: Arc<Store>,
}

impl SearchReader {
    /// A reader of this store.
    #[must_use]
    pub fn new(store: Arc<Store>) -> Self {
        Self { store }
    }
}

impl Reader for SearchReader {
    fn name(&self) -> &str {
        NAME
    }

    fn begins(&self) -> Begins {
        Begins::WithStoredEvents
    }

    fn tuning(&self) -> Tuning {
        Tuning {
            positions: POSITIONS,
            bytes: BYTES,
            idle: IDLE,
            linger: LINGER,
            ..Tuning::default()
        }
    }

    fn handle<'r>(
        &'r self,
        _shard: u32,
        records: &'r [Committed],
    ) -> BoxFuture<'r, Result<Effects, ReaderError>> {
        Box::pin(async move {
            let change = self.change_for(records).await?;
            Ok(Effects::none().and_index(change))
        })
    }
}

/// Events of a page that the index has to do with.
#[derive(Default)]
struct Concerned {
    /// To be looked at by themselves.
    plain: HashMap<EventNid, Arc<StoredEvent>>,
    /// To be looked at with their newest edits, by number or by id.
    edited: HashMap<EventNid, Arc<StoredEvent>>,
    edited_ids: HashSet<String>,
    /// Edits, with the ids of what they edit.
    edits: Vec<(EventNid, String)>,
    /// Events whose content is gone.
    redacted: HashSet<EventNid>,
}

impl Concerned {
    fn of(records: &[Committed]) -> Self {
        let mut concerned = Self::default();
        for committed in records {
            match &committed.record {
                Record::Event(stored) => concerned.add(stored),
                Record::Redaction(redaction) => drop(concerned.redacted.insert(redaction.target)),
                _ => {}
            }
        }
        concerned
    }

    fn add(&mut self, stored: &Arc<StoredEvent>) {
        if subject_of(&stored.event).is_none() || !is_in_timeline(stored) {
            return;
        }
        if let Some(relation) = stored
            .relation
            .as_ref()
            .filter(|relation| relation.kind == "m.replace")
        {
            self.edits.push((stored.nid, relation.to.to_string()));
            self.edited_ids.insert(relation.to.to_string());
        } else if stored.place.is_some_and(Place::is_live) {
            self.plain.insert(stored.nid, Arc::clone(stored));
        } else {
            // Its edits may have been here before it.
            self.edited.insert(stored.nid, Arc::clone(stored));
        }
    }
}

impl SearchReader {
    /// What the index has to be changed for these records: no query for messages alone, and four at most.
    async fn change_for(&self, records: &[Committed]) -> Result<IndexChange, StoreError> {
        let Concerned {
            mut plain,
            mut edited,
            edited_ids,
            edits,
            redacted,
        } = Concerned::of(records);
        let mut change = IndexChange::default();
        if !edited_ids.is_empty() {
            let named = self
                .store
                .rooms
                .events_by_id(edited_ids.into_iter().collect())
                .await?;
            let nids: HashMap<&str, EventNid> = named
                .iter()
                .map(|stored| (stored.event.id.as_str(), stored.nid))
                .collect();
            let pair = |(edit, of): &(EventNid, String)| Some((*edit, *nids.get(&**of)?));
            change.edits = edits.iter().filter_map(pair).collect();
            edited.extend(named.into_iter().map(|stored| (stored.nid, stored)));
        }
        if !redacted.is_empty() {
            let redacted: Vec<EventNid> = redacted.into_iter().collect();
            let mut again = self.store.search.edited_by(&redacted).await?;
            again.extend(redacted);
            edited.extend(self.store.rooms.events_by_nid(&again).await?);
        }
        let mut newest = HashMap::new();
        if !edited.is_empty() {
            let ids = edited.values().map(|stored| stored.event.id.to_string());
            let edits = self.store.rooms.newest_edits(ids.collect()).await?;
            let by_target = |edit: Arc<StoredEvent>| Some((edit.relation.as_ref()?.to.clone(), edit));
            newest.extend(edits.into_iter().filter_map(by_target));
        }
        plain.retain(|nid, _| !edited.contains_key(nid));
        let events = plain.into_values().chain(edited.into_values());
        let texts = events.map(|stored| {
            let edit = newest.get(&stored.event.id).cloned();
            (stored, edit)
        });
        add_all(change, texts.collect()).await
    }
}

/// Puts events with their newest edits into the index, or takes them out. Long texts take long: off the async threads.
async fn add_all(
    mut change: IndexChange,
    events: Vec<(Arc<StoredEvent>, Option<Arc<StoredEvent>>)>,
) -> Result<IndexChange, StoreError> {
    let adding = tokio::task::spawn_blocking(move || {
        for (stored, edit) in &events {
            let text = text_of(&stored.event, edit.as_ref().map(|edit| &*edit.event));
            add_to(&mut change, stored, text);
        }
        change
    });
    // It ends early only with the process.
    adding
        .await
        .map_err(|error| StoreError::Unavailable(error.to_string()))
}

fn is_in_timeline(stored: &StoredEvent) -> bool {
    stored.outcome == Outcome::Accepted && stored.place.is_some()
}

/// Puts an event into the index, or takes it out.
fn add_to(change: &mut IndexChange, stored: &StoredEvent, text: Option<String>) {
    let Some(subject) = subject_of(&stored.event) else {
        return;
    };
    let key = DocumentKey::new(stored.event.origin_server_ts, stored.nid);
    let is_edit = stored
        .relation
        .as_ref()
        .is_some_and(|relation| relation.kind == "m.replace");
    let tokens = text
        .filter(|_| is_in_timeline(stored) && !is_edit)
        .map(|text| tokens(&text));
    match tokens.filter(|tokens| !tokens.is_empty()) {
        Some(tokens) => change.documents.push(Document {
            key,
            room: stored.room,
            sender: stored.event.sender.clone(),
            subject,
            tokens: tokens.into_iter().collect(),
        }),
        None => change.gone.push(key),
    }
}
