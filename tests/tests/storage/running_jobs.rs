//! What whoever runs jobs promises: all are done, what fails is given up in the end, what must stop is given back.

use std::sync::Arc;
use std::time::Duration;

use maru::clock::Clock;
use maru::jobs::{Backoff, Done, JobError, JobKind, Kinds, Rules, Runner, RunnerSettings, new_job};
use maru::store::encryption::to_device::ToDevice;
use maru::store::jobs::{HeldJob, JobState, NewJob};
use maru::store::log::{Change, Record};
use maru::store::nodes::RunId;
use maru::tasks::Tasks;
use maru_protocol::cursor::Position;
use maru_tests::{Engine, for_both_engines};
use tokio::sync::mpsc;

use super::logs::{Log, Real};
use super::story::user;

for_both_engines!(
    jobs_are_done_and_what_fails_is_given_up,
    what_must_stop_is_given_back_or_unknown,
    what_recurs_has_one_row_and_comes_again,
    a_job_that_ended_its_server_too_often_is_not_begun,
);

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Tells of each attempt and does what the payload says.
#[derive(Clone, Debug)]
struct Told(mpsc::UnboundedSender<String>);

/// The same, once at most.
#[derive(Clone, Debug)]
struct Once(Told);

/// The same, again and again.
#[derive(Clone, Debug)]
struct Often(Told);

const RULES: Rules = Rules {
    backoff: Backoff {
        first: Duration::from_millis(1),
        longest: Duration::from_millis(2),
    },
    most_failures: Some(3),
    at_once: 4,
    ..Rules::USUAL
};

impl Told {
    async fn perform_told(&self, text: String) -> Result<Done, JobError> {
        self.0.send(text.clone()).unwrap();
        match text.as_str() {
            "panic" => panic!("on purpose"),
            "fail" => Err(JobError::Failed("it is not\0to be".into())),
            "for good" => Err(JobError::ForGood("never".into())),
            "slow" => std::future::pending().await,
            text => Ok(Done::With(effect(text))),
        }
    }
}

impl JobKind for Told {
    const NAME: &'static str = "test_told";
    const RULES: Rules = RULES;
    type Payload = String;

    async fn perform(&self, _: &HeldJob, text: String) -> Result<Done, JobError> {
        self.perform_told(text).await
    }
}

impl JobKind for Once {
    const NAME: &'static str = "test_once";
    const RULES: Rules = Rules {
        repeatable: false,
        ..RULES
    };
    type Payload = String;

    async fn perform(&self, _: &HeldJob, text: String) -> Result<Done, JobError> {
        self.0.perform_told(text).await
    }
}

impl JobKind for Often {
    const NAME: &'static str = "test_often";
    const RULES: Rules = Rules::every(Duration::from_millis(5));
    type Payload = ();

    async fn perform(&self, _: &HeldJob, (): ()) -> Result<Done, JobError> {
        self.0.0.send("often".into()).unwrap();
        Ok(Done::Finished)
    }
}

/// A message to a device: it has a row for each time that it was stored.
pub(super) fn effect(text: &str) -> Change {
    Change::new(vec![Record::ToDevice(ToDevice {
        user_id: user("alice"),
        device_id: "PHONE".into(),
        sender: user("bob"),
        server: None,
        json: text.to_owned(),
    })])
}

pub(super) async fn effects(log: &Real) -> Vec<String> {
    let messages = log.to_device(&user("alice"), "PHONE", Position::START).await;
    let mut texts: Vec<_> = messages.into_iter().map(|(_, json)| json).collect();
    texts.sort();
    texts
}

/// A runner at work, and what it tells.
struct Running {
    tasks: Arc<Tasks>,
    told: mpsc::UnboundedReceiver<String>,
}

impl Running {
    fn start(log: &Real) -> Self {
        let (tell, told) = mpsc::unbounded_channel();
        let kind = Told(tell);
        let kinds = Kinds::default()
            .with(Once(kind.clone()))
            .with(Often(kind.clone()))
            .with(kind);
        let settings = RunnerSettings {
            run: RunId(7),
            grace: Duration::from_millis(10),
        };
        let tasks = Tasks::new();
        let runner = Runner::new(
            kinds,
            Arc::clone(&log.store.jobs),
            Arc::new(Clock::System),
            settings,
        );
        drop(tasks.finish("test_jobs", runner.run(tasks.stopping())));
        Self { tasks, told }
    }

    /// Waits until it has told of these.
    async fn hears(&mut self, texts: &[&str]) {
        let mut missing: Vec<_> = texts.to_vec();
        while !missing.is_empty() {
            let told = tokio::time::timeout(PATIENCE, self.told.recv()).await;
            let told = told
                .unwrap_or_else(|_| panic!("{missing:?} were not begun"))
                .unwrap();
            if let Some(at) = missing.iter().position(|text| *text == told) {
                missing.remove(at);
            }
        }
    }

    async fn stop(self) {
        assert!(self.tasks.close(PATIENCE).await, "it ends");
    }
}

fn job<K: JobKind<Payload = String>>(text: &str) -> NewJob {
    new_job::<K>(&text.to_owned(), Some(text.to_owned()), String::new(), 1, 1).unwrap()
}

async fn jobs_are_done_and_what_fails_is_given_up(engine: Engine) {
    let log = Real::start(engine).await;
    let mut running = Running::start(&log);
    // It sleeps by now, or soon: whoever makes a job wakes it.
    let texts = ["one", "two", "panic", "fail", "for good"];
    let jobs = texts.map(job::<Told>);
    log.store.jobs.enqueue(jobs.to_vec()).await.unwrap();
    let begun = [
        "one", "two", "panic", "panic", "panic", "fail", "fail", "fail", "for good",
    ];
    running.hears(&begun).await;
    running.stop().await;
    assert_eq!(effects(&log).await, ["one", "two"]);
    let stopped = log.store.jobs.stopped().await.unwrap();
    let mut why: Vec<_> = stopped
        .iter()
        .map(|job| (job.state, job.last_error.clone().unwrap()))
        .collect();
    why.sort_by(|one, other| one.1.cmp(&other.1));
    let dead = |why: &str| (JobState::DeadLetter, why.to_owned());
    let expected = [
        dead("it is notto be"),
        dead("it panicked: on purpose"),
        dead("never"),
    ];
    assert_eq!(why, expected);
}

async fn what_must_stop_is_given_back_or_unknown(engine: Engine) {
    let log = Real::start(engine).await;
    let mut running = Running::start(&log);
    let jobs = vec![job::<Told>("slow"), job::<Once>("slow")];
    log.store.jobs.enqueue(jobs).await.unwrap();
    running.hears(&["slow", "slow"]).await;
    running.stop().await;
    let states = |jobs: Vec<maru::store::jobs::StoredJob>| -> Vec<_> {
        jobs.into_iter().map(|job| (job.state, job.failures)).collect()
    };
    let told = log.store.jobs.of_kind("test_told").await.unwrap();
    assert_eq!(
        states(told),
        [(JobState::Waiting, 0)],
        "as if it had not been begun"
    );
    let once = log.store.jobs.of_kind("test_once").await.unwrap();
    assert_eq!(states(once), [(JobState::Unknown, 1)], "somebody has to look");
}

async fn what_recurs_has_one_row_and_comes_again(engine: Engine) {
    let log = Real::start(engine).await;
    for _ in 0..2 {
        let mut running = Running::start(&log);
        running.hears(&["often", "often", "often"]).await;
        running.stop().await;
        let rows = log.store.jobs.of_kind("test_often").await.unwrap();
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].state, JobState::Waiting);
    }
}

async fn a_job_that_ended_its_server_too_often_is_not_begun(engine: Engine) {
    let log = Real::start(engine).await;
    let jobs = &log.store.jobs;
    jobs.enqueue(vec![job::<Told>("one")]).await.unwrap();
    let wanted = || {
        vec![maru::store::jobs::Wanted {
            kind: "test_told",
            destination: String::new(),
            most: 1,
            limit: None,
        }]
    };
    for run in 1..=3 {
        assert_eq!(jobs.claim(RunId(run), 10, wanted()).await.unwrap().len(), 1);
        assert_eq!(
            jobs.release_unregistered(RunId(4), 10).await.unwrap(),
            1,
            "no node has it"
        );
    }
    let mut running = Running::start(&log);
    jobs.enqueue(vec![job::<Told>("two")]).await.unwrap();
    running.hears(&["two"]).await;
    running.stop().await;
    let stopped = jobs.stopped().await.unwrap();
    assert_eq!((stopped.len(), stopped[0].state), (1, JobState::DeadLetter));
    assert_eq!(effects(&log).await, ["two"]);
}
