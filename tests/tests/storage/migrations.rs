//! Databases of older programs: what a migration counts is what the rows that are there come to.

use maru_tests::{Data, Engine, for_both_engines};

use super::logs::Real;

for_both_engines!(
    answers_in_threads_are_counted_of_old_rows,
    what_waits_is_counted_of_old_rows,
    what_users_keep_is_counted_of_old_rows,
    what_each_user_sent_last_is_found_in_old_rows,
);

/// Reads the migrations in order, as this engine spells them.
fn migrations(engine: Engine) -> Vec<String> {
    let words = match engine {
        Engine::Sqlite => ["INTEGER", "TEXT", "BLOB", " STRICT", " STRICT, WITHOUT ROWID"],
        Engine::Postgres => ["BIGINT", "TEXT COLLATE \"C\"", "BYTEA", "", ""],
    };
    let names = ["{int}", "{text}", "{blob}", "{plain}", "{clustered}"];
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../server/migrations");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let texts = files.iter().map(|file| std::fs::read_to_string(file).unwrap());
    let filled = texts.map(|text| {
        let pairs = names.iter().zip(words);
        pairs.fold(text, |text, (name, word)| text.replace(name, word))
    });
    filled.collect()
}

/// Opens a database that the program of a schema version left behind with these rows.
async fn upgraded(engine: Engine, version: usize, rows: &str) -> Real {
    let data = Data::new(engine);
    if engine == Engine::Sqlite {
        std::fs::File::create(data.sqlite_file()).unwrap();
    }
    let schema: String = migrations(engine).into_iter().take(version).collect();
    let noted = format!(
        "CREATE TABLE schema (one BIGINT PRIMARY KEY, version BIGINT NOT NULL, readable_by BIGINT NOT NULL); \
         INSERT INTO schema VALUES (1, {version}, {version});"
    );
    data.run(&format!("BEGIN; {schema} {noted} {rows} COMMIT;")).await;
    Real::open(data).await.unwrap()
}

/// Checks that a table holds these rows, each told by what is true of it alone, and no others.
async fn holds(log: &Real, table: &str, rows: &[&str]) {
    let all = log.data.number(&format!("SELECT COUNT(*) FROM {table}")).await;
    assert_eq!(all, rows.len() as i64, "rows in {table}");
    for row in rows {
        let found = format!("SELECT COUNT(*) FROM {table} WHERE {row}");
        assert_eq!(log.data.number(&found).await, 1, "{table}: {row}");
    }
}

async fn answers_in_threads_are_counted_of_old_rows(engine: Engine) {
    // Number, room, place, outcome, what it relates to and how.
    let events = [
        (1, 1, "1", 0, "NULL, NULL"),
        (2, 1, "2", 0, "'$e1', 'm.thread'"),
        (3, 1, "3", 0, "'$e1', 'm.thread'"),
        // Rejected, soft-failed, not in the timeline, related otherwise.
        (4, 1, "4", 2, "'$e1', 'm.thread'"),
        (5, 1, "5", 1, "'$e1', 'm.thread'"),
        (6, 1, "NULL", 0, "'$e1', 'm.thread'"),
        (7, 1, "7", 0, "'$e1', 'm.reference'"),
        // In another room, and of a root that is not here.
        (8, 2, "1", 0, "'$e1', 'm.thread'"),
        (9, 2, "2", 0, "'$gone', 'm.thread'"),
    ];
    let insert = |(nid, room, place, outcome, relates): (i64, i64, &str, i64, &str)| {
        format!(
            "INSERT INTO events (nid, event_id, room, position, place, type, sender, origin_server_ts, outcome, notify, \
             relates_to, relation, json) VALUES ({nid}, '$e{nid}', {room}, {nid}, {place}, 'm.room.message', '@u:x', 0, \
             {outcome}, 0, {relates}, '{{}}');"
        )
    };
    let rows: String = events.into_iter().map(insert).collect();
    let log = upgraded(engine, 6, &rows).await;
    let threads = [
        "root = '$e1' AND room = 1 AND answers = 2 AND latest = 3",
        "root = '$e1' AND room = 2 AND answers = 1 AND latest = 1",
        "root = '$gone' AND room = 2 AND answers = 1 AND latest = 2",
    ];
    holds(&log, "threads", &threads).await;
}

async fn what_waits_is_counted_of_old_rows(engine: Engine) {
    // To devices, and to another server: bytes, not characters.
    let rows = "INSERT INTO to_device (user_id, device_id, position, json) VALUES \
         ('@a:x', 'D1', 1, '{}'), ('@a:x', 'D1', 2, '{\"é\":1}'), ('@a:x', 'D2', 3, '{}'); \
         INSERT INTO peer_messages \
         (server_name, position, message_id, sender, user_id, device_id, type, content, sent_at) VALUES \
         ('y', 1, 'm1', '@a:x', '@u:y', 'D', 't', '{}', 1), ('y', 2, 'm2', '@a:x', '@u:y', 'D', 't', '{\"é\":1}', 1), \
         ('y', 3, 'm3', '@b:x', '@u:y', 'D', 't', '{}', 1);";
    let log = upgraded(engine, 8, rows).await;
    let for_devices = [
        "user_id = '@a:x' AND who = '' AND device_id = 'D1' AND messages = 2 AND bytes = 10",
        "user_id = '@a:x' AND who = '' AND device_id = 'D2' AND messages = 1 AND bytes = 2",
    ];
    holds(&log, "to_device_waiting", &for_devices).await;
    let for_peers = [
        "server_name = 'y' AND who = '' AND messages = 3 AND bytes = 12",
        "server_name = 'y' AND who = '@a:x' AND messages = 2 AND bytes = 10",
        "server_name = 'y' AND who = '@b:x' AND messages = 1 AND bytes = 2",
    ];
    holds(&log, "peer_waiting", &for_peers).await;
}

async fn what_each_user_sent_last_is_found_in_old_rows(engine: Engine) {
    // Number, sender, type, state key, thread, outcome, place, whether this server made it.
    let events = [
        (1, "@a:x", "m.room.message", "NULL", "NULL", 0, "1", 1),
        (2, "@a:x", "m.room.topic", "''", "NULL", 0, "2", 1),
        (3, "@b:x", "m.room.message", "NULL", "NULL", 0, "3", 1),
        // A change of one's own name, a thread, rejected, not in the timeline, of another server.
        (4, "@a:x", "m.room.member", "'@a:x'", "NULL", 0, "4", 1),
        (5, "@a:x", "m.room.message", "NULL", "'$e1'", 0, "5", 1),
        (6, "@a:x", "m.room.message", "NULL", "NULL", 2, "6", 1),
        (7, "@a:x", "m.room.message", "NULL", "NULL", 0, "NULL", 1),
        (8, "@c:y", "m.room.message", "NULL", "NULL", 0, "8", 0),
        // Somebody else's membership is something sent.
        (9, "@b:x", "m.room.member", "'@a:x'", "NULL", 0, "9", 1),
    ];
    type Row = (
        i64,
        &'static str,
        &'static str,
        &'static str,
        &'static str,
        i64,
        &'static str,
        i64,
    );
    let insert = |(nid, sender, kind, state_key, thread, outcome, place, own): Row| {
        format!(
            "INSERT INTO events (nid, event_id, room, position, place, type, state_key, sender, origin_server_ts, outcome, \
             notify, thread, json, own) VALUES ({nid}, '$e{nid}', 1, {nid}, {place}, '{kind}', {state_key}, '{sender}', 0, \
             {outcome}, 0, {thread}, '{{}}', {own});"
        )
    };
    let rows: String = events.into_iter().map(insert).collect();
    let log = upgraded(engine, 10, &rows).await;
    let sent = [
        "room = 1 AND user_id = '@a:x' AND place = 2",
        "room = 1 AND user_id = '@b:x' AND place = 9",
    ];
    holds(&log, "last_sent", &sent).await;
}

async fn what_users_keep_is_counted_of_old_rows(engine: Engine) {
    let blob = match engine {
        Engine::Sqlite => "BLOB",
        Engine::Postgres => "BYTEA",
    };
    // What the server writes is not counted, nor an upload that has not begun.
    let rows = format!(
        "INSERT INTO media (media_id, server_name, user_id, size, sha256, created_at) VALUES \
         ('m1', 'x', '@a:x', 3, CAST('h' AS {blob}), 1), ('m2', 'x', '@a:x', 4, CAST('i' AS {blob}), 1), \
         ('m3', 'x', '@a:x', -1, NULL, 1), ('m4', 'x', '@b:x', 5, CAST('h' AS {blob}), 1); \
         INSERT INTO account_data (user_id, room, type, content, position) VALUES \
         ('@a:x', 0, 'a.b', '{{\"é\":1}}', 1), ('@a:x', 1, 'm.tag', '{{}}', 2), \
         ('@a:x', 1, 'm.fully_read', '{{}}', 3), ('@b:x', 0, 'm.push_rules', '{{}}', 4);"
    );
    let log = upgraded(engine, 8, &rows).await;
    let uploads = [
        "user_id = '@a:x' AND bytes = 7",
        "user_id = '@b:x' AND bytes = 5",
        // The copies of other servers' files, which are nobody's.
        "user_id = '' AND bytes = 0",
    ];
    holds(&log, "media_usage", &uploads).await;
    holds(
        &log,
        "account_data_usage",
        &["user_id = '@a:x' AND items = 2 AND bytes = 18"],
    )
    .await;
}
