//! Push rules: what counts as unread, and for whom it is highlighted.

mod rules;

use std::sync::Arc;

use maru_protocol::event::Event;
use ruma::UserId;

pub use rules::{PUSH_RULES, find};

use crate::refusal::Refusal;
use crate::store::Store;
use crate::store::events::Notify;

/// Everything that push rules need to work.
#[derive(Debug)]
pub struct Push {
    store: Arc<Store>,
}

impl Push {
    /// Push rules over a store.
    #[must_use]
    pub fn new(store: Arc<Store>) -> Self {
        Self { store }
    }

    /// Notes that a user has rules of their own.
    async fn note_owner(&self, _user_id: &UserId) -> Result<(), Refusal> {
        Ok(())
    }
}

/// What the default push rules say of an event to a member whom it does not mention.
#[must_use]
pub fn default_outcome(event: &Event) -> Notify {
    match &*event.event_type {
        "m.room.message" | "m.room.encrypted" if !event.content.as_str().contains("\"m.replace\"") => {
            Notify::Notify
        }
        _ => Notify::Nothing,
    }
}
