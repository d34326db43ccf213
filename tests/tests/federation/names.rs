//! Who is who: keys that change in order, domains, keys that change otherwise, and who is let in at all.

use maru::admin::{AdminCommand, AdminReply, PeerCommand, PeerLine, execute};
use maru::clock::Clock;
use maru::config::Config;
use maru::data_folder::DataFolder;
use maru_tests::web::TestWeb;
use maru_tests::{Engine, TestServer, federate, for_both_engines};
use serde_json::json;

for_both_engines!(another_root_key_is_refused_until_the_admin_accepts_it);

async fn named(name: &str) -> TestServer {
    named_on(Engine::Sqlite, name).await
}

async fn named_on(engine: Engine, name: &str) -> TestServer {
    TestServer::start_with(engine, |config| config.server_name = Some(name.to_owned())).await
}

async fn command(server: &TestServer, command: PeerCommand) -> AdminReply {
    execute(server.parts(), AdminCommand::Peer(command)).await
}

async fn ping(from: &TestServer, to: &TestServer) -> AdminReply {
    let name = to.name().to_owned();
    command(from, PeerCommand::Ping { name }).await
}

/// Pings until it succeeds: a peer may still be dialled where it was before it was restarted.
async fn reaches(from: &TestServer, to: &TestServer) {
    let mut last = ping(from, to).await;
    for _ in 0..10 {
        if matches!(last, AdminReply::Done { .. }) {
            return;
        }
        last = ping(from, to).await;
    }
    panic!("{last:?}");
}

/// A peer as `maru peer list` shows it, and how often any was refused for a reason.
async fn listed(server: &TestServer, name: &str) -> (Option<PeerLine>, impl Fn(&str) -> u64 + use<>) {
    let AdminReply::Peers { peers, refusals } = command(server, PeerCommand::List).await else {
        panic!("no list");
    };
    let peer = peers.into_iter().find(|peer| peer.name == name);
    (peer, move |reason: &str| {
        refusals.get(reason).copied().unwrap_or(0)
    })
}

#[track_caller]
fn is_done(reply: &AdminReply) {
    assert!(matches!(reply, AdminReply::Done { .. }), "{reply:?}");
}

#[track_caller]
fn refused(reply: &AdminReply, why: &str) {
    let AdminReply::Refused { reason } = reply else {
        panic!("{reply:?}");
    };
    assert!(reason.contains(why), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_rotated_key_has_signed_still_verifies_elsewhere() {
    let [a, b, c] = TestServer::start_several().await;
    federate(&[&a, &b]).await;
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join_via(&room, a.name()).await.ok();
    alice.send(&room, "by the first key").await;
    bob.hears(&room, "by the first key").await;

    let mut folder = DataFolder::open(a.data().folder()).unwrap();
    let before = folder.keys().signing.id.clone();
    let rotated = folder.rotate_signing_key(Clock::System.now_ms()).unwrap();
    assert_ne!(rotated.signing.id, before);
    drop(folder);
    let a = a.restart().await;
    let alice = alice.on(a.api());
    let address = a.open_federation().await;
    b.knows(&a, address);
    alice.send(&room, "by the second key").await;
    reaches(&b, &a).await;
    bob.hears(&room, "by the second key").await;
    let topic = json!({ "topic": "keys" });
    alice
        .put(&format!("rooms/{room}/state/m.room.topic"), topic)
        .await
        .ok();
    alice.send(&room, "there is a topic").await;
    bob.hears(&room, "there is a topic").await;

    // Somebody who has never met the first server verifies what it signed before and after, through the second.
    a.parts().peers.stop().await;
    c.open_federation().await;
    let address = b.parts().peers.local_address().unwrap();
    c.knows(&b, address);
    let carol = c.user("carol").await;
    carol.join_via(&room, b.name()).await.ok();
    for signed in ["m.room.create", "m.room.topic"] {
        carol.get(&format!("rooms/{room}/state/{signed}")).await.ok();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn domains_are_proven_by_their_web_servers_once() {
    let (a, b) = (named("a.example").await, named("b.example").await);
    let web = TestWeb::of(&[&a, &b]).await;
    web.show(&a);
    web.show(&b);
    federate(&[&a, &b]).await;
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join_via(&room, a.name()).await.ok();
    bob.send(&room, "hello").await;
    alice.hears(&room, "hello").await;
    assert_eq!(web.asked(), 2, "each has asked for the other");
    // What was proven stays so, over restarts and without the web.
    let a = a.restart().await;
    let address = a.open_federation().await;
    b.knows(&a, address);
    reaches(&b, &a).await;
    assert_eq!(web.asked(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_cannot_be_proven_may_only_say_hello() {
    let (a, b) = (named("a.example").await, named("b.example").await);
    let web = TestWeb::of(&[&b]).await;
    web.show(&a);
    web.show(&b);
    federate(&[&a, &b]).await;
    for _ in 0..2 {
        refused(&ping(&a, &b).await, "unavailable");
    }
    assert_eq!(
        web.asked(),
        2,
        "a failure is kept: b asks for a once, and a for b"
    );
    let (peer, refusals) = listed(&b, "a.example").await;
    assert!(peer.is_none_or(|peer| peer.root_key.is_none() && peer.state != "connected"));
    assert!(refusals("unavailable") > 0);
    let wish = PeerCommand::Add {
        name: "a.example".to_owned(),
        addresses: Vec::new(),
        key: None,
    };
    refused(&command(&b, wish).await, "cannot be looked up");
    let (own, _) = listed(&a, "b.example").await;
    let wish = PeerCommand::Add {
        name: "a.example".to_owned(),
        addresses: vec!["localhost:1".to_owned()],
        key: Some(root_key(&a)),
    };
    is_done(&command(&b, wish).await);
    assert_eq!(own.unwrap().root_key, Some(root_key(&b)));
    is_done(&ping(&a, &b).await);
}

fn root_key(server: &TestServer) -> String {
    let record = server.parts().peers.own_record().unwrap().verify().unwrap();
    record.root_key.to_base64()
}

async fn another_root_key_is_refused_until_the_admin_accepts_it(engine: Engine) {
    let (a, b) = (named_on(engine, "a.example").await, named("b.example").await);
    let web = TestWeb::of(&[&a, &b]).await;
    web.show(&a);
    web.show(&b);
    federate(&[&a, &b]).await;
    is_done(&ping(&a, &b).await);
    b.parts().peers.stop().await;

    let other = named("b.example").await;
    web.show(&other);
    let address = other.open_federation().await;
    a.knows(&other, address);
    other.knows(&a, a.parts().peers.local_address().unwrap());
    refused(&ping(&other, &a).await, "key_changed");
    let (peer, refusals) = listed(&a, "b.example").await;
    let peer = peer.unwrap();
    assert_eq!(peer.root_key, Some(root_key(&b)));
    assert_eq!(peer.refused.unwrap().root_key, root_key(&other));
    assert!(refusals("key_changed") > 0);

    let wish = PeerCommand::Trust {
        name: "b.example".to_owned(),
        key: root_key(&other),
    };
    is_done(&command(&a, wish).await);
    is_done(&ping(&other, &a).await);
    let (peer, _) = listed(&a, "b.example").await;
    let peer = peer.unwrap();
    assert_eq!((peer.root_key, peer.refused), (Some(root_key(&other)), None));
    // The word of the admin outlives a restart.
    let wish = PeerCommand::Add {
        name: "b.example".to_owned(),
        addresses: vec![address.to_string()],
        key: None,
    };
    is_done(&command(&a, wish).await);
    let a = a.restart().await;
    a.open_federation().await;
    reaches(&a, &other).await;
    let wish = PeerCommand::Trust {
        name: TestServer::start().await.name().to_owned(),
        key: root_key(&other),
    };
    refused(&command(&a, wish).await, "the key that it spells");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lists_decide_who_is_spoken_with() {
    let a = TestServer::start().await;
    let name = a.parts().identity.server_name.clone();
    let with = |change: fn(&mut Config, ruma::OwnedServerName)| {
        let name = name.clone();
        TestServer::start_with(Engine::Sqlite, move |config| change(config, name))
    };
    let denying = with(|config, name| config.federation.deny = vec![name]).await;
    let allowing = with(|config, name| config.federation.allow = vec![name]).await;
    let allowing_others = with(|config, _| {
        config.federation.allow = vec![ruma::owned_server_name!("c.example")];
    })
    .await;
    let both = with(|config, name| {
        config.federation.allow = vec![name.clone()];
        config.federation.deny = vec![name];
    })
    .await;
    federate(&[&a, &denying, &allowing, &allowing_others, &both]).await;
    is_done(&ping(&a, &allowing).await);
    let alice = a.user("alice").await;
    for closed in [&denying, &allowing_others, &both] {
        refused(&ping(&a, closed).await, "denied");
        let (_, refusals) = listed(closed, a.name()).await;
        assert!(refusals("denied") > 0);
        let room = closed
            .user("bob")
            .await
            .create_room(json!({ "preset": "public_chat" }))
            .await;
        let path = format!("/_matrix/client/v3/join/{room}?via={}", closed.name());
        assert_ne!(alice.post(&path, json!({})).await.status, 200);
        // Nor does it go there itself.
        refused(&ping(closed, &a).await, "does not speak with");
    }
}
