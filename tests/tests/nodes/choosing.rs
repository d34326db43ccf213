//! Which node a client is told to use, and what the admin sees of nodes.

use http::Method;
use maru::admin::{AdminCommand, AdminReply, NodeCommand, NodeLine, NodeState, execute};
use maru::config::{Config, Setting};
use maru_tests::waiting::look_for;
use maru_tests::{Engine, TestServer, User, on_both_engines};
use serde_json::{Value, json};

on_both_engines!(a_node_alone_is_listed_and_sends_nobody_away);

const NODES: &str = "/_matrix/client/unstable/maru/nodes";

/// Gives a node an address and a zone.
fn placed(address: &str, zone: &str) -> impl FnOnce(&mut Config) {
    let (address, zone) = (Setting::read(address).unwrap(), zone.to_owned());
    move |config| {
        config.node_address = address;
        config.zone = Some(zone);
    }
}

/// The names that somebody is told, the best first.
async fn told(user: &User, query: &str) -> Vec<String> {
    let answer = user.get(&format!("{NODES}{query}")).await.ok();
    let nodes = answer["nodes"].as_array().unwrap().iter();
    nodes
        .map(|node| node["name"].as_str().unwrap().to_owned())
        .collect()
}

async fn logged_in(server: &TestServer, user: &User) -> Value {
    let login = json!({
        "type": "m.login.password",
        "identifier": { "type": "m.id.user", "user": user.name },
        "password": user.password,
    });
    let path = "/_matrix/client/v3/login";
    server.request(Method::POST, path, Some(login)).await.ok()
}

async fn listed(server: &TestServer) -> Vec<NodeLine> {
    match execute(server.parts(), AdminCommand::Node(NodeCommand::List)).await {
        AdminReply::Nodes { nodes } => nodes,
        other => panic!("{other:?}"),
    }
}

async fn a_node_alone_is_listed_and_sends_nobody_away(server: TestServer) {
    let alice = server.user("alice").await;
    let line = look_for("the node has looked", async || {
        listed(&server).await.pop().ok_or_else(String::new)
    });
    let line = line.await;
    assert_eq!((&*line.name, line.state), ("main", NodeState::Alive));
    assert_eq!(told(&alice, "").await, [""; 0], "it has no address");
    assert_eq!(logged_in(&server, &alice).await["well_known"], Value::Null);
    server
        .request(Method::GET, NODES, None)
        .await
        .refused(401, "M_MISSING_TOKEN");
    server.parts().drain().await;
    assert!(!server.parts().notifier.is_leaving(), "there is nowhere to go");
    let ready = server.request(Method::GET, "/ready", None).await;
    assert_eq!(ready.status, 503);
    assert_eq!(listed(&server).await[0].state, NodeState::Draining);
}

#[tokio::test]
async fn a_client_is_told_the_nearest_node_and_of_those_the_least_loaded() {
    let seoul = placed("https://one.example/", "asia/seoul");
    let one = TestServer::start_with(Engine::Postgres, seoul).await;
    let two = one
        .start_node_with("two", placed("https://two.example", "europe/rome"))
        .await;
    let three = one
        .start_node_with("three", placed("https://three.example", "europe/oslo"))
        .await;
    let alice = one.user("alice").await;
    let there = alice.on(two.api());
    look_for("all are seen", async || {
        let told = [told(&alice, "").await, told(&there, "").await];
        let are_all = told.iter().all(|told| told.len() == 3);
        are_all.then_some(()).ok_or(format!("{told:?}"))
    })
    .await;
    assert_eq!(
        told(&alice, "").await[0],
        "main",
        "the node that is asked is the nearest"
    );
    assert_eq!(told(&there, "?zone=europe/oslo/2").await[0], "three");
    assert_eq!(told(&there, "?zone=asia").await[0], "main");
    assert_eq!(
        logged_in(&one, &alice).await["well_known"]["m.homeserver"]["base_url"],
        "https://one.example"
    );

    // One who listens is load, for everybody within a second or two.
    let mut since = there.sync(None).await.next();
    let waiting = tokio::spawn({
        let there = there.clone();
        async move {
            loop {
                since = there.wait(&since).await.next();
            }
        }
    });
    look_for("the load", async || {
        let answer = alice.get(NODES).await.ok();
        let nodes = answer["nodes"].as_array().unwrap().clone();
        let node = nodes.iter().find(|node| node["name"] == "two").unwrap();
        (node["load"] == 1).then_some(()).ok_or(answer.to_string())
    })
    .await;
    assert_eq!(told(&alice, "?zone=europe").await, ["three", "two", "main"]);

    // What a node holds is shown, and what drains or stops is named no more.
    let held = three.parts().nodes.want("tried");
    let holds = async || {
        let lines = listed(&one).await;
        let line = lines.iter().find(|line| line.name == "three").cloned();
        line.ok_or(format!("{lines:?}"))
    };
    look_for("the lease", async || {
        let line = holds().await?;
        let has = line.leases.contains(&"tried".to_owned());
        has.then_some(()).ok_or(format!("{line:?}"))
    })
    .await;
    three.parts().nodes.drain().await.unwrap();
    assert_eq!(*held.borrow(), None);
    look_for("the end", async || {
        let line = holds().await?;
        let drains = line.state == NodeState::Draining && line.leases.is_empty();
        drains.then_some(()).ok_or(format!("{line:?}"))
    })
    .await;
    assert_eq!(told(&alice, "?zone=europe").await, ["two", "main"]);
    waiting.abort();
}
