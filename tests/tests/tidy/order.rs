//! Domain modules call each other along one written order, never in a circle.

use std::collections::BTreeSet;

use super::source::{report, rust};

/// The order of `spec/architecture.md`: a module uses only those to its left.
const ORDER: &[&[&str]] = &[
    &["clock", "node_name"],
    &["limits"],
    &[
        "cache",
        "config",
        "data_folder",
        "fair_semaphore",
        "identity",
        "token_hash",
    ],
    &["observe", "https_client", "appservice_registrations"],
    &["tasks"],
    &["store"],
    &["nodes"],
    &["readers"],
    &["refusal"],
    &["jobs"],
    &["push"],
    &["rooms"],
    &["live"],
    &["ephemeral", "receipts", "account_data", "media"],
    &["accounts"],
    &["keys"],
    &["oauth"],
    &["sync"],
    &["search"],
    &["appservices"],
    &["peers"],
    &["moderation"],
    &["housekeeping"],
    &["backup", "server"],
    &["admin"],
    &["http"],
    &["cli"],
];

fn rank(module: &str) -> Option<usize> {
    ORDER.iter().position(|rank| rank.contains(&module))
}

#[test]
fn modules_use_only_what_stands_before_them() {
    let mut findings = BTreeSet::new();
    for source in rust("server/src") {
        let inner = source.path.strip_prefix("server/src/").unwrap();
        let module = inner.split(['/', '.']).next().unwrap();
        if ["lib", "main"].contains(&module) || source.path.ends_with("/tests.rs") {
            continue;
        }
        let Some(own) = rank(module) else {
            findings.insert(format!("{module} has no place in the order"));
            continue;
        };
        for (_, line) in source.code() {
            for used in line.split("crate::").skip(1) {
                let used = used
                    .split(|c: char| !c.is_alphanumeric() && c != '_')
                    .next()
                    .unwrap();
                if used != module && rank(used).is_some_and(|used| used >= own) {
                    findings.insert(format!("{module} uses {used} ({})", source.path));
                }
            }
        }
    }
    report(&findings.into_iter().collect::<Vec<_>>());
}
