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
    verifier::{Acceptor, AnyDialler, ed25519_only},
};
use crate::limits;

/// The protocol's name in the TLS handshake: the only version negotiation there is.
const ALPN: &[u8] = b"maru/1";

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
fn transport() -> Result<Arc<TransportConfig>, QuicError> {
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(Some(
            IdleTimeout::try_from(limits::IDLE_TIMEOUT).map_err(|_| QuicError::Range)?,
        ))
        .keep_alive_interval(Some(limits::KEEP_ALIVE))
        .max_concurrent_uni_streams(VarInt::from_u32(1))
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(limits::STREAM_WINDOW))
        .receive_window(VarInt::from_u32(limits::STRANGER_WINDOW))
        .send_window(u64::from(limits::SEND_WINDOW))
        .datagram_receive_buffer_size(Some(limits::DATAGRAM_BUFFER))
        .datagram_send_buffer_size(limits::DATAGRAM_BUFFER);
    Ok(Arc::new(transport))
}

/// The accepting role.
pub(super) fn server(credentials: Arc<dyn ResolvesServerCert>) -> Result<ServerConfig, QuicError> {
    let provider = provider();
    let algorithms = ed25519_only(&provider)?;
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(AnyDialler::new(algorithms))
        .with_cert_resolver(credentials);
    tls.alpn_protocols = vec![ALPN.to_vec()];
    // Every connection proves its keys anew: no tickets, no resumption, hence no 0-RTT.
    tls.send_tls13_tickets = 0;
    tls.session_storage = Arc::new(NoServerSessionStorage {});
    let tls = QuicServerConfig::try_from(tls).map_err(|_| QuicError::NoCipherSuite)?;
    let mut config = ServerConfig::with_crypto(Arc::new(tls));
    config
        .transport_config(transport()?)
        .retry_token_lifetime(Duration::from_secs(15))
        .max_incoming(limits::MAX_HANDSHAKES)
        .incoming_buffer_size(limits::HANDSHAKE_BUFFER)
        .incoming_buffer_size_total(limits::HANDSHAKE_BUFFER * limits::MAX_HANDSHAKES as u64);
    Ok(config)
}

/// The dialling role, towards the expected key or, where it is not known yet, any.
pub(super) fn client(
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
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.enable_sni = false;
    tls.resumption = Resumption::disabled();
    let tls = QuicClientConfig::try_from(tls).map_err(|_| QuicError::NoCipherSuite)?;
    let mut config = ClientConfig::new(Arc::new(tls));
    config.transport_config(transport()?);
    Ok(config)
}
