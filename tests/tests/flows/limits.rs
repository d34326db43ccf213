//! Every budget refuses who goes over it: by every endpoint that spends it, by every frame, and by every way in which a
//! request can mean more than it is called.

use http::Method;
use maru::config::{Config, Rate, Setting};
use maru::limits::spending::{ENDPOINTS, FRAMES, Spending};
use maru::limits::{Budget, By};
use maru_tests::user::encode;

use maru_tests::{Engine, Reply, Socket, TestServer, User};
use serde_json::{Value, json};

/// Once, and then not again for as long as a test takes.
const ONCE: Rate = Rate {
    per_second: 0.001,
    burst: 1,
};

/// A server on which these budgets allow one thing each.
async fn sparing(budgets: &[Budget]) -> TestServer {
    TestServer::start_with(Engine::Sqlite, |config: &mut Config| {
        config.rate_limits = true;
        // Without it nobody signs in on pages.
        config.public_base_url = Some(Setting::read("https://maru.example.org").unwrap());
        for budget in Budget::ALL {
            let plenty = Rate {
                per_second: 1e6,
                burst: 1_000_000,
            };
            *config.rates.of_mut(budget) = if budgets.contains(&budget) { ONCE } else { plenty };
        }
    })
    .await
}

/// A path of the row as it is served, every variable filled.
fn path(row: &Spending) -> String {
    let served = maru::http::endpoints().into_iter();
    let mut paths = served.filter(|served| served.spends.is_some_and(|spends| std::ptr::eq(spends, row)));
    let mut rest = paths.next().unwrap().path;
    let mut path = String::new();
    while let Some((before, after)) = rest.split_once('{') {
        path.push_str(before);
        path.push_str(&encode("!x:example.org"));
        rest = after.split_once('}').unwrap().1;
    }
    path + rest
}

async fn ask(server: &TestServer, row: &Spending, token: Option<&str>) -> Reply {
    let method = Method::from_bytes(row.method.as_bytes()).unwrap();
    let body = (row.method != "GET").then(|| json!({}));
    server.api().request(method, &path(row), token, body).await
}

#[track_caller]
fn passed(reply: &Reply, row: &Spending) {
    assert_ne!(reply.status, 429, "{row:?}: {}", reply.json);
}

#[tokio::test]
async fn every_endpoint_refuses_who_has_spent_an_account_s_budget() {
    let of_accounts: Vec<_> = Budget::ALL
        .into_iter()
        .filter(|budget| budget.by() == By::Account)
        .collect();
    let server = sparing(&of_accounts).await;
    let first = |end: &str| ENDPOINTS.iter().find(|row| row.path == end).unwrap();
    let mut spenders = 0;
    for budget in of_accounts {
        // What is for application services is refused to users whatever they have spent.
        let of_users = ENDPOINTS
            .iter()
            .filter(|row| !row.path.starts_with("appservice/"));
        for row in of_users.filter(|row| row.each.contains(&budget)) {
            let user = server.user(&format!("user{spenders}")).await;
            spenders += 1;
            // Who has logged out or closed the account cannot ask again.
            let ends_session = ["logout", "logout/all"].contains(&row.path);
            let before = if ends_session {
                first("delete_devices")
            } else {
                row
            };
            passed(&ask(&server, before, Some(&user.token)).await, before);
            let reply = ask(&server, row, Some(&user.token)).await;
            reply.refused(429, "M_LIMIT_EXCEEDED");
            assert!(reply.headers.contains_key("retry-after"), "{row:?}");
        }
    }
    assert!(spenders > 40, "{spenders}");
}

#[tokio::test]
async fn every_endpoint_for_strangers_refuses_an_address_that_has_spent_its_budget() {
    for row in ENDPOINTS {
        let Some(budget) = row.each.iter().find(|budget| budget.by() == By::Address) else {
            continue;
        };
        let server = sparing(&[*budget]).await;
        passed(&ask(&server, row, None).await, row);
        let reply = ask(&server, row, None).await;
        // What is no endpoint of Matrix has words of its own (RFC 6749, section 5.2), or is a page.
        match row.path.starts_with('/') {
            true => assert_eq!(reply.status, 429, "{row:?}"),
            false => reply.refused(429, "M_LIMIT_EXCEEDED"),
        }
    }
}

#[tokio::test]
async fn memberships_set_as_state_spend_what_their_endpoints_spend() {
    let server = sparing(&[Budget::Invites, Budget::Joins]).await;
    let [alice, bob, carol] = [
        server.user("alice").await,
        server.user("bob").await,
        server.user("carol").await,
    ];
    let public = json!({ "preset": "public_chat" });
    let rooms = [
        alice.create_room(public.clone()).await,
        alice.create_room(public).await,
    ];
    let set = async |who: &User, room: &str, whom: &User, membership: &str| {
        let path = format!("rooms/{}/state/m.room.member/{}", encode(room), encode(&whom.id));
        who.put(&path, json!({ "membership": membership })).await
    };
    set(&alice, &rooms[0], &bob, "invite").await.ok();
    set(&alice, &rooms[0], &carol, "invite")
        .await
        .refused(429, "M_LIMIT_EXCEEDED");
    let invited = json!({ "invite": [carol.id] });
    alice
        .post("createRoom", invited)
        .await
        .refused(429, "M_LIMIT_EXCEEDED");

    set(&bob, &rooms[0], &bob, "join").await.ok();
    set(&bob, &rooms[1], &bob, "join")
        .await
        .refused(429, "M_LIMIT_EXCEEDED");
    let join = format!("join/{}", encode(&rooms[1]));
    bob.post(&join, json!({})).await.refused(429, "M_LIMIT_EXCEEDED");
    set(&bob, &rooms[0], &bob, "leave").await.ok();
}

#[tokio::test]
async fn what_a_new_room_begins_with_counts_as_events() {
    let server = sparing(&[Budget::Events]).await;
    let alice = server.user("alice").await;
    let state = |n: usize| json!({ "type": "x.y", "state_key": n.to_string(), "content": {} });
    let begun: Vec<Value> = (0..2).map(state).collect();
    let room = alice.create_room(json!({ "initial_state": begun })).await;
    let again = json!({ "initial_state": [state(1)] });
    alice
        .post("createRoom", again)
        .await
        .refused(429, "M_LIMIT_EXCEEDED");
    let content = json!({ "msgtype": "m.text", "body": "more" });
    let more = alice.send_as(&room, "m.room.message", "t", content).await;
    more.refused(429, "M_LIMIT_EXCEEDED");
}

#[tokio::test]
async fn every_frame_refuses_who_has_spent_its_budget() {
    let budgets: Vec<_> = FRAMES.iter().map(|(_, budget)| *budget).collect();
    let server = sparing(&budgets).await;
    let listening = server.listen().await;
    let room = "!x:example.org";
    for (n, (name, budget)) in FRAMES.iter().enumerate() {
        let user = server.user(&format!("user{n}")).await;
        let parts = server.parts();
        let id: &ruma::UserId = user.id.as_str().try_into().unwrap();
        parts.budgets.spend(*budget, id).unwrap();
        let mut socket = Socket::open(&listening.base, &user, None).await;
        let frame = match *name {
            "ack" => {
                let synced = socket.sync().await;
                json!({ "type": "ack", "next_batch": synced.next() })
            }
            "send" => json!({ "type": "send", "id": 1, "room_id": room, "event_type": "m.room.message",
                "txn_id": "t", "content": {} }),
            "receipt" => json!({ "type": "receipt", "id": 1, "room_id": room, "receipt_type": "m.read",
                "event_id": "$x" }),
            "typing" => json!({ "type": "typing", "room_id": room, "typing": true }),
            other => json!({ "type": other }),
        };
        socket.tell(frame).await;
        let answer = socket.answer().await;
        assert_eq!(answer["errcode"], "M_LIMIT_EXCEEDED", "{name}: {answer}");
        assert!(
            answer["retry_after_ms"].as_u64().is_some_and(|ms| ms > 0),
            "{answer}"
        );
    }
}
