//! `spec/limits.md` and the code agree: every budget, what every writing endpoint spends, and every constant that is a
//! limit.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;

use maru::config::{Config, Node};
use maru::limits::amounts::AMOUNTS;
use maru::limits::spending::{ENDPOINTS, FRAMES};
use maru::limits::{Budget, Rates};

use super::source::{Source, report, rust, top};

const HEAD: &str = "# Limits

Whoever makes a server keep, compute or send something has a budget for it. What goes over is refused to the one who
did it, visibly, and never taken from somebody else. A test holds this page against the code, where the rows stand in
`server/src/limits/`; `MARU_WRITE_PAGES=1 cargo test -p maru-tests limits` writes it.
";

/// Numbers among the constants of the code that limit nothing: formats, codes, markers and places.
const NO_LIMITS: &[&str] = &[
    "ADMIN",
    "ALLOWED",
    "BIT_STRING",
    "CHALLENGE",
    "CLAIM_LOCK",
    "CUT",
    "DAY_MS",
    "DENIED",
    "EVENT_BITS",
    "FORMAT",
    "GENERALIZED_TIME",
    "GLOBAL",
    "HEAD",
    "IN_HAND",
    "JPEG_QUALITY",
    "KEY_FIELD",
    "LAST_MS",
    "LEFT",
    "LENGTH_BYTES",
    "NOT_YET",
    "NOW",
    "OPEN_TO_OTHERS",
    "OVERHEAD",
    "PROTOCOL_VIOLATED",
    "READABLE_BY",
    "RUN_ENDED",
    "SEQUENCE",
    "SESSION_LOCK",
    "SET",
    "STOPPING",
    "STRETCH",
    "TOKEN_REVOKED",
    "TOMBSTONE",
    "USER_CODE",
    "UTC_TIME",
    "UTF8_STRING",
    "VERSION",
    "YEAR",
];

/// Types of constants that can be limits.
const NUMBERS: &[&str] = &[
    "usize", "u8", "u16", "u32", "u64", "i32", "i64", "f64", "Duration",
];

#[test]
fn the_page_lists_every_limit() {
    let page = [HEAD.to_owned(), rates(), amounts(), spending(), constants()].join("\n");
    let path = top().join("spec/limits.md");
    if std::env::var_os("MARU_WRITE_PAGES").is_some() {
        fs::write(&path, &page).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    let missing = page
        .lines()
        .filter(|line| !written.lines().any(|other| other == *line));
    let gone = written
        .lines()
        .filter(|line| !page.lines().any(|other| other == *line));
    let findings: Vec<_> = missing
        .map(|line| format!("missing in the page: {line}"))
        .chain(gone.map(|line| format!("not in the code: {line}")))
        .collect();
    report(&findings);
}

#[test]
fn every_endpoint_that_writes_spends_something() {
    let served = maru::http::endpoints();
    let writes = served
        .iter()
        .filter(|served| !["GET", "HEAD"].contains(&served.method.as_str()));
    let mut findings: Vec<_> = writes
        .filter(|served| served.spends.is_none())
        .map(|served| format!("{} {} is in no row of ENDPOINTS", served.method, served.path))
        .collect();
    let is_served = |row: &&maru::limits::spending::Spending| {
        let mut spent = served.iter().filter_map(|served| served.spends);
        spent.any(|spends| std::ptr::eq(spends, *row))
    };
    let stale = ENDPOINTS.iter().filter(|row| !is_served(row));
    findings.extend(stale.map(|row| format!("{} {} is not served", row.method, row.path)));
    report(&findings);
}

#[test]
fn every_amount_has_a_key_and_every_key_of_limits_a_row() {
    let known = values();
    let mut findings: Vec<_> = AMOUNTS
        .iter()
        .filter(|amount| !known.contains_key(amount.key))
        .map(|amount| format!("{} is no key", amount.key))
        .collect();
    let limits = known.keys().filter(|key| key.starts_with("limits."));
    let without = limits.filter(|key| !AMOUNTS.iter().any(|amount| amount.key == **key));
    findings.extend(without.map(|key| format!("{key} has no row among the amounts")));
    report(&findings);
}

/// The default and meaning of every key of the configuration.
fn values() -> BTreeMap<String, (String, String)> {
    let mut values = BTreeMap::new();
    Config::default().walk("", "", &mut |key| {
        let value = key.value.shown().map(|value| value.to_string());
        values.insert(key.path, (value.unwrap_or_default(), key.meaning));
    });
    values
}

fn rates() -> String {
    let mut text = "## How often\n\n\
        What goes over is answered 429 `M_LIMIT_EXCEEDED` with `Retry-After`, over a WebSocket with an `error` frame, and\n\
        changes nothing. The keys of a row are `rates.<name>.per_second` and `rates.<name>.burst`; `rate_limits = off` turns\n\
        all of them off. An address is an IPv4 address or an IPv6 network of 64 bits.\n\n\
        | name | what | by | a second | at once |\n| --- | --- | --- | --- | --- |\n"
        .to_owned();
    let defaults = Rates::default();
    for budget in Budget::ALL {
        let rate = defaults.of(budget);
        let (key, bounds, by) = (budget.key(), budget.bounds(), budget.by().words());
        let (per_second, burst) = (rate.per_second, rate.burst);
        writeln!(text, "| `{key}` | {bounds} | {by} | {per_second} | {burst} |").unwrap();
    }
    text
}

fn amounts() -> String {
    let mut text = "## How much\n\n\
        | key | what | by | default | beyond |\n| --- | --- | --- | --- | --- |\n"
        .to_owned();
    let known = values();
    for amount in AMOUNTS {
        let (default, meaning) = known.get(amount.key).cloned().unwrap_or_default();
        let (key, unit, by, beyond) = (amount.key, amount.unit, amount.by.words(), amount.beyond);
        writeln!(
            text,
            "| `{key}` | {meaning} | {by} | {default} {unit} | {beyond} |"
        )
        .unwrap();
    }
    text
}

fn spending() -> String {
    let named = |budgets: &[Budget]| {
        let names: Vec<_> = budgets
            .iter()
            .map(|budget| format!("`{}`", budget.key()))
            .collect();
        names.join(", ")
    };
    let mut text = "## What an endpoint spends\n\n\
        Every request spends the first, before its body is read; the second too, by what it says (an invitation, a\n\
        password to be judged). Paths stand without API and version. Whatever only reads spends nothing unless it is here.\n\n\
        | method | path | each request | by content |\n| --- | --- | --- | --- |\n"
        .to_owned();
    for row in ENDPOINTS {
        let (method, path, each, more) = (row.method, row.path, named(row.each), named(row.by_content));
        writeln!(text, "| {method} | `{path}` | {each} | {more} |").unwrap();
    }
    text.push_str("\nFrames of a WebSocket:\n\n| frame | spends |\n| --- | --- |\n");
    for (frame, budget) in FRAMES {
        writeln!(text, "| `{frame}` | {} |", named(&[*budget])).unwrap();
    }
    text
}

/// Every constant that is a number, with its value as it is written and the first sentence of what is said about it.
fn constants() -> String {
    let mut text = "## Constants\n\n\
        Sizes, counts and times that nobody configures, where they stand in the code. Those under `protocol/` are rules of\n\
        rooms or of the wire, which every homeserver must share.\n\n\
        | where | constant | value | what |\n| --- | --- | --- | --- |\n"
        .to_owned();
    let folders = ["server/src", "federation/src", "protocol/src"];
    let sources = folders.into_iter().flat_map(rust);
    for source in sources.filter(|source| !source.path.contains("/tests")) {
        for (name, value, meaning) in numbers(&source) {
            let path = &source.path;
            writeln!(text, "| `{path}` | `{name}` | `{value}` | {meaning} |").unwrap();
        }
    }
    text
}

fn numbers(source: &Source) -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    let mut comment = String::new();
    for line in source.lines().map(|(_, line)| line.trim()) {
        if let Some(said) = line.strip_prefix("///") {
            comment.push_str(said);
            continue;
        }
        if let Some((name, value)) = number(line) {
            let sentence = comment.trim().split(". ").next().unwrap_or_default();
            let sentence = sentence.trim_end_matches('.').replace('|', "\\|");
            found.push((name.to_owned(), value.to_owned(), sentence));
        }
        if !line.starts_with("#[") {
            comment.clear();
        }
    }
    found
}

/// Name and value, when a line defines a constant that may be a limit.
fn number(line: &str) -> Option<(&str, &str)> {
    let (visibility, rest) = line.split_once("const ")?;
    if !visibility.is_empty() && !visibility.starts_with("pub") {
        return None;
    }
    let (name, rest) = rest.split_once(": ")?;
    let (kind, value) = rest.split_once(" = ")?;
    let is_limit = NUMBERS.contains(&kind) && !NO_LIMITS.contains(&name);
    is_limit.then(|| (name, value.trim_end_matches(';')))
}
