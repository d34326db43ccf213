//! What an event relates to (client-server API, "Forming relationships between events").

use maru_protocol::event::Event;
use maru_protocol::limits::MAX_ID_BYTES;
use ruma::OwnedEventId;
use serde::Deserialize;

use crate::store::rooms::events::Relation;

#[derive(Deserialize)]
struct Content {
    #[serde(rename = "m.relates_to")]
    relates_to: Option<RelatesTo>,
}

#[derive(Deserialize)]
struct RelatesTo {
    rel_type: Option<String>,
    event_id: Option<OwnedEventId>,
    key: Option<String>,
}

/// Whether a text can stand in the database's indexes. Events of other servers may hold what no identifier is: the room must
/// not wait for them.
fn is_kept(text: &str) -> bool {
    text.len() <= MAX_ID_BYTES && !text.contains('\0')
}

/// The target and key of an annotation, for example a reaction; none for other contents.
pub(in crate::rooms) fn annotation(
    content: &maru_protocol::canonical::Content,
) -> Option<(OwnedEventId, String)> {
    if !content.as_str().contains("m.annotation") {
        return None;
    }
    let relates_to = content.get::<Content>().ok()?.relates_to?;
    if relates_to.rel_type? != "m.annotation" {
        return None;
    }
    let target = relates_to.event_id.filter(|id| is_kept(id.as_str()))?;
    Some((target, relates_to.key?))
}

/// The event's relation, and the root of the thread that it was sent to. A relation that cannot be read is none.
pub(in crate::rooms) fn of(event: &Event) -> (Option<Relation>, Option<OwnedEventId>) {
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
        ..
    }) = relates_to
    else {
        return (None, None);
    };
    if !is_kept(&kind) || !is_kept(to.as_str()) {
        return (None, None);
    }
    let thread = (kind == "m.thread").then(|| to.clone());
    (Some(Relation { to, kind }), thread)
}
