//! Which room's past is fetched next in the background: a page of each room in turn, and of one room its gaps from the newest
//! on, so that its replica becomes whole and outlives the servers that have it now.
//!
//! A gap that nobody fills is passed over for the older ones: one pass goes back through all of them, and what is missing
//! newly is looked at after it, since it would never come to its end otherwise. After a pass that left something the room rests,
//! longer each time, until something comes. It also rests for a moment, whatever comes, after every 16 gaps that were asked for
//! in vain: who opens gaps that nobody can fill has the others of a room asked about one a second, and no more.
//!
//! Pure: times are counted from any fixed start, the same for all calls. Costs grow with the rooms that wait or rest.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::backfill::pause;
use crate::cursor::Place;

/// Events that the past of one room may cost, with those of the states that are told for each page. What lies beyond is
/// fetched when somebody reads there.
pub const MOST_EVENTS: usize = 500_000;

/// Gaps of one room that are asked for in vain before it rests for the first [`pause`].
const IN_VAIN: u32 = 16;

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
    /// Passes that ended with something missing, in a row.
    failures: u32,
    /// Where the pass goes on, further back than the gaps that were asked for in vain.
    passed: Option<Place>,
    /// How many gaps were asked for in vain since it last rested.
    in_vain: u32,
    /// Whether another pass is to follow at once.
    again: bool,
}

/// The rooms whose past is fetched. Bounded by the rooms that are added.
#[derive(Debug)]
pub struct Schedule<K> {
    waiting: VecDeque<(K, Partial)>,
    /// Rooms of which a page is being fetched.
    running: BTreeMap<K, Partial>,
    /// Rooms that rest, until when.
    resting: BTreeMap<K, (Duration, Partial)>,
}

impl<K> Default for Schedule<K> {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
            running: BTreeMap::new(),
            resting: BTreeMap::new(),
        }
    }
}

impl<K: Clone + Ord> Schedule<K> {
    /// Adds a room that this server has come into, or in which something new is missing. A pass that is under way goes on to
    /// its end first.
    pub fn add(&mut self, room: K) {
        if let Some(partial) = self.running.get_mut(&room) {
            partial.again = true;
        } else if let Some((_, partial)) = self.waiting.iter_mut().find(|(other, _)| *other == room) {
            partial.again = partial.is_amid();
        } else if let Some((_, partial)) = self.resting.get_mut(&room)
            && partial.is_amid()
        {
            partial.again = true;
        } else {
            let rested = self.resting.remove(&room);
            let partial = rested.map_or_else(Partial::new, |(_, partial)| partial.anew());
            self.waiting.push_back((room, partial));
        }
    }

    /// What to do next. A room that is to be fetched is not named again until it has [ended](Self::ended).
    pub fn next(&mut self, now: Duration) -> Next<K> {
        let due = self.resting.extract_if(.., |_, (due, _)| *due <= now);
        let rested = |(room, (_, partial))| {
            (
                room,
                Partial {
                    in_vain: 0,
                    ..partial
                },
            )
        };
        self.waiting.extend(due.map(rested));
        if let Some((room, partial)) = self.waiting.pop_front() {
            let from = partial.passed.unwrap_or(Place(i64::MAX));
            self.running.insert(room.clone(), partial);
            return Next::Fetch(room, from);
        }
        let due = self.resting.values().map(|(due, _)| *due).min();
        due.map_or(Next::Rest, Next::Wait)
    }

    /// How it went with a room.
    pub fn ended(&mut self, room: &K, ended: Ended, now: Duration) {
        let Some(mut partial) = self.running.remove(room) else {
            return;
        };
        match ended {
            Ended::Page(cost) if cost <= partial.events_left => {
                partial.events_left -= cost;
                partial.failures = 0;
            }
            Ended::InVain(before) => {
                partial.passed = Some(Place(before.0 - 1));
                partial.in_vain += 1;
                if partial.in_vain >= IN_VAIN {
                    return self.rest(room, partial, now + pause(1));
                }
            }
            Ended::Failed => {
                partial.failures = partial.failures.saturating_add(1);
                let due = now + pause(partial.failures);
                return self.rest(room, partial, due);
            }
            // The pass is over.
            Ended::Page(_) | Ended::Whole | Ended::Gone if partial.again => partial = partial.anew(),
            Ended::Whole if partial.is_amid() => {
                let failures = partial.failures.saturating_add(1);
                let partial = Partial {
                    events_left: partial.events_left,
                    failures,
                    ..partial.anew()
                };
                return self.rest(room, partial, now + pause(failures));
            }
            Ended::Page(_) | Ended::Whole | Ended::Gone => return,
        }
        self.waiting.push_back((room.clone(), partial));
    }

    fn rest(&mut self, room: &K, partial: Partial, due: Duration) {
        self.resting.insert(room.clone(), (due, partial));
    }
}

impl Partial {
    fn new() -> Self {
        Self {
            events_left: MOST_EVENTS,
            failures: 0,
            passed: None,
            in_vain: 0,
            again: false,
        }
    }

    /// The same room, looked at from the newest gap on.
    fn anew(&self) -> Self {
        Self {
            in_vain: self.in_vain,
            ..Self::new()
        }
    }

    /// Whether a pass is under way that has gaps behind it.
    fn is_amid(&self) -> bool {
        self.passed.is_some()
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
    fn who_opens_gaps_that_nobody_fills_has_others_asked_seldom_and_holds_up_no_older_gap() {
        let mut schedule = Schedule::default();
        schedule.add("a");
        let mut from = END;
        for number in 0..i64::from(IN_VAIN) {
            assert_eq!(schedule.next(START), Next::Fetch("a", from));
            schedule.add("a");
            let gap = Place(1_000 - number);
            schedule.ended(&"a", Ended::InVain(gap), START);
            from = Place(gap.0 - 1);
        }
        schedule.add("a");
        assert_eq!(schedule.next(START), Next::Wait(pause(1)));
        assert_eq!(schedule.next(pause(1)), Next::Fetch("a", from));
        schedule.ended(&"a", Ended::Whole, pause(1));
        assert_eq!(schedule.next(pause(1)), Next::Fetch("a", END), "the new ones");
    }

    #[test]
    fn one_gap_after_the_other_that_nobody_fills_has_others_asked_as_seldom() {
        let mut schedule = Schedule::default();
        for number in 0..i64::from(IN_VAIN) {
            schedule.add("a");
            assert_eq!(schedule.next(START), Next::Fetch("a", END));
            schedule.ended(&"a", Ended::InVain(Place(number)), START);
            assert_eq!(
                schedule.next(START),
                match number + 1 < i64::from(IN_VAIN) {
                    true => Next::Fetch("a", Place(number - 1)),
                    false => Next::Wait(pause(1)),
                }
            );
            schedule.ended(&"a", Ended::Whole, START);
        }
    }

    #[test]
    fn what_could_not_be_tried_is_tried_where_the_pass_was() {
        let mut schedule = Schedule::default();
        schedule.add("a");
        assert_eq!(schedule.next(START), Next::Fetch("a", END));
        schedule.ended(&"a", Ended::InVain(Place(70)), START);
        assert_eq!(schedule.next(START), Next::Fetch("a", Place(69)));
        schedule.ended(&"a", Ended::Failed, START);
        assert_eq!(schedule.next(START), Next::Wait(pause(1)));
        assert_eq!(schedule.next(pause(1)), Next::Fetch("a", Place(69)));
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
