//! What a layer may not know.

use super::source::{names, report, rust};

/// Finds names in a folder, outside the parts of it that may use them.
fn forbidden(folder: &str, allowed: &[&str], forbidden: &[&str]) -> Vec<String> {
    let mut findings = Vec::new();
    for source in rust(folder) {
        if allowed.iter().any(|allowed| source.path.starts_with(allowed))
            || source.path.ends_with("/tests.rs")
        {
            continue;
        }
        for (number, line) in source.code() {
            for name in forbidden.iter().filter(|name| names(line, name)) {
                findings.push(format!("{}:{number} names {name}", source.path));
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
        "server/src/web/",
        "server/src/cli/",
        "server/src/lib.rs",
        "server/src/server.rs",
    ];
    let paths = http.map(|name| format!("{name}::"));
    let paths: Vec<_> = paths.iter().map(|path| path.trim_end_matches("::")).collect();
    let findings = forbidden("server/src", &allowed, &paths);
    // The word alone is no path: only what is followed by `::` counts.
    let used: Vec<_> = findings.into_iter().filter(|finding| is_path(finding)).collect();
    report(&used);
}

/// Whether the line of a finding uses the name as a path.
fn is_path(finding: &str) -> bool {
    let (place, name) = finding.split_once(" names ").unwrap();
    let (path, number) = place.rsplit_once(':').unwrap();
    let text = std::fs::read_to_string(super::source::top().join(path)).unwrap();
    let line = text.lines().nth(number.parse::<usize>().unwrap() - 1).unwrap();
    line.contains(&format!("{name}::")) || line.trim_start().starts_with(&format!("use {name};"))
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
