//! What a layer may not know.

use super::source::{names, report, rust};

/// Finds names in a folder, outside the parts of it that may use them.
fn forbidden(folder: &str, allowed: &[&str], forbidden: &[&str]) -> Vec<String> {
    let found = named(folder, allowed, forbidden);
    found.into_iter().map(|(finding, _, _)| finding).collect()
}

/// As [`forbidden`], each finding with the name and the line.
fn named<'n>(folder: &str, allowed: &[&str], forbidden: &[&'n str]) -> Vec<(String, &'n str, String)> {
    let mut findings = Vec::new();
    for source in rust(folder) {
        if allowed.iter().any(|allowed| source.path.starts_with(allowed))
            || source.path.ends_with("/tests.rs")
        {
            continue;
        }
        for (number, line) in source.code() {
            for name in forbidden.iter().filter(|name| names(&line, name)) {
                let finding = format!("{}:{number} names {name}", source.path);
                findings.push((finding, *name, line.clone()));
            }
        }
    }
    findings
}

#[test]
fn sql_is_under_store_only() {
    let sql = [
        "sqlx",
        "SELECT",
        "INSERT INTO",
        "DELETE FROM",
        "CREATE TABLE",
        "UPDATE",
    ];
    report(&forbidden(
        "server/src",
        &["server/src/store/", "server/src/observe/logging.rs"],
        &sql,
    ));
}

#[test]
fn http_types_are_under_http_only() {
    let http = [
        "axum",
        "hyper",
        "hyper_util",
        "http",
        "http_body",
        "ruma::api",
        "tower",
    ];
    // Uses of our own module go by `crate::http` and are no finding: the name stands after a colon.
    let allowed = [
        "server/src/http/",
        "server/src/https_client/",
        "server/src/cli/",
        "server/src/lib.rs",
        "server/src/server.rs",
    ];
    // The word alone is no path: only what is followed by `::`, or imported, counts.
    let is_path =
        |name: &str, line: &str| line.contains(&format!("{name}::")) || line == format!("use {name};");
    let findings = named("server/src", &allowed, &http).into_iter();
    let used = findings.filter(|(_, name, line)| is_path(name, line));
    report(&used.map(|(finding, _, _)| finding).collect::<Vec<_>>());
}

/// Tasks that are spawned without supervision: where, and why.
const UNSUPERVISED: &[(&str, &str)] = &[
    (
        "server/src/store/log/writer.rs",
        "the writer's task ends when the log is closed, after all others",
    ),
    (
        "server/src/readers/mod.rs",
        "the readers end by themselves, in order, before the log is closed",
    ),
    (
        "server/src/store/log/mod.rs",
        "whoever listens for commits of other nodes ends with the log",
    ),
    (
        "server/src/nodes/mod.rs",
        "the task that beats ends when the node leaves, after all others",
    ),
    (
        "server/src/https_client/mod.rs",
        "a connection ends with the request that it is for",
    ),
    (
        "server/src/cli/serve.rs",
        "signals are heeded for as long as the process lives",
    ),
    (
        "server/src/cli/demo/mod.rs",
        "signals are heeded for as long as the process lives",
    ),
];

#[test]
fn tasks_are_supervised() {
    let places: Vec<_> = UNSUPERVISED.iter().map(|(place, _)| *place).collect();
    let spawned = named("server/src", &[], &["tokio::spawn"]);
    let found: Vec<_> = spawned.into_iter().map(|(finding, _, _)| finding).collect();
    let is_excused = |finding: &String| places.iter().any(|place| finding.starts_with(place));
    let mut findings: Vec<_> = found
        .iter()
        .filter(|finding| !is_excused(finding))
        .cloned()
        .collect();
    let stale = places
        .iter()
        .filter(|place| !found.iter().any(|finding| finding.starts_with(**place)));
    findings.extend(stale.map(|place| format!("{place} spawns nothing and needs no excuse")));
    report(&findings);
}

#[test]
fn the_protocol_and_the_peer_machine_are_pure() {
    let impure = [
        "tokio",
        "sqlx",
        "rand",
        "SystemTime",
        "Instant",
        "std::fs",
        "std::net",
        "std::thread",
        "std::env",
    ];
    let mut findings = forbidden("protocol/src", &[], &impure);
    findings.extend(forbidden("federation/src/peer", &[], &impure));
    report(&findings);
}
