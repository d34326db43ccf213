//! Transaction ids: each request is done once, however often a client retries it, also across a restart
//! (client-server API, "Transaction identifiers").
//!
//! The database holds the truth, in the commit that holds the event. So that a fresh id costs no query, the hashes of
//! a device's used ids are kept in memory: an id whose hash is not there was never used.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::{BoxFuture, ready};
use ruma::{EventId, OwnedUserId};
use tokio::sync::OnceCell;

use crate::cache::Cache;
use crate::clock::Clock;
use crate::refusal::Refusal;
use crate::store::log::{Committed, Mirror, Record};
use crate::store::rooms::events::{NewTransaction, StoredEvent};
use crate::store::{Store, StoreError};

/// How long a transaction id is remembered, in milliseconds: seven days. Retries come within minutes.
const REMEMBERED_MS: u64 = 7 * 24 * 3_600_000;

/// How many are forgotten in one step: as many old ones may stay.
const FORGOTTEN_TOGETHER: usize = 1_000;

/// Devices whose used ids are in memory, in each of two generations.
const DEVICES: usize = 2_000;

/// Most ids of one device that are kept in memory; a device that has used more asks the database each time.
pub(crate) const IDS_OF_A_DEVICE: usize = 20_000;

/// Longest transaction id, in bytes.
const LONGEST_ID: usize = 255;

/// A client's name for one request, so that a retry is recognised.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Transaction {
    /// Who sends.
    pub user_id: OwnedUserId,
    /// From which device.
    pub device_id: String,
    /// What the request is: two requests of different scopes may share an id.
    pub scope: String,
    /// The client's id.
    pub transaction_id: String,
}

impl Transaction {
    /// The record that remembers what became of the request.
    pub(in crate::rooms) fn becomes(&self, event_id: &EventId, now_ms: u64) -> Record {
        Record::Transaction(NewTransaction {
            user_id: self.user_id.clone(),
            device_id: self.device_id.clone(),
            scope: self.scope.clone(),
            transaction_id: self.transaction_id.clone(),
            event_id: event_id.to_owned(),
            used_at: now_ms,
        })
    }

    fn check(&self) -> Result<(), Refusal> {
        if self.transaction_id.len() > LONGEST_ID {
            return Err(Refusal::invalid(format!(
                "the transaction id is longer than {LONGEST_ID} bytes"
            )));
        }
        if self.transaction_id.contains('\0') {
            return Err(Refusal::invalid("the transaction id contains NUL"));
        }
        Ok(())
    }
}

type InFlight = OnceCell<Arc<StoredEvent>>;

/// Transaction ids of clients: each makes one event, however often it is sent.
#[derive(Debug)]
pub struct Transactions {
    clock: Arc<Clock>,
    store: Arc<Store>,
    in_flight: Mutex<HashMap<Transaction, Arc<InFlight>>>,
    used: Cache<(OwnedUserId, String), Arc<UsedIds>>,
    hasher: RandomState,
}

impl Transactions {
    /// Transaction ids over a store, none of them in memory.
    pub(in crate::rooms) fn new(clock: Arc<Clock>, store: Arc<Store>) -> Self {
        Self {
            clock,
            store,
            in_flight: Mutex::default(),
            used: Cache::new(DEVICES),
            hasher: RandomState::new(),
        }
    }

    /// Joins the request to others with the same id that are being done.
    fn enter<'t>(&'t self, transaction: &'t Transaction) -> Entry<'t> {
        let mut in_flight = self.in_flight.lock().unwrap_or_else(PoisonError::into_inner);
        let cell = Arc::clone(in_flight.entry(transaction.clone()).or_default());
        Entry {
            transactions: self,
            transaction,
            cell,
        }
    }

    fn hash(&self, transaction: &Transaction) -> u64 {
        self.hasher
            .hash_one((&transaction.scope, &transaction.transaction_id))
    }

    /// The used ids of the transaction's device.
    fn of_device(&self, transaction: &Transaction) -> Arc<UsedIds> {
        let device = (transaction.user_id.clone(), transaction.device_id.clone());
        self.used.get(&device).unwrap_or_else(|| {
            let fresh = Arc::<UsedIds>::default();
            self.used.insert(device, Arc::clone(&fresh));
            fresh
        })
    }
}

impl Mirror for Transactions {
    fn follow<'f>(&'f self, records: &'f [Committed]) -> BoxFuture<'f, Result<(), StoreError>> {
        for committed in records {
            if let Record::Transaction(used) = &committed.record {
                let device = (used.user_id.clone(), used.device_id.clone());
                if let Some(ids) = self.used.get(&device) {
                    ids.note(self.hasher.hash_one((&used.scope, &used.transaction_id)));
                }
            }
        }
        Box::pin(ready(Ok(())))
    }
}

/// The used ids of one device.
#[derive(Debug, Default)]
struct UsedIds {
    loaded: OnceCell<()>,
    hashes: Mutex<HashSet<u64>>,
}

impl UsedIds {
    /// Notes an id; whether it may have been there before.
    fn note(&self, hash: u64) -> bool {
        let mut hashes = self.hashes.lock().unwrap_or_else(PoisonError::into_inner);
        hashes.len() >= IDS_OF_A_DEVICE || !hashes.insert(hash)
    }
}

/// One request's hold on the work that it shares with its retries.
struct Entry<'t> {
    transactions: &'t Transactions,
    transaction: &'t Transaction,
    cell: Arc<InFlight>,
}

impl Drop for Entry<'_> {
    /// The last to leave takes the entry away, also when the client has hung up.
    fn drop(&mut self) {
        let mut in_flight = self
            .transactions
            .in_flight
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if Arc::strong_count(&self.cell) <= 2 {
            in_flight.remove(self.transaction);
        }
    }
}

impl Transactions {
    /// Does `work` once per transaction id: two retries at once, or one after a restart, get the first one's event.
    pub(in crate::rooms) async fn once<F, W>(
        &self,
        transaction: Option<&Transaction>,
        work: W,
    ) -> Result<Arc<StoredEvent>, Refusal>
    where
        W: FnOnce() -> F,
        F: Future<Output = Result<Arc<StoredEvent>, Refusal>>,
    {
        let Some(transaction) = transaction else {
            return work().await;
        };
        transaction.check()?;
        let entry = self.enter(transaction);
        let event = entry.cell.get_or_try_init(|| async {
            if self.may_be_used(transaction).await?
                && let Some(event) = self.event_of(transaction).await?
            {
                return Ok(event);
            }
            let done = work().await;
            // Noted again in case the device's ids were dropped from memory and read back meanwhile.
            self.of_device(transaction).note(self.hash(transaction));
            match done {
                // A first attempt whose client hung up may have been stored in the meantime.
                Err(Refusal::Internal(cause)) => {
                    self.event_of(transaction).await?.ok_or(Refusal::Internal(cause))
                }
                done => done,
            }
        });
        event.await.cloned()
    }

    /// Forgets old transaction ids; how many. Meant to be called now and then.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn forget_old(&self) -> Result<u64, Refusal> {
        let before = self.clock.now_ms().saturating_sub(REMEMBERED_MS);
        Ok(self
            .store
            .rooms
            .forget_transactions(before, FORGOTTEN_TOGETHER)
            .await?)
    }

    /// Whether the id may have been used before. From now on it has been.
    async fn may_be_used(&self, transaction: &Transaction) -> Result<bool, Refusal> {
        let ids = self.of_device(transaction);
        ids.loaded
            .get_or_try_init(|| async {
                let stored = self
                    .store
                    .rooms
                    .transactions_of(&transaction.user_id, &transaction.device_id, IDS_OF_A_DEVICE)
                    .await?;
                let hashes = stored.into_iter().map(|id| self.hasher.hash_one(id));
                ids.hashes
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .extend(hashes);
                Ok::<_, Refusal>(())
            })
            .await?;
        Ok(ids.note(self.hash(transaction)))
    }

    /// The event that the id became, by the database.
    async fn event_of(&self, transaction: &Transaction) -> Result<Option<Arc<StoredEvent>>, Refusal> {
        let Transaction {
            user_id,
            device_id,
            scope,
            transaction_id,
        } = transaction;
        let used = self
            .store
            .rooms
            .transaction(user_id, device_id, scope, transaction_id)
            .await?;
        let Some(event_id) = used else { return Ok(None) };
        let stored = self.store.rooms.event(&event_id).await?;
        match stored {
            Some(event) => Ok(Some(event)),
            None => Err(Refusal::internal(format!("{event_id} is missing"))),
        }
    }
}
