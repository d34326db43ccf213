//! Every file says what it is, long ones why they are long, and none where it was written.

use std::process::Command;

use super::source::{report, rust, top};

/// Lines that a file may have without giving a reason.
const LINES: usize = 500;

#[test]
fn every_file_says_what_it_is() {
    let silent = [
        "server/src",
        "protocol/src",
        "federation/src",
        "federation/tests",
        "tests/src",
        "tests/tests",
    ]
    .into_iter()
    .flat_map(rust);
    let silent = silent.filter(|source| source.header().is_empty() && !source.path.ends_with("/tests.rs"));
    report(
        &silent
            .map(|source| format!("{} has no header", source.path))
            .collect::<Vec<_>>(),
    );
}

#[test]
fn long_files_say_why() {
    let all = [
        "server/src",
        "protocol/src",
        "federation/src",
        "federation/tests",
        "tests/src",
        "tests/tests",
        "tests/load/src",
    ];
    let long = all
        .into_iter()
        .flat_map(rust)
        .filter(|source| source.text.lines().count() > LINES);
    let silent = long.filter(|source| !source.header().contains(&format!("{LINES} lines")));
    report(
        &silent
            .map(|source| format!("{} has over {LINES} lines and no reason", source.path))
            .collect::<Vec<_>>(),
    );
}

#[test]
fn no_file_names_a_machine() {
    // Put together here, so that this file is no finding.
    let places = ["work/", "root/", "home/"].map(|place| format!("/{place}"));
    let listed = Command::new("git")
        .args(["ls-files", "-z"])
        .current_dir(top())
        .output()
        .unwrap();
    let files = String::from_utf8(listed.stdout).unwrap();
    let mut findings = Vec::new();
    for file in files.split('\0').filter(|file| !file.is_empty()) {
        let Ok(text) = std::fs::read_to_string(top().join(file)) else {
            continue;
        };
        for (number, line) in text.lines().enumerate() {
            for place in &places {
                let begins_there =
                    |at: usize| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '.' || c == '}');
                if line.match_indices(place.as_str()).any(|(at, _)| begins_there(at)) {
                    findings.push(format!("{file}:{} names {place}", number + 1));
                }
            }
        }
    }
    report(&findings);
}
