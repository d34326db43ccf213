//! TLS and transport parameters of both roles.

use std::{sync::Arc, time::Duration};

use ed25519_dalek::pkcs8::EncodePrivateKey;
use maru_protocol::{PublicKey, SecretKey};
use quinn::{
    ClientConfig, IdleTimeout, ServerConfig, TransportConfig, VarInt,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use rustls::{
    client::{ResolvesClientCert, Resumption},
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::PrivatePkcs8KeyDer,
    server::{NoServerSessionStorage, ResolvesServerCert},
    sign::{CertifiedKey, SingleCertAndKey},
    version::TLS13,
};

use super::{
    certificate::certificate,
    endpoint::QuicError,
    verifier::{Acceptor, Dialler, ed25519_only},
};
use crate::limits;

/// What is spoken over an endpoint, and with whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speaks {
    /// The protocol of homeservers, with whoever has a key; who that is, the hello says.
    Peers,
    /// What the nodes of one homeserver say to each other, with holders of this key alone, which all of them have.
    Nodes(PublicKey),
}

impl Speaks {
    /// The protocol's name in the TLS handshake: the only version negotiation there is.
    fn alpn(self) -> &'static [u8] {
        match self {
            Self::Peers => b"maru/1",
            Self::Nodes(_) => b"maru-node/1",
        }
    }

    /// The key that the other end must have, whoever dials. None where any is let in, or is for the dialler to say.
    pub(super) fn only(self) -> Option<PublicKey> {
        match self {
            Self::Peers => None,
            Self::Nodes(key) => Some(key),
        }
    }

    fn stream_window(self) -> u32 {
        match self {
            Self::Peers => limits::STREAM_WINDOW,
            Self::Nodes(_) => limits::NODE_STREAM_WINDOW,
        }
    }

    /// Bytes in flight towards us on one connection with somebody who is let in.
    pub(super) fn connection_window(self) -> u32 {
        match self {
            Self::Peers => limits::CONNECTION_WINDOW,
            Self::Nodes(_) => limits::NODE_CONNECTION_WINDOW,
        }
    }

    /// Requests at the same time of somebody who is let in.
    pub(super) fn requests(self) -> u32 {
        match self {
            Self::Peers => limits::MAX_REQUESTS_IN,
            Self::Nodes(_) => limits::MAX_NODE_REQUESTS,
        }
    }

    /// How long nothing may come, and how often something is sent.
    fn silence(self) -> (Duration, Duration) {
        match self {
            Self::Peers => (limits::IDLE_TIMEOUT, limits::KEEP_ALIVE),
            Self::Nodes(_) => (limits::NODE_IDLE_TIMEOUT, limits::NODE_KEEP_ALIVE),
        }
    }
}

/// A key with its certificate, usable in both roles.
pub(super) fn credentials(key: &SecretKey) -> Result<Arc<SingleCertAndKey>, QuicError> {
    let pkcs8 = ed25519_dalek::SigningKey::from_bytes(&key.to_seed())
        .to_pkcs8_der()
        .map_err(|_| QuicError::NoEd25519)?;
    let signer = aws_lc_rs::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(pkcs8.as_bytes()))?;
    let certified = CertifiedKey::new(vec![certificate(key)], signer);
    Ok(Arc::new(SingleCertAndKey::from(certified)))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Windows and time-outs, the same in both roles.
///
/// A connection starts with room for a hello and nothing else; [`super::link`] widens it once the peer
/// is known.
fn transport(speaks: Speaks) -> Result<Arc<TransportConfig>, QuicError> {
    let mut transport = TransportConfig::default();
    let (idle, keep_alive) = speaks.silence();
    transport
        .max_idle_timeout(Some(IdleTimeout::try_from(idle).map_err(|_| QuicError::Range)?))
        .keep_alive_interval(Some(keep_alive))
        .max_concurrent_uni_streams(VarInt::from_u32(1))
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(speaks.stream_window()))
        .receive_window(VarInt::from_u32(limits::STRANGER_WINDOW))
        .send_window(u64::from(limits::SEND_WINDOW))
        .datagram_receive_buffer_size(Some(limits::DATAGRAM_BUFFER))
        .datagram_send_buffer_size(limits::DATAGRAM_BUFFER);
    Ok(Arc::new(transport))
}

/// The accepting role.
pub(super) fn server(
    speaks: Speaks,
    credentials: Arc<dyn ResolvesServerCert>,
) -> Result<ServerConfig, QuicError> {
    let provider = provider();
    let algorithms = ed25519_only(&provider)?;
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Dialler::new(speaks.only(), algorithms))
        .with_cert_resolver(credentials);
    tls.alpn_protocols = vec![speaks.alpn().to_vec()];
    // Every connection proves its keys anew: no tickets, no resumption, hence no 0-RTT.
    tls.send_tls13_tickets = 0;
    tls.session_storage = Arc::new(NoServerSessionStorage {});
    let tls = QuicServerConfig::try_from(tls).map_err(|_| QuicError::NoCipherSuite)?;
    let mut config = ServerConfig::with_crypto(Arc::new(tls));
    config
        .transport_config(transport(speaks)?)
        .retry_token_lifetime(Duration::from_secs(15))
        .max_incoming(limits::MAX_HANDSHAKES)
        .incoming_buffer_size(limits::HANDSHAKE_BUFFER)
        .incoming_buffer_size_total(limits::HANDSHAKE_BUFFER * limits::MAX_HANDSHAKES as u64);
    Ok(config)
}

/// The dialling role, towards the expected key or, where it is not known yet, any.
pub(super) fn client(
    speaks: Speaks,
    credentials: Arc<dyn ResolvesClientCert>,
    expected: Option<PublicKey>,
) -> Result<ClientConfig, QuicError> {
    let provider = provider();
    let algorithms = ed25519_only(&provider)?;
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Acceptor::new(expected, algorithms))
        .with_client_cert_resolver(credentials);
    tls.alpn_protocols = vec![speaks.alpn().to_vec()];
    tls.enable_sni = false;
    tls.resumption = Resumption::disabled();
    let tls = QuicClientConfig::try_from(tls).map_err(|_| QuicError::NoCipherSuite)?;
    let mut config = ClientConfig::new(Arc::new(tls));
    config.transport_config(transport(speaks)?);
    Ok(config)
}
