//! Push rules: what counts as unread, and for whom it is highlighted.
//!
//! Every event is evaluated once, before it is stored: by the predefined rules for a member who is not mentioned, and
//! beside that one by one for those to whom the answer may differ, who are the mentioned, the invited, and the members
//! with rules of their own or who ignore somebody. A message in a room without such members costs a few microseconds, however many members
//! there are; each member with own rules adds the matching of those rules, up to a number of steps (`limits`). Much work
//! is done off the async threads, with a fair share for each sender.

mod carry_over;
mod compiled;
mod custom_rules;
mod facts;
mod ignored;
mod limits;
mod pattern;
mod rules;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use maru_protocol::event::Draft;
use ruma::{OwnedUserId, ServerName, UserId};

use compiled::{Compiled, Scene, event_of};
pub use custom_rules::CustomRules;
use custom_rules::Own;
pub use facts::EventProperties;
pub use ignored::{IGNORED_USERS, ignored_users};
use limits::{STEPS_AT_ONCE, Steps};
pub use rules::{PUSH_RULES, find};

use crate::fair_semaphore::FairSemaphore;
use crate::refusal::Refusal;
use crate::store::accounts::account_data::GLOBAL;
use crate::store::log::{Committed, Mirror, Record};
use crate::store::rooms::events::Notify;
use crate::store::{Store, StoreError};

/// Events that make much work and are evaluated at once; of one sender or other server, one.
const EVALUATED_AT_ONCE: usize = 2;

/// Everything that push rules need to work.
#[derive(Debug)]
pub struct Push {
    store: Arc<Store>,
    own: Arc<CustomRules>,
    /// By who sends: a user of this server, or another server.
    evaluating: FairSemaphore<String>,
}

/// Outcome of push rules for one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushOutcome {
    /// To everybody else.
    pub to_others: Notify,
    /// To those to whom they say something else.
    pub exceptions: Vec<(OwnedUserId, Notify)>,
}

/// An event whose push rules are evaluated, and the room it is sent to.
pub struct Sent<'a> {
    /// The event.
    pub draft: &'a Draft,
    /// Its properties that the predefined rules look at.
    pub facts: &'a EventProperties,
    /// The room (rooms.nid).
    pub room: i64,
    /// Joined members.
    pub joined: u64,
    /// This server: other servers evaluate rules for their own users.
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
    pub async fn open(store: Arc<Store>, own: Arc<CustomRules>) -> Result<Self, StoreError> {
        for (user_id, room) in store.accounts.owners_of_push_rules().await? {
            own.follow(&user_id);
            if let Some(room) = room {
                own.is_in(&user_id, room);
            }
        }
        Ok(Self {
            store,
            own,
            evaluating: FairSemaphore::new(EVALUATED_AT_ONCE, 1, usize::MAX),
        })
    }

    /// Whether evaluating an event may ask for the sender's power.
    #[must_use]
    pub fn needs_power(&self, facts: &EventProperties, room: i64) -> bool {
        facts.mentions_room || self.own.any_in(room)
    }

    /// Evaluates an event for everybody in its room, and for whom it invites.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn evaluate(&self, sent: &Sent<'_>) -> Result<PushOutcome, Refusal> {
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
            exceptions.extend(self.by_own_rules(sent, owners).await?);
        }
        let sender = &sent.draft.sender;
        exceptions.retain(|(user_id, outcome)| *outcome != to_others && user_id != sender);
        exceptions.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        exceptions.dedup_by(|(one, _), (other, _)| one == other);
        Ok(PushOutcome {
            to_others,
            exceptions,
        })
    }

    /// What the rules of those who have their own say of an event: of one by somebody whom they ignore, nothing. Takes a
    /// bounded number of steps.
    async fn by_own_rules(
        &self,
        sent: &Sent<'_>,
        owners: Vec<OwnedUserId>,
    ) -> Result<Vec<(OwnedUserId, Notify)>, Refusal> {
        let sender = &sent.draft.sender;
        let (ignoring, asked): (Vec<_>, Vec<_>) = self
            .compiled(owners)
            .await?
            .into_iter()
            .partition(|(_, own)| own.ignored.contains(sender));
        let nothing = ignoring
            .into_iter()
            .map(|(user_id, _)| (user_id, Notify::Nothing));
        let mut verdicts: Vec<_> = nothing.collect();
        if !asked.is_empty() {
            verdicts.extend(self.by_rules(sent, asked).await?);
        }
        Ok(verdicts)
    }

    async fn by_rules(
        &self,
        sent: &Sent<'_>,
        rules: Vec<(OwnedUserId, Arc<Own>)>,
    ) -> Result<Vec<(OwnedUserId, Notify)>, Refusal> {
        let keys: HashSet<&String> = rules.iter().flat_map(|(_, own)| own.rules.keys()).collect();
        let allowed = keys.into_iter().filter(|key| (sent.may_notify)(key));
        let allowed: HashSet<String> = allowed.cloned().collect();
        let bytes = sent.draft.content.as_str().len();
        let share = Steps::share(rules.len());
        let steps = rules
            .iter()
            .map(|(_, own)| own.rules.most_steps(bytes).min(share));
        if steps.sum::<u64>() + bytes as u64 <= STEPS_AT_ONCE {
            return Ok(ask(rules, sent.draft, sent.joined, &allowed));
        }
        let sender = &sent.draft.sender;
        let spender = match sender.server_name() {
            server_name if server_name == sent.server_name => sender.to_string(),
            server_name => server_name.to_string(),
        };
        let permit = self
            .evaluating
            .acquire(spender)
            .await
            .map_err(Refusal::internal)?;
        let (draft, joined) = (sent.draft.clone(), sent.joined);
        let asked = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            ask(rules, &draft, joined, &allowed)
        });
        asked.await.map_err(Refusal::internal)
    }

    /// The rules of some users, ready to be asked: two queries for all that are not in memory.
    async fn compiled(&self, users: Vec<OwnedUserId>) -> Result<Vec<(OwnedUserId, Arc<Own>)>, Refusal> {
        let changes = self.own.changes();
        let (mut known, mut missing) = (Vec::with_capacity(users.len()), Vec::new());
        for user_id in users {
            match self.own.compiled(&user_id) {
                Some(compiled) => known.push((user_id, compiled)),
                None => missing.push(user_id),
            }
        }
        if missing.is_empty() {
            return Ok(known);
        }
        let asked: Vec<String> = missing.iter().map(ToString::to_string).collect();
        let stored = self
            .store
            .accounts
            .account_data_of(asked.clone(), GLOBAL, PUSH_RULES)
            .await?;
        let lists = self
            .store
            .accounts
            .account_data_of(asked, GLOBAL, IGNORED_USERS)
            .await?;
        let compiled = tokio::task::spawn_blocking(move || {
            let contents = stored.into_iter().map(|data| (data.user_id, data.content));
            let contents: HashMap<_, _> = contents.collect();
            let lists = lists.into_iter().map(|data| (data.user_id, data.content));
            let lists: HashMap<_, _> = lists.collect();
            let compile = |user_id: OwnedUserId| {
                let rules = rules::read(&user_id, contents.get(&user_id).map(String::as_str));
                let list = lists.get(&user_id).map(|content| ignored_users(content));
                let own = Own {
                    rules: Compiled::new(&rules),
                    ignored: list.unwrap_or_default(),
                };
                (user_id, Arc::new(own))
            };
            missing.into_iter().map(compile).collect::<Vec<_>>()
        });
        for (user_id, compiled) in compiled.await.map_err(Refusal::internal)? {
            self.own.keep(user_id.clone(), Arc::clone(&compiled), changes);
            known.push((user_id, compiled));
        }
        Ok(known)
    }

    /// Notes that a user has rules of their own or ignores others, and where the user is. Memberships that change meanwhile
    /// are followed already.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn note_owner(&self, user_id: &UserId) -> Result<(), Refusal> {
        Ok(self.follow_owner(user_id).await?)
    }

    async fn follow_owner(&self, user_id: &UserId) -> Result<(), StoreError> {
        if self.own.has(user_id) {
            return Ok(());
        }
        self.own.follow(user_id);
        for stored in self.store.rooms.memberships_of(user_id).await? {
            if stored.membership.membership == "join" {
                self.own.is_in(user_id, stored.membership.room);
            }
        }
        Ok(())
    }
}

/// Asks each user's rules about an event.
fn ask(
    rules: Vec<(OwnedUserId, Arc<Own>)>,
    draft: &Draft,
    joined: u64,
    allowed: &HashSet<String>,
) -> Vec<(OwnedUserId, Notify)> {
    let event = event_of(draft);
    let mut scene = Scene::new(&event, joined, allowed);
    let share = Steps::share(rules.len());
    let evaluate = |(user_id, own): (OwnedUserId, Arc<Own>)| {
        let outcome = own.rules.evaluate(&mut scene, &mut Steps::new(share));
        (user_id, outcome)
    };
    rules.into_iter().map(evaluate).collect()
}

#[cfg(test)]
mod tests;

impl Mirror for Push {
    fn follow<'f>(&'f self, records: &'f [Committed]) -> BoxFuture<'f, Result<(), StoreError>> {
        Box::pin(async move {
            for committed in records {
                if let Record::AccountData(data) = &committed.record
                    && [PUSH_RULES, IGNORED_USERS].contains(&&*data.data_type)
                {
                    self.follow_owner(&data.user_id).await?;
                }
            }
            Ok(())
        })
    }
}
