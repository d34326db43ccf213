//! The source as the rules see it.

use std::fs;
use std::path::{Path, PathBuf};

/// One file of Rust.
pub(super) struct Source {
    /// Its path from the top of the repository.
    pub(super) path: String,
    pub(super) text: String,
}

impl Source {
    /// Its lines of code with their numbers, comments cut off and tests at its end left out.
    pub(super) fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().take_while(|line| line.trim() != "#[cfg(test)]");
        lines.enumerate().map(|(n, line)| {
            let is_comment = line.trim_start().starts_with("//");
            (n + 1, if is_comment { "" } else { line })
        })
    }

    /// The comment at its top.
    pub(super) fn header(&self) -> String {
        let lines = self.text.lines().take_while(|line| line.starts_with("//!"));
        lines.collect::<Vec<_>>().join(" ")
    }
}

/// The top of the repository.
pub(super) fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// All Rust below a folder of the repository.
pub(super) fn rust(folder: &str) -> Vec<Source> {
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
pub(super) fn names(line: &str, name: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    line.match_indices(name).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + name.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(|c| c.is_alphanumeric() || c == '_')
    })
}

/// Fails with all findings at once.
pub(super) fn report(findings: &[String]) {
    assert!(findings.is_empty(), "\n{}", findings.join("\n"));
}
