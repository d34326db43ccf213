//! Who is present (client-server API, "Presence"), by heartbeat: a poll or a frame of any of a user's devices keeps the
//! user online, and without one the user is offline after a while. One map (`people.rs`), one task, whatever the number of
//! users. Heartbeats count at whatever node they are.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use maru_protocol::cursor::Position;
use ruma::presence::PresenceState;
use ruma::{OwnedUserId, UserId};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::node_messages::PresenceSaid;
use super::node_sender::Outlet;
use super::people::{Moment, People};
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
pub(super) const STATUS_BYTES: usize = 1024;

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
    outlet: Outlet,
    elsewhere: Arc<RemotePresence>,
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

impl Presence {
    /// Nobody is present. Must be called inside the runtime: it starts the task.
    #[must_use]
    pub fn start(
        clock: Arc<Clock>,
        store: Arc<Store>,
        table: Arc<RoomCache>,
        notifier: Arc<Notifier>,
        outlet: Outlet,
        limits: PresenceLimits,
        tasks: &Tasks,
    ) -> Arc<Self> {
        let (changes, changed) = mpsc::channel(UNPUBLISHED);
        let elsewhere = RemotePresence::start(
            Arc::clone(&store.rooms),
            Arc::clone(&notifier),
            limits.told_members,
            Arc::clone(&clock),
            outlet.nodes.clone(),
            tasks,
        );
        let presence = Arc::new(Self {
            clock,
            store,
            table,
            notifier,
            limits,
            people: Mutex::new(People::new(limits.offline_after, limits.users)),
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
    /// count. Takes a moment: who must hear of a change is worked out elsewhere. The other nodes are told of it from time to
    /// time.
    pub fn heartbeat(&self, user_id: &UserId, state: &PresenceState) {
        if *state == PresenceState::Offline {
            return;
        }
        let at = self.now();
        let mut people = self.lock();
        let outcome = people.heartbeat(user_id, state, at);
        let is_said = outcome.is_due && self.outlet.nodes.has_listeners();
        let said = is_said.then(|| people.said(user_id, at)).flatten();
        drop(people);
        if outcome.is_news {
            self.note(user_id);
        }
        match said {
            Some(said) if outcome.is_news => self.outlet.nodes.presence(said),
            Some(said) => self.outlet.nodes.still_present(said),
            None => {}
        }
    }

    /// Sets a user's state and status message by hand; heartbeats go on changing the state.
    ///
    /// # Errors
    /// [`Refusal::InvalidParam`] for an unknown state, [`Refusal::TooLarge`] for a long message.
    pub fn set(
        &self,
        user_id: &UserId,
        state: &PresenceState,
        status: Option<String>,
    ) -> Result<(), Refusal> {
        let known = [
            PresenceState::Online,
            PresenceState::Unavailable,
            PresenceState::Offline,
        ];
        if !known.contains(state) {
            return Err(Refusal::invalid("presence is online, unavailable or offline"));
        }
        if status.as_ref().is_some_and(|status| status.len() > STATUS_BYTES) {
            let why = format!("a status message has at most {STATUS_BYTES} bytes");
            return Err(Refusal::TooLarge(why));
        }
        let at = self.now();
        let status = status.filter(|status| !status.is_empty());
        let mut people = self.lock();
        let is_kept = people.set(user_id, state, status, at);
        let is_said = is_kept && self.outlet.nodes.has_listeners();
        let said = is_said.then(|| people.said(user_id, at)).flatten();
        drop(people);
        self.note(user_id);
        if let Some(said) = said {
            self.outlet.nodes.presence(PresenceSaid {
                by_hand: true,
                ..said
            });
        }
        Ok(())
    }

    /// Another node says how one of this homeserver's users is.
    pub(super) fn heard_from_node(&self, said: &PresenceSaid) {
        let is_own = self.outlet.edus.is_own(&said.user_id);
        if is_own && self.lock().heard(said, self.now()) {
            self.note(&said.user_id);
        }
    }

    /// What to say to a node that knows nothing: of everybody whose heartbeats are here. Costs grow with those who are known.
    pub(super) fn said_of_all_here(&self) -> Vec<PresenceSaid> {
        let at = self.now();
        self.lock().said_of_all_here(at)
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
        if self.outlet.edus.is_own(user_id) {
            self.lock().shown(user_id)
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

    /// Looks at everybody whose time has come, and tells the other nodes of those who have gone and were here. Who has gone.
    fn look(&self) -> Vec<OwnedUserId> {
        let at = self.now();
        let gone = self.lock().look(at);
        let gone = gone.into_iter().map(|(user_id, said)| {
            if let Some(said) = said {
                self.outlet.nodes.presence(said);
            }
            user_id
        });
        gone.collect()
    }

    fn now(&self) -> Moment {
        Moment {
            instant: Instant::now(),
            ms: self.clock.now_ms(),
        }
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
        let mut is_elsewhere = false;
        for stored in self.store.rooms.memberships_of(user_id).await? {
            if stored.membership.membership != "join" {
                continue;
            }
            // A room that is not in memory has nobody here who listens to it.
            let Some(room) = self.table.get(stored.membership.room) else {
                is_elsewhere = true;
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
        if self.outlet.edus.is_heard() {
            // It may have somebody at another node, or at another homeserver.
            if is_elsewhere {
                let members = self.told_members();
                servers.extend(self.store.rooms.servers_near(user_id, members).await?);
            }
            self.outlet.edus.presence(user_id, servers);
        }
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
        let Some(next) = presence.upgrade().map(|presence| presence.lock().next_look()) else {
            return;
        };
        let published = tokio::select! {
            user_id = changed.recv() => match user_id {
                Some(user_id) => vec![user_id],
                None => return,
            },
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                presence.upgrade().map_or_else(Vec::new, |presence| presence.look())
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
