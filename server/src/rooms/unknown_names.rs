//! Names of users and rooms that nobody has here yet. An application service may have made none of its own so far, and does so
//! when it is asked.

use std::fmt;
use std::sync::{Arc, OnceLock, Weak};

use futures_util::future::{BoxFuture, join_all};
use ruma::{RoomAliasId, UserId};

/// Most users who are asked for by one request.
const USERS: usize = 10;

/// Who asks application services for names. Each question ends within seconds.
pub trait NameQueries: Send + Sync + fmt::Debug {
    /// Whether a service has made a user of this server, now that it was asked.
    fn user<'q>(&'q self, user_id: &'q UserId) -> BoxFuture<'q, bool>;

    /// Whether a service has made an alias of this server, now that it was asked.
    fn alias<'q>(&'q self, alias: &'q RoomAliasId) -> BoxFuture<'q, bool>;
}

/// Names that nobody has here yet.
#[derive(Debug, Default)]
pub struct UnknownNames(OnceLock<Weak<dyn NameQueries>>);

impl UnknownNames {
    /// Says who asks; before, nobody is asked. Only the first counts.
    pub fn ask_by(&self, queries: Weak<dyn NameQueries>) {
        let _ = self.0.set(queries);
    }

    fn queries(&self) -> Option<Arc<dyn NameQueries>> {
        self.0.get()?.upgrade()
    }

    /// Whether any of these users may be there now.
    pub(in crate::rooms) async fn are_users_made(&self, users: &[&UserId]) -> bool {
        let Some(queries) = self.queries().filter(|_| !users.is_empty()) else {
            return false;
        };
        let asked = users.iter().take(USERS).map(|user_id| queries.user(user_id));
        join_all(asked).await.into_iter().any(|is_made| is_made)
    }

    /// Whether an alias may be there now.
    pub(in crate::rooms) async fn is_alias_made(&self, alias: &RoomAliasId) -> bool {
        match self.queries() {
            Some(queries) => queries.alias(alias).await,
            None => false,
        }
    }
}
