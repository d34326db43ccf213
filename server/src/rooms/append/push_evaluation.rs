//! What push rules say of an event before it enters a room.

use maru_protocol::event::Draft;

use crate::push::{Facts, Sent, Verdict};
use crate::refusal::Refusal;
use crate::rooms::{Room, Rooms};

impl Rooms {
    /// Judges an event for the members of a room, by its committed state.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub(in crate::rooms) async fn judge(&self, room: &Room, draft: &Draft) -> Result<Verdict, Refusal> {
        let facts = Facts::of(draft);
        let levels = if self.push.needs_power(&facts, room.nid) {
            Some(self.power_levels(room).await?)
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
        self.push.judge(&sent).await
    }

    /// Judges the first events of a room, in which there is nobody yet but who is invited.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub(in crate::rooms) async fn judge_first(
        &self,
        room: i64,
        drafts: &[Draft],
    ) -> Result<Vec<Verdict>, Refusal> {
        let mut verdicts = Vec::with_capacity(drafts.len());
        for draft in drafts {
            let facts = Facts::of(draft);
            let sent = Sent {
                draft,
                facts: &facts,
                room,
                joined: 1,
                server_name: self.identity.name(),
                is_joined: &|_| false,
                may_notify: &|_| false,
            };
            verdicts.push(self.push.judge(&sent).await?);
        }
        Ok(verdicts)
    }
}
