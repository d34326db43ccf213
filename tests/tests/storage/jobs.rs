//! What jobs promise: each is done by one holder at a time, none is forgotten, and what a holder does that has lost its job
//! counts for nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use maru::store::StoreError;
use maru::store::encryption::to_device::ToDevice;
use maru::store::jobs::{Ended, HeldJob, JobId, JobState, NewJob, Outcome, Wanted};
use maru::store::log::{Change, Record};
use maru::store::nodes::{Claim, RunId};
use maru::store::readers::{Advance, Effects, ReaderId, Track};
use maru_protocol::cursor::Position;
use maru_tests::{Engine, for_both_engines};

use super::logs::{Log, Real};
use super::story::user;

for_both_engines!(
    a_key_makes_one_job_until_it_is_finished,
    two_holders_never_have_the_same_job,
    who_has_lost_a_job_stores_nothing,
    jobs_of_a_dead_run_wait_again_or_are_unknown,
    what_failed_is_due_later_and_is_given_up_in_the_end,
    a_destination_has_no_more_than_its_limit,
    every_destination_is_looked_at,
    attempts_are_kept_for_a_day_and_dropped_together,
    a_job_is_finished_with_its_effect_or_not_at_all,
    a_reader_makes_jobs_with_its_cursor,
);

const ONE: RunId = RunId(1);
const TWO: RunId = RunId(2);

/// Milliseconds of a day.
const DAY: i64 = 24 * 60 * 60 * 1000;

fn job(key: &str) -> NewJob {
    NewJob {
        kind: "count",
        key: Some(key.to_owned()),
        destination: String::new(),
        due_at: 10,
        repeatable: true,
        payload: format!("\"{key}\""),
        created_at: 1,
    }
}

fn to(destination: &str, key: &str) -> NewJob {
    NewJob {
        destination: destination.to_owned(),
        ..job(key)
    }
}

fn wanted(destination: &str, most: usize, limit: Option<usize>) -> Wanted {
    Wanted {
        kind: "count",
        destination: destination.to_owned(),
        most,
        limit,
    }
}

async fn claim(log: &Real, run: RunId, most: usize) -> Vec<HeldJob> {
    let wanted = vec![wanted("", most, None)];
    log.store.jobs.claim(run, 10, wanted).await.unwrap()
}

fn ended(job: &HeldJob, outcome: Outcome) -> Ended {
    Ended {
        job: job.clone(),
        started_at: 11,
        ended_at: 12,
        outcome,
    }
}

async fn state(log: &Real, id: JobId) -> Option<JobState> {
    log.store.jobs.job(id).await.unwrap().map(|job| job.state)
}

async fn a_key_makes_one_job_until_it_is_finished(engine: Engine) {
    let log = Real::start(engine).await;
    let jobs = &log.store.jobs;
    jobs.enqueue(vec![job("a"), job("a"), job("b")]).await.unwrap();
    jobs.enqueue(vec![job("a")]).await.unwrap();
    let held = claim(&log, ONE, 10).await;
    assert_eq!(held.len(), 2, "{held:?}");
    jobs.enqueue(vec![job("a")]).await.unwrap();
    assert!(claim(&log, TWO, 10).await.is_empty(), "one runs");

    let a = held.iter().find(|job| job.key.as_deref() == Some("a")).unwrap();
    let b = held.iter().find(|job| job.key.as_deref() == Some("b")).unwrap();
    let settled = vec![
        ended(a, Outcome::Done),
        ended(b, Outcome::DeadLetter("why".into())),
    ];
    assert!(jobs.settle(settled).await.unwrap().is_empty());
    assert_eq!(state(&log, a.id).await, None, "what is finished is gone");
    jobs.enqueue(vec![job("a"), job("b")]).await.unwrap();
    assert_eq!(
        claim(&log, TWO, 10).await.len(),
        2,
        "a dead letter keeps none away"
    );
    let retried = jobs.retry(b.id, 10).await;
    assert!(matches!(retried, Err(StoreError::Conflict(_))), "{retried:?}");
}

async fn two_holders_never_have_the_same_job(engine: Engine) {
    let log = Real::start(engine).await;
    let all: Vec<_> = (0..300).map(|n| job(&n.to_string())).collect();
    log.store.jobs.enqueue(all).await.unwrap();
    let work = async |run: RunId| {
        let mut had = Vec::new();
        loop {
            let held = claim(&log, run, 7).await;
            if held.is_empty() {
                return had;
            }
            assert!(held.len() <= 7 && held.iter().all(|job| job.run == run && job.attempt == 1));
            had.extend(held.iter().map(|job| job.id));
            let done = held.iter().map(|job| ended(job, Outcome::Done)).collect();
            assert!(log.store.jobs.settle(done).await.unwrap().is_empty());
        }
    };
    let (one, two) = tokio::join!(work(ONE), work(TWO));
    let different: BTreeSet<_> = one.iter().chain(&two).collect();
    assert_eq!((one.len() + two.len(), different.len()), (300, 300));
    assert_eq!(log.data.number("SELECT COUNT(*) FROM jobs").await, 0);
}

async fn who_has_lost_a_job_stores_nothing(engine: Engine) {
    let log = Real::start(engine).await;
    let jobs = &log.store.jobs;
    jobs.enqueue(vec![job("a")]).await.unwrap();
    let first = claim(&log, ONE, 1).await.remove(0);
    assert_eq!(jobs.release(vec![ONE], 10).await.unwrap(), 1);
    let second = claim(&log, TWO, 1).await.remove(0);
    assert_eq!((second.id, second.attempt, second.failures), (first.id, 2, 1));

    let lost = jobs.settle(vec![ended(&first, Outcome::Done)]).await.unwrap();
    assert_eq!(lost, [first.id]);
    let lost = jobs
        .settle_with(ended(&first, Outcome::Done), effect("lost"))
        .await;
    assert!(matches!(lost, Err(StoreError::JobLost)), "{lost:?}");
    // The same run, but an attempt before: it has lost the job as well.
    assert_eq!(jobs.release(vec![TWO], 10).await.unwrap(), 1);
    let third = claim(&log, TWO, 1).await.remove(0);
    assert_eq!(
        jobs.settle(vec![ended(&second, Outcome::Done)]).await.unwrap(),
        [first.id]
    );
    assert_eq!(state(&log, first.id).await, Some(JobState::Running));
    assert!(effects(&log).await.is_empty());
    assert!(
        jobs.settle(vec![ended(&third, Outcome::Done)])
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(state(&log, first.id).await, None);
}

async fn jobs_of_a_dead_run_wait_again_or_are_unknown(engine: Engine) {
    let log = Real::start(engine).await;
    let jobs = &log.store.jobs;
    let once = NewJob {
        repeatable: false,
        ..job("once")
    };
    jobs.enqueue(vec![job("again"), once, job("of another")])
        .await
        .unwrap();
    let held = claim(&log, ONE, 2).await;
    let others = claim(&log, TWO, 1).await;
    assert_eq!((held.len(), others.len()), (2, 1));
    assert_eq!(jobs.release_others(TWO, 20).await.unwrap(), 2);
    assert_eq!(jobs.release(vec![ONE], 20).await.unwrap(), 0, "once is enough");
    for job in held.iter().chain(&others) {
        let expected = match (job.run, job.key.as_deref()) {
            (TWO, _) => JobState::Running,
            (_, Some("once")) => JobState::Unknown,
            _ => JobState::Waiting,
        };
        assert_eq!(state(&log, job.id).await, Some(expected), "{job:?}");
    }
    let unknown = jobs.stopped().await.unwrap();
    assert!(unknown.iter().all(|job| job.last_error.is_some()));
    let attempts = jobs.attempts_of(held[0].id).await.unwrap();
    assert_eq!(attempts[0].outcome, "run ended");
    for job in unknown {
        assert!(jobs.retry(job.id, 20).await.unwrap(), "the admin has looked");
        assert_eq!(state(&log, job.id).await, Some(JobState::Waiting));
    }
}

async fn what_failed_is_due_later_and_is_given_up_in_the_end(engine: Engine) {
    let log = Real::start(engine).await;
    let jobs = &log.store.jobs;
    jobs.enqueue(vec![job("a")]).await.unwrap();
    let first = claim(&log, ONE, 1).await.remove(0);
    let again = Outcome::Again {
        due_at: 50,
        failures: 1,
        error: Some("not 'today'".into()),
    };
    jobs.settle(vec![ended(&first, again)]).await.unwrap();
    assert!(claim(&log, ONE, 1).await.is_empty(), "it is not due at 10");
    let head = jobs.heads(("", "")).await.unwrap().remove(0);
    assert_eq!((head.kind.as_str(), head.due_at), ("count", 50));
    let due = jobs.claim(ONE, 50, vec![wanted("", 1, None)]).await.unwrap();
    assert_eq!((due[0].failures, due[0].attempt), (1, 2));
    let dead = Outcome::DeadLetter("never".into());
    jobs.settle(vec![ended(&due[0], dead)]).await.unwrap();
    let dead = jobs.stopped().await.unwrap().remove(0);
    assert_eq!(
        (dead.id, dead.state, dead.failures),
        (first.id, JobState::DeadLetter, 2)
    );
    assert_eq!(dead.last_error.as_deref(), Some("never"));
    assert!(
        jobs.claim(ONE, 1_000, vec![wanted("", 1, None)])
            .await
            .unwrap()
            .is_empty()
    );
    let attempts = jobs.attempts_of(first.id).await.unwrap();
    let told: Vec<_> = attempts
        .iter()
        .map(|one| (one.attempt, one.outcome, one.error.as_deref()))
        .collect();
    assert_eq!(
        told,
        [
            (1, "again", Some("not 'today'")),
            (2, "dead letter", Some("never"))
        ]
    );
    assert!(jobs.retry(first.id, 60).await.unwrap());
    let retried = jobs.claim(ONE, 60, vec![wanted("", 1, None)]).await.unwrap();
    assert_eq!((retried[0].failures, retried[0].attempt), (0, 3));
    assert!(
        !jobs.drop_job(first.id).await.unwrap(),
        "what runs is not dropped"
    );
}

async fn a_destination_has_no_more_than_its_limit(engine: Engine) {
    let log = Real::start(engine).await;
    let jobs = &log.store.jobs;
    let made = (0..40).flat_map(|n| {
        let slow = to("slow", &format!("slow {n}"));
        let quick = to("quick", &format!("quick {n}"));
        [slow, quick]
    });
    jobs.enqueue(made.collect()).await.unwrap();
    let claim = async |run| {
        let both = vec![wanted("slow", 10, Some(3)), wanted("quick", 10, Some(50))];
        jobs.claim(run, 10, both).await.unwrap()
    };
    let (one, two) = tokio::join!(claim(ONE), claim(TWO));
    let mut by: BTreeMap<&str, usize> = BTreeMap::new();
    for job in one.iter().chain(&two) {
        *by.entry(&job.destination).or_default() += 1;
    }
    assert_eq!(by, [("quick", 20), ("slow", 3)].into(), "of both together");
    let slow = one
        .iter()
        .chain(&two)
        .find(|job| job.destination == "slow")
        .unwrap();
    jobs.settle(vec![ended(slow, Outcome::Done)]).await.unwrap();
    let next = claim(ONE).await;
    assert_eq!(next.iter().filter(|job| job.destination == "slow").count(), 1);
}

async fn every_destination_is_looked_at(engine: Engine) {
    let log = Real::start(engine).await;
    let jobs = &log.store.jobs;
    let names: Vec<_> = (0..600).map(|n| format!("d{n:04}")).collect();
    let made = names
        .iter()
        .flat_map(|name| [to(name, &format!("{name} 1")), to(name, &format!("{name} 2"))]);
    jobs.enqueue(made.collect()).await.unwrap();
    let (mut seen, mut after) = (Vec::new(), (String::new(), String::new()));
    loop {
        let heads = jobs.heads((&after.0, &after.1)).await.unwrap();
        let Some(last) = heads.last() else { break };
        after = (last.kind.clone(), last.destination.clone());
        seen.extend(heads.into_iter().map(|head| head.destination));
    }
    assert_eq!(seen, names);
}

async fn attempts_are_kept_for_a_day_and_dropped_together(engine: Engine) {
    let log = Real::start(engine).await;
    let jobs = &log.store.jobs;
    jobs.enqueue(vec![job("a")]).await.unwrap();
    let held = claim(&log, ONE, 1).await.remove(0);
    let again = Outcome::Again {
        due_at: 10,
        failures: 0,
        error: None,
    };
    let today = 20_000 * DAY + 5;
    jobs.settle(vec![Ended {
        ended_at: today,
        ..ended(&held, again)
    }])
    .await
    .unwrap();
    for later in [today, today + DAY] {
        jobs.drop_old_attempts(later).await.unwrap();
        assert_eq!(jobs.attempts_of(held.id).await.unwrap().len(), 1, "{later}");
    }
    jobs.drop_old_attempts(today + 2 * DAY).await.unwrap();
    assert!(jobs.attempts_of(held.id).await.unwrap().is_empty());
}

/// A message to a device: it has a row for each time that it was stored.
fn effect(text: &str) -> Change {
    let message = ToDevice {
        user_id: user("alice"),
        device_id: "PHONE".into(),
        sender: user("bob"),
        server: None,
        json: format!("\"{text}\""),
    };
    Change::new(vec![Record::ToDevice(message)])
}

async fn effects(log: &Real) -> Vec<String> {
    let messages = log.to_device(&user("alice"), "PHONE", Position::START).await;
    messages.into_iter().map(|(_, json)| json).collect()
}

async fn a_job_is_finished_with_its_effect_or_not_at_all(engine: Engine) {
    let log = Real::start(engine).await;
    let jobs = &log.store.jobs;
    jobs.enqueue(vec![job("a")]).await.unwrap();
    let held = claim(&log, ONE, 1).await.remove(0);
    jobs.settle_with(ended(&held, Outcome::Done), effect("once"))
        .await
        .unwrap();
    assert_eq!(state(&log, held.id).await, None);
    let again = jobs
        .settle_with(ended(&held, Outcome::Done), effect("twice"))
        .await;
    assert!(matches!(again, Err(StoreError::JobLost)), "{again:?}");
    assert_eq!(effects(&log).await, ["\"once\""]);
}

async fn a_reader_makes_jobs_with_its_cursor(engine: Engine) {
    let log = Real::start(engine).await;
    let readers = &log.store.readers;
    let id = ReaderId {
        name: "maker".into(),
        shard: 0,
    };
    readers.open(&id, Position(0), None, 1).await.unwrap();
    let claim_lease = vec![Claim {
        name: "maker".into(),
        seen: 0,
    }];
    let lease = log.store.nodes.take(ONE, claim_lease).await.unwrap().remove(0);
    let step = |from, to| Advance {
        id: id.clone(),
        track: Track::Log,
        lease: lease.clone(),
        from: Position(from),
        to: Position(to),
        records: 1,
        now: 1,
    };
    let made = |key| Effects::none().and_jobs(vec![job(key)]);
    readers.advance(step(0, 1), made("a")).await.unwrap();
    let stale = readers.advance(step(0, 1), made("b")).await;
    assert!(matches!(stale, Err(StoreError::CursorMoved(_))), "{stale:?}");
    // What was read again makes the same job again, which is one.
    readers.advance(step(1, 2), made("a")).await.unwrap();
    let held = claim(&log, ONE, 10).await;
    let keys: Vec<_> = held.iter().map(|job| job.key.as_deref()).collect();
    assert_eq!(keys, [Some("a")]);
}

/// Jobs go on while a commit of the log holds its counter, and past those that somebody else is about to take.
#[tokio::test(flavor = "multi_thread")]
async fn jobs_wait_for_nobody_on_postgres() {
    use sqlx::Connection as _;
    let log = Real::start(Engine::Postgres).await;
    let maru::store::Database::Postgres(url) = log.data.database() else {
        panic!("another engine");
    };
    let jobs = &log.store.jobs;
    jobs.enqueue(vec![job("a"), job("b")]).await.unwrap();
    let mut other = sqlx::PgConnection::connect(&url).await.unwrap();
    let hold =
        "BEGIN; UPDATE log SET position = position; SELECT id FROM jobs WHERE dedup_key = 'a' FOR UPDATE";
    sqlx::raw_sql(hold).execute(&mut other).await.unwrap();
    let free = tokio::time::timeout(Duration::from_secs(2), async {
        jobs.enqueue(vec![job("c")]).await.unwrap();
        claim(&log, ONE, 10).await
    });
    let mut keys: Vec<_> = free
        .await
        .unwrap()
        .into_iter()
        .filter_map(|job| job.key)
        .collect();
    keys.sort();
    assert_eq!(keys, ["b", "c"], "the other is about to take a");
    sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
    assert_eq!(claim(&log, ONE, 10).await.len(), 1);
}
