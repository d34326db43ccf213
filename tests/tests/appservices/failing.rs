//! What befalls services: they refuse, babble, hang, are gone; and the server is started anew.

use std::time::{Duration, Instant};

use maru::admin::{AdminCommand, AdminReply, AppserviceCommand, execute};
use maru_tests::appservice::Mood;
use maru_tests::waiting::look_for;
use maru_tests::{Engine, TestAppservice, TestServer, for_both_engines};
use serde_json::json;

use super::server_with;

for_both_engines!(
    what_is_refused_comes_again_as_it_was_until_it_is_taken,
    a_restart_sends_what_was_under_way_as_it_was,
    one_that_hangs_holds_up_nobody_else,
    a_service_that_is_gone_from_the_configuration_holds_nothing,
);

/// For how long a service refuses.
const REFUSING: Duration = Duration::from_secs(5);

async fn what_is_refused_comes_again_as_it_was_until_it_is_taken(engine: Engine) {
    let service = TestAppservice::start("irc").await;
    let (server, _folder) = server_with(engine, &[(&service, "")]).await;
    let alice = server.user("alice").await;
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    service.join(server.api(), &room, None).await;
    alice.send(&room, "first").await;
    service.hears_last(&room, "first").await;

    let moods = [
        Mood::Refuses(500),
        Mood::Refuses(404),
        Mood::Refuses(201),
        Mood::Redirects("/elsewhere".to_owned()),
    ];
    let (began, before) = (Instant::now(), service.transactions().len());
    let mut sent = 0;
    while began.elapsed() < REFUSING {
        service.set_mood(moods[sent % moods.len()].clone());
        alice.send(&room, &format!("number {sent}")).await;
        sent += 1;
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    let refused = service.transactions().split_off(before);
    assert!(refused.len() >= 3, "{} attempts in 5 s", refused.len());
    assert!(refused.len() < 40, "{} attempts in 5 s", refused.len());
    assert!(
        refused.iter().all(|attempt| *attempt == refused[0]),
        "one after the other"
    );
    let line = service_line(&server).await;
    assert!(line.under_way && line.failures > 0 && line.lag > 0, "{line:?}");
    assert!(line.last_error.unwrap().contains("answered with status"));

    // Whoever takes it with nonsense has taken it.
    service.set_mood(Mood::Babbles);
    let last = format!("number {}", sent - 1);
    service.hears_last(&room, &last).await;
    let expected = (0..sent).map(|number| format!("number {number}"));
    assert_eq!(service.texts(&room)[1..], expected.collect::<Vec<_>>());
    look_for("nothing is under way", async || {
        let line = service_line(&server).await;
        (!line.under_way).then_some(()).ok_or(format!("{line:?}"))
    })
    .await;
}

async fn service_line(server: &TestServer) -> maru::admin::AppserviceLine {
    let command = AdminCommand::Appservice(AppserviceCommand::List);
    let AdminReply::Appservices { mut services } = execute(server.parts(), command).await else {
        panic!("no list");
    };
    services.remove(0)
}

async fn a_restart_sends_what_was_under_way_as_it_was(engine: Engine) {
    let service = TestAppservice::start("irc").await;
    let (server, _folder) = server_with(engine, &[(&service, "")]).await;
    let alice = server.user("alice").await;
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    service.join(server.api(), &room, None).await;
    alice.send(&room, "first").await;
    service.hears_last(&room, "first").await;

    service.set_mood(Mood::Refuses(503));
    let secret = alice.send(&room, "second").await;
    let before = service.until("the attempt", |service| {
        service
            .transactions()
            .into_iter()
            .rfind(|attempt| !attempt.is_taken)
    });
    let before = before.await;
    alice.redact(&room, &secret).await;
    alice.send(&room, "third").await;
    let server = server.restart().await;
    let alice = alice.on(server.api());
    alice.send(&room, "fourth").await;
    service.set_mood(Mood::Takes);
    service.hears_last(&room, "fourth").await;
    let taken = service.taken();
    let again = taken
        .iter()
        .find(|transaction| transaction.id == before.id)
        .unwrap();
    assert_eq!(again.body, before.body, "what was begun is sent as it was");
    assert_eq!(service.texts(&room), ["first", "second", "third", "fourth"]);
    assert_eq!(ids_once(&service), service.events().len(), "nothing comes twice");

    // And so it is after a restart with nothing under way.
    let server = server.restart().await;
    alice.on(server.api()).send(&room, "fifth").await;
    service.hears_last(&room, "fifth").await;
    assert_eq!(ids_once(&service), service.events().len(), "nothing comes twice");
}

/// How many different events a service has taken.
fn ids_once(service: &TestAppservice) -> usize {
    let ids = service.events().into_iter();
    let ids: std::collections::BTreeSet<String> = ids.map(|event| event["event_id"].to_string()).collect();
    ids.len()
}

async fn one_that_hangs_holds_up_nobody_else(engine: Engine) {
    let [hanging, mut gone, well] = [
        TestAppservice::start("hanging").await,
        TestAppservice::start("gone").await,
        TestAppservice::start("well").await,
    ];
    let services = [(&hanging, ""), (&gone, ""), (&well, "")];
    let (server, _folder) = server_with(engine, &services).await;
    let alice = server.user("alice").await;
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    for service in [&hanging, &gone, &well] {
        service.join(server.api(), &room, None).await;
    }
    well.until("the joins", |service| {
        (!service.events().is_empty()).then_some(())
    })
    .await;
    hanging.set_mood(Mood::Hangs);
    gone.stop();
    let since = alice.sync(None).await.next();
    let began = Instant::now();
    for number in 0..20 {
        alice.send(&room, &format!("number {number}")).await;
    }
    well.hears_last(&room, "number 19").await;
    let heard = alice.sync(Some(&since)).await;
    assert_eq!(heard.texts(&room).last().unwrap(), "number 19");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    gone.come_back().await;
    gone.hears_last(&room, "number 19").await;
    // A server whose service hangs stops all the same.
    let began = Instant::now();
    drop(server.shut_down().await);
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}

async fn a_service_that_is_gone_from_the_configuration_holds_nothing(engine: Engine) {
    let service = TestAppservice::start("irc").await;
    let (server, _folder) = server_with(engine, &[(&service, "")]).await;
    let is_there = "SELECT COUNT(*) FROM readers WHERE name = 'appservice/irc'";
    server.data().comes_to(1, is_there).await;
    let mut stopped = server.shut_down().await;
    stopped.change(|config| config.application_services.clear());
    let server = stopped.start().await;
    assert_eq!(server.data().number(is_there).await, 0);
    let reply = service.call(server.api(), http::Method::GET, "account/whoami", None, None);
    reply.await.refused(401, "M_UNKNOWN_TOKEN");
}
