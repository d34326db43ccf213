//! PostgreSQL itself is killed during sends: the server stays up, says so, and goes on when the database is back.

use http::Method;
use maru_tests::postgres::Cluster;
use maru_tests::process::raise_open_files;
use maru_tests::waiting::look_for;
use maru_tests::{Data, TestProcess};
use tokio::sync::watch;

use super::traffic::Traffic;

const SENDS: usize = 2_000;
const KILL_AFTER: usize = 400;

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_database_costs_time_and_nothing_else() {
    raise_open_files();
    let cluster = Cluster::start();
    let mut process = TestProcess::start_on(Data::on_cluster(&cluster), &[]).await;
    let traffic = Traffic::prepare(process.api(), 4, 4).await;

    let (progress, mut acknowledged) = watch::channel(0);
    let sending = traffic.send_all(traffic.sends(SENDS), &progress);
    let killing = async {
        acknowledged.wait_for(|count| *count >= KILL_AFTER).await.unwrap();
        cluster.kill();
    };
    // The changes of a commit whose outcome is unknown are answered once the database is back: not before, because they
    // may be stored.
    let back = async {
        killing.await;
        // Its children answer until they notice that it is gone.
        look_for("the database is away", async || {
            let ready = process.api().request(Method::GET, "/ready", None, None).await;
            (ready.status == 503)
                .then_some(())
                .ok_or(ready.status.to_string())
        })
        .await;
        let alive = process.api().request(Method::GET, "/health", None, None).await;
        assert_eq!(alive.status, 200, "the process lives");
        tokio::task::block_in_place(|| cluster.restart());
    };
    let (outcome, ()) = tokio::join!(sending, back);
    let (answered, refused) = (outcome.acknowledged.len(), outcome.refused.len());
    println!("{answered} messages acknowledged, {refused} refused while the database was away");
    assert!(outcome.unanswered.is_empty(), "every request is answered");
    for (_, reply) in &outcome.refused {
        reply.refused(503, "M_UNKNOWN");
    }

    assert!(process.is_running(), "{}", process.log());
    let acknowledged = traffic.send_until_done(outcome).await;
    assert_eq!(acknowledged.len(), SENDS);
    traffic.check_repeats(&acknowledged).await;
    traffic.check_arrived(&acknowledged).await;
    assert!(!process.log().contains("panicked"), "{}", process.log());
}
