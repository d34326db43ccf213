//! One device listening: the loop under the long-poll and the WebSocket.

mod waiting;
mod windows;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use maru_protocol::auth::StateSlot;
use maru_protocol::cursor::{Position, SinceToken};
use ruma::OwnedUserId;
use tokio::time::Instant;

use self::waiting::Leaving;
pub(super) use self::windows::InMemory;
use super::answer::{
    Draft, SyncResponse, account_data, open, write_comma, write_events, write_json, write_name,
};
use super::deadline::before;
use super::joined::{JoinedParts, Timeline};
use super::lazy_members::GivenMembers;
use super::state::Asking;
use super::window::{JoinedWindow, Window};
use super::{Sync, SyncRequest, device_lists, joined, left, members, presence, stripped, unread};
use crate::accounts::Caller;
use crate::keys::RememberedCounts;
use crate::live::UserInbox;
use crate::refusal::Refusal;
use crate::rooms::timeline::client_event_format::{Reader, Recency, UnsignedData};
use crate::store::rooms::events::StoredEvent;

/// Members named in the summary of a room without a name.
const HEROES: usize = 5;

/// A device that listens, and its cursor. Each answer moves the cursor.
#[derive(Debug)]
pub struct Session<'s> {
    sync: &'s Sync,
    caller: Caller,
    wish: SyncRequest,
    /// What has been looked through.
    since: Option<SinceToken>,
    /// What the device has: the cursor that it came with, or that of the last answer.
    has: Option<Position>,
    /// The members that the device has been given, if it loads them lazily.
    given: Option<GivenMembers>,
    inbox: Arc<UserInbox>,
    /// Users whose messages are not shown (`m.ignored_user_list`).
    ignored: Arc<HashSet<OwnedUserId>>,
    /// The device's keys on the server.
    key_counts: RememberedCounts,
    /// How often the user's sessions had been recalled when the device's token was looked at.
    recalls: u64,
    /// When it leaves, where everybody is to.
    leaving: Leaving,
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        self.inbox.session_ended(self.sync.clock.now_ms());
        self.sync.notifier.session_ended();
    }
}

impl<'s> Session<'s> {
    pub(super) fn new(sync: &'s Sync, caller: Caller, since: Option<SinceToken>, wish: SyncRequest) -> Self {
        let inbox = sync.notifier.open(&caller.user_id);
        inbox.session_started();
        sync.notifier.session_started();
        let recalls = inbox.recalls();
        let lazily = wish.filter.lazy_load_members;
        let given = lazily.then(|| sync.lazily_loaded.of(&caller));
        Self {
            sync,
            caller,
            wish,
            since,
            has: since.map(|since| since.position),
            given,
            inbox,
            ignored: Arc::default(),
            key_counts: RememberedCounts::default(),
            recalls,
            leaving: Leaving::default(),
        }
    }

    /// Whose it is.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// To be called right before the device's token is looked at: a recall after this ends the next wait at once.
    pub fn heed_recalls(&mut self) {
        self.recalls = self.inbox.recalls();
    }

    /// Answers what there is for the device, or waits for something, at most until `deadline`; an answer without news
    /// then. None when the wait ended before: look at the device's token and ask again. A first sync, or one of whole
    /// states, answers at once.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn next(&mut self, deadline: Instant) -> Result<Option<SyncResponse>, Refusal> {
        // Boxed, since a waiting device must not hold the memory of an answer being written.
        if let Some(answer) = Box::pin(self.look()).await? {
            return Ok(Some(answer));
        }
        if before(deadline, self.wait()).await {
            return Ok(None);
        }
        let next_batch = self.since.unwrap_or_else(|| self.now());
        self.answering(next_batch.position);
        self.has = Some(next_batch.position);
        let mut draft = Draft::new(self.wish.opening, next_batch, 0);
        Box::pin(self.write_key_counts(&mut draft.out)).await?;
        Ok(Some(draft.finish()))
    }

    /// The device has dealt with everything up to a cursor that it was given.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn acknowledge(&self, cursor: SinceToken) -> Result<(), Refusal> {
        self.sync.acknowledge(&self.caller, cursor).await
    }

    /// Whether [`Session::look`] may find something. A first sync always does.
    pub(super) fn has_news(&self) -> bool {
        let Some(since) = self.since else { return true };
        let now = self.now();
        let ephemeral = now.ephemeral.newest();
        let told = since.ephemeral.of_start_at(ephemeral);
        self.inbox
            .has_after(since.position, told, now.position, ephemeral)
    }

    /// How far the device may read.
    pub(super) fn now(&self) -> SinceToken {
        let (mut position, ephemeral) = (self.sync.notifier.position(), self.sync.notifier.ephemeral());
        if let Some(hold) = self.sync.unanswered.hold(&self.caller) {
            let since = self.since.map_or(Position::START, |since| since.position);
            position = position.min(hold.position).max(since);
        }
        let counts = self.since.map(|since| since.ephemeral).unwrap_or_default();
        self.sync.token(position, counts.moved_to(ephemeral))
    }

    /// The user's inbox.
    pub(super) fn inbox(&self) -> &UserInbox {
        &self.inbox
    }

    /// Moves the cursor past what was looked at.
    pub(super) fn looked_up_to(&mut self, now: SinceToken) {
        self.since = Some(now);
    }

    /// Waits until the answers to the device's own requests, up to a position to which it is answered, are handed on.
    pub(super) async fn answered_before(&self, until: Position) {
        let unanswered = &self.sync.unanswered;
        unanswered.answered_before(&self.caller, until, &self.inbox).await;
    }

    /// What there is for the device now, if anything. Moves the cursor past what was looked at.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn look(&mut self) -> Result<Option<SyncResponse>, Refusal> {
        let mut now = self.now();
        self.refresh_ignored_users().await?;
        let window = match self.since {
            Some(since) if !self.wish.full_state => match self.recent(since, now).await? {
                Some(window) => window,
                None => return Ok(None),
            },
            since => self.gathered(since, now).await?,
        };
        now.position = window.until;
        let first = self.since.is_none() || self.wish.full_state;
        self.wish.full_state = false;
        self.answering(now.position);
        let mut draft = Draft::new(self.wish.opening, now, window.expected_bytes());
        self.write(&mut draft.out, &window).await?;
        self.since = Some(now);
        if draft.is_empty() && !first {
            return Ok(None);
        }
        self.has = Some(now.position);
        self.write_key_counts(&mut draft.out).await?;
        Ok(Some(draft.finish()))
    }

    /// Notes that the device is being answered up to a position.
    fn answering(&self, until: Position) {
        if let Some(given) = &self.given {
            given.answering(self.has, until);
        }
    }

    /// Appends the members of the answer's object.
    async fn write(&self, out: &mut String, window: &Window) -> Result<(), Refusal> {
        let filter = &self.wish.filter;
        // To-device messages stand before the events that they decrypt.
        if !window.to_device.is_empty() {
            self.sync.nothing_kept.gave(&self.caller);
            write_name(out, "to_device");
            out.push('{');
            write_events(out, window.to_device.iter().map(String::as_str));
            out.push('}');
        }
        let wanted = window
            .account_data
            .iter()
            .filter(|data| filter.account_data.wants(&data.data_type, None));
        let data: Vec<String> = wanted
            .map(|data| account_data(&data.data_type, &data.content))
            .collect();
        if !data.is_empty() {
            write_name(out, "account_data");
            out.push('{');
            write_events(out, data.iter().map(String::as_str));
            out.push('}');
        }
        let presence = presence::events(self.sync, &self.wish, window);
        if !presence.is_empty() {
            write_name(out, "presence");
            out.push('{');
            write_events(out, presence.iter().map(String::as_str));
            out.push('}');
        }
        let lists = device_lists::of(self.sync, &self.caller, window).await?;
        if !lists.changed.is_empty() || !lists.left.is_empty() {
            write_name(out, "device_lists");
            write_json(
                out,
                &serde_json::json!({ "changed": lists.changed, "left": lists.left }),
            );
        }
        self.write_rooms(out, window).await
    }

    /// What the device must know of its keys on the server. Not news by itself, but part of every answer.
    async fn write_key_counts(&mut self, out: &mut String) -> Result<(), Refusal> {
        let Caller {
            user_id, device_id, ..
        } = &self.caller;
        let keys = &self.sync.keys;
        let counts = keys
            .remembered_counts(&mut self.key_counts, user_id, device_id)
            .await?;
        write_name(out, "device_one_time_keys_count");
        write_json(out, &counts.one_time);
        write_name(out, "device_unused_fallback_key_types");
        write_json(out, &counts.unused_fallback);
        Ok(())
    }

    /// What the device's states are made from.
    fn asking(&self, window: &Window) -> Asking<'_> {
        Asking {
            sync: self.sync,
            caller: &self.caller,
            wish: &self.wish,
            given: self.given.as_ref(),
            until: window.until,
        }
    }

    async fn write_rooms(&self, out: &mut String, window: &Window) -> Result<(), Refusal> {
        let rooms = open(out, "rooms");
        if !window.joined.is_empty() {
            let join = open(out, "join");
            self.write_joined(out, window).await?;
            join.close(out);
        }
        for membership in ["invite", "knock"] {
            let section = open(out, membership);
            let outside = window.outside.iter();
            for outside in outside.filter(|outside| outside.membership.membership == membership) {
                write_comma(out);
                stripped::write(out, self.sync, outside).await?;
            }
            section.close(out);
        }
        if !window.left.is_empty() {
            let leave = open(out, "leave");
            self.write_left(out, window).await?;
            leave.close(out);
        }
        rooms.close(out);
        Ok(())
    }

    async fn write_joined(&self, out: &mut String, window: &Window) -> Result<(), Refusal> {
        let sync = self.sync;
        let states = self
            .asking(window)
            .of_rooms(window.joined.values(), window.full_state)
            .await?;
        let changed_counts = window.joined.values().filter(|joined| joined.unread);
        let unread = unread::counts(sync, &self.caller.user_id, &self.inbox, changed_counts).await?;
        let heroes = self.heroes(window).await?;
        let now_ms = sync.clock.now_ms();
        let timelines: Vec<Timeline> = window
            .joined
            .values()
            .map(|joined| self.timeline(window, joined, now_ms))
            .collect();
        let written = timelines.iter().flat_map(Timeline::events);
        let view = self
            .view(window, written.chain(states.values().flatten()).collect())
            .await?;
        for ((nid, joined), timeline) in window.joined.iter().zip(&timelines) {
            let parts = JoinedParts {
                joined,
                state: states.get(nid).map(Vec::as_slice).unwrap_or_default(),
                timeline,
                unread: unread.get(nid).filter(|_| joined.unread),
                heroes: heroes.get(nid).map(Vec::as_slice),
                typing: (joined.typing || joined.entire).then(|| sync.typing.typing_users(*nid)),
                whole: window.full_state,
            };
            joined::write(out, sync, &self.caller, &self.wish, &view, &parts);
        }
        Ok(())
    }

    /// A room's timeline as it is to be written for this device.
    fn timeline(&self, window: &Window, joined: &JoinedWindow, now_ms: u64) -> Timeline {
        let filter = &self.wish.filter.timeline;
        let sent_here = || {
            let mut events = joined.timeline.iter();
            !window.sent.is_empty() && events.any(|stored| window.sent.contains_key(&stored.event.id))
        };
        let is_for_all = !window.gathered
            && !joined.limited
            && filter.is_everything()
            && self.ignored.is_empty()
            && !sent_here();
        if is_for_all && let Some(shared) = self.sync.timelines.get(joined, now_ms) {
            return Timeline::SharedTimeline(shared);
        }
        Timeline::Own(joined.timeline.clone(), is_for_all)
    }

    async fn write_left(&self, out: &mut String, window: &Window) -> Result<(), Refusal> {
        let seen = window.left.iter().filter_map(|left| left.seen.as_ref());
        let states = self.asking(window).of_rooms(seen, false).await?;
        let timelines = window.left.iter().flat_map(|left| left.timeline());
        let view = self
            .view(window, timelines.chain(states.values().flatten()).collect())
            .await?;
        for left in &window.left {
            let state = match &left.seen {
                Some(seen) => states.get(&seen.room.nid).map(Vec::as_slice),
                // All that is known after the timeline is that the user is out.
                None => Some(left.timeline()).filter(|_| self.wish.state.is_after()),
            };
            let state = state.unwrap_or_default();
            left::write(out, left, state, &view, &self.wish);
        }
        Ok(())
    }

    /// The first other members of rooms whose members changed and that have no name of their own.
    async fn heroes(&self, window: &Window) -> Result<HashMap<i64, Vec<OwnedUserId>>, Refusal> {
        let nameless = |joined: &&JoinedWindow| {
            let state = &joined.room.head().state;
            let lacks = |event_type| state.get(&StateSlot::new(event_type, "").hash()).is_none();
            members::changed(joined) && lacks("m.room.name") && lacks("m.room.canonical_alias")
        };
        let rooms = window
            .joined
            .values()
            .filter(nameless)
            .map(|joined| joined.room.nid)
            .collect();
        let user_id = &self.caller.user_id;
        Ok(self.sync.store.rooms.heroes(rooms, user_id, HEROES).await?)
    }

    async fn view(&self, window: &Window, events: Vec<&Arc<StoredEvent>>) -> Result<UnsignedData, Refusal> {
        let reader = Reader {
            user_id: &self.caller.user_id,
            device_id: Some(&self.caller.device_id),
        };
        let recency = if window.gathered {
            Recency::Followed
        } else {
            Recency::Live
        };
        let rooms = &self.sync.rooms;
        let mut view = rooms.client_events.unsigned_data(reader, events, recency).await?;
        // What relates to an event stands after it, so a client that follows the room has it all unless something is left
        // out (client-server API, "Server behaviour" of aggregations).
        let joined = window.joined.values();
        let joined = joined.filter(|joined| joined.limited || joined.entire);
        let joined = joined.flat_map(|joined| &joined.timeline);
        let left = window.left.iter().flat_map(|left| left.timeline());
        let limited: Vec<&Arc<StoredEvent>> = joined.chain(left).collect();
        rooms.aggregations.bundle(&mut view, reader, &limited).await?;
        for (event_id, transaction_id) in &window.sent {
            view.sent_as(event_id, transaction_id);
        }
        Ok(view)
    }
}
