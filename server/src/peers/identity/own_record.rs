//! This server's own record: signed anew when something in it changes or it grows old.

use maru_protocol::key::{PublicKey, SecretKey};
use maru_protocol::record::{Address, EventKey, MAX_LIFETIME_MS, ServerRecord, SignedRecord};

use crate::data_folder::Keys;
use crate::identity::Identity;
use crate::peers::Keyring;
use crate::refusal::Refusal;
use crate::store::Store;
use crate::store::federation::server_records::StoredRecord;

/// A record is signed anew when less than this much of its time is left, in milliseconds: 90 days.
const RENEWED_BEFORE_MS: u64 = 90 * 24 * 60 * 60 * 1000;

/// What the record is made of.
#[derive(Debug)]
pub struct OwnRecord {
    /// Signs it.
    pub root: SecretKey,
    /// The key of connections.
    pub tls_key: PublicKey,
    /// Where the server can be dialled.
    pub addresses: Vec<Address>,
    /// Signing keys of the past, each with its end.
    pub old_signing: Vec<EventKey>,
}

impl OwnRecord {
    /// The record of a data folder's keys.
    #[must_use]
    pub fn of(keys: &Keys, addresses: &[Address]) -> Self {
        Self {
            root: keys.root.clone(),
            tls_key: keys.tls.public_key(),
            addresses: addresses.to_vec(),
            old_signing: keys.old_signing.clone(),
        }
    }

    /// The record to say hello with: the stored one if it still says what is so, else a new one, which is stored.
    ///
    /// # Errors
    /// When the database fails, or the stored record is of another root key.
    pub(in crate::peers) async fn publish(
        &self,
        store: &Store,
        keyring: &Keyring,
        identity: &Identity,
        now_ms: u64,
    ) -> Result<SignedRecord, Refusal> {
        let newest = keyring.newest(&identity.server_name);
        let mut record = self.record(identity, now_ms);
        if let Some(newest) = newest {
            let as_new = ServerRecord {
                sequence: newest.sequence,
                issued: newest.issued,
                expires: newest.expires,
                ..record.clone()
            };
            if *newest == as_new && newest.expires > now_ms + RENEWED_BEFORE_MS {
                let signed = newest.signed().clone();
                keyring.insert_own(newest);
                return Ok(signed);
            }
            record.sequence = newest.sequence + 1;
        }
        let signed = record.sign(&self.root).map_err(Refusal::internal)?;
        let stored = StoredRecord {
            server_name: identity.server_name.clone(),
            root_key: *record.root_key.as_bytes(),
            sequence: record.sequence,
            record: signed.as_bytes().to_vec(),
        };
        store.federation.keep_server_record(stored).await?;
        keyring.insert_own(signed.verify().map_err(Refusal::internal)?);
        Ok(signed)
    }

    fn record(&self, identity: &Identity, now_ms: u64) -> ServerRecord {
        let current = EventKey {
            id: identity.signing_key.id.clone(),
            key: identity.signing_key.public_key(),
            valid_until: None,
        };
        ServerRecord {
            name: identity.server_name.clone(),
            issued: now_ms,
            relays: Vec::new(),
            expires: now_ms + MAX_LIFETIME_MS,
            peer_id: None,
            tls_key: self.tls_key,
            root_key: self.root.public_key(),
            sequence: 1,
            addresses: self.addresses.clone(),
            signing_keys: [current]
                .into_iter()
                .chain(self.old_signing.iter().cloned())
                .collect(),
        }
    }
}
