//! A talk between the users of two servers, each of whom says numbered things one after the other whatever happens to
//! the servers, and the proof that all of it stands on both sides exactly once, each user's words in their order.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use maru_tests::{Api, TestProcess, User, user::encode};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// Time within which everything must have come to an end, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// Time for one answer: a request that was cut off by a crash fails at once, one that waits for a start does not.
const ANSWER: Duration = Duration::from_secs(30);

/// One room with speakers on two servers.
pub(super) struct Talk {
    room: String,
    /// The users of each server, where each server is now, and how far each side's first user had synced.
    sides: [Side; 2],
}

struct Side {
    users: Vec<User>,
    api: watch::Sender<Api>,
    since: String,
}

impl Talk {
    /// A public room of the first server, in which that many users of each server are.
    pub(super) async fn prepare(servers: &[TestProcess; 2], users_of_each: usize) -> Self {
        let [here, there] = servers;
        let (mut first, mut second) = (Vec::new(), Vec::new());
        for n in 0..users_of_each {
            first.push(here.user(&format!("a{n}")).await);
            second.push(there.user(&format!("b{n}")).await);
        }
        let room = first[0].create_room(json!({ "preset": "public_chat" })).await;
        for user in &first[1..] {
            user.join(&room).await;
        }
        let via = server_name(&first[0]).to_owned();
        for user in &second {
            let path = format!("join/{}?via={via}", encode(&room));
            user.post(&path, json!({})).await.ok();
        }
        let [first, second] = [Side::of(first, here).await, Side::of(second, there).await];
        let talk = Self {
            room,
            sides: [first, second],
        };
        // Everybody has to be known on both sides before the talk begins.
        for side in &talk.sides {
            side.knows_all(&talk.room, 2 * users_of_each).await;
        }
        talk
    }

    /// A server was started again and is elsewhere now.
    pub(super) fn moved(&self, side: usize, server: &TestProcess) {
        self.sides[side].api.send_replace(server.api().clone());
    }

    /// Every user says that many things, one after the other and each until it is acknowledged. Counts what has been said.
    ///
    /// Answers the ids of all messages with their texts.
    pub(super) async fn speak(&self, each: usize, said: &watch::Sender<usize>) -> BTreeMap<String, String> {
        let mut speakers = JoinSet::new();
        for side in &self.sides {
            for user in &side.users {
                let (user, room) = (user.clone(), self.room.clone());
                let (api, said) = (side.api.subscribe(), said.clone());
                speakers.spawn(async move {
                    let mut words = Vec::with_capacity(each);
                    for number in 0..each {
                        let text = format!("{} {number}", user.name);
                        words.push((say(&user, &api, &room, &text).await, text));
                        said.send_modify(|said| *said += 1);
                    }
                    words
                });
            }
        }
        speakers.join_all().await.into_iter().flatten().collect()
    }

    /// Waits until everything has come to both sides, and checks that it stands there exactly once and in order: in what
    /// a client that synced all along has seen, and in the history.
    pub(super) async fn check_arrived(&self, said: &BTreeMap<String, String>) {
        for side in &self.sides {
            let user = side.user();
            let (mut seen, mut since) = (Vec::new(), side.since.clone());
            let deadline = Instant::now() + PATIENCE;
            while seen.len() < said.len() {
                assert!(
                    Instant::now() < deadline,
                    "{} of {} messages came to {}",
                    seen.len(),
                    said.len(),
                    user.id
                );
                let (news, next) = user.news(&self.room, &since).await;
                if news.is_empty() {
                    sleep(Duration::from_millis(50)).await;
                }
                seen.extend(messages(&news));
                since = next;
            }
            check(&seen, said, &format!("what {} has synced", user.id));
            let history = messages(&user.history(&self.room).await);
            check(&history, said, &format!("the history of {}", user.id));
        }
    }
}

impl Side {
    async fn of(users: Vec<User>, server: &TestProcess) -> Self {
        let since = users[0].sync(None).await.next();
        Self {
            users,
            api: watch::Sender::new(server.api().clone()),
            since,
        }
    }

    /// The first user, where its server is now.
    fn user(&self) -> User {
        self.users[0].on(&self.api.borrow())
    }

    async fn knows_all(&self, room: &str, members: usize) {
        let user = self.user();
        let path = format!("rooms/{}/joined_members", encode(room));
        let deadline = Instant::now() + PATIENCE;
        while user.get(&path).await.ok()["joined"].as_object().unwrap().len() < members {
            assert!(Instant::now() < deadline, "{} does not know all members", user.id);
            sleep(Duration::from_millis(50)).await;
        }
    }
}

fn server_name(user: &User) -> &str {
    user.id.split_once(':').unwrap().1
}

/// Sends one message until it is acknowledged; its event id.
async fn say(user: &User, api: &watch::Receiver<Api>, room: &str, text: &str) -> String {
    let path = format!("rooms/{}/send/m.room.message/{}", encode(room), encode(text));
    let body = json!({ "msgtype": "m.text", "body": text }).to_string();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let api = api.borrow().clone();
        let asked = api.try_request(
            http::Method::PUT,
            &path,
            Some(&user.token),
            Some(body.clone().into()),
        );
        match timeout(ANSWER, asked).await {
            Ok(Ok(reply)) if reply.status == 200 => {
                return reply.json["event_id"].as_str().unwrap().to_owned();
            }
            answer => assert!(Instant::now() < deadline, "`{text}` is not taken: {answer:?}"),
        }
        sleep(Duration::from_millis(50)).await;
    }
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

fn check(found: &[(String, String)], said: &BTreeMap<String, String>, place: &str) {
    let once: BTreeMap<_, _> = found.iter().cloned().collect();
    assert_eq!(once.len(), found.len(), "{place} holds a message twice");
    let missing: Vec<_> = said
        .iter()
        .filter(|(id, _)| !once.contains_key(*id))
        .take(5)
        .collect();
    assert!(missing.is_empty(), "{place} lacks {missing:?}");
    assert_eq!(&once, said, "{place} holds what nobody said");
    let mut heard: HashMap<&str, usize> = HashMap::new();
    for (_, text) in found {
        let (name, number) = text.split_once(' ').unwrap();
        let next = heard.entry(name).or_default();
        assert_eq!(number.parse(), Ok(*next), "{place} has {text} out of order");
        *next += 1;
    }
}
