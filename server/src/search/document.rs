//! What of an event is searched, as the event is now.

use maru_protocol::event::Event;
use serde::Deserialize;

use crate::store::search::Subject;

/// What of an event is searched, by its type alone.
#[must_use]
pub(super) fn subject_of(event: &Event) -> Option<Subject> {
    match (&*event.event_type, event.state_key.as_deref()) {
        ("m.room.message", None) => Some(Subject::Body),
        ("m.room.name", Some("")) => Some(Subject::Name),
        ("m.room.topic", Some("")) => Some(Subject::Topic),
        _ => None,
    }
}

/// The text of an event that is searched, with the newest edit of it, if there is any. None where it has none, as when it
/// was redacted: or where the content is not what it should be, since a stranger may have sent anything.
#[must_use]
pub(super) fn text_of(event: &Event, edit: Option<&Event>) -> Option<String> {
    #[derive(Deserialize)]
    struct Body {
        body: String,
    }
    #[derive(Deserialize)]
    struct Edit {
        #[serde(rename = "m.new_content")]
        new_content: Body,
    }
    #[derive(Deserialize)]
    struct Name {
        name: String,
    }
    #[derive(Deserialize)]
    struct Topic {
        topic: String,
    }
    match subject_of(event)? {
        // What is redacted stays so, whatever was said of it.
        Subject::Body => {
            let own = event.content_as::<Body>().ok()?.body;
            let edited = edit.and_then(|edit| edit.content_as::<Edit>().ok());
            Some(edited.map_or(own, |edit| edit.new_content.body))
        }
        Subject::Name => event.content_as::<Name>().ok().map(|content| content.name),
        Subject::Topic => event.content_as::<Topic>().ok().map(|content| content.topic),
    }
}
