//! Replicas that learn the same events in different orders.

use std::collections::HashMap;
use std::sync::Arc;

use ruma::OwnedEventId;
use serde_json::json;

use super::*;
use crate::auth::StateSlot;
use crate::event::Event;
use crate::state::{EventNid, State, StateNid};
use crate::test_room::{ALICE, BOB, Branch, CAROL, Story};
use crate::version::RoomVersion;

/// One server's copy of a room.
struct Replica {
    version: RoomVersion,
    known: HashMap<OwnedEventId, Arc<Known>>,
    head: Head,
    next: i64,
}

impl Replica {
    fn new(version: RoomVersion) -> Self {
        Self {
            version,
            known: HashMap::new(),
            head: Head::default(),
            next: 1,
        }
    }

    /// Ingests an event from scratch; `Err` has what it lacks.
    fn offer(&mut self, event: &Arc<Event>) -> Result<Outcome, Vec<OwnedEventId>> {
        let mut facts = Facts::default();
        let nid = EventNid(self.next);
        self.next += 1;
        let received = Received {
            event: Arc::clone(event),
            nid,
            before: None,
            backfilled: false,
            accepted: false,
        };
        loop {
            let next = &mut self.next;
            let mut number = || {
                *next += 1;
                StateNid(*next - 1)
            };
            match ingest(&received, self.version, &self.head, &mut facts, &mut number).unwrap() {
                Step::Load(wanted) => {
                    assert!(!wanted.is_empty());
                    for id in wanted.ids {
                        match self.known.get(&id) {
                            Some(known) => facts.learn(Arc::clone(known)),
                            None => facts.lacks(id),
                        }
                    }
                    for nid in wanted.nids {
                        let known = self.known.values().find(|known| known.nid == nid);
                        facts.learn(Arc::clone(known.unwrap()));
                    }
                }
                Step::Lacks {
                    mut prev_events,
                    auth_events,
                } => {
                    prev_events.extend(auth_events);
                    return Err(prev_events);
                }
                Step::Done(ingested) => {
                    let known = Known {
                        event: Arc::clone(event),
                        nid,
                        outcome: ingested.verdict.outcome,
                        state_after: After::State(ingested.state_after),
                    };
                    self.known.insert(event.id.clone(), Arc::new(known));
                    if let Some(head) = ingested.head {
                        self.head = head;
                    }
                    return Ok(ingested.verdict.outcome);
                }
            }
        }
    }

    fn state(&self) -> Vec<OwnedEventId> {
        let mut ids: Vec<_> = self
            .head
            .state
            .events()
            .into_iter()
            .map(|nid| self.known.values().find(|known| known.nid == nid).unwrap())
            .map(|known| known.event.id.clone())
            .collect();
        ids.sort();
        ids
    }

    fn at(&self, event_type: &str, key: &str) -> Option<OwnedEventId> {
        let nid = self.head.state.get(&StateSlot::new(event_type, key).hash())?;
        let known = self.known.values().find(|known| known.nid == nid)?;
        Some(known.event.id.clone())
    }
}

fn in_order(story: &Story) -> Vec<Arc<Event>> {
    let mut events: Vec<_> = story.events.values().cloned().collect();
    events.sort_by_key(|event| (event.depth, event.origin_server_ts));
    events
}

fn message(story: &mut Story, branch: &mut Branch, sender: &str) -> Arc<Event> {
    let event = Arc::new(story.draft(branch, sender, "m.room.message", None, json!({"body": "hi"})));
    story.events.insert(event.id.clone(), Arc::clone(&event));
    branch.heads = vec![event.id.clone()];
    branch.depth = event.depth;
    event
}

#[test]
fn a_line_of_events_is_accepted_in_order_and_nothing_before_its_parents() {
    for version in RoomVersion::ALL {
        let (mut story, mut branch) = Story::public_room(version);
        message(&mut story, &mut branch, CAROL);
        let mut replica = Replica::new(version);
        let events = in_order(&story);
        let last = events.last().unwrap();
        assert!(replica.offer(last).is_err());
        for event in &events {
            assert_eq!(
                replica.offer(event),
                Ok(Outcome::Accepted),
                "{}",
                event.event_type
            );
        }
        assert_eq!(replica.head.extremities.len(), 1);
        assert_eq!(replica.state().len(), branch.state.len());
    }
}

#[test]
fn forks_resolve_alike_whatever_comes_first() {
    for version in RoomVersion::ALL {
        let (mut story, base) = Story::public_room(version);
        let (mut left, mut right) = (base.clone(), base.clone());
        story.state(
            &mut left,
            ALICE,
            "m.room.member",
            CAROL,
            json!({"membership": "ban"}),
        );
        story.state(
            &mut right,
            CAROL,
            "m.room.member",
            CAROL,
            json!({"membership": "join", "displayname": "C"}),
        );
        story.state(&mut right, BOB, "m.room.topic", "", json!({"topic": "right"}));
        let base_events: Vec<_> = in_order(&story);
        let orders = [base_events.clone(), {
            let mut other = base_events;
            other.sort_by_key(|event| (event.depth, std::cmp::Reverse(event.origin_server_ts)));
            other
        }];
        let replicas: Vec<_> = orders
            .iter()
            .map(|order| {
                let mut replica = Replica::new(version);
                let mut open = order.clone();
                while !open.is_empty() {
                    open.retain(|event| replica.offer(event).is_err());
                }
                replica
            })
            .collect();
        assert_eq!(replicas[0].state(), replicas[1].state());
        let carol = replicas[0].at("m.room.member", CAROL).unwrap();
        let ban = story.fetch(&carol).unwrap();
        assert!(ban.content.as_str().contains("ban"), "the ban wins");
    }
}

#[test]
fn what_the_state_before_forbids_is_rejected_and_what_only_the_present_forbids_fails_softly() {
    let version = RoomVersion::V12;
    let (mut story, base) = Story::public_room(version);
    let (mut left, mut late) = (base.clone(), base.clone());
    let ban = story.state(
        &mut left,
        ALICE,
        "m.room.member",
        CAROL,
        json!({"membership": "ban"}),
    );
    let late_message = message(&mut story, &mut late, CAROL);
    let forbidden = message(&mut story, &mut left, CAROL);
    let mut replica = Replica::new(version);
    for event in in_order(&story) {
        if ![&ban.id, &late_message.id, &forbidden.id].contains(&&event.id) {
            replica.offer(&event).unwrap();
        }
    }
    assert_eq!(replica.offer(&ban), Ok(Outcome::Accepted));
    assert_eq!(replica.offer(&late_message), Ok(Outcome::SoftFailed));
    assert_eq!(replica.offer(&forbidden), Ok(Outcome::Rejected));
    assert_eq!(replica.head.extremities.len(), 1);
    assert_eq!(replica.head.extremities[0].id, ban.id);
}

#[test]
fn a_told_state_stands_in_for_missing_events() {
    let version = RoomVersion::V12;
    let (mut story, mut branch) = Story::public_room(version);
    let skipped = message(&mut story, &mut branch, BOB);
    let event = message(&mut story, &mut branch, CAROL);
    let mut replica = Replica::new(version);
    for known in in_order(&story) {
        if known.id != skipped.id && known.id != event.id {
            replica.offer(&known).unwrap();
        }
    }
    assert_eq!(replica.offer(&event), Err(vec![skipped.id.clone()]));
    let mut facts = Facts::default();
    replica
        .known
        .values()
        .for_each(|known| facts.learn(Arc::clone(known)));
    let told: State = replica.head.state.clone();
    let received = Received {
        event,
        nid: EventNid(900),
        before: Some(told),
        backfilled: false,
        accepted: false,
    };
    let step = ingest(&received, version, &replica.head, &mut facts, &mut || {
        StateNid(901)
    })
    .unwrap();
    let Step::Done(ingested) = step else {
        panic!("{step:?}")
    };
    assert_eq!(ingested.verdict, Verdict::accepted());
    assert_eq!(ingested.head.unwrap().extremities.len(), 2);
}
