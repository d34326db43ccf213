//! Commits of other nodes, as this process hears of them.

use futures_util::future::BoxFuture;

use super::LogPage;
use crate::store::StoreError;

/// Keeps what is in memory current with what other nodes commit. Called by the log's writer, in log order, between this
/// process's own commits: a page is followed before anything is committed after it.
pub trait Follower: Send + Sync + std::fmt::Debug {
    /// Another node has committed this. Reads what it needs; called again with the same page when it fails.
    fn follow<'f>(&'f self, page: &'f LogPage) -> BoxFuture<'f, Result<(), StoreError>>;
}
