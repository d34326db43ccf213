//! Every path that a page or a comment names exists.

use std::fs;
use std::path::{Path, PathBuf};

use super::source::{report, rust, top};

/// What the names of files end with that pages speak of.
const ENDINGS: &[&str] = &[".rs", ".md", ".sql", ".toml", ".json", ".mjs", ".py"];

/// Where a path in a page may begin: at the top, in the program's sources, or beside the page.
const BEGINNINGS: &[&str] = &["", "server/src", "spec"];

/// The pages whose paths are held.
fn pages() -> Vec<PathBuf> {
    let mut pages = vec![top().join("README.md"), top().join("CONTRIBUTING.md")];
    let folder = |folder: &str| fs::read_dir(top().join(folder)).unwrap();
    pages.extend(folder("spec").map(|entry| entry.unwrap().path()));
    pages.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    pages.sort();
    pages
}

/// The words of a line that are paths: with a slash inside, and the ending of a file or a slash at the end. Those that
/// begin with a slash are HTTP's, and what stands in an address is no path either.
fn paths(line: &str) -> Vec<String> {
    let is_path = |c: char| c.is_ascii_alphanumeric() || "_-./{},:…*<>".contains(c);
    let tokens = line.split(|c: char| !is_path(c));
    let tokens = tokens.map(|token| token.trim_end_matches(['.', ',', ':']));
    tokens
        .filter(|token| !token.starts_with(['/', '.', '-']) && !token.contains([':', '…', '*', '<', '>']))
        .filter(|token| token.contains('/'))
        .filter(|token| ENDINGS.iter().any(|ending| token.ends_with(ending)) || begins_at_the_top(token))
        .flat_map(spelled_out)
        .collect()
}

fn begins_at_the_top(token: &str) -> bool {
    let first = token.split('/').next().unwrap_or_default();
    ["federation", "protocol", "server", "spec", "tests"].contains(&first)
}

/// `a/{b,c}.rs` is `a/b.rs` and `a/c.rs`.
fn spelled_out(token: &str) -> Vec<String> {
    let Some((before, (within, after))) = token
        .split_once('{')
        .and_then(|(before, rest)| Some((before, rest.split_once('}')?)))
    else {
        return vec![token.to_owned()];
    };
    let all = within.split(',');
    all.map(|one| format!("{before}{one}{after}")).collect()
}

fn exists(path: &str) -> bool {
    BEGINNINGS
        .iter()
        .any(|beginning| top().join(beginning).join(path).exists())
}

#[test]
fn every_path_in_a_page_exists() {
    let mut findings = Vec::new();
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap_or_default();
        let name = page.strip_prefix(top()).unwrap_or(Path::new("")).display();
        for (number, line) in text.lines().enumerate() {
            let gone = paths(line).into_iter().filter(|path| !exists(path));
            findings.extend(gone.map(|path| format!("{name}:{}: there is no {path}", number + 1)));
        }
    }
    report(&findings);
}

#[test]
fn every_path_in_a_comment_exists() {
    let mut findings = Vec::new();
    for source in ["protocol", "federation", "server", "tests"]
        .into_iter()
        .flat_map(rust)
    {
        for (number, line) in source.text.lines().enumerate() {
            if !line.trim_start().starts_with("//") {
                continue;
            }
            let quoted = line.split('`').skip(1).step_by(2);
            let named = quoted.filter(|text| begins_at_the_top(text)).flat_map(paths);
            let gone = named.filter(|path| !exists(path));
            findings.extend(gone.map(|path| format!("{}:{}: there is no {path}", source.path, number + 1)));
        }
    }
    report(&findings);
}

#[test]
fn a_path_is_told_from_what_is_none() {
    let line = "`a/{b,c}.rs`, GET /x/y.json, https://a.example/b.md, and/or, `server/src/`, b.rs, `rooms/*.rs`: x/y.md.";
    assert_eq!(paths(line), ["a/b.rs", "a/c.rs", "server/src/", "x/y.md"]);
}
