//! Media in a bucket of object storage that several nodes share, and what goes wrong with it.
//!
//! Over 500 lines, because all of it needs the same two nodes and the same way to see what is in the bucket.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, join_all};
use futures_util::{StreamExt, stream};
use http::{Method, Request, StatusCode, header};
use maru::config::Setting;
use maru::media::{About, Fetched, Media, MediaLimits, OtherServers};
use maru::refusal::Refusal;
use maru::server::{OpenError, media_storage};
use maru_tests::object_storage::{Fault, Operation, SECRET_KEY};
use maru_tests::picture::{dimensions, png};
use maru_tests::{Engine, ObjectStorage, Reply, TestServer, User, for_both_engines};
use ruma::{ServerName, UserId, user_id};
use serde_json::json;

use super::media::{download, put, upload};

for_both_engines!(
    nodes_share_a_bucket,
    of_equal_uploads_and_removals_none_loses_a_content,
    nodes_share_copies_of_other_servers_files,
    an_object_goes_when_nobody_is_about_to_refer_to_it,
);

/// Larger than one part: 17 MiB.
const LARGE: usize = 17 << 20;

const UPLOAD: &str = "/_matrix/media/v3/upload";

async fn start(engine: Engine) -> (ObjectStorage, TestServer) {
    let storage = ObjectStorage::start().await;
    let server = TestServer::start_with(engine, |config| storage.configure(config)).await;
    (storage, server)
}

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n % 251) as u8).collect()
}

/// Media of another node with a data folder of its own, over the same database and the same bucket.
async fn another_node(server: &TestServer, data: &std::path::Path) -> Media {
    keeping(server, data, 1 << 30).await
}

/// The same, which keeps so many bytes of other servers' files.
async fn keeping(server: &TestServer, data: &std::path::Path, cached: u64) -> Media {
    let parts = server.parts();
    let mut config = parts.config.clone();
    config.data = data.to_owned();
    let storage = media_storage(&config).await.unwrap();
    let limits = MediaLimits {
        largest: 1 << 30,
        of_user: 1 << 30,
        cached,
    };
    let (identity, clock) = (Arc::clone(&parts.identity), Arc::clone(&parts.clock));
    Media::new(identity, clock, Arc::clone(&parts.store.media), storage, limits)
}

fn address(server: &TestServer, address: &str) -> String {
    address
        .strip_prefix(&format!("{}/", server.name()))
        .unwrap()
        .to_owned()
}

async fn nodes_share_a_bucket(engine: Engine) {
    let (storage, server) = start(engine).await;
    let folder = tempfile::tempdir().unwrap();
    let other = another_node(&server, folder.path()).await;
    let alice = server.user("alice").await;
    let name: &ServerName = server.name().try_into().unwrap();
    let body = bytes(300_000);
    let file = put(&alice, "a", "image/png", &body).await;
    let opened = other
        .open(name, &address(&server, &file), Duration::ZERO)
        .await
        .unwrap();
    let pieces: Vec<_> = opened.read(1000..2000).await.unwrap().collect().await;
    let part: Vec<u8> = pieces.into_iter().flat_map(Result::unwrap).collect();
    assert_eq!(part, body[1000..2000]);
    // What one node waits for may be uploaded through another.
    let created = alice.post("/_matrix/media/v1/create", json!({})).await.ok();
    let later = created["content_uri"]
        .as_str()
        .unwrap()
        .strip_prefix("mxc://")
        .unwrap()
        .to_owned();
    let later_id = address(&server, &later);
    let waiting = other.open(name, &later_id, Duration::from_secs(20));
    let uploading = async {
        let path = format!("{UPLOAD}/{later}");
        upload(&alice, Method::PUT, &path, "text/plain", b"later")
            .await
            .ok()
    };
    let (waited, _) = tokio::join!(waiting, uploading);
    assert_eq!(waited.unwrap().size, 5);
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        0,
        "nothing lies on the other node"
    );
    assert_eq!(storage.names("media/").len(), 2);
}

async fn of_equal_uploads_and_removals_none_loses_a_content(engine: Engine) {
    let (storage, server) = start(engine).await;
    let folder = tempfile::tempdir().unwrap();
    let other = another_node(&server, folder.path()).await;
    let alice = server.user("alice").await;
    let (alice_id, bob) = (<&UserId>::try_from(&*alice.id).unwrap(), user_id!("@bob:x"));
    let name: &ServerName = server.name().try_into().unwrap();
    for round in 0..12_u32 {
        // Two nodes take contents for one address: the one that is refused is removed, while the other node, where somebody
        // uploads the same, is about to refer to it.
        let [one, two] = [format!("one {round}"), format!("two {round}")];
        let created = alice.post("/_matrix/media/v1/create", json!({})).await.ok();
        let shared = created["content_uri"]
            .as_str()
            .unwrap()
            .strip_prefix("mxc://")
            .unwrap();
        let (path, id) = (format!("{UPLOAD}/{shared}"), address(&server, shared));
        let whole = |content: &str| stream::iter([Ok::<_, String>(Bytes::from(content.to_owned()))]);
        let about = About::default;
        let (here, there, one_there, two_here) = tokio::join!(
            upload(&alice, Method::PUT, &path, "text/plain", one.as_bytes()),
            other.upload_created(alice_id, name, &id, about(), whole(&two)),
            other.upload(bob, about(), whole(&one)),
            upload(&alice, Method::POST, UPLOAD, "text/plain", two.as_bytes()),
        );
        let (here, two_here) = (
            here.status == StatusCode::OK,
            Some(two_here).filter(|reply| reply.status == 200),
        );
        assert!(!(here && there.is_ok()), "one address has one content");
        let shared_content = if here { &one } else { &two };
        let shared = (here || there.is_ok()).then(|| (shared.to_owned(), shared_content));
        let one_there = one_there
            .ok()
            .map(|uri| (uri.as_str()["mxc://".len()..].to_owned(), &one));
        let two_here = two_here.map(|reply| {
            let uri = reply.ok()["content_uri"].as_str().unwrap()["mxc://".len()..].to_owned();
            (uri, &two)
        });
        for (address, content) in [shared, one_there, two_here].into_iter().flatten() {
            assert_eq!(
                &download(&alice, &address).await.body[..],
                content.as_bytes(),
                "{round}"
            );
        }
    }
    let contents = "SELECT COUNT(DISTINCT sha256) FROM media WHERE sha256 IS NOT NULL";
    let contents = server.data().number(contents).await;
    assert_eq!(storage.names("media/").len() as i64, contents);
    assert_eq!(
        server.data().number("SELECT COUNT(*) FROM media_arrivals").await,
        0
    );
}

async fn an_object_goes_when_nobody_is_about_to_refer_to_it(engine: Engine) {
    let server = TestServer::start_on(engine).await;
    let tables = &server.parts().store.media;
    let (object, content) = ("media/ab/abc", [0xab; 32]);
    assert!(tables.begin_arrival(object, 10).await.unwrap());
    assert!(
        tables.begin_arrival(object, 11).await.unwrap(),
        "another upload of the same"
    );
    assert!(
        !tables.give_up_arrival(object, &content, 12).await.unwrap(),
        "the other one needs it"
    );
    assert!(
        !tables.take_old_arrival(object, &content, 11, 13).await.unwrap(),
        "it is young"
    );
    assert!(tables.give_up_arrival(object, &content, 14).await.unwrap());
    assert!(
        !tables.begin_arrival(object, 15).await.unwrap(),
        "it is being removed"
    );
    assert!(
        !tables.take_old_arrival(object, &content, 14, 16).await.unwrap(),
        "by somebody else"
    );
    assert!(
        tables.take_old_arrival(object, &content, 15, 16).await.unwrap(),
        "who is gone"
    );
    tables.removed(vec![object.to_owned()]).await.unwrap();
    assert!(tables.begin_arrival(object, 17).await.unwrap());
    assert_eq!(tables.old_arrivals(18, 9).await.unwrap(), [object]);
}

/// Another server, which gives a hundred bytes of whatever is asked for.
#[derive(Debug, Default)]
struct Elsewhere(AtomicUsize);

impl OtherServers for Elsewhere {
    fn fetch<'a>(&'a self, _: &'a ServerName, id: &'a str) -> BoxFuture<'a, Result<Fetched, Refusal>> {
        self.0.fetch_add(1, Ordering::SeqCst);
        let content = Bytes::from(id.repeat(100));
        Box::pin(async {
            Ok(Fetched {
                length: 100,
                content_type: None,
                file_name: None,
                content: stream::iter([Ok(content)]).boxed(),
            })
        })
    }
}

async fn nodes_share_copies_of_other_servers_files(engine: Engine) {
    let (storage, server) = start(engine).await;
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let elsewhere = Arc::new(Elsewhere::default());
    let way: Arc<dyn OtherServers> = Arc::<Elsewhere>::clone(&elsewhere);
    let mut nodes = Vec::new();
    for folder in &folders {
        let node = keeping(&server, folder.path(), 500).await;
        node.reach_others_by(Arc::downgrade(&way));
        nodes.push(node);
    }
    let name: &ServerName = "a.example".try_into().unwrap();
    let open = async |node: &Media, id: &str| {
        let opened = node.open(name, id, Duration::ZERO).await.unwrap();
        let pieces: Vec<_> = opened.read(0..100).await.unwrap().collect().await;
        let whole: Vec<u8> = pieces.into_iter().flat_map(Result::unwrap).collect();
        assert_eq!(whole, id.repeat(100).into_bytes(), "{id}");
    };
    let fetched = || elsewhere.0.load(Ordering::SeqCst);
    for node in &nodes {
        open(node, "a").await;
    }
    assert_eq!((fetched(), storage.bytes("media-cache/")), (1, 100));
    // Both count what both keep.
    for (at, id) in ["b", "c", "d", "e", "f", "g"].iter().enumerate() {
        open(&nodes[at % 2], id).await;
        assert!(storage.bytes("media-cache/") <= 500, "{id}");
    }
    let arriving = server.data().number("SELECT COUNT(*) FROM media_arrivals").await;
    assert_eq!(arriving, 0);
    let kept = server.data().number("SELECT COUNT(*) FROM cached_media").await;
    assert_eq!(storage.names("media-cache/").len() as i64, kept);
    // What has gone from the bucket is fetched again.
    storage.clear();
    let before = fetched();
    open(&nodes[0], "g").await;
    assert_eq!((fetched(), storage.bytes("media-cache/")), (before + 1, 100));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_is_reached_over_tls_by_authorities_of_ones_own() {
    let (storage, certificate) = ObjectStorage::start_secure().await;
    let mut config = maru::config::Config::default();
    storage.configure(&mut config);
    let wrong = media_storage(&config).await.map(drop).unwrap_err();
    assert!(wrong.contains("cannot write to bucket"), "{wrong}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("authorities.pem");
    config.media.authorities = Some(file.clone());
    let wrong = media_storage(&config).await.map(drop).unwrap_err();
    assert!(wrong.contains("`media.authorities`"), "{wrong}");
    std::fs::write(&file, certificate).unwrap();
    media_storage(&config).await.unwrap();
    assert_eq!(
        (storage.count(Operation::Put), storage.refused()),
        (1, Vec::new())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_goes_in_parts_and_comes_in_pieces() {
    let (storage, server) = start(Engine::Sqlite).await;
    let alice = server.user("alice").await;
    let body = bytes(LARGE);
    let file = put(&alice, "a", "video/mp4", &body).await;
    assert_eq!((storage.count(Operation::Part), storage.open_uploads()), (3, 0));
    assert!(download(&alice, &file).await.body[..] == *body);
    // The same once more is only looked for.
    let again = put(&alice, "b", "video/mp4", &body).await;
    assert_eq!(storage.count(Operation::Part), 3);
    let path = format!("/_matrix/client/v1/media/download/{again}");
    let request = Request::builder().uri(&path);
    let request = request.header(header::AUTHORIZATION, format!("Bearer {}", alice.token));
    let request = request.header(header::RANGE, format!("bytes={}-{}", 9 << 20, (9 << 20) + 99));
    let part = alice.api.send(request.body(Bytes::new()).unwrap()).await.unwrap();
    assert_eq!(part.body[..], body[9 << 20..(9 << 20) + 100]);
    let empty = put(&alice, "nothing", "text/plain", b"").await;
    assert_eq!(&download(&alice, &empty).await.body[..], b"");
    assert_eq!(storage.refused(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_for_a_moment_is_tried_again() {
    let (storage, server) = start(Engine::Sqlite).await;
    let alice = server.user("alice").await;
    let body = bytes(LARGE);
    for (operation, fault) in [
        (Operation::Head, Fault::Status(500)),
        (Operation::Begin, Fault::Status(503)),
        (Operation::Part, Fault::Status(503)),
        (Operation::Part, Fault::CutBefore),
        (Operation::Part, Fault::CutAfter),
        (Operation::Complete, Fault::Status(500)),
    ] {
        storage.fail(operation, fault);
    }
    let file = put(&alice, "a", "video/mp4", &body).await;
    for fault in [Fault::CutBefore, Fault::CutAfter, Fault::Status(500)] {
        storage.fail(Operation::Put, fault);
    }
    let small = put(&alice, "b", "text/plain", b"small").await;
    for fault in [
        Fault::Status(503),
        Fault::CutShort,
        Fault::CutBefore,
        Fault::CutShort,
    ] {
        storage.fail(Operation::Get, fault);
    }
    assert!(download(&alice, &file).await.body[..] == *body);
    assert_eq!(&download(&alice, &small).await.body[..], b"small");
    assert_eq!((storage.faults_left(), storage.open_uploads()), (0, 0));
    assert_eq!(
        server.data().number("SELECT COUNT(*) FROM media_arrivals").await,
        0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_on_failing_is_not_acknowledged_and_not_shown() {
    let (storage, server) = start(Engine::Sqlite).await;
    let alice = server.user("alice").await;
    // Nothing that is tried again helps.
    storage.fail(Operation::Put, Fault::Status(403));
    let refused = upload(&alice, Method::POST, UPLOAD, "text/plain", b"small").await;
    refused.refused(503, "M_UNKNOWN");
    assert!(
        !String::from_utf8_lossy(&refused.body).contains("127.0.0.1"),
        "the storage is nobody's business"
    );
    storage.fail(Operation::Part, Fault::Status(400));
    let refused = upload(&alice, Method::POST, UPLOAD, "text/plain", &bytes(LARGE)).await;
    refused.refused(503, "M_UNKNOWN");
    let given_up = async {
        while storage.open_uploads() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), given_up)
        .await
        .unwrap();
    assert_eq!(storage.names(""), [""; 0]);
    // Whoever was refused tries again.
    let file = put(&alice, "a", "text/plain", b"small").await;
    assert_eq!(&download(&alice, &file).await.body[..], b"small");
    // What the refused ones left is found.
    server.data().run("UPDATE media_arrivals SET since = 5").await;
    server.parts().media.sweep().await.unwrap();
    assert_eq!(storage.names("").len(), 1);
    assert_eq!(
        server.data().number("SELECT COUNT(*) FROM media_arrivals").await,
        0
    );
    // An object that has gone is missed, not made up.
    server.data().run("UPDATE media SET sha256 = x'0123'").await;
    download(&alice, &file).await.refused(404, "M_NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_leaves_nothing_that_is_shown() {
    let (storage, server) = start(Engine::Sqlite).await;
    let alice = server.user("alice").await;
    storage.fail(Operation::Part, Fault::Held);
    let body = bytes(LARGE);
    let uploading = upload(&alice, Method::POST, UPLOAD, "text/plain", &body);
    tokio::select! {
        _ = uploading => panic!("the upload does not wait for its object"),
        () = storage.holds() => {}
    }
    storage.go_on();
    let given_up = async {
        while storage.open_uploads() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), given_up)
        .await
        .unwrap();
    assert_eq!(storage.names(""), [""; 0]);
    let unfinished = server.data().folder().join("media-unfinished");
    assert_eq!(std::fs::read_dir(unfinished).unwrap().count(), 0);
}

async fn thumbnail(user: &User, address: &str) -> Reply {
    let path = format!("/_matrix/client/v1/media/thumbnail/{address}?width=300&height=200");
    user.get(&path).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thumbnail_is_made_once_for_all_nodes() {
    let (storage, server) = start(Engine::Sqlite).await;
    let alice = server.user("alice").await;
    let picture = put(&alice, "p.png", "image/png", &png(900, 450)).await;
    let made = join_all((0..4).map(|_| thumbnail(&alice, &picture))).await;
    for reply in &made {
        assert_eq!(
            (reply.status.as_u16(), dimensions(&reply.body)),
            (200, (320, 160))
        );
    }
    assert_eq!(storage.names("thumbnails/").len(), 1);
    let before = storage.count(Operation::Get);
    let folder = tempfile::tempdir().unwrap();
    let other = another_node(&server, folder.path()).await;
    let size = maru::media::ThumbnailSize {
        width: 300,
        height: 200,
        crop: false,
    };
    let name: &ServerName = server.name().try_into().unwrap();
    let id = address(&server, &picture);
    let alice_id = <&UserId>::try_from(&*alice.id).unwrap();
    let opened = other
        .thumbnail(alice_id, name, &id, size, Duration::ZERO)
        .await
        .unwrap();
    assert_eq!(opened.size, made[0].body.len() as u64);
    // One to try the bucket, one for the thumbnail: the picture is left alone.
    assert_eq!(storage.count(Operation::Get) - before, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_node_of_a_server_takes_another_gives() {
    let (storage, one) = start(Engine::Postgres).await;
    let two = one.start_node("two").await;
    let alice = one.user("alice").await;
    let there = alice.on(two.api());
    let body = bytes(300_000);
    let file = put(&alice, "a", "image/webp", &body).await;
    assert_eq!(download(&there, &file).await.body[..], body);
    let picture = put(&there, "p.png", "image/png", &png(900, 450)).await;
    for user in [&alice, &there] {
        let made = thumbnail(user, &picture).await;
        assert_eq!((made.status.as_u16(), dimensions(&made.body)), (200, (320, 160)));
    }
    let created = alice.post("/_matrix/media/v1/create", json!({})).await.ok();
    let later = created["content_uri"]
        .as_str()
        .unwrap()
        .strip_prefix("mxc://")
        .unwrap();
    let path = format!("{UPLOAD}/{later}");
    let (waited, _) = tokio::join!(
        download(&there, later),
        upload(&alice, Method::PUT, &path, "text/plain", b"later")
    );
    assert_eq!(&waited.body[..], b"later");
    assert_eq!(
        (storage.names("thumbnails/").len(), storage.refused()),
        (1, Vec::new())
    );
    one.shut_down().await;
    assert_eq!(download(&there, &file).await.body[..], body);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storage_that_does_not_work_is_named_at_the_start() {
    let storage = ObjectStorage::start().await;
    let open = async |change: &dyn Fn(&mut maru::config::Config)| {
        let mut config = maru::config::Config::default();
        storage.configure(&mut config);
        change(&mut config);
        let opened = media_storage(&config).await.map(drop);
        opened.map_err(|why| OpenError::MediaStorage(why).to_string())
    };
    assert_eq!(open(&|_| {}).await, Ok(()));
    let wrong =
        open(&|config| config.media.secret_key = Some(Setting::read("not the secret").unwrap())).await;
    let wrong = wrong.unwrap_err();
    assert!(
        wrong.contains("cannot write to bucket media-of-tests") && wrong.contains("`media.storage`"),
        "{wrong}"
    );
    assert!(
        !wrong.contains("not the secret") && !wrong.contains(SECRET_KEY),
        "{wrong}"
    );
    let wrong = open(&|config| config.media.bucket = Some("another".to_owned()))
        .await
        .unwrap_err();
    assert!(wrong.contains("bucket another"), "{wrong}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    let from_file = |config: &mut maru::config::Config| {
        config.media.secret_key = None;
        config.media.secret_key_file = Some(file.clone());
    };
    let wrong = open(&from_file).await.unwrap_err();
    assert!(wrong.contains("`media.secret_key_file`"), "{wrong}");
    std::fs::write(&file, format!("{SECRET_KEY}\n")).unwrap();
    assert_eq!(open(&from_file).await, Ok(()));
    assert_eq!(storage.names(""), [""; 0], "what was tried is gone");
}
