//! Sending: messages, state, redactions, each once however often a client retries.

use std::future::Future;
use std::sync::{Arc, PoisonError};

use maru_protocol::canonical::Content;
use maru_protocol::event::{Draft, redact};
use ruma::{EventId, OwnedUserId, UserId};
use tokio::sync::OnceCell;

use super::{Room, Rooms};
use crate::refusal::Refusal;
use crate::store::events::{NewTransaction, Redaction, StoredEvent};
use crate::store::log::Record;

/// A client's name for one request, so that a retry is recognised.
#[derive(Clone, Debug)]
pub struct Transaction {
    /// Who sends.
    pub user_id: OwnedUserId,
    /// From which device.
    pub device_id: String,
    /// The kind of request.
    pub scope: &'static str,
    /// The client's id.
    pub transaction_id: String,
}

/// What makes two requests the same.
pub(super) type TransactionKey = (OwnedUserId, String, &'static str, String);

impl Transaction {
    fn key(&self) -> TransactionKey {
        (
            self.user_id.clone(),
            self.device_id.clone(),
            self.scope,
            self.transaction_id.clone(),
        )
    }

    fn becomes(&self, event_id: &EventId) -> Record {
        Record::Transaction(NewTransaction {
            user_id: self.user_id.clone(),
            device_id: self.device_id.clone(),
            scope: self.scope,
            transaction_id: self.transaction_id.clone(),
            event_id: event_id.to_owned(),
        })
    }
}

impl Rooms {
    /// Sends a message event.
    ///
    /// # Errors
    /// What the rules or limits say.
    pub async fn send(
        &self,
        room: &Arc<Room>,
        sender: &UserId,
        event_type: &str,
        content: Content,
        transaction: Option<&Transaction>,
    ) -> Result<Arc<StoredEvent>, Refusal> {
        self.check_length(&content)?;
        let draft = self.draft(room, sender, event_type, None, content);
        self.once(transaction, || async {
            let effects = |stored: &Arc<StoredEvent>| {
                transaction
                    .map(|transaction| transaction.becomes(&stored.event.id))
                    .into_iter()
                    .collect()
            };
            self.append(room, draft, &effects).await
        })
        .await
    }

    /// Sets a piece of the room's state.
    ///
    /// # Errors
    /// What the rules or limits say.
    pub async fn set_state(
        &self,
        room: &Arc<Room>,
        sender: &UserId,
        event_type: &str,
        state_key: &str,
        content: Content,
    ) -> Result<Arc<StoredEvent>, Refusal> {
        let draft = self.draft(room, sender, event_type, Some(state_key), content);
        self.append(room, draft, &|_| Vec::new()).await
    }

    /// Removes an event's content for everybody.
    ///
    /// # Errors
    /// What the rules say, or [`Refusal::NotFound`] when the room has no such event.
    pub async fn redact(
        &self,
        room: &Arc<Room>,
        sender: &UserId,
        target: &EventId,
        content: Content,
        transaction: Option<&Transaction>,
    ) -> Result<Arc<StoredEvent>, Refusal> {
        let mut draft = self.draft(room, sender, "m.room.redaction", None, content);
        draft.redacts = Some(target.to_owned());
        self.once(transaction, || async {
            let found = self
                .store
                .event(target)
                .await?
                .filter(|stored| stored.room == room.nid);
            let found = found.ok_or_else(|| Refusal::not_found("the room has no such event"))?;
            self.check_may_redact(room, sender, &found).await?;
            let emptied = Arc::new(redact(&found.event, room.version).map_err(Refusal::internal)?);
            let effects = |stored: &Arc<StoredEvent>| {
                let redaction = Redaction {
                    target: found.nid,
                    room: room.nid,
                    event: Arc::clone(&emptied),
                    by: stored.event.id.clone(),
                };
                let becomes = transaction.map(|transaction| transaction.becomes(&stored.event.id));
                // The transaction describes the event before it, and shares its position.
                becomes
                    .into_iter()
                    .chain([Record::Redaction(redaction)])
                    .collect()
            };
            self.append(room, draft, &effects).await
        })
        .await
    }

    /// Whose messages somebody may remove: one's own, and everybody's with the power to redact.
    async fn check_may_redact(
        &self,
        room: &Room,
        sender: &UserId,
        target: &StoredEvent,
    ) -> Result<(), Refusal> {
        if target.event.sender == sender {
            return Ok(());
        }
        let levels = self.power_levels(room).await?;
        if levels.for_user(sender) >= levels.redact() {
            return Ok(());
        }
        Err(Refusal::forbidden(
            "you may not remove other people's messages in this room",
        ))
    }

    /// What a local user wants to say in a room.
    pub(super) fn draft(
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

    /// Does `work` once per transaction id: two retries at once, or one after a restart, get the first one's event.
    async fn once<F, W>(
        &self,
        transaction: Option<&Transaction>,
        work: W,
    ) -> Result<Arc<StoredEvent>, Refusal>
    where
        W: FnOnce() -> F,
        F: Future<Output = Result<Arc<StoredEvent>, Refusal>>,
    {
        let Some(transaction) = transaction else {
            return work().await;
        };
        let key = transaction.key();
        let cell: Arc<OnceCell<_>> = {
            let mut in_flight = self.in_flight.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(in_flight.entry(key.clone()).or_default())
        };
        let result = cell
            .get_or_try_init(|| async {
                let (user_id, device_id, scope, transaction_id) = &key;
                let used = self
                    .store
                    .transaction(user_id, device_id, scope, transaction_id)
                    .await?;
                match used {
                    Some(event_id) => {
                        let stored = self.store.event(&event_id).await?;
                        stored.ok_or_else(|| Refusal::internal(format!("{event_id} is missing")))
                    }
                    None => work().await,
                }
            })
            .await
            .cloned();
        let mut in_flight = self.in_flight.lock().unwrap_or_else(PoisonError::into_inner);
        if in_flight.get(&key).is_some_and(|held| Arc::ptr_eq(held, &cell)) && Arc::strong_count(&cell) <= 2 {
            in_flight.remove(&key);
        }
        result
    }
}
