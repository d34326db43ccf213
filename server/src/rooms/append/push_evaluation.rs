//! Evaluation of push rules on an event before it enters a room: whom it notifies, and what counts as unread.

use std::sync::Arc;

use maru_protocol::event::Draft;

use crate::identity::Identity;
use crate::push::Push;
use crate::push::{EventProperties, PushOutcome, Sent};
use crate::refusal::Refusal;
use crate::rooms::{Room, RoomRepository};

/// Evaluation of push rules for the members of a room.
#[derive(Debug)]
pub struct PushEvaluation {
    pub(in crate::rooms) identity: Arc<Identity>,
    pub(in crate::rooms) push: Arc<Push>,
    pub(in crate::rooms) repository: Arc<RoomRepository>,
}

impl PushEvaluation {
    /// Evaluates push rules on an event for the members of its room, by the committed state.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub(in crate::rooms) async fn evaluate(
        &self,
        room: &Room,
        draft: &Draft,
    ) -> Result<PushOutcome, Refusal> {
        let facts = EventProperties::of(draft);
        let levels = if self.push.needs_power(&facts, room.nid) {
            Some(self.repository.power_levels(room).await?)
        } else {
            None
        };
        let power = levels.as_ref().map(|levels| levels.for_user(&draft.sender));
        let may_notify = |key: &str| {
            let needed = levels.as_ref().map(|levels| levels.notifications(key));
            power.is_some() && power >= needed
        };
        let sent = Sent {
            draft,
            facts: &facts,
            room: room.nid,
            joined: room.head().joined,
            server_name: self.identity.name(),
            is_joined: &|user_id| room.is_joined(user_id),
            may_notify: &may_notify,
        };
        self.push.evaluate(&sent).await
    }

    /// Evaluates push rules on the first events of a room, in which there is nobody yet but who is invited.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub(in crate::rooms) async fn evaluate_first_events(
        &self,
        room: i64,
        drafts: &[Draft],
    ) -> Result<Vec<PushOutcome>, Refusal> {
        let mut verdicts = Vec::with_capacity(drafts.len());
        for draft in drafts {
            let facts = EventProperties::of(draft);
            let sent = Sent {
                draft,
                facts: &facts,
                room,
                joined: 1,
                server_name: self.identity.name(),
                is_joined: &|_| false,
                may_notify: &|_| false,
            };
            verdicts.push(self.push.evaluate(&sent).await?);
        }
        Ok(verdicts)
    }
}
