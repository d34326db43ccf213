//! What an event relates to (client-server API, "Forming relationships between events").

use maru_protocol::event::Event;
use ruma::OwnedEventId;
use serde::Deserialize;

use crate::store::events::Relation;

#[derive(Deserialize)]
struct Content {
    #[serde(rename = "m.relates_to")]
    relates_to: Option<RelatesTo>,
}

#[derive(Deserialize)]
struct RelatesTo {
    rel_type: Option<String>,
    event_id: Option<OwnedEventId>,
}

/// The event's relation, and the root of the thread that it was sent to. A relation that cannot be read is none.
pub(super) fn of(event: &Event) -> (Option<Relation>, Option<OwnedEventId>) {
    if event.is_state() || !event.content.as_str().contains("m.relates_to") {
        return (None, None);
    }
    let relates_to = event
        .content_as::<Content>()
        .ok()
        .and_then(|content| content.relates_to);
    let Some(RelatesTo {
        rel_type: Some(kind),
        event_id: Some(to),
    }) = relates_to
    else {
        return (None, None);
    };
    if kind.contains('\0') {
        return (None, None);
    }
    let thread = (kind == "m.thread").then(|| to.clone());
    (Some(Relation { to, kind }), thread)
}
