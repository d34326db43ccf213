//! Many do many things to one room at once, on three servers, one of them on PostgreSQL: nobody's server fails, and in the
//! end all have the same.
//! What meets what depends on the machine, too: `MARU_TURMOIL_FROM=N` plays other seeds.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use maru_tests::chance::Chance;
use maru_tests::user::{encode, texts};
use maru_tests::waiting::look_for;
use maru_tests::{Engine, Reply, TestServer, User, federate};
use serde_json::{Value, json};

/// Runs, each with a seed of its own.
const RUNS: u64 = 6;

/// Rounds of one run; in each several users do something at the same time.
const ROUNDS: usize = 25;

/// What somebody tries. It may be forbidden.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Say,
    Name,
    Leave,
    Join,
    Invite,
    Kick,
    Ban,
    Unban,
    Promote,
}

const DEEDS: [Deed; 14] = [
    Deed::Say,
    Deed::Say,
    Deed::Name,
    Deed::Leave,
    Deed::Join,
    Deed::Join,
    Deed::Join,
    Deed::Invite,
    Deed::Kick,
    Deed::Ban,
    Deed::Unban,
    Deed::Unban,
    Deed::Promote,
    Deed::Promote,
];

/// A current state: types, keys, events and memberships.
type State = BTreeSet<(String, String, String, Option<String>)>;

/// A room and those who come and go. The first has made it, and stays.
struct Turmoil {
    servers: Vec<TestServer>,
    users: Vec<User>,
    room: String,
}

impl Turmoil {
    async fn begin(version: &str, on_postgres: usize) -> Self {
        let mut servers = Vec::new();
        for n in 0..3 {
            let engine = match n == on_postgres {
                true => Engine::Postgres,
                false => Engine::Sqlite,
            };
            servers.push(TestServer::start_on(engine).await);
        }
        federate(&servers.iter().collect::<Vec<_>>()).await;
        let mut users = Vec::new();
        for (n, server) in servers.iter().chain(&servers).enumerate() {
            users.push(server.user(&format!("user{n}")).await);
        }
        let room = json!({ "preset": "public_chat", "room_version": version });
        let room = users[0].create_room(room).await;
        for user in &users[1..] {
            user.join_via(&room, servers[0].name()).await.ok();
        }
        Self { servers, users, room }
    }

    /// Somebody tries something.
    async fn act(&self, actor: &User, target: &User, deed: Deed, round: usize) -> Reply {
        let path = |what: &str| format!("rooms/{}/{what}", encode(&self.room));
        let whom = json!({ "user_id": target.id });
        match deed {
            Deed::Say => {
                let content = json!({ "msgtype": "m.text", "body": format!("{round} by {}", actor.id) });
                actor
                    .send_as(&self.room, "m.room.message", &actor.transaction(), content)
                    .await
            }
            Deed::Name => {
                let name = json!({ "name": format!("Room of {} in round {round}", actor.id) });
                actor.put(&path("state/m.room.name"), name).await
            }
            Deed::Leave => actor.post(&path("leave"), json!({})).await,
            Deed::Join => {
                let via = self.servers[round % self.servers.len()].name();
                actor.join_via(&self.room, via).await
            }
            Deed::Invite => actor.post(&path("invite"), whom).await,
            Deed::Kick => actor.post(&path("kick"), whom).await,
            Deed::Ban => actor.post(&path("ban"), whom).await,
            Deed::Unban => actor.post(&path("unban"), whom).await,
            Deed::Promote => {
                let levels = actor.get(&path("state/m.room.power_levels")).await;
                if levels.status != 200 {
                    return levels;
                }
                let mut levels = levels.ok();
                levels["users"][target.id.as_str()] = json!(50);
                actor.put(&path("state/m.room.power_levels"), levels).await
            }
        }
    }

    /// Everybody comes back, until all are in by everybody's account, and says something that all hear.
    async fn settle(&self) {
        let keeper = &self.users[0];
        keeper.send(&self.room, "come back").await;
        let all_come = async || {
            for user in &self.users[1..] {
                let reply = user.join_via(&self.room, self.servers[0].name()).await;
                assert!(
                    reply.status.as_u16() < 500,
                    "{}",
                    String::from_utf8_lossy(&reply.body)
                );
                if reply.status != 200 {
                    // A ban may still have been on its way.
                    let unban = format!("rooms/{}/unban", encode(&self.room));
                    let unban = keeper.post(&unban, json!({ "user_id": user.id })).await;
                    return Err(format!(
                        "{} is not let in: {}, {}",
                        user.id, reply.json, unban.json
                    ));
                }
            }
            Ok(())
        };
        let all_in = async || {
            all_come().await?;
            let states = join_all(self.users.iter().map(|user| self.state(user))).await;
            let is_in = |user: &User| {
                states[0].iter().any(|(kind, key, _, membership)| {
                    kind == "m.room.member" && *key == user.id && membership.as_deref() == Some("join")
                })
            };
            let all_same = states.iter().all(|state| *state == states[0]);
            if all_same && self.users.iter().all(is_in) {
                return Ok(());
            }
            Err(differences(&states))
        };
        let all_settled = async || {
            let settled = all_in().await;
            if settled.is_err() {
                // What one server has turned down softly it takes with what is said after it.
                for user in &self.users {
                    self.act(user, keeper, Deed::Say, ROUNDS).await;
                }
            }
            settled
        };
        look_for("all are back and have the same state", all_settled).await;
        for user in &self.users {
            user.send(&self.room, &format!("{} is here", user.id)).await;
        }
        for listener in &self.users {
            look_for(&format!("{} hears all", listener.id), async || {
                let heard = texts(&listener.history(&self.room).await);
                let unheard = |speaker: &&User| !heard.contains(&format!("{} is here", speaker.id));
                let unheard = self.users.iter().find(unheard);
                unheard.map_or(Ok(()), |speaker| Err(format!("nothing of {}", speaker.id)))
            })
            .await;
        }
    }

    /// The current state, as somebody's server shows it; nothing to who is out.
    async fn state(&self, user: &User) -> State {
        let reply = user.get(&format!("rooms/{}/state", encode(&self.room))).await;
        let text = |event: &Value, key: &str| event[key].as_str().unwrap().to_owned();
        let slot = |event: &Value| {
            let membership = event["content"]["membership"].as_str().map(str::to_owned);
            (
                text(event, "type"),
                text(event, "state_key"),
                text(event, "event_id"),
                membership,
            )
        };
        reply.json.as_array().into_iter().flatten().map(slot).collect()
    }
}

/// What not all states hold.
fn differences(states: &[State]) -> String {
    let all: BTreeSet<_> = states.iter().flatten().collect();
    let differs = all
        .into_iter()
        .filter(|slot| !states.iter().all(|state| state.contains(slot)));
    let differs = differs.map(|slot| {
        let held: Vec<_> = states.iter().map(|state| state.contains(slot)).collect();
        format!("{slot:?} is held {held:?}\n")
    });
    differs.collect()
}

async fn run(seed: u64) {
    let [version, on_postgres] = [seed % 3, seed / 2 % 3].map(|n| usize::try_from(n).unwrap());
    let version = ["10", "11", "12"][version];
    let (turmoil, mut chance) = (Turmoil::begin(version, on_postgres).await, Chance(seed));
    let mut said = Vec::new();
    for round in 0..ROUNDS {
        let deeds: Vec<_> = (0..turmoil.users.len())
            .filter_map(|actor| {
                let deed = DEEDS[chance.below(DEEDS.len())];
                let target = chance.below(turmoil.users.len());
                let acts = chance.below(2) == 0;
                // Whoever made the room stays.
                let stays = actor != 0 || !matches!(deed, Deed::Leave);
                (acts && stays && actor != target).then_some((actor, target, deed))
            })
            .collect();
        let acts = deeds.iter().map(|(actor, target, deed)| {
            turmoil.act(&turmoil.users[*actor], &turmoil.users[*target], *deed, round)
        });
        for ((actor, target, deed), reply) in deeds.iter().zip(join_all(acts).await) {
            let body = String::from_utf8_lossy(&reply.body);
            assert!(
                reply.status.as_u16() < 500,
                "seed {seed}, round {round}: {deed:?} by {actor} of {target}: {} {body}",
                reply.status
            );
            if let (0, Deed::Say, 200) = (actor, deed, reply.status.as_u16()) {
                said.push(format!("{round} by {}", turmoil.users[0].id));
            }
        }
    }
    turmoil.settle().await;
    for user in &turmoil.users[1..3] {
        let history = texts(&user.history(&turmoil.room).await);
        for text in &said {
            assert!(
                history.contains(text),
                "seed {seed}: {} never got {text:?}",
                user.id
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_have_the_same_in_the_end() {
    let first = std::env::var("MARU_TURMOIL_FROM").map_or(0, |from| from.parse().unwrap());
    for seed in first..first + RUNS {
        Box::pin(run(seed)).await;
    }
}
