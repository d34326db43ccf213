//! Who sees what: random lives of a user in a room, and every reading path held against the specification's table
//! (client-server API, "Room history visibility").

#![allow(clippy::unwrap_used, reason = "a test may stop where something cannot be")]

use std::collections::HashSet;

use maru_tests::user::encode;
use maru_tests::waiting::look_for;
use maru_tests::{TestServer, User, on_both_engines};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

on_both_engines!(
    every_reading_path_shows_the_same,
    who_has_left_is_told_nothing_of_what_came_after,
);

/// Random lives that are tried.
const LIVES: u64 = 12;

/// What happens in one of them.
const STEPS: usize = 24;

const VISIBILITIES: [&str; 4] = ["joined", "invited", "shared", "world_readable"];

/// Waits until the index of search holds what is in the log.
async fn caught_up(server: &TestServer) {
    look_for("an index that has caught up", async || {
        let readers = server.parts().readers.all().await.unwrap();
        let is_done = readers
            .iter()
            .any(|(reader, lag)| &*reader.id.name == "search" && reader.building.is_none() && *lag == 0);
        is_done.then_some(()).ok_or(format!("{readers:?}"))
    })
    .await;
}

/// An event, and what was the case just before and just after it.
#[derive(Debug)]
struct Told {
    id: String,
    visibility: [&'static str; 2],
    membership: [&'static str; 2],
}

/// A room that alice runs and bob comes to and goes from, and what is known of it.
struct Life<'a> {
    alice: &'a User,
    bob: &'a User,
    room: String,
    random: StdRng,
    visibility: &'static str,
    membership: &'static str,
    told: Vec<Told>,
    /// Messages that were said, and events that alice has tried to edit, by their ids.
    said: HashSet<String>,
    edited: HashSet<String>,
    /// The visibility when bob last stopped being joined.
    departure: Option<&'static str>,
}

async fn every_reading_path_shows_the_same(server: TestServer) {
    let [alice, bob] = [server.user("alice").await, server.user("bob").await];
    for seed in 0..LIVES {
        let mut life = Life::begin(&alice, &bob, seed).await;
        for step in 0..STEPS {
            life.step().await;
            if step % 8 == 7 {
                life.check(&format!("life {seed}, step {step}")).await;
            }
        }
        caught_up(&server).await;
        life.check_all_is_found(&format!("life {seed}")).await;
    }
}

async fn who_has_left_is_told_nothing_of_what_came_after(server: TestServer) {
    let [alice, bob] = [server.user("alice").await, server.user("bob").await];
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    let root = alice.send(&room, "root").await;
    let refer = async |text: &str| {
        let relation = json!({ "rel_type": "m.reference", "event_id": root });
        let content = json!({ "msgtype": "m.text", "body": text, "m.relates_to": relation });
        alice.send_event(&room, "m.room.message", content).await
    };
    let secret = alice.send(&room, "secret").await;
    let before = refer("before").await;
    bob.leave(&room).await;
    let after = refer("after").await;
    let redaction = alice.redact(&room, &secret).await;
    let shown = async |user: &User, event: &str| {
        let path = format!("rooms/{}/event/{}", encode(&room), encode(event));
        user.get(&path).await.ok()["unsigned"].take()
    };
    let references = |unsigned: &Value| unsigned["m.relations"]["m.reference"]["chunk"].clone();
    let because = |unsigned: &Value| unsigned["redacted_because"]["event_id"].clone();
    assert_eq!(
        references(&shown(&alice, &root).await),
        json!([{ "event_id": after }, { "event_id": before }])
    );
    assert_eq!(
        references(&shown(&bob, &root).await),
        json!([{ "event_id": before }])
    );
    assert_eq!(because(&shown(&alice, &secret).await), redaction.as_str());
    assert_eq!(because(&shown(&bob, &secret).await), Value::Null);
    bob.join(&room).await;
    assert_eq!(because(&shown(&bob, &secret).await), redaction.as_str());
}

impl<'a> Life<'a> {
    async fn begin(alice: &'a User, bob: &'a User, seed: u64) -> Self {
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        let mut life = Self {
            alice,
            bob,
            room,
            random: StdRng::seed_from_u64(seed),
            visibility: "shared",
            membership: "leave",
            told: Vec::new(),
            said: HashSet::new(),
            edited: HashSet::new(),
            departure: None,
        };
        life.told = history(alice, &life.room, "f", None)
            .await
            .unwrap()
            .into_iter()
            .map(|event| Told {
                id: event["event_id"].as_str().unwrap().to_owned(),
                visibility: ["shared"; 2],
                membership: ["leave"; 2],
            })
            .collect();
        life
    }

    /// Does something that the room's rules allow.
    async fn step(&mut self) {
        let before = (self.visibility, self.membership);
        match (self.random.random_range(0..8), self.membership) {
            (0 | 1, "leave" | "invite") => self.becomes("join").await,
            (0 | 1, "join") => self.becomes("leave").await,
            (2, "leave") => self.becomes("invite").await,
            (2, "ban") => self.becomes("unban").await,
            (3, "join" | "invite") if self.random.random_bool(0.5) => self.becomes("kick").await,
            (3, "join" | "invite" | "leave") if self.random.random_bool(0.5) => self.becomes("ban").await,
            (4 | 5, _) => self.change_visibility().await,
            (6, _) => self.edit().await,
            _ => self.say().await,
        }
        if before.1 == "join" && self.membership != "join" {
            self.departure = Some(self.visibility);
        }
        let newest = history(self.alice, &self.room, "b", Some(1)).await.unwrap();
        let id = newest[0]["event_id"].as_str().unwrap().to_owned();
        self.told.push(Told {
            id,
            visibility: [before.0, self.visibility],
            membership: [before.1, self.membership],
        });
    }

    async fn becomes(&mut self, what: &str) {
        let path = |action: &str| format!("rooms/{}/{action}", encode(&self.room));
        match what {
            "join" => self.bob.join(&self.room).await,
            "leave" => self.bob.leave(&self.room).await,
            action => {
                let body = json!({ "user_id": self.bob.id });
                self.alice.post(&path(action), body).await.ok();
            }
        }
        self.membership = match what {
            "join" => "join",
            "invite" => "invite",
            "ban" => "ban",
            _ => "leave",
        };
    }

    async fn change_visibility(&mut self) {
        let others: Vec<_> = VISIBILITIES
            .into_iter()
            .filter(|name| *name != self.visibility)
            .collect();
        self.visibility = others.choose(&mut self.random).copied().unwrap();
        let content = json!({ "history_visibility": self.visibility });
        self.alice
            .set_state(&self.room, "m.room.history_visibility", "", content)
            .await;
    }

    async fn say(&mut self) {
        let speaker = if self.membership == "join" {
            self.bob
        } else {
            self.alice
        };
        let said = speaker.send(&self.room, "something").await;
        self.said.insert(said);
    }

    /// An edit of some event: not a valid one unless that is a message of alice's, which the server must tell.
    async fn edit(&mut self) {
        let target = self.told.choose(&mut self.random).unwrap().id.clone();
        let content = json!({
            "msgtype": "m.text", "body": "edited", "m.new_content": { "msgtype": "m.text", "body": "edited" },
            "m.relates_to": { "rel_type": "m.replace", "event_id": target },
        });
        self.alice.send_event(&self.room, "m.room.message", content).await;
        self.edited.insert(target);
    }

    /// The table of the specification.
    fn may_see(&self, at: usize) -> bool {
        let told = &self.told[at];
        let joined_later = self.told[at + 1..]
            .iter()
            .any(|later| later.membership[1] == "join");
        told.visibility.iter().any(|visibility| {
            told.membership
                .iter()
                .any(|membership| match (*visibility, *membership) {
                    ("world_readable", _) | (_, "join") | ("invited", "invite") => true,
                    ("shared", _) => joined_later,
                    _ => false,
                })
        })
    }

    async fn check(&self, when: &str) {
        let seen: Vec<&str> = (0..self.told.len())
            .filter(|at| self.may_see(*at))
            .map(|at| self.told[at].id.as_str())
            .collect();
        let seen_set: HashSet<&str> = seen.iter().copied().collect();
        let may_enter =
            self.membership == "join" || self.departure.is_some() || self.visibility == "world_readable";
        for direction in ["f", "b"] {
            let found = history(self.bob, &self.room, direction, None).await;
            let Some(mut found) = found else {
                assert!(!may_enter, "{when}: messages are refused");
                continue;
            };
            assert!(may_enter, "{when}: messages are given");
            if direction == "b" {
                found.reverse();
            }
            self.check_events(&found, &seen_set, when);
            let ids: Vec<_> = found
                .iter()
                .map(|event| event["event_id"].as_str().unwrap())
                .collect();
            // Who has left reads backwards from there.
            let is_end = direction == "f" || self.membership == "join" || self.visibility == "world_readable";
            if is_end {
                assert_eq!(ids, seen, "{when}: messages {direction}");
            } else {
                assert_eq!(ids, seen[..ids.len()], "{when}: messages {direction}");
            }
        }
        self.check_sliding_sync(&seen, when).await;
        for told in &self.told {
            let is_seen = seen_set.contains(told.id.as_str());
            let id = encode(&told.id);
            let get = |path: String| async move { self.bob.get(&path).await };
            let event = get(format!("rooms/{}/event/{id}", encode(&self.room))).await;
            assert_eq!(event.status == 200, is_seen, "{when}: event {told:?}");
            if is_seen {
                self.check_events(&[event.ok()], &seen_set, when);
            }
            let relations = format!("/_matrix/client/v1/rooms/{}/relations/{id}", encode(&self.room));
            let relations = get(relations).await;
            assert_eq!(relations.status == 200, is_seen, "{when}: relations of {told:?}");
            if is_seen {
                self.check_events(relations.ok()["chunk"].as_array().unwrap(), &seen_set, when);
            }
            let context = get(format!("rooms/{}/context/{id}?limit=4", encode(&self.room))).await;
            assert_eq!(
                context.status == 200,
                is_seen && may_enter,
                "{when}: context of {told:?}"
            );
            if is_seen && may_enter {
                let context = context.ok();
                for part in ["events_before", "events_after"] {
                    self.check_events(context[part].as_array().unwrap(), &seen_set, when);
                }
            }
        }
        for term in ["something", "edited"] {
            for result in self.searched(term).await {
                self.check_events(&[result["result"].clone()], &seen_set, when);
                for part in ["events_before", "events_after"] {
                    self.check_events(result["context"][part].as_array().unwrap(), &seen_set, when);
                }
            }
        }
        self.check_state(may_enter, when).await;
    }

    /// Who is in the room is shown the end of what they may see, who is not is shown nothing.
    async fn check_sliding_sync(&self, seen: &[&str], when: &str) {
        let wanted = json!({ "timeline_limit": 100, "required_state": { "include": [] } });
        let body = json!({ "room_subscriptions": { self.room.as_str(): wanted } });
        let answer = self.bob.post("/_matrix/client/v4/sync", body).await.ok();
        let shown = answer["rooms"][&self.room]["timeline_events"].as_array();
        let shown = shown.cloned().unwrap_or_default();
        let ids = shown.iter().map(|event| event["event_id"].as_str().unwrap());
        let ids: Vec<_> = ids.collect();
        assert!(
            seen.ends_with(&ids),
            "{when}: sliding sync shows {ids:?} of {seen:?}"
        );
        let is_in = self.membership == "join";
        assert_eq!(ids.is_empty(), !is_in, "{when}: sliding sync shows {ids:?}");
    }

    /// What bob finds in the room.
    async fn searched(&self, term: &str) -> Vec<Value> {
        let (mut results, mut path) = (Vec::new(), "search".to_owned());
        loop {
            let criteria = json!({
                "search_term": term, "order_by": "recent", "filter": { "rooms": [self.room], "limit": 3 },
                "event_context": { "before_limit": 3, "after_limit": 3 },
            });
            let body = json!({ "search_categories": { "room_events": criteria } });
            let answer = self.bob.post(&path, body).await.ok()["search_categories"]["room_events"].take();
            results.extend(answer["results"].as_array().unwrap().iter().cloned());
            match answer["next_batch"].as_str() {
                Some(next) => path = format!("search?next_batch={next}"),
                None => return results,
            }
        }
    }

    /// Who has been in the room finds every message there that he may see, of those that nobody has tried to edit.
    async fn check_all_is_found(&self, when: &str) {
        let was_in = self.membership == "join" || self.departure.is_some();
        let expected: HashSet<&str> = (0..self.told.len())
            .filter(|at| was_in && self.may_see(*at))
            .map(|at| self.told[at].id.as_str())
            .filter(|id| self.said.contains(*id) && !self.edited.contains(*id))
            .collect();
        let results = self.searched("something").await;
        let ids = results
            .iter()
            .map(|result| result["result"]["event_id"].as_str().unwrap());
        let found: HashSet<&str> = ids.filter(|id| !self.edited.contains(*id)).collect();
        assert_eq!(found, expected, "{when}: search");
    }

    /// Events that bob was shown must be among those he may see, and so must what they bring along.
    fn check_events(&self, events: &[Value], seen: &HashSet<&str>, when: &str) {
        for event in events {
            let id = event["event_id"].as_str().unwrap();
            assert!(seen.contains(id), "{when}: {event} was shown");
            let told = self.told.iter().find(|told| told.id == id).unwrap();
            assert_eq!(
                event["unsigned"]["membership"], told.membership[1],
                "{when}: {event}"
            );
            let edit = &event["unsigned"]["m.relations"]["m.replace"];
            assert!(
                edit.is_null() || seen.contains(edit["event_id"].as_str().unwrap()),
                "{when}: {edit} was shown"
            );
        }
    }

    async fn check_state(&self, may_enter: bool, when: &str) {
        let state = self.bob.get(&format!("rooms/{}/state", encode(&self.room))).await;
        assert_eq!(state.status == 200, may_enter, "{when}: state");
        if !may_enter {
            return;
        }
        let state = state.ok();
        let mut events = state.as_array().unwrap().iter();
        let found = events
            .find(|event| event["type"] == "m.room.history_visibility")
            .unwrap();
        let expected = match (self.membership, self.departure) {
            ("join", _) | (_, None) => self.visibility,
            (_, Some(departure)) => departure,
        };
        assert_eq!(found["content"]["history_visibility"], expected, "{when}: state");
    }
}

/// The history of a room as a user sees it, or its first `limit` events; none when the user may not read the room.
async fn history(user: &User, room: &str, direction: &str, limit: Option<usize>) -> Option<Vec<Value>> {
    let (mut events, mut from) = (Vec::new(), String::new());
    loop {
        let page = limit.unwrap_or(9);
        let path = format!(
            "rooms/{}/messages?dir={direction}&limit={page}{from}",
            encode(room)
        );
        let reply = user.get(&path).await;
        if reply.status == 403 {
            return None;
        }
        let page = reply.ok();
        events.extend(page["chunk"].as_array().unwrap().iter().cloned());
        match page["end"].as_str() {
            Some(end) if limit.is_none() => from = format!("&from={}", encode(end)),
            _ => return Some(events),
        }
    }
}
