//! Who is typing where (client-server API, "Typing notifications").

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use ruma::{OwnedUserId, ServerName, UserId};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::edu_sender::EduSender;
use crate::live::Notifier;
use crate::refusal::Refusal;
use crate::rooms::Room;
use crate::tasks::Tasks;

/// The longest that one request makes somebody count as typing.
const LONGEST: Duration = Duration::from_secs(120);

/// Who is typing in which room. Holds members of rooms only, each for a limited time. One task ends what has run out.
#[derive(Debug)]
pub struct Typing {
    notifier: Arc<Notifier>,
    outlet: EduSender,
    rooms: Mutex<HashMap<i64, TypingIn>>,
    /// Tells the task that something may run out earlier than it thinks.
    changed: Arc<Notify>,
}

#[derive(Debug)]
struct TypingIn {
    room: Arc<Room>,
    until: BTreeMap<OwnedUserId, Instant>,
}

impl Typing {
    /// Nobody is typing. Must be called inside the runtime: it starts the task.
    #[must_use]
    pub fn start(notifier: Arc<Notifier>, outlet: EduSender, tasks: &Tasks) -> Arc<Self> {
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
        let news = match timeout {
            Some(timeout) => self.begin(room, user_id, Instant::now() + timeout.min(LONGEST)),
            None => self.end(room, user_id),
        };
        if news {
            self.changed.notify_one();
            self.tell(room);
            self.outlet.typing(room, user_id);
        }
        Ok(())
    }

    /// For how long a member of a room (rooms.nid) goes on typing; none for one who does not type.
    #[must_use]
    pub fn left(&self, room: i64, user_id: &UserId) -> Option<Duration> {
        let rooms = self.lock();
        let until = rooms.get(&room)?.until.get(user_id)?;
        until.checked_duration_since(Instant::now())
    }

    /// Everybody of whom `is_meant` is true and who is typing: where, and for how long. Costs grow with who is typing.
    pub fn everybody(&self, is_meant: impl Fn(&UserId) -> bool) -> Vec<(Arc<Room>, OwnedUserId, Duration)> {
        let now = Instant::now();
        let rooms = self.lock();
        let typing = rooms
            .values()
            .flat_map(|typing| typing.until.iter().map(move |one| (&typing.room, one)));
        typing
            .filter(|(_, (user_id, _))| is_meant(user_id))
            .filter_map(|(room, (user_id, until))| {
                let left = until.checked_duration_since(now)?;
                Some((Arc::clone(room), user_id.clone(), left))
            })
            .collect()
    }

    /// The users of a server have stopped, as far as anybody can tell.
    pub fn forget(&self, server: &ServerName) {
        let news = self.retain(|user_id, _| user_id.server_name() != server);
        news.iter().for_each(|room| self.tell(room));
    }

    /// Nobody types any more: the server stops, and after that nobody is told who has stopped.
    pub fn end_all(&self) {
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
        let still =
            |(user_id, until): &(&OwnedUserId, &Instant)| **until > now && typing.room.is_joined(user_id);
        typing
            .until
            .iter()
            .filter(still)
            .map(|(user_id, _)| user_id.clone())
            .collect()
    }

    fn begin(&self, room: &Arc<Room>, user_id: &UserId, until: Instant) -> bool {
        let mut rooms = self.lock();
        let typing = rooms.entry(room.nid).or_insert_with(|| TypingIn {
            room: Arc::clone(room),
            until: BTreeMap::new(),
        });
        typing.until.insert(user_id.to_owned(), until).is_none()
    }

    fn end(&self, room: &Room, user_id: &UserId) -> bool {
        let mut rooms = self.lock();
        let Some(typing) = rooms.get_mut(&room.nid) else {
            return false;
        };
        let news = typing.until.remove(user_id).is_some();
        if typing.until.is_empty() {
            rooms.remove(&room.nid);
        }
        news
    }

    /// Keeps those who still type; the rooms where somebody does not any more.
    fn retain(&self, still: impl Fn(&UserId, Instant) -> bool) -> Vec<Arc<Room>> {
        let mut news = Vec::new();
        self.lock().retain(|_, typing| {
            let before = typing.until.len();
            typing.until.retain(|user_id, until| still(user_id, *until));
            if typing.until.len() < before {
                news.push(Arc::clone(&typing.room));
            }
            !typing.until.is_empty()
        });
        news
    }

    fn next_end(&self) -> Option<Instant> {
        let rooms = self.lock();
        rooms
            .values()
            .flat_map(|typing| typing.until.values())
            .min()
            .copied()
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
