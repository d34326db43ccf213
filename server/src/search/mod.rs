//! Full-text search in the rooms that a user has been in (client-server API, "Server Side Search").
//!
//! The index is kept by a named reader of the log and finds candidates; what is shown is decided by the events as they are
//! now: whether the user may see them, by the one visibility function, and whether their texts, as the user sees them, hold
//! what was looked for. So an index that is behind, or holds too much, never shows what it should not.
//!
//! | file | what |
//! |---|---|
//! | `analysis.rs` | what words and tokens are, and whether a text holds what somebody looks for |
//! | `document.rs` | what of an event is searched |
//! | `reader.rs` | the reader that keeps the index |
//! | `candidates.rs` | candidates of the index, looked at until enough is found or enough was looked at |
//! | `find.rs` | pages of results, by time or rank, and their groups |
//! | `page.rs` | where the next page begins |

pub mod analysis;
mod candidates;
mod document;
mod find;
mod page;
mod reader;

use std::sync::Arc;

use crate::rooms::Rooms;
use crate::store::Store;

pub use find::{Found, Grouped, Hit, Wish};
pub use page::{Group, Order, Page};
pub use reader::SearchReader;

/// The name of the reader, for good.
pub const NAME: &str = "search";

/// Most results on one page.
pub const MOST_RESULTS: usize = 100;

/// Full-text search.
#[derive(Debug)]
pub struct Search {
    store: Arc<Store>,
    rooms: Arc<Rooms>,
}

impl Search {
    /// A search in this store.
    #[must_use]
    pub fn new(store: Arc<Store>, rooms: Arc<Rooms>) -> Self {
        Self { store, rooms }
    }
}
