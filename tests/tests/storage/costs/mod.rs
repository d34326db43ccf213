//! What statements cost: with what they answer, never with what is stored.
//!
//! Every statement of the store runs on small tables, on tables ten times and a hundred times as large, once where all rows belong
//! to what is asked about and once where each room, user and server has twenty. The steps of its plan may grow as its
//! answer does. The few that grow otherwise say with what in [`GROWING`].

mod measure;
mod statements;
mod values;

use maru_tests::Engine;

use measure::{Cost, Filled, Shape};
use statements::Statement;

/// Rows in each table.
const SIZES: [u32; 3] = [40, 400, 4_000];

/// Steps that a statement may take beyond four times those of the smallest tables for each row of its answer: trees grow,
/// pages are split.
const SLACK: f64 = 150.0;

/// Statements whose cost grows with more than their answer: part of the text, and with what.
const GROWING: &[(&str, &str)] = &[
    // Bounded by a limit of what one user, device or peer may have.
    (
        "FROM filters WHERE user_id = $1 AND json = $2",
        "a user's filters",
    ),
    (
        "SELECT COUNT(*) FROM media WHERE user_id = $1",
        "a user's uploads that have not begun",
    ),
    (
        "FROM one_time_keys WHERE user_id = $1 AND device_id = $2 AND claimed = 0",
        "the keys that a device offers",
    ),
    (
        "FROM one_time_keys WHERE user_id = ANY($1) AND device_id = ANY($2) AND claimed = 0",
        "the keys that the devices asked about offer",
    ),
    (
        "SELECT COUNT(*) FROM devices WHERE user_id = $1",
        "a user's devices",
    ),
    (
        "FROM inbox",
        "what waits in the inbox, which each peer has a budget for: all of it at the start, that of a room in its turn",
    ),
    // Once in the life of a process or of a room.
    (
        "DELETE FROM events WHERE room = $1 AND place IS NULL",
        "what was heard of a room before it is joined, once, when it is",
    ),
    // By their nature.
    (
        "users.search_text LIKE $1",
        "the names that are searched for a part",
    ),
    (
        "WITH RECURSIVE related",
        "what relates to what relates to an event",
    ),
    (
        "AND NOT (e.sender = ANY($2))",
        "the answers in the threads asked about by those whom the reader ignores",
    ),
    // Joins of rooms and who is in them.
    (
        "JOIN events AS e ON e.room = i.room AND e.position = i.to_position",
        "the stays of other servers in rooms that have ended, each looked up by itself: once, at the start, to find who \
         may still have to hear of it",
    ),
    (
        "AS next FROM interests AS i WHERE i.server_name = $1",
        "the rooms shared with a peer",
    ),
    (
        "FROM interests AS i JOIN receipts AS r",
        "the receipts since a position in rooms shared with a peer",
    ),
    (
        "SELECT DISTINCT other.user_id FROM memberships AS other",
        "the rooms of the users asked about",
    ),
    (
        "SELECT DISTINCT theirs.user_id",
        "the rooms of the users asked about",
    ),
    (
        "SELECT DISTINCT m.user_id",
        "the rooms of the users or peers asked about",
    ),
];

/// The same on PostgreSQL alone, where it expects more rows than there are and reads them in another order.
const GROWING_ON_POSTGRES: &[(&str, &str)] = &[(
    "JOIN interests AS i ON i.room = events.room",
    "this server's events in the rooms asked about within a window of 2,048 positions, one page of which is answered: the \
     window here is the whole log",
)];

/// What a restore does, what drops attempts of jobs, and what ends the search of messages, which go through whole tables; and what belongs to the session of a whole database.
const NOT_RUN: &[&str] = &[
    "SELECT CASE WHEN pg_try_advisory_lock($1) THEN 1::bigint ELSE 0::bigint END",
    "SELECT 1::bigint FROM (SELECT pg_notify($1, $2)) AS told",
    "WITH announced AS (SELECT pg_notify($6, ($1::bigint)::text)) \
     INSERT INTO commits (position, first, commit_id, committed_at, entries) \
     SELECT $1::bigint, $2, $3, $4, $5 FROM announced",
    "SELECT CASE WHEN pg_try_advisory_lock_shared($1) THEN 1::bigint ELSE 0::bigint END",
    "SELECT 1 FROM (SELECT pg_advisory_lock($1)) AS locked",
    "SELECT 1 FROM (SELECT pg_advisory_unlock($1)) AS unlocked",
    "SELECT CASE WHEN pg_terminate_backend(pid) THEN 1::bigint ELSE 0::bigint END FROM pg_stat_activity \
     WHERE pid = $1 AND (EXTRACT(EPOCH FROM backend_start) * 1000000)::bigint = $2",
    "SELECT pid::bigint, (EXTRACT(EPOCH FROM backend_start) * 1000000)::bigint FROM pg_stat_activity \
     WHERE pid = pg_backend_pid()",
    "DELETE FROM job_attempts_0",
    "DELETE FROM job_attempts_1",
    "DELETE FROM job_attempts_2",
    "DELETE FROM one_time_keys",
    "DELETE FROM search_edits",
    "INSERT INTO search_index (search_index) VALUES ('delete-all')",
];

/// Parts of statements of full-text search, which are not run: what a person looks for decides what they cost, so they are cut
/// off after a time. The last puts texts into the index.
const SEARCHING: &[&str] = &["search_index MATCH", "@@ $1::tsquery", "array_to_tsvector"];

/// Words that only one of the engines knows, or is asked with.
fn is_for(engine: Engine, sql: &str) -> bool {
    let other: &[&str] = match engine {
        Engine::Sqlite => &[
            "json_array_elements",
            "json_each_text",
            "json_agg",
            "information_schema",
            "pg_try_advisory_lock",
            "FOR SHARE",
            "pg_advisory_xact_lock",
            "FOR UPDATE",
            "pg_advisory_lock",
            "pg_advisory_unlock",
            "pg_notify",
            "unnest(",
            "FROM search_index WHERE event",
        ],
        Engine::Postgres => &[
            "json_each(",
            "json_group_array",
            "sqlite_master",
            "rowid",
            "FROM rooms CROSS JOIN memberships AS m",
        ],
    };
    let is_left_out = |word: &&str| sql.contains(*word);
    !other.iter().chain(SEARCHING).any(is_left_out) && !NOT_RUN.contains(&sql)
}

/// Whether a statement takes more steps on larger tables than its answer explains, and goes on to take more.
fn has_grown(costs: &[Cost]) -> bool {
    let [small, middle, large] = costs else {
        return false;
    };
    let explained = |cost: &Cost, factor: f64| {
        let answered = (large.rows + 1) as f64 / (cost.rows + 1) as f64;
        factor * cost.steps as f64 * answered.max(1.0) + SLACK
    };
    large.steps as f64 > explained(small, 4.0).max(explained(middle, 2.0))
}

async fn costs_do_not_grow(engine: Engine) {
    let statements: Vec<Statement> = statements::all()
        .into_iter()
        .filter(|statement| is_for(engine, &statement.sql))
        .collect();
    assert!(
        statements.len() > 150,
        "{} statements were found",
        statements.len()
    );
    let (mut wrong, mut excused) = (Vec::new(), vec![false; GROWING.len()]);
    for shape in [Shape::OfOne, Shape::OfMany] {
        let mut costs: Vec<Vec<Cost>> = vec![Vec::new(); statements.len()];
        for rows in SIZES {
            let mut filled = Filled::new(engine, shape, rows).await;
            for (Statement { file, sql }, costs) in statements.iter().zip(&mut costs) {
                let values = values::values(sql);
                match filled.cost(sql, &values).await {
                    Ok(cost) => costs.push(cost),
                    Err(error) => wrong.push(format!("{file}: {error}: {values:?}\n    {sql}")),
                }
            }
        }
        for (Statement { file, sql }, costs) in statements.iter().zip(costs) {
            if has_grown(&costs) {
                let on_postgres = |(part, _): &(&str, &str)| engine == Engine::Postgres && sql.contains(part);
                match GROWING.iter().position(|(part, _)| sql.contains(part)) {
                    Some(known) => excused[known] = true,
                    None if GROWING_ON_POSTGRES.iter().any(on_postgres) => {}
                    None => wrong.push(format!("{file}: {shape:?} {costs:?}\n    {sql}")),
                }
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} are refused, or cost more as tables grow:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    if engine == Engine::Sqlite {
        let idle = GROWING.iter().zip(&excused).filter(|(_, excused)| !**excused);
        let idle: Vec<_> = idle.map(|((part, _), _)| part).collect();
        assert!(idle.is_empty(), "these need no excuse: {idle:?}");
    }
}

#[tokio::test]
async fn on_sqlite() {
    Box::pin(costs_do_not_grow(Engine::Sqlite)).await;
}

#[tokio::test]
async fn on_postgres() {
    Box::pin(costs_do_not_grow(Engine::Postgres)).await;
}
