//! Services of a homeserver of several nodes: one node sends, and another goes on where it is killed.

use maru_tests::appservice::Mood;
use maru_tests::{Engine, TestAppservice, TestProcess};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn another_node_goes_on_where_the_one_is_killed_that_sends() {
    let service = TestAppservice::start("irc").await;
    let folder = tempfile::tempdir().unwrap();
    let file = service.register_in(folder.path(), "");
    let config = folder.path().join("maru.toml");
    std::fs::write(&config, format!("application_services = [{file:?}]\n")).unwrap();
    let config = config.display().to_string();
    let mut one = TestProcess::start(Engine::Postgres, &["--config", &config]).await;
    let flags = ["--config", &config, "--node-name", "two"];
    let two = TestProcess::start_on(one.data().beside(), &flags).await;

    let alice = two.user("alice").await;
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    service.join(one.api(), &room, None).await;
    for number in 0..10 {
        alice.send(&room, &format!("number {number}")).await;
    }
    service.hears_last(&room, "number 9").await;

    service.set_mood(Mood::Refuses(500));
    alice.send(&room, "under way").await;
    service
        .until("the attempt", |service| {
            service
                .transactions()
                .iter()
                .any(|attempt| !attempt.is_taken)
                .then_some(())
        })
        .await;
    one.kill().await;
    alice.send(&room, "said to the other").await;
    service.set_mood(Mood::Takes);
    service.hears_last(&room, "said to the other").await;
    let expected = (0..10).map(|number| format!("number {number}"));
    let expected = expected.chain(["under way".to_owned(), "said to the other".to_owned()]);
    assert_eq!(service.texts(&room), expected.collect::<Vec<_>>());
}
