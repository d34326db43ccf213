//! Typing and presence between the users of a node that does not speak with other homeservers and those of another homeserver.

use std::net::SocketAddr;

use maru_tests::waiting::look_for;
use maru_tests::{Engine, TestServer, User, federate, reunite};
use serde_json::json;

use super::passing::{presence, status_path, types, typing, until};

/// A homeserver of two nodes, of which the first speaks with others, and another homeserver. A user of the second node and
/// one of the other share a room.
struct Beyond {
    leading: TestServer,
    _following: TestServer,
    elsewhere: TestServer,
    elsewhere_at: SocketAddr,
    alice: User,
    carol: User,
    room: String,
}

impl Beyond {
    async fn start() -> Self {
        let patient =
            |engine| TestServer::start_with(engine, |config| config.presence.offline_after_seconds = 600);
        let (leading, elsewhere) = (patient(Engine::Postgres).await, patient(Engine::Sqlite).await);
        let following = leading.start_node("two").await;
        let addresses = federate(&[&leading, &elsewhere]).await;
        let [alice, carol] = [leading.user("alice").await, elsewhere.user("carol").await];
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        carol.join_via(&room, leading.name()).await.ok();
        let alice = alice.on(following.api());
        alice.sees_member(&room, &carol, "join").await;
        Self {
            leading,
            _following: following,
            elsewhere,
            elsewhere_at: addresses[1],
            alice,
            carol,
            room,
        }
    }

    /// Starts the node that speaks with others again: of the room it has nothing in memory then.
    async fn start_leading_again(self) -> Self {
        let leading = self.leading.restart().await;
        reunite(&leading, &self.elsewhere, self.elsewhere_at).await;
        Self { leading, ..self }
    }

    /// Has both type and stop, and each hear it of the other, once.
    async fn type_to_each_other(&self) {
        for (user, hearer) in [(&self.alice, &self.carol), (&self.carol, &self.alice)] {
            let mut since = hearer.sync(None).await.next();
            for expected in [Some(60_000), None] {
                let who = expected.map_or(json!([]), |_| json!([user.id]));
                types(user, &self.room, expected).await;
                let told = |synced: &_| typing(synced, &self.room) == Some(who.clone());
                since = until(hearer, since, "who types", told).await;
            }
        }
    }

    /// Has both be in a state, and each hear it of the other.
    async fn be(&self, state: &str) {
        for (user, hearer) in [(&self.alice, &self.carol), (&self.carol, &self.alice)] {
            let since = hearer.sync(None).await.next();
            user.put(&status_path(user), json!({ "presence": state }))
                .await
                .ok();
            let told = |synced: &_| presence(synced, user) == Some(json!(state));
            until(hearer, since, state, told).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_types_at_any_node_is_seen_elsewhere_and_the_other_way_round() {
    let beyond = Beyond::start().await;
    beyond.type_to_each_other().await;
    let beyond = Box::pin(beyond.start_leading_again()).await;
    beyond.type_to_each_other().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_present_at_any_node_is_so_elsewhere_and_the_other_way_round() {
    let beyond = Beyond::start().await;
    beyond.be("unavailable").await;
    beyond.be("offline").await;
    let beyond = Box::pin(beyond.start_leading_again()).await;
    beyond.be("unavailable").await;
    // What a homeserver said of its users ends with the connection, at all nodes.
    beyond.elsewhere.shut_down().await;
    look_for("she is offline", async || {
        let asked = beyond.alice.get(&status_path(&beyond.carol)).await.ok();
        (asked["presence"] == "offline")
            .then_some(())
            .ok_or(asked.to_string())
    })
    .await;
}
