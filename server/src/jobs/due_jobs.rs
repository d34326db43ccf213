//! Which of the jobs that are due are claimed: as many as there is room for, and none of a destination twice before
//! others had their turn.

use std::collections::HashMap;

use super::{Kinds, Rules};
use crate::store::StoreError;
use crate::store::jobs::{Head, JobTables, Wanted};

/// Walks over what waits, a page at a time.
#[derive(Debug, Default)]
pub(super) struct DueJobs {
    /// The pair of kind and destination that the last page ended with; empty at the beginning of a walk.
    after: (String, String),
    /// When the first job of this walk is due that was not due when it was seen.
    next_due: Option<i64>,
}

/// What one page of the walk gave.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// What may be claimed.
    pub(super) wanted: Vec<Wanted>,
    /// Whether the walk is over; else the next page follows at once.
    pub(super) is_over: bool,
    /// At the end of a walk: when the next job is due, in milliseconds since 1970.
    pub(super) next_due: Option<i64>,
}

impl DueJobs {
    /// Looks at the next page, at `now` in milliseconds since 1970. `running` are the jobs that run here, by kind; `turn` is a
    /// random number: which destination comes first when there is no room for all.
    pub(super) async fn look(
        &mut self,
        tables: &JobTables,
        kinds: &Kinds,
        running: &HashMap<&'static str, usize>,
        now: i64,
        turn: usize,
    ) -> Result<Look, StoreError> {
        let heads = tables.heads((&self.after.0, &self.after.1)).await?;
        let last = heads
            .last()
            .map(|head| (head.kind.clone(), head.destination.clone()));
        // A short page is the last one; a whole one may be.
        let is_over = heads.len() < tables.heads_together();
        let (due, later): (Vec<_>, Vec<_>) = heads.into_iter().partition(|head| head.due_at <= now);
        let known = later.iter().filter(|head| kinds.get(&head.kind).is_some());
        let next = known.map(|head| head.due_at).min();
        self.next_due = [self.next_due, next].into_iter().flatten().min();
        let mut look = Look {
            wanted: share(kinds, running, due, turn),
            is_over,
            next_due: None,
        };
        match last.filter(|_| !is_over) {
            Some(last) => self.after = last,
            None => {
                look.is_over = true;
                look.next_due = self.next_due;
                *self = Self::default();
            }
        }
        Ok(look)
    }
}

/// Shares the room of each kind among the destinations for which something is due, beginning anywhere.
fn share(
    kinds: &Kinds,
    running: &HashMap<&'static str, usize>,
    mut due: Vec<Head>,
    turn: usize,
) -> Vec<Wanted> {
    let mut room: HashMap<&'static str, (Rules, usize)> = HashMap::new();
    for (kind, rules) in kinds.rules() {
        let runs = running.get(kind).copied().unwrap_or(0);
        room.insert(kind, (rules, rules.at_once.saturating_sub(runs)));
    }
    if !due.is_empty() {
        let first = turn % due.len();
        due.rotate_left(first);
    }
    let mut wanted = Vec::new();
    for head in due {
        let Some(kind) = kinds.get(&head.kind).map(|kind| kind.name()) else {
            continue;
        };
        let Some((rules, left)) = room.get_mut(kind).filter(|(_, left)| *left > 0) else {
            continue;
        };
        let limit = rules.per_destination.filter(|_| !head.destination.is_empty());
        let most = limit.unwrap_or(*left).min(*left);
        *left -= most;
        wanted.push(Wanted {
            kind,
            destination: head.destination,
            most,
            limit,
        });
    }
    wanted
}
