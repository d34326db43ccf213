//! Gaps: events that others have and a replica lacks, fetched from whoever has them (`spec/federation.md`, "Gaps").
//!
//! Pure, like [`crate::ingest`]: a [`Gap`] says what it needs as one [`Effect`] after the other, and whoever drives it
//! brings the result back and gets the next. The server runs the effects on its database and its peers, a simulation on
//! its model; both fill gaps by the same decisions.
//!
//! | effect | result |
//! |---|---|
//! | [`Effect::LookUp`] | [`Gap::found`] |
//! | [`Effect::Ask`] | [`Gap::answered`], or [`Gap::refused`] |
//! | [`Effect::Keep`] | [`Gap::kept`] |
//! | [`Effect::TakeIn`] | [`Gap::taken`] |
//!
//! A gap begins with an event whose ancestors are not here ([`Gap::before`]) or with the extremities that a peer tells
//! ([`Gap::up_to`]). Its ancestors are [walked](walk) back to what is here and taken in, the oldest first; the auth
//! events that one of them lacks are fetched, and where its own ancestors are out of reach of everybody, a peer is asked
//! for the state before it. A peer that does not give what is needed is left for the next.
//!
//! What stands at a gap that was bridged before is no news, and no walk goes there: it is the past, which is fetched a
//! [page](page) at a time.
//!
//! - [`missing`]: what a gap of the timeline stands for.
//! - [`backfill`]: the past before a gap, a page at a time.
//! - [`timeline`]: where events and gaps stand, and what is written of them in which change.
//! - [`schedule`]: which room's past is fetched next.
//! - [`work`]: what there is to do in a room, one thing at a time, and what waits for its ancestors.
//! - [`order`]: events in an order in which each comes after those it names.

mod auth;
pub mod backfill;
pub mod missing;
pub mod order;
pub mod schedule;
#[cfg(test)]
mod tests;
pub mod timeline;
mod walk;
pub mod work;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use ruma::{OwnedEventId, OwnedServerName};

use crate::event::Event;
use auth::Chain;
use walk::Walk;

/// Events asked for at once, where an answer goes back in time.
pub const AT_ONCE: u32 = 200;

/// Most events that one gap is filled with; beyond that the state at its end stands in, and history is left to backfill.
pub const LARGEST_GAP: usize = 4_000;

/// Bytes of events after which no more are fetched for one gap, or for one auth chain: 16 MiB.
const LARGEST_BYTES: usize = 16 * 1024 * 1024;

/// Most rounds of asking for one gap, and for one auth chain.
const ROUNDS: usize = 40;

/// Most peers that are asked to fill one gap.
const MOST_PEERS: usize = 8;

/// How often one event is offered, each time with more of what it lacked.
const OFFERS: usize = 3;

/// Most ancestors that are left out of one gap.
const MOST_LEFT_OUT: usize = 8;

/// How long one gap, or one page of the past, may take: others wait for its turn.
const LONGEST: Duration = Duration::from_secs(600);

/// How long one of its questions may take, answer and all, other than for a state, which may be large.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a question may take, answer and all, for a gap or a page that has been worked on for so long. Then the peer has
/// refused, and another one is asked: who answers slowly, or not at all, holds up nothing that others have.
#[must_use]
pub fn patience(question: &Question, since: Duration) -> Duration {
    let left = LONGEST.saturating_sub(since);
    match question {
        Question::State(_) => left / 2,
        _ => left.min(PATIENCE),
    }
}

/// What is to be done next.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Find out which of these events are here.
    LookUp(BTreeSet<OwnedEventId>),
    /// Ask a peer. Events of its answer that do not verify are left out.
    Ask(OwnedServerName, Question),
    /// Keep these events of an auth chain or a state, which hang nowhere. Those that cannot be judged are left out.
    Keep(Vec<Arc<Event>>),
    /// Take an event into the room.
    TakeIn(Offer),
    /// The gap is filled, as far as anybody helps. No effect follows.
    Filled,
    /// Nobody gives what is missing. No effect follows.
    GivenUp,
}

/// What a peer is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// The ancestors of these, without those that are here: at most [`AT_ONCE`].
    Ancestors(Vec<OwnedEventId>),
    /// These.
    Events(Vec<OwnedEventId>),
    /// The state before this one, with its auth chain.
    State(OwnedEventId),
    /// These and what lies before them: at most [`backfill::PAGE`].
    Past(Vec<OwnedEventId>),
}

/// What a peer gives.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// Verified events of the room.
    pub events: Vec<Arc<Event>>,
    /// Which of them are the state that was asked for.
    pub state: Vec<OwnedEventId>,
}

/// An event for the room.
#[derive(Clone, Debug)]
pub struct Offer {
    /// The event.
    pub event: Arc<Event>,
    /// The events of the state before it, where a peer had to tell; they have been kept before.
    pub told: Option<Vec<OwnedEventId>>,
}

/// What of some events is here.
#[derive(Clone, Debug, Default)]
pub struct Here {
    /// Those that need not be fetched: they have their place in the room, or are rejected.
    pub settled: BTreeSet<OwnedEventId>,
    /// Those that hang nowhere, the rejected among them as well: the state after them is not known.
    pub outliers: BTreeSet<OwnedEventId>,
    /// Those that are missing before an event that is here: they stand at a gap, and are left to a [page](page) of the
    /// past. Fetched as news they would become extremities, and an old state would come back.
    pub at_gaps: BTreeSet<OwnedEventId>,
}

impl Here {
    /// Whether an event that was looked up has to be fetched.
    fn is_news(&self, id: &OwnedEventId) -> bool {
        !self.settled.contains(id) && !self.at_gaps.contains(id)
    }
}

/// What became of an offered event.
#[derive(Clone, Debug)]
pub enum Taken {
    /// It is dealt with, whatever the rules said of it.
    Settled,
    /// These have to come first.
    Lacks {
        /// Events before it.
        prev_events: Vec<OwnedEventId>,
        /// Events that are said to allow it.
        auth_events: Vec<OwnedEventId>,
    },
}

/// What a gap is waiting for.
#[derive(Debug)]
enum Stage {
    /// Which of the told extremities are here.
    Comparing,
    /// The extremities that are not.
    Fetching,
    /// The ancestors of the target.
    Walking(Walk),
    /// One event after the other, the target last.
    Offering,
    /// The auth events of the event that is offered; whether its state has to be asked for after that.
    Authorising(Chain, bool),
    /// The state before it.
    Bridging,
    /// That these are kept.
    Keeping(Kept),
}

/// What follows once events are kept.
#[derive(Debug)]
enum Kept {
    /// Offer the event again, with a told state.
    Told(Vec<OwnedEventId>),
    /// Offer it again, or ask for the state before it.
    Authorised(bool),
}

/// A gap that is being filled.
#[derive(Debug)]
pub struct Gap {
    /// Whom to ask, the one that is asked now first.
    peers: VecDeque<OwnedServerName>,
    /// How many of them did not help with what is done now.
    failed: usize,
    /// Whether one of them answered since the target was begun.
    heard: bool,
    /// Those that did not when they were asked for ancestors: they may have them, and a state of theirs would only hide
    /// that.
    silent: BTreeSet<OwnedServerName>,
    /// The events that the gap is before, the one that is worked on first.
    targets: VecDeque<Arc<Event>>,
    /// What is offered next, the oldest first.
    offers: VecDeque<Offer>,
    /// How often the first of them was offered with the help of one peer.
    offered: usize,
    /// How many of them were left out, since nobody gives what they lack.
    left_out: usize,
    stage: Stage,
    gave_up: bool,
}

impl Gap {
    /// Fills the gap before an event, which is taken in at the end. `peers` are asked in this order.
    #[must_use]
    pub fn before(event: Arc<Event>, peers: impl IntoIterator<Item = OwnedServerName>) -> (Self, Effect) {
        let mut gap = Self::new(peers);
        gap.targets.push_back(event);
        let effect = gap.begin();
        (gap, effect)
    }

    /// Fetches what leads to the extremities that the first of `peers` tells. The others are asked for what it does not
    /// have.
    #[must_use]
    pub fn up_to(
        extremities: impl IntoIterator<Item = OwnedEventId>,
        peers: impl IntoIterator<Item = OwnedServerName>,
    ) -> (Self, Effect) {
        let told = extremities.into_iter().collect();
        (Self::new(peers), Effect::LookUp(told))
    }

    fn new(peers: impl IntoIterator<Item = OwnedServerName>) -> Self {
        Self {
            peers: peers.into_iter().take(MOST_PEERS).collect(),
            failed: 0,
            heard: false,
            silent: BTreeSet::new(),
            targets: VecDeque::new(),
            offers: VecDeque::new(),
            offered: 0,
            left_out: 0,
            stage: Stage::Comparing,
            gave_up: false,
        }
    }

    /// What of the events that were looked up is here; `asked` are all of them.
    #[must_use]
    pub fn found(&mut self, asked: BTreeSet<OwnedEventId>, here: &Here) -> Effect {
        match &mut self.stage {
            Stage::Comparing => {
                let missing: Vec<_> = asked.into_iter().filter(|id| here.is_news(id)).collect();
                if missing.is_empty() {
                    return Effect::Filled;
                }
                self.stage = Stage::Fetching;
                self.ask(Question::Events(missing))
            }
            Stage::Walking(walk) => {
                walk.found(asked, here);
                self.walk_on()
            }
            Stage::Authorising(chain, _) => {
                chain.found(asked, here);
                self.authorise_on()
            }
            _ => Effect::GivenUp,
        }
    }

    /// The peer has answered.
    #[must_use]
    pub fn answered(&mut self, answer: Answer) -> Effect {
        self.heard = true;
        match &mut self.stage {
            Stage::Fetching => {
                self.targets = order::by_previous(answer.events).into();
                self.begin()
            }
            Stage::Walking(walk) => {
                walk.answered(answer.events);
                self.walk_on()
            }
            Stage::Authorising(chain, _) => {
                chain.answered(answer.events);
                self.authorise_on()
            }
            Stage::Bridging => {
                self.stage = Stage::Keeping(Kept::Told(answer.state));
                Effect::Keep(answer.events)
            }
            _ => Effect::GivenUp,
        }
    }

    /// The peer does not answer, or not what it was asked.
    #[must_use]
    pub fn refused(&mut self) -> Effect {
        match self.stage {
            Stage::Fetching => Effect::GivenUp,
            Stage::Walking(_) => {
                self.silent.extend(self.peers.front().cloned());
                self.walk_elsewhere()
            }
            _ => self.offer_elsewhere(),
        }
    }

    /// The events of [`Effect::Keep`] are kept.
    #[must_use]
    pub fn kept(&mut self) -> Effect {
        match std::mem::replace(&mut self.stage, Stage::Offering) {
            Stage::Keeping(Kept::Told(state)) => {
                if let Some(offer) = self.offers.front_mut() {
                    offer.told = Some(state);
                }
                self.offer()
            }
            Stage::Keeping(Kept::Authorised(true)) => self.bridge(),
            Stage::Keeping(Kept::Authorised(false)) => self.offer(),
            _ => Effect::GivenUp,
        }
    }

    /// What became of the offered event.
    #[must_use]
    pub fn taken(&mut self, taken: Taken) -> Effect {
        match taken {
            Taken::Settled => {
                self.offers.pop_front();
                self.offered = 0;
                self.failed = 0;
                if self.offers.is_empty() {
                    self.targets.pop_front();
                    return self.begin();
                }
                self.offer()
            }
            Taken::Lacks {
                prev_events,
                auth_events,
            } if self.offered < OFFERS => {
                let bridge = !prev_events.is_empty();
                if auth_events.is_empty() {
                    return self.bridge();
                }
                self.stage = Stage::Authorising(Chain::new(auth_events), bridge);
                self.authorise_on()
            }
            Taken::Lacks { .. } => self.offer_elsewhere(),
        }
    }

    /// Begins with the next event that the gap is before.
    fn begin(&mut self) -> Effect {
        self.offers.clear();
        self.offered = 0;
        self.left_out = 0;
        self.failed = 0;
        self.heard = false;
        self.silent.clear();
        match self.targets.front() {
            Some(target) => {
                self.stage = Stage::Walking(Walk::new(Arc::clone(target)));
                self.walk_on()
            }
            None if self.gave_up => Effect::GivenUp,
            None => Effect::Filled,
        }
    }

    /// Leaves what nobody helps with and goes on with the next.
    fn give_up(&mut self) -> Effect {
        self.gave_up = true;
        self.targets.pop_front();
        self.begin()
    }

    /// Turns to the next peer; false when all of them have failed.
    fn turn(&mut self) -> bool {
        self.failed += 1;
        self.peers.rotate_left(usize::from(!self.peers.is_empty()));
        self.failed < self.peers.len()
    }

    fn walk_on(&mut self) -> Effect {
        let Stage::Walking(walk) = &mut self.stage else {
            return Effect::GivenUp;
        };
        match walk.next() {
            walk::Next::LookUp(ids) => Effect::LookUp(ids),
            walk::Next::Ask(question) => self.ask(question),
            walk::Next::Stuck => self.walk_elsewhere(),
            walk::Next::End => self.offer_found(),
        }
    }

    /// Before the state of an event is asked for, everybody is asked for the events before it: a state stands in for
    /// history, but does not bring it.
    fn walk_elsewhere(&mut self) -> Effect {
        if self.turn() {
            if let Stage::Walking(walk) = &mut self.stage {
                walk.with_another_peer();
            }
            return self.walk_on();
        }
        if self.heard {
            self.offer_found()
        } else {
            self.give_up()
        }
    }

    /// Offers what the walk has found, and the target after it.
    fn offer_found(&mut self) -> Effect {
        self.failed = 0;
        if let Stage::Walking(walk) = std::mem::replace(&mut self.stage, Stage::Offering) {
            let target = self.targets.front().cloned();
            let all = walk.end().into_iter().chain(target);
            self.offers = all.map(|event| Offer { event, told: None }).collect();
        }
        self.offer()
    }

    fn offer(&mut self) -> Effect {
        self.offered += 1;
        match self.offers.front() {
            Some(offer) => Effect::TakeIn(offer.clone()),
            None => Effect::GivenUp,
        }
    }

    /// Offers the event again with the help of another peer.
    fn offer_elsewhere(&mut self) -> Effect {
        let others = self.turn();
        self.stage = Stage::Offering;
        self.offered = 0;
        if !others {
            // One bad ancestor does not hold up the good ones around it.
            if self.offers.len() < 2 || self.left_out >= MOST_LEFT_OUT {
                return self.give_up();
            }
            self.left_out += 1;
            self.failed = 0;
            self.offers.pop_front();
            return self.offer();
        }
        if let Some(offer) = self.offers.front_mut() {
            offer.told = None;
        }
        self.offer()
    }

    fn authorise_on(&mut self) -> Effect {
        let Stage::Authorising(chain, bridge) = &mut self.stage else {
            return Effect::GivenUp;
        };
        match chain.next() {
            auth::Next::LookUp(ids) => Effect::LookUp(ids),
            auth::Next::Ask(question) => self.ask(question),
            auth::Next::End(events) => {
                self.stage = Stage::Keeping(Kept::Authorised(*bridge));
                Effect::Keep(events)
            }
        }
    }

    /// Asks for the state before the offered event.
    fn bridge(&mut self) -> Effect {
        let Some(offer) = self.offers.front() else {
            return Effect::GivenUp;
        };
        let at = offer.event.id.clone();
        if self.peers.front().is_some_and(|peer| self.silent.contains(peer)) {
            return self.offer_elsewhere();
        }
        self.stage = Stage::Bridging;
        self.ask(Question::State(at))
    }

    fn ask(&mut self, question: Question) -> Effect {
        match self.peers.front() {
            Some(peer) => Effect::Ask(peer.clone(), question),
            None => self.give_up(),
        }
    }
}
