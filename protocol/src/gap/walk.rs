//! The ancestors of an event, back to what is here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ruma::OwnedEventId;

use super::{Here, LARGEST_BYTES, LARGEST_GAP, Question, ROUNDS, order};
use crate::event::Event;
use crate::wire::limits::{MAX_ANSWER_BYTES, MAX_EVENT_IDS, MAX_EXTREMITIES, MAX_JSON_BYTES};

/// What the walk needs next.
#[derive(Debug)]
pub(super) enum Next {
    LookUp(BTreeSet<OwnedEventId>),
    Ask(Question),
    /// The peer has given all that it has, and some are still missing: another peer may have them.
    Stuck,
    End,
}

/// A walk back, one generation of questions after the other.
#[derive(Debug)]
pub(super) struct Walk {
    from: Arc<Event>,
    /// What peers gave. They may give more than is missing: what is here, and what lies before a gap.
    given: BTreeMap<OwnedEventId, Arc<Event>>,
    /// Of those that were given.
    bytes: usize,
    /// Whether these have to be fetched is not known yet.
    named: BTreeSet<OwnedEventId>,
    /// What was looked up, and whether it has to be fetched.
    known: BTreeMap<OwnedEventId, bool>,
    /// The peer does not have them.
    hopeless: BTreeSet<OwnedEventId>,
    /// Asked for by their ids, because asking for ancestors gave none of those that lack: the peer may not have the event
    /// whose ancestors they are.
    by_id: Option<BTreeSet<OwnedEventId>>,
    rounds: usize,
}

impl Walk {
    pub(super) fn new(from: Arc<Event>) -> Self {
        Self {
            named: from.prev_events.iter().cloned().collect(),
            from,
            given: BTreeMap::new(),
            bytes: 0,
            known: BTreeMap::new(),
            hopeless: BTreeSet::new(),
            by_id: None,
            rounds: 0,
        }
    }

    pub(super) fn next(&mut self) -> Next {
        let is_full = self.given.len() >= LARGEST_GAP || self.bytes >= LARGEST_BYTES;
        if is_full || self.rounds >= ROUNDS {
            return Next::End;
        }
        if !self.named.is_empty() {
            return Next::LookUp(std::mem::take(&mut self.named));
        }
        let (news, lacking) = self.news();
        let lacking: BTreeSet<_> = lacking.difference(&self.hopeless).collect();
        if lacking.is_empty() {
            return if self.hopeless.is_empty() {
                Next::End
            } else {
                Next::Stuck
            };
        }
        let by_id = lacking.iter().take(MAX_EVENT_IDS).map(|id| (*id).clone());
        let names_one = |event: &&Arc<Event>| event.prev_events.iter().any(|id| lacking.contains(id));
        let latest = news.iter().chain([&self.from]).filter(names_one);
        let latest = latest.map(|event| event.id.clone()).take(MAX_EXTREMITIES);
        self.rounds += 1;
        Next::Ask(match &mut self.by_id {
            Some(ids) => {
                *ids = by_id.collect();
                Question::Events(ids.iter().cloned().collect())
            }
            None => Question::Ancestors(latest.collect()),
        })
    }

    /// The ancestors so far, oldest first.
    pub(super) fn end(self) -> Vec<Arc<Event>> {
        order::by_previous(self.news().0)
    }

    /// Goes on with another peer, which may have what the one before did not.
    pub(super) fn with_another_peer(&mut self) {
        self.hopeless.clear();
        self.by_id = Some(BTreeSet::new());
        self.rounds = 0;
    }

    pub(super) fn found(&mut self, asked: BTreeSet<OwnedEventId>, here: &Here) {
        let known = asked.into_iter().map(|id| (here.is_news(&id), id));
        self.known.extend(known.map(|(is_news, id)| (id, is_news)));
    }

    pub(super) fn answered(&mut self, events: Vec<Arc<Event>>) {
        let (_, lacking) = self.news();
        let helps = events.iter().any(|event| lacking.contains(&event.id));
        let bytes: usize = events.iter().map(|event| event.json.len()).sum();
        // An answer that may be full left out what the peer has.
        let may_be_full = bytes + MAX_JSON_BYTES > MAX_ANSWER_BYTES;
        for event in events {
            let named = event.prev_events.iter().chain([&event.id]);
            self.named
                .extend(named.filter(|id| !self.known.contains_key(*id)).cloned());
            self.hopeless.remove(&event.id);
            let bytes = event.json.len();
            if self.given.insert(event.id.clone(), event).is_none() {
                self.bytes += bytes;
            }
        }
        match self.by_id.take() {
            Some(_) if may_be_full => self.by_id = Some(BTreeSet::new()),
            // What it does not have by its id, it does not have.
            Some(asked) => {
                let not_given = asked.into_iter().filter(|id| !self.given.contains_key(id));
                self.hopeless.extend(not_given);
            }
            None if !helps => self.by_id = Some(BTreeSet::new()),
            None => {}
        }
    }

    /// The ancestors that have to be fetched: those that were given, and those that lack.
    fn news(&self) -> (Vec<Arc<Event>>, BTreeSet<OwnedEventId>) {
        let (mut given, mut lacking) = (BTreeMap::new(), BTreeSet::new());
        let mut open = vec![&self.from];
        while let Some(event) = open.pop() {
            let news = event
                .prev_events
                .iter()
                .filter(|id| self.known.get(*id) == Some(&true));
            for id in news {
                match self.given.get(id) {
                    Some(event) if given.insert(id, Arc::clone(event)).is_none() => open.push(event),
                    Some(_) => {}
                    None => drop(lacking.insert(id.clone())),
                }
            }
        }
        (given.into_values().collect(), lacking)
    }
}
