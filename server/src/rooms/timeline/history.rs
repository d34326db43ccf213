//! A room's timeline as one reader may see it: pages in both directions, the surroundings of an event, single events
//! (client-server API, "Getting events for a room" and "Event context").

use std::collections::HashSet;
use std::sync::Arc;

use maru_protocol::cursor::{PageToken, Place};
use maru_protocol::event::Event;
use ruma::{EventId, OwnedUserId, UserId};

use super::client_event_format::VisibleEvent;
use crate::refusal::Refusal;
use crate::rooms::visibility::ReaderMembership;
use crate::rooms::{Room, RoomRepository, StateReader, TimelineGaps, Visibility};
use crate::store::Store;
use crate::store::rooms::events::{Direction, StoredEvent};
use crate::store::rooms::gaps::Gap;

/// Most events on one page.
pub const MOST_EVENTS: usize = 1000;

/// Events that one request looks at, at most, while it searches for those its reader may see and wants.
const MOST_LOOKED_AT: usize = 10_000;

/// Events read at once while a filter leaves out most of them.
const READ_AT_ONCE: usize = 500;

/// Decides which events a reader wants.
pub type EventPredicate<'a> = &'a (dyn Fn(&Event) -> bool + Send + Sync);

/// Which part of a timeline is asked for.
#[derive(Clone)]
pub struct PageRequest<'a> {
    /// Where to start; none for the end of the timeline that the direction starts at.
    pub from: Option<PageToken>,
    /// Where to stop.
    pub to: Option<PageToken>,
    /// Which way.
    pub direction: Direction,
    /// How many events, [`MOST_EVENTS`] at most.
    pub limit: usize,
    /// Which events.
    pub wanted: EventPredicate<'a>,
    /// Whether the page comes with the membership events of its senders.
    pub lazy_members: bool,
    /// The gap that is passed over, since nobody fills it, as the place after it. Any other ends a page going backward.
    pub passing: Option<Place>,
}

/// A part of a timeline.
#[derive(Debug)]
pub struct TimelinePage {
    /// Where it starts.
    pub start: PageToken,
    /// Where to go on; none where history ends.
    pub end: Option<PageToken>,
    /// The gap in the timeline that ended the page before it was full.
    pub gap: Option<Gap>,
    /// The events, in the direction of reading.
    pub chunk: Vec<VisibleEvent>,
    /// The membership events of the senders, if asked for.
    pub state: Vec<Arc<StoredEvent>>,
}

impl TimelinePage {
    /// Adds the page after it in the direction of reading.
    pub fn go_on_with(&mut self, next: TimelinePage) {
        self.end = next.end;
        self.gap = next.gap;
        self.chunk.extend(next.chunk);
        let known: HashSet<_> = self.state.iter().map(|stored| stored.nid).collect();
        let new = next
            .state
            .into_iter()
            .filter(|stored| !known.contains(&stored.nid));
        self.state.extend(new);
    }
}

/// An event and what stands around it.
#[derive(Debug)]
pub struct EventContext {
    /// The event.
    pub event: VisibleEvent,
    /// Events before it, newest first.
    pub before: Vec<VisibleEvent>,
    /// Events after it, oldest first.
    pub after: Vec<VisibleEvent>,
    /// The gap in the timeline that ended `before`.
    pub gap: Option<Gap>,
    /// Where to go on backwards.
    pub start: PageToken,
    /// Where to go on forwards.
    pub end: PageToken,
    /// The state at the last event: all of it, or the membership events of the senders.
    pub state: Vec<Arc<StoredEvent>>,
}

/// Somebody who may read a room's timeline, and how far.
pub(in crate::rooms) struct TimelineScan<'a> {
    user_id: &'a UserId,
    room: &'a Room,
    reader: ReaderMembership,
    /// The first and the last place that there is.
    first: Place,
    last: Place,
    /// Where reading backwards begins: for those who have left, where they left.
    end: Place,
}

/// A range to scan, from one boundary between events to another.
pub(in crate::rooms) struct ScanRange<'a> {
    pub(in crate::rooms) from: Place,
    pub(in crate::rooms) to: Option<Place>,
    pub(in crate::rooms) direction: Direction,
    pub(in crate::rooms) limit: usize,
    pub(in crate::rooms) wanted: EventPredicate<'a>,
}

/// What was found on the way.
pub(in crate::rooms) struct ScanResult {
    /// In the direction of walking.
    pub(in crate::rooms) found: Vec<VisibleEvent>,
    /// The boundary that was reached, as the place before it.
    boundary: Place,
    /// Whether there may be more beyond it.
    more: bool,
}

/// Timelines of rooms as users may read them.
#[derive(Debug)]
pub struct TimelineReader {
    pub(in crate::rooms) store: Arc<Store>,
    pub(in crate::rooms) repository: Arc<RoomRepository>,
    pub(in crate::rooms) visibility: Arc<Visibility>,
    pub(in crate::rooms) gaps: Arc<TimelineGaps>,
    pub(in crate::rooms) state_reader: Arc<StateReader>,
}

impl TimelineReader {
    /// A page of a room's timeline.
    ///
    /// # Errors
    /// [`Refusal::Forbidden`] to those who may not read the room, [`Refusal::InvalidParam`] for a token of another
    /// log.
    pub async fn messages(
        &self,
        user_id: &UserId,
        room: &Room,
        request: PageRequest<'_>,
    ) -> Result<TimelinePage, Refusal> {
        let _whole = room.past.read().await;
        let scan = self.scan_for(user_id, room).await?;
        let start = match (request.from, request.direction) {
            (Some(token), _) => self.repository.boundary(room, token).await?,
            (None, Direction::Backward) => scan.end,
            (None, Direction::Forward) => Place(scan.first.0.saturating_sub(1)),
        };
        let to = match request.to {
            Some(token) => Some(self.repository.boundary(room, token).await?),
            None => None,
        };
        let range = |to| ScanRange {
            from: start,
            to,
            direction: request.direction,
            limit: request.limit.clamp(1, MOST_EVENTS),
            wanted: request.wanted,
        };
        // Most pages reach no gap, so the events are not kept waiting for it.
        let (gap, mut scanned) = match request.direction {
            Direction::Backward => {
                let gap = self.gap_before(room, start, request.passing);
                tokio::try_join!(gap, self.scan(&scan, range(to)))?
            }
            Direction::Forward => (None, self.scan(&scan, range(to)).await?),
        };
        // Where the reader wants to stop comes first.
        let gap = gap.filter(|gap| to.is_none_or(|to| to < gap.before));
        if let Some(end) = gap.as_ref().map(before).filter(|end| scanned.boundary < *end) {
            scanned = self.scan(&scan, range(Some(end))).await?;
        }
        let state = if request.lazy_members {
            self.senders_at_newest(room, &scanned.found).await?
        } else {
            Vec::new()
        };
        let gap = gap.filter(|_| !scanned.more);
        let end = match &gap {
            Some(gap) => Some(before(gap)),
            None => scanned.more.then_some(scanned.boundary),
        };
        Ok(TimelinePage {
            start: PageToken::Place(start),
            end: end.map(PageToken::Place),
            gap,
            chunk: scanned.found,
            state,
        })
    }

    /// An event with up to `limit` events around it.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] when there is no such event, or the user may not see it.
    pub async fn context(
        &self,
        user_id: &UserId,
        room: &Room,
        event_id: &EventId,
        limit: usize,
        wanted: EventPredicate<'_>,
        lazy_members: bool,
    ) -> Result<EventContext, Refusal> {
        let _whole = room.past.read().await;
        let event = self.visible_event(user_id, room, event_id).await?;
        let place = event.stored.place.unwrap_or(Place::FIRST_LIVE);
        let scan = self.scan_for(user_id, room).await?;
        let limit = limit.min(MOST_EVENTS);
        let gap = self.gaps.gap_back_from(room, place).await?;
        let backward = ScanRange {
            from: Place(place.0.saturating_sub(1)),
            to: gap.as_ref().map(before),
            direction: Direction::Backward,
            limit: limit / 2,
            wanted,
        };
        let forward = ScanRange {
            from: place,
            to: None,
            direction: Direction::Forward,
            limit: limit - limit / 2,
            wanted,
        };
        let earlier = self.scan(&scan, backward).await?;
        let after = self.scan(&scan, forward).await?;
        let state = if lazy_members {
            let around = earlier.found.iter().chain([&event]).chain(&after.found);
            let around: Vec<VisibleEvent> = around.cloned().collect();
            self.senders_at_newest(room, &around).await?
        } else {
            let newest = after.found.last().unwrap_or(&event);
            self.state_reader.whole_state(room, newest.stored.state).await?
        };
        Ok(EventContext {
            event,
            gap: gap.filter(|_| !earlier.more),
            before: earlier.found,
            after: after.found,
            start: PageToken::Place(earlier.boundary),
            end: PageToken::Place(after.boundary),
            state,
        })
    }

    /// Whether somebody may read anything of a room's timeline.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn may_read(&self, user_id: &UserId, room: &Room) -> Result<bool, Refusal> {
        match self.scan_for(user_id, room).await {
            Ok(_) => Ok(true),
            Err(Refusal::Forbidden(_)) => Ok(false),
            Err(refusal) => Err(refusal),
        }
    }

    /// One event of a room's timeline.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] when there is no such event, or the user may not see it.
    pub async fn visible_event(
        &self,
        user_id: &UserId,
        room: &Room,
        event_id: &EventId,
    ) -> Result<VisibleEvent, Refusal> {
        let missing = || Refusal::not_found("there is no such event, or you may not see it");
        let stored = self
            .store
            .rooms
            .event(event_id)
            .await?
            .filter(|stored| stored.room == room.nid);
        let stored = stored.ok_or_else(missing)?;
        let reader = self.visibility.membership_of(user_id, room).await?;
        let mut seen = self
            .visibility
            .visible_events(user_id, room, &reader, vec![stored])
            .await?;
        seen.pop().ok_or_else(missing)
    }

    /// The gap that ends a page which begins after a place and goes back.
    async fn gap_before(
        &self,
        room: &Room,
        start: Place,
        passing: Option<Place>,
    ) -> Result<Option<Gap>, Refusal> {
        // A page that begins right at a gap is ended by it, too.
        let from = Place(start.0.saturating_add(1));
        let below = passing.map_or(from, |passing| from.min(Place(passing.0 - 1)));
        self.gaps.gap_back_from(room, below).await
    }

    pub(in crate::rooms) async fn scan_for<'a>(
        &self,
        user_id: &'a UserId,
        room: &'a Room,
    ) -> Result<TimelineScan<'a>, Refusal> {
        let reader = self.visibility.membership_of(user_id, room).await?;
        let head = room.head();
        let mut end = head.last_place;
        if !matches!(reader, ReaderMembership::Member) && !self.repository.is_world_readable(room).await? {
            match &reader {
                ReaderMembership::Departed { departure, .. } => end = departure.place.unwrap_or(end),
                _ => return Err(Refusal::forbidden("you are not in this room")),
            }
        }
        Ok(TimelineScan {
            user_id,
            room,
            reader,
            first: head.first_place,
            last: head.last_place,
            end,
        })
    }

    /// Scans a timeline until enough is found, history ends, or enough was looked at.
    pub(in crate::rooms) async fn scan(
        &self,
        scan: &TimelineScan<'_>,
        range: ScanRange<'_>,
    ) -> Result<ScanResult, Refusal> {
        let mut scanned = ScanResult {
            found: Vec::new(),
            boundary: range.from,
            more: true,
        };
        let (mut looked_at, mut read_at_once) = (0, range.limit);
        let mut ignored = None;
        while scanned.found.len() < range.limit && looked_at < MOST_LOOKED_AT {
            let from = Place(scanned.boundary.0.saturating_add(1));
            let batch = self
                .store
                .rooms
                .timeline(scan.room.nid, from, range.direction, read_at_once);
            let mut batch = match ignored {
                Some(_) => batch.await?,
                None => {
                    let (batch, read) = tokio::try_join!(
                        async { Ok(batch.await?) },
                        self.visibility.ignored_by(scan.user_id)
                    )?;
                    ignored = Some(read);
                    batch
                }
            };
            scanned.more = batch.len() == read_at_once;
            looked_at += batch.len();
            read_at_once = READ_AT_ONCE;
            batch.retain(|stored| range.contains(stored));
            let Some(beyond) = batch.last().map(|stored| range.boundary_beyond(stored)) else {
                scanned.more = false;
                break;
            };
            let seen = self
                .visibility
                .visible_events(scan.user_id, scan.room, &scan.reader, batch)
                .await?;
            scanned.boundary = beyond;
            for seen in seen {
                let is_ignored = ignored
                    .as_ref()
                    .is_some_and(|ignored| leaves_out(ignored, &seen.stored));
                if is_ignored || !(range.wanted)(&seen.stored.event) {
                    continue;
                }
                let beyond = range.boundary_beyond(&seen.stored);
                scanned.found.push(seen);
                if scanned.found.len() == range.limit {
                    scanned.more = true;
                    scanned.boundary = beyond;
                    break;
                }
            }
        }
        scanned.more &= match range.direction {
            Direction::Backward => scanned.boundary >= scan.first,
            Direction::Forward => scanned.boundary < scan.last,
        };
        Ok(scanned)
    }

    /// The membership events of the senders of some events, as they were at the newest of these.
    async fn senders_at_newest(
        &self,
        room: &Room,
        seen: &[VisibleEvent],
    ) -> Result<Vec<Arc<StoredEvent>>, Refusal> {
        let Some(newest) = seen.iter().max_by_key(|seen| seen.stored.place) else {
            return Ok(Vec::new());
        };
        let senders: HashSet<&str> = seen
            .iter()
            .map(|seen| seen.stored.event.sender.as_str())
            .collect();
        self.state_reader
            .members_in(room, newest.stored.state, senders)
            .await
    }
}

/// The boundary right after a gap, as the place before it.
fn before(gap: &Gap) -> Place {
    Place(gap.before.0 - 1)
}

/// Whether a reader who ignores these users is not given an event. State is given, so that the room stays in order.
pub(super) fn leaves_out(ignored: &HashSet<OwnedUserId>, stored: &StoredEvent) -> bool {
    !stored.event.is_state() && ignored.contains(&stored.event.sender)
}

impl ScanRange<'_> {
    fn contains(&self, stored: &StoredEvent) -> bool {
        match (self.to, stored.place, self.direction) {
            (Some(to), Some(place), Direction::Backward) => place > to,
            (Some(to), Some(place), Direction::Forward) => place <= to,
            _ => true,
        }
    }

    /// The boundary on the far side of an event, named as tokens name it: by the place before it.
    fn boundary_beyond(&self, stored: &StoredEvent) -> Place {
        match (stored.place, self.direction) {
            (Some(place), Direction::Backward) => Place(place.0.saturating_sub(1)),
            (Some(place), Direction::Forward) => place,
            (None, _) => self.from,
        }
    }
}
