//! How much of each peer waits in the inbox, at most: while that is little, nobody has to count what does.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use ruma::{OwnedServerName, ServerName};

/// Events in the inbox, and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::peers) struct InboxQuota {
    pub(in crate::peers) events: u64,
    pub(in crate::peers) bytes: u64,
}

/// Upper bounds: what came in since the inbox was last counted is added, what was dealt with is not taken off. Bounded by
/// the number of servers.
#[derive(Debug, Default)]
pub(in crate::peers) struct InboxQuotas(Mutex<HashMap<OwnedServerName, InboxQuota>>);

impl InboxQuotas {
    /// The most that can wait of a peer; none when it was never counted.
    pub(in crate::peers) fn at_most(&self, peer: &ServerName) -> Option<InboxQuota> {
        let sizes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sizes.get(peer).copied()
    }

    /// Nothing is known of how much waits: another node had the inbox.
    pub(in crate::peers) fn forget(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// What waits of a peer has been counted.
    pub(in crate::peers) fn counted(&self, peer: &ServerName, size: InboxQuota) {
        let mut sizes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sizes.insert(peer.to_owned(), size);
    }

    /// More of a peer has come in.
    pub(in crate::peers) fn came(&self, peer: &ServerName, more: InboxQuota) {
        let mut sizes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(size) = sizes.get_mut(peer) {
            size.events += more.events;
            size.bytes += more.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use ruma::server_name;

    use crate::peers::inbound::inbox_quota::*;

    #[test]
    fn what_was_never_counted_has_no_bound_and_what_comes_raises_one() {
        let (sizes, peer) = (InboxQuotas::default(), server_name!("peer.example"));
        let more = InboxQuota { events: 2, bytes: 30 };
        sizes.came(peer, more);
        assert_eq!(sizes.at_most(peer), None);
        sizes.counted(peer, InboxQuota::default());
        sizes.came(peer, more);
        sizes.came(peer, more);
        assert_eq!(sizes.at_most(peer), Some(InboxQuota { events: 4, bytes: 60 }));
        sizes.counted(peer, more);
        assert_eq!(sizes.at_most(peer), Some(more));
    }
}
