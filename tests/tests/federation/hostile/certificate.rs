//! The certificate of another server, shown by who does not hold its key: the handshake is refused and counted.

use std::sync::Arc;

use maru_federation::quic::certificate;
use maru_protocol::SecretKey;
use maru_tests::TestServer;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, ConnectionError, Endpoint, TransportErrorCode};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::{default_provider, sign::any_supported_type};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{DigitallySignedStruct, Error, SignatureScheme};

use super::liar::{Liar, LiarKeys, Victim, eventually};

/// What stands before the 32 bytes of an Ed25519 key in PKCS#8.
const PKCS8: &[u8] = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";

/// The alert for a wrong `CertificateVerify`.
const DECRYPT_ERROR: u8 = 51;

/// A dialler that does not care whom it reaches.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

/// Dials with somebody's certificate and a key of one's own; why the connection ends.
async fn dial(shown: &SecretKey, held: &SecretKey, victim: &Victim) -> ConnectionError {
    let held = PrivatePkcs8KeyDer::from([PKCS8, &held.to_seed()[..]].concat());
    let held = any_supported_type(&held.into()).unwrap();
    let shown = CertifiedKey::new(vec![certificate(shown)], held);
    let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(shown)));
    tls.alpn_protocols = vec![b"maru/1".to_vec()];
    let config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    let endpoint = Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
    let dialling = endpoint.connect_with(config, victim.address, "maru").unwrap();
    match dialling.await {
        Ok(connection) => connection.closed().await,
        Err(error) => error,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stolen_certificate_opens_no_door() {
    let server = TestServer::start().await;
    let victim = Victim::of(&server).await;
    let (other, mallory) = (LiarKeys::of(45), LiarKeys::of(46));
    let end = dial(&other.tls, &mallory.tls, &victim).await;
    let ConnectionError::ConnectionClosed(close) = &end else {
        panic!("{end}");
    };
    assert_eq!(
        close.error_code,
        TransportErrorCode::crypto(DECRYPT_ERROR),
        "{end}"
    );
    let pool = server.parts().peers.pool().unwrap();
    eventually("the refusal is counted", || {
        pool.refusals() == [("tls", 1)].into()
    })
    .await;
    assert!(pool.peers().is_empty(), "somebody was let in");
    // Whose certificate it is comes in with it.
    let honest = Liar::with(other.clone(), other.signed_record(1), &victim);
    honest.pool.connect(&victim.name).await.unwrap();
}
