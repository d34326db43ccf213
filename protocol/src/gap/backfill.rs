//! The past of a room, fetched a page at a time: what is missing right before an event that is here
//! (`spec/federation.md`, "Gaps").
//!
//! What is missing there is no news. A [`Page`] of it goes right before that event and moves no head; the gap moves
//! before the page. It holds nothing that does not lie before that event: nobody judges the past by the current state, so
//! what a peer slips in beside it would be news that nobody judges. Pure and driven like a [`super::Gap`]:
//!
//! | effect | result |
//! |---|---|
//! | [`Effect::Ask`] | [`Page::answered`], or [`Page::refused`] |
//! | [`Effect::LookUp`] | [`Page::found`] |
//! | [`Effect::Keep`] | [`Page::kept`] |
//! | [`Effect::TakeIn`] | [`Page::taken`], or [`Page::refused`] where a told state is none |

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use ruma::{OwnedEventId, OwnedServerName};

use super::auth;
use super::auth::Chain;
use super::{Answer, Here, MOST_PEERS, Offer, Question, order};
use crate::event::Event;

/// Events asked for at once.
pub const PAGE: u32 = 500;

/// Most events of a page whose state before has to be told, because events before them are not in the page.
const MOST_EDGES: usize = 10;

/// The pause after a page was asked for in vain, the first time and at the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(15);
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// How long to wait after so many failures in a row. There is no end to it: whoever has the past may come back, and until
/// then the replica is not whole.
#[must_use]
pub fn pause(failures: u32) -> Duration {
    let doubled = FIRST_PAUSE * 2_u32.pow(failures.saturating_sub(1).min(10));
    doubled.min(LONGEST_PAUSE)
}

/// What is to be done next.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Ask a peer. Events of its answer that do not verify are left out.
    Ask(OwnedServerName, Question),
    /// Find out which of these events are here.
    LookUp(BTreeSet<OwnedEventId>),
    /// Keep these events of an auth chain or a state, which hang nowhere. Those that cannot be judged are left out.
    Keep(Vec<Arc<Event>>),
    /// Take these into the room as its past, the oldest first. Those that lack something are left out.
    TakeIn(Vec<Offer>),
    /// There is more here than before. No effect follows.
    Filled,
    /// Nobody gives what is missing. No effect follows.
    GivenUp,
}

/// What a page is waiting for.
#[derive(Debug)]
enum Stage {
    /// The events of the page.
    Asking,
    /// The events that allow them and are neither here nor among them.
    Authorising(Chain),
    /// That those are kept.
    Allowing,
    /// Which of the events before the page are here.
    Joining,
    /// The state before an edge of the page.
    Bridging(OwnedEventId),
    /// That it is kept.
    Keeping(OwnedEventId, Vec<OwnedEventId>),
    /// What became of the page.
    Offering,
}

/// A page of the past that is being fetched.
#[derive(Debug)]
pub struct Page {
    missing: Vec<OwnedEventId>,
    /// Whom to ask, the one that is asked now first.
    peers: VecDeque<OwnedServerName>,
    events: BTreeMap<OwnedEventId, Arc<Event>>,
    /// Events of the page whose state has to be told.
    edges: VecDeque<OwnedEventId>,
    told: BTreeMap<OwnedEventId, Vec<OwnedEventId>>,
    stage: Stage,
}

impl Page {
    /// Fetches what is missing at a gap, with what lies before it. `peers` are asked in this order.
    #[must_use]
    pub fn before(
        missing: Vec<OwnedEventId>,
        peers: impl IntoIterator<Item = OwnedServerName>,
    ) -> (Self, Effect) {
        let mut page = Self {
            missing,
            peers: peers.into_iter().take(MOST_PEERS).collect(),
            events: BTreeMap::new(),
            edges: VecDeque::new(),
            told: BTreeMap::new(),
            stage: Stage::Asking,
        };
        let effect = page.begin();
        (page, effect)
    }

    /// The peer has answered.
    #[must_use]
    pub fn answered(&mut self, answer: Answer) -> Effect {
        match &mut self.stage {
            Stage::Asking => {
                self.events = order::back_from(&self.missing, answer.events);
                if self.events.is_empty() {
                    return self.refused();
                }
                self.stage = Stage::Authorising(Chain::of(&self.events));
                self.authorise_on()
            }
            Stage::Authorising(chain) => {
                chain.answered(answer.events);
                self.authorise_on()
            }
            Stage::Bridging(edge) => {
                self.stage = Stage::Keeping(edge.clone(), answer.state);
                Effect::Keep(answer.events)
            }
            _ => Effect::GivenUp,
        }
    }

    /// The peer does not answer, or not what it was asked: the next one is asked for the page.
    #[must_use]
    pub fn refused(&mut self) -> Effect {
        self.peers.pop_front();
        self.begin()
    }

    /// What of the events that were looked up is here; `asked` are all of them.
    #[must_use]
    pub fn found(&mut self, asked: BTreeSet<OwnedEventId>, here: &Here) -> Effect {
        match &mut self.stage {
            Stage::Authorising(chain) => {
                chain.found(asked, here);
                self.authorise_on()
            }
            Stage::Joining => {
                self.join(here);
                self.bridge()
            }
            _ => Effect::GivenUp,
        }
    }

    /// The events of [`Effect::Keep`] are kept.
    #[must_use]
    pub fn kept(&mut self) -> Effect {
        match std::mem::replace(&mut self.stage, Stage::Joining) {
            Stage::Allowing => Effect::LookUp(self.before_it()),
            Stage::Keeping(edge, state) => {
                self.told.insert(edge, state);
                self.bridge()
            }
            _ => Effect::GivenUp,
        }
    }

    /// The page was taken in; whether any of it was new.
    #[must_use]
    pub fn taken(&mut self, any: bool) -> Effect {
        match any {
            true => Effect::Filled,
            false => self.refused(),
        }
    }

    fn begin(&mut self) -> Effect {
        self.events.clear();
        self.edges.clear();
        self.told.clear();
        self.stage = Stage::Asking;
        self.ask(Question::Past(self.missing.clone()))
    }

    fn ask(&self, question: Question) -> Effect {
        let peer = self.peers.front();
        peer.map_or(Effect::GivenUp, |peer| Effect::Ask(peer.clone(), question))
    }

    fn authorise_on(&mut self) -> Effect {
        let Stage::Authorising(chain) = &mut self.stage else {
            return Effect::GivenUp;
        };
        match chain.next() {
            auth::Next::LookUp(ids) => Effect::LookUp(ids),
            auth::Next::Ask(question) => self.ask(question),
            auth::Next::End(events) => {
                self.stage = Stage::Allowing;
                Effect::Keep(events)
            }
        }
    }

    /// The events before the page.
    fn before_it(&self) -> BTreeSet<OwnedEventId> {
        let named = self.events.values().flat_map(|event| event.prev_events.iter());
        named
            .filter(|id| !self.events.contains_key(*id))
            .cloned()
            .collect()
    }

    /// Finds the events whose state cannot be worked out from the page and what is here.
    fn join(&mut self, here: &Here) {
        let hangs = |id: &OwnedEventId| {
            here.settled.contains(id) && !here.outliers.contains(id) || self.events.contains_key(id)
        };
        let ordered = order::by_previous(self.events.values().cloned());
        let edges = ordered
            .iter()
            .filter(|event| !event.prev_events.iter().all(hangs))
            .map(|event| event.id.clone());
        self.edges = edges.take(MOST_EDGES).collect();
    }

    fn bridge(&mut self) -> Effect {
        match self.edges.pop_front() {
            Some(edge) => {
                self.stage = Stage::Bridging(edge.clone());
                self.ask(Question::State(edge))
            }
            None => {
                self.stage = Stage::Offering;
                let ordered = order::by_previous(std::mem::take(&mut self.events).into_values());
                let offers = ordered.into_iter().map(|event| Offer {
                    told: self.told.remove(&event.id),
                    event,
                });
                Effect::TakeIn(offers.collect())
            }
        }
    }
}
