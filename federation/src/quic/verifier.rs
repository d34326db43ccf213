//! Who may be at the other end: the two verifiers that rustls asks, one for each role.
//!
//! Both take a lone certificate with an Ed25519 key and check CertificateVerify with that key. Who the
//! key belongs to is decided later, by the hello.

use std::sync::Arc;

use maru_protocol::PublicKey;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};

use super::{certificate::key_of, endpoint::QuicError};

/// Verification by Ed25519 and nothing else.
///
/// rustls hands the verifier any scheme the peer names, advertised or not, so the table itself must
/// hold nothing else.
pub(super) fn ed25519_only(provider: &CryptoProvider) -> Result<WebPkiSupportedAlgorithms, QuicError> {
    let all = provider.signature_verification_algorithms;
    let mapping = all
        .mapping
        .iter()
        .find(|(scheme, _)| *scheme == SignatureScheme::ED25519)
        .map(std::slice::from_ref)
        .ok_or(QuicError::NoEd25519)?;
    let (_, algorithms) = mapping.first().ok_or(QuicError::NoEd25519)?;
    Ok(WebPkiSupportedAlgorithms {
        all: algorithms,
        mapping,
    })
}

/// What both verifiers share: TLS 1.3 signatures by the certificate's Ed25519 key, no TLS 1.2.
macro_rules! ed25519_signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            _message: &[u8],
            _certificate: &CertificateDer<'_>,
            _signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Err(PeerIncompatible::Tls13RequiredForQuic.into())
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls13_signature(message, certificate, signature, &self.algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            vec![SignatureScheme::ED25519]
        }
    };
}

/// Whether a key is the expected one, where one is.
fn expect(expected: Option<PublicKey>, key: PublicKey) -> Result<(), Error> {
    match expected {
        // Alert 49, access denied.
        Some(expected) if expected != key => Err(CertificateError::ApplicationVerificationFailure.into()),
        _ => Ok(()),
    }
}

/// The accepting side's: the expected key, or any Ed25519 key where anybody may dial. The dialler must have one.
#[derive(Debug)]
pub(super) struct Dialler {
    expected: Option<PublicKey>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Dialler {
    pub(super) fn new(expected: Option<PublicKey>, algorithms: WebPkiSupportedAlgorithms) -> Arc<Self> {
        Arc::new(Self { expected, algorithms })
    }
}

impl ClientCertVerifier for Dialler {
    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        expect(self.expected, key_of(certificate, chain)?)?;
        Ok(ClientCertVerified::assertion())
    }

    /// Spelt out because everything rests on it.
    fn client_auth_mandatory(&self) -> bool {
        true
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    ed25519_signatures!();
}

/// The dialling side's: the expected key, or any Ed25519 key where the peer's TLS key is not known yet.
#[derive(Debug)]
pub(super) struct Acceptor {
    expected: Option<PublicKey>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Acceptor {
    pub(super) fn new(expected: Option<PublicKey>, algorithms: WebPkiSupportedAlgorithms) -> Arc<Self> {
        Arc::new(Self { expected, algorithms })
    }
}

impl ServerCertVerifier for Acceptor {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        expect(self.expected, key_of(certificate, chain)?)?;
        Ok(ServerCertVerified::assertion())
    }

    ed25519_signatures!();
}
