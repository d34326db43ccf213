//! Who a peer claims to be: names it does not own, certificates and records that are another's, old or ambiguous.

use maru::config::ConfiguredPeer;
use maru_protocol::wire::CloseCode;
use maru_protocol::{ServerRecord, SignedRecord};
use maru_tests::web::TestWeb;
use maru_tests::{Engine, TestServer};
use ruma::OwnedServerName;

use super::liar::{Liar, LiarKeys, Victim, eventually, now_ms};

/// Tries to connect, and gives how often the victim has counted which refusal before and after.
async fn is_refused(server: &TestServer, liar: &Liar, victim: &Victim, code: CloseCode, case: &str) {
    let counted = || {
        let pool = server.parts().peers.pool().unwrap();
        pool.refusals().get(code.name()).copied().unwrap_or(0)
    };
    let before = counted();
    let error = liar.pool.connect(&victim.name).await.unwrap_err().to_string();
    assert!(error.contains(code.name()), "{case}: {error}");
    eventually("the refusal is counted", || counted() > before).await;
    liar.pool.shut_down().await;
}

/// A record of these keys with something changed, signed by its root.
fn changed(keys: &LiarKeys, change: impl FnOnce(&mut ServerRecord)) -> SignedRecord {
    let mut record = keys.record(5);
    change(&mut record);
    record.sign(&keys.root).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_whom_he_cannot_prove_to_be() {
    let domain = OwnedServerName::try_from("pinned.invalid").unwrap();
    let pin = LiarKeys::of(40).root.public_key().to_base64();
    let server = TestServer::start_with(Engine::Sqlite, |config| {
        let peer = ConfiguredPeer::new("pinned.invalid", &[], Some(&pin)).unwrap();
        config.federation.peers.set(peer);
    })
    .await;
    let victim = Victim::of(&server).await;
    let (mallory, other) = (LiarKeys::of(41), LiarKeys::of(42));

    // The certificate of another: its record is public, its TLS key is not.
    let stolen = LiarKeys {
        tls: mallory.tls.clone(),
        ..other.clone()
    };
    let liar = Liar::with(stolen, other.signed_record(1), &victim);
    is_refused(&server, &liar, &victim, CloseCode::NotProven, "a stolen record").await;

    // Somebody's name over one's own record.
    let liar = Liar::claiming(other.name(), mallory.clone(), mallory.signed_record(1), &victim);
    is_refused(&server, &liar, &victim, CloseCode::NotProven, "another's name").await;

    // A pinned domain with another root key.
    let record = changed(&mallory, |record| record.name = domain.clone());
    let liar = Liar::claiming(domain, mallory.clone(), record, &victim);
    is_refused(&server, &liar, &victim, CloseCode::KeyChanged, "a pinned domain").await;

    // A record that has run out.
    let record = changed(&mallory, |record| {
        record.issued = now_ms() - 86_400_000;
        record.expires = now_ms() - 1;
    });
    let liar = Liar::with(mallory.clone(), record, &victim);
    is_refused(
        &server,
        &liar,
        &victim,
        CloseCode::RecordOutdated,
        "an expired record",
    )
    .await;
    assert!(
        server.parts().peers.pool().unwrap().peers().is_empty(),
        "somebody was let in"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_is_neither_rolled_back_nor_ambiguous() {
    let server = TestServer::start().await;
    let victim = Victim::of(&server).await;
    let keys = LiarKeys::of(43);
    let honest = Liar::with(keys.clone(), keys.signed_record(5), &victim);
    honest.pool.connect(&victim.name).await.unwrap();
    honest.pool.shut_down().await;

    let liar = Liar::with(keys.clone(), keys.signed_record(4), &victim);
    is_refused(&server, &liar, &victim, CloseCode::RecordOutdated, "rolled back").await;

    let second = changed(&keys, |record| record.issued -= 1);
    let liar = Liar::with(keys.clone(), second, &victim);
    is_refused(
        &server,
        &liar,
        &victim,
        CloseCode::RecordConflict,
        "two of one number",
    )
    .await;

    // What was believed before still is.
    let honest = Liar::with(keys.clone(), keys.signed_record(6), &victim);
    honest.pool.connect(&victim.name).await.unwrap();
}

/// Names cost whoever makes them up nothing, and us a question each: one place may have twenty asked in a minute.
#[tokio::test(flavor = "multi_thread")]
async fn one_place_has_few_domains_looked_up() {
    let server = TestServer::start().await;
    let web = TestWeb::of(&[]).await;
    web.show(&server);
    let victim = Victim::of(&server).await;
    let begun = tokio::time::Instant::now();
    for seed in 0..24 {
        let keys = LiarKeys::of(100 + seed);
        let name = OwnedServerName::try_from(format!("made-up-{seed}.example")).unwrap();
        let record = changed(&keys, |record| record.name = name.clone());
        let liar = Liar::claiming(name, keys, record, &victim);
        is_refused(
            &server,
            &liar,
            &victim,
            CloseCode::Unavailable,
            "a made-up domain",
        )
        .await;
    }
    let minutes = begun.elapsed().as_secs() / 60 + 1;
    let most = usize::try_from(20 * minutes).unwrap();
    assert!(web.asked() <= most, "{} names in {minutes} minutes", web.asked());
    assert!(web.asked() >= 20, "{}", web.asked());
}
