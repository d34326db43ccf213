//! Throttling of servers whose events are dropped: their logs are read slowly for a while, since what they send costs checks
//! and room, and the cores are those that serve everybody else.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ruma::{OwnedServerName, ServerName};

/// The pause before each frame of such a server's log: so one frame of 256 items, or 8 MiB, costs a moment and not all.
const PAUSE: Duration = Duration::from_millis(500);

/// How long after the last event that was dropped.
const LASTS: Duration = Duration::from_secs(10);

/// When an event of whom was dropped last. Bounded by the servers that sent one in the last seconds.
#[derive(Debug, Default)]
pub(in crate::peers) struct Throttle(Mutex<HashMap<OwnedServerName, Instant>>);

impl Throttle {
    /// An event of a server is dropped.
    pub(in crate::peers) fn dropped(&self, peer: &ServerName) {
        let mut servers = self.servers();
        servers.retain(|_, last| last.elapsed() < LASTS);
        servers.insert(peer.to_owned(), Instant::now());
    }

    /// How long the next frame of a server waits before it is looked at; none where it does not: a pause of no time would
    /// last until the clock's next tick.
    pub(in crate::peers) fn pause(&self, peer: &ServerName) -> Option<Duration> {
        let servers = self.servers();
        let is_slowed = servers.get(peer).is_some_and(|last| last.elapsed() < LASTS);
        is_slowed.then_some(PAUSE)
    }

    fn servers(&self) -> MutexGuard<'_, HashMap<OwnedServerName, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use ruma::server_name;

    use crate::peers::inbound::throttle::*;

    #[test]
    fn only_who_sends_what_is_dropped_is_slowed() {
        let (throttle, liar) = (Throttle::default(), server_name!("liar.example"));
        assert_eq!(throttle.pause(liar), None);
        throttle.dropped(liar);
        assert_eq!(throttle.pause(liar), Some(PAUSE));
        assert_eq!(throttle.pause(server_name!("honest.example")), None);
        let long_ago = Instant::now().checked_sub(LASTS).unwrap();
        throttle.servers().insert(liar.to_owned(), long_ago);
        assert_eq!(throttle.pause(liar), None);
    }
}
