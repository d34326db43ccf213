-- Durable jobs: work that must be done once, kept until it is. A finished job's row is removed.
CREATE TABLE jobs (
    -- Random: no counter that nodes would share.
    id {int} PRIMARY KEY,
    kind {text} NOT NULL,
    -- Of one kind, no two jobs that wait, run or have an unknown outcome have the same key.
    dedup_key {text},
    -- Whom it burdens, for limits; empty for nobody.
    destination {text} NOT NULL,
    -- Milliseconds since 1970.
    due_at {int} NOT NULL,
    -- 0 waiting, 1 running, 2 outcome unknown, 3 dead letter.
    state {int} NOT NULL,
    -- Whether it may be done again when it is not known whether it was done.
    repeatable {int} NOT NULL,
    -- Attempts begun, which is the fencing number of the last; those in a row that failed.
    attempts {int} NOT NULL,
    failures {int} NOT NULL,
    -- The run that holds it.
    run {int},
    payload {text} NOT NULL,
    created_at {int} NOT NULL,
    last_error {text}
){plain};
CREATE UNIQUE INDEX jobs_by_key ON jobs (kind, dedup_key) WHERE dedup_key IS NOT NULL AND state < 3;
-- Each index holds the jobs of one state, so that claiming reads no others.
CREATE INDEX jobs_waiting ON jobs (kind, destination, due_at) WHERE state = 0;
CREATE INDEX jobs_running ON jobs (kind, destination) WHERE state = 1;
CREATE INDEX jobs_stopped ON jobs (kind, id) WHERE state >= 2;

-- Attempts that have ended, by the day they ended on: the tables take turns, and each is emptied at once before its turn.
CREATE TABLE job_attempts_0 (
    job {int} NOT NULL,
    attempt {int} NOT NULL,
    kind {text} NOT NULL,
    run {int} NOT NULL,
    -- Milliseconds since 1970; none where the run ended before it could tell.
    started_at {int},
    ended_at {int} NOT NULL,
    -- 0 done, 1 waits again, 2 outcome unknown, 3 dead letter, 4 its run ended.
    outcome {int} NOT NULL,
    error {text}
){plain};
CREATE TABLE job_attempts_1 (
    job {int} NOT NULL,
    attempt {int} NOT NULL,
    kind {text} NOT NULL,
    run {int} NOT NULL,
    started_at {int},
    ended_at {int} NOT NULL,
    outcome {int} NOT NULL,
    error {text}
){plain};
CREATE TABLE job_attempts_2 (
    job {int} NOT NULL,
    attempt {int} NOT NULL,
    kind {text} NOT NULL,
    run {int} NOT NULL,
    started_at {int},
    ended_at {int} NOT NULL,
    outcome {int} NOT NULL,
    error {text}
){plain};
CREATE INDEX job_attempts_0_by_job ON job_attempts_0 (job, attempt);
CREATE INDEX job_attempts_1_by_job ON job_attempts_1 (job, attempt);
CREATE INDEX job_attempts_2_by_job ON job_attempts_2 (job, attempt);
