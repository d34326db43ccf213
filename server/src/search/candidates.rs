//! Candidates of the index, looked at one batch after the other: until enough is found, or enough was looked at.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use maru_protocol::state::EventNid;
use ruma::{OwnedUserId, UserId};
use tokio::time::Instant;

use super::Search;
use super::analysis::{Needle, Query};
use super::document::{subject_of, text_of};
use super::find::{Hit, Wish};
use super::page::{Group, Page};
use crate::refusal::Refusal;
use crate::rooms::Room;
use crate::rooms::timeline::client_event_format::VisibleEvent;
use crate::rooms::visibility::ReaderMembership;
use crate::store::rooms::events::StoredEvent;
use crate::store::search::{Candidates, DocumentKey, Scope};

/// Candidates that one request looks at, at most, and the bytes of their events.
pub(super) const MOST_LOOKED_AT: usize = 1_000;
const MOST_BYTES: usize = 2 << 20;

/// Candidates that are looked at together.
const BATCH: usize = 100;

/// Bytes of texts that are read without anybody noticing.
const QUICKLY_READ: usize = 32 * 1024;

/// How long a request looks for more, and how long the index may take for one batch of candidates.
const LONGEST: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(2);

/// Somebody who looks at candidates.
pub(super) struct Looking<'a> {
    search: &'a Search,
    user_id: &'a UserId,
    wish: &'a Wish,
    asked: Candidates,
    rooms: HashMap<i64, (Arc<Room>, ReaderMembership)>,
    ignored: HashSet<OwnedUserId>,
    deadline: Instant,
    looked_at: usize,
    bytes: usize,
    most_bytes: usize,
    /// There are no more candidates.
    pub(super) is_over: bool,
}

impl<'a> Looking<'a> {
    /// Begins where a page does. None where nothing can be found: there is nothing to look for, or nowhere to look.
    pub(super) async fn begin(
        search: &'a Search,
        user_id: &'a UserId,
        wish: &'a Wish,
        page: &Page,
    ) -> Result<Option<Self>, Refusal> {
        let rooms = search.rooms_of(user_id, wish, page).await?;
        let senders = wish.senders(page);
        if wish.query.is_empty() || wish.subjects.is_empty() || rooms.is_empty() {
            return Ok(None);
        }
        if senders.as_ref().is_some_and(Vec::is_empty) {
            return Ok(None);
        }
        let mut asked = Candidates {
            scope: Scope {
                rooms,
                senders,
                subjects: wish.subjects.clone(),
                before: page.before,
                from: page.ranked.map(|(last, _)| last),
            },
            ..Candidates::default()
        };
        for needle in wish.query.needles() {
            match needle {
                Needle::Token(token) => asked.tokens.push(token),
                Needle::Beginning(start) => asked.beginnings.push(start),
            }
        }
        // What was ranked together once should be ranked together again.
        let patience = if page.ranked.is_some() { 2 } else { 1 };
        Ok(Some(Self {
            search,
            user_id,
            wish,
            asked,
            rooms: HashMap::new(),
            ignored: search.rooms.visibility.ignored_by(user_id).await?,
            deadline: Instant::now() + LONGEST * patience,
            most_bytes: MOST_BYTES * usize::try_from(patience).unwrap_or(1),
            looked_at: 0,
            bytes: 0,
            is_over: false,
        }))
    }

    /// The last candidate that was looked at, or where to begin.
    pub(super) fn reached(&self) -> Option<DocumentKey> {
        self.asked.scope.before
    }

    /// Whether no more may be looked at.
    pub(super) fn is_spent(&self) -> bool {
        let is_late = Instant::now() >= self.deadline;
        self.is_over || is_late || self.looked_at >= MOST_LOOKED_AT || self.is_full()
    }

    fn is_full(&self) -> bool {
        self.bytes >= self.most_bytes
    }

    /// What is found among the next candidates, the newest first.
    pub(super) async fn next(&mut self) -> Result<Vec<Hit>, Refusal> {
        let size = BATCH.min(MOST_LOOKED_AT - self.looked_at);
        let keys = self
            .search
            .store
            .search
            .candidates(&self.asked, size, PATIENCE)
            .await?;
        let Some(mut keys) = keys else {
            if self.looked_at > 0 {
                // What was found so far is an answer, and a later request goes on from there.
                self.looked_at = MOST_LOOKED_AT;
                return Ok(Vec::new());
            }
            let why = "this search takes too long; look for more words, or in fewer rooms";
            return Err(Refusal::invalid(why));
        };
        self.is_over = keys.len() < size;
        let nids: Vec<EventNid> = keys.iter().map(|key| key.parts().1).collect();
        let events = self.search.store.rooms.events_by_nid(&nids).await?;
        let mut taken = 0;
        for nid in &nids {
            if taken > 0 && self.is_full() {
                self.is_over = false;
                break;
            }
            self.bytes += events.get(nid).map_or(0, |stored| stored.event.json.len());
            taken += 1;
        }
        keys.truncate(taken);
        self.looked_at += taken;
        self.asked.scope.before = keys.last().copied().or(self.asked.scope.before);
        let taken = nids.iter().take(taken);
        let wanted = taken
            .filter_map(|nid| events.get(nid))
            .filter(|stored| self.wants(stored));
        let wanted = wanted.cloned().collect();
        let mut found = self.found_among(wanted).await?;
        Ok(keys
            .into_iter()
            .filter_map(|key| found.remove(&key.parts().1))
            .collect())
    }

    /// Whether an event is what is looked for but for its text, as far as that can be told by itself.
    fn wants(&self, stored: &StoredEvent) -> bool {
        let event = &stored.event;
        subject_of(event).is_some_and(|subject| self.wish.subjects.contains(&subject))
            && self.asked.scope.rooms.contains(&stored.room)
            && self.wish.wants(event)
            && (event.is_state() || !self.ignored.contains(&event.sender))
    }

    /// Those of some events that the user may see, and whose texts hold what is looked for.
    async fn found_among(
        &mut self,
        events: Vec<Arc<StoredEvent>>,
    ) -> Result<HashMap<EventNid, Hit>, Refusal> {
        let mut by_room: HashMap<i64, Vec<_>> = HashMap::new();
        for stored in events {
            by_room.entry(stored.room).or_default().push(stored);
        }
        let mut seen = Vec::new();
        let rooms = &self.search.rooms;
        for (nid, events) in by_room {
            let user_id = self.user_id;
            if let Some((room, reader)) = self.room(nid).await? {
                let visible = rooms.visibility.visible_events(user_id, room, reader, events);
                seen.extend(visible.await?);
            }
        }
        let messages = seen
            .iter()
            .map(|seen| &seen.stored)
            .filter(|stored| !stored.event.is_state());
        let ids = messages.map(|stored| stored.event.id.to_string()).collect();
        let edits = rooms.aggregations.visible_edits(self.user_id, ids).await?;
        let texts = seen.into_iter().filter_map(|seen| {
            let event = &seen.stored.event;
            let edit = edits.get(&event.id).map(|edit| &*edit.event);
            let text = text_of(event, edit)?;
            Some((seen, text))
        });
        let hits = scored(Arc::clone(&self.wish.query), texts.collect()).await?;
        Ok(hits.into_iter().map(|hit| (hit.seen.stored.nid, hit)).collect())
    }

    /// A room, and what the user is to it.
    async fn room(&mut self, nid: i64) -> Result<Option<&(Arc<Room>, ReaderMembership)>, Refusal> {
        if !self.rooms.contains_key(&nid) {
            let rooms = &self.search.rooms;
            let Some(room) = rooms.repository.room_by_nid(nid).await? else {
                return Ok(None);
            };
            let reader = rooms.visibility.membership_of(self.user_id, &room).await?;
            self.rooms.insert(nid, (room, reader));
        }
        Ok(self.rooms.get(&nid))
    }
}

/// Those of some events whose texts hold what is looked for. Where the texts are long, off the async threads.
async fn scored(query: Arc<Query>, texts: Vec<(VisibleEvent, String)>) -> Result<Vec<Hit>, Refusal> {
    let bytes: usize = texts.iter().map(|(_, text)| text.len()).sum();
    let score = move || {
        let hits = texts.into_iter().filter_map(|(seen, text)| {
            let score = query.score(&text)?;
            let key = DocumentKey::new(seen.stored.event.origin_server_ts, seen.stored.nid);
            Some(Hit { key, seen, score })
        });
        hits.collect()
    };
    match bytes > QUICKLY_READ {
        true => tokio::task::spawn_blocking(score)
            .await
            .map_err(Refusal::internal),
        false => Ok(score()),
    }
}

impl Search {
    /// The rooms that somebody looks in: those that the user is or has been in, and wants.
    async fn rooms_of(&self, user_id: &UserId, wish: &Wish, page: &Page) -> Result<Vec<i64>, Refusal> {
        let all = self.store.rooms.memberships_of(user_id).await?;
        let in_group = |room: &str| match &page.group {
            Some(Group::Room(group)) => group == room,
            _ => true,
        };
        let rooms = all.into_iter().filter(|stored| {
            let room_id = stored.room_id.as_str();
            let was_in = stored.joined_at.0 > 0 && !stored.forgotten;
            was_in && in_group(room_id) && wish.filter.wants_room(room_id)
        });
        Ok(rooms.map(|stored| stored.membership.room).collect())
    }
}
