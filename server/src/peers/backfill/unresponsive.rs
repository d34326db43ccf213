//! Unresponsive servers: those that did not answer a question about events in time, or not at all. Others are asked
//! before them, so that one that answers slowly holds up a room once and not with every page.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ruma::{OwnedServerName, ServerName};

/// How long a server is asked after the others.
const REMEMBERED: Duration = Duration::from_secs(3_600);

/// Servers that are remembered.
const MOST_SERVERS: usize = 10_000;

/// When servers last did not help.
#[derive(Debug, Default)]
pub(in crate::peers) struct Unresponsive(Mutex<HashMap<OwnedServerName, Instant>>);

impl Unresponsive {
    /// Notes whether a server answered.
    pub(in crate::peers) fn note(&self, server: &ServerName, answered: bool, now: Instant) {
        let mut servers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if answered {
            servers.remove(server);
            return;
        }
        if servers.len() >= MOST_SERVERS {
            servers.retain(|_, since| now.duration_since(*since) < REMEMBERED);
        }
        if servers.len() < MOST_SERVERS || servers.contains_key(server) {
            servers.insert(server.to_owned(), now);
        }
    }

    /// Whether a server is to be asked after the others.
    pub(in crate::peers) fn is(&self, server: &ServerName, now: Instant) -> bool {
        let servers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let since = servers.get(server);
        since.is_some_and(|since| now.duration_since(*since) < REMEMBERED)
    }
}

#[cfg(test)]
mod tests {
    use ruma::server_name;

    use crate::peers::backfill::unresponsive::*;

    #[test]
    fn a_server_comes_last_until_it_helps_or_some_time_has_passed() {
        let (unresponsive, slow, now) = (
            Unresponsive::default(),
            server_name!("slow.example"),
            Instant::now(),
        );
        assert!(!unresponsive.is(slow, now));
        unresponsive.note(slow, false, now);
        assert!(unresponsive.is(slow, now));
        assert!(!unresponsive.is(slow, now + REMEMBERED));
        unresponsive.note(slow, true, now);
        assert!(!unresponsive.is(slow, now));
    }
}
