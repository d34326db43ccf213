//! Two servers talk, and each is killed (SIGKILL) in the middle of 5,000 messages both ways: all of them stand on both
//! sides exactly once, whichever of the two was sending or receiving at that moment.

use maru_tests::{Engine, TestProcess, two_sites};
use tokio::sync::watch;

use super::talk::Talk;

const USERS_OF_EACH: usize = 5;
const MESSAGES_OF_EACH: usize = 500;

/// After how many acknowledged messages which server is killed.
const KILLS: [(usize, usize); 2] = [(1_500, 0), (3_000, 1)];

/// Nothing is skipped: everything is to come by the log.
const ALL_BY_LOG: &str = "[federation]\nbacklog_events = 10000";

/// What a returning server missed is beyond the threshold, so most of it is fetched.
const MOST_SKIPPED: &str = "[federation]\nbacklog_events = 100";

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_on_both_sides() {
    Box::pin(killed_servers_lose_and_double_nothing(
        [Engine::Sqlite; 2],
        ALL_BY_LOG,
    ))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_on_one_side() {
    Box::pin(killed_servers_lose_and_double_nothing(
        [Engine::Sqlite, Engine::Postgres],
        ALL_BY_LOG,
    ))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_backlog_threshold() {
    Box::pin(killed_servers_lose_and_double_nothing(
        [Engine::Sqlite; 2],
        MOST_SKIPPED,
    ))
    .await;
}

async fn killed_servers_lose_and_double_nothing(engines: [Engine; 2], configuration: &str) {
    let servers = two_sites(engines, configuration).await;
    let talk = Talk::prepare(&servers, USERS_OF_EACH).await;
    let (said, mut progress) = watch::channel(0);
    let speaking = talk.speak(MESSAGES_OF_EACH, &said);
    let killing = async {
        let mut servers = servers;
        for (after, side) in KILLS {
            progress.wait_for(|said| *said >= after).await.unwrap();
            servers = kill(servers, side).await;
            talk.moved(side, &servers[side]);
        }
        servers
    };
    let (said, servers) = tokio::join!(speaking, killing);
    assert_eq!(said.len(), 2 * USERS_OF_EACH * MESSAGES_OF_EACH);
    talk.check_arrived(&said).await;
    for server in &servers {
        assert!(!server.log().contains("panicked"), "{}", server.log());
    }
}

/// Kills one of the servers and starts it again.
async fn kill(servers: [TestProcess; 2], side: usize) -> [TestProcess; 2] {
    let [mut first, mut second] = servers;
    match side {
        0 => {
            first.kill().await;
            [first.restart().await, second]
        }
        _ => {
            second.kill().await;
            [first, second.restart().await]
        }
    }
}
