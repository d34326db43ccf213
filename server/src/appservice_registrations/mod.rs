//! Registrations of application services (Application Service API, "Registration"): who they are, which names are theirs,
//! and by which tokens they and this server know each other.
//!
//! They are read from files once, when the server starts, and never change while it runs: `file.rs` reads one and says what
//! is wrong with it, `namespaces.rs` matches names. What application services are sent and asked is in `appservices/`.

mod file;
mod namespaces;

use std::collections::HashMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::path::PathBuf;
use std::sync::Arc;

use ruma::{OwnedUserId, RoomAliasId, RoomId, ServerName, UserId};

use crate::token_hash::TokenHash;
pub use file::RegistrationError;
pub use namespaces::Namespaces;

/// An application service.
#[derive(Clone)]
pub struct Registration {
    /// Its name among the services of this server.
    pub id: String,
    /// Where it listens, without a slash at the end; none for one that only calls.
    pub url: Option<String>,
    /// By which it knows this server.
    pub(crate) hs_token: String,
    /// By which this server knows it.
    as_token: TokenHash,
    /// The user as whom it acts where it names no other.
    pub sender: OwnedUserId,
    /// Its users.
    pub users: Namespaces,
    /// Its aliases.
    pub aliases: Namespaces,
    /// Its rooms.
    pub rooms: Namespaces,
    /// Whether its requests spend budgets.
    pub rate_limited: bool,
    /// The networks of others that it knows.
    pub protocols: Vec<String>,
    /// Whether it is told who types, reads and is present.
    pub ephemeral: Ephemeral,
    /// Whether it is given what its devices need for encryption (MSC3202): counts of keys and changed device lists. Messages
    /// to its devices are then taken as received when it has accepted them.
    pub encrypts: bool,
}

/// Under which names an application service is told of what passes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ephemeral {
    /// `receive_ephemeral`: as the specification has it.
    pub stable: bool,
    /// `de.sorunome.msc2409.push_ephemeral`: as it was proposed.
    pub unstable: bool,
}

impl Ephemeral {
    /// Whether it is told at all.
    #[must_use]
    pub fn is_wanted(self) -> bool {
        self.stable || self.unstable
    }
}

/// Never shows a token.
impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Registration({})", self.id)
    }
}

impl PartialEq for Registration {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Registration {}

impl Hash for Registration {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}

impl Registration {
    /// Whether it acts as a user: its own, or one of a namespace.
    #[must_use]
    pub fn is_for_user(&self, user_id: &UserId) -> bool {
        self.sender == user_id || self.users.contain(user_id.as_str())
    }

    /// Whether nobody else may have a user: its own, or one of an exclusive namespace.
    #[must_use]
    pub fn has_user_alone(&self, user_id: &UserId) -> bool {
        self.sender == user_id || self.users.contain_alone(user_id.as_str())
    }

    /// Whether a room is of interest for its id.
    #[must_use]
    pub fn is_for_room(&self, room_id: &RoomId) -> bool {
        self.rooms.contain(room_id.as_str())
    }
}

/// All application services of this server.
#[derive(Clone, Debug, Default)]
pub struct Registrations {
    all: Vec<Arc<Registration>>,
    by_token: HashMap<TokenHash, Arc<Registration>>,
}

impl Registrations {
    /// Reads registrations from files, and from all files in folders whose names end in `.yaml`, `.yml` or `.json`.
    ///
    /// # Errors
    /// The first thing that is wrong, in one line with the file and the field.
    pub fn load(paths: &[PathBuf], server_name: &ServerName) -> Result<Self, RegistrationError> {
        let mut registrations = Self::default();
        for path in paths {
            for file in file::files_at(path)? {
                let registration = file::read(&file, server_name)?;
                registrations.add(registration).map_err(|(field, cause)| {
                    RegistrationError::field(&file, field, format_args!("another service has {cause}"))
                })?;
            }
        }
        Ok(registrations)
    }

    /// Adds one. What it has in common with another and may not, otherwise: the field, and what it is.
    fn add(&mut self, registration: Registration) -> Result<(), (&'static str, &'static str)> {
        let same = |is: &dyn Fn(&Registration) -> bool| self.all.iter().any(|other| is(other));
        if same(&|other| other.id == registration.id) {
            return Err(("id", "the same id"));
        }
        if same(&|other| other.as_token == registration.as_token) {
            return Err(("as_token", "the same token"));
        }
        if same(&|other| other.sender == registration.sender) {
            return Err(("sender_localpart", "the same user"));
        }
        let registration = Arc::new(registration);
        self.by_token
            .insert(registration.as_token, Arc::clone(&registration));
        self.all.push(registration);
        Ok(())
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// All of them, in order of their files.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Registration>> {
        self.all.iter()
    }

    /// The service that presents a token.
    #[must_use]
    pub fn by_token(&self, token: TokenHash) -> Option<&Arc<Registration>> {
        self.by_token.get(&token)
    }

    /// The service whose alone a user is.
    #[must_use]
    pub fn owner_of_user(&self, user_id: &UserId) -> Option<&Arc<Registration>> {
        self.all.iter().find(|service| service.has_user_alone(user_id))
    }

    /// Whether a user may make an alias: it is no service's alone, or the user is a user of that service alone.
    #[must_use]
    pub fn may_make_alias(&self, alias: &RoomAliasId, user_id: &UserId) -> bool {
        let mut owners = self
            .all
            .iter()
            .filter(|service| service.aliases.contain_alone(alias.as_str()));
        owners.all(|owner| owner.has_user_alone(user_id))
    }
}
