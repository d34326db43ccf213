//! What becomes of a job by what came of an attempt.

use std::time::Duration;

use super::{Done, JobError, Rules};
use crate::store::jobs::{HeldJob, Outcome};
use crate::store::log::Change;

/// Longest reason of a failure that is kept, in characters.
const REASON: usize = 1_000;

/// How an attempt ended.
#[derive(Debug)]
pub(super) enum AttemptEnd {
    /// By what the kind says.
    Told(Result<Done, JobError>),
    /// In the middle, for this reason: too slow, or a panic.
    Cut(String),
    /// The server stops.
    Stopped,
}

impl AttemptEnd {
    /// As it can be stored: a reason is no longer than it has to be, and has no NUL, which no database holds.
    fn cleaned(self) -> Self {
        let clean = |why: String| why.chars().filter(|c| *c != '\0').take(REASON).collect();
        match self {
            Self::Told(Err(JobError::Failed(why))) => Self::Told(Err(JobError::Failed(clean(why)))),
            Self::Told(Err(JobError::ForGood(why))) => Self::Told(Err(JobError::ForGood(clean(why)))),
            Self::Told(Err(JobError::Unknown(why))) => Self::Told(Err(JobError::Unknown(clean(why)))),
            Self::Cut(why) => Self::Cut(clean(why)),
            end => end,
        }
    }
}

/// What is stored of an attempt.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) outcome: Outcome,
    pub(super) effect: Option<Change>,
    /// Whether the attempt counts as failed; neither for one that was put off.
    pub(super) failed: Option<bool>,
}

/// Decides at `now` (milliseconds since 1970), with jitter by `random` from 0 to 1.
pub(super) fn decide(rules: &Rules, job: &HeldJob, end: AttemptEnd, now: i64, random: f64) -> Verdict {
    let plain = |outcome, failed| Verdict {
        outcome,
        effect: None,
        failed,
    };
    let again = |wait: Duration, failures, error| Outcome::Again {
        due_at: now.saturating_add(milliseconds(wait)),
        failures,
        error,
    };
    let next = || match rules.every {
        // A tenth of jitter to either side.
        Some(every) => again(every.mul_f64(0.9 + random / 5.0), 0, None),
        None => Outcome::Done,
    };
    match end.cleaned() {
        AttemptEnd::Told(Ok(Done::Finished)) => plain(next(), Some(false)),
        AttemptEnd::Told(Ok(Done::Partly)) => match rules.every {
            Some(_) => plain(again(Duration::ZERO, 0, None), Some(false)),
            None => plain(Outcome::Done, Some(false)),
        },
        AttemptEnd::Told(Ok(Done::With(effect))) => Verdict {
            effect: Some(effect),
            ..plain(next(), Some(false))
        },
        AttemptEnd::Told(Err(JobError::Later(wait))) => plain(again(wait, job.failures, None), None),
        AttemptEnd::Told(Err(JobError::ForGood(why))) => plain(Outcome::DeadLetter(why), Some(true)),
        AttemptEnd::Told(Err(JobError::Unknown(why))) => plain(Outcome::Unknown(why), Some(true)),
        AttemptEnd::Cut(why) if !rules.repeatable => plain(Outcome::Unknown(why), Some(true)),
        AttemptEnd::Stopped if !rules.repeatable => plain(
            Outcome::Unknown("the server stopped in the middle of it".into()),
            None,
        ),
        AttemptEnd::Stopped => plain(again(Duration::ZERO, job.failures, None), None),
        AttemptEnd::Told(Err(JobError::Failed(why))) | AttemptEnd::Cut(why) => {
            let failures = job.failures + 1;
            let outcome = match has_failed_too_often(rules, failures) {
                true => Outcome::DeadLetter(why),
                false => again(rules.backoff.wait(failures, random), failures, Some(why)),
            };
            plain(outcome, Some(true))
        }
    }
}

/// Whether a job is given up after so many failures in a row.
pub(super) fn has_failed_too_often(rules: &Rules, failures: i64) -> bool {
    rules.most_failures.is_some_and(|most| failures >= most)
}

pub(super) fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::jobs::JobId;
    use crate::store::nodes::RunId;

    fn job(failures: i64) -> HeldJob {
        HeldJob {
            id: JobId(1),
            kind: "test".into(),
            key: None,
            destination: String::new(),
            run: RunId(1),
            attempt: failures + 1,
            failures,
            payload: "null".into(),
            created_at: 0,
        }
    }

    fn outcome(rules: Rules, failures: i64, end: AttemptEnd) -> Outcome {
        decide(&rules, &job(failures), end, 1_000, 1.0).outcome
    }

    fn failed() -> AttemptEnd {
        AttemptEnd::Told(Err(JobError::Failed("why".into())))
    }

    #[test]
    fn what_fails_waits_longer_and_is_given_up_in_the_end() {
        let due = |failures| match outcome(Rules::USUAL, failures, failed()) {
            Outcome::Again { due_at, failures, .. } => (due_at, failures),
            other => panic!("{other:?}"),
        };
        assert_eq!([due(0), due(1)], [(11_000, 1), (21_000, 2)]);
        assert_eq!(
            outcome(Rules::USUAL, 19, failed()),
            Outcome::DeadLetter("why".into())
        );
        let recurring = Rules::every(Duration::from_secs(60));
        assert!(matches!(
            outcome(recurring, 1_000, failed()),
            Outcome::Again { failures: 1_001, .. }
        ));
    }

    #[test]
    fn what_was_cut_off_is_not_repeated_blindly() {
        let once = Rules {
            repeatable: false,
            ..Rules::USUAL
        };
        for end in [AttemptEnd::Stopped, AttemptEnd::Cut("slow".into())] {
            assert!(matches!(outcome(once, 0, end), Outcome::Unknown(_)));
        }
        assert!(matches!(
            outcome(once, 0, failed()),
            Outcome::Again { failures: 1, .. }
        ));
        let given_back = outcome(Rules::USUAL, 3, AttemptEnd::Stopped);
        assert!(matches!(
            given_back,
            Outcome::Again {
                due_at: 1_000,
                failures: 3,
                ..
            }
        ));
    }

    #[test]
    fn what_recurs_is_due_an_interval_after_its_end_or_at_once_for_the_rest() {
        let rules = Rules::every(Duration::from_secs(100));
        let ended = |done| outcome(rules, 5, AttemptEnd::Told(Ok(done)));
        assert!(matches!(
            ended(Done::Finished),
            Outcome::Again {
                due_at: 111_000,
                failures: 0,
                ..
            }
        ));
        assert!(matches!(
            ended(Done::Partly),
            Outcome::Again {
                due_at: 1_000,
                failures: 0,
                ..
            }
        ));
        let once = outcome(Rules::USUAL, 5, AttemptEnd::Told(Ok(Done::Finished)));
        assert_eq!(once, Outcome::Done);
    }
}
