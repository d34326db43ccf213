//! Who is present (client-server API, "Presence"), by heartbeat: a poll or a frame of any of a user's devices keeps the
//! user online, and without one the user is offline after a while. One map, one task, whatever the number of users.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use maru_protocol::cursor::Position;
use ruma::presence::PresenceState;
use ruma::{OwnedUserId, UserId};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::edu_sender::EduSender;
use super::remote_presence::RemotePresence;
use crate::clock::Clock;
use crate::live::Notifier;
use crate::refusal::Refusal;
use crate::rooms::RoomCache;
use crate::store::Store;
use crate::tasks::Tasks;

/// Changes that wait to be published. Further ones are not told live; who asks still learns them.
const UNPUBLISHED: usize = 4096;

/// Users who are woken together to be told anew who types and who is present.
const WOKEN: usize = 50;

/// How long the next ones sleep on.
const WAKING_PAUSE: Duration = Duration::from_millis(100);

/// Longest status message, in bytes.
const STATUS_BYTES: usize = 1024;

/// Bounds of presence.
#[derive(Clone, Copy, Debug)]
pub struct PresenceLimits {
    /// Without a heartbeat for so long a user is offline.
    pub offline_after: Duration,
    /// Changes are told to the members of rooms of at most this size; larger rooms ask.
    pub told_members: usize,
    /// Users whose presence is kept.
    pub users: usize,
}

impl PresenceLimits {
    /// The usual bounds with a configured time.
    #[must_use]
    pub fn offline_after(offline_after: Duration) -> Self {
        Self {
            offline_after,
            told_members: 200,
            users: 100_000,
        }
    }
}

/// Who is present.
#[derive(Debug)]
pub struct Presence {
    clock: Arc<Clock>,
    store: Arc<Store>,
    table: Arc<RoomCache>,
    notifier: Arc<Notifier>,
    limits: PresenceLimits,
    people: Mutex<People>,
    changes: mpsc::Sender<OwnedUserId>,
    outlet: EduSender,
    elsewhere: Arc<RemotePresence>,
}

#[derive(Debug, Default)]
struct People {
    known: HashMap<OwnedUserId, Person>,
    /// One entry for each user who is not offline, in order of time: when to look at the user again.
    looks: VecDeque<(Instant, OwnedUserId)>,
    /// The users of those entries.
    queued: HashSet<OwnedUserId>,
}

#[derive(Debug)]
struct Person {
    state: PresenceState,
    status: Option<String>,
    /// Milliseconds since 1970.
    active_at: u64,
    heartbeat: Instant,
    /// Until then a device counts as in use, and idle devices do not make the user unavailable.
    online_until: Instant,
}

/// How a user is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Whether the user is there.
    pub state: PresenceState,
    /// What the user says about it.
    pub status: Option<String>,
    /// When the user was last active, in milliseconds since 1970.
    pub active_at: u64,
}

impl Shown {
    /// The content of an `m.presence` event.
    fn content(&self, now_ms: u64) -> serde_json::Value {
        let mut content = serde_json::json!({
            "presence": self.state,
            "last_active_ago": now_ms.saturating_sub(self.active_at),
            "currently_active": self.state == PresenceState::Online,
        });
        if let Some(status) = &self.status {
            content["status_msg"] = status.as_str().into();
        }
        content
    }
}

impl Person {
    fn shown(&self) -> Shown {
        Shown {
            state: self.state.clone(),
            status: self.status.clone(),
            active_at: self.active_at,
        }
    }
}

impl Presence {
    /// Nobody is present. Must be called inside the runtime: it starts the task.
    #[must_use]
    pub fn start(
        clock: Arc<Clock>,
        store: Arc<Store>,
        table: Arc<RoomCache>,
        notifier: Arc<Notifier>,
        outlet: EduSender,
        limits: PresenceLimits,
        tasks: &Tasks,
    ) -> Arc<Self> {
        let (changes, changed) = mpsc::channel(UNPUBLISHED);
        let elsewhere = RemotePresence::start(
            Arc::clone(&store.rooms),
            Arc::clone(&notifier),
            limits.told_members,
            tasks,
        );
        let presence = Arc::new(Self {
            clock,
            store,
            table,
            notifier,
            limits,
            people: Mutex::default(),
            changes,
            outlet,
            elsewhere,
        });
        tasks.until_stop("presence", keep(Arc::downgrade(&presence), changed));
        // Where nothing is stored, no server has run that could have told anything.
        if presence.store.log.position() > Position::START {
            let settled = tokio::time::sleep(limits.offline_after);
            let voided = void_when(settled, Arc::downgrade(&presence.notifier));
            tasks.until_stop("void_presence", voided);
        }
        presence
    }

    /// A device of the user is there, in the given state; called for every poll. A device that says `offline` does not
    /// count. Takes a moment: who must hear of a change is worked out elsewhere.
    pub fn heartbeat(&self, user_id: &UserId, state: &PresenceState) {
        if *state == PresenceState::Offline {
            return;
        }
        let mut people = self.lock();
        let now = Instant::now();
        let idle = *state != PresenceState::Online;
        let changed = match people.known.get_mut(user_id) {
            Some(person) if person.state != PresenceState::Offline => {
                person.heartbeat = now;
                if idle && person.online_until > now {
                    return;
                }
                self.appear(person, state.clone(), now)
            }
            _ => self.arrive(&mut people, user_id, state.clone(), now),
        };
        drop(people);
        if changed {
            self.note(user_id);
        }
    }

    /// Sets a user's state and status message by hand; heartbeats go on changing the state.
    ///
    /// # Errors
    /// [`Refusal::InvalidParam`] for an unknown state, [`Refusal::TooLarge`] for a long message.
    pub fn set(&self, user_id: &UserId, state: PresenceState, status: Option<String>) -> Result<(), Refusal> {
        let known = [
            PresenceState::Online,
            PresenceState::Unavailable,
            PresenceState::Offline,
        ];
        if !known.contains(&state) {
            return Err(Refusal::invalid("presence is online, unavailable or offline"));
        }
        if status.as_ref().is_some_and(|status| status.len() > STATUS_BYTES) {
            let why = format!("a status message has at most {STATUS_BYTES} bytes");
            return Err(Refusal::TooLarge(why));
        }
        let mut people = self.lock();
        let now = Instant::now();
        if people
            .known
            .get(user_id)
            .is_none_or(|person| person.state == PresenceState::Offline)
        {
            self.arrive(&mut people, user_id, state.clone(), now);
        }
        if let Some(person) = people.known.get_mut(user_id) {
            self.appear(person, state, now);
            person.status = status.filter(|status| !status.is_empty());
        }
        drop(people);
        self.note(user_id);
        Ok(())
    }

    /// The presence of those of the users of whom something is known, as contents of `m.presence` events.
    pub fn presence_of<'u>(
        &self,
        users: impl IntoIterator<Item = &'u UserId>,
    ) -> Vec<(OwnedUserId, serde_json::Value)> {
        let now = self.clock.now_ms();
        users
            .into_iter()
            .filter_map(|user_id| Some((user_id.to_owned(), self.shown(user_id)?.content(now))))
            .collect()
    }

    /// How a user is, as far as it is known.
    #[must_use]
    pub fn shown(&self, user_id: &UserId) -> Option<Shown> {
        if self.outlet.is_own(user_id) {
            self.lock().known.get(user_id).map(Person::shown)
        } else {
            self.elsewhere.shown(user_id)
        }
    }

    /// The users of other servers.
    #[must_use]
    pub fn elsewhere(&self) -> &RemotePresence {
        &self.elsewhere
    }

    /// Changes are told to the members of rooms of at most this size.
    #[must_use]
    pub fn most_told(&self) -> usize {
        self.limits.told_members
    }

    /// Changes are told to the members of rooms of at most this size, and to their servers.
    #[must_use]
    pub fn told_members(&self) -> i64 {
        i64::try_from(self.limits.told_members).unwrap_or(i64::MAX)
    }

    /// A user's presence for somebody who asks.
    ///
    /// # Errors
    /// [`Refusal::Forbidden`] unless both are the same or share a room.
    pub async fn ask(&self, asker: &UserId, user_id: &UserId) -> Result<serde_json::Value, Refusal> {
        if asker != user_id && !self.store.rooms.share_a_room(asker, user_id).await? {
            return Err(Refusal::forbidden(
                "you may see the presence of people you share a room with",
            ));
        }
        let known = self.presence_of([user_id]).pop();
        Ok(known.map_or_else(
            || serde_json::json!({ "presence": "offline" }),
            |(_, content)| content,
        ))
    }

    /// Changes a known person's state; whether that is news.
    fn appear(&self, person: &mut Person, state: PresenceState, now: Instant) -> bool {
        if state == PresenceState::Online {
            person.active_at = self.clock.now_ms();
            person.online_until = now + self.limits.offline_after;
        } else {
            person.online_until = now;
        }
        let news = person.state != state;
        person.state = state;
        news
    }

    /// Somebody who was offline is not any more; false when there is no room for one more.
    fn arrive(&self, people: &mut People, user_id: &UserId, state: PresenceState, now: Instant) -> bool {
        if people.known.len() >= self.limits.users && !people.known.contains_key(user_id) {
            people
                .known
                .retain(|_, person| person.state != PresenceState::Offline);
            if people.known.len() >= self.limits.users {
                return false;
            }
        }
        let status = people.known.remove(user_id).and_then(|person| person.status);
        let mut person = Person {
            state: PresenceState::Offline,
            status,
            active_at: self.clock.now_ms(),
            heartbeat: now,
            online_until: now,
        };
        let news = self.appear(&mut person, state.clone(), now);
        people.known.insert(user_id.to_owned(), person);
        if state != PresenceState::Offline && people.queued.insert(user_id.to_owned()) {
            people
                .looks
                .push_back((now + self.limits.offline_after, user_id.to_owned()));
        }
        news
    }

    /// Looks at everybody whose time has come; whose state changed by that.
    fn look(&self, now: Instant) -> Vec<OwnedUserId> {
        let mut changed = Vec::new();
        let mut people = self.lock();
        let People { known, looks, queued } = &mut *people;
        while looks.front().is_some_and(|(at, _)| *at <= now) {
            let Some((_, user_id)) = looks.pop_front() else {
                break;
            };
            let Some(person) = known
                .get_mut(&user_id)
                .filter(|person| person.state != PresenceState::Offline)
            else {
                queued.remove(&user_id);
                continue;
            };
            if person.heartbeat + self.limits.offline_after <= now {
                person.state = PresenceState::Offline;
                queued.remove(&user_id);
                changed.push(user_id);
            } else {
                looks.push_back((now + self.limits.offline_after, user_id));
            }
        }
        changed
    }

    fn note(&self, user_id: &UserId) {
        if self.changes.try_send(user_id.to_owned()).is_err() {
            tracing::debug!("a change of presence is not told: too many at once");
        }
    }

    /// Tells a change to those who listen and share a room that is not too large, and to the servers of such rooms. Costs
    /// grow with the user's rooms and their members.
    async fn publish(&self, user_id: &UserId) -> Result<(), Refusal> {
        let mut told: HashSet<OwnedUserId> = HashSet::from([user_id.to_owned()]);
        let mut servers = BTreeSet::new();
        for stored in self.store.rooms.memberships_of(user_id).await? {
            if stored.membership.membership != "join" {
                continue;
            }
            // A room that is not in memory has nobody who listens to it.
            let Some(room) = self.table.get(stored.membership.room) else {
                continue;
            };
            if room.member_count() <= self.limits.told_members {
                servers.extend(room.head().servers.keys().cloned());
                room.for_each_member(|member| {
                    if !told.contains(member) {
                        told.insert(member.to_owned());
                    }
                });
            }
        }
        self.notifier
            .presence_changed(user_id, told.iter().map(|member| &**member));
        self.outlet.presence(user_id, servers);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, People> {
        self.people.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Voids what the server that ran before has told, once those who were there then have had time to come back: nothing is
/// stored of who typed and who was present, and who does not come back changes nothing that could be told.
async fn void_when(settled: impl Future<Output = ()>, notifier: Weak<Notifier>) {
    settled.await;
    let Some(inboxes) = notifier.upgrade().map(|notifier| notifier.void_passing()) else {
        return;
    };
    // Each of them reads the database once.
    for woken in inboxes.chunks(WOKEN) {
        woken.iter().for_each(|inbox| inbox.wake());
        tokio::time::sleep(WAKING_PAUSE).await;
    }
}

/// Publishes changes and looks at people when their time has come.
async fn keep(presence: Weak<Presence>, mut changed: mpsc::Receiver<OwnedUserId>) {
    loop {
        let Some(next) = presence
            .upgrade()
            .map(|presence| presence.lock().looks.front().map(|(at, _)| *at))
        else {
            return;
        };
        let published = tokio::select! {
            user_id = changed.recv() => match user_id {
                Some(user_id) => vec![user_id],
                None => return,
            },
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                presence.upgrade().map_or_else(Vec::new, |presence| presence.look(Instant::now()))
            }
        };
        let Some(presence) = presence.upgrade() else {
            return;
        };
        for user_id in published {
            if let Err(error) = presence.publish(&user_id).await {
                tracing::debug!(%error, "a change of presence is not told");
            }
        }
    }
}
