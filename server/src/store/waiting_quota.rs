//! What waits for somebody who is not there to take it, counted by who sent it: nobody's messages take the place of
//! somebody else's.

use std::collections::HashMap;
use std::hash::Hash;

/// How much may wait.
#[derive(Clone, Copy, Debug)]
pub struct QueueLimits {
    /// Messages.
    pub messages: i64,
    /// Bytes of their contents.
    pub bytes: i64,
}

/// Who may have how much waiting for one receiver.
#[derive(Clone, Copy, Debug)]
pub struct Shares {
    /// Of one sender.
    pub of_sender: QueueLimits,
    /// Of one sender even when there is no room otherwise: what others have sent never keeps it out.
    pub certain: QueueLimits,
    /// Of all senders of another server together, what is certain to them included: a server makes up senders as it likes.
    pub of_server: QueueLimits,
    /// Of everybody together, before there is only room for what is certain.
    pub of_all: QueueLimits,
    /// Of everybody together, what is certain included.
    pub most: QueueLimits,
}

/// What waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Queue {
    pub(super) messages: i64,
    pub(super) bytes: i64,
}

impl Queue {
    /// One message of so many bytes.
    pub(super) fn one(bytes: usize) -> Self {
        Self {
            messages: 1,
            bytes: i64::try_from(bytes).unwrap_or(i64::MAX),
        }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.messages += other.messages;
        self.bytes = self.bytes.saturating_add(other.bytes);
    }

    pub(super) fn negative(self) -> Self {
        Self {
            messages: -self.messages,
            bytes: -self.bytes,
        }
    }

    fn fits(self, more: Self, limits: QueueLimits) -> bool {
        self.messages + more.messages <= limits.messages
            && self.bytes.saturating_add(more.bytes) <= limits.bytes
    }
}

/// The name under which everything that waits for a receiver is counted, beside the names of senders and servers.
pub(super) const EVERYBODY: &str = "";

/// What waits for some receivers, by the receiver and by who is counted: a sender, a server, or [`EVERYBODY`].
#[derive(Debug)]
pub struct Waiting<R>(HashMap<(R, String), Queue>);

impl<R: Clone + Eq + Hash> Waiting<R> {
    pub(super) fn new(queues: impl IntoIterator<Item = ((R, String), Queue)>) -> Self {
        Self(queues.into_iter().collect())
    }

    fn of(&self, receiver: &R, who: &str) -> Queue {
        let key = (receiver.clone(), who.to_owned());
        self.0.get(&key).copied().unwrap_or_default()
    }

    /// Counts one more message for a receiver, if its sender may have it waiting there. `server` is the sender's, where
    /// that is another one.
    pub fn admit(
        &mut self,
        receiver: &R,
        sender: &str,
        server: Option<&str>,
        bytes: usize,
        shares: &Shares,
    ) -> bool {
        let more = Queue::one(bytes);
        let of_sender = self.of(receiver, sender);
        let within_server = server.is_none_or(|name| self.of(receiver, name).fits(more, shares.of_server));
        let of_all = self.of(receiver, EVERYBODY);
        let is_certain = of_sender.fits(more, shares.certain) && of_all.fits(more, shares.most);
        let has_room = is_certain || of_all.fits(more, shares.of_all);
        if !within_server || !has_room || !of_sender.fits(more, shares.of_sender) {
            return false;
        }
        for who in counted(sender, server) {
            let key = (receiver.clone(), who.to_owned());
            self.0.entry(key).or_default().add(more);
        }
        true
    }
}

/// The names under which a message is counted. The sender of what was stored long ago is not known: an empty name.
pub(super) fn counted<'n>(sender: &'n str, server: Option<&'n str>) -> impl Iterator<Item = &'n str> {
    let sender = Some(sender).filter(|sender| !sender.is_empty());
    [Some(EVERYBODY), sender, server].into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use crate::store::waiting_quota::*;

    const fn limits(messages: i64) -> QueueLimits {
        QueueLimits {
            messages,
            bytes: messages * 10,
        }
    }

    const SHARES: Shares = Shares {
        of_sender: limits(4),
        certain: limits(2),
        of_server: limits(5),
        of_all: limits(6),
        most: limits(300),
    };

    fn send(waiting: &mut Waiting<&str>, times: usize, sender: &str, server: Option<&str>) -> usize {
        let sent = |_: &usize| waiting.admit(&"device", sender, server, 1, &SHARES);
        (0..times).filter(sent).count()
    }

    #[test]
    fn a_flood_takes_the_place_of_nobody() {
        let mut waiting = Waiting::new([]);
        assert_eq!(send(&mut waiting, 100, "@flood", None), 4, "no more than a share");
        assert_eq!(
            send(&mut waiting, 100, "@another", None),
            2,
            "until there is no room"
        );
        for n in 0..147 {
            let friend = format!("@friend{n}");
            assert_eq!(send(&mut waiting, 3, &friend, None), 2, "but for what is certain");
        }
        assert_eq!(
            send(&mut waiting, 1, "@one-too-many", None),
            0,
            "more than there may be at all"
        );
        assert!(waiting.admit(&"other device", "@flood", None, 1, &SHARES));
    }

    #[test]
    fn a_server_that_makes_up_senders_stays_within_its_share() {
        let mut waiting = Waiting::new([]);
        let sent = (0..100).map(|n| send(&mut waiting, 1, &format!("@made-up{n}"), Some("evil")));
        assert_eq!(sent.collect::<Vec<_>>().iter().sum::<usize>(), 5);
        assert_eq!(send(&mut waiting, 2, "@friend", Some("good")), 2);
        assert_eq!(send(&mut waiting, 2, "@own", None), 2);
    }

    #[test]
    fn bytes_count_as_messages_do() {
        let mut waiting = Waiting::new([]);
        assert!(
            !waiting.admit(&"device", "@a", None, 41, &SHARES),
            "more than a share"
        );
        assert!(waiting.admit(&"device", "@a", None, 40, &SHARES));
        assert!(!waiting.admit(&"device", "@a", None, 1, &SHARES));
        assert!(
            !waiting.admit(&"device", "@b", None, 21, &SHARES),
            "more than there is room for"
        );
        assert!(waiting.admit(&"device", "@b", None, 20, &SHARES));
    }
}
