//! What there is for a device of the rooms that it asks for, each from where it has it: from the user's inbox where that
//! reaches back to the device's `pos`, otherwise from the database.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, LazyLock};

use maru_protocol::cursor::{Position, SinceToken};
use ruma::{OwnedRoomId, OwnedUserId};

use super::connection::{Connection, Due};
use super::request::SlidingRequest;
use super::room_list::{Asked, Choice, DIRECT, RoomList};
use crate::accounts::Caller;
use crate::refusal::Refusal;
use crate::store::rooms::StoredMembership;
use crate::sync::filter::EventFilter;
use crate::sync::session::{InMemory, Session};
use crate::sync::shown::Shown;
use crate::sync::window::{JoinedWindow, Window};
use crate::sync::{DeviceLists, Sync, database_window, device_lists};

/// What there is for a device.
#[derive(Debug)]
pub(super) struct Gathered<'r> {
    /// What is new. Rooms are those that are asked for and have news.
    pub(super) window: Window,
    /// The rooms that are asked for.
    pub(super) choice: Choice<'r>,
    /// The newest events of rooms of which more events are asked for than before.
    pub(super) expanded: HashMap<i64, JoinedWindow>,
    /// Whose devices changed.
    pub(super) device_lists: DeviceLists,
    /// Rooms that became direct chats or are none any more.
    pub(super) direct_changed: HashSet<OwnedRoomId>,
    /// The user's rooms now.
    pub(super) list: RoomList,
    /// Whether messages to the device may wait in the database.
    pub(super) has_messages: bool,
}

/// A device that asks.
pub(super) struct Asking<'a, 'r> {
    pub(super) sync: &'a Sync,
    pub(super) caller: &'a Caller,
    pub(super) session: &'a Session<'a>,
    pub(super) request: &'r SlidingRequest,
    pub(super) connection: &'a Connection,
    pub(super) ignored: &'a HashSet<OwnedUserId>,
    /// The device's `pos`; none for a new connection.
    pub(super) since: Option<SinceToken>,
}

impl<'r> Asking<'_, 'r> {
    /// What there is up to `now`, or after it: see [`database_window::memberships_now`].
    ///
    /// # Errors
    /// When the database cannot be read.
    pub(super) async fn gather(
        &self,
        list: Option<&RoomList>,
        now: SinceToken,
    ) -> Result<Gathered<'r>, Refusal> {
        let (Some(since), Some(list)) = (self.since, list) else {
            return self.in_database(now).await;
        };
        if list.until < since.position {
            return self.in_database(now).await;
        }
        match self.session.in_memory(since, now) {
            InMemory::TooLittle => self.in_database(now).await,
            InMemory::Window(window) => self.in_memory(list, *window).await,
            InMemory::Nothing => {
                let window = Window {
                    since: Some(since.position),
                    until: now.position,
                    ..Window::default()
                };
                self.in_memory(list, window).await
            }
        }
    }

    async fn in_memory(&self, list: &RoomList, mut window: Window) -> Result<Gathered<'r>, Refusal> {
        let device_lists = match self.request.extensions.e2ee {
            true => device_lists::of(self.sync, self.caller, &window).await?,
            false => DeviceLists::default(),
        };
        if !window.to_device.is_empty() {
            self.sync.nothing_kept.gave(self.caller);
        }
        let has_messages = !self.sync.nothing_kept.is_known_for(self.caller);
        let (mut list, direct_changed) = list.after(&window);
        let choice = list.choose(self.sync, self.caller, self.request).await?;
        let is_current =
            |nid: &i64| choice.rooms.contains_key(nid) && self.connection.due(*nid) == Due::Current;
        window.joined.retain(|nid, _| is_current(nid));
        let lacking = self
            .windows(&choice, window.until, |due| due != Due::Current)
            .await?;
        if !lacking.is_empty() {
            let mut late = self.late(&window);
            late.joined = lacking;
            self.fill(&mut late).await?;
            late.joined.retain(|_, joined| !joined.is_idle());
            window.gathered = true;
            window.joined.append(&mut late.joined);
        }
        self.add_invitations(&choice, &mut window).await?;
        self.finish(Gathered {
            window,
            choice,
            expanded: HashMap::new(),
            device_lists,
            direct_changed,
            list,
            has_messages,
        })
        .await
    }

    async fn in_database(&self, now: SinceToken) -> Result<Gathered<'r>, Refusal> {
        let Self { sync, caller, .. } = self;
        let (memberships, until) = database_window::memberships_now(sync, caller, now.position).await?;
        let ended = self.left(&memberships);
        let mut list = RoomList::read(sync, caller, memberships, until).await?;
        let choice = list.choose(sync, caller, self.request).await?;
        let mut window = Window {
            since: self.since.map(|since| since.position),
            until,
            gathered: true,
            ..Window::default()
        };
        window.joined = self.windows(&choice, until, |_| true).await?;
        self.fill(&mut window).await?;
        self.add_invitations(&choice, &mut window).await?;
        for membership in ended {
            let left =
                database_window::left_window(sync, &membership, window.since, self.shown(), self.limit());
            window.left.extend(left.await?);
        }
        self.add_typing(&mut window, now);
        window.joined.retain(|_, joined| !joined.is_idle());
        let device_lists = match self.since {
            Some(since) if self.request.extensions.e2ee => {
                let to = SinceToken {
                    position: until,
                    ..now
                };
                sync.device_lists(caller, since, to).await?
            }
            _ => DeviceLists::default(),
        };
        // Which of them are direct chats is compared with what the device has in memory only.
        let is_known =
            |asked: &&Asked<'_>| self.connection.config(asked.membership.membership.room).is_some();
        let known = choice.rooms.values().filter(is_known);
        let mut changed = window.account_data.iter().map(|data| &data.data_type);
        let direct_changed = match self.since.is_some() && changed.any(|data_type| data_type == DIRECT) {
            true => known.map(|asked| asked.membership.room_id.clone()).collect(),
            false => HashSet::new(),
        };
        self.finish(Gathered {
            window,
            choice,
            expanded: HashMap::new(),
            device_lists,
            direct_changed,
            list,
            // What is known of them is what the inbox has not reached back to.
            has_messages: true,
        })
        .await
    }

    /// Empty windows of the joined rooms that are asked for, each from where the device has the room; of those for which
    /// `wanted` is true.
    async fn windows(
        &self,
        choice: &Choice<'_>,
        until: Position,
        wanted: impl Fn(Due) -> bool,
    ) -> Result<BTreeMap<i64, JoinedWindow>, Refusal> {
        let is_wanted = |(nid, asked): &(&i64, &Asked<'_>)| {
            asked.membership.membership.membership == "join" && wanted(self.connection.due(**nid))
        };
        let asked: Vec<_> = choice.rooms.iter().filter(is_wanted).collect();
        let nids: Vec<i64> = asked.iter().map(|(nid, _)| **nid).collect();
        let rooms = self.sync.rooms.repository.rooms_by_nid(&nids).await?;
        let since = self.since.map_or(Position::START, |since| since.position);
        let mut windows = BTreeMap::new();
        for (nid, asked) in asked {
            let Some(room) = rooms.get(nid) else { continue };
            let mut joined = JoinedWindow::of(Arc::clone(room));
            joined.after = match self.connection.due(*nid) {
                Due::Whole => Position::START,
                Due::After(position) => position,
                Due::Current => since,
            };
            let is_known = joined.after > Position::START && asked.membership.joined_at <= joined.after;
            joined.entire = !is_known;
            if joined.after < until {
                windows.insert(*nid, joined);
            }
        }
        Ok(windows)
    }

    /// Fills the windows of rooms: timelines, account data and receipts.
    async fn fill(&self, window: &mut Window) -> Result<(), Refusal> {
        let Self { sync, caller, .. } = self;
        if !window.joined.is_empty() {
            database_window::fill_joined(sync, caller, window, self.shown(), self.limit()).await?;
        }
        let extensions = &self.request.extensions;
        let wants_data = extensions.account_data.is_some() || extensions.receipts.is_some();
        if wants_data || !window.joined.is_empty() {
            database_window::fill_data(sync, caller, window, window.since).await?;
        }
        Ok(())
    }

    /// Adds the rooms without news of which more is asked for than before, and leaves in each no more events than are asked
    /// for of it.
    async fn finish(&self, mut gathered: Gathered<'r>) -> Result<Gathered<'r>, Refusal> {
        let mut more_events = Vec::new();
        let mut unchanged = Vec::new();
        for (nid, asked) in &gathered.choice.rooms {
            let Some(before) = self.connection.config(*nid) else {
                continue;
            };
            if asked.membership.membership.membership != "join" {
                continue;
            }
            let known = gathered.window.joined.get(nid);
            let has_fewer = before.timeline_limit < asked.config.timeline_limit;
            if has_fewer && !known.is_some_and(|joined| joined.entire) {
                more_events.push(*nid);
            }
            let is_wider = asked.config.required_state.is_wider_than(&before.required_state);
            let is_direct_changed = gathered.direct_changed.contains(&asked.membership.room_id);
            if known.is_none() && (has_fewer || is_wider || is_direct_changed) {
                unchanged.push(*nid);
            }
        }
        for (nid, room) in self.sync.rooms.repository.rooms_by_nid(&unchanged).await? {
            gathered.window.joined.insert(nid, JoinedWindow::of(room));
        }
        if !more_events.is_empty() {
            let mut newest = self.late(&gathered.window);
            for (nid, room) in self.sync.rooms.repository.rooms_by_nid(&more_events).await? {
                let mut joined = JoinedWindow::of(room);
                joined.entire = true;
                newest.joined.insert(nid, joined);
            }
            let (shown, limit) = (self.shown(), self.limit());
            database_window::fill_joined(self.sync, self.caller, &mut newest, shown, limit).await?;
            gathered.expanded = newest.joined.into_iter().collect();
        }
        let shown = self.shown();
        let rooms = gathered.window.joined.iter_mut().chain(&mut gathered.expanded);
        for (nid, joined) in rooms {
            if let Some(asked) = gathered.choice.rooms.get(nid) {
                shown.cut(joined, asked.config.timeline_limit);
            }
        }
        Ok(gathered)
    }

    /// An empty window of the same stretch of the log, to be filled from the database.
    fn late(&self, window: &Window) -> Window {
        Window {
            since: window.since,
            until: window.until,
            gathered: true,
            ..Window::default()
        }
    }

    /// The memberships by which rooms ended that the device has.
    fn left(&self, memberships: &[StoredMembership]) -> Vec<StoredMembership> {
        let since = self.since.map_or(Position::START, |since| since.position);
        let is_news = |m: &&StoredMembership| {
            let has_until = match self.connection.due(m.membership.room) {
                Due::Whole | Due::After(Position::START) => return false,
                Due::After(position) => position,
                Due::Current => since,
            };
            matches!(m.membership.membership.as_str(), "leave" | "ban") && m.position > has_until
        };
        memberships.iter().filter(is_news).cloned().collect()
    }

    /// Adds the invitations and knocks that are asked for and that the device does not have.
    async fn add_invitations(&self, choice: &Choice<'_>, window: &mut Window) -> Result<(), Refusal> {
        let since = window.since.unwrap_or_default();
        let is_news = |(nid, asked): &(&i64, &Asked<'_>)| {
            let has_until = match self.connection.due(**nid) {
                Due::Whole => Position::START,
                Due::After(position) => position,
                Due::Current => since,
            };
            asked.membership.membership.membership != "join" && asked.membership.position > has_until
        };
        let invitations = choice.rooms.iter().filter(is_news);
        window.outside = invitations.map(|(_, asked)| asked.membership.clone()).collect();
        database_window::drop_ignored_invitations(self.sync, window, self.ignored).await
    }

    /// Notes in which rooms somebody started or stopped typing.
    fn add_typing(&self, window: &mut Window, now: SinceToken) {
        let told = |since: SinceToken| since.ephemeral.of_start_at(now.ephemeral.newest());
        let passing = self
            .since
            .map(|since| self.sync.notifier.passing_after(told(since)));
        let passing = passing.unwrap_or_default();
        for nid in &passing.typing {
            if let Some(joined) = window.joined.get_mut(nid) {
                joined.typing = true;
            }
        }
        if passing.anything {
            window.joined.values_mut().for_each(|joined| joined.typing = true);
        }
    }

    fn shown(&self) -> Shown<'_> {
        static EVERYTHING: LazyLock<EventFilter> = LazyLock::new(EventFilter::default);
        Shown {
            wanted: &EVERYTHING,
            ignored: self.ignored,
        }
    }

    fn limit(&self) -> usize {
        self.request.most_timeline().max(1)
    }
}
