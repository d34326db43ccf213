//! Server records and the signing keys in them: who is who, now and in the past.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use maru_protocol::ServerKind;
use maru_protocol::key::{KeyId, PublicKey};
use maru_protocol::record::{EventKey, Precedence, SignedRecord, VerifiedRecord};
use ruma::{OwnedServerName, ServerName};
use thiserror::Error;

use super::well_known::LookUpError;
use crate::config::ConfiguredPeer;
use crate::refusal::Refusal;
use crate::store::Store;
use crate::store::federation::server_records::StoredRecord;

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
    /// Its name is a domain, and asking its web server for the key failed.
    #[error("the key of {0} cannot be looked up: {1}")]
    NotLookedUp(OwnedServerName, LookUpError),
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
    /// Root keys by configuration. They win.
    pins: HashMap<OwnedServerName, PublicKey>,
    /// Root keys of domains, looked up or accepted by the admin.
    trusted: RwLock<HashMap<OwnedServerName, PublicKey>>,
}

impl Keyring {
    /// The stored records and root keys, with those of the configuration.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn open(store: &Store, peers: &[ConfiguredPeer]) -> Result<Self, Refusal> {
        let mut trusted = HashMap::new();
        for (name, key) in store.federation.root_keys().await? {
            let key = PublicKey::from_bytes(&key).map_err(Refusal::internal)?;
            trusted.insert(name, key);
        }
        let keyring = Self {
            servers: RwLock::default(),
            pins: peers.iter().map(|peer| (peer.name.clone(), peer.key)).collect(),
            trusted: RwLock::new(trusted),
        };
        let mut records = Vec::new();
        for stored in store.federation.server_records().await? {
            let record = SignedRecord::from_bytes(&stored.record).and_then(|record| record.verify());
            records.push(record.map_err(Refusal::internal)?);
        }
        // Those of the right key last, so that they are the newest.
        records.sort_by_key(|record| keyring.root_key(&record.name) == Some(record.root_key));
        records.into_iter().for_each(|record| keyring.insert(record));
        Ok(keyring)
    }

    /// The root key of a server: by its name, the configuration, the admin's word or its web server.
    #[must_use]
    pub fn root_key(&self, name: &ServerName) -> Option<PublicKey> {
        if let Ok(ServerKind::Key(key)) = ServerKind::of(name) {
            return Some(key);
        }
        let trusted = || {
            self.trusted
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .get(name)
                .copied()
        };
        self.pins.get(name).copied().or_else(trusted)
    }

    /// Whether the configuration says which root key a server has.
    #[must_use]
    pub fn is_pinned(&self, name: &ServerName) -> bool {
        self.pins.contains_key(name)
    }

    /// Takes a root key for a domain, in the place of another one. What the old one stood for goes on verifying events.
    ///
    /// # Errors
    /// When it cannot be stored.
    pub(in crate::peers) async fn trust(
        &self,
        store: &Store,
        name: &ServerName,
        key: PublicKey,
    ) -> Result<(), Refusal> {
        store.federation.put_root_key(name, *key.as_bytes()).await?;
        let mut trusted = self.trusted.write().unwrap_or_else(PoisonError::into_inner);
        trusted.insert(name.to_owned(), key);
        Ok(())
    }

    /// Checks a record and, if it is newer than the one held, stores it.
    ///
    /// # Errors
    /// [`NotKept`], or [`Refusal`] within it when the store fails.
    pub async fn keep(&self, store: &Store, record: &SignedRecord) -> Result<Result<(), NotKept>, Refusal> {
        let verified = match record.verify() {
            Ok(verified) => verified,
            Err(error) => return Ok(Err(NotKept::Invalid(error.to_string()))),
        };
        if let Err(not_kept) = self.check(&verified) {
            return Ok(Err(not_kept));
        }
        if self.is_news(&verified) {
            store
                .federation
                .keep_server_record(StoredRecord {
                    server_name: verified.name.clone(),
                    root_key: *verified.root_key.as_bytes(),
                    sequence: verified.sequence,
                    record: record.as_bytes().to_vec(),
                })
                .await?;
            self.insert(verified);
        }
        Ok(Ok(()))
    }

    fn check(&self, record: &VerifiedRecord) -> Result<(), NotKept> {
        match self.root_key(&record.name) {
            None => return Err(NotKept::Unproven(record.name.clone())),
            Some(key) if key != record.root_key => return Err(NotKept::KeyChanged(record.name.clone())),
            Some(_) => {}
        }
        let servers = self.servers.read().unwrap_or_else(PoisonError::into_inner);
        match servers.get(&record.name) {
            Some(known) if known.newest.precedence_of(record) == Precedence::Conflict => {
                Err(NotKept::Conflict(record.name.clone()))
            }
            None if servers.len() >= MOST_SERVERS => Err(NotKept::TooMany),
            _ => Ok(()),
        }
    }

    fn is_news(&self, record: &VerifiedRecord) -> bool {
        let servers = self.servers.read().unwrap_or_else(PoisonError::into_inner);
        servers
            .get(&record.name)
            .is_none_or(|known| replaces(&known.newest, record))
    }

    fn insert(&self, record: VerifiedRecord) {
        let mut servers = self.servers.write().unwrap_or_else(PoisonError::into_inner);
        match servers.get_mut(&record.name) {
            Some(known) if replaces(&known.newest, &record) => known.add(record),
            Some(_) => {}
            None => drop(servers.insert(record.name.clone(), Known::of(record))),
        }
    }

    /// Takes in what another node has stored of a server, which needs no judging: its root key, where it is a domain whose key
    /// is known, and its records, oldest first of each root key.
    pub(in crate::peers) fn take_up(
        &self,
        name: &ServerName,
        key: Option<PublicKey>,
        mut records: Vec<VerifiedRecord>,
    ) {
        if let Some(key) = key {
            let mut trusted = self.trusted.write().unwrap_or_else(PoisonError::into_inner);
            trusted.insert(name.to_owned(), key);
        }
        let key = self.root_key(name);
        records.sort_by_key(|record| key == Some(record.root_key));
        records.into_iter().for_each(|record| self.insert(record));
    }

    /// Takes in this server's own record, which needs no judging; nobody else is believed under its name.
    pub(in crate::peers) fn insert_own(&self, record: VerifiedRecord) {
        let mut trusted = self.trusted.write().unwrap_or_else(PoisonError::into_inner);
        trusted.insert(record.name.clone(), record.root_key);
        drop(trusted);
        self.insert(record);
    }

    /// The newest record of a server.
    #[must_use]
    pub fn newest(&self, server_name: &ServerName) -> Option<VerifiedRecord> {
        let servers = self.servers.read().unwrap_or_else(PoisonError::into_inner);
        servers.get(server_name).map(|known| known.newest.clone())
    }

    /// Shows the newest record of every server.
    pub(in crate::peers) fn each_newest(&self, mut show: impl FnMut(&VerifiedRecord)) {
        let servers = self.servers.read().unwrap_or_else(PoisonError::into_inner);
        servers.values().for_each(|known| show(&known.newest));
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

/// Whether a record of the right root key takes the place of the one held.
fn replaces(held: &VerifiedRecord, offered: &VerifiedRecord) -> bool {
    matches!(
        held.precedence_of(offered),
        Precedence::Newer | Precedence::KeyChanged
    )
}
