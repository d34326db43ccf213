//! Server records and the signing keys in them: who is who, now and in the past.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use maru_protocol::ServerKind;
use maru_protocol::key::{KeyId, PublicKey};
use maru_protocol::record::{EventKey, Precedence, SignedRecord, VerifiedRecord};
use ruma::{OwnedServerName, ServerName};
use thiserror::Error;

use super::KnownPeer;
use crate::refusal::Refusal;
use crate::store::Store;
use crate::store::server_records::StoredRecord;

/// Most servers whose records are held in memory and stored.
const MOST_SERVERS: usize = 100_000;

/// Why a record is not believed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NotKept {
    /// It is malformed, or not signed by the key it names.
    #[error("the server record is not valid: {0}")]
    Invalid(String),
    /// Its name is a domain, and nothing here says which key belongs to it.
    #[error("the key of {0} is not known here")]
    Unproven(OwnedServerName),
    /// Another key is known for this name.
    #[error("{0} comes with another root key than the one known for it")]
    KeyChanged(OwnedServerName),
    /// Two records with one number: somebody else signs with the root key, or two servers run with it.
    #[error("{0} has two different records of one number")]
    Conflict(OwnedServerName),
    /// There are too many servers.
    #[error("too many servers are known already")]
    TooMany,
}

/// What is known of one server.
#[derive(Debug)]
struct Known {
    newest: VerifiedRecord,
    /// Signing keys of all its records, the newest word on each.
    keys: HashMap<KeyId, EventKey>,
}

impl Known {
    fn of(record: VerifiedRecord) -> Self {
        let keys = record
            .signing_keys
            .iter()
            .map(|key| (key.id.clone(), key.clone()));
        Self {
            keys: keys.collect(),
            newest: record,
        }
    }

    fn add(&mut self, record: VerifiedRecord) {
        for key in &record.signing_keys {
            self.keys.insert(key.id.clone(), key.clone());
        }
        self.newest = record;
    }
}

/// The records of all servers that were met, in memory and in the store.
#[derive(Debug)]
pub struct Keyring {
    servers: RwLock<HashMap<OwnedServerName, Known>>,
    /// Root keys by configuration.
    pins: HashMap<OwnedServerName, PublicKey>,
}

impl Keyring {
    /// The stored records.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn open(store: &Store, peers: &[KnownPeer]) -> Result<Self, Refusal> {
        let pins = peers
            .iter()
            .filter_map(|peer| Some((peer.name.clone(), peer.key?)))
            .collect();
        let keyring = Self {
            servers: RwLock::default(),
            pins,
        };
        for stored in store.server_records().await? {
            let record = SignedRecord::from_bytes(&stored.record).and_then(|record| record.verify());
            keyring.insert(record.map_err(Refusal::internal)?);
        }
        Ok(keyring)
    }

    /// Judges a record and, if it is news, keeps it. The newest record of that server afterwards.
    ///
    /// # Errors
    /// [`NotKept`], or [`Refusal`] within it when the store fails.
    pub async fn keep(&self, store: &Store, record: &SignedRecord) -> Result<Result<(), NotKept>, Refusal> {
        let verified = match record.verify() {
            Ok(verified) => verified,
            Err(error) => return Ok(Err(NotKept::Invalid(error.to_string()))),
        };
        if let Err(not_kept) = self.judge(&verified) {
            return Ok(Err(not_kept));
        }
        if self.is_news(&verified) {
            store
                .keep_server_record(StoredRecord {
                    server_name: verified.name.clone(),
                    sequence: verified.sequence,
                    record: record.as_bytes().to_vec(),
                })
                .await?;
            self.insert(verified);
        }
        Ok(Ok(()))
    }

    fn judge(&self, record: &VerifiedRecord) -> Result<(), NotKept> {
        let servers = self.servers.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = servers.get(&record.name) {
            return match known.newest.precedence_of(record) {
                Precedence::KeyChanged => Err(NotKept::KeyChanged(record.name.clone())),
                Precedence::Conflict => Err(NotKept::Conflict(record.name.clone())),
                Precedence::Newer | Precedence::Same | Precedence::Older => Ok(()),
            };
        }
        if servers.len() >= MOST_SERVERS {
            return Err(NotKept::TooMany);
        }
        // The name of a key is the key, which the record was verified with.
        if matches!(ServerKind::of(&record.name), Ok(ServerKind::Key(_))) {
            return Ok(());
        }
        match self.pins.get(&record.name) {
            Some(pin) if *pin == record.root_key => Ok(()),
            Some(_) => Err(NotKept::KeyChanged(record.name.clone())),
            None => Err(NotKept::Unproven(record.name.clone())),
        }
    }

    fn is_news(&self, record: &VerifiedRecord) -> bool {
        let servers = self.servers.read().unwrap_or_else(PoisonError::into_inner);
        servers
            .get(&record.name)
            .is_none_or(|known| known.newest.precedence_of(record) == Precedence::Newer)
    }

    fn insert(&self, record: VerifiedRecord) {
        let mut servers = self.servers.write().unwrap_or_else(PoisonError::into_inner);
        match servers.get_mut(&record.name) {
            Some(known) if known.newest.precedence_of(&record) == Precedence::Newer => known.add(record),
            Some(_) => {}
            None => drop(servers.insert(record.name.clone(), Known::of(record))),
        }
    }

    /// Takes in this server's own record, which needs no judging.
    pub(super) fn insert_own(&self, record: VerifiedRecord) {
        self.insert(record);
    }

    /// The newest record of a server.
    #[must_use]
    pub fn newest(&self, server_name: &ServerName) -> Option<VerifiedRecord> {
        let servers = self.servers.read().unwrap_or_else(PoisonError::into_inner);
        servers.get(server_name).map(|known| known.newest.clone())
    }

    /// The key under which a server signed an event at a time, in milliseconds since 1970.
    #[must_use]
    pub fn event_key(&self, server_name: &ServerName, id: &KeyId, sent_at: u64) -> Option<PublicKey> {
        let servers = self.servers.read().unwrap_or_else(PoisonError::into_inner);
        let key = servers.get(server_name)?.keys.get(id)?;
        key.valid_until
            .is_none_or(|until| sent_at <= until)
            .then_some(key.key)
    }

    /// The newest records of some servers, as they can be handed on.
    #[must_use]
    pub fn records<'n>(&self, names: impl IntoIterator<Item = &'n ServerName>) -> Vec<SignedRecord> {
        let servers = self.servers.read().unwrap_or_else(PoisonError::into_inner);
        names
            .into_iter()
            .filter_map(|name| servers.get(name))
            .map(|known| known.newest.signed().clone())
            .collect()
    }
}
