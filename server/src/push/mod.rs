//! Push rules: what counts as unread, and for whom it is highlighted.
//!
//! Every event is judged once, before it is stored: by the predefined rules for a member who is not mentioned, and
//! beside that one by one for those to whom the answer may differ, who are the mentioned, the invited, and the members
//! with rules of their own. A message in a room without such members costs a few microseconds, however many members
//! there are; each member with own rules adds the matching of those rules.

mod compiled;
mod facts;
mod own;
mod pattern;
mod rules;

use std::sync::Arc;

use maru_protocol::event::Draft;
use ruma::{OwnedUserId, ServerName, UserId};

use compiled::{Compiled, Scene, event_of};
pub use facts::Facts;
pub use own::OwnRules;
pub use rules::{PUSH_RULES, find};

use crate::refusal::Refusal;
use crate::store::events::Notify;
use crate::store::{Store, StoreError};

/// Everything that push rules need to work.
#[derive(Debug)]
pub struct Push {
    store: Arc<Store>,
    own: Arc<OwnRules>,
}

/// What push rules say of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// To everybody else.
    pub to_others: Notify,
    /// To those to whom they say something else.
    pub exceptions: Vec<(OwnedUserId, Notify)>,
}

/// An event to be judged, and the room it is sent to.
pub struct Sent<'a> {
    /// The event.
    pub draft: &'a Draft,
    /// Its facts.
    pub facts: &'a Facts,
    /// The room (rooms.nid).
    pub room: i64,
    /// Joined members.
    pub joined: u64,
    /// This server: other servers judge for their own users.
    pub server_name: &'a ServerName,
    /// Whether a user is joined.
    pub is_joined: &'a (dyn Fn(&UserId) -> bool + Sync),
    /// Whether the sender has the power to notify everybody by a key of `notifications`.
    pub may_notify: &'a (dyn Fn(&str) -> bool + Sync),
}

impl std::fmt::Debug for Sent<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sent")
            .field("draft", self.draft)
            .finish_non_exhaustive()
    }
}

impl Push {
    /// Push rules over a store. `own` is what hears of the store's commits.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn open(store: Arc<Store>, own: Arc<OwnRules>) -> Result<Self, StoreError> {
        for (user_id, room) in store.owners_of_push_rules().await? {
            own.follow(&user_id);
            if let Some(room) = room {
                own.is_in(&user_id, room);
            }
        }
        Ok(Self { store, own })
    }

    /// Whether judging an event may ask for the sender's power.
    #[must_use]
    pub fn needs_power(&self, facts: &Facts, room: i64) -> bool {
        facts.mentions_room || self.own.any_in(room)
    }

    /// Judges an event for everybody in its room, and for whom it invites.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn judge(&self, sent: &Sent<'_>) -> Result<Verdict, Refusal> {
        let facts = sent.facts;
        let to_others = facts.to_everybody(facts.mentions_room && (sent.may_notify)("room"));
        let mut exceptions = Vec::new();
        let mut owners = self.own.in_room(sent.room);
        let mentioned = facts.mentions.iter().filter(|user_id| (sent.is_joined)(user_id));
        let mentioned = mentioned.map(|user_id| (user_id.clone(), facts.to_mentioned()));
        let invited = facts.invites().map(|user_id| (user_id, facts.to_invited()));
        for (user_id, outcome) in mentioned.chain(invited) {
            if user_id.server_name() != sent.server_name {
                continue;
            }
            if self.own.has(&user_id) {
                owners.push(user_id);
            } else {
                exceptions.push((user_id, outcome));
            }
        }
        owners.sort_unstable();
        owners.dedup();
        if !owners.is_empty() {
            let event = event_of(sent.draft);
            for user_id in owners {
                let rules = self.compiled(&user_id).await?;
                let may_notify = |key: &str| (sent.may_notify)(key);
                let scene = Scene {
                    event: &event,
                    members: sent.joined,
                    may_notify: &may_notify,
                };
                let outcome = rules.judge(&scene);
                exceptions.push((user_id, outcome));
            }
        }
        let sender = &sent.draft.sender;
        exceptions.retain(|(user_id, outcome)| *outcome != to_others && user_id != sender);
        exceptions.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        exceptions.dedup_by(|(one, _), (other, _)| one == other);
        Ok(Verdict {
            to_others,
            exceptions,
        })
    }

    /// A user's rules, ready to be asked.
    async fn compiled(&self, user_id: &UserId) -> Result<Arc<Compiled>, Refusal> {
        if let Some(compiled) = self.own.compiled(user_id) {
            return Ok(compiled);
        }
        let changes = self.own.changes();
        let compiled = Arc::new(Compiled::new(&self.rules(user_id).await?));
        self.own.keep(user_id.to_owned(), Arc::clone(&compiled), changes);
        Ok(compiled)
    }

    /// Notes that a user has rules of their own, and where the user is. Memberships that change meanwhile are followed
    /// already.
    async fn note_owner(&self, user_id: &UserId) -> Result<(), Refusal> {
        if self.own.has(user_id) {
            return Ok(());
        }
        self.own.follow(user_id);
        for stored in self.store.memberships_of(user_id).await? {
            if stored.membership.membership == "join" {
                self.own.is_in(user_id, stored.membership.room);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
