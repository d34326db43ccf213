//! One reader of the log as a pure machine: results and time go in, actions come out. It reads no clock, asks nobody and
//! draws no chance of its own.
//!
//! | action | result |
//! |---|---|
//! | [`Action::Load`] | [`Machine::loaded`] |
//! | [`Action::Read`] | [`Machine::page`] |
//! | [`Action::Handle`] | [`Machine::handled`] |
//! | [`Action::Advance`], [`Action::GoPast`] | [`Machine::advanced`] |
//! | [`Action::NoteFailure`], [`Action::Rest`] | [`Machine::noted`] |
//!
//! At most one action is under way. A machine without a lease does nothing; when the lease is lost, whoever drives it
//! drops what is under way, whose outcome the cursor tells when the lease comes back.
//!
//! Pages without effects do not cost a commit each: the cursor is stored when there are effects, and else after
//! [`Tuning::store_after`]. What fails is tried again after a pause; when it fails for its own sake, in halves, until the
//! position that fails stands alone, and after [`Tuning::tries`] the reader goes past that one.

use std::time::Duration;

use maru_protocol::cursor::Position;

use super::actions::{Action, Failed, Loaded, Page, Part, Step, Tuning, View};

/// One reader.
#[derive(Clone, Debug)]
pub struct Machine {
    tuning: Tuning,
    leads: bool,
    /// An action is under way.
    busy: bool,
    /// The stored cursor is to be looked at before anything else.
    reload: bool,
    stopping: bool,
    paused: bool,
    cursor: Option<Cursor>,
    page: Option<Page>,
    /// The part that was handed on last, while its effects are not stored.
    handled: Option<Part>,
    /// While a failure is searched for: where the part ends that failed, and how many positions to hand on at once.
    suspect: Option<(Position, usize)>,
    /// How often the position after the cursor was tried alone.
    tries: u32,
    /// How often in a row something that is needed did not answer.
    outages: u32,
    /// Failures of any kind in a row.
    failures: u32,
    /// What is to be stored of the last failure.
    to_note: Option<String>,
    /// What is to be set aside.
    to_go_past: Option<(Position, String)>,
    /// Why somebody has to look.
    stuck: Option<String>,
    pause_until: Option<Duration>,
    /// When the log was read last, or the cursor looked at, and nothing was new.
    looked_at: Duration,
    /// When the last page was read, and whether the next one is not waited for: the last was full, or there was none.
    read_at: Duration,
    was_full: bool,
    newest: Position,
}

/// Where a reader stands.
#[derive(Clone, Copy, Debug)]
struct Cursor {
    stored: Position,
    /// Everything up to here is dealt with; what lies between had no effects, or has them stored.
    reached: Position,
    /// Records between `stored` and `reached`.
    records: u64,
    /// When `reached` first went past `stored`.
    since: Duration,
}

impl Machine {
    /// A reader that holds no lease yet.
    #[must_use]
    pub fn new(tuning: Tuning) -> Self {
        Self {
            tuning,
            leads: false,
            busy: false,
            reload: true,
            stopping: false,
            paused: false,
            cursor: None,
            page: None,
            handled: None,
            suspect: None,
            tries: 0,
            outages: 0,
            failures: 0,
            to_note: None,
            to_go_past: None,
            stuck: None,
            pause_until: None,
            looked_at: Duration::ZERO,
            read_at: Duration::ZERO,
            was_full: false,
            newest: Position::START,
        }
    }

    /// The lease was taken, or is lost. Whatever was under way is over for this machine.
    pub fn lead(&mut self, leads: bool) {
        let (tuning, stopping, newest) = (self.tuning, self.stopping, self.newest);
        *self = Self {
            leads,
            stopping,
            newest,
            ..Self::new(tuning)
        };
    }

    /// Somebody has paused, resumed or rewound the reader.
    pub fn changed(&mut self) {
        self.reload = true;
        self.pause_until = None;
    }

    /// The log stands at a position now.
    pub fn log_moved(&mut self, newest: Position) {
        self.newest = self.newest.max(newest);
    }

    /// Store what is dealt with, and do nothing else any more.
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    /// What an admin sees.
    #[must_use]
    pub fn view(&self) -> View {
        View {
            reached: self.cursor.map(|cursor| cursor.reached),
            leads: self.leads,
            paused: self.paused,
        }
    }

    /// The next action, if there is something to do now.
    pub fn poll(&mut self, now: Duration) -> Option<Action> {
        if self.busy || !self.leads {
            return None;
        }
        let action = self.next(now)?;
        self.busy = true;
        Some(action)
    }

    /// When to poll again though nothing has happened; never, when none.
    #[must_use]
    pub fn due(&self, now: Duration) -> Option<Duration> {
        if self.busy || !self.leads || self.stopping {
            return None;
        }
        if let Some(until) = self.pause_until.filter(|until| *until > now) {
            return Some(until);
        }
        let look = self.looked_at + self.tuning.poll;
        let Some(cursor) = self.cursor.filter(|_| !self.paused) else {
            return Some(look);
        };
        let store = (cursor.reached > cursor.stored).then(|| cursor.since + self.tuning.store_after);
        let read = (self.newest > cursor.reached).then(|| self.read_at + self.tuning.linger);
        [Some(look), store, read].into_iter().flatten().min()
    }

    fn next(&mut self, now: Duration) -> Option<Action> {
        if let Some(cursor) = self.cursor {
            if let Some(why) = self.stuck.take() {
                self.reload = true;
                return Some(Action::Rest(cursor.stored, why));
            }
            if let Some(why) = self.to_note.take() {
                let (at, failures) = (cursor.stored, self.failures);
                return Some(Action::NoteFailure { at, failures, why });
            }
        }
        let Some(cursor) = self.cursor.filter(|_| !self.reload || self.handled.is_some()) else {
            let is_paused = self.pause_until.is_some_and(|until| until > now);
            return (!self.stopping && !is_paused).then_some(Action::Load);
        };
        if self.pause_until.is_some_and(|until| until > now) && !self.stopping {
            return None;
        }
        self.pause_until = None;
        if let Some(part) = self.handled {
            return Some(Action::Advance(self.step_to(cursor, part)));
        }
        let unstored = cursor.reached > cursor.stored;
        let is_due = self.stopping || now >= cursor.since + self.tuning.store_after;
        if unstored && is_due && !self.paused {
            return Some(Action::Advance(self.step_to(cursor, self.nothing(cursor))));
        }
        if self.stopping {
            return None;
        }
        if now >= self.looked_at + self.tuning.poll && (self.page.is_none() || self.paused) {
            return Some(Action::Load);
        }
        if self.paused {
            return None;
        }
        if let Some((position, why)) = self.to_go_past.clone() {
            let part = Part {
                after: cursor.reached,
                up_to: position,
            };
            return Some(Action::GoPast(self.step_to(cursor, part), why));
        }
        if let Some(part) = self.part(cursor) {
            return Some(Action::Handle(part));
        }
        let has_news = self.newest > cursor.reached;
        let is_time = self.was_full || now >= self.read_at + self.tuning.linger;
        (has_news && is_time).then_some(Action::Read(cursor.reached))
    }

    /// What of the page is to be handed on next.
    fn part(&self, cursor: Cursor) -> Option<Part> {
        let page = self.page.as_ref()?;
        let most = match self.suspect {
            Some((end, most)) if cursor.reached < end => most,
            _ => self.tuning.positions,
        };
        let mut distinct = 0;
        let mut last = cursor.reached;
        for position in page
            .positions
            .iter()
            .filter(|position| **position > cursor.reached)
        {
            if *position > last {
                if distinct == most.max(1) {
                    return Some(Part {
                        after: cursor.reached,
                        up_to: last,
                    });
                }
                distinct += 1;
                last = *position;
            }
        }
        // What follows the last record is empty.
        (page.end > cursor.reached).then_some(Part {
            after: cursor.reached,
            up_to: page.end,
        })
    }

    fn nothing(&self, cursor: Cursor) -> Part {
        Part {
            after: cursor.reached,
            up_to: cursor.reached,
        }
    }

    fn step_to(&self, cursor: Cursor, part: Part) -> Step {
        Step {
            from: cursor.stored,
            to: part.up_to,
            records: cursor.records + self.records_in(part),
        }
    }

    fn records_in(&self, part: Part) -> u64 {
        let positions = self.page.iter().flat_map(|page| &page.positions);
        let within = positions.filter(|position| part.after < **position && **position <= part.up_to);
        within.count() as u64
    }

    /// What came of [`Action::Load`].
    pub fn loaded(&mut self, loaded: Result<Loaded, Failed>, now: Duration, chance: f64) {
        self.busy = false;
        let loaded = match loaded {
            Ok(loaded) => loaded,
            Err(failed) => return self.failed(failed, now, chance),
        };
        self.looked_at = now;
        let resumes = self.paused && !loaded.paused;
        self.paused = loaded.paused;
        if self.cursor.is_none_or(|cursor| cursor.stored != loaded.position) || self.reload && resumes {
            self.begin_at(loaded.position, now);
        }
        if self.reload {
            (self.tries, self.suspect, self.to_go_past) = (0, None, None);
        }
        self.reload = false;
        // What nobody has told of is found by reading.
        if self.page.is_none() && !self.paused {
            let reached = self.cursor.map_or(Position::START, |cursor| cursor.reached);
            self.newest = self.newest.max(reached.next());
        }
    }

    /// What came of [`Action::Read`].
    pub fn page(&mut self, page: Result<Page, Failed>, is_full: bool, now: Duration, chance: f64) {
        self.busy = false;
        match page {
            Ok(page) => {
                let reached = self.cursor.map_or(Position::START, |cursor| cursor.reached);
                (self.read_at, self.was_full) = (now, is_full);
                if page.end > reached {
                    self.newest = self.newest.max(page.end);
                    self.page = Some(page);
                } else {
                    self.newest = reached;
                    self.looked_at = now;
                }
            }
            Err(failed) => self.failed(failed, now, chance),
        }
    }

    /// What came of [`Action::Handle`]: whether there are effects to store.
    pub fn handled(&mut self, part: Part, outcome: Result<bool, Failed>, now: Duration, chance: f64) {
        self.busy = false;
        match outcome {
            Ok(true) => self.handled = Some(part),
            Ok(false) => self.passed(part, now),
            Err(failed) => self.part_failed(part, failed, now, chance),
        }
    }

    /// What came of [`Action::Advance`] or [`Action::GoPast`].
    pub fn advanced(&mut self, step: Step, outcome: Result<(), Failed>, now: Duration, chance: f64) {
        self.busy = false;
        let handled = self.handled.take();
        match (outcome, handled) {
            (Ok(()), _) => {
                let is_beyond = self.cursor.is_some_and(|cursor| step.to > cursor.reached);
                self.cursor = Some(Cursor {
                    stored: step.to,
                    reached: step.to,
                    records: 0,
                    since: now,
                });
                if is_beyond {
                    (self.tries, self.outages, self.failures) = (0, 0, 0);
                    self.to_go_past = None;
                }
                self.narrow(step.to);
            }
            (Err(failed), Some(part)) => self.part_failed(part, failed, now, chance),
            (Err(failed), None) => self.failed(failed, now, chance),
        }
    }

    /// [`Action::NoteFailure`] or [`Action::Rest`] is over, whatever came of it.
    pub fn noted(&mut self) {
        self.busy = false;
    }

    /// A part was dealt with and has no effects to store.
    fn passed(&mut self, part: Part, now: Duration) {
        let records = self.records_in(part);
        if let Some(cursor) = &mut self.cursor {
            if cursor.reached == cursor.stored {
                cursor.since = now;
            }
            cursor.reached = part.up_to;
            cursor.records += records;
        }
        (self.tries, self.outages, self.failures) = (0, 0, 0);
        self.narrow(part.up_to);
    }

    /// The cursor has come to a position: the page may be over, and so may the search for what failed.
    fn narrow(&mut self, reached: Position) {
        if self.page.as_ref().is_some_and(|page| page.end <= reached) {
            self.page = None;
        }
        self.suspect = self.suspect.filter(|(end, _)| reached < *end).map(|(end, _)| {
            let rest = self.positions_in(reached, end);
            (end, rest.div_ceil(2).max(1))
        });
    }

    fn positions_in(&self, after: Position, up_to: Position) -> usize {
        let mut last = after;
        let positions = self.page.iter().flat_map(|page| &page.positions);
        let within = positions.filter(|position| {
            let is_next = **position > last && **position <= up_to;
            if is_next {
                last = **position;
            }
            is_next
        });
        within.count()
    }

    /// A part could not be dealt with, or its effects not be stored.
    fn part_failed(&mut self, part: Part, failed: Failed, now: Duration, chance: f64) {
        let Failed::ForGood(why) = failed else {
            return self.failed(failed, now, chance);
        };
        let positions = self.positions_in(part.after, part.up_to);
        if positions > 1 {
            self.suspect = Some((part.up_to, positions / 2));
            self.tries = 0;
        } else {
            self.tries += 1;
        }
        if self.tries >= self.tuning.tries {
            // What follows it in the page, without records, is no part of what failed.
            let page = self.page.iter().flat_map(|page| &page.positions);
            let position = page.copied().find(|position| *position > part.after);
            self.to_go_past = Some((position.unwrap_or(part.up_to), why.clone()));
            self.tries = 0;
        }
        self.pause(why, self.tries.saturating_sub(1), now, chance);
    }

    /// Something else did not succeed.
    fn failed(&mut self, failed: Failed, now: Duration, chance: f64) {
        match failed {
            Failed::ForNow(why) | Failed::ForGood(why) => {
                self.pause(why, self.outages, now, chance);
                self.outages = self.outages.saturating_add(1);
            }
            // Whatever was done meanwhile was not stored.
            Failed::CursorMoved => (self.cursor, self.page, self.reload) = (None, None, true),
            Failed::TooMuchSetAside => {
                self.failures = self.failures.saturating_add(1);
                self.paused = true;
                (self.cursor, self.page, self.reload) = (None, None, true);
            }
            Failed::LeaseLost => self.lead(false),
            Failed::Stuck(why) => {
                self.failures = self.failures.saturating_add(1);
                self.stuck = Some(why);
            }
        }
    }

    /// Waits before the next try: longer after each failure, and between half and all of what is due.
    fn pause(&mut self, why: String, doublings: u32, now: Duration, chance: f64) {
        let due = self
            .tuning
            .first_pause
            .saturating_mul(2_u32.saturating_pow(doublings.min(30)));
        let due = due.min(self.tuning.longest_pause);
        self.pause_until = Some(now + due.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0));
        self.failures = self.failures.saturating_add(1);
        self.to_note = Some(why);
    }

    fn begin_at(&mut self, position: Position, now: Duration) {
        self.cursor = Some(Cursor {
            stored: position,
            reached: position,
            records: 0,
            since: now,
        });
        (self.page, self.handled, self.suspect, self.to_go_past) = (None, None, None, None);
        (self.to_note, self.stuck) = (None, None);
        // What stands there is read at once.
        self.was_full = true;
        (self.tries, self.outages, self.failures) = (0, 0, 0);
        self.newest = self.newest.max(position.next());
    }
}

#[cfg(test)]
mod tests;
