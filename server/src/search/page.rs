//! Where the next page of results begins, as the text that clients carry.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use maru_protocol::cursor::TokenError;
use maru_protocol::state::EventNid;
use serde::{Deserialize, Serialize};

use crate::store::search::DocumentKey;

/// Longest text of a page, in bytes.
const LONGEST: usize = 1_024;

/// In which order results come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// The newest first.
    #[serde(rename = "t")]
    Recent,
    /// The best first: of so many of the newest, and then of those before them.
    #[serde(rename = "r")]
    Rank,
}

/// What results have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Group {
    /// The room, by its id.
    #[serde(rename = "r")]
    Room(String),
    /// The sender, by the user id.
    #[serde(rename = "s")]
    Sender(String),
}

/// A page of results, after others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// In which order they come.
    pub order: Order,
    /// Among the documents before this one.
    pub before: Option<DocumentKey>,
    /// By rank: the last document of those that are ranked together, and whether there are none before it.
    pub ranked: Option<(DocumentKey, bool)>,
    /// By rank: how many of those come on earlier pages.
    pub skip: usize,
    /// How many results there are before those.
    pub count: u64,
    /// Only of this group.
    pub group: Option<Group>,
}

impl Page {
    /// The first page.
    #[must_use]
    pub fn first(order: Order) -> Self {
        Self {
            order,
            before: None,
            ranked: None,
            skip: 0,
            count: 0,
            group: None,
        }
    }
}

/// The numbers of a document's key.
type Key = (i64, i64);

/// A page as it is written.
#[derive(Serialize, Deserialize)]
struct Written {
    o: Order,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    b: Option<Key>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    r: Option<(Key, bool)>,
    #[serde(default)]
    s: usize,
    #[serde(default)]
    c: u64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    g: Option<Group>,
}

fn numbers(key: DocumentKey) -> Key {
    let (sent_at, event) = key.parts();
    (sent_at, event.0)
}

fn key((sent_at, event): Key) -> DocumentKey {
    DocumentKey::from_parts(sent_at, EventNid(event))
}

impl fmt::Display for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let written = Written {
            o: self.order,
            b: self.before.map(numbers),
            r: self.ranked.map(|(last, is_all)| (numbers(last), is_all)),
            s: self.skip,
            c: self.count,
            g: self.group.clone(),
        };
        let json = serde_json::to_vec(&written).map_err(|_| fmt::Error)?;
        f.write_str(&URL_SAFE_NO_PAD.encode(json))
    }
}

impl FromStr for Page {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        if text.len() > LONGEST {
            return Err(TokenError::Malformed);
        }
        let json = URL_SAFE_NO_PAD.decode(text).map_err(|_| TokenError::Malformed)?;
        let written: Written = serde_json::from_slice(&json).map_err(|_| TokenError::Malformed)?;
        Ok(Self {
            order: written.o,
            before: written.b.map(key),
            ranked: written.r.map(|(last, is_all)| (key(last), is_all)),
            skip: written.s,
            count: written.c,
            group: written.g,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read_as_it_was_written() {
        let first = Page::first(Order::Recent);
        let key = DocumentKey::new(1_700_000_000_000, EventNid(7 << 40));
        let later = Page {
            order: Order::Rank,
            before: Some(key),
            ranked: Some((key, true)),
            skip: 20,
            count: 1000,
            group: Some(Group::Sender("@a:b".to_owned())),
        };
        for page in [first, later] {
            assert_eq!(page.to_string().parse(), Ok(page));
        }
        for text in ["", "t5", "e30", "!!", &"A".repeat(5000)] {
            assert!(text.parse::<Page>().is_err(), "{text}");
        }
    }
}
