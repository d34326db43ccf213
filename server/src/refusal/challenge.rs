//! The challenge of user-interactive authentication (client-server API, "User-Interactive Authentication API"): the refusal that says what would be enough.

use super::Refusal;

/// A stage of user-interactive authentication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Nothing is proved.
    Dummy,
    /// The account's password.
    Password,
    /// A token that lets its holder register.
    RegistrationToken,
    /// An approval on the account page.
    Page,
    /// The same for new cross-signing keys, by its older name.
    CrossSigningReset,
}

/// What a client is asked to prove.
#[derive(Clone, Debug)]
pub struct Challenge {
    /// To be named in the next attempt.
    pub session: String,
    /// Any of these is enough.
    pub flows: &'static [Stage],
    /// Where the user can approve it, for the stages that are passed there.
    pub page: Option<String>,
    /// What was wrong with the attempt before.
    pub error: Option<Box<Refusal>>,
}
