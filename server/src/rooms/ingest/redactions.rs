//! Redactions of other servers, which may come before what they redact.

use std::sync::Arc;

use maru_protocol::event::{Event, redact};
use maru_protocol::ingest::Known;
use ruma::UserId;

use super::Incoming;
use crate::refusal::Refusal;
use crate::rooms::{Ingest, Room};
use crate::store::log::Record;
use crate::store::rooms::events::{EarlyRedaction, Redaction};

/// What a received event takes away.
pub(super) enum Redacts {
    /// Nothing.
    Nothing,
    /// The content of an event that is here.
    Known(Redaction),
    /// The content of an event that is not here yet.
    Early,
}

impl Redacts {
    /// What is stored with the redaction, once it is accepted.
    pub(super) fn record(&self, room: i64, event: &Event) -> Option<Record> {
        match self {
            Self::Nothing => None,
            Self::Known(redaction) => Some(Record::Redaction(redaction.clone())),
            Self::Early => Some(Record::EarlyRedaction(EarlyRedaction {
                room,
                target: event.redacts.clone()?,
                by: event.id.clone(),
                sender: event.sender.clone(),
            })),
        }
    }
}

impl Ingest {
    /// What an event of another server takes away, if its sender may.
    ///
    /// `on_its_way` is its target where that is among what is known of the room and perhaps not in the database yet.
    pub(super) async fn redaction(
        &self,
        room: &Arc<Room>,
        event: &Event,
        on_its_way: Option<Arc<Known>>,
    ) -> Result<Redacts, Refusal> {
        let Some(target) = event.redacts.as_ref() else {
            return Ok(Redacts::Nothing);
        };
        let stored = self.store.rooms.event(target).await?;
        if stored.as_ref().is_some_and(|stored| stored.redacted_by.is_some()) {
            return Ok(Redacts::Nothing);
        }
        let stored = stored.map(|stored| (stored.nid, Arc::clone(&stored.event)));
        let on_its_way = on_its_way.map(|known| (known.nid, Arc::clone(&known.event)));
        let Some((nid, found)) = stored.or(on_its_way) else {
            return Ok(Redacts::Early);
        };
        if found.room_id != room.room_id || !self.redacts(room, &event.sender, &found.sender).await? {
            return Ok(Redacts::Nothing);
        }
        let emptied = redact(&found, room.version).map_err(Refusal::internal)?;
        Ok(Redacts::Known(Redaction {
            target: nid,
            room: room.nid,
            event: Arc::new(emptied),
            by: event.id.clone(),
        }))
    }

    /// Empties events whose redactions came before them.
    pub(super) async fn redact_early(
        &self,
        room: &Arc<Room>,
        incoming: &mut [Incoming],
        early: Vec<EarlyRedaction>,
    ) -> Result<(), Refusal> {
        for redaction in early {
            for incoming in incoming.iter_mut() {
                let is_it = incoming.event.id == redaction.target;
                if is_it
                    && self
                        .redacts(room, &redaction.sender, &incoming.event.sender)
                        .await?
                {
                    let emptied = redact(&incoming.event, room.version).map_err(Refusal::internal)?;
                    incoming.event = Arc::new(emptied);
                    incoming.redacted_by = Some(redaction.by.clone());
                }
            }
        }
        Ok(())
    }

    /// Whether a received redaction is followed: users of one server answer to each other's server, and others need the
    /// power to redact (room version 3 on, "Handling redactions").
    async fn redacts(&self, room: &Room, sender: &UserId, author: &UserId) -> Result<bool, Refusal> {
        if sender.server_name() == author.server_name() {
            return Ok(true);
        }
        let levels = self.repository.power_levels(room).await?;
        Ok(levels.for_user(sender) >= levels.redact())
    }
}
