//! What users report, and what the admin is shown of it.

use maru::admin::{AdminCommand, AdminReply, ReportCommand, ReportLine, execute};
use maru_tests::user::encode;
use maru_tests::{TestServer, User, on_both_engines};
use serde_json::json;

on_both_engines!(
    the_admin_is_shown_what_is_reported,
    nobody_reports_what_they_may_not_see,
    reports_have_limits,
);

async fn listed(server: &TestServer, after: i64) -> Vec<ReportLine> {
    match execute(
        server.parts(),
        AdminCommand::Report(ReportCommand::List { after }),
    )
    .await
    {
        AdminReply::Reports { reports } => reports,
        other => panic!("{other:?}"),
    }
}

fn event_path(room: &str, event: &str) -> String {
    format!("rooms/{}/report/{}", encode(room), encode(event))
}

async fn the_admin_is_shown_what_is_reported(server: TestServer) {
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    let rude = bob.send(&room, "rude").await;
    alice
        .post(
            &event_path(&room, &rude),
            json!({ "reason": "무례해요", "score": -100 }),
        )
        .await
        .ok();
    alice
        .post(
            &format!("rooms/{}/report", encode(&room)),
            json!({ "reason": "spam" }),
        )
        .await
        .ok();
    let user = |id: &str| format!("users/{}/report", encode(id));
    alice.post(&user(&bob.id), json!({ "reason": "rude" })).await.ok();
    // Whether somebody exists is not told.
    let nobody = bob.id.replace("bob", "nobody");
    alice.post(&user(&nobody), json!({ "reason": "" })).await.ok();
    let reports = listed(&server, 0).await;
    let subjects: Vec<&str> = reports.iter().map(|report| report.subject.as_str()).collect();
    assert_eq!(
        subjects,
        [
            format!("event {rude} in room {room}"),
            format!("room {room}"),
            format!("user {}", bob.id),
            format!("user {nobody}"),
        ]
    );
    assert!(reports.iter().all(|report| report.reporter == alice.id));
    assert_eq!(reports[0].reason, "무례해요");
    assert_eq!(listed(&server, reports[1].id).await.len(), 2);
    let drop = async |id| execute(server.parts(), AdminCommand::Report(ReportCommand::Drop { id })).await;
    assert!(matches!(drop(reports[0].id).await, AdminReply::Done { .. }));
    assert!(matches!(drop(reports[0].id).await, AdminReply::Refused { .. }));
    assert_eq!(listed(&server, 0).await.len(), 3);
}

async fn nobody_reports_what_they_may_not_see(server: TestServer) {
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.create_room(json!({})).await;
    let event = alice.send(&room, "private").await;
    let report = async |user: &User, path: String| user.post(&path, json!({ "reason": "x" })).await;
    report(&bob, event_path(&room, &event))
        .await
        .refused(404, "M_NOT_FOUND");
    report(&bob, format!("rooms/{}/report", encode(&room)))
        .await
        .refused(404, "M_NOT_FOUND");
    report(&alice, event_path(&room, "$none"))
        .await
        .refused(404, "M_NOT_FOUND");
    report(&alice, event_path("!none:example.org", &event))
        .await
        .refused(404, "M_NOT_FOUND");
    // An invitation may be what is wrong with a room.
    alice.invite(&room, &bob).await;
    report(&bob, event_path(&room, &event))
        .await
        .refused(404, "M_NOT_FOUND");
    report(&bob, format!("rooms/{}/report", encode(&room))).await.ok();
    assert_eq!(listed(&server, 0).await.len(), 1);
}

async fn reports_have_limits(server: TestServer) {
    let alice = server.user("alice").await;
    let path = format!("users/{}/report", encode(&alice.id));
    alice
        .post(&path, json!({ "reason": "x".repeat(5_000) }))
        .await
        .refused(413, "M_TOO_LARGE");
    alice
        .post(&path, json!({ "reason": "a\0b" }))
        .await
        .refused(400, "M_INVALID_PARAM");
    let full = "INSERT INTO reports (id, reporter, reason, user_id, reported_at) \
                SELECT n, 'WHO', '', 'WHO', 1 FROM (WITH RECURSIVE numbers (n) AS \
                (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 500) SELECT n FROM numbers) AS numbers";
    server.data().run(&full.replace("WHO", &alice.id)).await;
    let refused = alice.post(&path, json!({ "reason": "" })).await;
    refused.refused(403, "M_RESOURCE_LIMIT_EXCEEDED");
}
