//! The source as the rules see it.

use std::fs;
use std::path::{Path, PathBuf};

/// One file of Rust.
pub(crate) struct Source {
    /// Its path from the top of the repository.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl Source {
    /// Its lines of code with their numbers: without comments and items for tests, and each `use` of several paths as
    /// one line a path.
    pub(crate) fn code(&self) -> Vec<(usize, String)> {
        let mut code = Vec::new();
        let mut lines = self
            .lines()
            .filter(|(_, line)| !line.trim_start().starts_with("//"));
        while let Some((number, line)) = lines.next() {
            let Some(at) = line.find("use ").filter(|at| is_visibility(&line[..*at])) else {
                code.push((number, line.to_owned()));
                continue;
            };
            let mut tree = line[at + "use ".len()..].trim().to_owned();
            while !tree.contains(';') {
                let Some((_, line)) = lines.next() else { break };
                tree.push_str(line.split("//").next().unwrap().trim());
                tree.push(' ');
            }
            let mut paths = Vec::new();
            flatten("", tree.split(';').next().unwrap(), &mut paths);
            code.extend(paths.into_iter().map(|path| (number, format!("use {path};"))));
        }
        code
    }

    /// Its lines with their numbers, without the items under `#[cfg(test)]`. An item ends as rustfmt ends it: with a
    /// line of its own indentation that closes it.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        // The indentation of the item that is left out.
        let mut skipped = None;
        let lines = self.text.lines().enumerate();
        lines.filter_map(move |(index, line)| {
            let indentation = line.len() - line.trim_start().len();
            if skipped.is_none() && line.trim() == "#[cfg(test)]" {
                skipped = Some(indentation);
                return None;
            }
            if let Some(of_item) = skipped {
                let is_part = line.trim_start().starts_with("#[") || line.trim_start().starts_with("//");
                let closes = line.ends_with([';', '}', ',']);
                if indentation == of_item && closes && !is_part {
                    skipped = None;
                }
                return None;
            }
            Some((index + 1, line))
        })
    }

    /// The comment at its top.
    pub(crate) fn header(&self) -> String {
        let lines = self.text.lines().take_while(|line| line.starts_with("//!"));
        lines.collect::<Vec<_>>().join(" ")
    }
}

/// Whether this is all that stands before an item: nothing, `pub` or `pub(…)`.
fn is_visibility(before: &str) -> bool {
    let before = before.trim();
    before.is_empty() || before == "pub" || before.starts_with("pub(") && before.ends_with(')')
}

/// The paths of a tree of `use`, each written out: `std::{fs, io::{self, Read}}` is three.
fn flatten(prefix: &str, tree: &str, paths: &mut Vec<String>) {
    let tree = tree.trim();
    let Some((head, group)) = tree.split_once('{') else {
        let path = format!("{prefix}{tree}");
        paths.push(path.strip_suffix("::self").unwrap_or(&path).to_owned());
        return;
    };
    let prefix = format!("{prefix}{}", head.trim());
    let group = group.trim_end().strip_suffix('}').unwrap();
    let mut depth = 0;
    let branches = group.split(|c| {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    });
    for branch in branches.filter(|branch| !branch.trim().is_empty()) {
        flatten(&prefix, branch, paths);
    }
}

#[test]
fn the_rules_see_what_follows_a_test_and_every_path_of_a_group() {
    let text = "\
        use std::{fs, io::{self, Read}};\n\
        #[cfg(test)]\n\
        mod tests {\n\
        \u{20}   use tokio::time;\n\
        }\n\
        pub(crate) use a::{\n\
        \u{20}   b, // why\n\
        \u{20}   c::d,\n\
        };\n\
        struct S {\n\
        \u{20}   #[cfg(test)]\n\
        \u{20}   field: u8,\n\
        \u{20}   // a comment\n\
        \u{20}   other: u8,\n\
        }\n";
    let source = Source {
        path: String::new(),
        text: text.to_owned(),
    };
    let code = source.code();
    let seen: Vec<_> = code
        .iter()
        .map(|(number, line)| (*number, line.as_str()))
        .collect();
    let expected = [
        (1, "use std::fs;"),
        (1, "use std::io;"),
        (1, "use std::io::Read;"),
        (6, "use a::b;"),
        (6, "use a::c::d;"),
        (10, "struct S {"),
        (14, "    other: u8,"),
        (15, "}"),
    ];
    assert_eq!(seen, expected);
}

/// The top of the repository.
pub(crate) fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// All Rust below a folder of the repository.
pub(crate) fn rust(folder: &str) -> Vec<Source> {
    let mut found = Vec::new();
    collect(&top().join(folder), &mut found);
    assert!(!found.is_empty(), "there is nothing in {folder}");
    found.sort_by(|one, other| one.path.cmp(&other.path));
    found
}

fn collect(folder: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if !path.ends_with("target") {
                collect(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(Source {
                path: path.strip_prefix(top()).unwrap().display().to_string(),
                text: fs::read_to_string(&path).unwrap(),
            });
        }
    }
}

/// Whether a line names something as a whole word, or the beginning of a path.
pub(crate) fn names(line: &str, name: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    line.match_indices(name).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + name.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(|c| c.is_alphanumeric() || c == '_')
    })
}

/// Fails with all findings at once.
pub(crate) fn report(findings: &[String]) {
    assert!(findings.is_empty(), "\n{}", findings.join("\n"));
}
