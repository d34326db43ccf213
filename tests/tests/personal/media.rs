//! Uploads, downloads, thumbnails: on disk and in a bucket alike.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::{Method, Request, header};
use maru_tests::picture::{dimensions, png};
use maru_tests::{Engine, ObjectStorage, Reply, TestServer, User};
use serde_json::json;

/// Where a server keeps its media.
pub(super) enum Place {
    /// In its data folder.
    Disk,
    /// In a bucket.
    Bucket(ObjectStorage),
}

/// Runs `async fn(TestServer, &Place)` stories on disk with both engines, and in a bucket.
macro_rules! on_every_storage {
    ($($story:ident),+ $(,)?) => {$(
        mod $story {
            use maru_tests::{Engine, ObjectStorage, TestServer};

            use super::Place;

            #[tokio::test]
            async fn sqlite() {
                let server = TestServer::start_on(Engine::Sqlite).await;
                Box::pin(super::$story(server, &Place::Disk)).await;
            }

            #[tokio::test]
            async fn postgres() {
                let server = TestServer::start_on(Engine::Postgres).await;
                Box::pin(super::$story(server, &Place::Disk)).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn in_a_bucket() {
                let storage = ObjectStorage::start().await;
                let server = TestServer::start_with(Engine::Sqlite, |config| storage.configure(config)).await;
                let place = Place::Bucket(storage);
                Box::pin(super::$story(server, &place)).await;
                let Place::Bucket(storage) = place else { return };
                assert_eq!((storage.refused(), storage.open_uploads()), (Vec::new(), 0));
            }
        }
    )+};
}

on_every_storage!(
    what_is_uploaded_is_downloaded,
    neither_type_nor_name_of_a_download_misleads,
    a_part_is_downloaded_where_one_is_asked_for,
    content_that_comes_later_is_waited_for,
    of_uploads_to_one_address_one_is_kept,
    equal_contents_share_an_object,
    what_a_crash_left_of_uploads_is_removed,
    what_is_being_removed_is_not_uploaded,
    thumbnails_are_made_and_never_larger,
);

/// The files in a folder and those below.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] })
        .collect()
}

impl Place {
    /// The names of objects that lie in a folder.
    pub(super) fn names(&self, server: &TestServer, folder: &str) -> Vec<String> {
        let data = server.data().folder();
        let name = |path: &PathBuf| path.strip_prefix(data).unwrap().display().to_string();
        match self {
            Self::Disk => files(&data.join(folder)).iter().map(name).collect(),
            Self::Bucket(storage) => storage.names(&format!("{folder}/")),
        }
    }

    /// Puts an object there past the server.
    fn put(&self, server: &TestServer, name: &str) {
        let path = server.data().folder().join(name);
        match self {
            Self::Disk => {
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, "left").unwrap();
            }
            Self::Bucket(storage) => storage.put(name, b"left"),
        }
    }
}

pub(super) async fn upload(
    user: &User,
    method: Method,
    path: &str,
    content_type: &str,
    body: &[u8],
) -> Reply {
    let request = Request::builder().method(method).uri(path);
    let request = request.header(header::AUTHORIZATION, format!("Bearer {}", user.token));
    let request = request.header(header::CONTENT_TYPE, content_type);
    let request = request.header(header::CONTENT_LENGTH, body.len());
    user.api
        .send(request.body(Bytes::copy_from_slice(body)).unwrap())
        .await
        .unwrap()
}

/// Uploads a file; the path of its address.
pub(super) async fn put(user: &User, name: &str, content_type: &str, body: &[u8]) -> String {
    let path = format!("/_matrix/media/v3/upload?filename={name}");
    let reply = upload(user, Method::POST, &path, content_type, body).await.ok();
    address(&reply)
}

fn address(reply: &serde_json::Value) -> String {
    let uri = reply["content_uri"].as_str().unwrap();
    uri.strip_prefix("mxc://").unwrap().to_owned()
}

pub(super) async fn download(user: &User, address: &str) -> Reply {
    user.get(&format!("/_matrix/client/v1/media/download/{address}"))
        .await
}

fn header<'r>(reply: &'r Reply, name: &str) -> &'r str {
    reply.headers[name].to_str().unwrap()
}

async fn what_is_uploaded_is_downloaded(server: TestServer, _: &Place) {
    let [alice, bob] = [server.user("alice").await, server.user("bob").await];
    let body: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
    let picture = put(&alice, "a%2F..%2Fcat.png", "image/png", &body).await;
    let page = put(&alice, "page.html", "text/html", b"<script>").await;
    let reply = download(&bob, &picture).await;
    assert_eq!((reply.status.as_u16(), &reply.body[..]), (200, &body[..]));
    assert_eq!(header(&reply, "content-type"), "image/png");
    assert_eq!(header(&reply, "content-length"), "300000");
    assert_eq!(
        header(&reply, "content-disposition"),
        "inline; filename=a_.._cat.png"
    );
    assert_eq!(header(&reply, "cross-origin-resource-policy"), "cross-origin");
    assert!(header(&reply, "content-security-policy").starts_with("sandbox; default-src 'none'"));
    let reply = download(&bob, &page).await;
    assert_eq!(
        header(&reply, "content-disposition"),
        "attachment; filename=page.html"
    );
    let named = download(&bob, &format!("{page}/other.txt")).await;
    assert_eq!(
        header(&named, "content-disposition"),
        "attachment; filename=other.txt"
    );
    let path = format!("/_matrix/client/v1/media/download/{picture}");
    server
        .request(Method::GET, &path, None)
        .await
        .refused(401, "M_MISSING_TOKEN");
    for wrong in [
        format!("{}/none", server.name()),
        format!("example.org/{picture}"),
        format!("{}/..%2f..%2fmaru.db", server.name()),
    ] {
        let reply = download(&bob, &wrong).await;
        assert_eq!(reply.status, 404, "{wrong}");
    }
    let old = format!("/_matrix/media/v3/download/{picture}");
    bob.get(&old).await.refused(404, "M_UNRECOGNIZED");
    let server = server.restart().await;
    assert_eq!(download(&bob.on(server.api()), &picture).await.body, body);
}

async fn neither_type_nor_name_of_a_download_misleads(server: TestServer, _: &Place) {
    let alice = server.user("alice").await;
    let two = put(&alice, "a", "text/plain;a=b, text/html", b"<script>").await;
    let reply = download(&alice, &two).await;
    assert_eq!(header(&reply, "content-disposition"), "attachment; filename=a");
    assert_eq!(header(&reply, "content-type"), "application/octet-stream");
    let one = put(&alice, "a", "text/plain; charset=utf-8", b"a").await;
    let reply = download(&alice, &one).await;
    assert_eq!(header(&reply, "content-disposition"), "inline; filename=a");
    assert_eq!(header(&reply, "content-type"), "text/plain; charset=utf-8");
    for (name, clean) in [
        ("..%2f..%2fetc%2fpasswd", "_.._etc_passwd"),
        ("gpj.%E2%80%AEexe", "gpj._exe"),
    ] {
        let reply = download(&alice, &format!("{one}/{name}")).await;
        let shown = header(&reply, "content-disposition");
        assert_eq!(shown, format!("inline; filename={clean}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_has_a_limit() {
    let server = TestServer::start_with(Engine::Sqlite, |config| config.limits.upload_bytes = 1000).await;
    let alice = server.user("alice").await;
    for path in ["/_matrix/client/v1/media/config", "/_matrix/media/v3/config"] {
        assert_eq!(alice.get(path).await.ok(), json!({ "m.upload.size": 1000 }));
    }
    put(&alice, "a", "text/plain", &[7; 1000]).await;
    let path = "/_matrix/media/v3/upload";
    let refused = upload(&alice, Method::POST, path, "text/plain", &[7; 1001]).await;
    refused.refused(413, "M_TOO_LARGE");
    // Without a length the limit is met while reading.
    let request = Request::builder().method(Method::POST).uri(path);
    let request = request.header(header::AUTHORIZATION, format!("Bearer {}", alice.token));
    let refused = alice
        .api
        .send(request.body(Bytes::from(vec![7; 1001])).unwrap())
        .await
        .unwrap();
    refused.refused(413, "M_TOO_LARGE");
    let unfinished = server.data().folder().join("media-unfinished");
    assert_eq!(std::fs::read_dir(unfinished).unwrap().count(), 0);
}

async fn a_part_is_downloaded_where_one_is_asked_for(server: TestServer, _: &Place) {
    let alice = server.user("alice").await;
    let body: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
    let video = put(&alice, "sea.mp4", "video/mp4", &body).await;
    let path = format!("/_matrix/client/v1/media/download/{video}");
    let get = async |path: &str, headers: &[(header::HeaderName, &str)]| {
        let mut request = Request::builder().uri(path);
        request = request.header(header::AUTHORIZATION, format!("Bearer {}", alice.token));
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        alice.api.send(request.body(Bytes::new()).unwrap()).await.unwrap()
    };
    let whole = get(&path, &[]).await;
    assert_eq!(
        (whole.status.as_u16(), header(&whole, "accept-ranges")),
        (200, "bytes")
    );
    let version = header(&whole, "etag").to_owned();
    let range = |range| (header::RANGE, range);
    for (asked, from, to) in [
        ("bytes=0-0", 0, 1),
        ("bytes=100000-199999", 100_000, 200_000),
        ("bytes=299990-", 299_990, 300_000),
        ("bytes=-70000", 230_000, 300_000),
        ("bytes=5-900000", 5, 300_000),
    ] {
        for path in [&path, &format!("{path}/sea.mp4")] {
            let part = get(path, &[range(asked)]).await;
            assert_eq!(part.status, 206, "{asked}");
            assert_eq!(part.body[..], body[from..to], "{asked}");
            let (first, last) = (from, to - 1);
            assert_eq!(
                header(&part, "content-range"),
                format!("bytes {first}-{last}/300000")
            );
            assert_eq!(header(&part, "content-length"), (to - from).to_string());
            assert_eq!(header(&part, "content-type"), "video/mp4");
            assert_eq!(header(&part, "etag"), version);
        }
    }
    for (asked, condition, status) in [
        ("bytes=1-2", Some(&*version), 206),
        ("bytes=1-2", Some("\"another\""), 200),
        ("bytes=1-2,5-6", None, 200),
        ("pages=1-2", None, 200),
    ] {
        let condition = condition.map(|version| (header::IF_RANGE, version));
        let headers: Vec<_> = condition.into_iter().chain([range(asked)]).collect();
        let part = get(&path, &headers).await;
        assert_eq!(part.status, status, "{headers:?}");
        let length = if status == 206 { 2 } else { body.len() };
        assert_eq!(part.body.len(), length, "{headers:?}");
    }
    let beyond = get(&path, &[range("bytes=300000-")]).await;
    beyond.refused(416, "M_UNKNOWN");
    assert_eq!(header(&beyond, "content-range"), "bytes */300000");
}

async fn content_that_comes_later_is_waited_for(server: TestServer, _: &Place) {
    let [alice, bob] = [server.user("alice").await, server.user("bob").await];
    let created = alice.post("/_matrix/media/v1/create", json!({})).await.ok();
    assert!(created["unused_expires_at"].as_u64().unwrap() > 0);
    let address = address(&created);
    download(&bob, &format!("{address}?timeout_ms=1"))
        .await
        .refused(504, "M_NOT_YET_UPLOADED");
    let path = format!("/_matrix/media/v3/upload/{address}");
    upload(&bob, Method::PUT, &path, "text/plain", b"no")
        .await
        .refused(403, "M_FORBIDDEN");
    let (waited, _) = tokio::join!(download(&bob, &address), async {
        upload(&alice, Method::PUT, &path, "text/plain", b"hello")
            .await
            .ok()
    });
    assert_eq!((waited.status.as_u16(), &waited.body[..]), (200, &b"hello"[..]));
    let again = upload(&alice, Method::PUT, &path, "text/plain", b"other").await;
    again.refused(409, "M_CANNOT_OVERWRITE_MEDIA");
    assert_eq!(&download(&bob, &address).await.body[..], b"hello");
}

/// How many contents are kept, unfinished ones included.
fn contents(server: &TestServer, place: &Place) -> usize {
    let unfinished = files(&server.data().folder().join("media-unfinished"));
    place.names(server, "media").len() + unfinished.len()
}

async fn of_uploads_to_one_address_one_is_kept(server: TestServer, place: &Place) {
    let alice = server.user("alice").await;
    let created = alice.post("/_matrix/media/v1/create", json!({})).await.ok();
    let path = format!("/_matrix/media/v3/upload/{}", address(&created));
    let texts: Vec<_> = (0..8).map(|n| format!("text {n}")).collect();
    let uploads = texts
        .iter()
        .map(|text| upload(&alice, Method::PUT, &path, "text/plain", text.as_bytes()));
    let replies = futures_util::future::join_all(uploads).await;
    let kept = replies.iter().filter(|reply| reply.status == 200).count();
    assert_eq!((kept, contents(&server, place)), (1, 1));
    for reply in replies.iter().filter(|reply| reply.status != 200) {
        reply.refused(409, "M_CANNOT_OVERWRITE_MEDIA");
    }
}

async fn equal_contents_share_an_object(server: TestServer, place: &Place) {
    let [alice, bob] = [server.user("alice").await, server.user("bob").await];
    let first = put(&alice, "a", "text/plain", b"the same").await;
    let second = put(&bob, "b", "text/html", b"the same").await;
    assert_ne!(first, second);
    assert_eq!(contents(&server, place), 1);
    for (address, content_type) in [(first, "text/plain"), (second, "text/html")] {
        let reply = download(&alice, &address).await;
        assert_eq!(
            (&reply.body[..], header(&reply, "content-type")),
            (&b"the same"[..], content_type)
        );
    }
    let arriving = server.data().number("SELECT COUNT(*) FROM media_arrivals").await;
    assert_eq!(arriving, 0);
}

/// The SHA-256 of `kept`.
const KEPT: &str = "79f076abdd19a752db7267bfff2f9022161d120dea919fdaca2ffdfc24ca8c96";

/// The name of an object.
fn object(folder: &str, name: &str) -> String {
    format!("{folder}/{}/{name}", &name[..2])
}

/// Notes that an object began to arrive at a time: so many uploads were about to refer to it, or it was leaving.
async fn note(server: &TestServer, name: &str, uploads: u32, leaving: bool, since: &str) {
    let leaving = u32::from(leaving);
    let row = format!("INSERT INTO media_arrivals VALUES ('{name}', {uploads}, {leaving}, {since})");
    server.data().run(&row).await;
}

async fn what_a_crash_left_of_uploads_is_removed(server: TestServer, place: &Place) {
    let alice = server.user("alice").await;
    let kept = put(&alice, "a", "text/plain", b"kept").await;
    let [noted, lost, leaving, young] = [KEPT.to_owned(), "ab".repeat(32), "bc".repeat(32), "cd".repeat(32)];
    let now = server.parts().clock.now_ms().to_string();
    for (name, uploads, is_leaving, since) in [
        (object("media", &noted), 1, false, "5"),
        (object("media", &lost), 1, false, "5"),
        (object("media", &leaving), 0, true, "5"),
        (object("media", &young), 1, false, &*now),
        (object("media-cache", &lost), 1, false, "5"),
    ] {
        if name != object("media", &noted) {
            place.put(&server, &name);
        }
        note(&server, &name, uploads, is_leaving, since).await;
    }
    place.put(
        &server,
        &object("media-cache", &format!("{lost}.thumbnail-32x32-crop")),
    );
    server.parts().media.sweep().await.unwrap();
    let mut left = place.names(&server, "media");
    left.sort();
    assert_eq!(left, [object("media", &noted), object("media", &young)]);
    assert_eq!(place.names(&server, "media-cache"), [""; 0]);
    let arriving = server.data().number("SELECT COUNT(*) FROM media_arrivals").await;
    assert_eq!(arriving, 1, "the young one");
    assert_eq!(&download(&alice, &kept).await.body[..], b"kept");

    let unfinished = server.data().folder().join("media-unfinished");
    std::fs::create_dir_all(&unfinished).unwrap();
    std::fs::write(unfinished.join("left"), "").unwrap();
    let server = server.restart().await;
    assert!(files(&unfinished).is_empty());
    assert_eq!(&download(&alice.on(server.api()), &kept).await.body[..], b"kept");
}

async fn what_is_being_removed_is_not_uploaded(server: TestServer, place: &Place) {
    let alice = server.user("alice").await;
    let name = object("media", KEPT);
    let now = server.parts().clock.now_ms().to_string();
    note(&server, &name, 0, true, &now).await;
    place.put(&server, &name);
    let path = "/_matrix/media/v3/upload";
    let refused = upload(&alice, Method::POST, path, "text/plain", b"kept").await;
    refused.refused(503, "M_UNKNOWN");
    // Whoever began to remove it may still do so, so nobody else does, for now.
    server.parts().media.sweep().await.unwrap();
    assert_eq!(contents(&server, place), 1);
    server.data().run("UPDATE media_arrivals SET since = 5").await;
    server.parts().media.sweep().await.unwrap();
    assert_eq!(contents(&server, place), 0);
    let kept = put(&alice, "a", "text/plain", b"kept").await;
    assert_eq!(&download(&alice, &kept).await.body[..], b"kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_uploads_of_a_user_have_a_limit() {
    let start = |engine| TestServer::start_with(engine, |config| config.limits.uploads_per_user_bytes = 1000);
    let server = start(Engine::Sqlite).await;
    let [alice, bob] = [server.user("alice").await, server.user("bob").await];
    put(&alice, "a", "text/plain", &[7; 600]).await;
    let path = "/_matrix/media/v3/upload";
    let refused = upload(&alice, Method::POST, path, "text/plain", &[8; 401]).await;
    refused.refused(403, "M_FORBIDDEN");
    // Without a length it is met while reading.
    let request = Request::builder().method(Method::POST).uri(path);
    let request = request.header(header::AUTHORIZATION, format!("Bearer {}", alice.token));
    let request = request.body(Bytes::from(vec![8; 401])).unwrap();
    let refused = alice.api.send(request).await.unwrap();
    refused.refused(403, "M_FORBIDDEN");
    assert_eq!(contents(&server, &Place::Disk), 1);
    // At once they do not get further than one after another.
    let both = [[1; 400], [2; 400]];
    let both = both
        .iter()
        .map(|content| upload(&alice, Method::POST, path, "text/plain", content));
    let statuses: Vec<_> = futures_util::future::join_all(both).await;
    let mut statuses: Vec<_> = statuses.iter().map(|reply| reply.status.as_u16()).collect();
    statuses.sort_unstable();
    assert_eq!((statuses, contents(&server, &Place::Disk)), (vec![200, 403], 2));
    put(&bob, "a", "text/plain", &[7; 1000]).await;
    let server = server.restart().await;
    let alice = alice.on(server.api());
    let refused = upload(&alice, Method::POST, path, "text/plain", &[9; 1]).await;
    refused.refused(403, "M_FORBIDDEN");
}

async fn thumbnails_are_made_and_never_larger(server: TestServer, _: &Place) {
    let alice = server.user("alice").await;
    let picture = put(&alice, "p.png", "image/png", &png(900, 450)).await;
    let thumbnail = async |address: &str, query: &str| {
        alice
            .get(&format!("/_matrix/client/v1/media/thumbnail/{address}?{query}"))
            .await
    };
    for _ in 0..2 {
        let reply = thumbnail(&picture, "width=300&height=200&method=scale").await;
        assert_eq!(
            (reply.status.as_u16(), dimensions(&reply.body)),
            (200, (320, 160))
        );
        assert_eq!(header(&reply, "content-type"), "image/png");
    }
    let cut = thumbnail(&picture, "width=90&height=90&method=crop").await;
    assert_eq!(dimensions(&cut.body), (96, 96));
    let huge = thumbnail(&picture, "width=100000&height=100000").await;
    assert_eq!(dimensions(&huge.body), (800, 400));
    let small = png(20, 10);
    let small_address = put(&alice, "s.png", "image/png", &small).await;
    assert_eq!(
        thumbnail(&small_address, "width=300&height=300").await.body,
        small
    );
    let text = put(&alice, "t.png", "image/png", b"no picture").await;
    thumbnail(&text, "width=30&height=30")
        .await
        .refused(400, "M_INVALID_PARAM");
}
