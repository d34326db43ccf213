//! A term: the time for which this node leads. What it does only then ends with it.

use std::future::Future;

use futures_util::FutureExt;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::tasks::Tasks;

/// A term, until it is dropped.
#[derive(Debug)]
pub(in crate::peers) struct Term {
    end: CancellationToken,
    _ends: DropGuard,
}

impl Term {
    /// A term that begins now.
    pub(in crate::peers) fn begin() -> Self {
        let end = CancellationToken::new();
        Self {
            _ends: end.clone().drop_guard(),
            end,
        }
    }

    /// As [`Tasks::keep`], until the end of the term.
    pub(in crate::peers) fn keep<F>(
        &self,
        tasks: &Tasks,
        name: &'static str,
        begin: impl Fn() -> F + Send + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let end = self.end.clone();
        tasks.keep(name, move || {
            let work = begin();
            end.clone().run_until_cancelled_owned(work).map(drop)
        });
    }
}
