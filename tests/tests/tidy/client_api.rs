//! `spec/client-api.md` and the code agree on which endpoints of the specification are served.

use std::collections::BTreeSet;
use std::fs;

use super::source::{report, top};

/// A path with all its variables alike, whatever they are called, and a brace at its end.
fn nameless(path: &str) -> String {
    let mut plain = String::new();
    for (at, part) in path.split('{').enumerate() {
        plain.push_str(if at == 0 {
            part
        } else {
            part.split_once('}').map_or(part, |(_, rest)| rest)
        });
        plain.push('{');
    }
    plain
}

/// Method, path and what is said of an endpoint by a line of the page.
fn row(line: &str) -> Option<[&str; 4]> {
    let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
    let [method, path, served, remark] = cells[..] else {
        return None;
    };
    let path = path.strip_prefix('`')?.strip_suffix('`')?;
    Some([method, path, served, remark])
}

#[test]
fn the_page_says_what_is_served_of_the_specification() {
    let served: BTreeSet<_> = maru::http::endpoints()
        .iter()
        .map(|served| (served.method.to_string(), nameless(served.path)))
        .collect();
    let path = top().join("spec/client-api.md");
    let mut page = fs::read_to_string(&path).unwrap();
    let is_served = |method: &str, path: &str| served.contains(&(method.to_owned(), nameless(path)));
    if std::env::var_os("MARU_WRITE_PAGES").is_some() {
        let rewritten = page.lines().map(|line| match row(line) {
            Some([method, path, _, remark]) => {
                let served = if is_served(method, path) { "yes" } else { "no" };
                format!("| {method} | `{path}` | {served} | {remark} |").replace(" |  |", " | |")
            }
            None => line.to_owned(),
        });
        page = rewritten.map(|line| line + "\n").collect();
        fs::write(&path, &page).unwrap();
    }
    let rows: Vec<_> = page.lines().filter_map(row).collect();
    let wrong = rows
        .iter()
        .filter(|[method, path, said, _]| *said != if is_served(method, path) { "yes" } else { "no" });
    let mut findings: Vec<_> = wrong
        .map(|row| format!("the page is wrong about {row:?}"))
        .collect();
    let listed: BTreeSet<_> = rows
        .iter()
        .map(|[method, path, ..]| ((*method).to_owned(), nameless(path)))
        .collect();
    let of_specification = |path: &str| {
        let versions = [
            "/_matrix/client/v1/",
            "/_matrix/client/v3/",
            "/_matrix/client/v4/",
            "/_matrix/media/v",
        ];
        versions.iter().any(|version| path.starts_with(version)) && !path.ends_with("/{")
    };
    let unlisted = served.iter().filter(|(_, path)| of_specification(path));
    let unlisted = unlisted.filter(|endpoint| !listed.contains(*endpoint));
    findings.extend(unlisted.map(|(method, path)| format!("missing in the page: {method} {path}")));
    report(&findings);
}
