//! The task of one reader: it does what the machine says and tells the machine what came of it.
//!
//! A reader that begins with the stored events reads them on a track of its own, to whose end a machine drives it as it does
//! along the log: a position is then the number of an event. Meanwhile its position in the log is where the log stood when
//! that began, so that nothing that came later is dropped from the journal.
//!
//! Over 500 lines, because every action stands beside what is made of its outcome: neither is understood without the other.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use maru_protocol::cursor::Position;
use maru_protocol::state::EventNid;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::actions::{Action, Failed, Loaded, Page, Part, Step, Tuning};
use super::machine::Machine;
use super::source::{LogSource, describe};
use super::{Begins, Reader, ReaderError};
use crate::clock::Clock;
use crate::nodes::HeldLease;
use crate::observe::readers::{READERS, ReaderSample};
use crate::store::StoreError;
use crate::store::log::{Committed, LogPage, PageLimits, Record};
use crate::store::nodes::Lease;
use crate::store::readers::{
    ALL_STORED, Advance, Effects, NewSetAside, ReaderId, ReaderTables, StoredReader, Track,
};

/// How long a reader may take for one part of a page.
const HANDLING: Duration = Duration::from_secs(60);

/// Stored events that are read and dealt with together, the pause after them, and how many times as long as they took a reader
/// is idle then at most: there may be many of them, and nobody waits for the first.
const STORED_PAGE: usize = 100;
const STORED_PAUSE: Duration = Duration::from_millis(10);
const STORED_IDLE: u32 = 3;

/// The longest that a reader is idle after a part.
const LONGEST_IDLE: Duration = Duration::from_secs(3);

/// Longest text of a failure that is kept, in characters.
const LONGEST_WHY: usize = 500;

/// Tells a runner that its reader was paused, resumed or rewound.
#[derive(Debug, Default)]
pub(super) struct Changed {
    flag: AtomicBool,
    notify: Notify,
}

impl Changed {
    pub(super) fn tell(&self) {
        self.flag.store(true, Ordering::Release);
        self.notify.notify_one();
    }

    fn take(&self) -> bool {
        self.flag.swap(false, Ordering::AcqRel)
    }
}

/// What a runner is made of.
pub(super) struct Runner {
    pub(super) reader: Arc<dyn Reader>,
    pub(super) id: ReaderId,
    pub(super) source: Arc<dyn LogSource>,
    pub(super) tables: Arc<ReaderTables>,
    pub(super) clock: Arc<Clock>,
    pub(super) lease: HeldLease,
    pub(super) changed: Arc<Changed>,
    pub(super) stop: CancellationToken,
}

/// A runner at work.
struct Running {
    parts: Runner,
    began: Instant,
    machine: Machine,
    held: Option<Lease>,
    /// What the machine is driven along.
    track: Track,
    /// Where the reader will go on in the log, while it reads the stored events.
    goes_on_at: Position,
    page: Arc<LogPage>,
    effects: Effects,
    set_aside: u64,
    /// When the action that is under way began, and how long those of the present part took so far.
    action_began: Instant,
    worked: Duration,
    idle_until: Option<Instant>,
}

/// What came of an action.
enum Outcome {
    Loaded(Result<StoredReader, StoreError>),
    Read(Result<LogPage, StoreError>),
    Handled(Part, Result<Effects, ReaderError>),
    Advanced(Step, Result<(), StoreError>),
    WentPast(Step, Result<bool, StoreError>),
    Noted,
}

impl Runner {
    /// Runs the reader until it is stopped. What is dealt with is stored by then, if the database answers.
    pub(super) async fn run(self) {
        let machine = Machine::new(self.reader.tuning());
        let mut running = Running {
            parts: self,
            began: Instant::now(),
            machine,
            held: None,
            track: Track::Log,
            goes_on_at: Position::START,
            page: Arc::default(),
            effects: Effects::none(),
            set_aside: 0,
            action_began: Instant::now(),
            worked: Duration::ZERO,
            idle_until: None,
        };
        running.lead();
        running.run().await;
        READERS.forget(&running.parts.id.name, running.parts.id.shard);
    }
}

impl Running {
    async fn run(&mut self) {
        loop {
            self.look_around();
            if let Some(until) = self.idle_for_now() {
                tokio::select! {
                    () = tokio::time::sleep_until(until) => self.idle_until = None,
                    changed = self.parts.lease.changed() => match changed {
                        Ok(()) => self.lead(),
                        Err(_) => return,
                    },
                    () = self.parts.stop.cancelled() => {}
                }
                continue;
            }
            let now = self.began.elapsed();
            if let Some(action) = self.machine.poll(now) {
                let performing = self.perform(action);
                tokio::select! {
                    outcome = performing => self.take_in(outcome),
                    // Whatever is under way is over; the cursor tells what became of it.
                    _ = self.parts.lease.changed() => self.lead(),
                }
                self.show();
                continue;
            }
            if self.parts.stop.is_cancelled() {
                return;
            }
            let reached = self.machine.view().reached;
            let due = self.machine.due(now);
            let moved = async {
                match reached {
                    Some(reached) => self.parts.source.moved_past(reached).await,
                    None => std::future::pending().await,
                }
            };
            let is_due = async {
                match due {
                    Some(due) => tokio::time::sleep_until(self.began + due).await,
                    None => std::future::pending().await,
                }
            };
            // What has moved already is waited for by the time when it is due.
            let has_news = reached.is_some_and(|reached| self.newest() > reached);
            tokio::select! {
                changed = self.parts.lease.changed() => match changed {
                    Ok(()) => self.lead(),
                    Err(_) => return,
                },
                () = moved, if !has_news => {}
                () = is_due => {}
                () = self.parts.changed.notify.notified() => {}
                () = self.parts.stop.cancelled() => {}
            }
        }
    }

    /// Until when it is idle after the last part.
    fn idle_for_now(&self) -> Option<Instant> {
        self.idle_until.filter(|_| !self.parts.stop.is_cancelled())
    }

    /// Notes that something was done for a part, after whose end it is idle.
    fn worked(&mut self, is_end: bool) {
        self.worked += self.action_began.elapsed();
        if is_end {
            let idle = self.parts.reader.tuning().idle;
            let idle = match self.track {
                Track::Log => idle,
                Track::Stored => idle.min(STORED_IDLE),
            };
            let idle = self.worked.saturating_mul(idle).min(LONGEST_IDLE);
            self.idle_until = (!idle.is_zero()).then(|| Instant::now() + idle);
            self.worked = Duration::ZERO;
        }
    }

    /// Tells the machine what has happened elsewhere.
    fn look_around(&mut self) {
        if self.parts.lease.has_changed().unwrap_or(false) {
            self.lead();
        }
        if self.parts.changed.take() {
            self.machine.changed();
        }
        if self.parts.stop.is_cancelled() {
            self.machine.stop();
        }
        self.machine.log_moved(self.newest());
        self.show();
    }

    /// The end of what is read.
    fn newest(&self) -> Position {
        match self.track {
            Track::Log => self.parts.source.newest(),
            Track::Stored => ALL_STORED,
        }
    }

    /// Has a new machine drive the reader along something else.
    fn turn_to(&mut self, track: Track) {
        let tuning = self.parts.reader.tuning();
        let tuning = match track {
            Track::Log => tuning,
            Track::Stored => Tuning {
                linger: STORED_PAUSE,
                ..tuning
            },
        };
        self.track = track;
        self.machine = Machine::new(tuning);
        self.machine.lead(true);
        (self.page, self.effects) = (Arc::default(), Effects::none());
    }

    fn lead(&mut self) {
        let lease = self.parts.lease.borrow_and_update().clone();
        self.machine.lead(lease.is_some());
        self.held = lease;
        (self.page, self.effects) = (Arc::default(), Effects::none());
        (self.worked, self.idle_until) = (Duration::ZERO, None);
    }

    /// Has the metrics show where the reader stands; nothing where another node leads it.
    fn show(&self) {
        let (view, id) = (self.machine.view(), &self.parts.id);
        match view.reached.filter(|_| view.leads) {
            Some(reached) => {
                let is_building = self.track == Track::Stored;
                let reached = if is_building { self.goes_on_at } else { reached };
                let sample = ReaderSample {
                    position: reached.0,
                    lag: (self.parts.source.newest().0 - reached.0).max(0),
                    set_aside: self.set_aside,
                    paused: view.paused,
                    building: is_building,
                };
                READERS.show(&id.name, id.shard, sample);
            }
            None if !view.leads => READERS.forget(&id.name, id.shard),
            None => {}
        }
    }

    fn now_ms(&self) -> i64 {
        i64::try_from(self.parts.clock.now_ms()).unwrap_or(i64::MAX)
    }

    /// Begins an action. What it does with the database goes on when it is dropped.
    fn perform(&mut self, action: Action) -> BoxFuture<'static, Outcome> {
        self.action_began = Instant::now();
        let Some(lease) = self.held.clone() else {
            return Box::pin(std::future::ready(Outcome::Noted));
        };
        let (id, now) = (self.parts.id.clone(), self.now_ms());
        let (tables, source) = (Arc::clone(&self.parts.tables), Arc::clone(&self.parts.source));
        let track = self.track;
        let advance = |from, to, records| Advance {
            id: id.clone(),
            track,
            lease: lease.clone(),
            from,
            to,
            records,
            now,
        };
        match action {
            Action::Load => {
                let (begins, building) = match self.parts.reader.begins() {
                    Begins::AtStart => (Position::START, None),
                    Begins::AtEnd => (source.newest(), None),
                    Begins::WithStoredEvents => (source.newest(), Some(EventNid(0))),
                };
                Box::pin(async move { Outcome::Loaded(tables.open(&id, begins, building, now).await) })
            }
            Action::Read(after) if track == Track::Stored => {
                Box::pin(async move { Outcome::Read(tables.stored_events(after, STORED_PAGE).await) })
            }
            Action::Read(after) => {
                let can_build = self.parts.reader.begins() == Begins::WithStoredEvents;
                let (limits, at) = (PageLimits::default(), advance(after, after, 0));
                Box::pin(async move {
                    let newest = source.newest();
                    let read = match source.after(after, limits).await {
                        Err(StoreError::JournalDropped(_)) if can_build => {
                            let begun = tables.begin_building(at, newest).await;
                            Err(begun.err().unwrap_or(StoreError::CursorMoved(id.to_string())))
                        }
                        read => read,
                    };
                    Outcome::Read(read)
                })
            }
            Action::Handle(part) => {
                let (reader, page) = (Arc::clone(&self.parts.reader), Arc::clone(&self.page));
                let part = light_enough(records_in(&page.records, part), part, reader.tuning().bytes);
                Box::pin(async move {
                    let records = records_in(&page.records, part);
                    let handled = match track {
                        Track::Log => handle(&*reader, id.shard, records).await,
                        Track::Stored => handle(&*reader, id.shard, &in_the_log(records)).await,
                    };
                    Outcome::Handled(part, handled)
                })
            }
            Action::Advance(step) => {
                let advance = advance(step.from, step.to, step.records);
                let effects = std::mem::take(&mut self.effects);
                Box::pin(async move { Outcome::Advanced(step, tables.advance(advance, effects).await) })
            }
            Action::GoPast(step, why) => {
                let part = Part {
                    after: Position(step.to.0 - 1),
                    up_to: step.to,
                };
                let records = records_in(&self.page.records, part);
                let position = match track {
                    Track::Log => step.to,
                    Track::Stored => in_the_log(records)
                        .first()
                        .map_or(step.to, |first| first.position),
                };
                let record = NewSetAside {
                    position,
                    records: describe(records),
                    why: shortened(&why),
                };
                let advance = advance(step.from, step.to, step.records);
                tracing::error!(reader = %id, position = position.0, why, "a reader goes past what it cannot deal with");
                Box::pin(async move { Outcome::WentPast(step, tables.go_past(advance, record).await) })
            }
            Action::NoteFailure { at, failures, why } => {
                READERS.failed(&id.name, id.shard);
                tracing::warn!(reader = %id, position = at.0, failures, why, "a reader has failed");
                let at = advance(at, at, 0);
                Box::pin(async move {
                    let noted = tables.note_failure(at, failures, shortened(&why)).await;
                    if let Err(error) = noted {
                        tracing::debug!(reader = %id, %error, "the failure of a reader was not noted");
                    }
                    Outcome::Noted
                })
            }
            Action::Rest(at, why) => {
                READERS.failed(&id.name, id.shard);
                tracing::error!(reader = %id, position = at.0, why, "a reader cannot go on and rests");
                let at = advance(at, at, 0);
                Box::pin(async move {
                    if let Err(error) = tables.rest(at, shortened(&why)).await {
                        tracing::debug!(reader = %id, %error, "that a reader rests was not noted");
                    }
                    Outcome::Noted
                })
            }
        }
    }

    /// Tells the machine what came of an action.
    fn take_in(&mut self, outcome: Outcome) {
        let (now, chance) = (self.began.elapsed(), rand::random::<f64>());
        match outcome {
            Outcome::Loaded(loaded) => {
                if let Ok(stored) = &loaded {
                    (self.set_aside, self.goes_on_at) = (stored.set_aside, stored.position);
                    let track = stored.building.map_or(Track::Log, |_| Track::Stored);
                    if track != self.track {
                        self.turn_to(track);
                    }
                }
                let loaded = loaded.map_err(failed).map(|stored| Loaded {
                    position: stored.building.map_or(stored.position, |nid| Position(nid.0)),
                    paused: stored.paused,
                });
                self.machine.loaded(loaded, now, chance);
            }
            Outcome::Read(read) => {
                // Between pages of stored events there is always a pause.
                let newest = self.parts.source.newest();
                let is_full = self.track == Track::Log && read.as_ref().is_ok_and(|page| page.end < newest);
                let page = read.map_err(failed).map(|page| {
                    self.page = Arc::new(page);
                    Page {
                        positions: self
                            .page
                            .records
                            .iter()
                            .map(|committed| committed.position)
                            .collect(),
                        end: self.page.end,
                    }
                });
                self.machine.page(page, is_full, now, chance);
            }
            Outcome::Handled(part, handled) => {
                self.worked(handled.as_ref().is_ok_and(Effects::is_none));
                let handled = handled.map(|effects| {
                    self.effects = effects;
                    !self.effects.is_none()
                });
                let handled = handled.map_err(|error| match error {
                    ReaderError::Unavailable(why) => Failed::ForNow(why),
                    ReaderError::Failed(why) => Failed::ForGood(why),
                });
                self.machine.handled(part, handled, now, chance);
            }
            Outcome::Advanced(step, advanced) => {
                self.worked(true);
                let is_built = self.track == Track::Stored && step.to == ALL_STORED && advanced.is_ok();
                self.machine.advanced(step, advanced.map_err(failed), now, chance);
                if is_built {
                    tracing::info!(reader = %self.parts.id, "a reader has read all stored events and follows the log");
                    self.machine.changed();
                }
            }
            Outcome::WentPast(step, went) => {
                let went = match went {
                    Ok(true) => {
                        self.set_aside += 1;
                        Ok(())
                    }
                    Ok(false) => Err(Failed::TooMuchSetAside),
                    Err(error) => Err(failed(error)),
                };
                self.machine.advanced(step, went, now, chance);
            }
            Outcome::Noted => self.machine.noted(),
        }
    }
}

fn failed(error: StoreError) -> Failed {
    match error {
        StoreError::LeaseLost(_) => Failed::LeaseLost,
        StoreError::CursorMoved(_) => Failed::CursorMoved,
        StoreError::JournalDropped(_) => Failed::Stuck(error.to_string()),
        error if error.is_temporary() => Failed::ForNow(error.to_string()),
        error => Failed::ForGood(error.to_string()),
    }
}

/// The records of a part. They stand in order of position.
fn records_in(records: &[Committed], part: Part) -> &[Committed] {
    let from = records.partition_point(|committed| committed.position <= part.after);
    let to = records.partition_point(|committed| committed.position <= part.up_to);
    records.get(from..to).unwrap_or_default()
}

/// The beginning of a part whose events have no more than so many bytes; at least one position.
fn light_enough(records: &[Committed], part: Part, most: usize) -> Part {
    let (mut bytes, mut last) = (0, part.after);
    for committed in records {
        if let Record::Event(stored) = &committed.record {
            bytes += stored.event.json.len();
        }
        if bytes > most && last > part.after && committed.position > last {
            return Part { up_to: last, ..part };
        }
        last = committed.position;
    }
    part
}

/// Stored events at their positions in the log.
fn in_the_log(records: &[Committed]) -> Vec<Committed> {
    let at_position = |committed: &Committed| match &committed.record {
        Record::Event(stored) => Committed {
            position: stored.position().unwrap_or(committed.position),
            record: committed.record.clone(),
        },
        _ => committed.clone(),
    };
    records.iter().map(at_position).collect()
}

/// Has the reader deal with records. One that panics or takes too long has failed.
async fn handle(reader: &dyn Reader, shard: u32, records: &[Committed]) -> Result<Effects, ReaderError> {
    if records.is_empty() {
        return Ok(Effects::none());
    }
    let handling = AssertUnwindSafe(reader.handle(shard, records)).catch_unwind();
    match tokio::time::timeout(HANDLING, handling).await {
        Ok(Ok(handled)) => handled,
        Ok(Err(_)) => Err(ReaderError::Failed("it panicked".to_owned())),
        Err(_) => Err(ReaderError::Unavailable("it takes too long".to_owned())),
    }
}

fn shortened(why: &str) -> String {
    why.chars().filter(|c| *c != '\0').take(LONGEST_WHY).collect()
}
