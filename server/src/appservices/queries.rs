//! Users and aliases that nobody has here yet: the service whose they would be is asked, and makes them before it says yes
//! (Application Service API, "Querying").

use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, join_all};
use ruma::{RoomAliasId, UserId};
use tokio::sync::Semaphore;

use super::Appservices;
use super::service::Service;
use crate::cache::Cache;
use crate::rooms::NameQueries;

/// How long a name that no service has is not asked for again.
const REFUSED_FOR: Duration = Duration::from_secs(30);

/// Names that are remembered as such, two generations of this many.
const REFUSED: usize = 5_000;

/// Names that are asked for at the same time; others are taken to be unknown.
const AT_ONCE: usize = 16;

/// Names that no service has, and how many are being asked for.
#[derive(Debug)]
pub(super) struct Unknown {
    refused: Cache<String, Instant>,
    asking: Semaphore,
}

impl Default for Unknown {
    fn default() -> Self {
        Self {
            refused: Cache::new(REFUSED),
            asking: Semaphore::new(AT_ONCE),
        }
    }
}

impl Appservices {
    /// Asks the services that have a name in a namespace whether they have made it.
    async fn ask(&self, kind: &str, name: &str, is_own: impl Fn(&Service) -> bool) -> bool {
        let concerned = self.services.iter().filter(|service| is_own(service));
        let asked = concerned.map(|service| service.has(kind, name));
        let asked: Vec<_> = asked.collect();
        let refused = self.unknown.refused.get(name);
        if asked.is_empty() || refused.is_some_and(|at| at.elapsed() < REFUSED_FOR) {
            return false;
        }
        let Ok(_permit) = self.unknown.asking.try_acquire() else {
            return false;
        };
        let is_made = join_all(asked).await.into_iter().any(|is_made| is_made);
        if !is_made {
            self.unknown.refused.insert(name.to_owned(), Instant::now());
        }
        is_made
    }
}

impl NameQueries for Appservices {
    fn user<'q>(&'q self, user_id: &'q UserId) -> BoxFuture<'q, bool> {
        Box::pin(self.ask("users", user_id.as_str(), move |service| {
            service.registration.is_for_user(user_id)
        }))
    }

    fn alias<'q>(&'q self, alias: &'q RoomAliasId) -> BoxFuture<'q, bool> {
        Box::pin(self.ask("rooms", alias.as_str(), move |service| {
            service.registration.aliases.contain(alias.as_str())
        }))
    }
}
