//! Members as a room's head counts them: how many there are, and on which servers.

use std::sync::Arc;

use maru_protocol::destinations::{membership, recount};
use maru_protocol::event::Event;

use crate::store::federation::destination_intervals::Interest;
use crate::store::rooms::events::StoredEvent;
use crate::store::rooms::{Membership, RoomHead};

/// The membership that an event makes in the current state, if it is a membership event.
pub(in crate::rooms) fn membership_of(stored: &StoredEvent) -> Option<Membership> {
    let event = &stored.event;
    Some(Membership {
        room: stored.room,
        user_id: event.state_key.as_deref()?.try_into().ok()?,
        membership: membership(event)?,
        event: stored.nid,
        stripped_state: None,
    })
}

impl RoomHead {
    /// Counts one slot of the state anew, in which `after` takes the place of `before`. Answers whose interest in the room
    /// changes; it may be this server's own.
    pub(in crate::rooms) fn count_member(
        &mut self,
        before: Option<&Event>,
        after: Option<&Event>,
    ) -> Option<Interest> {
        let (was, is) = (before.and_then(membership), after.and_then(membership));
        for (name, count) in [("join", &mut self.joined), ("invite", &mut self.invited)] {
            *count += u64::from(is.as_deref() == Some(name));
            *count = count.saturating_sub(u64::from(was.as_deref() == Some(name)));
        }
        if was.is_none() && is.is_none() {
            return None;
        }
        let (server_name, change) = recount(Arc::make_mut(&mut self.servers), before, after)?;
        Some(Interest {
            room: self.room,
            server_name,
            change,
        })
    }
}
