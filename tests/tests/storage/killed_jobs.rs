//! Processes that run jobs are killed in the middle of them, again and again: each effect is there exactly once.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use maru::clock::Clock;
use maru::jobs::{Done, JobError, JobKind, Kinds, Rules, Runner, RunnerSettings, new_job};
use maru::store::Database;
use maru::store::jobs::HeldJob;
use maru::store::nodes::RunId;
use maru::tasks::Tasks;
use maru_tests::{Data, Engine, for_both_engines};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use super::logs::{Heard, Real};
use super::running_jobs::{effect, effects};

for_both_engines!(jobs_survive_kills_and_are_done_once);

/// Jobs that are done.
const JOBS: usize = 300;

/// Times that a process is killed.
const KILLS: usize = 6;

/// What tells a process which database it works on.
const DATABASE: &str = "MARU_TEST_JOBS_OF";

/// Its effect is a record; it takes a moment, so that some are always under way.
#[derive(Debug)]
struct Counted;

impl JobKind for Counted {
    const NAME: &'static str = "test_counted";
    const RULES: Rules = Rules {
        at_once: 8,
        ..Rules::USUAL
    };
    type Payload = String;

    async fn perform(&self, _: &HeldJob, text: String) -> Result<Done, JobError> {
        tokio::time::sleep(Duration::from_millis(3)).await;
        say(&format!("done {text}"));
        Ok(Done::With(effect(&text)))
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

async fn jobs_survive_kills_and_are_done_once(engine: Engine) {
    let log = Real::start(engine).await;
    let texts = (0..JOBS).map(|n| format!("{n:03}"));
    let jobs = texts.clone().map(|text| {
        let key = Some(text.clone());
        new_job::<Counted>(&text, key, String::new(), 1, 1).unwrap()
    });
    log.store.jobs.enqueue(jobs.collect()).await.unwrap();
    log.store.close().await;
    for round in 0..=KILLS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["storage::killed_jobs::process", "--exact", "--nocapture"])
            .env(DATABASE, of(&log.data))
            .kill_on_drop(true)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut done = 0;
        while let Some(line) = lines.next_line().await.unwrap() {
            done += usize::from(line.starts_with("done"));
            if line.contains("nothing is left") || round < KILLS && done >= JOBS / (KILLS * 2) {
                break;
            }
        }
        child.kill().await.unwrap();
    }
    let log = Real::open(log.data).await.unwrap();
    assert_eq!(log.data.number("SELECT COUNT(*) FROM jobs").await, 0);
    assert_eq!(effects(&log).await, texts.collect::<Vec<_>>());
    let cut = "SELECT COUNT(*) FROM (SELECT outcome FROM job_attempts_0 UNION ALL SELECT outcome FROM job_attempts_1 \
               UNION ALL SELECT outcome FROM job_attempts_2) AS ended WHERE outcome = 4";
    let cut = log.data.number(cut).await;
    assert!(cut >= 1, "no job was under way when its process was killed");
}

fn of(data: &Data) -> String {
    match data.database() {
        Database::Sqlite(path) => path.display().to_string(),
        Database::Postgres(url) => url,
    }
}

/// The process that is killed; nothing where no test has started it.
#[tokio::test(flavor = "multi_thread")]
async fn process() {
    let Ok(database) = std::env::var(DATABASE) else {
        return;
    };
    let database = match database.starts_with("postgres") {
        true => Database::Postgres(database),
        false => Database::Sqlite(PathBuf::from(database)),
    };
    let (fresh, limits) = (
        maru_protocol::LogId([3; 16]),
        maru::store::CommitLimits::default(),
    );
    let access = maru::store::Access::Alone;
    let store = maru::store::Store::open(&database, access, fresh, limits, Arc::new(Heard::default()));
    let store = store.await.unwrap();
    let settings = RunnerSettings {
        run: RunId(rand::random()),
        grace: Duration::from_secs(1),
    };
    store.jobs.release_others(settings.run, 1).await.unwrap();
    let tasks = Tasks::new();
    let kinds = Kinds::default().with(Counted);
    let runner = Runner::new(kinds, Arc::clone(&store.jobs), Arc::new(Clock::System), settings);
    drop(tasks.finish("test_jobs", runner.run(tasks.stopping())));
    while !store.jobs.counts().await.unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    say("nothing is left");
    std::future::pending().await
}
