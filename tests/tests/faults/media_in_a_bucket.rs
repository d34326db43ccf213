//! SIGKILL while a file goes into a bucket: what was acknowledged is there, the rest is nowhere to be seen, and goes.

use bytes::Bytes;
use http::{Request, header};
use maru_tests::object_storage::{Fault, Operation};
use maru_tests::{Engine, ObjectStorage, Reply, TestProcess, User, for_both_engines};

for_both_engines!(a_killed_server_shows_whole_files_or_none);

async fn upload(user: &User, content: Bytes) -> Option<Reply> {
    let request = Request::post("/_matrix/media/v3/upload")
        .header(header::AUTHORIZATION, format!("Bearer {}", user.token))
        .header(header::CONTENT_LENGTH, content.len());
    user.api.send(request.body(content).unwrap()).await.ok()
}

async fn download(user: &User, uploaded: &serde_json::Value) -> Reply {
    let address = uploaded["content_uri"]
        .as_str()
        .unwrap()
        .strip_prefix("mxc://")
        .unwrap();
    let path = format!("/_matrix/client/v1/media/download/{address}");
    user.get(&path).await
}

async fn a_killed_server_shows_whole_files_or_none(engine: Engine) {
    let storage = ObjectStorage::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("maru.toml");
    std::fs::write(&file, storage.configuration()).unwrap();
    let mut process = TestProcess::start(engine, &["--config", file.to_str().unwrap()]).await;
    let alice = process.user("alice").await;
    let small = upload(&alice, Bytes::from_static(b"small")).await.unwrap().ok();

    let large = Bytes::from(vec![7; 17 << 20]);
    storage.fail(Operation::Part, Fault::Held);
    let killed = async {
        storage.holds().await;
        process.kill().await;
    };
    let (cut_off, ()) = tokio::join!(upload(&alice, large.clone()), killed);
    assert!(cut_off.is_none(), "it was not acknowledged");
    storage.go_on();

    let process = process.restart().await;
    let alice = alice.on(process.api());
    assert_eq!(&download(&alice, &small).await.body[..], b"small");
    assert_eq!(storage.names("").len(), 1, "{:?}", storage.names(""));
    let unfinished = process.data().folder().join("media-unfinished");
    assert_eq!(std::fs::read_dir(unfinished).unwrap().count(), 0);
    let again = upload(&alice, large.clone()).await.unwrap().ok();
    assert!(download(&alice, &again).await.body == large);
    assert_eq!(storage.refused(), [""; 0]);
}
