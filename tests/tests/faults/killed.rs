//! SIGKILL during 2,000 concurrent sends: nothing acknowledged is lost, nothing is doubled.

use maru_tests::process::raise_open_files;
use maru_tests::{Engine, TestProcess};
use tokio::sync::watch;

use super::traffic::Traffic;

const SENDS: usize = 2_000;

/// Acknowledgements after which the process is killed.
const KILL_AFTER: usize = 400;

#[tokio::test(flavor = "multi_thread")]
async fn sqlite() {
    Box::pin(a_killed_server_loses_and_doubles_nothing(Engine::Sqlite)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres() {
    Box::pin(a_killed_server_loses_and_doubles_nothing(Engine::Postgres)).await;
}

async fn a_killed_server_loses_and_doubles_nothing(engine: Engine) {
    raise_open_files();
    let mut process = TestProcess::start(engine, &[]).await;
    let traffic = Traffic::prepare(process.api(), 4, 4).await;

    let (progress, mut acknowledged) = watch::channel(0);
    let sending = traffic.send_all(traffic.sends(SENDS), &progress);
    let killing = async {
        acknowledged.wait_for(|count| *count >= KILL_AFTER).await.unwrap();
        process.kill().await;
    };
    let (outcome, ()) = tokio::join!(sending, killing);
    let (answered, open) = (outcome.acknowledged.len(), outcome.open().len());
    println!("{answered} messages acknowledged before the kill, {open} open");
    assert_eq!(answered + open, SENDS);
    assert!(open > 0, "the kill came too late to test anything");
    assert!(outcome.refused.is_empty(), "{:?}", outcome.refused.first());

    let process = process.restart().await;
    let traffic = traffic.on(process.api());
    let acknowledged = traffic.send_until_done(outcome).await;
    assert_eq!(acknowledged.len(), SENDS);
    traffic.check_repeats(&acknowledged).await;
    traffic.check_arrived(&acknowledged).await;
}
