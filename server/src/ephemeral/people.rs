//! The presence of this homeserver's users, as one node knows it: from the heartbeats of devices here, and from what the other
//! nodes say of theirs. No I/O and no clock of its own.
//!
//! A node says of a user that there are heartbeats, rarely: while they go on, every half of the time after which a user is
//! offline without any. So the others take the user to be present for that much longer. Whoever says that a user is offline
//! says when the last heartbeat was that it knows of, and whoever knows of a later one does not believe it: a user is offline
//! when no node has a heartbeat, in whatever order the nodes' words arrive.

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use ruma::presence::PresenceState;
use ruma::{OwnedUserId, UserId};
use tokio::time::Instant;

use super::node_messages::PresenceSaid;
use super::presence::Shown;

/// By how much the age of a heartbeat may be wrong that another node names: its word was on the way, and the one before too.
const ON_THE_WAY: Duration = Duration::from_secs(1);

/// A moment, by both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    /// For what lasts.
    pub(super) instant: Instant,
    /// Milliseconds since 1970, for what is shown.
    pub(super) ms: u64,
}

/// What became of something that a user did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Whether the user is seen otherwise than before.
    pub(super) is_news: bool,
    /// Whether it is time to say to the other nodes that the user is here.
    pub(super) is_due: bool,
}

/// Who is present of this homeserver's users.
#[derive(Debug)]
pub(super) struct People {
    offline_after: Duration,
    most: usize,
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
    /// When the status was set, in milliseconds since 1970 by the node where it was.
    status_at: u64,
    /// Milliseconds since 1970.
    active_at: u64,
    /// The last heartbeat that is known of, at any node.
    heartbeat: Instant,
    /// Present until then, without another one.
    present_until: Instant,
    /// Until then a device counts as in use, and idle devices do not make the user unavailable.
    online_until: Instant,
    /// When the last heartbeat was at this node, of a user who is not offline since.
    here_at: Option<Instant>,
    /// When it was last due to say so.
    said_at: Option<Instant>,
}

impl Person {
    fn is_present(&self) -> bool {
        self.state != PresenceState::Offline
    }

    fn shown(&self) -> Shown {
        Shown {
            state: self.state.clone(),
            status: self.status.clone(),
            active_at: self.active_at,
        }
    }

    fn go_offline(&mut self) {
        self.state = PresenceState::Offline;
        (self.here_at, self.said_at) = (None, None);
    }

    fn said(&self, user_id: &UserId, at: Moment) -> PresenceSaid {
        PresenceSaid {
            user_id: user_id.to_owned(),
            state: self.state.clone(),
            status: self.status.clone(),
            status_at: self.status_at,
            active_ago_ms: at.ms.saturating_sub(self.active_at),
            heartbeat_ago_ms: milliseconds(at.instant.saturating_duration_since(self.heartbeat)),
            by_hand: false,
        }
    }
}

impl People {
    /// Nobody is present. Without a heartbeat for `offline_after` a user is offline; `most` are known at once.
    pub(super) fn new(offline_after: Duration, most: usize) -> Self {
        Self {
            offline_after,
            most,
            known: HashMap::new(),
            looks: VecDeque::new(),
            queued: HashSet::new(),
        }
    }

    /// A device here is there, in a state that is not offline.
    pub(super) fn heartbeat(&mut self, user_id: &UserId, state: &PresenceState, at: Moment) -> Outcome {
        let until = at.instant + self.offline_after;
        let say_every = self.say_every();
        let Some((person, was_present)) = self.meet(user_id, at) else {
            return Outcome {
                is_news: false,
                is_due: false,
            };
        };
        person.heartbeat = at.instant;
        person.present_until = person.present_until.max(until);
        person.here_at = Some(at.instant);
        let is_news = appear_if_in_use(person, state, (at, until)) || !was_present;
        let said_at = person.said_at.filter(|said_at| *said_at + say_every > at.instant);
        let is_due = is_news || said_at.is_none();
        if is_due {
            person.said_at = Some(at.instant);
        }
        self.queue(user_id, at.instant);
        Outcome { is_news, is_due }
    }

    /// A user sets state and status by hand; heartbeats go on changing the state. False when there is no room for one more.
    pub(super) fn set(
        &mut self,
        user_id: &UserId,
        state: &PresenceState,
        status: Option<String>,
        at: Moment,
    ) -> bool {
        let until = at.instant + self.offline_after;
        let Some((person, was_present)) = self.meet(user_id, at) else {
            return false;
        };
        if !was_present {
            person.heartbeat = at.instant;
            person.present_until = until;
            person.here_at = Some(at.instant);
        }
        appear(person, state, (at, until));
        person.status = status;
        person.status_at = at.ms.max(person.status_at + 1);
        self.queue(user_id, at.instant);
        true
    }

    /// Another node says how a user is; whether that is news.
    pub(super) fn heard(&mut self, said: &PresenceSaid, at: Moment) -> bool {
        let ago = Duration::from_millis(said.heartbeat_ago_ms);
        let Some(heartbeat) = at.instant.checked_sub(ago) else {
            return false;
        };
        let until = heartbeat + self.offline_after + self.say_every();
        if said.state == PresenceState::Offline && !said.by_hand {
            return self.heard_gone(said, heartbeat);
        }
        if until <= at.instant {
            return false;
        }
        let Some((person, was_present)) = self.meet(&said.user_id, at) else {
            return false;
        };
        let before = person.shown();
        person.heartbeat = person.heartbeat.max(heartbeat);
        person.present_until = person.present_until.max(until);
        let active_at = at.ms.saturating_sub(said.active_ago_ms);
        let then = Moment {
            instant: at.instant,
            ms: active_at.max(person.active_at),
        };
        match said.by_hand {
            true => drop(appear(person, &said.state, (then, until))),
            false => drop(appear_if_in_use(person, &said.state, (then, until))),
        }
        let status_at = said.status_at.min(at.ms);
        if status_at > person.status_at {
            person.status.clone_from(&said.status);
            person.status_at = status_at;
        }
        let is_news = !was_present || person.state != before.state || person.status != before.status;
        self.queue(&said.user_id, at.instant);
        is_news
    }

    /// Another node knows of no heartbeat after one.
    fn heard_gone(&mut self, said: &PresenceSaid, heartbeat: Instant) -> bool {
        let person = self.known.get_mut(&said.user_id);
        let is_gone =
            |person: &&mut Person| person.is_present() && person.heartbeat <= heartbeat + ON_THE_WAY;
        let person = person.filter(is_gone);
        person.map(Person::go_offline).is_some()
    }

    /// Looks at everybody whose time has come. Who has gone by that; what is to be said of it to the other nodes, of those who
    /// were here.
    pub(super) fn look(&mut self, at: Moment) -> Vec<(OwnedUserId, Option<PresenceSaid>)> {
        let mut gone = Vec::new();
        while self.looks.front().is_some_and(|(due, _)| *due <= at.instant) {
            let Some((_, user_id)) = self.looks.pop_front() else {
                break;
            };
            let person = self.known.get_mut(&user_id);
            let Some(person) = person.filter(|person| person.is_present()) else {
                self.queued.remove(&user_id);
                continue;
            };
            if person.present_until > at.instant {
                self.looks.push_back((at.instant + self.offline_after, user_id));
                continue;
            }
            let was_here = person.here_at.is_some();
            person.go_offline();
            let said = was_here.then(|| person.said(&user_id, at));
            self.queued.remove(&user_id);
            gone.push((user_id, said));
        }
        gone
    }

    /// When to look next.
    pub(super) fn next_look(&self) -> Option<Instant> {
        self.looks.front().map(|(due, _)| *due)
    }

    /// How a user is, where anything is known.
    pub(super) fn shown(&self, user_id: &UserId) -> Option<Shown> {
        self.known.get(user_id).map(Person::shown)
    }

    /// What to say to the other nodes of a user.
    pub(super) fn said(&self, user_id: &UserId, at: Moment) -> Option<PresenceSaid> {
        Some(self.known.get(user_id)?.said(user_id, at))
    }

    /// What to say to a node that knows nothing: of everybody whose heartbeats are here. Costs grow with those who are known.
    pub(super) fn said_of_all_here(&self, at: Moment) -> Vec<PresenceSaid> {
        let is_here = |person: &Person| {
            let here_at = person.here_at.filter(|_| person.is_present());
            here_at.is_some_and(|here_at| here_at + self.offline_after > at.instant)
        };
        let here = self.known.iter().filter(|(_, person)| is_here(person));
        here.map(|(user_id, person)| person.said(user_id, at)).collect()
    }

    /// How often a user is said to be here.
    fn say_every(&self) -> Duration {
        self.offline_after / 2
    }

    /// A user who does something, and whether the user was present before; none when there is no room for one more.
    fn meet(&mut self, user_id: &UserId, at: Moment) -> Option<(&mut Person, bool)> {
        if !self.known.contains_key(user_id) {
            if self.known.len() >= self.most {
                self.known.retain(|_, person| person.is_present());
            }
            if self.known.len() >= self.most {
                return None;
            }
            let person = Person {
                state: PresenceState::Offline,
                status: None,
                status_at: 0,
                active_at: at.ms,
                heartbeat: at.instant,
                present_until: at.instant,
                online_until: at.instant,
                here_at: None,
                said_at: None,
            };
            self.known.insert(user_id.to_owned(), person);
        }
        let person = self.known.get_mut(user_id)?;
        let was_present = person.is_present();
        if !was_present {
            person.active_at = at.ms;
            (person.present_until, person.online_until) = (at.instant, at.instant);
        }
        Some((person, was_present))
    }

    /// Has a user who is present looked at before long.
    fn queue(&mut self, user_id: &UserId, now: Instant) {
        let is_present = self.known.get(user_id).is_some_and(Person::is_present);
        if is_present && !self.queued.contains(user_id) {
            self.queued.insert(user_id.to_owned());
            self.looks
                .push_back((now + self.offline_after, user_id.to_owned()));
        }
    }
}

/// Changes a person's state unless only an idle device says so while another is in use; whether that is news.
fn appear_if_in_use(person: &mut Person, state: &PresenceState, moment: (Moment, Instant)) -> bool {
    let (at, _) = moment;
    let is_idle = *state != PresenceState::Online;
    if is_idle && person.is_present() && person.online_until > at.instant {
        return false;
    }
    appear(person, state, moment)
}

/// Changes a person's state; whether that is news. A device that is in use counts so until `until`.
fn appear(person: &mut Person, state: &PresenceState, (at, until): (Moment, Instant)) -> bool {
    if *state == PresenceState::Online {
        person.active_at = at.ms;
        person.online_until = person.online_until.max(until);
    } else {
        person.online_until = at.instant;
    }
    let is_news = person.state != *state;
    person.state = state.clone();
    is_news
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
