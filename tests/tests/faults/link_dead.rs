//! The link to PostgreSQL goes dead during sends, and neither side is told: the database believes in the old session, which
//! holds the lock. The server gives it up, ends it and goes on; every request is answered in the meantime.

use std::time::Duration;

use maru_tests::process::raise_open_files;
use maru_tests::{Data, TestProcess};
use tokio::sync::watch;
use tokio::time::timeout;

use super::traffic::Traffic;

const SENDS: usize = 1_200;
const DEAD_AFTER: usize = 300;

/// Time for all of it: the patience with one answer twice, for a read and for the write after it, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_link_to_the_database_stops_writing_for_seconds() {
    raise_open_files();
    let (data, relay) = Data::over_relay().await;
    let mut process = TestProcess::start_on(data, &[]).await;
    let traffic = Traffic::prepare(process.api(), 4, 4).await;

    let (progress, mut acknowledged) = watch::channel(0);
    let sending = traffic.send_all(traffic.sends(SENDS), &progress);
    let dying = async {
        acknowledged.wait_for(|count| *count >= DEAD_AFTER).await.unwrap();
        relay.forget_connections();
    };
    let outcome = timeout(PATIENCE, async { tokio::join!(sending, dying) }).await;
    let (outcome, ()) = outcome.expect("all is answered in time");
    let (answered, refused) = (outcome.acknowledged.len(), outcome.refused.len());
    println!("{answered} messages acknowledged, {refused} refused while the link was dead");
    assert!(outcome.unanswered.is_empty(), "every request is answered");
    for (_, reply) in &outcome.refused {
        reply.refused(503, "M_UNKNOWN");
    }

    assert!(process.is_running(), "{}", process.log());
    let acknowledged = timeout(PATIENCE, traffic.send_until_done(outcome)).await;
    let acknowledged = acknowledged.expect("it writes again");
    assert_eq!(acknowledged.len(), SENDS);
    traffic.check_repeats(&acknowledged).await;
    traffic.check_arrived(&acknowledged).await;
    assert!(!process.log().contains("panicked"), "{}", process.log());
}
