//! Who is typing where (client-server API, "Typing notifications").

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use ruma::{OwnedUserId, ServerName, UserId};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::node_messages::NodeMessage;
use super::node_sender::{self, Outlet};
use crate::live::Notifier;
use crate::refusal::Refusal;
use crate::rooms::Room;
use crate::tasks::Tasks;

/// The longest that one request makes somebody count as typing.
const LONGEST: Duration = Duration::from_secs(120);

/// How long what another node says holds, unless it is said again.
const HEARD_HOLDS: Duration = Duration::from_secs(25);

/// Who is typing in which room. Holds members of rooms only, each for a limited time. One task ends what has run out.
#[derive(Debug)]
pub struct Typing {
    notifier: Arc<Notifier>,
    outlet: Outlet,
    rooms: Mutex<HashMap<i64, TypingIn>>,
    /// Tells the task that something may run out earlier than it thinks.
    changed: Arc<Notify>,
}

#[derive(Debug)]
struct TypingIn {
    room: Arc<Room>,
    users: BTreeMap<OwnedUserId, Typist>,
}

/// Somebody who types.
#[derive(Clone, Copy, Debug)]
struct Typist {
    until: Instant,
    /// Whether this node was told so first, and says it again to the others.
    is_here: bool,
}

impl Typing {
    /// Nobody is typing. Must be called inside the runtime: it starts the task.
    #[must_use]
    pub fn start(notifier: Arc<Notifier>, outlet: Outlet, tasks: &Tasks) -> Arc<Self> {
        let changed = Arc::new(Notify::new());
        let typing = Arc::new(Self {
            notifier,
            outlet,
            rooms: Mutex::default(),
            changed: Arc::clone(&changed),
        });
        let of = Arc::downgrade(&typing);
        tasks.keep("typing", move || expire(Weak::clone(&of), Arc::clone(&changed)));
        typing
    }

    /// A member types, for at most `timeout` from now, or (`None`) has stopped. Tells the members when that is news;
    /// costs grow with their number then.
    ///
    /// # Errors
    /// [`Refusal::Forbidden`] when the user is not in the room.
    pub fn set(&self, room: &Arc<Room>, user_id: &UserId, timeout: Option<Duration>) -> Result<(), Refusal> {
        if !room.is_joined(user_id) {
            return Err(Refusal::forbidden("you are not in this room"));
        }
        let left = timeout.map(|timeout| timeout.min(LONGEST));
        if self.change(room, user_id, left, true) {
            self.outlet.nodes.typing(&room.room_id, user_id, left);
        }
        Ok(())
    }

    /// Another node says that a member types for so much longer, or (`None`) has stopped. Of who is not a member nothing is
    /// believed.
    pub(super) fn heard_from_node(&self, room: &Arc<Room>, user_id: &UserId, left: Option<Duration>) {
        if room.is_joined(user_id) {
            self.change(room, user_id, left.map(|left| left.min(HEARD_HOLDS)), false);
        }
    }

    /// What to say again to the other nodes: who types by what this one was told first. Costs grow with who is typing.
    pub(super) fn said_here(&self) -> Vec<NodeMessage> {
        let now = Instant::now();
        let rooms = self.lock();
        let mut said = Vec::new();
        for TypingIn { room, users } in rooms.values() {
            let here = users
                .iter()
                .filter(|(_, typist)| typist.is_here && typist.until > now);
            said.extend(here.map(|(user_id, typist)| {
                node_sender::typing(&room.room_id, user_id, Some(typist.until - now))
            }));
        }
        said
    }

    /// A member types for so much longer or has stopped, as this node was told first or by another node. Tells the users
    /// here and other homeservers when that is news; whether it is.
    fn change(&self, room: &Arc<Room>, user_id: &UserId, left: Option<Duration>, is_here: bool) -> bool {
        let is_news = match left {
            Some(left) => {
                let until = Instant::now() + left;
                self.begin(room, user_id, Typist { until, is_here })
            }
            None => self.end(room, user_id),
        };
        if is_news {
            self.changed.notify_one();
            self.tell(room);
            self.outlet.edus.typing(room, user_id);
        }
        is_news
    }

    /// For how long a member of a room (rooms.nid) goes on typing; none for one who does not type.
    #[must_use]
    pub fn left(&self, room: i64, user_id: &UserId) -> Option<Duration> {
        let rooms = self.lock();
        let typist = rooms.get(&room)?.users.get(user_id)?;
        typist.until.checked_duration_since(Instant::now())
    }

    /// Everybody of whom `is_meant` is true and who is typing: where, and for how long. Costs grow with who is typing.
    pub fn everybody(&self, is_meant: impl Fn(&UserId) -> bool) -> Vec<(Arc<Room>, OwnedUserId, Duration)> {
        let now = Instant::now();
        let rooms = self.lock();
        let typing = rooms
            .values()
            .flat_map(|typing| typing.users.iter().map(move |one| (&typing.room, one)));
        typing
            .filter(|(_, (user_id, _))| is_meant(user_id))
            .filter_map(|(room, (user_id, typist))| {
                let left = typist.until.checked_duration_since(now)?;
                Some((Arc::clone(room), user_id.clone(), left))
            })
            .collect()
    }

    /// The users of a server have stopped, as far as anybody can tell.
    pub fn forget(&self, server: &ServerName) {
        let news = self.retain(|user_id, _| user_id.server_name() != server);
        news.iter().for_each(|room| self.tell(room));
    }

    /// Nobody types any more: the server stops, and after that nobody is told who has stopped. Other nodes end what this one
    /// was told first.
    pub fn end_all(&self) {
        for TypingIn { room, users } in self.lock().values() {
            let here = users.iter().filter(|(_, typist)| typist.is_here);
            here.for_each(|(user_id, _)| self.outlet.nodes.typing(&room.room_id, user_id, None));
        }
        let news = self.retain(|_, _| false);
        news.iter().for_each(|room| self.tell(room));
    }

    /// The members of a room (rooms.nid) who are typing, in order of their ids.
    pub fn typing_users(&self, room: i64) -> Vec<OwnedUserId> {
        let now = Instant::now();
        let rooms = self.lock();
        let Some(typing) = rooms.get(&room) else {
            return Vec::new();
        };
        let still = |(user_id, typist): &(&OwnedUserId, &Typist)| {
            typist.until > now && typing.room.is_joined(user_id)
        };
        typing
            .users
            .iter()
            .filter(still)
            .map(|(user_id, _)| user_id.clone())
            .collect()
    }

    fn begin(&self, room: &Arc<Room>, user_id: &UserId, mut typist: Typist) -> bool {
        let mut rooms = self.lock();
        let typing = rooms.entry(room.nid).or_insert_with(|| TypingIn {
            room: Arc::clone(room),
            users: BTreeMap::new(),
        });
        let before = typing.users.get(user_id);
        // What this node was told itself holds although another was told something shorter.
        if let Some(before) = before.filter(|before| before.is_here && !typist.is_here) {
            typist = Typist {
                until: typist.until.max(before.until),
                is_here: true,
            };
        }
        typing.users.insert(user_id.to_owned(), typist).is_none()
    }

    fn end(&self, room: &Room, user_id: &UserId) -> bool {
        let mut rooms = self.lock();
        let Some(typing) = rooms.get_mut(&room.nid) else {
            return false;
        };
        let news = typing.users.remove(user_id).is_some();
        if typing.users.is_empty() {
            rooms.remove(&room.nid);
        }
        news
    }

    /// Keeps those who still type; the rooms where somebody does not any more.
    fn retain(&self, still: impl Fn(&UserId, Instant) -> bool) -> Vec<Arc<Room>> {
        let mut news = Vec::new();
        self.lock().retain(|_, typing| {
            let before = typing.users.len();
            typing
                .users
                .retain(|user_id, typist| still(user_id, typist.until));
            if typing.users.len() < before {
                news.push(Arc::clone(&typing.room));
            }
            !typing.users.is_empty()
        });
        news
    }

    fn next_end(&self) -> Option<Instant> {
        let rooms = self.lock();
        rooms
            .values()
            .flat_map(|typing| typing.users.values())
            .map(|typist| typist.until)
            .min()
    }

    fn tell(&self, room: &Room) {
        let mut members = Vec::with_capacity(room.member_count());
        room.for_each_member(|user_id| members.push(user_id.to_owned()));
        self.notifier
            .typing_changed(room.nid, members.iter().map(|user_id| &**user_id));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<i64, TypingIn>> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Typing {
    fn drop(&mut self) {
        self.changed.notify_one();
    }
}

/// Waits for the next end, for as long as there is anybody to ask. Each turn costs as much as people are typing.
async fn expire(typing: Weak<Typing>, changed: Arc<Notify>) {
    loop {
        let Some(next) = typing.upgrade().map(|typing| typing.next_end()) else {
            return;
        };
        match next {
            None => changed.notified().await,
            Some(next) => {
                tokio::select! {
                    () = changed.notified() => {}
                    () = sleep_until(next) => {}
                }
            }
        }
        if let Some(typing) = typing.upgrade() {
            let now = Instant::now();
            for room in typing.retain(|_, until| until > now) {
                typing.tell(&room);
            }
        }
    }
}
