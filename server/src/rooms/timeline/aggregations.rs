//! What an event's children add to it in its reader's eyes: the newest edit, the thread, the references (client-server
//! API, "Aggregations of child events").

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::Arc;

use maru_protocol::canonical::write_text;
use maru_protocol::cursor::Place;
use ruma::{OwnedEventId, OwnedUserId, UserId};

use super::client_event_format::{Reader, UnsignedData};
use crate::refusal::Refusal;
use crate::rooms::Visibility;
use crate::store::Store;
use crate::store::rooms::events::StoredEvent;
use crate::store::rooms::relations::RelationCount;

/// A thread as its root shows it.
struct Thread {
    latest: Arc<StoredEvent>,
    /// All answers but those of ignored users; also those that the reader may not see, whose number is no secret
    /// (client-server API, "Server-side aggregation of `m.thread` relationships": as known to the server).
    count: i64,
    participated: bool,
}

/// Aggregations of child events (`m.relations`) as their reader may see them.
#[derive(Debug)]
pub struct Aggregations {
    pub(in crate::rooms) store: Arc<Store>,
    pub(in crate::rooms) visibility: Arc<Visibility>,
}

impl Aggregations {
    /// Fills a view's relations for a page of events. One query when nothing relates to any of them.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn bundle(
        &self,
        view: &mut UnsignedData,
        reader: Reader<'_>,
        events: &[&Arc<StoredEvent>],
    ) -> Result<(), Refusal> {
        let counts = self.relation_counts(reader, events).await?;
        self.bundle_counted(view, reader, events, counts).await
    }

    /// What relates to the events of a page, by event and kind of relation. One query.
    pub(in crate::rooms) async fn relation_counts(
        &self,
        reader: Reader<'_>,
        events: &[&Arc<StoredEvent>],
    ) -> Result<Vec<RelationCount>, Refusal> {
        let page = in_timeline(events);
        let ids: Vec<String> = page.keys().map(ToString::to_string).collect();
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut counts = self.store.rooms.relation_counts(ids, reader.user_id).await?;
        // Events of another room that claim to relate to one of this room do not.
        counts.retain(|count| {
            page.get(&count.to)
                .is_some_and(|stored| stored.room == count.room)
        });
        Ok(counts)
    }

    /// [`Aggregations::bundle`] where it is known what relates to the events.
    pub(in crate::rooms) async fn bundle_counted(
        &self,
        view: &mut UnsignedData,
        reader: Reader<'_>,
        events: &[&Arc<StoredEvent>],
        mut counts: Vec<RelationCount>,
    ) -> Result<(), Refusal> {
        if counts.is_empty() {
            return Ok(());
        }
        let page = in_timeline(events);
        let ignored = match counts.iter().any(|count| count.kind != "m.replace") {
            true => self.visibility.ignored_by(reader.user_id).await?,
            false => HashSet::new(),
        };
        if !ignored.is_empty() {
            self.leave_out(&mut counts, &ignored).await?;
        }
        let threads = self.threads_of(reader.user_id, &page, &counts).await?;
        let edits = self.edits_of(reader.user_id, &counts, &threads).await?;
        let references = self.references_of(reader.user_id, &counts, &ignored).await?;
        let roots: HashSet<&OwnedEventId> = counts.iter().map(|count| &count.to).collect();
        for root in roots {
            let (thread, edit) = (threads.get(root), edits.get(root));
            let text = write_bundle(view, thread, edit, references.get(root), &edits);
            if text.len() > 2 {
                view.relations.insert(root.clone(), text);
            }
        }
        Ok(())
    }

    /// Leaves the answers of those who are ignored out of the threads.
    async fn leave_out(
        &self,
        counts: &mut Vec<RelationCount>,
        ignored: &HashSet<OwnedUserId>,
    ) -> Result<(), Refusal> {
        let threads = counts.iter().filter(|count| count.kind == "m.thread");
        let roots: Vec<String> = threads.map(|count| count.to.to_string()).collect();
        if roots.is_empty() {
            return Ok(());
        }
        let ignored = ignored.iter().map(ToString::to_string).collect();
        let of_others: HashMap<_, _> = self.store.rooms.answers_of_others(roots, ignored).await?;
        counts.retain_mut(|count| {
            if count.kind != "m.thread" {
                return true;
            }
            let Some(others) = of_others.get(&(count.to.clone(), count.room)) else {
                return false;
            };
            count.count -= others.left_out;
            others.newest.is_some_and(|newest| {
                count.newest = newest;
                true
            })
        });
        Ok(())
    }

    async fn threads_of(
        &self,
        user_id: &UserId,
        page: &HashMap<&OwnedEventId, &Arc<StoredEvent>>,
        counts: &[RelationCount],
    ) -> Result<HashMap<OwnedEventId, Thread>, Refusal> {
        let counts: Vec<_> = counts.iter().filter(|count| count.kind == "m.thread").collect();
        let places: Vec<(i64, Place)> = counts.iter().map(|count| (count.room, count.newest)).collect();
        let latest = self
            .visibility
            .visible_anywhere(user_id, self.store.rooms.events_at(&places).await?)
            .await?;
        let latest: HashMap<_, _> = latest
            .into_iter()
            .map(|stored| ((stored.room, stored.place), stored))
            .collect();
        let thread = |count: &&RelationCount| {
            let root = page.get(&count.to)?;
            let thread = Thread {
                latest: Arc::clone(latest.get(&(count.room, Some(count.newest)))?),
                count: count.count,
                participated: count.by_user || root.event.sender == user_id,
            };
            Some((count.to.clone(), thread))
        };
        Ok(counts.iter().filter_map(thread).collect())
    }

    /// The newest edits of events of the page, and of the latest events of their threads.
    async fn edits_of(
        &self,
        user_id: &UserId,
        counts: &[RelationCount],
        threads: &HashMap<OwnedEventId, Thread>,
    ) -> Result<HashMap<OwnedEventId, Arc<StoredEvent>>, Refusal> {
        let edited = counts
            .iter()
            .filter(|count| count.kind == "m.replace")
            .map(|count| &count.to);
        let latest = threads.values().map(|thread| &thread.latest.event.id);
        let edited: Vec<String> = edited.chain(latest).map(ToString::to_string).collect();
        self.visible_edits(user_id, edited).await
    }

    /// The newest edits of some events, those that a user may see, by the ids of what they edit. Costs grow with the events.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn visible_edits(
        &self,
        user_id: &UserId,
        edited: Vec<String>,
    ) -> Result<HashMap<OwnedEventId, Arc<StoredEvent>>, Refusal> {
        if edited.is_empty() {
            return Ok(HashMap::new());
        }
        let mut edits = self.store.rooms.newest_edits(edited).await?;
        edits.retain(|edit| has_new_content(edit));
        let edits = self.visibility.visible_anywhere(user_id, edits).await?;
        let by_target = |edit: Arc<StoredEvent>| Some((edit.relation.as_ref()?.to.clone(), edit));
        Ok(edits.into_iter().filter_map(by_target).collect())
    }

    /// The events that refer to events of the page, those that the user may see and whose senders are not ignored.
    async fn references_of(
        &self,
        user_id: &UserId,
        counts: &[RelationCount],
        ignored: &HashSet<OwnedUserId>,
    ) -> Result<HashMap<OwnedEventId, Vec<OwnedEventId>>, Refusal> {
        let referred = counts.iter().filter(|count| count.kind == "m.reference");
        let referred: Vec<String> = referred.map(|count| count.to.to_string()).collect();
        let mut references: HashMap<_, Vec<_>> = HashMap::new();
        if referred.is_empty() {
            return Ok(references);
        }
        let pairs = self.store.rooms.references(referred).await?;
        let referring = pairs.iter().map(|(_, from)| from.to_string()).collect();
        let mut referring = self.store.rooms.events_by_id(referring).await?;
        referring.retain(|stored| !ignored.contains(&stored.event.sender));
        let visible = self.visibility.visible_anywhere(user_id, referring).await?;
        let visible: HashSet<_> = visible.iter().map(|stored| &stored.event.id).collect();
        for (to, from) in pairs {
            if visible.contains(&from) {
                references.entry(to).or_default().push(from);
            }
        }
        Ok(references)
    }
}

/// Those of some events that stand in a timeline, by id.
fn in_timeline<'e>(events: &[&'e Arc<StoredEvent>]) -> HashMap<&'e OwnedEventId, &'e Arc<StoredEvent>> {
    let placed = events.iter().filter(|stored| stored.place.is_some());
    placed.map(|stored| (&stored.event.id, *stored)).collect()
}

/// An edit says what the new content is, unless only its readers can tell.
fn has_new_content(edit: &StoredEvent) -> bool {
    #[derive(serde::Deserialize)]
    struct Content {
        #[serde(rename = "m.new_content")]
        _new_content: serde::de::IgnoredAny,
    }
    &*edit.event.event_type == "m.room.encrypted" || edit.event.content_as::<Content>().is_ok()
}

fn write_bundle(
    view: &UnsignedData,
    thread: Option<&Thread>,
    edit: Option<&Arc<StoredEvent>>,
    references: Option<&Vec<OwnedEventId>>,
    edits: &HashMap<OwnedEventId, Arc<StoredEvent>>,
) -> String {
    let mut out = String::from("{");
    let begin = |out: &mut String, kind: &str| {
        if out.len() > 1 {
            out.push(',');
        }
        write_text(out, kind);
        out.push(':');
    };
    if let Some(references) = references {
        begin(&mut out, "m.reference");
        out.push_str("{\"chunk\":[");
        for (at, from) in references.iter().enumerate() {
            out.push_str(if at == 0 {
                "{\"event_id\":"
            } else {
                ",{\"event_id\":"
            });
            write_text(&mut out, from.as_str());
            out.push('}');
        }
        out.push_str("]}");
    }
    if let Some(edit) = edit {
        begin(&mut out, "m.replace");
        view.write_child(&mut out, edit, None);
    }
    if let Some(thread) = thread {
        begin(&mut out, "m.thread");
        let _ = write!(
            out,
            "{{\"count\":{},\"current_user_participated\":{},\"latest_event\":",
            thread.count, thread.participated
        );
        let edit = edits
            .get(&thread.latest.event.id)
            .map(|edit| write_edit(view, edit));
        view.write_child(&mut out, &thread.latest, edit.as_deref());
        out.push('}');
    }
    out.push('}');
    out
}

/// The bundle of an event that has an edit and nothing else.
fn write_edit(view: &UnsignedData, edit: &StoredEvent) -> String {
    let mut out = String::from("{\"m.replace\":");
    view.write_child(&mut out, edit, None);
    out.push('}');
    out
}
