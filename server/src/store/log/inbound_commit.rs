//! What peers sent, on its way to the disk.
//!
//! It waits a moment for the first change that deals with one of its events, and goes in front of that: both take one
//! commit then, and the event never takes a row in the inbox. Where that takes longer it goes by itself.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use maru_protocol::cursor::{LogId, Position};
use ruma::{OwnedServerName, ServerName};
use tokio::sync::oneshot;

use super::writer::{Answer, Writer};
use super::{Change, Log, Record};
use crate::store::StoreError;
use crate::store::federation::inbox::{Arrived, InInbox, Received, ReceivedLog};

/// Changes that wait for another which deals with one of their rows. At most a few for each connected peer, and not for
/// longer than their [`Receiving`].
#[derive(Debug, Default)]
pub(in crate::store) struct Waiting(Mutex<Vec<Held>>);

/// A change that is not on its way yet.
#[derive(Debug)]
struct Held {
    /// Its rows, by rising number.
    rows: Arc<[InInbox]>,
    change: Change,
    answer: Answer,
}

impl Held {
    fn has(&self, nid: i64) -> bool {
        self.rows.binary_search_by_key(&nid, |row| row.nid).is_ok()
    }
}

impl Waiting {
    fn hold(&self, held: Held) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.push(held);
    }

    /// Sends what came with one of these rows to the writer. It is in the queue when this returns, whoever sent it.
    pub(in crate::store) fn send(&self, nids: &[i64], writer: &Writer) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for nid in nids {
            let Some(found) = waiting.iter().position(|held| held.has(*nid)) else {
                continue;
            };
            let Held { change, answer, .. } = waiting.swap_remove(found);
            writer.append_for(change, answer);
        }
    }

    fn give_up(&self, nid: i64) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|held| !held.has(nid));
    }
}

/// Of which log what is stored of each peer is, as far as this run has heard. Bounded by the number of servers.
#[derive(Debug, Default)]
pub(in crate::store) struct PeerLogs(Mutex<HashMap<OwnedServerName, LogId>>);

impl PeerLogs {
    fn holds(&self, peer: &ServerName, log_id: LogId) -> bool {
        let logs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        logs.get(peer) == Some(&log_id)
    }

    fn stored(&self, peer: &ServerName, log_id: LogId) {
        let mut logs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match logs.get_mut(peer) {
            Some(known) => *known = log_id,
            None => drop(logs.insert(peer.to_owned(), log_id)),
        }
    }
}

/// What a peer sent, until it is on disk. Dropped before it is on its way there, it is given up: the peer sends it again.
#[derive(Debug)]
#[must_use = "what a peer sent is acknowledged only after waiting for it"]
pub struct Receiving<'s> {
    log: &'s Log,
    peer: OwnedServerName,
    log_id: LogId,
    rows: Arc<[InInbox]>,
    answered: oneshot::Receiver<Result<Position, StoreError>>,
}

impl Receiving<'_> {
    /// Its rows of the inbox, by rising number.
    #[must_use]
    pub fn rows(&self) -> &Arc<[InInbox]> {
        &self.rows
    }

    /// Waits until all is on disk. When nobody has dealt with any of its events within `patience`, it goes by itself.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn stored(mut self, patience: Duration) -> Result<(), StoreError> {
        if !patience.is_zero()
            && let Ok(answer) = tokio::time::timeout(patience, &mut self.answered).await
        {
            return self.settle(answer);
        }
        if let Some(row) = self.rows.first() {
            self.log.store_received(row.nid);
        }
        let answer = (&mut self.answered).await;
        self.settle(answer)
    }

    fn settle(
        &self,
        answer: Result<Result<Position, StoreError>, oneshot::error::RecvError>,
    ) -> Result<(), StoreError> {
        answer.map_err(|_| StoreError::Unavailable("the writer has stopped".into()))??;
        self.log.peer_logs.stored(&self.peer, self.log_id);
        Ok(())
    }
}

impl Drop for Receiving<'_> {
    fn drop(&mut self) {
        if let Some(row) = self.rows.first() {
            self.log.waiting.give_up(row.nid);
        }
    }
}

impl Log {
    /// Has stored what a peer sent together with the cursor after it: events into the inbox, the rest as the records that it
    /// makes.
    pub fn receive(
        &self,
        peer: &ServerName,
        log: ReceivedLog,
        arrived: Vec<Arrived>,
        mut records: Vec<Record>,
        now_ms: u64,
    ) -> Receiving<'_> {
        let rows = arrived.into_iter().map(|arrived| InInbox {
            nid: self.next_nid(),
            server_name: peer.to_owned(),
            arrived,
        });
        let rows: Arc<[InInbox]> = rows.collect();
        let log_id = log.log_id;
        records.push(Record::Received(Received {
            server_name: peer.to_owned(),
            is_of_same_log: self.peer_logs.holds(peer, log_id),
            log,
            rows: Arc::clone(&rows),
            at: now_ms,
        }));
        let change = Change::new(records);
        let (answer, answered) = oneshot::channel();
        match rows.is_empty() {
            true => self.writer.append_for(change, answer),
            false => self.waiting.hold(Held {
                rows: Arc::clone(&rows),
                change,
                answer,
            }),
        }
        Receiving {
            log: self,
            peer: peer.to_owned(),
            log_id,
            rows,
            answered,
        }
    }

    /// Has what came with a row of the inbox stored now, unless it is on its way already.
    pub fn store_received(&self, nid: i64) {
        self.waiting.send(&[nid], &self.writer);
    }
}
