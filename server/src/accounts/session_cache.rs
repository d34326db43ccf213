//! Sessions that are in memory, so that most requests need not ask the database whose token they carry.
//!
//! One that has ended is gone from here before its end is acknowledged, and whoever waits with its token is woken.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::{BoxFuture, ready};
use ruma::{OwnedUserId, UserId};

use super::Caller;
use crate::cache::Cache;
use crate::live::Notifier;
use crate::store::StoreError;
use crate::store::log::{Committed, Mirror, Record};
use crate::token_hash::TokenHash;

/// Sessions whose token is known without asking the database, two generations of this many.
const KNOWN_SESSIONS: usize = 50_000;

/// A session that is in memory.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) caller: Caller,
    /// Milliseconds since 1970.
    pub(super) expires_at: Option<u64>,
    /// When its device was last noted as seen.
    pub(super) noted_at: AtomicU64,
}

/// The sessions.
#[derive(Debug)]
pub(super) struct KnownSessions {
    notifier: Arc<Notifier>,
    by_token: Cache<TokenHash, Arc<Known>>,
    /// How often an end of sessions has begun or been stored: what was read from the database before must not be kept
    /// after, and must be looked at again by who waits.
    ends: AtomicU64,
    /// Users some of whose sessions are being ended: meanwhile the database alone knows.
    ending: Mutex<Vec<OwnedUserId>>,
    /// How many those are, for the many who need not look.
    users_ending: AtomicUsize,
}

impl KnownSessions {
    pub(super) fn new(notifier: Arc<Notifier>) -> Arc<Self> {
        Arc::new(Self {
            notifier,
            by_token: Cache::new(KNOWN_SESSIONS),
            ends: AtomicU64::new(0),
            ending: Mutex::default(),
            users_ending: AtomicUsize::new(0),
        })
    }

    /// The session of a token, unless the database has to be asked.
    pub(super) fn get(&self, token: &TokenHash) -> Option<Arc<Known>> {
        let known = self.by_token.get(token)?;
        let is_ending = self.users_ending.load(Ordering::SeqCst) > 0
            && self.lock_ending().contains(&known.caller.user_id);
        (!is_ending).then_some(known)
    }

    /// How often an end of sessions has begun or been stored.
    pub(super) fn ends(&self) -> u64 {
        self.ends.load(Ordering::SeqCst)
    }

    /// Keeps a session that was read when [`KnownSessions::ends`] was `ends_before`.
    pub(super) fn keep(&self, token: TokenHash, known: Arc<Known>, ends_before: u64) {
        self.by_token.insert(token, known);
        if self.ends() != ends_before {
            self.by_token.remove(&token);
        }
    }

    /// To be held while an end of sessions is being stored: whoever is woken by that sees it.
    pub(super) fn ending(self: &Arc<Self>, user_id: &UserId) -> Ending {
        self.users_ending.fetch_add(1, Ordering::SeqCst);
        self.lock_ending().push(user_id.to_owned());
        self.ends.fetch_add(1, Ordering::SeqCst);
        Ending {
            known: Arc::clone(self),
            user_id: user_id.to_owned(),
        }
    }

    fn forget(&self, user_id: &UserId, tokens: &[TokenHash]) {
        self.ends.fetch_add(1, Ordering::SeqCst);
        tokens.iter().for_each(|token| self.by_token.remove(token));
        self.notifier.recall(user_id);
    }

    fn lock_ending(&self) -> MutexGuard<'_, Vec<OwnedUserId>> {
        self.ending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Some sessions of a user are being ended, until this goes.
#[derive(Debug)]
pub(super) struct Ending {
    known: Arc<KnownSessions>,
    user_id: OwnedUserId,
}

impl Ending {
    /// The end of these sessions is stored: forgets them, and has the user's waiting requests look at their tokens.
    pub(super) fn ended(&self, tokens: &[TokenHash]) {
        if !tokens.is_empty() {
            self.known.forget(&self.user_id, tokens);
        }
    }
}

impl Mirror for KnownSessions {
    fn follow<'f>(&'f self, records: &'f [Committed]) -> BoxFuture<'f, Result<(), StoreError>> {
        for committed in records {
            if let Record::SessionsEnded(ended) = &committed.record {
                self.forget(&ended.user_id, &ended.tokens);
            }
        }
        Box::pin(ready(Ok(())))
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let mut ending = self.known.lock_ending();
        if let Some(at) = ending.iter().position(|user_id| *user_id == self.user_id) {
            ending.swap_remove(at);
            self.known.users_ending.fetch_sub(1, Ordering::SeqCst);
        }
    }
}
