//! The link to PostgreSQL goes dead during sends, and neither side is told: the database believes in the old session, which
//! holds the lock. The server gives it up, ends it and goes on; every request is answered in the meantime.

use std::time::Duration;

use futures_util::future::{Either, select};
use maru_tests::process::raise_open_files;
use maru_tests::user::encode;
use maru_tests::waiting::look_for;
use maru_tests::{Data, TestProcess};
use serde_json::json;
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

/// Two changes, each a transaction of its own: of one it is unknown whether it was committed, and the other waits behind.
#[tokio::test(flavor = "multi_thread")]
async fn who_waits_behind_a_commit_of_unknown_outcome_is_answered() {
    let (data, relay) = Data::over_relay().await;
    let mut process = TestProcess::start_on(data, &[]).await;
    let alice = process.user("alice").await;
    let room = alice.create_room(json!({})).await;
    let path = format!("devices/{}", encode(&alice.device));
    let rename = |name: &'static str| Box::pin(alice.put(&path, json!({ "display_name": name })));
    alice.send(&room, "before").await;

    relay.shut();
    let first = timeout(PATIENCE, select(rename("one"), rename("other"))).await;
    let (Either::Left((refused, unknown)) | Either::Right((refused, unknown))) =
        first.expect("one is answered while the database is away");
    refused.refused(503, "M_UNKNOWN");
    let message = alice.send_as(&room, "m.room.message", "t", json!({ "body": "again" }));
    let message = timeout(PATIENCE, message)
        .await
        .expect("whoever comes is answered too");
    message.refused(503, "M_UNKNOWN");
    relay.open();
    let known = timeout(PATIENCE, unknown)
        .await
        .expect("the outcome is known in the end");
    known.refused(503, "M_UNKNOWN");

    assert!(process.is_running(), "{}", process.log());
    look_for("it writes again", async || {
        let sent = alice.send_as(&room, "m.room.message", "t", json!({ "body": "again" }));
        let sent = sent.await;
        (sent.status == 200).then_some(()).ok_or(sent.status.to_string())
    })
    .await;
    rename("last").await.ok();
    assert_eq!(alice.get(&path).await.ok()["display_name"], "last");
    assert!(!process.log().contains("panicked"), "{}", process.log());
}
