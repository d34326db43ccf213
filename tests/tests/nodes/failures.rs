//! Three nodes as processes of their own on one PostgreSQL, with clients on all of them who talk all the time, while one thing
//! after the other goes wrong. Whatever it is, it costs time, and nothing else.

use std::time::Duration;

use futures_util::future::join_all;
use maru_tests::postgres::Cluster;
use maru_tests::process::raise_open_files;
use maru_tests::waiting::look_for;
use maru_tests::{Data, TestProcess};
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use super::clients::{Clients, Life};

/// How long a node is stopped.
const STOPPED: Duration = Duration::from_secs(10);

/// Within what all clients are served again after a node was killed.
const BACK: Duration = Duration::from_secs(5);

/// How long a node that stops while it has the turn may hold up the others: PostgreSQL takes the turn from it after three seconds.
const HELD_UP: Duration = Duration::from_secs(4);

/// What is allowed for beyond the limits, where the machine has other things to do: this many of the times in which everybody
/// says and hears something while nothing is wrong.
const SLOWNESS: u32 = 2;

/// Time for the end of a process that was asked to end.
const END: Duration = Duration::from_secs(30);

/// One if somebody waits for a transaction that has said nothing for a while, as that of a node does which was stopped in it.
const TURN_IS_STUCK: &str = "SELECT COUNT(*)::text FROM pg_stat_activity AS held \
    WHERE held.state = 'idle in transaction' AND clock_timestamp() - held.state_change > interval '500 ms' \
    AND EXISTS (SELECT 1 FROM pg_stat_activity AS waiting WHERE held.pid = ANY(pg_blocking_pids(waiting.pid)))";

/// Events that stand in their room before one that entered the log earlier.
const OUT_OF_ORDER: &str = "SELECT COUNT(*) FROM (SELECT place, lag(place) OVER (PARTITION BY room ORDER BY position) AS before \
    FROM events WHERE place IS NOT NULL) AS events WHERE before > place";

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_to_nodes_everybody_hears_everything_once_and_in_one_order() {
    raise_open_files();
    let cluster = Cluster::start();
    let first = TestProcess::start_on(Data::on_cluster(&cluster), &["--node-name", "one"]).await;
    let second = TestProcess::start_on(first.data().beside(), &["--node-name", "two"]).await;
    let third = TestProcess::start_on(first.data().beside(), &["--node-name", "three"]).await;
    let mut nodes = vec![first, second, third];
    let clients = Clients::start(&nodes).await;

    for number in 0..nodes.len() {
        kill(&mut nodes, number, &clients).await;
    }
    stop(&nodes, 1, &clients).await;
    restart_database(&mut nodes, &cluster, &clients).await;
    for number in 0..nodes.len() {
        terminate(&mut nodes, number, &clients).await;
    }

    let parted = nodes[0].data().number(OUT_OF_ORDER).await;
    assert_eq!(
        parted, 0,
        "events whose place in their room is not that in the log"
    );
    // Back with the own node too, after the last of them was started again.
    clients.go_home().await;
    clients.check().await;
    for node in &nodes {
        assert!(!node.log().contains("panicked"), "{}", node.log());
    }
}

/// Kills a node (SIGKILL) and starts it again.
async fn kill(nodes: &mut Vec<TestProcess>, number: usize, clients: &Clients) {
    let slow = clients.go_home().await * SLOWNESS;
    let moment = Instant::now();
    nodes[number].kill().await;
    let back = clients.back_after(moment).await;
    println!("node {number} killed: all clients back after {back:?}");
    tell(clients, number);
    assert!(back < BACK + slow, "clients were away for {back:?}");
    start_again(nodes, number, clients).await;
}

/// Stops a node (SIGSTOP) while it has the turn, for some time, and lets it go on.
async fn stop(nodes: &[TestProcess], number: usize, clients: &Clients) {
    let slow = clients.go_home().await * SLOWNESS;
    let node = &nodes[number];
    let others = || nodes.iter().enumerate().filter(|(other, _)| *other != number);
    // Somebody on each of the others who is patient.
    let patient = join_all(others().map(|(other, node)| async move {
        let user = node.user(&format!("patient{other}")).await;
        (user.create_room(json!({})).await, user)
    }));
    let patient = patient.await;
    let moment = stop_in_its_turn(node).await;
    join_all(patient.iter().map(|(room, user)| user.send(room, "at last"))).await;
    let held_up = moment.elapsed();
    println!("node {number} stopped: others held up for {held_up:?}");
    assert!(
        held_up < HELD_UP + slow,
        "other nodes were held up for {held_up:?}"
    );
    let back = clients.back_after(moment).await;
    println!("all clients back after {back:?}");
    assert!(back < HELD_UP + BACK + slow, "clients were away for {back:?}");
    sleep(STOPPED.saturating_sub(moment.elapsed())).await;
    tell(clients, number);
    node.resume();
}

/// Stops a node at a moment when it has the turn: whoever wants to commit has to wait for it.
async fn stop_in_its_turn(node: &TestProcess) -> Instant {
    loop {
        let moment = Instant::now();
        node.pause();
        let position = node.data().number("SELECT position::text FROM log").await;
        let is_stuck = look_for("whether the turn is stuck", async || {
            if node.data().number(TURN_IS_STUCK).await > 0 {
                return Ok(true);
            }
            // Others commit: it has not got it.
            let now = node.data().number("SELECT position::text FROM log").await;
            (now > position).then_some(false).ok_or(now.to_string())
        });
        if is_stuck.await {
            return moment;
        }
        node.resume();
    }
}

/// Kills PostgreSQL and starts it again.
async fn restart_database(nodes: &mut [TestProcess], cluster: &Cluster, clients: &Clients) {
    let slow = clients.go_home().await * SLOWNESS;
    cluster.kill();
    tokio::task::block_in_place(|| cluster.restart());
    let back = clients.back_after(Instant::now()).await;
    println!("PostgreSQL killed: all clients back {back:?} after its start");
    tell(clients, 0);
    assert!(back < BACK + slow, "clients were away for {back:?}");
    for node in nodes {
        assert!(node.is_running(), "{}", node.log());
    }
}

/// Asks a node to end (SIGTERM) and starts it again.
async fn terminate(nodes: &mut Vec<TestProcess>, number: usize, clients: &Clients) {
    let slow = clients.go_home().await * SLOWNESS;
    let moment = Instant::now();
    nodes[number].terminate();
    let ended = timeout(END, nodes[number].ended()).await;
    let ended = ended.expect("it ends");
    assert!(ended.success(), "{ended}: {}", nodes[number].log());
    println!("node {number} ended after {:?}", moment.elapsed());
    let back = clients.back_after(Instant::now()).await;
    println!("all clients back after {back:?}");
    tell(clients, number);
    let [of_it, others] = clients.lives(number);
    let waited = longest(&of_it, |life| life.longest_send).max(longest(&others, |life| life.longest_send));
    assert!(waited < BACK + slow, "a client waited for {waited:?}");
    start_again(nodes, number, clients).await;
}

async fn start_again(nodes: &mut Vec<TestProcess>, number: usize, clients: &Clients) {
    let node = nodes.remove(number).restart().await;
    clients.moved(number, &node);
    nodes.insert(number, node);
}

fn longest(lives: &[Life], of: impl Fn(&Life) -> Duration) -> Duration {
    lives.iter().map(of).max().unwrap_or_default()
}

/// Prints how long clients have waited.
fn tell(clients: &Clients, node: usize) {
    let [of_it, others] = clients.lives(node);
    for (whose, lives) in [("its", of_it), ("other", others)] {
        println!(
            "    {whose} clients: a message took {:?} at most, a sync was silent for {:?} at most",
            longest(&lives, |life| life.longest_send),
            longest(&lives, |life| life.longest_silence)
        );
    }
}
