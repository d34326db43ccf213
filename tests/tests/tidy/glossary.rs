//! `spec/glossary.md` and the code agree: every word in the name of a module, a table or a metric is on the page.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use super::source::{report, rust, top};

/// Where modules have names that readers look for.
const FOLDERS: &[&str] = &[
    "protocol/src",
    "federation/src",
    "server/src",
    "tests/simulation/src",
];

/// The heading above the words that need no explanation.
const PLAIN: &str = "## Plain words";

/// The words of a text, in small letters.
fn words(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric());
    words
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect()
}

/// What the page explains (set in bold), and its plain words.
fn glossary() -> (BTreeSet<String>, BTreeSet<String>) {
    let page = fs::read_to_string(top().join("spec/glossary.md")).unwrap();
    let (terms, plain) = page.split_once(PLAIN).expect("the page has plain words");
    let explained = terms.split("**").skip(1).step_by(2).flat_map(words).collect();
    let (_, plain) = plain.trim_start().split_once("\n\n").expect("a list");
    (explained, words(plain))
}

/// A word as it stands, and what it may be the plural of.
fn forms(word: &str) -> impl Iterator<Item = String> {
    let without = |end: &str| word.strip_suffix(end).map(str::to_owned);
    [Some(word.to_owned()), without("s"), without("es")]
        .into_iter()
        .chain([without("ies").map(|stem| format!("{stem}y"))])
        .flatten()
}

/// The names in a text that follow something, up to the end of the name.
fn names_after<'a>(text: &'a str, before: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(before).skip(1).map(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_lowercase() && c != '_');
        &rest[..end.unwrap_or(rest.len())]
    })
}

/// Every word of a name, with the first place where it is used.
fn used() -> BTreeMap<String, String> {
    let mut used = BTreeMap::new();
    let mut name = |name: &str, place: &str| {
        for word in words(name) {
            used.entry(word).or_insert_with(|| place.to_owned());
        }
    };
    for folder in FOLDERS {
        for source in rust(folder) {
            let inner = source.path.strip_prefix(folder).unwrap().trim_end_matches(".rs");
            name(inner, &source.path);
            names_after(&source.text, "\"maru_").for_each(|metric| name(metric, &source.path));
        }
    }
    for file in fs::read_dir(top().join("server/migrations")).unwrap() {
        let path = file.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        names_after(&text, "CREATE TABLE ").for_each(|table| name(table, &path.display().to_string()));
    }
    used
}

#[test]
fn every_name_is_made_of_words_that_are_explained_or_plain() {
    let (explained, plain) = glossary();
    let used = used();
    let is_known = |word: &str| forms(word).any(|form| explained.contains(&form) || plain.contains(&form));
    let unknown = used.iter().filter(|(word, _)| !is_known(word));
    let mut findings: Vec<_> = unknown
        .map(|(word, place)| {
            format!("{word} ({place}) is not in spec/glossary.md: explain it, or use a word that is")
        })
        .collect();
    let both = plain.iter().filter(|word| explained.contains(*word));
    findings.extend(both.map(|word| format!("{word} is explained, and plain as well")));
    report(&findings);
}
