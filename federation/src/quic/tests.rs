//! What an attacker may bring to a handshake, on either side, and what the other side then says.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use ed25519_dalek::pkcs8::EncodePrivateKey;
use maru_protocol::{PublicKey, SecretKey};
use rustls::{
    SignatureAlgorithm, SignatureScheme,
    client::ResolvesClientCert,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    sign::{CertifiedKey, Signer, SigningKey as TlsKey, SingleCertAndKey},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{BoundSocket, Quic, certificate, config, node_key::node_key};
use crate::{
    limits,
    link::{CloseReason, LinkError, Transport},
};

/// The neutral element of the curve, whose signatures anybody can write down.
const NEUTRAL: [u8; 32] = {
    let mut point = [0; 32];
    point[0] = 1;
    point
};

type Credentials = Arc<SingleCertAndKey>;

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

fn alice() -> SecretKey {
    key(1)
}

fn bob() -> SecretKey {
    key(2)
}

fn mallory() -> SecretKey {
    key(3)
}

fn socket() -> BoundSocket {
    BoundSocket::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap()
}

fn honest(key: &SecretKey) -> Quic {
    Quic::new(key, socket()).unwrap()
}

/// An endpoint that shows these credentials in both roles.
fn with(credentials: Credentials) -> Quic {
    Quic::with_credentials(
        config::Speaks::Peers,
        &mallory(),
        credentials.clone(),
        credentials,
        socket(),
    )
    .unwrap()
}

/// Signs with the scheme of its key, whatever schemes the peer offered.
#[derive(Debug)]
struct Insisting(Arc<dyn TlsKey>);

impl TlsKey for Insisting {
    fn choose_scheme(&self, _offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let all = aws_lc_rs::default_provider().signature_verification_algorithms;
        self.0.choose_scheme(&all.supported_schemes())
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.0.algorithm()
    }
}

/// Signs every message with one constant, valid for the neutral element as the key.
#[derive(Debug)]
struct Forging;

impl TlsKey for Forging {
    fn choose_scheme(&self, _offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        Some(Box::new(Self))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }
}

impl Signer for Forging {
    fn sign(&self, _message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        Ok([NEUTRAL, [0; 32]].concat())
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

/// A dialler that answers the certificate request with nothing.
#[derive(Debug)]
struct Anonymous;

impl ResolvesClientCert for Anonymous {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

fn forged(chain: Vec<CertificateDer<'static>>, key: Arc<dyn TlsKey>) -> Credentials {
    Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, key)))
}

fn tls_key(key: &SecretKey) -> Arc<dyn TlsKey> {
    let pkcs8 = ed25519_dalek::SigningKey::from_bytes(&key.to_seed())
        .to_pkcs8_der()
        .unwrap();
    aws_lc_rs::sign::any_supported_type(&PrivatePkcs8KeyDer::from(pkcs8.as_bytes()).into()).unwrap()
}

/// A self-signed certificate as another stack makes it, with its key.
fn foreign(algorithm: &'static rcgen::SignatureAlgorithm) -> (CertificateDer<'static>, Arc<dyn TlsKey>) {
    let pair = rcgen::KeyPair::generate_for(algorithm).unwrap();
    let certificate = rcgen::CertificateParams::new(["example.org".into()])
        .unwrap()
        .self_signed(&pair)
        .unwrap();
    let key = PrivateKeyDer::try_from(pair.serialize_der()).unwrap();
    (
        certificate.der().clone(),
        aws_lc_rs::sign::any_supported_type(&key).unwrap(),
    )
}

/// Everything that claims to be `victim` or to be nobody in particular, with the TLS alert that it earns.
fn hostile(victim: &SecretKey) -> Vec<(&'static str, Credentials, u8)> {
    let own = tls_key(&mallory());
    let (ecdsa, ecdsa_key) = foreign(&rcgen::PKCS_ECDSA_P256_SHA256);
    let (rsa, rsa_key) = foreign(&rcgen::PKCS_RSA_SHA256);
    let insisting = |key: &Arc<dyn TlsKey>| -> Arc<dyn TlsKey> { Arc::new(Insisting(key.clone())) };

    let trailing = CertificateDer::from([&certificate(&mallory())[..], &[0]].concat());
    let chain = vec![certificate(&mallory()), certificate(victim)];
    let weak = certificate(&mallory()).to_vec();
    let public = mallory().public_key();
    let at = weak.windows(32).position(|w| w == public.as_bytes()).unwrap();
    let weak = [&weak[..at], &NEUTRAL, &weak[at + 32..]].concat();

    vec![
        (
            "a stolen certificate, another key's signature",
            forged(vec![certificate(victim)], own.clone()),
            51,
        ),
        (
            "a stolen certificate, an ECDSA signature",
            forged(vec![certificate(victim)], insisting(&ecdsa_key)),
            // Not a scheme that was offered: handshake failure or decrypt error, by role.
            0,
        ),
        (
            "ECDSA, sent all the same",
            forged(vec![ecdsa.clone()], insisting(&ecdsa_key)),
            43,
        ),
        (
            "ECDSA with an Ed25519 signature",
            forged(vec![ecdsa], own.clone()),
            43,
        ),
        (
            "RSA, sent all the same",
            forged(vec![rsa], insisting(&rsa_key)),
            43,
        ),
        ("one certificate too many", forged(chain, own.clone()), 42),
        ("a trailing byte", forged(vec![trailing], own), 42),
        (
            "a key that anybody can sign for",
            forged(vec![CertificateDer::from(weak)], Arc::new(Forging)),
            42,
        ),
    ]
}

/// One connection; what each side makes of it. A dialler's handshake ends before the acceptor has judged
/// its certificate, so the dialler also waits for the first byte of the acceptor's log.
async fn attempt(
    acceptor: &Quic,
    dialler: &Quic,
    expected: Option<PublicKey>,
) -> (Result<PublicKey, LinkError>, Result<PublicKey, LinkError>) {
    let accepting = async {
        let link = acceptor.accept().await.expect("the endpoint is open").await?;
        let mut log = link.open_log().await?;
        let _ = log.write_all(b"x").await;
        link.closed().await;
        Ok(link.peer_key())
    };
    let dialling = async {
        let link = dialler.dial(acceptor.local_address().unwrap(), expected).await?;
        let mut byte = [0];
        match link.accept_log().await?.read_exact(&mut byte).await {
            Ok(_) => Ok(link.peer_key()),
            Err(_) => Err(LinkError::Closed(link.closed().await)),
        }
    };
    let (accepted, dialled) = tokio::join!(accepting, dialling);
    (dialled, accepted)
}

fn alert(error: &LinkError) -> String {
    match error {
        LinkError::Closed(CloseReason::Transport(text)) => text.clone(),
        other => panic!("not refused by TLS: {other}"),
    }
}

fn assert_refused(case: &str, refused: Result<PublicKey, LinkError>, number: u8) {
    let text = alert(&refused.expect_err(case));
    if number > 0 {
        assert!(text.contains(&format!("error {number}:")), "{case}: {text}");
    }
}

#[tokio::test]
async fn both_sides_learn_the_key_of_the_other() {
    let (accepting, dialling) = (honest(&bob()), honest(&alice()));
    for expected in [Some(bob().public_key()), None] {
        let (dialled, accepted) = attempt(&accepting, &dialling, expected).await;
        assert_eq!(dialled, Ok(bob().public_key()));
        assert_eq!(accepted, Ok(alice().public_key()));
    }
}

#[tokio::test]
async fn the_certificate_of_another_stack_will_do() {
    let (foreign, foreign_key) = foreign(&rcgen::PKCS_ED25519);
    let (accepting, dialling) = (honest(&bob()), with(forged(vec![foreign], foreign_key)));
    let (dialled, accepted) = attempt(&accepting, &dialling, Some(bob().public_key())).await;
    assert_eq!(dialled, Ok(bob().public_key()));
    assert!(accepted.is_ok_and(|key| key != bob().public_key()));
}

#[tokio::test]
async fn another_key_than_the_expected_one_is_refused() {
    let (accepting, dialling) = (honest(&bob()), honest(&alice()));
    let (dialled, accepted) = attempt(&accepting, &dialling, Some(mallory().public_key())).await;
    assert_refused("dialler", dialled, 49);
    assert_refused("acceptor", accepted, 49);
}

#[tokio::test]
async fn a_dialler_without_a_certificate_is_refused() {
    let accepting = honest(&bob());
    let credentials = config::credentials(&mallory()).unwrap();
    let dialling = Quic::with_credentials(
        config::Speaks::Peers,
        &mallory(),
        credentials,
        Arc::new(Anonymous),
        socket(),
    )
    .unwrap();
    let (dialled, accepted) = attempt(&accepting, &dialling, Some(bob().public_key())).await;
    assert_refused("dialler", dialled, 116);
    assert_refused("acceptor", accepted, 116);
}

#[tokio::test]
async fn a_hostile_acceptor_is_refused() {
    let dialling = honest(&alice());
    for (case, credentials, number) in hostile(&bob()) {
        let accepting = with(credentials);
        let (dialled, accepted) = attempt(&accepting, &dialling, Some(bob().public_key())).await;
        // A key that is not the expected one may be refused for that before its signature is looked at.
        assert_refused(case, dialled, if case.contains("stolen") { number } else { 0 });
        assert!(accepted.is_err(), "{case}");
    }
}

#[tokio::test]
async fn a_hostile_acceptor_is_refused_where_any_key_is_let_through() {
    let dialling = honest(&alice());
    for (case, credentials, number) in hostile(&bob()) {
        let (dialled, accepted) = attempt(&with(credentials), &dialling, None).await;
        assert_refused(case, dialled, number);
        assert!(accepted.is_err(), "{case}");
    }
}

#[tokio::test]
async fn a_hostile_dialler_is_refused() {
    let accepting = honest(&bob());
    for (case, credentials, number) in hostile(&alice()) {
        let (dialled, accepted) = attempt(&accepting, &with(credentials), Some(bob().public_key())).await;
        assert_refused(case, accepted, number);
        assert!(dialled.is_err(), "{case}");
    }
}

#[test]
fn without_our_own_check_the_forged_signature_would_pass() {
    let all = aws_lc_rs::default_provider().signature_verification_algorithms;
    let (_, ed25519) = all
        .mapping
        .iter()
        .find(|(scheme, _)| *scheme == SignatureScheme::ED25519)
        .unwrap();
    let signature = [NEUTRAL, [0; 32]].concat();
    assert!(
        ed25519[0]
            .verify_signature(&NEUTRAL, b"any message", &signature)
            .is_ok()
    );
}

#[tokio::test]
async fn a_peer_may_open_no_request_before_it_is_admitted() {
    let (accepting, dialling) = (honest(&bob()), honest(&alice()));
    let address = accepting.local_address().unwrap();
    let accept = async { accepting.accept().await.unwrap().await.unwrap() };
    let (near, far) = tokio::join!(dialling.dial(address, None), accept);
    let near = near.unwrap();
    {
        let mut opening = std::pin::pin!(near.open_request());
        // The log stream is opened after the request was tried: once its byte has arrived, the request's
        // permission would have, too.
        assert!(futures_util::poll!(&mut opening).is_pending());
        let mut log = far.open_log().await.unwrap();
        log.write_all(b"x").await.unwrap();
        near.accept_log()
            .await
            .unwrap()
            .read_exact(&mut [0])
            .await
            .unwrap();
        assert!(futures_util::poll!(&mut opening).is_pending());
        far.admit();
        let (mut request, mut answer) = opening.await.unwrap();
        request.write_all(b"y").await.unwrap();
        request.shutdown().await.unwrap();
        let (mut answering, mut asked) = far.accept_request().await.unwrap();
        let mut text = Vec::new();
        asked.read_to_end(&mut text).await.unwrap();
        assert_eq!(text, b"y");
        answering.write_all(b"z").await.unwrap();
        answering.shutdown().await.unwrap();
        text.clear();
        answer.read_to_end(&mut text).await.unwrap();
        assert_eq!(text, b"z");
    }
    near.close(maru_protocol::wire::CloseCode::Duplicate, "twice");
    let reason = far.closed().await;
    assert_eq!(reason.code(), Some(maru_protocol::wire::CloseCode::Duplicate));
    assert!(reason.to_string().ends_with("twice"));
    assert_eq!(near.closed().await, CloseReason::ByUs);
}

#[tokio::test]
async fn a_restarted_peer_tells_us_at_once_that_the_connection_is_gone() {
    // A runtime of its own, so that the acceptor can stop without a word as a killed process does.
    let process = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let (say, hear) = tokio::sync::oneshot::channel();
    process.spawn(async {
        let accepting = honest(&bob());
        say.send(accepting.local_address().unwrap()).unwrap();
        let link = accepting.accept().await.unwrap().await.unwrap();
        let mut log = link.open_log().await.unwrap();
        log.write_all(b"x").await.unwrap();
        std::future::pending::<()>().await;
    });
    let address = hear.await.unwrap();
    let dialling = honest(&alice());
    let near = dialling.dial(address, None).await.unwrap();
    near.accept_log()
        .await
        .unwrap()
        .read_exact(&mut [0])
        .await
        .unwrap();

    let killed = tokio::task::spawn_blocking(move || process.shutdown_timeout(limits::DIAL_TIMEOUT));
    killed.await.unwrap();
    let restarted = Quic::new(&bob(), BoundSocket::bind(address).unwrap()).unwrap();
    let mut log = near.open_log().await.unwrap();
    log.write_all(b"is anybody there").await.unwrap();
    assert_eq!(near.closed().await, CloseReason::Reset);
    drop(restarted);
}

#[tokio::test]
async fn under_load_a_dialler_proves_its_address_and_gets_in_until_there_is_no_room() {
    let (accepting, dialling) = (honest(&bob()), honest(&alice()));
    let address = accepting.local_address().unwrap();
    let begin = |count: usize, of: IpAddr, is_proven: bool| -> Vec<_> {
        let begun = (0..count).map(|_| accepting.handshakes().begin(of, is_proven));
        begun.map(Option::unwrap).collect()
    };
    let let_in = (Ok(bob().public_key()), Ok(alice().public_key()));
    let few = begin(limits::MAX_UNPROVEN_HANDSHAKES_OF_ONE_PLACE, address.ip(), false);
    assert_eq!(attempt(&accepting, &dialling, None).await, let_in, "by its proof");
    // What others do, many of them, keeps nobody out as long as there is room in all.
    let others = |number: usize| IpAddr::from([192, 0, 2, u8::try_from(number).unwrap()]);
    let _many: Vec<_> = (0..limits::MAX_HANDSHAKES / limits::MAX_HANDSHAKES_OF_ONE_PLACE - 1)
        .map(|number| begin(limits::MAX_HANDSHAKES_OF_ONE_PLACE, others(number), true))
        .collect();
    assert_eq!(attempt(&accepting, &dialling, None).await, let_in);
    let own = begin(limits::MAX_HANDSHAKES_OF_ONE_PLACE, address.ip(), true);
    let turned_away = async { accepting.accept().await.unwrap().await.map(drop) };
    let (dialled, accepted) = tokio::join!(dialling.dial(address, None), turned_away);
    assert_eq!(accepted, Err(LinkError::TurnedAway));
    let refused = dialled.map(drop).unwrap_err();
    assert!(
        matches!(refused, LinkError::Closed(CloseReason::Transport(_))),
        "{refused}"
    );
    drop((few, own));
    assert_eq!(attempt(&accepting, &dialling, None).await, let_in);
}

fn node(tls_key: &SecretKey) -> Quic {
    Quic::between_nodes(tls_key, socket()).unwrap()
}

#[tokio::test]
async fn nodes_know_each_other_by_a_key_that_peers_never_see() {
    let (dialled, accepted) = attempt(&node(&alice()), &node(&alice()), None).await;
    let key = dialled.unwrap();
    assert_eq!(accepted, Ok(key));
    assert_ne!(key, alice().public_key());
}

#[tokio::test]
async fn who_does_not_hold_the_key_of_nodes_is_refused() {
    let refused = async |case, dialling: Quic, number| {
        let (dialled, accepted) = attempt(&node(&alice()), &dialling, None).await;
        assert_refused(case, dialled, number);
        assert_refused(case, accepted, number);
    };
    refused("a node of another homeserver", node(&bob()), 49).await;
    // Somebody who knows the key, and does not have it.
    let of_alice = node_key(&alice()).unwrap();
    let nodes = config::Speaks::Nodes(of_alice.public_key());
    let intruder = |credentials: Credentials| {
        Quic::with_credentials(nodes, &mallory(), credentials.clone(), credentials, socket()).unwrap()
    };
    let own = config::credentials(&mallory()).unwrap();
    refused("a key of its own", intruder(own), 49).await;
    let stolen = forged(vec![certificate(&of_alice)], tls_key(&mallory()));
    refused("a stolen certificate", intruder(stolen), 51).await;
    // The homeserver itself, as it speaks with peers.
    refused("another protocol", honest(&alice()), 120).await;
}
