//! What housekeeping drops, and what it leaves.

use std::time::Duration;

use maru::admin::{AdminCommand, AdminReply, JobCommand, JobLine, execute};
use maru::store::accounts::gone_devices::GoneDevices;
use maru::store::jobs::{JobState, NewJob};
use maru_tests::{Engine, TestServer, on_both_engines};
use serde_json::json;

on_both_engines!(
    expired_login_tokens_go_in_steps,
    what_is_left_of_a_gone_device_is_dropped,
    every_kind_has_its_schedule,
    the_admin_sees_jobs_and_decides,
);

async fn expired_login_tokens_go_in_steps(server: TestServer) {
    let token = |n| match server.data().engine() {
        Engine::Sqlite => format!("x'0{n}'"),
        Engine::Postgres => format!("'\\x0{n}'::bytea"),
    };
    let rows = (1..=5).map(|n| format!("INSERT INTO login_tokens VALUES ({}, '@a:x', {n}); ", token(n)));
    server.data().run(&rows.collect::<String>()).await;
    let expire = async |now, most| {
        let accounts = &server.parts().store.accounts;
        accounts.expire_login_tokens(now, most).await.unwrap()
    };
    assert_eq!(expire(0, 10).await, 0);
    assert_eq!(expire(4, 3).await, 3, "the oldest");
    assert_eq!(expire(4, 3).await, 1);
    assert_eq!(server.data().number("SELECT COUNT(*) FROM login_tokens").await, 1);
}

async fn what_is_left_of_a_gone_device_is_dropped(server: TestServer) {
    let alice = server.user("alice").await;
    let store = &server.parts().store;
    let left = |device: &str| {
        let id = &alice.id;
        format!(
            "INSERT INTO to_device (user_id, device_id, position, json) VALUES ('{id}', '{device}', 1, '1'); \
             INSERT INTO one_time_keys VALUES ('{id}', '{device}', 'a', 'k', '1', 1, 0);"
        )
    };
    let there = alice.device.clone();
    server.data().run(&(left("GONE") + &left(&there))).await;
    let gone = GoneDevices {
        user_id: alice.id.clone().try_into().unwrap(),
        device_ids: vec!["GONE".into(), there.clone()],
    };
    store.accounts.drop_of_gone_devices(gone).await.unwrap();
    let rows = "SELECT COUNT(*) FROM (SELECT device_id FROM to_device UNION ALL SELECT device_id FROM one_time_keys) \
                AS left_over WHERE device_id";
    assert_eq!(server.data().number(&format!("{rows} = 'GONE'")).await, 0);
    assert_eq!(server.data().number(&format!("{rows} = '{there}'")).await, 2);

    // Whoever logs out makes a job of looking again.
    alice.post("logout", json!({})).await.ok();
    let jobs = store.jobs.of_kind("gone_devices").await.unwrap();
    assert_eq!(jobs.len(), 1);
    assert!(jobs[0].payload.contains(&there));
}

async fn every_kind_has_its_schedule(server: TestServer) {
    let jobs = &server.parts().store.jobs;
    let kinds = [
        "media_sweep",
        "old_attempts",
        "old_heard_messages",
        "old_login_tokens",
        "old_oauth",
        "old_peer_messages",
        "old_sync_connections",
        "old_transactions",
        "old_waiting_receipts",
    ];
    // They are made beside the start.
    let made = async {
        loop {
            let counts = jobs.counts().await.unwrap();
            if counts
                .iter()
                .filter(|count| kinds.contains(&count.kind.as_str()))
                .count()
                == kinds.len()
            {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), made).await.unwrap();
    for kind in kinds {
        let rows = jobs.of_kind(kind).await.unwrap();
        assert_eq!(rows.len(), 1, "{kind}");
        assert_eq!(rows[0].state, JobState::Waiting, "{kind} is due in a while");
    }
}

async fn the_admin_sees_jobs_and_decides(server: TestServer) {
    let broken = NewJob {
        kind: "gone_devices",
        key: None,
        destination: "somebody".into(),
        due_at: 1,
        repeatable: true,
        payload: "[]".into(),
        created_at: 1,
    };
    server.parts().store.jobs.enqueue(vec![broken]).await.unwrap();
    let ask = async |command| execute(server.parts(), AdminCommand::Job(command)).await;
    let stopped = async || -> Vec<JobLine> {
        match ask(JobCommand::List { kind: None }).await {
            AdminReply::Jobs { jobs, .. } => jobs,
            other => panic!("{other:?}"),
        }
    };
    let given_up = async |failures| {
        let waited = async {
            loop {
                match stopped().await.into_iter().find(|job| job.attempts == failures) {
                    Some(job) => return job,
                    None => tokio::task::yield_now().await,
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(30), waited)
            .await
            .unwrap()
    };
    let job = given_up(1).await;
    assert_eq!(
        (job.state.as_str(), job.destination.as_str()),
        ("dead letter", "somebody")
    );
    assert!(job.last_error.unwrap().contains("payload"));
    let id = job.id;
    assert!(matches!(
        ask(JobCommand::Retry { id }).await,
        AdminReply::Done { .. }
    ));
    let again = given_up(2).await;
    assert_eq!(again.id, id);
    let AdminReply::Job {
        payload, attempts, ..
    } = ask(JobCommand::Show { id }).await
    else {
        panic!("it is there");
    };
    assert_eq!((payload.as_str(), attempts.len()), ("[]", 2));
    assert!(matches!(
        ask(JobCommand::Drop { id }).await,
        AdminReply::Done { .. }
    ));
    for command in [
        JobCommand::Show { id },
        JobCommand::Drop { id },
        JobCommand::Retry { id },
    ] {
        assert!(matches!(ask(command).await, AdminReply::Refused { .. }));
    }
}
