//! What a reader does in the transaction that moves its cursor.

use std::fmt;

use futures_util::future::BoxFuture;

use crate::store::StoreError;
use crate::store::appservices::Accepted;
use crate::store::engine::Connection;
use crate::store::jobs::NewJob;
use crate::store::jobs::enqueue::enqueue;
use crate::store::log::Record;
use crate::store::search::IndexChange;

/// Statements of a reader's page.
pub(super) type Statements =
    Box<dyn for<'c> FnOnce(&'c mut Connection) -> BoxFuture<'c, Result<(), StoreError>> + Send>;

/// What is stored together with a cursor: all of it, or the cursor stays where it is.
#[derive(Default)]
pub struct Effects {
    pub(super) records: Vec<Record>,
    pub(super) statements: Vec<Statements>,
}

impl Effects {
    /// Nothing: there was nothing to do, or it was done elsewhere in a way that a second time does not change.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Records of the log.
    #[must_use]
    pub fn records(records: Vec<Record>) -> Self {
        Self {
            records,
            statements: Vec::new(),
        }
    }

    /// These and durable jobs, but for those that are there by their keys. Who stores them wakes whoever runs jobs
    /// ([`JobTables::wake`](crate::store::jobs::JobTables::wake)).
    #[must_use]
    pub fn and_jobs(mut self, jobs: Vec<NewJob>) -> Self {
        if !jobs.is_empty() {
            let made: Statements = Box::new(move |connection| Box::pin(enqueue(connection, jobs)));
            self.statements.push(made);
        }
        self
    }

    /// These and a change of the index of full-text search.
    #[must_use]
    pub fn and_index(mut self, change: IndexChange) -> Self {
        if !change.is_empty() {
            let made: Statements = Box::new(move |connection| Box::pin(change.apply(connection)));
            self.statements.push(made);
        }
        self
    }

    /// These, and that an application service has accepted a transaction, with messages to its devices in it.
    #[must_use]
    pub fn and_accepted(mut self, accepted: Accepted) -> Self {
        if !accepted.is_empty() {
            let made: Statements = Box::new(move |connection| Box::pin(accepted.apply(connection)));
            self.statements.push(made);
        }
        self
    }

    /// Whether there is nothing to store.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.records.is_empty() && self.statements.is_empty()
    }
}

impl fmt::Debug for Effects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (records, statements) = (self.records.len(), self.statements.len());
        write!(f, "Effects({records} records, {statements} statements)")
    }
}
