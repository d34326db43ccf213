//! Transactions beside the log: they write no record and take no position, so that nobody who follows the log hears of
//! them. Leases, cursors of readers and jobs are kept by these.
//!
//! SQLite has one writer: there such a transaction waits its turn among the log's commits. On PostgreSQL it has one of a few
//! connections of its own and never waits for the log's counter.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::writer::{Running, Writer};
use crate::store::StoreError;
use crate::store::engine::writer_connection::{answered, rolled_back};
use crate::store::engine::{Address, Connection};

/// Connections to PostgreSQL for these transactions.
const CONNECTIONS: u32 = 4;

/// How long a transaction waits for one of them.
const PATIENCE: Duration = Duration::from_secs(5);

/// What PostgreSQL is told of such a session, in milliseconds: nobody waits longer for a row that somebody else has changed,
/// and a process that stands still in the middle of a transaction loses it, with the rows that it holds up.
const SESSION: &str = "SET lock_timeout = 3000; SET idle_in_transaction_session_timeout = 3000";

/// An open transaction beside the log.
#[derive(Debug)]
pub(in crate::store) struct UnloggedTransaction {
    pub(in crate::store) connection: Connection,
}

/// What is done in such a transaction.
pub(super) type Task = Box<dyn for<'t> FnOnce(&'t mut UnloggedTransaction) -> Running<'t> + Send>;

/// A transaction for the log's writer to run in its turn, and who waits for it.
pub(in crate::store) struct InTurn {
    task: Task,
    answer: oneshot::Sender<Result<(), StoreError>>,
}

/// Where these transactions run.
#[derive(Debug)]
pub(in crate::store) enum Unlogged {
    /// On the writer's connection, in turn with the log's commits.
    InTurn,
    /// On connections of their own.
    Beside(Connections),
}

/// A few connections, made when they are needed and used again.
#[derive(Debug)]
pub(in crate::store) struct Connections {
    address: Address,
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<Connection>>,
}

impl Unlogged {
    /// Transactions on this database. Nothing is connected yet.
    pub(in crate::store) fn new(address: &Address) -> Self {
        match address {
            Address::Sqlite(_) => Self::InTurn,
            Address::Postgres(_) => Self::Beside(Connections {
                address: address.clone(),
                permits: Arc::new(Semaphore::new(CONNECTIONS as usize)),
                idle: Mutex::default(),
            }),
        }
    }

    /// Runs a task in a transaction; nothing of it is stored when it fails.
    pub(super) async fn run(&self, writer: &Writer, task: Task) -> Result<(), StoreError> {
        match self {
            Self::InTurn => {
                let (answer, answered) = oneshot::channel();
                writer.run_unlogged(InTurn { task, answer })?;
                let stopped = || StoreError::Unavailable("the writer has stopped".into());
                answered.await.map_err(|_| stopped())?
            }
            Self::Beside(connections) => {
                let (permit, connection) = connections.begin().await?;
                let (connection, outcome) = transaction(connection, task).await;
                connections.give_back(permit, connection);
                outcome
            }
        }
    }

    /// Waits for what runs, within bounds, and ends the connections. Later transactions are refused.
    pub(super) async fn close(&self) {
        let Self::Beside(connections) = self else { return };
        let all = connections.permits.acquire_many(CONNECTIONS);
        let _all = tokio::time::timeout(PATIENCE, all).await;
        connections.permits.close();
        let idle = std::mem::take(&mut *connections.lock());
        for connection in idle {
            let _ = connection.close().await;
        }
    }
}

impl InTurn {
    /// Runs it on the writer's connection, if there is one; the connection where it can be used again.
    pub(super) async fn perform(self, connection: Result<Connection, StoreError>) -> Option<Connection> {
        let (connection, outcome) = match connection {
            Ok(mut connection) => match connection.begin().await {
                Ok(()) => transaction(connection, self.task).await,
                Err(error) => (None, Err(error)),
            },
            Err(error) => (None, Err(error)),
        };
        let _ = self.answer.send(outcome);
        connection
    }

    /// Answers that it was not run.
    pub(super) fn refuse(self, error: StoreError) {
        let _ = self.answer.send(Err(error));
    }
}

impl Connections {
    /// A connection with an open transaction, within some seconds. Whoever drops it ends that.
    async fn begin(&self) -> Result<(OwnedSemaphorePermit, Connection), StoreError> {
        let permit = tokio::time::timeout(PATIENCE, Arc::clone(&self.permits).acquire_owned()).await;
        let closed = || StoreError::Unavailable("the store is closed".into());
        let permit = permit.map_err(|_| StoreError::Busy)?.map_err(|_| closed())?;
        // PostgreSQL may have ended those that were idle.
        while let Some(mut connection) = self.pop() {
            if answered(false, connection.begin()).await.is_ok() {
                return Ok((permit, connection));
            }
        }
        let begun = answered(false, async {
            let mut connection = self.address.connect().await?;
            connection.run(SESSION).await?;
            connection.begin().await?;
            Ok(connection)
        });
        Ok((permit, begun.await?))
    }

    fn pop(&self) -> Option<Connection> {
        self.lock().pop()
    }

    fn give_back(&self, permit: OwnedSemaphorePermit, connection: Option<Connection>) {
        self.lock().extend(connection);
        drop(permit);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Does the task in the open transaction and commits it; the connection where it can be used again.
async fn transaction(connection: Connection, task: Task) -> (Option<Connection>, Result<(), StoreError>) {
    let is_embedded = connection.is_sqlite();
    let mut transaction = UnloggedTransaction { connection };
    let outcome = answered(is_embedded, async {
        task(&mut transaction).await?;
        transaction.connection.commit().await
    });
    let outcome = outcome.await;
    let mut connection = transaction.connection;
    let can_go_on = match &outcome {
        Ok(()) => true,
        Err(StoreError::Unavailable(_)) => false,
        Err(_) => rolled_back(&mut connection).await,
    };
    (can_go_on.then_some(connection), outcome)
}
