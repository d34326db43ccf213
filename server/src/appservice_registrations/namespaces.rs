//! Namespaces: which users, aliases or rooms an application service has to do with.

use regex::{Regex, RegexBuilder};

/// Longest pattern, in characters.
pub(super) const PATTERN_CHARACTERS: usize = 1_000;

/// Most patterns of a kind.
pub(super) const PATTERNS: usize = 100;

/// Largest compiled pattern, in bytes.
const COMPILED_BYTES: usize = 1 << 20;

/// The names of a kind that an application service has to do with. Matching takes time linear in the name.
#[derive(Clone, Debug, Default)]
pub struct Namespaces(Vec<Namespace>);

/// The names that match a pattern.
#[derive(Clone, Debug)]
struct Namespace {
    pattern: Regex,
    /// Nobody else may have them.
    is_exclusive: bool,
}

impl Namespaces {
    /// Adds those that match a pattern from their beginning; to their end only where the pattern says so.
    ///
    /// # Errors
    /// What is wrong with the pattern.
    pub(super) fn add(&mut self, pattern: &str, is_exclusive: bool) -> Result<(), String> {
        if pattern.chars().count() > PATTERN_CHARACTERS {
            return Err(format!("a pattern has at most {PATTERN_CHARACTERS} characters"));
        }
        // Alone first: what does not stand by itself must not close the group around it.
        let compiled = |pattern: &str| {
            RegexBuilder::new(pattern)
                .size_limit(COMPILED_BYTES)
                .dfa_size_limit(COMPILED_BYTES)
                .build()
                .map_err(|error| match error {
                    regex::Error::CompiledTooBig(_) => "the pattern is too large".to_owned(),
                    error => one_line(&error.to_string()),
                })
        };
        compiled(pattern)?;
        let pattern = compiled(&format!("^(?:{pattern})"))?;
        self.0.push(Namespace {
            pattern,
            is_exclusive,
        });
        Ok(())
    }

    /// How many patterns there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is in them.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a name is in them.
    #[must_use]
    pub fn contain(&self, name: &str) -> bool {
        self.0.iter().any(|namespace| namespace.pattern.is_match(name))
    }

    /// Whether a name is in one that nobody else may have names of.
    #[must_use]
    pub fn contain_alone(&self, name: &str) -> bool {
        let mut exclusive = self.0.iter().filter(|namespace| namespace.is_exclusive);
        exclusive.any(|namespace| namespace.pattern.is_match(name))
    }
}

/// The last line of an error, which says what is wrong: those before draw where.
fn one_line(error: &str) -> String {
    let line = error.lines().last().unwrap_or_default();
    line.trim_start_matches("error: ").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespaces(pattern: &str, is_exclusive: bool) -> Namespaces {
        let mut namespaces = Namespaces::default();
        namespaces.add(pattern, is_exclusive).unwrap();
        namespaces
    }

    #[test]
    fn a_pattern_matches_from_the_beginning() {
        let bridge = namespaces(r"@irc_.*:example\.org", true);
        assert!(bridge.contain("@irc_ann:example.org"));
        assert!(!bridge.contain("@ann:example.org") && !bridge.contain("@@irc_ann:example.org"));
        // Bridges write patterns with and without the end of the name.
        assert!(namespaces("@irc_", false).contain("@irc_ann:example.org"));
        assert!(namespaces("^@bot:example\\.org$", false).contain("@bot:example.org"));
        let either = namespaces("@a_|@b_", false);
        assert!(either.contain("@b_x:y") && !either.contain("@c@b_x:y"));
    }

    #[test]
    fn only_exclusive_namespaces_are_somebodys_alone() {
        assert!(namespaces("@a_.*", true).contain_alone("@a_b:c"));
        let shared = namespaces("@.*", false);
        assert!(shared.contain("@a:b") && !shared.contain_alone("@a:b"));
    }

    #[test]
    fn patterns_that_cannot_be_used_are_refused_in_one_line() {
        for bad in [
            "(",
            "a)(b",
            "(?=a)",
            r"(a)\1",
            &"a".repeat(2_000),
            "[a-z]{9}{9}{9}{9}{9}{9}",
        ] {
            let why = Namespaces::default().add(bad, false).unwrap_err();
            assert!(!why.is_empty() && !why.contains('\n'), "{bad}: {why}");
        }
    }
}
