//! User-interactive authentication (client-server API): an action that needs more than an access token is asked for
//! twice, the second time with a proof.
//!
//! Every flow of this server has one stage, so a session remembers only what it was opened for. Proofs are judged at
//! once and never kept. A session that has served stays open until it expires: a client whose answer got lost makes the
//! same request again, with the same proof.
//!
//! Nothing is kept of an open session: its id says until when it is open, and carries a seal that only this server makes,
//! over what it was opened for. So no number of strangers closes anybody's session, and one that was opened for an
//! account ends with the credentials that it was opened under.

use super::seal::SealKey;
use super::{Accounts, Caller, Share};
use crate::refusal::{Challenge, Refusal, Stage};
use crate::store::accounts::credentials::Credentials;

/// How long a session stays open, in milliseconds.
const SESSION_MS: u64 = 15 * 60_000;

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
    /// That the user has approved it on the account page.
    Page,
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

/// What the key of the seals is derived for.
const PURPOSE: &[u8] = b"maru interactive authentication";

/// Makes and knows the ids of sessions, on every node of this server alike.
#[derive(Debug)]
pub(super) struct Sessions(SealKey);

impl Sessions {
    /// Sessions sealed with a key that is derived from a secret of this server.
    pub(super) fn sealed_with(secret: &[u8; 32]) -> Self {
        Self(SealKey::derived(secret, PURPOSE))
    }

    fn open(&self, purpose: &str, now_ms: u64) -> String {
        let number = rand::random::<u64>();
        let head = format!("uia_{:x}_{number:016x}", now_ms + SESSION_MS);
        // No purpose holds a NUL, so none can be taken for another.
        format!("{head}_{}", self.0.seal(&[&head, "\0", purpose]))
    }

    fn is_open(&self, id: &str, purpose: &str, now_ms: u64) -> bool {
        let Some((head, seal)) = id.rsplit_once('_') else {
            return false;
        };
        let until = head.strip_prefix("uia_").and_then(|rest| rest.split_once('_'));
        let until = until.and_then(|(until, _)| u64::from_str_radix(until, 16).ok());
        let is_ours = self.0.is_seal(&[head, "\0", purpose], seal);
        is_ours && until.is_some_and(|until| until > now_ms)
    }
}

/// One action that waits for its proof.
pub(super) struct Gate<'a> {
    pub(super) accounts: &'a Accounts,
    /// What the session is good for, and nothing else.
    pub(super) purpose: String,
    pub(super) flows: &'static [Stage],
    /// Where the user can approve it, where the flows are of that kind.
    pub(super) page: Option<String>,
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
        let open = || self.accounts.interactive.open(&self.purpose, now);
        Refusal::InteractiveAuth(Box::new(Challenge {
            session: session.unwrap_or_else(open),
            flows: self.flows,
            page: self.page.clone(),
            error: error.map(Box::new),
        }))
    }
}

impl Accounts {
    /// Makes sure that it is the user who calls, not only somebody with the user's access token: asks for the
    /// password. `operation` is what for; a session opened for one operation is not good for another. What that proves,
    /// until the password changes.
    ///
    /// # Errors
    /// [`Refusal::InteractiveAuth`] until the password is given.
    pub async fn confirm(
        &self,
        caller: &Caller,
        operation: &'static str,
        attempt: Option<Attempt>,
    ) -> Result<Credentials, Refusal> {
        let user = self.store.accounts.user(&caller.user_id).await?;
        let credentials = user.map_or(Credentials::FIRST, |user| user.credentials);
        if caller.needs_no_proof(operation) {
            return Ok(credentials);
        }
        let gate = Gate {
            accounts: self,
            purpose: format!("{operation} {} {credentials}", caller.user_id),
            flows: &[Stage::Password],
            page: None,
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
        let share = Share::Account(caller.user_id.clone());
        match self.check_password(&caller.user_id, password, share).await {
            Ok(proved) => Ok(proved),
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
        let sessions = Sessions::sealed_with(&[1; 32]);
        let id = sessions.open("register", 1000);
        assert!(sessions.is_open(&id, "register", 1000));
        assert!(!sessions.is_open(&id, "delete_device @a:b 0", 1000));
        assert!(!sessions.is_open(&id, "register", 1000 + SESSION_MS));
        assert!(!Sessions::sealed_with(&[2; 32]).is_open(&id, "register", 1000));
        assert_ne!(id, sessions.open("register", 1000));
    }

    #[test]
    fn nobody_else_makes_a_session() {
        let sessions = Sessions::sealed_with(&[1; 32]);
        let id = sessions.open("register", 1000);
        let (head, seal) = id.rsplit_once('_').unwrap();
        let later = head.replacen("uia_", "uia_f", 1);
        for made_up in [
            "",
            "other",
            "uia_",
            "uia_ffffffff_0_",
            head,
            &seal[..8],
            &format!("{head}_"),
            &format!("{head}_{}", &seal[..32]),
            &format!("{head}_{}x", &seal[..63]),
            &format!("{head}_ä{seal}"),
            &format!("{later}_{seal}"),
        ] {
            assert!(!sessions.is_open(made_up, "register", 1000), "{made_up}");
        }
    }
}
