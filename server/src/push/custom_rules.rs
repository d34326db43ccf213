//! Who has push rules of their own or ignores others, and in which rooms they are: the rest need not be looked at one by
//! one.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use ruma::{OwnedUserId, UserId};

use super::compiled::Compiled;
use crate::cache::Cache;

/// Users whose rules are in memory, two generations of this many.
const COMPILED: usize = 5_000;

/// Users with rules of their own, or who ignore others. Memory grows with them and the rooms they are in; kept current by the log's commits.
#[derive(Debug)]
pub struct CustomRules {
    places: RwLock<Places>,
    compiled: Cache<OwnedUserId, Arc<Own>>,
    /// Raised with every change of rules, so that an answer of the database that was overtaken is not kept.
    changes: AtomicU64,
}

/// What is one user's own.
#[derive(Debug)]
pub(super) struct Own {
    /// The rules.
    pub(super) rules: Compiled,
    /// Whose events do not count, whatever the rules say.
    pub(super) ignored: HashSet<OwnedUserId>,
}

#[derive(Debug, Default)]
struct Places {
    users: HashSet<OwnedUserId>,
    /// Joined users of `users`, by room (rooms.nid).
    rooms: HashMap<i64, BTreeSet<OwnedUserId>>,
}

impl Default for CustomRules {
    fn default() -> Self {
        Self {
            places: RwLock::default(),
            compiled: Cache::new(COMPILED),
            changes: AtomicU64::new(0),
        }
    }
}

impl CustomRules {
    /// Takes over a membership that has become durable.
    pub(crate) fn commit_membership(&self, room: i64, user_id: &UserId, is_joined: bool) {
        if !self.has(user_id) {
            return;
        }
        let mut places = self.places.write().unwrap_or_else(PoisonError::into_inner);
        if is_joined {
            places.rooms.entry(room).or_default().insert(user_id.to_owned());
        } else if let Some(users) = places.rooms.get_mut(&room) {
            users.remove(user_id);
            if users.is_empty() {
                places.rooms.remove(&room);
            }
        }
    }

    /// Takes over a change of a user's rules, or of whom the user ignores, that has become durable.
    pub(crate) fn commit_rules(&self, user_id: &UserId) {
        self.changes.fetch_add(1, Ordering::AcqRel);
        self.compiled.remove(user_id);
    }

    /// Whether a user has rules.
    pub(super) fn has(&self, user_id: &UserId) -> bool {
        self.places
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .users
            .contains(user_id)
    }

    /// From now on this user's memberships are followed.
    pub(super) fn follow(&self, user_id: &UserId) {
        let mut places = self.places.write().unwrap_or_else(PoisonError::into_inner);
        places.users.insert(user_id.to_owned());
    }

    /// Notes a room that a followed user is in.
    pub(super) fn is_in(&self, user_id: &UserId, room: i64) {
        let mut places = self.places.write().unwrap_or_else(PoisonError::into_inner);
        places.rooms.entry(room).or_default().insert(user_id.to_owned());
    }

    /// The members of a room who have rules.
    pub(super) fn in_room(&self, room: i64) -> Vec<OwnedUserId> {
        let places = self.places.read().unwrap_or_else(PoisonError::into_inner);
        places
            .rooms
            .get(&room)
            .map_or_else(Vec::new, |users| users.iter().cloned().collect())
    }

    /// Whether any member of a room has rules.
    pub(super) fn any_in(&self, room: i64) -> bool {
        self.places
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .rooms
            .contains_key(&room)
    }

    /// A user's rules, if they are in memory.
    pub(super) fn compiled(&self, user_id: &UserId) -> Option<Arc<Own>> {
        self.compiled.get(user_id)
    }

    /// How many changes there were; to be read before the database is.
    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Keeps a user's rules, unless any changed meanwhile.
    pub(super) fn keep(&self, user_id: OwnedUserId, compiled: Arc<Own>, changes: u64) {
        if self.changes() == changes {
            self.compiled.insert(user_id, compiled);
        }
    }
}
