//! Files of other servers: fetched once, kept while there is room.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::{BoxFuture, join_all};
use futures_util::stream;
use http::{Method, Request, header};
use maru::media::{Fetched, Media, MediaLimits, OtherServers, Storage};
use maru::refusal::Refusal;
use maru_tests::picture::{dimensions, png};
use maru_tests::{Engine, Reply, TestServer, User, federate, for_both_engines};
use ruma::ServerName;

for_both_engines!(the_longest_unused_go_when_there_is_no_room);

async fn upload(user: &User, content_type: &str, body: &[u8]) -> String {
    let request = Request::builder()
        .method(Method::POST)
        .uri("/_matrix/media/v3/upload?filename=file")
        .header(header::AUTHORIZATION, format!("Bearer {}", user.token))
        .header(header::CONTENT_TYPE, content_type)
        .header(header::CONTENT_LENGTH, body.len());
    let body = Bytes::copy_from_slice(body);
    let reply = user.api.send(request.body(body).unwrap()).await.unwrap().ok();
    let uri = reply["content_uri"].as_str().unwrap();
    uri.strip_prefix("mxc://").unwrap().to_owned()
}

async fn download(user: &User, address: &str) -> Reply {
    user.get(&format!("/_matrix/client/v1/media/download/{address}"))
        .await
}

/// Bytes of all files of other servers that lie in a data folder.
fn cached(folder: &Path) -> u64 {
    let below = |folder: &Path| std::fs::read_dir(folder).into_iter().flatten().flatten();
    let files = below(&folder.join("media-cache")).flat_map(|fan| below(&fan.path()).collect::<Vec<_>>());
    files.map(|file| file.metadata().unwrap().len()).sum()
}

async fn keeping(engine: Engine, bytes: u64) -> TestServer {
    TestServer::start_with(engine, |config| config.federation.media_cache_bytes = bytes).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_another_server_is_fetched_once_and_kept() {
    let (a, b) = (TestServer::start().await, TestServer::start().await);
    federate(&[&a, &b]).await;
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let body: Vec<u8> = (0..1_500_000_u32).map(|n| (n % 251) as u8).collect();
    let file = upload(&alice, "image/webp", &body).await;
    let picture = upload(&alice, "image/png", &png(900, 450)).await;
    for reply in join_all((0..8).map(|_| download(&bob, &file))).await {
        assert_eq!((reply.status.as_u16(), reply.body[..] == *body), (200, true));
        assert_eq!(reply.headers[header::CONTENT_TYPE], "image/webp");
        assert_eq!(
            reply.headers[header::CONTENT_DISPOSITION],
            "inline; filename=file"
        );
    }
    let name = &b.parts().identity.server_name;
    let asked = a
        .parts()
        .peers
        .pool()
        .unwrap()
        .peer(name)
        .unwrap()
        .traffic
        .requests_in;
    assert_eq!(asked, 1, "eight downloads share a fetch");
    let thumbnail = format!("/_matrix/client/v1/media/thumbnail/{picture}?width=300&height=200");
    let made = bob.get(&thumbnail).await;
    assert_eq!((made.status.as_u16(), dimensions(&made.body)), (200, (320, 160)));
    download(&bob, &format!("{}/nothing", a.name()))
        .await
        .refused(404, "M_NOT_FOUND");

    a.parts().peers.stop().await;
    assert_eq!(&download(&bob, &file).await.body[..], body);
    assert_eq!(bob.get(&thumbnail).await.body, made.body);
}

async fn the_longest_unused_go_when_there_is_no_room(engine: Engine) {
    let a = TestServer::start().await;
    let (b, none) = (keeping(engine, 250_000).await, keeping(engine, 0).await);
    federate(&[&a, &b, &none]).await;
    let (alice, bob, carol) = (
        a.user("alice").await,
        b.user("bob").await,
        none.user("carol").await,
    );
    for number in 0..5 {
        let body = vec![number; 100_000];
        let file = upload(&alice, "image/png", &body).await;
        for (server, user) in [(&b, &bob), (&none, &carol)] {
            assert_eq!(&download(user, &file).await.body[..], body);
            assert!(cached(server.data().folder()) <= 200_000);
        }
    }
    assert_eq!(cached(b.data().folder()), 200_000);
    assert_eq!(cached(none.data().folder()), 0);
    let picture = upload(&alice, "image/png", &png(900, 450)).await;
    let thumbnail = format!("/_matrix/client/v1/media/thumbnail/{picture}?width=300&height=200");
    assert_eq!(dimensions(&carol.get(&thumbnail).await.body), (320, 160));
    assert_eq!(cached(none.data().folder()), 0);
}

/// A server that announces ten bytes and sends others.
#[derive(Debug)]
struct Liar(usize);

impl OtherServers for Liar {
    fn fetch<'a>(&'a self, _: &'a ServerName, _: &'a str) -> BoxFuture<'a, Result<Fetched, Refusal>> {
        let bytes = vec![Ok(Bytes::from_static(b"x")); self.0];
        Box::pin(async {
            Ok(Fetched {
                length: 10,
                content_type: Some("text/plain\r\nX: y".to_owned()),
                file_name: None,
                content: stream::iter(bytes).boxed(),
            })
        })
    }
}

#[tokio::test]
async fn an_answer_of_another_length_is_void() {
    let server = TestServer::start().await;
    let parts = server.parts();
    for (length, good) in [(9, false), (11, false), (0, false), (10, true)] {
        let (identity, clock, tables) = (
            parts.identity.clone(),
            parts.clock.clone(),
            parts.store.media.clone(),
        );
        let limits = MediaLimits {
            largest: 1000,
            of_user: 1000,
            cached: 1000,
        };
        let storage = Storage::on_disk(server.data().folder());
        let media = Media::new(identity, clock, tables, storage, limits);
        let liar: Arc<dyn OtherServers> = Arc::new(Liar(length));
        media.reach_others_by(Arc::downgrade(&liar));
        let name = <&ServerName>::try_from("a.example").unwrap();
        let opened = media.open(name, "file", Duration::ZERO).await;
        assert_eq!(opened.is_ok(), good, "{length}");
        if let Ok(opened) = opened {
            assert_eq!(
                opened.content_type, "application/octet-stream",
                "no header of theirs"
            );
        }
        assert_eq!(cached(server.data().folder()), if good { 10 } else { 0 });
    }
}
