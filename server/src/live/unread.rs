//! A listening user's unread counts of one room, kept current by deliveries.

use std::collections::{BTreeMap, HashMap};

use maru_protocol::cursor::Place;
use ruma::UserId;

use crate::store::rooms::events::{Notify, StoredEvent};
use crate::store::rooms::notifications::Unread;

/// Unread counts of a room for one user: the database's answer, and what was delivered since.
#[derive(Clone, Debug, Default)]
pub struct RoomUnread {
    /// Counted up to and including this place.
    pub up_to: Place,
    /// Those of the main timeline.
    pub main: Unread,
    /// Those of threads, by root.
    pub threads: BTreeMap<String, Unread>,
    /// What the last event counted as, in case the user's own rules say otherwise of it.
    last: Option<(Place, Option<String>, Notify)>,
}

impl RoomUnread {
    /// Counts that the database gave, complete up to a place: by root of the thread, none for the main timeline.
    #[must_use]
    pub fn new(up_to: Place, mut counts: HashMap<Option<String>, Unread>) -> Self {
        let main = counts.remove(&None).unwrap_or_default();
        let of_thread = |(root, unread): (Option<String>, Unread)| Some((root?, unread));
        Self {
            up_to,
            main,
            threads: counts.into_iter().filter_map(of_thread).collect(),
            last: None,
        }
    }

    /// Counts a new event of somebody else. One of the user's own has the user read its thread up to there
    /// (client-server API, "Receiving notifications"), unless it is the user's membership.
    pub(super) fn count(&mut self, stored: &StoredEvent, user_id: &UserId) {
        let Some(place) = stored.place.filter(|place| *place > self.up_to) else {
            return;
        };
        self.up_to = place;
        let thread = stored.thread.as_ref().map(ToString::to_string);
        let notify = if stored.event.sender != user_id {
            stored.notify
        } else {
            if !stored.event.is_state_at("m.room.member", user_id.as_str()) {
                *self.of(thread.clone()) = Unread::default();
            }
            Notify::Nothing
        };
        self.add(thread.clone(), notify);
        self.last = Some((place, thread, notify));
    }

    /// The user's own rules say something else of the event that was counted last.
    pub(super) fn correct(&mut self, place: Place, notify: Notify) {
        if let Some((at, thread, counted)) = self.last.take_if(|(at, _, _)| *at == place) {
            let unread = self.of(thread.clone());
            unread.notifications = unread
                .notifications
                .saturating_sub(u64::from(counted >= Notify::Notify));
            unread.highlights = unread
                .highlights
                .saturating_sub(u64::from(counted == Notify::Highlight));
            self.add(thread.clone(), notify);
            self.last = Some((at, thread, notify));
        }
    }

    fn add(&mut self, thread: Option<String>, notify: Notify) {
        if notify > Notify::Nothing {
            let unread = self.of(thread);
            unread.notifications += 1;
            unread.highlights += u64::from(notify == Notify::Highlight);
        }
    }

    fn of(&mut self, thread: Option<String>) -> &mut Unread {
        match thread {
            Some(root) => self.threads.entry(root).or_default(),
            None => &mut self.main,
        }
    }
}
