//! Sending: messages, state, redactions.

use std::sync::Arc;

use maru_protocol::canonical::Content;
use maru_protocol::event::{Draft, redact};
use ruma::{EventId, OwnedEventId, UserId};

use super::relation;
use crate::refusal::Refusal;
use crate::rooms::{Appender, Room, Transaction};
use crate::store::log::Record;
use crate::store::rooms::events::{Redaction, StoredEvent};

/// Who sends an event, and when.
#[derive(Clone, Copy, Debug)]
pub struct Sender<'s> {
    /// The user.
    pub user_id: &'s UserId,
    /// When the event was made by its own account, in milliseconds since 1970, where that is not now.
    pub at: Option<u64>,
}

impl<'s> Sender<'s> {
    /// Somebody who sends an event now.
    #[must_use]
    pub fn now(user_id: &'s UserId) -> Self {
        Self { user_id, at: None }
    }
}

impl Appender {
    /// Sends a message event.
    ///
    /// # Errors
    /// What the rules or limits say.
    pub async fn send(
        &self,
        room: &Arc<Room>,
        sender: Sender<'_>,
        event_type: &str,
        content: Content,
        transaction: Option<&Transaction>,
    ) -> Result<Arc<StoredEvent>, Refusal> {
        match event_type {
            "m.room.create" => return Err(super::send_state::created_once()),
            "m.room.redaction" => {
                let target = redacted_by(room, &content)?;
                return self.redact(room, sender, &target, content, transaction).await;
            }
            _ => self.check_length(&content)?,
        }
        let draft = self.draft(room, sender.user_id, event_type, None, content);
        self.transactions
            .once(transaction, || async {
                self.check_new_annotation(room, sender.user_id, &draft.content)
                    .await?;
                let effects = |stored: &Arc<StoredEvent>| {
                    transaction
                        .map(|transaction| transaction.becomes(&stored.event.id, self.clock.now_ms()))
                        .into_iter()
                        .collect()
                };
                self.append_at(room, draft, sender.at, &effects).await
            })
            .await
    }

    /// Sets state that has passed the checks of its type.
    pub(in crate::rooms) async fn set_state(
        &self,
        room: &Arc<Room>,
        sender: Sender<'_>,
        event_type: &str,
        state_key: &str,
        content: Content,
    ) -> Result<Arc<StoredEvent>, Refusal> {
        let Sender { user_id, at } = sender;
        if room.is_joined(user_id) {
            let present = self
                .repository
                .state_event(&room.head().state, event_type, state_key)
                .await?;
            let same = present.filter(|stored| {
                stored.event.sender == user_id && stored.event.content.as_str() == content.as_str()
            });
            if let Some(same) = same {
                return Ok(same);
            }
        }
        let draft = self.draft(room, user_id, event_type, Some(state_key), content);
        self.append_at(room, draft, at, &|_| Vec::new()).await
    }

    /// Removes an event's content for everybody.
    ///
    /// # Errors
    /// What the rules say, or [`Refusal::NotFound`] when the room has no such event.
    pub async fn redact(
        &self,
        room: &Arc<Room>,
        sender: Sender<'_>,
        target: &EventId,
        content: Content,
        transaction: Option<&Transaction>,
    ) -> Result<Arc<StoredEvent>, Refusal> {
        let mut draft = self.draft(room, sender.user_id, "m.room.redaction", None, content);
        draft.redacts = Some(target.to_owned());
        self.transactions
            .once(transaction, || async {
                let found = self.event_in(room, target).await?;
                self.check_may_redact(room, sender.user_id, &found).await?;
                let emptied = Arc::new(redact(&found.event, room.version).map_err(Refusal::internal)?);
                let effects = |stored: &Arc<StoredEvent>| {
                    let redaction = Redaction {
                        target: found.nid,
                        room: room.nid,
                        event: Arc::clone(&emptied),
                        by: stored.event.id.clone(),
                    };
                    let becomes = transaction
                        .map(|transaction| transaction.becomes(&stored.event.id, self.clock.now_ms()));
                    // The transaction describes the event before it, and shares its position.
                    becomes
                        .into_iter()
                        .chain([Record::Redaction(redaction)])
                        .collect()
                };
                self.append_at(room, draft, sender.at, &effects).await
            })
            .await
    }

    /// An event of a room.
    async fn event_in(&self, room: &Room, event_id: &EventId) -> Result<Arc<StoredEvent>, Refusal> {
        let unknown = || Refusal::not_found("the room has no such event");
        if event_id.as_str().contains('\0') {
            return Err(unknown());
        }
        let found = self.store.rooms.event(event_id).await?;
        found.filter(|stored| stored.room == room.nid).ok_or_else(unknown)
    }

    /// Whose messages somebody may remove: one's own, and everybody's with the power to redact.
    pub(in crate::rooms) async fn check_may_redact(
        &self,
        room: &Room,
        sender: &UserId,
        target: &StoredEvent,
    ) -> Result<(), Refusal> {
        if target.event.sender == sender {
            return Ok(());
        }
        let levels = self.repository.power_levels(room).await?;
        if levels.for_user(sender) >= levels.redact() {
            return Ok(());
        }
        Err(Refusal::forbidden(
            "you may not remove other people's messages in this room",
        ))
    }

    /// A user reacts to an event with the same key once (client-server API, "Annotations").
    async fn check_new_annotation(
        &self,
        room: &Room,
        sender: &UserId,
        content: &Content,
    ) -> Result<(), Refusal> {
        let Some((target, key)) = relation::annotation(content) else {
            return Ok(());
        };
        let same = |stored: &Arc<StoredEvent>| {
            relation::annotation(&stored.event.content).is_some_and(|(_, given)| given == key)
        };
        let own = self.store.rooms.annotations_by(room.nid, &target, sender).await?;
        if own.iter().any(same) {
            return Err(Refusal::DuplicateAnnotation);
        }
        Ok(())
    }

    /// What a local user wants to say in a room.
    pub(in crate::rooms) fn draft(
        &self,
        room: &Room,
        sender: &UserId,
        event_type: &str,
        state_key: Option<&str>,
        content: Content,
    ) -> Draft {
        Draft {
            room_id: Some(room.room_id.clone()),
            sender: sender.to_owned(),
            event_type: event_type.into(),
            state_key: state_key.map(Into::into),
            content,
            redacts: None,
            origin_server_ts: self.clock.now_ms(),
        }
    }

    /// The server's policy for local messages; never applied to received ones.
    fn check_length(&self, content: &Content) -> Result<(), Refusal> {
        // A character is at least a byte: short contents need no counting.
        if content.as_str().len() <= self.message_characters {
            return Ok(());
        }
        #[derive(serde::Deserialize)]
        struct Body {
            body: Option<String>,
        }
        let body = content
            .get::<Body>()
            .ok()
            .and_then(|content| content.body)
            .unwrap_or_default();
        let characters = body.chars().count();
        if characters <= self.message_characters {
            return Ok(());
        }
        let limit = self.message_characters;
        Err(Refusal::TooLarge(format!(
            "the message has {characters} characters, {limit} are allowed"
        )))
    }
}

/// The target of a redaction that is sent like any other event.
fn redacted_by(room: &Room, content: &Content) -> Result<OwnedEventId, Refusal> {
    #[derive(serde::Deserialize)]
    struct Target {
        redacts: OwnedEventId,
    }
    if !room.version.redacts_in_content() {
        return Err(Refusal::invalid(
            "redactions of this room are made by its redact endpoint",
        ));
    }
    let target = content.get::<Target>();
    Ok(target
        .map_err(|_| Refusal::BadJson("a redaction names the event that it redacts".into()))?
        .redacts)
}
