//! How a peer hears at once that we were restarted.
//!
//! A peer that still writes on a connection of our last run is answered with a stateless reset (RFC 9000
//! section 10.3). It believes the reset only if the token is the one we gave it before, so tokens are
//! made from the TLS key and not from a number of this run. Without this, the peer would hold on to the
//! dead connection until it times out.

use std::{sync::Arc, time::Duration};

use maru_protocol::SecretKey;
use quinn::{
    ConnectionId, ConnectionIdGenerator, EndpointConfig,
    crypto::{CryptoError, HmacKey},
};
use rustls::crypto::tls13::{Hkdf, OkmBlock};

use super::{
    endpoint::QuicError,
    node_key::{derived_secret, hkdf},
};

/// What the key that makes the tokens is derived in, so that it is good for nothing else.
const CONTEXT: &str = "maru.stateless_reset.v1";

/// Length of our connection ids.
const CONNECTION_ID_BYTES: usize = 8;

/// HMAC-SHA-256 under a key derived from the TLS key.
struct ResetKey {
    hkdf: &'static dyn Hkdf,
    key: OkmBlock,
}

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature: &mut [u8]) {
        let tag = self.hkdf.hmac_sign(&self.key, data);
        signature.copy_from_slice(tag.as_ref());
    }

    fn signature_len(&self) -> usize {
        32
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let tag = self.hkdf.hmac_sign(&self.key, data);
        if tag.as_ref() == signature {
            Ok(())
        } else {
            Err(CryptoError)
        }
    }
}

/// Connection ids of plain random bytes.
///
/// quinn's own ids carry a checksum under a key of this run, so that those of the last run look like
/// garbage and are not answered at all.
struct RandomIds;

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&rand::random::<[u8; CONNECTION_ID_BYTES]>())
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// The endpoint parameters whose reset tokens outlive a restart.
pub(super) fn endpoint_config(key: &SecretKey) -> Result<EndpointConfig, QuicError> {
    let hkdf = hkdf()?;
    let secret = derived_secret(key, CONTEXT, b"reset tokens")?;
    let key = OkmBlock::new(secret.as_ref());
    let mut config = EndpointConfig::new(Arc::new(ResetKey { hkdf, key }));
    config.cid_generator(|| Box::new(RandomIds));
    Ok(config)
}
