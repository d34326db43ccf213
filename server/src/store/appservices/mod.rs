//! The table of what application services are sent: the newest transaction of each, whole until it is accepted.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use maru_protocol::cursor::Position;
use ruma::OwnedUserId;

use super::encryption::to_device::drop_received;
use super::engine::{Connection, Readers, Row, query};
use super::log::Log;
use crate::store::StoreError;

/// The table of what application services are sent.
#[derive(Debug)]
pub struct AppserviceTables {
    readers: Readers,
    log: Arc<Log>,
}

/// A transaction to an application service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredTransaction {
    /// Its number among those of the service, from 1.
    pub sequence: i64,
    /// It holds what stands in the log after here.
    pub after: Position,
    /// And up to here.
    pub up_to: Position,
    /// What is sent; none once it is accepted.
    pub body: Option<Bytes>,
}

/// That an application service has accepted a transaction.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// Which service.
    pub service: String,
    /// The transaction's number; none while the cursor has not come to its end.
    pub sequence: Option<i64>,
    /// Messages to devices of its users that it has received.
    pub received: Vec<(OwnedUserId, String, Position)>,
}

impl Accepted {
    /// Whether there is nothing to store.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sequence.is_none() && self.received.is_empty()
    }

    pub(in crate::store) async fn apply(self, connection: &mut Connection) -> Result<(), StoreError> {
        if let Some(sequence) = self.sequence {
            let update =
                query("UPDATE appservice_transactions SET body = NULL WHERE service = $1 AND sequence = $2");
            let update = update.bind(&self.service).bind(sequence);
            update.run(&mut *connection).await?;
        }
        drop_received(connection, self.received).await
    }
}

impl AppserviceTables {
    pub(super) fn new(readers: Readers, log: Arc<Log>) -> Self {
        Self { readers, log }
    }

    /// The newest transaction of a service, if there ever was one.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn transaction(&self, service: &str) -> Result<Option<StoredTransaction>, StoreError> {
        let row = query(
            "SELECT sequence, begun_after, up_to, body FROM appservice_transactions WHERE service = $1",
        );
        let Some(row) = row.bind(service).optional(&self.readers).await? else {
            return Ok(None);
        };
        Ok(Some(StoredTransaction {
            sequence: row.get(0)?,
            after: Position(row.get(1)?),
            up_to: Position(row.get(2)?),
            body: row.get::<Option<Vec<u8>>>(3)?.map(Bytes::from),
        }))
    }

    /// The number of the newest transaction of every service, and whether it is not accepted yet.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn all(&self) -> Result<HashMap<String, (i64, bool)>, StoreError> {
        let rows = query(
            "SELECT service, sequence, CAST(CASE WHEN body IS NULL THEN 0 ELSE 1 END AS BIGINT) FROM appservice_transactions",
        );
        let rows = rows.all(&self.readers).await?;
        let read = |row: &Row| Ok((row.get(0)?, (row.get(1)?, row.get::<i64>(2)? != 0)));
        rows.iter().map(read).collect()
    }

    /// Stores the transaction of a service that follows the newest one, before it is sent. False, and nothing is stored, where
    /// the newest has another number by now: another node has sent since.
    ///
    /// # Errors
    /// When it is not known whether it was stored.
    pub async fn begin_transaction(
        &self,
        service: &str,
        transaction: StoredTransaction,
    ) -> Result<bool, StoreError> {
        let service = service.to_owned();
        let work = self.log.transact_unlogged(move |tx| {
            Box::pin(async move {
                let begin = query(
                    "INSERT INTO appservice_transactions (service, sequence, begun_after, up_to, body) \
                     VALUES ($1, $2, $3, $4, $5) ON CONFLICT (service) DO UPDATE \
                     SET sequence = excluded.sequence, begun_after = excluded.begun_after, up_to = excluded.up_to, \
                     body = excluded.body \
                     WHERE appservice_transactions.sequence = excluded.sequence - 1",
                );
                let body = transaction.body.map(|body| body.to_vec());
                let begin = begin
                    .bind(&service)
                    .bind(transaction.sequence)
                    .bind(transaction.after.0)
                    .bind(transaction.up_to.0)
                    .bind(body);
                Ok(begin.execute(&mut tx.connection).await? > 0)
            })
        });
        work.await
    }
}
