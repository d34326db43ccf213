//! Gaps that one peer or another helps to fill.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ruma::{OwnedEventId, OwnedServerName};
use serde_json::json;

use super::*;
use crate::test_room::{ALICE, BOB, Branch, Story};
use crate::version::RoomVersion;

fn server(name: &str) -> OwnedServerName {
    name.try_into().unwrap()
}

fn message(story: &mut Story, branch: &mut Branch, sender: &str) -> Arc<Event> {
    story
        .send(branch, sender, "m.room.message", None, json!({"body": "hi"}))
        .unwrap()
}

/// What a replica has, by a peer's name; one that is not there does not answer.
type Peers = BTreeMap<OwnedServerName, BTreeMap<OwnedEventId, Arc<Event>>>;

/// Drives a gap on plain maps. An event is settled once all its previous events are here, or its state was told.
struct Replica {
    here: BTreeSet<OwnedEventId>,
    at_gaps: BTreeSet<OwnedEventId>,
    outliers: BTreeSet<OwnedEventId>,
    asked: Vec<(OwnedServerName, Question)>,
    /// How many of the next questions get no answer.
    unheard: usize,
}

impl Replica {
    fn of(events: &[&Arc<Event>]) -> Self {
        Self {
            here: events.iter().map(|event| event.id.clone()).collect(),
            at_gaps: BTreeSet::new(),
            outliers: BTreeSet::new(),
            asked: Vec::new(),
            unheard: 0,
        }
    }

    fn look_up(&self, ids: &BTreeSet<OwnedEventId>) -> Here {
        let of = |known: &BTreeSet<OwnedEventId>| ids.intersection(known).cloned().collect();
        Here {
            settled: of(&self.here),
            outliers: of(&self.outliers),
            at_gaps: of(&self.at_gaps),
        }
    }

    /// Fetches a page of the past. What it brought, each with whether its state was told.
    fn read_on(&mut self, peers: &Peers, missing: &[&Arc<Event>]) -> Option<Vec<(OwnedEventId, bool)>> {
        let missing = missing.iter().map(|event| event.id.clone()).collect();
        let (mut page, mut effect) = backfill::Page::before(missing, peers.keys().cloned());
        let mut brought = None;
        for _ in 0..1_000 {
            effect = match effect {
                backfill::Effect::Ask(peer, question) => {
                    self.asked.push((peer.clone(), question.clone()));
                    match answer(&peers[&peer], question) {
                        Some(answer) => page.answered(answer),
                        None => page.refused(),
                    }
                }
                backfill::Effect::LookUp(ids) => {
                    let here = self.look_up(&ids);
                    page.found(ids, &here)
                }
                backfill::Effect::Keep(events) => {
                    self.outliers
                        .extend(events.into_iter().map(|event| event.id.clone()));
                    page.kept()
                }
                backfill::Effect::TakeIn(offers) => {
                    let of = |offer: Offer| (offer.event.id.clone(), offer.told.is_some());
                    brought = Some(offers.into_iter().map(of).collect());
                    page.taken(true)
                }
                backfill::Effect::Filled => return brought,
                backfill::Effect::GivenUp => return None,
            };
        }
        panic!("a page without end");
    }

    fn fill(&mut self, peers: &Peers, (mut gap, mut effect): (Gap, Effect)) -> bool {
        for _ in 0..1_000 {
            effect = match effect {
                Effect::LookUp(ids) => {
                    let here = self.look_up(&ids);
                    gap.found(ids, &here)
                }
                Effect::Ask(peer, question) => {
                    self.asked.push((peer.clone(), question.clone()));
                    let heard = self.unheard == 0;
                    self.unheard = self.unheard.saturating_sub(1);
                    let events = peers.get(&peer).filter(|_| heard);
                    match events.and_then(|events| answer(events, question)) {
                        Some(answer) => gap.answered(answer),
                        None => gap.refused(),
                    }
                }
                Effect::Keep(events) => {
                    self.outliers
                        .extend(events.into_iter().map(|event| event.id.clone()));
                    gap.kept()
                }
                Effect::TakeIn(Offer { event, told }) => {
                    let lacks = |id: &&OwnedEventId| !self.here.contains(*id);
                    let prev_events: Vec<_> = match told {
                        Some(_) => Vec::new(),
                        None => event.prev_events.iter().filter(lacks).cloned().collect(),
                    };
                    let auth_events = event.auth_events.iter().filter(lacks);
                    let auth_events: Vec<_> = auth_events
                        .filter(|id| !self.outliers.contains(*id))
                        .cloned()
                        .collect();
                    if prev_events.is_empty() && auth_events.is_empty() {
                        self.here.insert(event.id.clone());
                        gap.taken(Taken::Settled)
                    } else {
                        gap.taken(Taken::Lacks {
                            prev_events,
                            auth_events,
                        })
                    }
                }
                Effect::Filled => return true,
                Effect::GivenUp => return false,
            };
        }
        panic!("a gap without end");
    }
}

fn answer(events: &BTreeMap<OwnedEventId, Arc<Event>>, question: Question) -> Option<Answer> {
    let mut answer = Answer::default();
    match question {
        Question::Events(ids) => {
            answer.events = ids.iter().filter_map(|id| events.get(id).cloned()).collect()
        }
        Question::Past(from) => {
            answer.events = from.iter().filter_map(|id| events.get(id).cloned()).collect();
            let before = self::answer(events, Question::Ancestors(from))?.events;
            answer.events.extend(before);
        }
        Question::Ancestors(latest) => {
            let mut open: Vec<_> = latest.iter().filter_map(|id| events.get(id)).collect();
            while let Some(event) = open.pop() {
                let before = event.prev_events.iter().filter_map(|id| events.get(id));
                for event in before {
                    open.push(event);
                    answer.events.push(Arc::clone(event));
                }
            }
        }
        Question::State(at) => {
            events.get(&at)?;
            answer.events = events
                .values()
                .filter(|event| event.is_state())
                .cloned()
                .collect();
            answer.state = answer.events.iter().map(|event| event.id.clone()).collect();
        }
    }
    Some(answer)
}

/// A room, the first of three messages in it, and the others.
fn room() -> (Story, Branch, Vec<Arc<Event>>) {
    let (mut story, mut branch) = Story::public_room(RoomVersion::V12);
    let old: Vec<_> = story.events.values().cloned().collect();
    let _ = message(&mut story, &mut branch, ALICE);
    (story, branch, old)
}

fn all(story: &Story) -> BTreeMap<OwnedEventId, Arc<Event>> {
    story.events.clone()
}

#[test]
fn ancestors_come_before_the_event_that_lacked_them() {
    let (mut story, mut branch, old) = room();
    let last = message(&mut story, &mut branch, BOB);
    let mut replica = Replica::of(&old.iter().collect::<Vec<_>>());
    let peers = Peers::from([(server("b.example"), all(&story))]);
    assert!(replica.fill(&peers, Gap::before(last, [server("b.example")])));
    assert_eq!(replica.here, story.events.keys().cloned().collect());
    assert_eq!(replica.asked.len(), 1);
}

/// The sender is gone, and whoever has the missing event never got the one that lacks it.
#[test]
fn a_peer_that_lacks_the_event_itself_still_gives_what_is_before_it() {
    let (mut story, mut branch, old) = room();
    let known_to_c = all(&story);
    let last = message(&mut story, &mut branch, BOB);
    let mut replica = Replica::of(&old.iter().collect::<Vec<_>>());
    let peers = Peers::from([(server("c.example"), known_to_c)]);
    let gap = Gap::before(last, [server("b.example"), server("c.example")]);
    assert!(replica.fill(&peers, gap));
    assert_eq!(replica.here, story.events.keys().cloned().collect());
    let states = replica
        .asked
        .iter()
        .filter(|(_, question)| matches!(question, Question::State(_)));
    assert_eq!(states.count(), 0, "history is fetched, not bridged");
}

#[test]
fn where_nobody_has_the_past_a_told_state_bridges_it() {
    let (mut story, mut branch, old) = room();
    let lost = branch.heads[0].clone();
    let last = message(&mut story, &mut branch, BOB);
    let mut known = all(&story);
    known.remove(&lost);
    let mut replica = Replica::of(&old.iter().collect::<Vec<_>>());
    let peers = Peers::from([(server("b.example"), known.clone()), (server("c.example"), known)]);
    let gap = Gap::before(Arc::clone(&last), [server("b.example"), server("c.example")]);
    assert!(replica.fill(&peers, gap));
    assert!(replica.here.contains(&last.id) && !replica.here.contains(&lost));
    let asked_both = ["b.example", "c.example"].map(|name| {
        let by_id = |(peer, question): &&(OwnedServerName, Question)| {
            *peer == name && *question == Question::Events(vec![lost.clone()])
        };
        replica.asked.iter().any(|asked| by_id(&asked))
    });
    assert_eq!(asked_both, [true, true]);
}

/// A peer that did not answer once may have the past: its state would leave a hole that nobody comes to fill.
#[test]
fn no_state_is_taken_from_a_peer_that_was_silent_about_the_past() {
    let (mut story, mut branch, old) = room();
    let last = message(&mut story, &mut branch, BOB);
    let mut replica = Replica::of(&old.iter().collect::<Vec<_>>());
    replica.unheard = 1;
    let knows_nothing: BTreeMap<_, _> = old
        .iter()
        .map(|event| (event.id.clone(), event.clone()))
        .collect();
    let peers = Peers::from([
        (server("b.example"), all(&story)),
        (server("c.example"), knows_nothing),
    ]);
    let gap = || Gap::before(Arc::clone(&last), [server("b.example"), server("c.example")]);
    assert!(!replica.fill(&peers, gap()), "it is tried again later");
    assert!(replica.fill(&peers, gap()));
    assert_eq!(replica.here, story.events.keys().cloned().collect());
}

#[test]
fn nothing_is_asked_for_what_is_here_and_a_gap_without_help_is_given_up() {
    let (mut story, mut branch, _) = room();
    let mut replica = Replica::of(&story.events.values().collect::<Vec<_>>());
    assert!(replica.fill(
        &Peers::new(),
        Gap::up_to(branch.heads.clone(), [server("b.example")])
    ));
    assert!(replica.asked.is_empty());
    let _ = message(&mut story, &mut branch, BOB);
    let last = message(&mut story, &mut branch, BOB);
    assert!(!replica.fill(
        &Peers::new(),
        Gap::before(last, [server("b.example"), server("c.example")])
    ));
    assert_eq!(replica.asked.len(), 2);
}

#[test]
fn told_extremities_bring_everything_before_them() {
    let (mut story, mut branch, old) = room();
    let _ = message(&mut story, &mut branch, BOB);
    let mut replica = Replica::of(&old.iter().collect::<Vec<_>>());
    let peers = Peers::from([(server("b.example"), all(&story))]);
    assert!(replica.fill(&peers, Gap::up_to(branch.heads, [server("b.example")])));
    assert_eq!(replica.here, story.events.keys().cloned().collect());
}

/// A replica that came into the room by a join and a told state: two messages are missing before it. Two more were sent
/// beside it.
fn joined() -> (Replica, Peers, [Arc<Event>; 4]) {
    let (mut story, mut branch) = Story::public_room(RoomVersion::V12);
    let old: Vec<_> = story.events.values().cloned().collect();
    let first = message(&mut story, &mut branch, ALICE);
    let second = message(&mut story, &mut branch, ALICE);
    let mut beside = branch.clone();
    let join = message(&mut story, &mut branch, BOB);
    let newer = message(&mut story, &mut beside, ALICE);
    let last = message(&mut story, &mut beside, ALICE);
    let mut replica = Replica::of(&[&join]);
    replica.outliers = old.iter().map(|event| event.id.clone()).collect();
    replica.at_gaps.insert(second.id.clone());
    let peers = Peers::from([(server("b.example"), all(&story))]);
    (replica, peers, [first, second, newer, last])
}

#[test]
fn what_stands_at_a_gap_is_no_news() {
    let (mut replica, peers, [first, second, newer, last]) = joined();
    let told = Gap::up_to([second.id.clone()], [server("b.example")]);
    assert!(replica.fill(&peers, told) && replica.asked.is_empty());
    assert!(replica.fill(&peers, Gap::before(Arc::clone(&last), [server("b.example")])));
    assert!(
        [&newer, &last]
            .iter()
            .all(|event| replica.here.contains(&event.id))
    );
    assert!(
        ![&first, &second]
            .iter()
            .any(|event| replica.here.contains(&event.id))
    );
    let bridged = (server("b.example"), Question::State(newer.id.clone()));
    assert!(replica.asked.contains(&bridged), "{:?}", replica.asked);
}

#[test]
fn a_page_of_the_past_comes_oldest_first_and_its_edge_with_a_told_state() {
    let (mut replica, mut peers, [first, second, ..]) = joined();
    // The first server asked has nothing, and the other one not the event before the first.
    let mut known = peers.remove("b.example").unwrap();
    known.remove(&first.prev_events[0]);
    peers.insert(server("a.example"), BTreeMap::new());
    peers.insert(server("c.example"), known);
    let brought = replica.read_on(&peers, &[&second]).unwrap();
    assert_eq!(brought, [(first.id.clone(), true), (second.id.clone(), false)]);
    assert_eq!(replica.read_on(&Peers::new(), &[&second]), None);
}

#[test]
fn a_page_of_the_past_holds_nothing_that_does_not_lie_there() {
    let (_, peers, [first, second, newer, _]) = joined();
    let missing = [second.id.clone()];
    let given = [&newer, &second, &first].map(Arc::clone);
    let reached: BTreeSet<_> = order::back_from(&missing, given).into_keys().collect();
    assert_eq!(reached, [&first, &second].map(|event| event.id.clone()).into());

    // The second is not among these, so nothing shows that the first lies before it.
    let (mut page, _) = backfill::Page::before(missing.into(), peers.into_keys());
    let effect = page.answered(Answer {
        events: [&newer, &first].map(Arc::clone).into(),
        ..Answer::default()
    });
    assert!(matches!(effect, backfill::Effect::GivenUp), "{effect:?}");
}

#[test]
fn work_goes_by_arrival_comparison_and_patience() {
    use super::work::{Next, Work};
    use std::time::Duration;
    let at = Duration::from_secs;
    let mut work = Work::default();
    work.told(server("b.example"), Vec::new());
    work.arrived();
    assert_eq!(work.next(at(0)), Next::Ingest);
    assert_eq!(work.next(at(0)), Next::Compare(server("b.example"), Vec::new()));
    let peer = &server("b.example");
    assert!(work.postpone(1, peer, at(0)) && work.postpone(1, peer, at(2)));
    assert_eq!(work.next(at(2)), Next::Wait(at(6)), "pauses double");
    assert!(!work.is_due(1, at(5)) && work.is_due(2, at(5)));
    work.closed();
    assert_eq!(work.next(at(5)), Next::Ingest, "another gap may have brought it");
    work.settled(1);
    assert_eq!(work.next(at(9)), Next::Rest);
}

#[test]
fn a_row_in_hand_is_not_due_and_a_server_takes_no_place_of_another() {
    use super::work::{MOST_WAITING, Next, Work};
    use std::time::Duration;
    let at = Duration::from_secs;
    let (liar, honest) = (&server("liar.example"), &server("honest.example"));
    let mut work = Work::default();
    assert!(work.taken_up(0, liar));
    work.closed();
    assert!(
        !work.is_due(0, at(1_000_000)),
        "what another gap brought is looked at when this one ends"
    );
    assert_eq!(work.resting(at(9)), [0]);
    assert!(work.postpone(0, liar, at(0)));
    assert_eq!(work.next(at(0)), Next::Wait(at(2)));
    for row in 1..MOST_WAITING {
        assert!(work.postpone(i64::try_from(row).unwrap(), liar, at(0)));
    }
    assert!(!work.postpone(1_000, liar, at(0)) && !work.taken_up(1_000, liar));
    assert!(work.taken_up(1_001, honest) && work.postpone(1_002, honest, at(0)));
    assert!(
        work.postpone(7, liar, at(2)),
        "one that waits already goes on waiting"
    );
    work.settled(0);
    assert!(work.taken_up(1_003, liar));
}
