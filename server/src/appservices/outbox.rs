//! What one service is sent: transactions, one after the other. Each is stored before it is sent, and sent as it was stored until
//! it is accepted, also by another start of the server or another node: under one id a service never meets two contents.
//!
//! Who begins a transaction says which number it follows. A node that was away and does not know what another has sent since
//! is told that it does not, and reads again.

use std::sync::Arc;

use bytes::Bytes;
use maru_protocol::cursor::{LogId, Position};

use super::service::Service;
use crate::observe::appservices::TRANSACTIONS;
use crate::readers::ReaderError;
use crate::store::appservices::{AppserviceTables, StoredTransaction};

/// The transactions of one service.
#[derive(Debug)]
pub(super) struct Outbox {
    service: Arc<Service>,
    tables: Arc<AppserviceTables>,
    /// Part of all ids: after a restore they are others, since what was restored does not know what was sent.
    log_id: LogId,
    /// The newest one, without its body once it is accepted; none while it is not known.
    newest: Option<StoredTransaction>,
    /// Whether the newest one was under way when it was read from the database, and the cursor has not come to its end since.
    is_resumed: bool,
    /// Whether the last attempt did not succeed.
    is_failing: bool,
}

impl Outbox {
    pub(super) fn new(service: Arc<Service>, tables: Arc<AppserviceTables>, log_id: LogId) -> Self {
        Self {
            service,
            tables,
            log_id,
            newest: None,
            is_resumed: false,
            is_failing: false,
        }
    }

    /// Sends what was begun and is not accepted yet. The number of the newest transaction, 0 before the first.
    pub(super) async fn settle(&mut self) -> Result<i64, ReaderError> {
        let newest = match self.newest.take() {
            Some(newest) => newest,
            None => {
                let loaded = self.load().await?;
                self.is_resumed = loaded.body.is_some();
                loaded
            }
        };
        // Kept before what may be dropped: a lost answer must not make it unknown what was begun.
        let begun = self.newest.insert(newest).clone();
        let sequence = begun.sequence;
        if let Some(body) = begun.body.clone() {
            self.put(sequence, body).await?;
            self.newest = Some(StoredTransaction { body: None, ..begun });
        }
        Ok(sequence)
    }

    /// Up to where what stands at a position, and behind it, is in the newest transaction; none where it is not. The cursor may
    /// have been stored some time before that was begun.
    pub(super) fn holds(&self, position: Position) -> Option<Position> {
        let newest = self.newest.as_ref()?;
        let is_within = position > newest.after || self.is_resumed;
        (is_within && position <= newest.up_to).then_some(newest.up_to)
    }

    /// The cursor comes to a position: the number of the newest transaction, if that is behind it then.
    pub(super) fn passed(&mut self, position: Position) -> Option<i64> {
        let newest = self.newest.as_ref()?;
        let is_behind = newest.up_to <= position;
        self.is_resumed &= !is_behind;
        is_behind.then_some(newest.sequence)
    }

    /// Begins the next transaction and sends it. Everything before it is accepted.
    pub(super) async fn send(
        &mut self,
        after: Position,
        up_to: Position,
        body: Bytes,
    ) -> Result<(), ReaderError> {
        let next = StoredTransaction {
            sequence: self.settle().await? + 1,
            after,
            up_to,
            body: Some(body),
        };
        // What became of it is not known until it is.
        self.newest = None;
        let began = self
            .tables
            .begin_transaction(&self.service.registration.id, next.clone());
        if !began.await.map_err(unavailable)? {
            let why = "another node has sent something meanwhile".to_owned();
            return Err(ReaderError::Unavailable(why));
        }
        (self.newest, self.is_resumed) = (Some(next), false);
        self.settle().await.map(drop)
    }

    /// Sends what is worth nothing later: once, and only to a service that takes what it is sent.
    pub(super) async fn send_once(&mut self, body: Bytes) {
        if self.is_failing {
            return;
        }
        let id = format!("{}_p{:016x}", self.log_id, rand::random::<u64>());
        if let Err(why) = self.service.send(&id, body).await {
            let service = &*self.service.registration.id;
            tracing::debug!(service, why, "an application service is not told what passes");
        }
    }

    async fn load(&self) -> Result<StoredTransaction, ReaderError> {
        let stored = self.tables.transaction(&self.service.registration.id).await;
        Ok(stored.map_err(unavailable)?.unwrap_or(StoredTransaction {
            sequence: 0,
            after: Position::START,
            up_to: Position::START,
            body: None,
        }))
    }

    async fn put(&mut self, sequence: i64, body: Bytes) -> Result<(), ReaderError> {
        let sent = self
            .service
            .send(&format!("{}_{sequence}", self.log_id), body)
            .await;
        self.is_failing = sent.is_err();
        TRANSACTIONS.note(&self.service.registration.id, sent.is_ok());
        sent.map_err(ReaderError::Unavailable)
    }
}

/// Whatever is wrong here, nothing is to be left out for it.
pub(super) fn unavailable(error: impl std::fmt::Display) -> ReaderError {
    ReaderError::Unavailable(error.to_string())
}
