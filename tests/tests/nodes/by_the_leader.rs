//! What needs another homeserver, asked at a node that does not speak with any: the one that does has it done.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Method, Request, header};
use maru::data_folder::Keys;
use maru_federation::link::frames::FrameReader;
use maru_federation::link::{CloseReason, Link, LinkError, Transport};
use maru_federation::quic::{BoundSocket, Quic};
use maru_protocol::key::SecretKey;
use maru_protocol::wire::nodes::FromLeader;
use maru_tests::process::{TestProcess, binary};
use maru_tests::user::{User, encode, texts};
use maru_tests::waiting::look_for;
use maru_tests::{Engine, TestServer};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::process::Command;
use tokio::time::timeout;

use super::led::{add_peer, say};

const LINKED: [&str; 4] = [
    "--federation-listen",
    "127.0.0.1:0",
    "--node-listen",
    "127.0.0.1:0",
];

/// Two nodes of one homeserver, of which the first leads, and another homeserver that they know.
struct Nodes {
    elsewhere: TestServer,
    one: TestProcess,
    two: TestProcess,
}

impl Nodes {
    async fn start() -> Self {
        let elsewhere = TestServer::start().await;
        let one = TestProcess::start(Engine::Postgres, &LINKED).await;
        add_peer(&one, &elsewhere).await;
        let flags = [&LINKED[..], &["--node-name", "two"]].concat();
        let two = TestProcess::start_on(one.data().beside(), &flags).await;
        assert!(!two.log().contains("federation listening"), "{}", two.log());
        Self { elsewhere, one, two }
    }

    fn name(&self) -> String {
        self.elsewhere.name().to_owned()
    }
}

/// What `maru peer` says on the machine of a node.
async fn peer(node: &TestProcess, arguments: &[&str]) -> String {
    let mut command = Command::new(binary());
    command.arg("peer").args(arguments).arg("--data");
    let output = command.arg(node.data().folder()).output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

async fn upload(user: &User, body: &[u8]) -> String {
    let request = Request::builder()
        .method(Method::POST)
        .uri("/_matrix/media/v3/upload?filename=file")
        .header(header::AUTHORIZATION, format!("Bearer {}", user.token))
        .header(header::CONTENT_TYPE, "image/webp")
        .header(header::CONTENT_LENGTH, body.len());
    let body = Bytes::copy_from_slice(body);
    let reply = user.api.send(request.body(body).unwrap()).await.unwrap().ok();
    let uri = reply["content_uri"].as_str().unwrap();
    uri.strip_prefix("mxc://").unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_does_what_needs_another_homeserver() {
    let nodes = Nodes::start().await;
    let (name, two) = (nodes.name(), &nodes.two);
    let bob = nodes.elsewhere.user("bob").await;
    let named =
        json!({ "preset": "public_chat", "visibility": "public", "room_alias_name": "hall", "name": "Hall" });
    let room = bob.create_room(named).await;
    for number in 0..130 {
        bob.send(&room, &format!("message {number}")).await;
    }
    let alice = two.user("alice").await;

    // A profile, an alias, the directory, a file.
    let profile = alice.get(&format!("profile/{}", bob.id)).await.ok();
    assert_eq!(
        profile["displayname"],
        bob.get(&format!("profile/{}", bob.id)).await.ok()["displayname"]
    );
    let alias = format!("#hall:{name}");
    let found = alice
        .get(&format!("directory/room/{}", encode(&alias)))
        .await
        .ok();
    assert_eq!(found["room_id"], json!(room));
    let listed = alice
        .get(&format!("publicRooms?server={}", encode(&name)))
        .await
        .ok();
    assert_eq!(listed["chunk"][0]["room_id"], json!(room));
    let body: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let file = upload(&bob, &body).await;
    let reply = alice
        .get(&format!("/_matrix/client/v1/media/download/{file}"))
        .await;
    assert_eq!((reply.status.as_u16(), reply.body[..] == *body), (200, true));
    let nothing = alice
        .get(&format!("/_matrix/client/v1/media/download/{name}/nothing"))
        .await;
    nothing.refused(404, "M_NOT_FOUND");

    // Into a room by its alias, its past, messages both ways.
    alice
        .post(&format!("join/{}", encode(&alias)), json!({}))
        .await
        .ok();
    let past = texts(&alice.history(&room).await);
    let said: Vec<String> = (0..130).map(|number| format!("message {number}")).collect();
    assert_eq!(past, said);
    say(&bob, &room, &alice, "to the node that does not lead").await;
    say(&alice, &room, &bob, "and back").await;

    // Keys of devices.
    let keys = json!({ "device_keys": {
        "user_id": bob.id, "device_id": bob.device, "algorithms": [],
        "keys": { format!("ed25519:{}", bob.device): "key" },
        "signatures": { bob.id.clone(): { format!("ed25519:{}", bob.device): "signature" } },
    } });
    bob.post("keys/upload", keys).await.ok();
    let asked = json!({ "device_keys": { bob.id.clone(): [] } });
    let found = alice.post("keys/query", asked).await.ok();
    assert_eq!(found["failures"], Value::Null, "{found}");
    assert_eq!(
        found["device_keys"][&bob.id][&bob.device]["user_id"],
        json!(bob.id)
    );

    // An invitation, and a leave.
    let own = alice.create_room(json!({ "preset": "private_chat" })).await;
    alice.invite(&own, &bob).await;
    bob.is_invited(&own).await;
    bob.join_via(&own, alice.id.split_once(':').unwrap().1).await.ok();
    alice.sees_member(&own, &bob, "join").await;
    alice.leave(&room).await;
    bob.sees_member(&room, &alice, "leave").await;
    assert!(!two.log().contains("panicked") && !nodes.one.log().contains("panicked"));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_in_by_any_node_while_much_is_said_misses_nothing() {
    let nodes = Nodes::start().await;
    let name = nodes.name();
    let bob = nodes.elsewhere.user("bob").await;
    let room = bob.create_room(json!({ "preset": "public_chat" })).await;
    let users = [
        nodes.two.user("alice").await,
        nodes.one.user("carol").await,
        nodes.two.user("dave").await,
    ];
    let talk = async {
        for number in 0..60 {
            bob.send(&room, &format!("message {number}")).await;
        }
    };
    let coming = join_all(users.iter().map(|user| user.join_via(&room, &name)));
    let ((), came) = tokio::join!(talk, coming);
    came.into_iter().for_each(|reply| drop(reply.ok()));
    bob.send(&room, "the last").await;
    let mut said: Vec<String> = (0..60).map(|number| format!("message {number}")).collect();
    said.push("the last".to_owned());
    for user in &users {
        user.hears(&room, "the last").await;
        assert_eq!(texts(&user.history(&room).await), said);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_admin_says_of_a_peer_on_any_node_is_heeded_by_the_one_that_leads() {
    let elsewhere = TestServer::start().await;
    let one = TestProcess::start(Engine::Postgres, &LINKED).await;
    let flags = [&LINKED[..], &["--node-name", "two"]].concat();
    let mut two = TestProcess::start_on(one.data().beside(), &flags).await;
    let name = elsewhere.name();
    let bob = elsewhere.user("bob").await;
    let room = bob.create_room(json!({ "preset": "public_chat" })).await;

    add_peer(&two, &elsewhere).await;
    let alice = one.user("alice").await;
    alice.join_via(&room, name).await.ok();
    say(&bob, &room, &alice, "by an address that the other node was told").await;
    assert!(
        peer(&one, &["list"]).await.contains("connected for"),
        "the one that leads has the connection"
    );

    peer(&two, &["remove", name]).await;
    look_for("a removed peer", async || {
        let listed = peer(&one, &["list"]).await;
        let is_named = listed.contains("named by the admin");
        (!is_named).then_some(()).ok_or(listed)
    })
    .await;

    // What is said to the one that leads, the next one knows.
    add_peer(&one, &elsewhere).await;
    drop(one);
    two.logged("this node speaks with other homeservers now").await;
    assert!(peer(&two, &["list"]).await.contains("named by the admin"));
    let alice = alice.on(two.api());
    say(&alice, &room, &bob, "by the next").await;
    say(&bob, &room, &alice, "and back").await;
    two.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_the_leader_dies_under_is_refused_and_may_be_made_again() {
    let mut nodes = Nodes::start().await;
    let bob = nodes.elsewhere.user("bob").await;
    let body: Vec<u8> = (0..400_000_u32).map(|n| (n % 249) as u8).collect();
    let (first, second) = (upload(&bob, &body).await, upload(&bob, &body).await);
    let alice = nodes.two.user("alice").await;
    let download = async |file: &str| {
        alice
            .get(&format!("/_matrix/client/v1/media/download/{file}"))
            .await
    };
    assert_eq!(download(&first).await.status, 200);

    // The other homeserver stands still, so that the request is on its way when the leader dies.
    nodes.one.pause();
    let waiting = {
        let (alice, second) = (alice.clone(), second.clone());
        tokio::spawn(async move {
            alice
                .get(&format!("/_matrix/client/v1/media/download/{second}"))
                .await
        })
    };
    nodes.one.kill().await;
    let answered = timeout(Duration::from_secs(30), waiting).await.unwrap().unwrap();
    // Refused, unless the next one led before the request had waited for too long.
    if answered.status != 200 {
        assert!(
            [502, 503, 504].contains(&answered.status.as_u16()),
            "{answered:?}"
        );
    }
    nodes
        .two
        .logged("this node speaks with other homeservers now")
        .await;
    let again = download(&second).await;
    assert_eq!((again.status.as_u16(), again.body[..] == *body), (200, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_overtaken_leads_again_when_its_turn_comes() {
    let mut nodes = Nodes::start().await;
    let bob = nodes.elsewhere.user("bob").await;
    let room = bob.create_room(json!({ "preset": "public_chat" })).await;
    let alice = nodes.one.user("alice").await;
    alice.join_via(&room, &nodes.name()).await.ok();
    say(&bob, &room, &alice, "by the first").await;

    nodes.one.pause();
    nodes
        .two
        .logged("this node speaks with other homeservers now")
        .await;
    let alice = alice.on(nodes.two.api());
    say(&bob, &room, &alice, "by the second").await;
    say(&alice, &room, &bob, "and back").await;

    nodes.one.resume();
    nodes
        .one
        .logged("another node speaks with other homeservers")
        .await;
    nodes
        .one
        .logged("has the node that leads speak with other homeservers")
        .await;
    let alice = alice.on(nodes.one.api());
    let profile = format!("profile/{}", nodes.elsewhere.user("carol").await.id);
    alice.get(&profile).await.ok();

    nodes.two.kill().await;
    nodes
        .one
        .logged("this node speaks with other homeservers now")
        .await;
    say(&bob, &room, &alice, "by the first again").await;
    say(&alice, &room, &bob, "and back").await;
    alice
        .get(&format!("profile/{}", nodes.elsewhere.user("dave").await.id))
        .await
        .ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_get_nothing_from_the_address_for_nodes() {
    let nodes = Nodes::start().await;
    let address = nodes.one.node_address();
    let keys = Keys::load_or_make(nodes.one.data().folder()).unwrap();
    let socket = || BoundSocket::bind("127.0.0.1:0".parse().unwrap()).unwrap();

    // Bytes that are none of QUIC's, and the beginnings of handshakes that do not go on.
    let noise = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for length in (1..1200).step_by(7) {
        let bytes: Vec<u8> = (0..length).map(|n| (n * 31 % 256) as u8).collect();
        noise.send_to(&bytes, address).await.unwrap();
    }
    // Somebody with another key; and this homeserver itself, as it speaks with other homeservers.
    let other = Quic::between_nodes(&SecretKey::from_seed(&[9; 32]), socket()).unwrap();
    assert_refused(other.dial(address, None).await).await;
    let peer = Quic::new(&keys.tls, socket()).unwrap();
    assert_refused(peer.dial(address, None).await).await;

    // A node that says what nobody understands is not answered, and the others are.
    let node = Quic::between_nodes(&keys.tls, socket()).unwrap();
    let link = node.dial(address, None).await.unwrap();
    link.admit();
    let (mut outgoing, incoming) = link.open_request().await.unwrap();
    outgoing.write_all(&[0, 0, 0, 3, 0x82, 0x61, 0x61]).await.unwrap();
    outgoing.shutdown().await.unwrap();
    let mut reader = FrameReader::new(incoming);
    let answer = reader.next::<FromLeader>(1000).await;
    assert!(!matches!(answer, Ok(Some(_))), "{answer:?}");
    let bob = nodes.elsewhere.user("bob").await;
    let alice = nodes.two.user("alice").await;
    alice.get(&format!("profile/{}", bob.id)).await.ok();
    assert!(!nodes.one.log().contains("panicked"));
}

/// Checks that a link is of no use: it was not made, or nothing is answered on it.
async fn assert_refused(dialled: Result<Arc<dyn Link>, LinkError>) {
    let Ok(link) = dialled else { return };
    // A dialler's handshake ends before the other side has judged it.
    let why = timeout(Duration::from_secs(20), link.closed()).await.unwrap();
    assert!(matches!(why, CloseReason::Transport(_)), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_slowly_holds_up_nobody() {
    let nodes = Nodes::start().await;
    let bob = nodes.elsewhere.user("bob").await;
    let alice = nodes.two.user("alice").await;
    let body: Vec<u8> = (0..4_000_000_u32).map(|n| (n % 247) as u8).collect();
    // More than one server may be asked for at the same time.
    let mut slow = Vec::new();
    for _ in 0..20 {
        let file = upload(&bob, &body).await;
        let address = nodes.two.base().strip_prefix("http://").unwrap();
        let mut socket = TcpStream::connect(address).await.unwrap();
        let request = format!(
            "GET /_matrix/client/v1/media/download/{file} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n",
            alice.token
        );
        socket.write_all(request.as_bytes()).await.unwrap();
        // It is being answered.
        let mut first = [0; 15];
        socket.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 200 OK");
        slow.push(socket);
    }
    let profile = format!("profile/{}", bob.id);
    let answered = timeout(Duration::from_secs(20), alice.get(&profile)).await;
    answered.unwrap().ok();
    for mut socket in slow {
        let mut rest = vec![0; body.len()];
        socket.read_exact(&mut rest).await.unwrap();
    }
}
