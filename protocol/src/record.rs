//! Server records: what a server says of itself, signed by its root key (`spec/federation.md`, "Server records").
//!
//! A record is a CBOR map in deterministic encoding, so that one content has one spelling, signed in the
//! context [`CONTEXT`]. It travels as a [`SignedRecord`]: an array of the map's bytes and the signature.
//! Fields that are not known are kept in those bytes and otherwise ignored.
//!
//! The root key inside a record proves nothing about a domain: that is for the server to check. A key name
//! is its root key, and here is where that is checked.

use core::net::{IpAddr, SocketAddr};
use std::{collections::BTreeSet, fmt, ops::Deref};

use ruma::OwnedServerName;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use thiserror::Error;

use crate::key::{KeyError, KeyId, PublicKey, SecretKey, Signature};
use crate::limits::{MAX_ID_BYTES, MAX_INTEGER};
use crate::server_name::{ServerKind, ServerNameError};
use crate::wire::bounded::{Octets, Text, list};
use crate::wire::cbor_validation;
use crate::wire::cbor_validation::{ShapeError, Strictness};

/// What a root key signs records for.
pub const CONTEXT: &str = "maru.server_record.v1";

/// Largest signed record, in bytes: what a distributed hash table may be asked to hold.
pub const MAX_RECORD_BYTES: usize = 2048;

/// Most addresses of a record.
pub const MAX_ADDRESSES: usize = 8;

/// Most relays of a record.
pub const MAX_RELAYS: usize = 4;

/// Most signing keys of a record, old ones included.
pub const MAX_SIGNING_KEYS: usize = 16;

/// Longest time between `issued` and `expires`, in milliseconds: 366 days.
pub const MAX_LIFETIME_MS: u64 = 366 * 24 * 60 * 60 * 1000;

/// What a server says of itself. The fields stand in the order of their deterministic encoding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerRecord {
    /// The server's name.
    pub name: OwnedServerName,
    /// When the record was made, in milliseconds since 1970.
    pub issued: u64,
    /// Relays through which the server can be reached, as libp2p multiaddresses.
    #[serde(deserialize_with = "list::<_, _, MAX_RELAYS>")]
    pub relays: Vec<Text<MAX_ID_BYTES>>,
    /// When the record ceases to say where the server is, in milliseconds since 1970. The keys in it go on
    /// verifying the history that they signed.
    pub expires: u64,
    /// The server's libp2p peer id, as its bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_id: Option<Octets<64>>,
    /// The key of the server's TLS certificates.
    pub tls_key: PublicKey,
    /// The key that signs the record.
    pub root_key: PublicKey,
    /// Grows with every record of the server.
    pub sequence: u64,
    /// Where the server listens, the best first.
    #[serde(deserialize_with = "list::<_, _, MAX_ADDRESSES>")]
    pub addresses: Vec<Address>,
    /// The keys that sign events, old ones included.
    #[serde(deserialize_with = "list::<_, _, MAX_SIGNING_KEYS>")]
    pub signing_keys: Vec<EventKey>,
}

/// A key that signs, or signed, a server's events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventKey {
    /// Its id, unique in the record.
    pub id: KeyId,
    /// The key.
    pub key: PublicKey,
    /// For a key that is no longer used: the last `origin_server_ts` that it is good for, in milliseconds
    /// since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_until: Option<u64>,
}

/// An address of UDP. It travels as text such as `192.0.2.1:8448` or `[2001:db8::1]:8448`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Address(SocketAddr);

/// A record as it travels, nothing of it checked but its length.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SignedRecord(Octets<MAX_RECORD_BYTES>);

/// A record whose signature by its own root key has been verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedRecord {
    record: ServerRecord,
    signed: SignedRecord,
    body: Octets<MAX_RECORD_BYTES>,
}

/// How an offered record stands to the one that is held of the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precedence {
    /// A higher sequence number: it takes the place of the one held.
    Newer,
    /// The one held.
    Same,
    /// A lower sequence number: refused.
    Older,
    /// The same sequence number and another content: an alarm, never a choice.
    Conflict,
    /// Signed by another root key: only an admin can say.
    KeyChanged,
}

/// Why a record is none, or cannot be signed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RecordError {
    /// Over [`MAX_RECORD_BYTES`].
    #[error("a record of {0} bytes where {MAX_RECORD_BYTES} are allowed")]
    TooLong(usize),
    /// Not CBOR, or not in deterministic encoding.
    #[error("not deterministic CBOR: {0}")]
    Shape(#[from] ShapeError),
    /// A field is missing, of another type, or over its limit.
    #[error("malformed: {0}")]
    Malformed(String),
    /// The signature does not fit the root key and the bytes.
    #[error("not signed by its root key: {0}")]
    Signature(#[from] KeyError),
    /// A name under `maru.alt` that is no key name.
    #[error(transparent)]
    Name(#[from] ServerNameError),
    /// The name is another key than the root key.
    #[error("the name is not the root key")]
    NotTheNamesKey,
    /// The root key given for signing is not the one in the record.
    #[error("signed with another key than the record's root key")]
    WrongRootKey,
    /// No signing key is in use, or two have one id.
    #[error("no signing key in use, or two of one id")]
    SigningKeys,
    /// A number is out of range, or the record expires before it is issued or too long after.
    #[error("a number or a time is out of range")]
    OutOfRange,
}

impl ServerRecord {
    /// Signs the record.
    ///
    /// # Errors
    /// [`RecordError`] for a record that nobody would accept.
    pub fn sign(&self, root: &SecretKey) -> Result<SignedRecord, RecordError> {
        if root.public_key() != self.root_key {
            return Err(RecordError::WrongRootKey);
        }
        self.check()?;
        let body = minicbor_serde::to_vec(self).map_err(malformed)?;
        let signature = root.sign_with_context(CONTEXT, &body);
        let body = Octets::new(&body).ok_or(RecordError::TooLong(body.len()))?;
        let envelope = Envelope(body, signature);
        SignedRecord::from_bytes(&minicbor_serde::to_vec(&envelope).map_err(malformed)?)
    }

    /// The key of this id, if it is good for an event of this `origin_server_ts`.
    pub fn event_key(&self, id: &KeyId, origin_server_ts: u64) -> Option<&PublicKey> {
        let key = self.signing_keys.iter().find(|key| key.id == *id)?;
        let in_time = key.valid_until.is_none_or(|until| origin_server_ts <= until);
        in_time.then_some(&key.key)
    }

    /// Whether the record still says where the server is, at a time in milliseconds since 1970.
    pub fn is_current(&self, now: u64) -> bool {
        now < self.expires
    }

    fn check(&self) -> Result<(), RecordError> {
        if let ServerKind::Key(key) = ServerKind::of(&self.name)?
            && key != self.root_key
        {
            return Err(RecordError::NotTheNamesKey);
        }
        let mut ids = BTreeSet::new();
        let unique = self.signing_keys.iter().all(|key| ids.insert(&key.id));
        let in_use = self.signing_keys.iter().any(|key| key.valid_until.is_none());
        if !unique || !in_use {
            return Err(RecordError::SigningKeys);
        }
        let until = self.signing_keys.iter().filter_map(|key| key.valid_until);
        let mut numbers = until.chain([self.sequence, self.issued, self.expires]);
        let in_range = numbers.all(|number| number <= MAX_INTEGER.unsigned_abs());
        let lifetime = self.expires.checked_sub(self.issued);
        if !in_range || lifetime.is_none_or(|lifetime| lifetime > MAX_LIFETIME_MS) {
            return Err(RecordError::OutOfRange);
        }
        Ok(())
    }
}

impl SignedRecord {
    /// Takes bytes that claim to be a record.
    ///
    /// # Errors
    /// [`RecordError::TooLong`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, RecordError> {
        Octets::new(bytes)
            .map(Self)
            .ok_or(RecordError::TooLong(bytes.len()))
    }

    /// The bytes, as they are stored and sent.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Reads the record and verifies that its own root key signed it.
    ///
    /// Whether that root key is the right one for a domain, and whether the record is still current or
    /// newer than another, is not looked at.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn verify(&self) -> Result<VerifiedRecord, RecordError> {
        cbor_validation::check(&self.0, Strictness::Deterministic)?;
        let Envelope(body, signature) = minicbor_serde::from_slice(&self.0).map_err(malformed)?;
        cbor_validation::check(&body, Strictness::Deterministic)?;
        let record: ServerRecord = minicbor_serde::from_slice(&body).map_err(malformed)?;
        record.root_key.verify_with_context(CONTEXT, &body, &signature)?;
        record.check()?;
        Ok(VerifiedRecord {
            record,
            signed: self.clone(),
            body,
        })
    }
}

impl VerifiedRecord {
    /// The record as it travels.
    pub fn signed(&self) -> &SignedRecord {
        &self.signed
    }

    /// How an offered record of the same name stands to this one, which is held.
    pub fn precedence_of(&self, offered: &Self) -> Precedence {
        if self.root_key != offered.root_key {
            return Precedence::KeyChanged;
        }
        match offered.sequence.cmp(&self.sequence) {
            std::cmp::Ordering::Greater => Precedence::Newer,
            std::cmp::Ordering::Less => Precedence::Older,
            std::cmp::Ordering::Equal if self.body == offered.body => Precedence::Same,
            std::cmp::Ordering::Equal => Precedence::Conflict,
        }
    }
}

impl Deref for VerifiedRecord {
    type Target = ServerRecord;

    fn deref(&self) -> &ServerRecord {
        &self.record
    }
}

impl Address {
    /// The address, unless it needs a scope to be reached (which means nothing to others), has no port, or
    /// names no host.
    pub fn new(address: SocketAddr) -> Option<Self> {
        let scoped = matches!(address, SocketAddr::V6(v6) if v6.scope_id() != 0 || v6.flowinfo() != 0);
        let nobody = address.ip().is_unspecified() || address.ip().is_multicast() || address.port() == 0;
        (!scoped && !nobody).then_some(Self(address))
    }

    /// The address.
    pub fn get(self) -> SocketAddr {
        self.0
    }

    /// Whether anybody on the internet may be told to dial it. Addresses that are not are only followed
    /// when the configuration gives them.
    pub fn is_public(self) -> bool {
        match self.0.ip().to_canonical() {
            IpAddr::V4(v4) => {
                let shared = v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64;
                let reserved =
                    v4.octets()[0] >= 240 || v4.octets()[0] == 0 || v4.octets()[..3] == [192, 0, 0];
                let benchmark = v4.octets()[0] == 198 && v4.octets()[1] & 0xfe == 18;
                !(v4.is_private()
                    || v4.is_loopback()
                    || v4.is_link_local()
                    || v4.is_documentation()
                    || shared
                    || reserved
                    || benchmark)
            }
            // Global unicast, without the ranges for documentation and for tunnels to IPv4.
            IpAddr::V6(v6) => {
                let [first, second, ..] = v6.segments();
                let special = first == 0x2001 && (second < 0x200 || second == 0xdb8) || first == 0x2002;
                first & 0xe000 == 0x2000 && !special && first & 0xfff0 != 0x3ff0
            }
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.to_string())
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Text::<64>::deserialize(deserializer)?;
        let address = text.parse().ok().and_then(Self::new);
        address
            .filter(|address| address.to_string() == *text)
            .ok_or_else(|| D::Error::custom("no address"))
    }
}

impl fmt::Debug for SignedRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SignedRecord({} bytes)", self.0.len())
    }
}

/// What a [`SignedRecord`] holds: an array of the record's bytes and the root key's signature.
#[derive(Serialize, Deserialize)]
struct Envelope(Octets<MAX_RECORD_BYTES>, Signature);

fn malformed(error: impl fmt::Display) -> RecordError {
    RecordError::Malformed(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server_name::key_name;
    use proptest::prelude::*;

    fn record(sequence: u64) -> ServerRecord {
        let root = SecretKey::from_seed(&[1; 32]);
        let key = |id: &str, seed, valid_until| EventKey {
            id: KeyId::new(id).unwrap(),
            key: SecretKey::from_seed(&[seed; 32]).public_key(),
            valid_until,
        };
        ServerRecord {
            name: key_name(&root.public_key()).unwrap(),
            issued: 1000,
            relays: vec![],
            expires: 2000,
            peer_id: None,
            tls_key: SecretKey::from_seed(&[2; 32]).public_key(),
            root_key: root.public_key(),
            sequence,
            addresses: vec![Address::new("192.0.2.1:8448".parse().unwrap()).unwrap()],
            signing_keys: vec![key("new", 3, None), key("old", 4, Some(500))],
        }
    }

    #[test]
    fn an_old_key_is_good_for_old_events_only() {
        let record = record(1);
        let [new, old] = ["new", "old"].map(|id| KeyId::new(id).unwrap());
        assert!(record.event_key(&new, 10).is_some() && record.event_key(&new, 5000).is_some());
        assert!(record.event_key(&old, 500).is_some() && record.event_key(&old, 501).is_none());
        assert!(record.event_key(&KeyId::new("none").unwrap(), 1).is_none());
        assert!(record.is_current(1999) && !record.is_current(2000));
    }

    #[test]
    fn a_record_that_would_not_fit_is_not_signed() {
        let root = SecretKey::from_seed(&[1; 32]);
        let mut large = record(1);
        let relay = Text::new(&"r".repeat(MAX_ID_BYTES)).unwrap();
        large.relays = vec![relay; MAX_RELAYS];
        let keys = (0..MAX_SIGNING_KEYS).map(|n| EventKey {
            id: KeyId::new(&format!("{n:060}")).unwrap(),
            key: root.public_key(),
            valid_until: None,
        });
        large.signing_keys = keys.collect();
        assert!(matches!(large.sign(&root), Err(RecordError::TooLong(_))));
        let other = SecretKey::from_seed(&[9; 32]);
        assert_eq!(record(1).sign(&other), Err(RecordError::WrongRootKey));
    }

    #[test]
    fn only_public_addresses_may_be_told_to_anybody() {
        let address = |text: &str| Address::new(text.parse().unwrap());
        for public in ["8.8.8.8:1", "[2606:4700::1]:1", "[2003::1]:1"] {
            assert!(address(public).unwrap().is_public(), "{public}");
        }
        for private in [
            "10.1.2.3:1",
            "172.16.0.1:1",
            "192.168.0.1:1",
            "127.0.0.1:1",
            "169.254.0.1:1",
            "100.64.0.1:1",
            "192.0.2.1:1",
            "198.18.0.1:1",
            "240.0.0.1:1",
            "255.255.255.255:1",
            "0.1.2.3:1",
            "[::1]:1",
            "[::ffff:10.0.0.1]:1",
            "[fe80::1]:1",
            "[fd00::1]:1",
            "[2001:db8::1]:1",
            "[2002:a00:1::]:1",
            "[64:ff9b::a00:1]:1",
        ] {
            assert!(!address(private).unwrap().is_public(), "{private}");
        }
        for none in [
            "8.8.8.8:0",
            "0.0.0.0:1",
            "[::]:1",
            "224.0.0.1:1",
            "[ff02::1]:1",
            "[fe80::1%3]:1",
        ] {
            assert_eq!(address(none), None, "{none}");
        }
    }

    proptest! {
        #[test]
        fn any_changed_byte_is_noticed(at in any::<prop::sample::Index>(), bit in 0..8) {
            let signed = record(1).sign(&SecretKey::from_seed(&[1; 32])).unwrap();
            let mut bytes = signed.as_bytes().to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= 1u8 << bit;
            prop_assert!(SignedRecord::from_bytes(&bytes).unwrap().verify().is_err());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(SignedRecord::from_bytes(&bytes).unwrap().verify().is_err());
        }

        #[test]
        fn the_higher_sequence_wins(held in 0..1u64 << 53, offered in 0..1u64 << 53) {
            let root = SecretKey::from_seed(&[1; 32]);
            let [held, offered] = [held, offered].map(|n| record(n).sign(&root).unwrap().verify().unwrap());
            let expected = match offered.sequence.cmp(&held.sequence) {
                std::cmp::Ordering::Greater => Precedence::Newer,
                std::cmp::Ordering::Equal => Precedence::Same,
                std::cmp::Ordering::Less => Precedence::Older,
            };
            prop_assert_eq!(held.precedence_of(&offered), expected);
            let changed = ServerRecord { expires: 1999, ..record(held.sequence) };
            let changed = changed.sign(&root).unwrap().verify().unwrap();
            prop_assert_eq!(held.precedence_of(&changed), Precedence::Conflict);
        }
    }
}
