//! Forks whose outcome the specification fixes, in every room version.

use serde_json::json;

use super::*;
use crate::test_room::{ALICE, BOB, Branch, CAROL, Story};

fn merged(story: &Story, branches: &[&Branch]) -> StateMap {
    let states: Vec<StateMap> = branches.iter().map(|branch| branch.state.clone()).collect();
    let chains: Vec<_> = states
        .iter()
        .map(|state| auth_chain(state.values().cloned(), |id| story.fetch(id)))
        .collect();
    let resolved = resolve(story.version, &states, &chains, |id| story.fetch(id)).unwrap();
    // Replicas see the forks in any order.
    let (states, chains): (Vec<_>, Vec<_>) = states.into_iter().rev().zip(chains.into_iter().rev()).unzip();
    assert_eq!(
        resolve(story.version, &states, &chains, |id| story.fetch(id)).unwrap(),
        resolved
    );
    resolved
}

fn topic(story: &Story, state: &StateMap) -> String {
    story
        .at(state, "m.room.topic", "")
        .unwrap()
        .content
        .as_str()
        .to_owned()
}

#[test]
fn one_state_resolves_to_itself() {
    for version in RoomVersion::ALL {
        let (story, branch) = Story::public_room(version);
        assert_eq!(merged(&story, &[&branch, &branch.clone()]), branch.state);
    }
}

#[test]
fn a_demotion_undoes_what_the_demoted_did_meanwhile() {
    for version in RoomVersion::ALL {
        let (mut story, mut common) = Story::public_room(version);
        story.state(&mut common, ALICE, "m.room.topic", "", json!({"topic": "old"}));
        let (mut ours, mut theirs) = (common.clone(), common.clone());
        let mut users = json!({ BOB: 0 });
        if !version.creators_are_privileged() {
            users[ALICE] = 100.into();
        }
        let demotion = story.state(
            &mut ours,
            ALICE,
            "m.room.power_levels",
            "",
            json!({ "users": users }),
        );
        story.state(&mut theirs, BOB, "m.room.topic", "", json!({"topic": "bob"}));

        let resolved = merged(&story, &[&ours, &theirs]);
        assert_eq!(
            resolved[&StateSlot::new("m.room.power_levels", "")],
            demotion.id,
            "{version}"
        );
        assert_eq!(topic(&story, &resolved), r#"{"topic":"old"}"#, "{version}");
        // Whatever is not in dispute stays.
        for (slot, id) in common
            .state
            .iter()
            .filter(|(slot, _)| &*slot.event_type == "m.room.member")
        {
            assert_eq!(resolved.get(slot), Some(id));
        }
    }
}

#[test]
fn of_two_topics_the_later_one_stays() {
    for version in RoomVersion::ALL {
        let (mut story, common) = Story::public_room(version);
        let (mut ours, mut theirs) = (common.clone(), common);
        story.state(&mut ours, ALICE, "m.room.topic", "", json!({"topic": "alice"}));
        story.state(&mut theirs, BOB, "m.room.topic", "", json!({"topic": "bob"}));
        let resolved = merged(&story, &[&ours, &theirs]);
        assert_eq!(topic(&story, &resolved), r#"{"topic":"bob"}"#, "{version}");
    }
}

#[test]
fn a_ban_stands_against_what_the_banned_did_meanwhile() {
    for version in RoomVersion::ALL {
        let (mut story, common) = Story::public_room(version);
        let (mut ours, mut theirs) = (common.clone(), common);
        let ban = story.state(
            &mut ours,
            ALICE,
            "m.room.member",
            BOB,
            json!({"membership": "ban"}),
        );
        // Bob bans Carol, sets a topic and changes his name without having heard of it.
        story.state(
            &mut theirs,
            BOB,
            "m.room.member",
            CAROL,
            json!({"membership": "ban"}),
        );
        story.state(&mut theirs, BOB, "m.room.topic", "", json!({"topic": "bob"}));
        story.state(
            &mut theirs,
            BOB,
            "m.room.member",
            BOB,
            json!({"membership": "join", "displayname": "B"}),
        );

        let resolved = merged(&story, &[&ours, &theirs]);
        assert_eq!(
            resolved[&StateSlot::new("m.room.member", BOB)],
            ban.id,
            "{version}"
        );
        assert!(story.at(&resolved, "m.room.topic", "").is_none(), "{version}");
        let carol = story.at(&resolved, "m.room.member", CAROL).unwrap();
        assert_eq!(carol.content.as_str(), r#"{"membership":"join"}"#, "{version}");
    }
}

#[test]
fn three_forks_resolve_in_any_order() {
    for version in RoomVersion::ALL {
        let (mut story, common) = Story::public_room(version);
        let mut forks = [common.clone(), common.clone(), common];
        story.state(
            &mut forks[0],
            ALICE,
            "m.room.join_rules",
            "",
            json!({"join_rule": "invite"}),
        );
        story.state(
            &mut forks[1],
            "@dave:d.example",
            "m.room.member",
            "@dave:d.example",
            json!({"membership": "join"}),
        );
        story.state(&mut forks[2], BOB, "m.room.name", "", json!({"name": "n"}));
        let resolved = merged(&story, &[&forks[0], &forks[1], &forks[2]]);
        for order in [[1, 2, 0], [2, 0, 1], [1, 0, 2]] {
            assert_eq!(merged(&story, &order.map(|at| &forks[at])), resolved, "{version}");
        }
        assert!(story.at(&resolved, "m.room.name", "").is_some());
        // Dave had not been invited; the join rule, a power event, comes first.
        assert!(
            story.at(&resolved, "m.room.member", "@dave:d.example").is_none(),
            "{version}"
        );
    }
}

#[test]
fn the_subgraph_is_what_lies_between_conflicted_events() {
    let (mut story, mut branch) = Story::public_room(RoomVersion::V12);
    let levels = branch.state[&StateSlot::new("m.room.power_levels", "")].clone();
    let second = story.state(
        &mut branch,
        ALICE,
        "m.room.power_levels",
        "",
        json!({"users": {BOB: 60}}),
    );
    let third = story.state(
        &mut branch,
        ALICE,
        "m.room.power_levels",
        "",
        json!({"users": {BOB: 70}}),
    );
    let topic = story.state(&mut branch, BOB, "m.room.topic", "", json!({"topic": "t"}));
    let subgraph = |ids: &[&OwnedEventId]| {
        conflicted_subgraph(&ids.iter().map(|id| (*id).clone()).collect(), |id| {
            story.fetch(id)
        })
    };
    let set = |ids: &[&OwnedEventId]| ids.iter().map(|id| (*id).clone()).collect::<BTreeSet<_>>();

    assert_eq!(subgraph(&[&topic.id]), set(&[&topic.id]));
    let bob = &branch.state[&StateSlot::new("m.room.member", BOB)];
    let rules = &branch.state[&StateSlot::new("m.room.join_rules", "")];
    // From the topic to the first levels: over the later levels, and over Bob's joining by the join rules.
    let between = set(&[&topic.id, &third.id, &second.id, bob, rules, &levels]);
    assert_eq!(subgraph(&[&topic.id, &levels]), between);
    assert_eq!(subgraph(&[&third.id, &second.id]), set(&[&third.id, &second.id]));
    assert_eq!(subgraph(&[]), BTreeSet::new());
}

#[test]
fn long_chains_do_not_overflow() {
    let (mut story, mut branch) = Story::public_room(RoomVersion::V12);
    let first = branch.state[&StateSlot::new("m.room.power_levels", "")].clone();
    for level in 0..2_000 {
        story.state(
            &mut branch,
            ALICE,
            "m.room.power_levels",
            "",
            json!({"events": {"x": level}}),
        );
    }
    let last = branch.state[&StateSlot::new("m.room.power_levels", "")].clone();
    assert_eq!(auth_chain([last.clone()], |id| story.fetch(id)).len(), 2_000 + 2);
    let conflicted = [first, last].into_iter().collect();
    assert!(conflicted_subgraph(&conflicted, |id| story.fetch(id)).len() > 2_000);
}
