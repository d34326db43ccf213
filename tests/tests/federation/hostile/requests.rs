//! What a peer may not ask: of rooms it is not in or has left, and in the name of others.

use maru_federation::pool::RequestError;
use maru_protocol::wire::bounded::Text;
use maru_protocol::wire::request::history::{Backfill, Events, MissingEvents};
use maru_protocol::wire::request::membership::{MakeMembership, Membership};
use maru_protocol::wire::request::state::State;
use maru_protocol::wire::{Call, RefusedCode};
use maru_tests::{TestServer, User};
use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId};
use serde_json::json;

use super::liar::{Liar, Victim};

/// The events that an answer holds.
async fn events<C: Call>(liar: &Liar, victim: &Victim, call: C) -> Result<Vec<String>, RequestError> {
    let answer = liar.pool.request(&victim.name, call).await?;
    let (parts, _) = answer.collect(1 << 20).await?;
    let json = parts.into_iter().flat_map(|part| part.events);
    Ok(json.map(|json| json.to_string()).collect())
}

/// Asks for an event in every way there is. What comes back is nowhere the event itself; how often it is a refusal.
async fn cannot_have(liar: &Liar, victim: &Victim, room: &str, event: &str) -> u64 {
    let (room_id, id) = (
        OwnedRoomId::try_from(room).unwrap(),
        OwnedEventId::try_from(event).unwrap(),
    );
    let answers = [
        events(
            liar,
            victim,
            Events {
                room_id: room_id.clone(),
                ids: vec![id.clone()],
            },
        )
        .await,
        events(
            liar,
            victim,
            Backfill {
                room_id: room_id.clone(),
                from: vec![id.clone()],
                limit: 10,
            },
        )
        .await,
        events(
            liar,
            victim,
            MissingEvents {
                room_id: room_id.clone(),
                earliest: Vec::new(),
                latest: vec![id.clone()],
                limit: 10,
            },
        )
        .await,
        events(
            liar,
            victim,
            State {
                room_id,
                at: id,
                beside: None,
            },
        )
        .await,
    ];
    let mut refused = 0;
    for answer in answers {
        match answer {
            Ok(events) => assert!(
                events.iter().all(|json| !json.contains("secret")),
                "a stranger is told: {events:?}"
            ),
            Err(error) => {
                refused += 1;
                let code = Liar::refused(Err::<(), _>(error));
                assert!(
                    matches!(code, RefusedCode::NotFound | RefusedCode::Forbidden),
                    "{code}"
                );
            }
        }
    }
    refused
}

/// How often requests of a liar were refused.
fn refused(server: &TestServer, liar: &Liar) -> u64 {
    let pool = server.parts().peers.pool().unwrap();
    pool.peer(&liar.name).unwrap().traffic.refused
}

async fn stage() -> (TestServer, Victim, User) {
    let server = TestServer::start().await;
    let victim = Victim::of(&server).await;
    let alice = server.user("alice").await;
    (server, victim, alice)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_tells_outsiders_nothing() {
    let (server, victim, alice) = stage().await;
    let room = alice.create_room(json!({ "preset": "private_chat" })).await;
    let event = alice.send(&room, "secret").await;
    let liar = Liar::start(51, &victim);
    let refusals = cannot_have(&liar, &victim, &room, &event).await;
    // Nor does it let them in, asked politely or told.
    let code = Liar::refused(liar.try_join(&victim, &room).await.map(drop));
    assert!(
        matches!(code, RefusedCode::NotFound | RefusedCode::Forbidden),
        "{code}"
    );
    assert!(refusals > 0);
    assert_eq!(refused(&server, &liar), refusals + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_left_learns_nothing_new() {
    let (server, victim, alice) = stage().await;
    let room = alice
        .create_room(json!({ "preset": "public_chat", "initial_state": [
            { "type": "m.room.history_visibility", "content": { "history_visibility": "joined" } }
        ] }))
        .await;
    let liar = Liar::start(52, &victim);
    let foothold = liar.join(&victim, &room).await;
    let leave = foothold.event(
        "m.room.member",
        Some(foothold.user.as_str()),
        json!({ "membership": "leave" }),
    );
    liar.say(&victim, [foothold.item(&leave.json)]).await;
    let mut synced = alice.sync(None).await;
    let gone = |synced: &maru_tests::Synced| {
        let members = synced.events(&room);
        members
            .iter()
            .any(|event| event["content"]["membership"] == "leave")
    };
    while !gone(&synced) {
        synced = alice.wait(&synced.next()).await;
    }
    let event = alice.send(&room, "secret").await;
    let refusals = cannot_have(&liar, &victim, &room, &event).await;
    assert!(refusals > 0);
    assert_eq!(refused(&server, &liar), refusals);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_speaks_for_users_of_others() {
    let (_server, victim, alice) = stage().await;
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    let liar = Liar::start(53, &victim);
    let other = Liar::start(54, &victim);
    let mut foothold = other.join(&victim, &room).await;
    let call = MakeMembership {
        room_id: OwnedRoomId::try_from(&*room).unwrap(),
        user_id: foothold.user.clone(),
        membership: Membership::Leave,
        versions: vec![Text::new("12").unwrap()],
    };
    let asked = liar.pool.request(&victim.name, call).await.unwrap().done().await;
    assert_eq!(Liar::refused(asked), RefusedCode::Forbidden);
    // A leave that the other has signed is not this one's to hand in, and neither is a message.
    let leave = foothold.event(
        "m.room.member",
        Some(foothold.user.as_str()),
        json!({ "membership": "leave" }),
    );
    foothold.user = OwnedUserId::try_from(format!("@liar:{}", liar.name)).unwrap();
    foothold.server = liar.name.clone();
    foothold.key = liar.keys.signing.clone();
    let message = foothold.message("not a membership");
    for event in [leave, message] {
        assert!(matches!(
            Liar::refused(liar.hand_in(&victim, &event).await),
            RefusedCode::Forbidden | RefusedCode::Invalid
        ));
    }
    let members = format!("rooms/{}/joined_members", maru_tests::user::encode(&room));
    let joined = alice.get(&members).await.ok();
    assert_eq!(joined["joined"].as_object().unwrap().len(), 2, "{joined}");
}

/// A join is built while the room is open, and handed in when it is not: that it was handed in before lets nobody in.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_turned_down_is_turned_down_again() {
    let (_server, victim, alice) = stage().await;
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    let liar = Liar::start(55, &victim);
    let (_, join) = liar.build_join(&victim, &room).await.unwrap();
    let closed = json!({ "join_rule": "invite" });
    alice.set_state(&room, "m.room.join_rules", "", closed).await;
    for _ in 0..2 {
        let asked = liar.hand_in(&victim, &join).await;
        assert_eq!(Liar::refused(asked), RefusedCode::Forbidden);
    }
}
