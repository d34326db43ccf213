//! User-interactive authentication (client-server API): an action that needs more than an access token is asked for
//! twice, the second time with a proof.
//!
//! Every flow of this server has one stage, so a session remembers only what it was opened for. Proofs are judged at
//! once and never kept. A session that has served stays open until it expires: a client whose answer got lost makes the
//! same request again, with the same proof.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use super::token::new_secret;
use super::{Accounts, Caller};
use crate::refusal::Refusal;

/// Sessions that may be open at once; the oldest one goes when there are more.
const OPEN_SESSIONS: usize = 10_000;

/// How long a session stays open, in milliseconds.
const SESSION_MS: u64 = 15 * 60_000;

/// One way to prove something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Nothing is proved.
    Dummy,
    /// The account's password.
    Password,
    /// A token that lets its holder register.
    RegistrationToken,
}

/// What a client presents.
#[derive(Clone)]
pub enum Proof {
    /// Nothing, which is enough where registration is open.
    Dummy,
    /// A password, and whose it is, unless it is the caller's.
    Password {
        /// A user id or a local part.
        user: Option<String>,
        /// In the clear.
        password: String,
    },
    /// A registration token.
    RegistrationToken(String),
    /// A kind of proof that this server does not know, or none.
    Other,
}

impl std::fmt::Debug for Proof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Proof(…)")
    }
}

/// An answer to a challenge.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// The session of the challenge. A client that knows the flows may do without.
    pub session: Option<String>,
    /// The proof.
    pub proof: Proof,
}

/// What a client is asked to prove.
#[derive(Clone, Debug)]
pub struct Challenge {
    /// To be named in the next attempt.
    pub session: String,
    /// Any of these is enough.
    pub flows: &'static [Stage],
    /// What was wrong with the attempt before.
    pub error: Option<Box<Refusal>>,
}

/// The open sessions, and what each was opened for.
#[derive(Debug, Default)]
pub(super) struct Sessions(Mutex<OpenSessions>);

#[derive(Debug, Default)]
struct OpenSessions {
    by_id: HashMap<String, Open>,
    /// Oldest first; all live equally long.
    order: VecDeque<String>,
}

#[derive(Debug)]
struct Open {
    purpose: String,
    until_ms: u64,
}

impl Sessions {
    fn open(&self, purpose: String, now_ms: u64) -> String {
        let id = new_secret("uia");
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let OpenSessions { by_id, order } = &mut *sessions;
        while let Some(oldest) = order.front() {
            let alive = by_id.get(oldest).is_some_and(|open| open.until_ms > now_ms);
            if alive && order.len() < OPEN_SESSIONS {
                break;
            }
            by_id.remove(oldest);
            order.pop_front();
        }
        let until_ms = now_ms + SESSION_MS;
        by_id.insert(id.clone(), Open { purpose, until_ms });
        order.push_back(id.clone());
        id
    }

    fn is_open(&self, id: &str, purpose: &str, now_ms: u64) -> bool {
        let sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let open = sessions.by_id.get(id);
        open.is_some_and(|open| open.purpose == purpose && open.until_ms > now_ms)
    }
}

/// One action that waits for its proof.
pub(super) struct Gate<'a> {
    pub(super) accounts: &'a Accounts,
    /// What the session is good for, and nothing else.
    pub(super) purpose: String,
    pub(super) flows: &'static [Stage],
}

impl Gate<'_> {
    /// The proof that was presented in a session of this gate.
    pub(super) fn proof(&self, attempt: Option<Attempt>) -> Result<(Proof, Option<String>), Refusal> {
        let Some(attempt) = attempt else {
            return Err(self.ask(None, None));
        };
        let now = self.accounts.clock.now_ms();
        let sessions = &self.accounts.interactive;
        match attempt.session {
            Some(id) if !sessions.is_open(&id, &self.purpose, now) => {
                let why = Refusal::forbidden("this session is not open, or for something else; begin again");
                Err(self.ask(None, Some(why)))
            }
            session => Ok((attempt.proof, session)),
        }
    }

    /// Asks for a proof, in the same session where there is one.
    pub(super) fn ask(&self, session: Option<String>, error: Option<Refusal>) -> Refusal {
        let now = self.accounts.clock.now_ms();
        let open = || self.accounts.interactive.open(self.purpose.clone(), now);
        Refusal::InteractiveAuth(Box::new(Challenge {
            session: session.unwrap_or_else(open),
            flows: self.flows,
            error: error.map(Box::new),
        }))
    }
}

impl Accounts {
    /// Makes sure that it is the user who calls, not only somebody with the user's access token: asks for the
    /// password. `operation` is what for; a session opened for one operation is not good for another.
    ///
    /// # Errors
    /// [`Refusal::InteractiveAuth`] until the password is given.
    pub async fn confirm(
        &self,
        caller: &Caller,
        operation: &'static str,
        attempt: Option<Attempt>,
    ) -> Result<(), Refusal> {
        let gate = Gate {
            accounts: self,
            purpose: format!("{operation} {}", caller.user_id),
            flows: &[Stage::Password],
        };
        let (proof, session) = gate.proof(attempt)?;
        let Proof::Password { user, password } = proof else {
            let why = Refusal::forbidden("this needs the password of the account");
            return Err(gate.ask(session, Some(why)));
        };
        let own = user.is_none_or(|name| self.named(&name).is_some_and(|named| named == caller.user_id));
        if !own {
            let why = Refusal::forbidden("the proof is of another account");
            return Err(gate.ask(session, Some(why)));
        }
        match self.check_password(&caller.user_id, password).await {
            Ok(()) => Ok(()),
            Err(why @ Refusal::Forbidden(_)) => Err(gate.ask(session, Some(why))),
            Err(other) => Err(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_good_for_its_purpose_and_for_a_while() {
        let sessions = Sessions::default();
        let id = sessions.open("register".into(), 1000);
        assert!(sessions.is_open(&id, "register", 1000));
        assert!(!sessions.is_open(&id, "delete_device @a:b", 1000));
        assert!(!sessions.is_open("other", "register", 1000));
        assert!(!sessions.is_open(&id, "register", 1000 + SESSION_MS));
    }

    #[test]
    fn strangers_cannot_make_the_table_grow() {
        let sessions = Sessions::default();
        let first = sessions.open("register".into(), 0);
        for _ in 0..OPEN_SESSIONS + 100 {
            sessions.open("register".into(), 0);
        }
        assert!(!sessions.is_open(&first, "register", 0));
        let count = |sessions: &Sessions| {
            let open = sessions.0.lock().unwrap();
            (open.by_id.len(), open.order.len())
        };
        assert_eq!(count(&sessions), (OPEN_SESSIONS, OPEN_SESSIONS));
        sessions.open("register".into(), SESSION_MS);
        assert_eq!(count(&sessions), (1, 1), "what has expired goes");
    }
}
