//! Which room's past is fetched next in the background: a page of each room in turn, and of one room its gaps from the newest
//! on, so that its replica becomes whole and outlives the servers that have it now.
//!
//! A gap that nobody fills is passed over for the older ones. When all that are left were asked for in vain the room rests,
//! longer each time, until something comes. Pure: times are counted from any fixed start, the same for all calls.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::page::pause;
use crate::cursor::Place;

/// Events that the past of one room may cost, with those of the states that are told for each page. What lies beyond is
/// fetched when somebody reads there.
pub const MOST_EVENTS: usize = 500_000;

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next<K> {
    /// Fetch a page for the first gap of this room that lies at this place or further back, then say [how it
    /// went](Schedule::ended).
    Fetch(K, Place),
    /// Nothing before this time, unless something comes.
    Wait(Duration),
    /// Nothing until something comes.
    Rest,
}

/// How it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// A page came, at the cost of so many events.
    Page(usize),
    /// Nobody gives what is missing before this place.
    InVain(Place),
    /// There is no such gap.
    Whole,
    /// It could not be tried.
    Failed,
    /// The room is of no concern any more.
    Gone,
}

/// A room whose past is not whole.
#[derive(Clone, Debug)]
struct Partial {
    events_left: usize,
    failures: u32,
    /// Where to go on, further back than the gaps that were asked for in vain since the last pause.
    passed: Option<Place>,
}

/// The rooms whose past is fetched. Bounded by the rooms that are added.
#[derive(Debug)]
pub struct Schedule<K> {
    waiting: VecDeque<(K, Partial)>,
    /// Rooms of which a page is being fetched, and whether they are to be looked at anew after that.
    running: BTreeMap<K, (Partial, bool)>,
    /// Rooms that rest, until when.
    paused: BTreeMap<K, (Duration, Partial)>,
}

impl<K> Default for Schedule<K> {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
            running: BTreeMap::new(),
            paused: BTreeMap::new(),
        }
    }
}

impl<K: Clone + Ord> Schedule<K> {
    /// Adds a room that this server has come into, or in which something new is missing.
    pub fn add(&mut self, room: K) {
        if let Some((_, again)) = self.running.get_mut(&room) {
            *again = true;
            return;
        }
        self.paused.remove(&room);
        if !self.waiting.iter().any(|(other, _)| *other == room) {
            self.waiting.push_back((room, Partial::new()));
        }
    }

    /// What to do next. A room that is to be fetched is not named again until it has [ended](Self::ended).
    pub fn next(&mut self, now: Duration) -> Next<K> {
        let due = self.paused.extract_if(.., |_, (due, _)| *due <= now);
        let due = due.map(|(room, (_, partial))| (room, partial));
        self.waiting.extend(due);
        if let Some((room, partial)) = self.waiting.pop_front() {
            let from = partial.passed.unwrap_or(Place(i64::MAX));
            self.running.insert(room.clone(), (partial, false));
            return Next::Fetch(room, from);
        }
        let due = self.paused.values().map(|(due, _)| *due).min();
        due.map_or(Next::Rest, Next::Wait)
    }

    /// How it went with a room.
    pub fn ended(&mut self, room: &K, ended: Ended, now: Duration) {
        let Some((mut partial, again)) = self.running.remove(room) else {
            return;
        };
        if again {
            return self.waiting.push_back((room.clone(), Partial::new()));
        }
        match ended {
            Ended::Page(cost) => {
                let Some(left) = partial.events_left.checked_sub(cost) else {
                    return;
                };
                (partial.events_left, partial.failures) = (left, 0);
            }
            Ended::InVain(before) => partial.passed = Some(Place(before.0 - 1)),
            Ended::Whole if partial.passed.is_none() => return,
            Ended::Whole | Ended::Failed => {
                partial.passed = None;
                partial.failures = partial.failures.saturating_add(1);
                let due = now + pause(partial.failures);
                self.paused.insert(room.clone(), (due, partial));
                return;
            }
            Ended::Gone => return,
        }
        self.waiting.push_back((room.clone(), partial));
    }
}

impl Partial {
    fn new() -> Self {
        Self {
            events_left: MOST_EVENTS,
            failures: 0,
            passed: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::ZERO;
    const END: Place = Place(i64::MAX);

    #[test]
    fn rooms_take_turns() {
        let mut schedule = Schedule::default();
        schedule.add("a");
        schedule.add("b");
        schedule.add("a");
        assert_eq!(schedule.next(START), Next::Fetch("a", END));
        schedule.ended(&"a", Ended::Page(10), START);
        assert_eq!(schedule.next(START), Next::Fetch("b", END));
        assert_eq!(schedule.next(START), Next::Fetch("a", END));
        assert_eq!(schedule.next(START), Next::Rest, "one page of a room at a time");
        schedule.ended(&"a", Ended::Whole, START);
        schedule.ended(&"b", Ended::Gone, START);
        assert_eq!(schedule.next(START), Next::Rest);
    }

    #[test]
    fn a_gap_that_nobody_fills_holds_up_no_older_one() {
        let mut schedule = Schedule::default();
        schedule.add("a");
        assert_eq!(schedule.next(START), Next::Fetch("a", END));
        schedule.ended(&"a", Ended::InVain(Place(70)), START);
        assert_eq!(schedule.next(START), Next::Fetch("a", Place(69)));
        schedule.ended(&"a", Ended::Page(10), START);
        assert_eq!(schedule.next(START), Next::Fetch("a", Place(69)));
        schedule.ended(&"a", Ended::Whole, START);
        assert_eq!(schedule.next(START), Next::Wait(pause(1)));
        assert_eq!(schedule.next(pause(1)), Next::Fetch("a", END));
        schedule.ended(&"a", Ended::InVain(Place(70)), pause(1));
        assert_eq!(schedule.next(pause(1)), Next::Fetch("a", Place(69)));
        schedule.ended(&"a", Ended::Whole, pause(1));
        assert_eq!(schedule.next(pause(1)), Next::Wait(pause(1) + pause(2)));
    }

    #[test]
    fn what_comes_ends_a_pause_and_is_not_forgotten_while_a_page_is_fetched() {
        let mut schedule = Schedule::default();
        schedule.add("a");
        assert_eq!(schedule.next(START), Next::Fetch("a", END));
        schedule.ended(&"a", Ended::Failed, START);
        assert_eq!(schedule.next(START), Next::Wait(pause(1)));
        schedule.add("a");
        assert_eq!(schedule.next(START), Next::Fetch("a", END));
        schedule.add("a");
        schedule.ended(&"a", Ended::Whole, START);
        assert_eq!(schedule.next(START), Next::Fetch("a", END));
    }

    #[test]
    fn a_past_that_costs_too_much_is_left_to_readers() {
        let mut schedule = Schedule::default();
        schedule.add("a");
        assert_eq!(schedule.next(START), Next::Fetch("a", END));
        schedule.ended(&"a", Ended::Page(MOST_EVENTS + 1), START);
        assert_eq!(schedule.next(START), Next::Rest);
    }
}
