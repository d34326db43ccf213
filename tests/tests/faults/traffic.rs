//! Many messages from several users in several rooms at once, and the proof that each arrived exactly once.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use maru_tests::{Api, Reply, User};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Time within which everything must have come to an end, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Users who are all in the same rooms, and where each user's sync stood before the first message.
pub(super) struct Traffic {
    pub(super) users: Vec<User>,
    pub(super) rooms: Vec<String>,
    since: Vec<String>,
}

/// One message: who sends it, into which room, under which transaction id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Send {
    user: usize,
    room: usize,
    number: usize,
}

impl Send {
    fn transaction(&self) -> String {
        format!("send{}", self.number)
    }

    fn text(&self) -> String {
        format!("message {} of {} in {}", self.number, self.user, self.room)
    }
}

/// What was answered to each message.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// The event ids of those that were acknowledged.
    pub(super) acknowledged: BTreeMap<Send, String>,
    /// The answers that were errors.
    pub(super) refused: Vec<(Send, Reply)>,
    /// Those that got no answer.
    pub(super) unanswered: Vec<Send>,
}

impl Outcome {
    /// The messages to send again.
    pub(super) fn open(&self) -> Vec<Send> {
        let refused = self.refused.iter().map(|(send, _)| send);
        refused.chain(&self.unanswered).cloned().collect()
    }
}

impl Traffic {
    /// Registers users, makes rooms, and lets everybody join all of them.
    pub(super) async fn prepare(api: &Api, users: usize, rooms: usize) -> Self {
        let mut all = Vec::new();
        for n in 0..users {
            all.push(api.register(&format!("user{n}")).await);
        }
        let mut made = Vec::new();
        for n in 0..rooms {
            let owner = &all[n % users];
            let room = owner.create_room(json!({ "preset": "public_chat" })).await;
            for user in all.iter().filter(|user| user.id != owner.id) {
                user.join(&room).await;
            }
            made.push(room);
        }
        let mut since = Vec::new();
        for user in &all {
            since.push(user.sync(None).await.next());
        }
        Self {
            users: all,
            rooms: made,
            since,
        }
    }

    /// That many messages, spread over all users and rooms.
    pub(super) fn sends(&self, count: usize) -> Vec<Send> {
        let spread = |number| Send {
            user: number % self.users.len(),
            room: (number / self.users.len()) % self.rooms.len(),
            number,
        };
        (0..count).map(spread).collect()
    }

    /// The same users on a server that was started again.
    pub(super) fn on(self, api: &Api) -> Self {
        let users = self.users.iter().map(|user| user.on(api)).collect();
        Self { users, ..self }
    }

    /// Sends all at once. Once `enough` are acknowledged, `progress` says so, and it goes on counting.
    pub(super) async fn send_all(&self, sends: Vec<Send>, progress: &watch::Sender<usize>) -> Outcome {
        let mut tasks = JoinSet::new();
        let count = Arc::new(AtomicUsize::new(0));
        for send in sends {
            let (user, room) = (self.users[send.user].clone(), self.rooms[send.room].clone());
            tasks.spawn(async move {
                let answer = try_send(&user, &room, &send).await;
                (send, answer)
            });
        }
        let mut outcome = Outcome::default();
        while let Some(done) = tasks.join_next().await {
            let (send, answer) = done.unwrap();
            match answer {
                Ok(reply) if reply.status == 200 => {
                    let id = reply.json["event_id"].as_str().unwrap().to_owned();
                    outcome.acknowledged.insert(send, id);
                    progress.send_replace(count.fetch_add(1, Ordering::Relaxed) + 1);
                }
                Ok(reply) => outcome.refused.push((send, reply)),
                Err(_) => outcome.unanswered.push(send),
            }
        }
        outcome
    }

    /// Sends what is open again and again, under the same transaction ids, until all is acknowledged.
    pub(super) async fn send_until_done(&self, mut outcome: Outcome) -> BTreeMap<Send, String> {
        let started = Instant::now();
        let (progress, _) = watch::channel(0);
        while !outcome.open().is_empty() {
            assert!(
                started.elapsed() < PATIENCE,
                "still refused: {:?}",
                outcome.refused.first()
            );
            let again = self.send_all(outcome.open(), &progress).await;
            outcome.refused = again.refused;
            outcome.unanswered = again.unanswered;
            outcome.acknowledged.extend(again.acknowledged);
        }
        outcome.acknowledged
    }

    /// Checks that a repeated transaction id still answers with the event it became.
    pub(super) async fn check_repeats(&self, acknowledged: &BTreeMap<Send, String>) {
        for (send, id) in acknowledged.iter().step_by(acknowledged.len() / 50 + 1) {
            let reply = try_send(&self.users[send.user], &self.rooms[send.room], send)
                .await
                .unwrap();
            assert_eq!(reply.ok()["event_id"], **id);
        }
    }

    /// Checks that every acknowledged message, and no other, stands exactly once and in one order in the history and in
    /// the sync of every member.
    pub(super) async fn check_arrived(&self, acknowledged: &BTreeMap<Send, String>) {
        let mut expected: HashMap<usize, BTreeMap<String, String>> = HashMap::new();
        for (send, id) in acknowledged {
            let room = expected.entry(send.room).or_default();
            assert_eq!(
                room.insert(id.clone(), send.text()),
                None,
                "two sends became one event"
            );
        }
        for (number, room) in self.rooms.iter().enumerate() {
            let expected = expected.remove(&number).unwrap_or_default();
            let history = messages(&self.users[0].history(room).await);
            let arrived: BTreeMap<_, _> = history.iter().cloned().collect();
            assert_eq!(
                arrived.len(),
                history.len(),
                "a message stands in the history twice"
            );
            assert_eq!(arrived, expected, "the history holds what was acknowledged");
            for (user, since) in self.users.iter().zip(&self.since) {
                assert_eq!(
                    messages(&user.history(room).await),
                    history,
                    "history of {}",
                    user.name
                );
                let (news, _) = user.news(room, since).await;
                assert_eq!(messages(&news), history, "sync of {}", user.name);
            }
        }
    }
}

async fn try_send(user: &User, room: &str, send: &Send) -> Result<Reply, String> {
    let content = json!({ "msgtype": "m.text", "body": send.text() });
    let path = format!(
        "rooms/{}/send/m.room.message/{}",
        maru_tests::user::encode(room),
        send.transaction()
    );
    let body = content.to_string().into();
    user.api
        .try_request(http::Method::PUT, &path, Some(&user.token), Some(body))
        .await
}

/// Ids and texts of the messages among some events.
fn messages(events: &[Value]) -> Vec<(String, String)> {
    let messages = events.iter().filter(|event| event["type"] == "m.room.message");
    messages
        .map(|event| {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            (text(&event["event_id"]), text(&event["content"]["body"]))
        })
        .collect()
}
