//! The queue of a room's gaps: one of each server is filled at a time, and few in all, so that a server that makes up gaps or
//! answers slowly delays neither events without gaps nor the gaps of others.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ruma::{OwnedEventId, OwnedServerName, ServerName};

use crate::rooms::ingest::Incoming;

/// Gaps of all rooms that are filled at the same time.
pub(in crate::peers) const IN_ALL: usize = 12;

/// Those of them that one server has announced: each may hold 16 MiB of events that nobody else has asked for.
pub(in crate::peers) const OF_ONE: usize = 3;

/// Gaps of one room that are filled at the same time: what two of them lack may be the same.
const AT_ONCE: usize = 3;

/// Events of one server in a room for which a gap is filled or is next; its others wait untried.
const MOST_LACKING: usize = 4;

/// Servers in a room whose gaps wait; those of others are announced again.
const MOST_SERVERS: usize = 512;

/// What a gap is before.
#[derive(Clone, Debug)]
pub(in crate::peers) enum Before {
    /// An event with a row in the inbox.
    Event(Incoming, i64),
    /// Where the replica of the server ends.
    End(Vec<OwnedEventId>),
}

/// Gaps that a server has announced: before its events, and up to its forward extremities.
#[derive(Debug, Default)]
struct Claims {
    lacking: VecDeque<(Incoming, i64)>,
    end: Option<Vec<OwnedEventId>>,
}

/// The gaps of one room.
#[derive(Debug, Default)]
pub(in crate::peers) struct GapQueue {
    waiting: BTreeMap<OwnedServerName, Claims>,
    /// The servers of those, next one first.
    order: VecDeque<OwnedServerName>,
    running: BTreeSet<OwnedServerName>,
}

impl GapQueue {
    /// Whether nothing is to be filled.
    pub(in crate::peers) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    /// An event of a server lacks something. Answers whether it is taken up.
    pub(in crate::peers) fn lacks(&mut self, peer: &ServerName, incoming: Incoming, row: i64) -> bool {
        self.of(peer).is_some_and(|claims| {
            let has_room = claims.lacking.len() < MOST_LACKING;
            if has_room {
                claims.lacking.push_back((incoming, row));
            }
            has_room
        })
    }

    /// A server has announced its forward extremities.
    pub(in crate::peers) fn announced(&mut self, peer: &ServerName, extremities: Vec<OwnedEventId>) {
        if let Some(claims) = self.of(peer) {
            claims.end = Some(extremities);
        }
    }

    fn of(&mut self, peer: &ServerName) -> Option<&mut Claims> {
        if !self.waiting.contains_key(peer) {
            if self.waiting.len() >= MOST_SERVERS {
                return None;
            }
            self.order.push_back(peer.to_owned());
        }
        Some(self.waiting.entry(peer.to_owned()).or_default())
    }

    /// The next gap to fill, if there is one and room for it. It is being filled until [`GapQueue::ended`].
    pub(in crate::peers) fn next(&mut self) -> Option<(OwnedServerName, Before)> {
        if self.running.len() >= AT_ONCE {
            return None;
        }
        let at = self.order.iter().position(|name| !self.running.contains(name))?;
        let peer = self.order.remove(at)?;
        let claims = self.waiting.get_mut(&peer)?;
        let event = claims
            .lacking
            .pop_front()
            .map(|(event, row)| Before::Event(event, row));
        let next = event.or_else(|| claims.end.take().map(Before::End))?;
        if claims.lacking.is_empty() && claims.end.is_none() {
            self.waiting.remove(&peer);
        } else {
            self.order.push_back(peer.clone());
        }
        self.running.insert(peer.clone());
        Some((peer, next))
    }

    /// The gap of a server is not being filled any more.
    pub(in crate::peers) fn ended(&mut self, peer: &ServerName) {
        self.running.remove(peer);
    }
}

#[cfg(test)]
mod tests {
    use ruma::{OwnedEventId, server_name};

    use crate::peers::backfill::gap_scheduler::*;

    fn ends(gaps: &mut GapQueue) -> Option<String> {
        gaps.next().map(|(peer, _)| peer.to_string())
    }

    #[test]
    fn each_server_has_one_gap_filled_at_a_time_and_takes_its_turn() {
        let [a, b, c, d] = ["a.example", "b.example", "c.example", "d.example"]
            .map(|name| OwnedServerName::try_from(name).unwrap());
        let end = || vec![OwnedEventId::try_from("$end").unwrap()];
        let mut gaps = GapQueue::default();
        gaps.announced(&a, end());
        gaps.announced(&a, end());
        assert_eq!(ends(&mut gaps).as_deref(), Some("a.example"));
        gaps.announced(&a, end());
        assert_eq!(ends(&mut gaps), None, "one of a server at a time");
        for other in [&b, &c, &d] {
            gaps.announced(other, end());
        }
        assert_eq!(ends(&mut gaps).as_deref(), Some("b.example"));
        assert_eq!(ends(&mut gaps).as_deref(), Some("c.example"));
        assert_eq!(ends(&mut gaps), None, "a few of a room at a time");
        gaps.ended(server_name!("b.example"));
        assert_eq!(ends(&mut gaps).as_deref(), Some("d.example"));
        gaps.ended(&a);
        assert_eq!(ends(&mut gaps).as_deref(), Some("a.example"));
        assert!(!gaps.is_idle());
        [&a, &c, &d].into_iter().for_each(|peer| gaps.ended(peer));
        assert!(gaps.is_idle());
    }

    #[test]
    fn what_too_many_servers_tell_waits_until_it_is_told_again() {
        let mut gaps = GapQueue::default();
        for number in 0..=MOST_SERVERS {
            let name = OwnedServerName::try_from(format!("s{number}.example")).unwrap();
            gaps.announced(&name, Vec::new());
        }
        assert_eq!(
            (gaps.waiting.len(), gaps.order.len()),
            (MOST_SERVERS, MOST_SERVERS)
        );
    }
}
