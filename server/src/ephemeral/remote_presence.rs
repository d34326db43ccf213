//! The presence of other servers' users, as their servers say it: it holds for a while, and no longer than the server is
//! connected. Changes gather for a moment and are told together, so that a server that talks much costs little.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use ruma::presence::PresenceState;
use ruma::{OwnedServerName, OwnedUserId, ServerName, UserId};
use tokio::sync::Notify;
use tokio::time::{Instant, interval, sleep};

use super::node_messages::RemotePresenceSaid;
use super::node_sender::NodeSender;
use super::presence::Shown;
use crate::clock::Clock;
use crate::live::Notifier;
use crate::refusal::Refusal;
use crate::store::rooms::RoomTables;
use crate::tasks::Tasks;

/// Users of one server whose presence is kept.
const USERS_OF_SERVER: usize = 10_000;

/// Users of all servers together.
const USERS: usize = 100_000;

/// The longest that presence holds without being said again.
const LONGEST: Duration = Duration::from_secs(600);

/// How long changes gather before they are told.
const GATHER: Duration = Duration::from_millis(200);

/// How often what holds no longer is looked for.
const SWEEP: Duration = Duration::from_secs(30);

/// Users whose changes are told together.
const TOGETHER: usize = 500;

/// Who is present elsewhere.
#[derive(Debug)]
pub struct RemotePresence {
    rooms: Arc<RoomTables>,
    notifier: Arc<Notifier>,
    /// Changes are told to members of rooms of at most this size.
    told_members: usize,
    clock: Arc<Clock>,
    nodes: NodeSender,
    people: Mutex<People>,
    changed: Arc<Notify>,
}

#[derive(Debug, Default)]
struct People {
    /// How each user is, and until when that holds; who is offline is forgotten then.
    servers: HashMap<OwnedServerName, HashMap<OwnedUserId, (Shown, Instant)>>,
    /// How many users that are.
    known: usize,
    changed: HashSet<OwnedUserId>,
}

impl RemotePresence {
    /// Nobody is present. Must be called inside the runtime: it starts the task.
    pub(super) fn start(
        rooms: Arc<RoomTables>,
        notifier: Arc<Notifier>,
        told_members: usize,
        clock: Arc<Clock>,
        nodes: NodeSender,
        tasks: &Tasks,
    ) -> Arc<Self> {
        let changed = Arc::new(Notify::new());
        let elsewhere = Arc::new(Self {
            rooms,
            notifier,
            told_members,
            clock,
            nodes,
            people: Mutex::default(),
            changed: Arc::clone(&changed),
        });
        let of = Arc::downgrade(&elsewhere);
        tasks.keep("remote_presence", move || {
            keep(Weak::clone(&of), Arc::clone(&changed))
        });
        elsewhere
    }

    /// A server says how one of its users is, for `lifetime` from now. The other nodes are told. False when there is no room
    /// for one more.
    pub fn heard(&self, user_id: &UserId, shown: Shown, lifetime: Duration) -> bool {
        let said = self
            .nodes
            .has_listeners()
            .then(|| self.said(user_id, &shown, lifetime));
        let kept = self.keep(user_id, shown, lifetime);
        if let (Some(is_news), Some(said)) = (kept, said) {
            self.nodes.remote_presence(said, is_news);
        }
        kept.is_some()
    }

    /// Another node has heard so.
    pub(super) fn heard_from_node(&self, said: RemotePresenceSaid) {
        let shown = Shown {
            state: said.state,
            status: said.status,
            active_at: self.clock.now_ms().saturating_sub(said.active_ago_ms),
        };
        let lifetime = Duration::from_millis(said.lifetime_ms);
        self.keep(&said.user_id, shown, lifetime);
    }

    /// The servers of whose users something is known.
    pub(super) fn servers(&self) -> Vec<OwnedServerName> {
        self.lock().servers.keys().cloned().collect()
    }

    /// What to say of the users of a server to a node that knows nothing. Costs grow with them.
    pub(super) fn said_of_server(&self, server: &ServerName) -> Vec<RemotePresenceSaid> {
        let now = Instant::now();
        let people = self.lock();
        let known = people.servers.get(server).into_iter().flatten();
        let present =
            known.filter(|(_, (shown, until))| shown.state != PresenceState::Offline && *until > now);
        present
            .map(|(user_id, (shown, until))| self.said(user_id, shown, *until - now))
            .collect()
    }

    fn said(&self, user_id: &UserId, shown: &Shown, lifetime: Duration) -> RemotePresenceSaid {
        RemotePresenceSaid {
            user_id: user_id.to_owned(),
            state: shown.state.clone(),
            status: shown.status.clone(),
            active_ago_ms: self.clock.now_ms().saturating_sub(shown.active_at),
            lifetime_ms: u64::try_from(lifetime.min(LONGEST).as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// Keeps how a user is; whether that is news. None when there is no room for one more.
    fn keep(&self, user_id: &UserId, shown: Shown, lifetime: Duration) -> Option<bool> {
        let mut people = self.lock();
        let People {
            servers,
            known,
            changed,
        } = &mut *people;
        let of_server = servers.get(user_id.server_name());
        if of_server.is_none_or(|users| !users.contains_key(user_id)) {
            if *known >= USERS || of_server.is_some_and(|users| users.len() >= USERS_OF_SERVER) {
                return None;
            }
            *known += 1;
        }
        let until = Instant::now() + lifetime.min(LONGEST);
        let of_server = servers.entry(user_id.server_name().to_owned()).or_default();
        let before = of_server.insert(user_id.to_owned(), (shown.clone(), until));
        let same =
            |(before, _): (Shown, Instant)| before.state == shown.state && before.status == shown.status;
        let is_news = !before.is_some_and(same);
        if is_news {
            changed.insert(user_id.to_owned());
            drop(people);
            self.changed.notify_one();
        }
        Some(is_news)
    }

    /// A server is not connected any more: what it said holds no longer.
    pub fn forget(&self, server: &ServerName) {
        let now = Instant::now();
        let mut people = self.lock();
        let People { servers, changed, .. } = &mut *people;
        for (user_id, (shown, until)) in servers.get_mut(server).into_iter().flatten() {
            if go_offline(shown, until, now) {
                changed.insert(user_id.clone());
            }
        }
        drop(people);
        self.changed.notify_one();
    }

    /// How a user is, as far as anything was said lately.
    pub(super) fn shown(&self, user_id: &UserId) -> Option<Shown> {
        let people = self.lock();
        let (shown, _) = people.servers.get(user_id.server_name())?.get(user_id)?;
        Some(shown.clone())
    }

    /// Whoever was said to be present, and is not any longer, is offline; whoever has been for a while is forgotten. Costs
    /// grow with the users who are kept.
    fn sweep(&self) {
        let now = Instant::now();
        let mut people = self.lock();
        let People {
            servers,
            known,
            changed,
        } = &mut *people;
        for users in servers.values_mut() {
            users.retain(|user_id, (shown, until)| {
                if *until > now {
                    return true;
                }
                let was_present = go_offline(shown, until, now);
                if was_present {
                    changed.insert(user_id.clone());
                }
                was_present
            });
        }
        servers.retain(|_, users| !users.is_empty());
        *known = servers.values().map(HashMap::len).sum();
    }

    /// Tells what has changed to the users here who share a room that is not too large.
    async fn publish(&self) -> Result<(), Refusal> {
        let changed = std::mem::take(&mut self.lock().changed);
        let changed: Vec<String> = changed.iter().map(ToString::to_string).collect();
        for users in changed.chunks(TOGETHER) {
            let members = i64::try_from(self.told_members).unwrap_or(i64::MAX);
            let sharing = self.rooms.own_users_sharing(users.to_vec(), members).await?;
            for (user_id, tell) in sharing {
                self.notifier
                    .presence_changed(&user_id, tell.iter().map(|user_id| &**user_id));
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, People> {
        self.people.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends somebody's presence; whether that is news.
fn go_offline(shown: &mut Shown, until: &mut Instant, now: Instant) -> bool {
    let was_present = shown.state != PresenceState::Offline;
    if was_present {
        shown.state = PresenceState::Offline;
        *until = now + LONGEST;
    }
    was_present
}

impl Drop for RemotePresence {
    fn drop(&mut self) {
        self.changed.notify_one();
    }
}

/// Tells changes, and ends what holds no longer.
async fn keep(elsewhere: Weak<RemotePresence>, changed: Arc<Notify>) {
    let mut due = interval(SWEEP);
    loop {
        let sweep = tokio::select! {
            () = changed.notified() => {
                sleep(GATHER).await;
                false
            }
            _ = due.tick() => true,
        };
        let Some(elsewhere) = elsewhere.upgrade() else {
            return;
        };
        if sweep {
            elsewhere.sweep();
        }
        if let Err(error) = elsewhere.publish().await {
            tracing::debug!(%error, "changes of presence are not told");
        }
    }
}
