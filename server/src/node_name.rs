//! Names of nodes: the processes that share one PostgreSQL database.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Longest name, in bytes.
const LONGEST: usize = 64;

/// The name of a node: letters, digits, `-`, `_` and `.`, 64 at most. No two nodes of one name run at the same time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(String);

/// What is no name of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a node's name has 1 to {LONGEST} letters, digits, `-`, `_` or `.`")]
pub struct BadNodeName;

impl NodeName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for NodeName {
    /// The name of a node that is given none.
    fn default() -> Self {
        Self("main".to_owned())
    }
}

impl FromStr for NodeName {
    type Err = BadNodeName;

    fn from_str(text: &str) -> Result<Self, BadNodeName> {
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        match (1..=LONGEST).contains(&text.len()) && text.chars().all(is_allowed) {
            true => Ok(Self(text.to_owned())),
            false => Err(BadNodeName),
        }
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_plain() {
        for name in ["main", "eu-1", "node_2.example", &"n".repeat(64)] {
            assert_eq!(
                name.parse::<NodeName>().map(|name| name.to_string()),
                Ok(name.to_owned())
            );
        }
        for text in ["", "a b", "마루", "a/b", &"n".repeat(65)] {
            assert_eq!(text.parse::<NodeName>(), Err(BadNodeName), "{text:?}");
        }
    }
}
