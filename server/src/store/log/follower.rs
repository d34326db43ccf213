//! Commits of other nodes, as this process hears of them.

use futures_util::future::BoxFuture;

use super::{Committed, LogPage};
use crate::store::StoreError;

/// Keeps what is in memory current with what other nodes commit. Called by the log's writer, in log order, between this
/// process's own commits: a page is followed before anything is committed after it.
pub trait Follower: Send + Sync + std::fmt::Debug {
    /// Another node has committed this. Reads what it needs; called again with the same page when it fails.
    fn follow<'f>(&'f self, page: &'f LogPage) -> BoxFuture<'f, Result<(), StoreError>>;
}

/// Something in memory that mirrors what is stored. Whoever writes keeps its own mirrors current; of other nodes' writes they
/// hear by this, before the log's position here moves past them.
pub trait Mirror: Send + Sync + std::fmt::Debug {
    /// Another node has committed these records.
    fn follow<'f>(&'f self, records: &'f [Committed]) -> BoxFuture<'f, Result<(), StoreError>>;
}
