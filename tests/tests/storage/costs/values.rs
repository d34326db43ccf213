//! What the placeholders of a statement stand for, by the columns that they are compared with: values of the first group
//! of rows in `fill.sql`.

/// A value that is bound.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Int(i64),
    Text(&'static str),
    Bytes(&'static [u8]),
    Ints(&'static [i64]),
    Texts(&'static [&'static str]),
}

use Value::{Bytes, Int, Ints, Null, Text, Texts};

/// More than any number in the tables.
const LARGE: i64 = 1_000_000_000_000;

/// Placeholders that no column explains: part of the statement, the number, the value.
const BY_STATEMENT: &[(&str, usize, Value)] = &[
    ("CAST($3 AS TEXT) IS NULL", 3, Null),
    ("CAST($5 AS TEXT) IS NULL", 5, Null),
    ("CAST($6 AS TEXT) IS NULL", 6, Null),
    ("events.relates_to = $1 AND", 1, Text("$e2")),
    ("depth < $7", 7, Int(3)),
    (
        "events.type = $2 AND events.state_key = $3",
        2,
        Text("m.room.member"),
    ),
    ("json_each($1) AS range", 1, Text("[[1,1,20]]")),
    ("json_array_elements($1::json) AS range", 1, Text("[[1,1,20]]")),
    ("json_each($1) AS wanted", 1, Text("[[1,5],[2,25]]")),
    (
        "json_array_elements($1::json) AS wanted",
        1,
        Text("[[1,5],[2,25]]"),
    ),
    ("unnest($1::text[]) AS asked", 1, Texts(&["@u1", "@u2"])),
    ("value AS event_id FROM json_each($1)", 1, Texts(&["$e1", "$e2"])),
    ("unnest($1::text[]) AS page", 1, Texts(&["$e1", "$e2"])),
    ("json_each($2)) AS asked", 1, Text("@u1")),
    ("json_each($2)) AS asked", 2, Text("[[1,1,10]]")),
    ("json_array_elements($2::json)) AS asked", 1, Text("@u1")),
    ("json_array_elements($2::json)) AS asked", 2, Text("[[1,1,10]]")),
    ("json_each($2) AS range", 1, Text("@u1")),
    ("json_each($2) AS range", 2, Text("[[1,1,10]]")),
    ("json_array_elements($2::json) AS range", 1, Text("@u1")),
    ("json_array_elements($2::json) AS range", 2, Text("[[1,1,10]]")),
    ("(scope, transaction_id) <= ($3, $4)", 3, Text("send")),
    ("(scope, transaction_id) <= ($3, $4)", 4, Text("x1")),
    ("'', position, $4 FROM log", 1, Text("@u1")),
    ("'', position, $4 FROM log", 2, Text("D1")),
    ("'', position, $4 FROM log", 3, Text("new")),
    ("'', position, $4 FROM log", 4, Int(1)),
    ("'', position, $4 FROM log", 5, Text("sendToDevice")),
    ("SET position = position + $1", 1, Int(1)),
    ("SELECT MAX(oldest.position)", 2, Int(5)),
    // Nothing is new.
    ("d.position > $2 AND (d.user_id = $1", 2, Int(LARGE)),
    ("newer > $1", 1, Int(-1)),
    ("bytes_before < $4", 2, Ints(&[1, 2])),
    ("bytes_before < $4", 4, Int(1_000)),
    ("users.search_text LIKE $1", 1, Text("%u1%")),
    ("users.search_text LIKE $1", 3, Text("u1%")),
    ("FROM users WHERE user_id > $1", 1, Text("@u")),
    ("$2 = '*' OR", 2, Text("*")),
    ("THEN $1 ELSE NULL", 1, Int(1)),
    ("THEN $1 ELSE NULL", 2, Int(0)),
    // Little is old, little is delivered, little is new.
    ("WHERE heard_at < $1", 1, Int(3)),
    ("WHERE sent_at < $1", 1, Int(3)),
    ("WHERE expires_at <= $1", 1, Int(1_000_000_003)),
    ("FROM transactions WHERE position <= $1", 1, Int(3)),
    (
        "FROM to_device WHERE user_id = $1 AND device_id = $2 AND position <= $3",
        3,
        Int(3),
    ),
    (
        "FROM peer_messages WHERE server_name = $1 AND position <= $2",
        2,
        Int(3),
    ),
    ("d.position > $2 AND d.position <= $3", 2, Int(3)),
    ("d.position > $2 AND d.position <= $3", 3, Int(8)),
    ("log_id = $1", 1, Text("l")),
    ("WITH RECURSIVE heads", 1, Text("")),
    ("WITH RECURSIVE heads", 2, Text("")),
    ("version = COALESCE($2, version)", 2, Int(1)),
    ("JOIN room_keys AS k", 1, Text("@u1")),
    ("JOIN room_keys AS k", 3, Text(r#"[["!r1:x","s1"]]"#)),
    ("(room_id, session_id) > ($3, $4)", 3, Text("!r1:x")),
    ("(room_id, session_id) > ($3, $4)", 4, Text("s1")),
    ("room_id = $3 AND session_id > $4", 4, Text("s1")),
    ("AS place", 1, Text(r#"[["k1","d1"]]"#)),
    ("AS item", 1, Text(r#"[[30,0,5,0,null]]"#)),
    ("pace_ms = pace_ms + $2", 2, Int(5)),
    ("held = held - $1", 1, Int(1)),
    ("pg_advisory_xact_lock", 1, Int(1)),
    ("(one, log_id, position)", 1, Text("l")),
    ("records = records + $5", 5, Int(1)),
    ("json_each($1) AS room", 1, Text(r#"{"1":5,"2":25}"#)),
    ("json_each_text($1::json) AS room", 1, Text(r#"{"1":5,"2":25}"#)),
    ("generation = $5 + 1 AND previous_nonce = $6", 6, Int(5)),
    ("generation = $7 + 1 AND previous_nonce = $3", 7, Int(5)),
    ("SELECT $1, user_id, device_id, $2", 1, Int(1_000_000_000)),
    ("SELECT $1, user_id, device_id, $2", 2, Text("fresh")),
    ("SELECT $1, user_id, device_id, $2", 3, Int(1)),
    ("SELECT $1, user_id, device_id, $2", 4, Int(1)),
    ("SELECT $1, user_id, device_id, $2", 5, Text("[]")),
    ("SELECT $1, user_id, device_id, $2", 6, Int(1)),
    ("changed_at <= $1 ORDER BY changed_at", 1, Int(3)),
];

/// What is compared with a column.
fn of(column: &str) -> Value {
    match column {
        "token_hash" | "code_hash" | "device_code_hash" => Bytes(b"t1"),
        "user_code_hash" => Bytes(b"u1"),
        "family" => Bytes(b"f1"),
        "client_id" => Text("c1"),
        "refresh_hash" => Bytes(b"r1"),
        "replaces_refresh_hash" => Bytes(b"q1"),
        "root_key" => Bytes(b"k"),
        "log_id" => Bytes(b"l"),
        "cursor" | "record" | "sha256" => Bytes(b"c"),
        "user_id" | "sender" | "who" | "reader" | "reporter" | "state_key" | "target_user_id"
        | "signer_user_id" => Text("@u1"),
        "room_id" => Text("!r1:x"),
        "device_id" | "target_key" => Text("D1"),
        "event_id" | "relates_to" | "root" => Text("$e1"),
        "server_name" => Text("s1"),
        "media_id" | "message_id" => Text("m1"),
        "alias" => Text("#a1"),
        "object" => Text("o1"),
        "algorithm" => Text("signed_curve25519"),
        "key_id" => Text("k2"),
        "usage" => Text("master"),
        "scope" => Text("send"),
        "transaction_id" => Text("x1"),
        "type" => Text("m.t"),
        "field" => Text("displayname"),
        "target" => Text("$z1"),
        "membership" => Text("join"),
        "relation" => Text("m.thread"),
        "json" => Text("{1}"),
        "kind" => Text("k1"),
        "destination" => Text("d1"),
        "outcome" => Int(2),
        "name" => Text("reader1"),
        "service" => Text("service1"),
        "building" | "id" | "job" | "run" | "shard" | "fencing" | "paused" | "draining" | "load"
        | "failures" | "beat" | "room" | "nid" | "filter_id" | "published" | "admin" | "own"
        | "connection" | "config" | "credentials" | "version" | "readable_by" | "leaving" | "uploads"
        | "answer" | "held" => Int(1),
        "position"
        | "place"
        | "used_at"
        | "last_seen_at"
        | "from_position"
        | "to_position"
        | "created_at"
        | "committed_at"
        | "first"
        | "commit_id"
        | "expires_at"
        | "size"
        | "bytes"
        | "items"
        | "uses_allowed"
        | "sequence"
        | "joined"
        | "erased_at"
        | "due_at"
        | "records"
        | "updated_at"
        | "set_aside_at"
        | "since"
        | "etag"
        | "keys"
        | "first_message_index"
        | "forwarded_count"
        | "is_verified"
        | "generation"
        | "nonce"
        | "previous_nonce"
        | "changed_at"
        | "sent_until"
        | "polled_at"
        | "pace_ms"
        | "reported_at"
        | "begun_after"
        | "up_to" => Int(5),
        "entries" | "body" => Bytes(b"x"),
        _ => Text("x"),
    }
}

/// A set that is compared with a column.
fn set_of(column: &str) -> Value {
    match column {
        "nid" | "position" | "event" | "edit" | "rowid" => Ints(&[1, 2, 3, 4, 5]),
        "room" => Ints(&[1, 2, 3]),
        "id" => Ints(&[21, 22, 23]),
        "connection" => Ints(&[1, 2]),
        "run" => Ints(&[1, 2]),
        "kind" => Texts(&["k1"]),
        "user_id" | "sender" => Texts(&["@u1", "@u2", "@u3"]),
        "room_id" => Texts(&["!r1:x", "!r2:x"]),
        "event_id" | "relates_to" | "root" => Texts(&["$e1", "$e2", "$e3"]),
        "target" => Texts(&["$z1", "$z2"]),
        "device_id" | "target_key" => Texts(&["D1", "D2"]),
        "server_name" => Texts(&["s1", "s2"]),
        "who" => Texts(&["", "@u1"]),
        "membership" => Texts(&["join", "invite"]),
        "name" => Texts(&["lease1", "lease2"]),
        "message_id" => Texts(&["m1", "m2"]),
        "object" => Texts(&["o1", "o2"]),
        "target_user_id" => Texts(&["@u1"]),
        _ => panic!("say what a set of {column} is"),
    }
}

/// What is stored in a column, a key that no row has.
fn fresh(sql: &str, column: &str) -> Value {
    // The one column that is a number in one table and a text in the other.
    if column == "version" && sql.contains("INTO rooms") {
        return Text("x");
    }
    match of(column) {
        Int(_) => Int(1_000_000_000),
        Bytes(_) => Bytes(b"fresh"),
        _ => Text("fresh"),
    }
}

/// The values of a statement, in order.
pub(super) fn values(sql: &str) -> Vec<Value> {
    let words = words(sql);
    let mut number = 1;
    let mut values = Vec::new();
    while words.contains(&format!("${number}")) {
        values.push(value(sql, &words, number));
        number += 1;
    }
    values
}

fn value(sql: &str, words: &[String], number: usize) -> Value {
    let explicit = BY_STATEMENT
        .iter()
        .find(|(part, of, _)| *of == number && sql.contains(part));
    if let Some((_, _, value)) = explicit {
        return *value;
    }
    let placeholder = format!("${number}");
    let places = words.iter().enumerate().filter(|(_, word)| **word == placeholder);
    let found = places.filter_map(|(at, _)| by_place(sql, words, at));
    let found: Vec<Value> = found.collect();
    let first = found.first();
    *first.unwrap_or_else(|| panic!("say what ${number} is in BY_STATEMENT: {sql}"))
}

/// The value of the placeholder at a place, by the words before it.
fn by_place(sql: &str, words: &[String], at: usize) -> Option<Value> {
    let before = |n: usize| {
        at.checked_sub(n)
            .and_then(|at| words.get(at))
            .map_or("", String::as_str)
    };
    match before(1) {
        "LIMIT" => return Some(Int(20)),
        "OFFSET" => return Some(Int(5)),
        "(" if before(2) == "ANY" => return Some(set_of(column(words, at - 3)?)),
        _ => {}
    }
    match before(1) {
        "=" | "<>" if sql.starts_with("UPDATE rooms") && column(words, at - 1) == Some("version") => {
            Some(Text("x"))
        }
        "=" | "<>" => Some(of(column(words, at - 1)?)),
        ">" | ">=" => Some(Int(0)),
        "<" | "<=" => Some(Int(LARGE)),
        _ => Some(fresh(sql, inserted(words, at)?)),
    }
}

/// The column that is compared by the operator at a place: before it, past `|| ''` or `+ 0`.
fn column(words: &[String], operator: usize) -> Option<&str> {
    let mut at = operator.checked_sub(1)?;
    if at >= 2 && matches!(words.get(at - 1).map(String::as_str), Some("||" | "+")) {
        at -= 2;
    }
    words.get(at)?.rsplit('.').next()
}

/// The column that a placeholder at a place among `VALUES` is stored in.
fn inserted(words: &[String], at: usize) -> Option<&str> {
    let values = words.iter().position(|word| word == "VALUES")?;
    let open = words.iter().position(|word| word == "(")?;
    let commas = |range: &[String]| range.iter().filter(|word| *word == ",").count();
    let nth = commas(words.get(values..at)?);
    let columns = words.get(open + 1..values)?;
    columns
        .split(|word| word == ",")
        .nth(nth)?
        .first()
        .map(String::as_str)
}

/// Splits SQL into names, placeholders, operators and single marks.
fn words(sql: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let kind = |c: char| match c {
        c if c.is_alphanumeric() || matches!(c, '_' | '.' | '$' | '#' | '@' | '\'') => 1,
        '<' | '>' | '=' | '|' => 2,
        _ => 0,
    };
    let mut last = ' ';
    for c in sql.chars() {
        if c.is_whitespace() {
            last = ' ';
            continue;
        }
        match words.last_mut() {
            Some(word) if kind(c) > 0 && kind(c) == kind(last) => word.push(c),
            _ => words.push(c.to_string()),
        }
        last = c;
    }
    words
}
