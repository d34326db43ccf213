//! Pages of backfill under way: one of a room at a time, each fetched by a task of its own, so that it comes to
//! an end whatever becomes of those who asked for it; whoever wants the same waits for the same.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use maru_protocol::cursor::Place;
use ruma::{OwnedRoomId, RoomId};
use tokio::sync::watch;

use crate::refusal::Refusal;

/// What became of a page: whether there is more to read than before. None while it is on its way.
type Outcome = Option<Result<bool, Refusal>>;

/// The pages that are on their way, by room. Bounded by the rooms that somebody reads, or that are made whole.
#[derive(Clone, Debug, Default)]
pub(in crate::peers) struct PagesUnderWay(Arc<Mutex<HashMap<OwnedRoomId, PageUnderWay>>>);

/// A page on its way.
#[derive(Clone, Debug)]
pub(in crate::peers) struct PageUnderWay {
    /// The gap: the place of the event after it.
    pub(in crate::peers) before: Place,
    outcome: watch::Receiver<Outcome>,
}

/// The right to fetch a page of a room, until it is dropped or the outcome is known.
#[derive(Debug)]
pub(in crate::peers) struct Fetching {
    room_id: OwnedRoomId,
    outcome: watch::Sender<Outcome>,
    all: PagesUnderWay,
}

impl PagesUnderWay {
    /// The page of a room that is on its way; if there is none, the one before `before` is now, for the caller to fetch.
    pub(in crate::peers) fn join(&self, room_id: &RoomId, before: Place) -> (PageUnderWay, Option<Fetching>) {
        let mut rooms = self.lock();
        if let Some(page) = rooms.get(room_id) {
            return (page.clone(), None);
        }
        let (outcome, wait) = watch::channel(None);
        let page = PageUnderWay {
            before,
            outcome: wait,
        };
        rooms.insert(room_id.to_owned(), page.clone());
        let fetching = Fetching {
            room_id: room_id.to_owned(),
            outcome,
            all: self.clone(),
        };
        (page, Some(fetching))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<OwnedRoomId, PageUnderWay>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PageUnderWay {
    /// Waits until the page is here, or nobody gives it.
    pub(in crate::peers) async fn ended(&mut self) -> Result<bool, Refusal> {
        let outcome = self.outcome.wait_for(Option::is_some).await;
        match outcome.as_deref() {
            Ok(Some(outcome)) => outcome.clone(),
            _ => Err(Refusal::Unavailable("a page of the past was given up".into())),
        }
    }
}

impl Fetching {
    /// Tells everybody who waits what became of the page. The next of its room may be fetched from now on.
    pub(in crate::peers) fn end(self, outcome: Result<bool, Refusal>) {
        self.all.lock().remove(&self.room_id);
        self.outcome.send_replace(Some(outcome));
    }
}

impl Drop for Fetching {
    fn drop(&mut self) {
        let mut rooms = self.all.lock();
        let is_this = |page: &PageUnderWay| page.outcome.same_channel(&self.outcome.subscribe());
        if rooms.get(&self.room_id).is_some_and(is_this) {
            rooms.remove(&self.room_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use ruma::room_id;

    use crate::peers::backfill::pages::*;

    #[tokio::test]
    async fn who_wants_a_page_that_is_on_its_way_waits_for_it() {
        let (backfills, room) = (PagesUnderWay::default(), room_id!("!a:x"));
        let (mut first, fetching) = backfills.join(room, Place(5));
        let (mut second, other) = backfills.join(room, Place(3));
        assert!(other.is_none() && second.before == Place(5));
        assert!(backfills.join(room_id!("!b:x"), Place(5)).1.is_some());
        fetching.unwrap().end(Ok(true));
        assert!(matches!(first.ended().await, Ok(true)));
        assert!(matches!(second.ended().await, Ok(true)));
        assert!(backfills.join(room, Place(3)).1.is_some());
    }

    #[tokio::test]
    async fn a_page_whose_task_is_gone_keeps_nobody_waiting() {
        let (backfills, room) = (PagesUnderWay::default(), room_id!("!a:x"));
        let (mut page, fetching) = backfills.join(room, Place(5));
        drop(fetching);
        assert!(page.ended().await.is_err());
        let (_, next) = backfills.join(room, Place(5));
        assert!(next.is_some() && backfills.join(room, Place(5)).1.is_none());
    }
}
