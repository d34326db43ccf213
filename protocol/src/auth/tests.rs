//! Our readings of the rules against ruma's, and stories of what is allowed.

use proptest::prelude::*;
use ruma::UserId;
use serde_json::{Value, json};

use super::*;
use crate::test_room::{ALICE, BOB, Branch, CAROL, Story};

fn user(id: &str) -> &UserId {
    id.try_into().unwrap()
}

#[test]
fn power_levels_have_the_defaults_of_the_specification() {
    for version in RoomVersion::ALL {
        let (story, branch) = Story::public_room(version);
        let create = story.at(&branch.state, "m.room.create", "").unwrap();
        let event = story.at(&branch.state, "m.room.power_levels", "").unwrap();
        let levels = PowerLevels::new(version, &create, Some(&event)).unwrap();
        let alice = if version.creators_are_privileged() {
            PowerLevel::Infinite
        } else {
            PowerLevel::Finite(100)
        };
        assert_eq!(levels.for_user(user(ALICE)), alice);
        assert_eq!(levels.for_user(user(BOB)), PowerLevel::Finite(50));
        assert_eq!(levels.for_user(user(CAROL)), PowerLevel::Finite(0));
        for (level, expected) in [
            (levels.ban(), 50),
            (levels.kick(), 50),
            (levels.redact(), 50),
            (levels.invite(), 0),
            (levels.notifications("room"), 50),
            (levels.needed("m.room.name", true), 50),
            (levels.needed("m.room.message", false), 0),
        ] {
            assert_eq!(level, PowerLevel::Finite(expected));
        }
        assert!(levels.may_send(user(BOB), "m.room.name", true));
        assert!(!levels.may_send(user(CAROL), "m.room.name", true));

        let none = PowerLevels::new(version, &create, None).unwrap();
        assert_eq!(none.for_user(user(ALICE)), alice);
        // ruma and the rules: 50 for state also without a power-levels event.
        assert_eq!(none.needed("m.room.name", true), PowerLevel::Finite(50));
    }
    assert!(PowerLevel::Infinite > PowerLevel::Finite(i64::MAX));
}

#[test]
fn additional_creators_stand_above_numbers_in_version_12_only() {
    for version in RoomVersion::ALL {
        let (mut story, _) = Story::public_room(version);
        let create =
            json!({"room_version": version.as_str(), "creator": ALICE, "additional_creators": [BOB]});
        let create = story_create(&mut story, create);
        let levels = PowerLevels::new(version, &create, None).unwrap();
        let expected = if version.creators_are_privileged() {
            PowerLevel::Infinite
        } else {
            PowerLevel::Finite(0)
        };
        assert_eq!(levels.for_user(user(BOB)), expected);
    }
}

fn story_create(story: &mut Story, content: Value) -> Arc<Event> {
    let (mut fresh, branch) = (Story::empty(story.version), Branch::default());
    Arc::new(fresh.draft(&branch, ALICE, "m.room.create", Some(""), content))
}

#[test]
fn the_rules_deny_with_a_reason() {
    for version in RoomVersion::ALL {
        let (mut story, mut branch) = Story::public_room(version);
        let message = json!({"body": "hi", "msgtype": "m.text"});
        let mut sent = |branch: &mut Branch, sender: &str, kind: &str, key: Option<&str>, content: Value| {
            story
                .send(branch, sender, kind, key, content)
                .map(drop)
                .map_err(|denied| denied.reason)
        };
        assert_eq!(
            sent(&mut branch, CAROL, "m.room.message", None, message.clone()),
            Ok(())
        );
        let stranger = "@dave:d.example";
        assert_eq!(
            sent(&mut branch, stranger, "m.room.message", None, message.clone()),
            Err("the sender is not in the room".to_owned())
        );
        assert_eq!(
            sent(&mut branch, CAROL, "m.room.name", Some(""), json!({"name": "n"})),
            Err("sending m.room.name needs power level 50".to_owned())
        );
        assert_eq!(
            sent(&mut branch, BOB, "org.example.x", Some(CAROL), json!({})),
            Err("the state key is another user's id".to_owned())
        );
        assert_eq!(
            sent(&mut branch, BOB, "org.example.x", Some(BOB), json!({})),
            Ok(())
        );
        assert!(
            sent(
                &mut branch,
                BOB,
                "m.room.member",
                Some(ALICE),
                json!({"membership": "ban"})
            )
            .is_err()
        );
        assert_eq!(
            sent(
                &mut branch,
                BOB,
                "m.room.member",
                Some(CAROL),
                json!({"membership": "ban"})
            ),
            Ok(())
        );
        assert!(sent(&mut branch, CAROL, "m.room.message", None, message.clone()).is_err());
        assert!(
            sent(
                &mut branch,
                CAROL,
                "m.room.member",
                Some(CAROL),
                json!({"membership": "join"})
            )
            .is_err()
        );
        assert!(
            sent(
                &mut branch,
                BOB,
                "m.room.power_levels",
                Some(""),
                json!({"users": {BOB: 51}})
            )
            .is_err()
        );
    }
}

#[test]
fn rooms_may_keep_other_servers_out() {
    for version in RoomVersion::ALL {
        let (mut story, mut branch) = Story::public_room(version);
        let closed = json!({"room_version": version.as_str(), "creator": ALICE, "m.federate": false});
        let create = story_create(&mut story, closed);
        let message = story.draft(&branch, BOB, "m.room.message", None, json!({}));
        branch
            .state
            .insert(StateSlot::new("m.room.create", ""), create.id.clone());
        story.events.insert(create.id.clone(), create);
        let verdict = check(&message, version, |slot| {
            branch.state.get(slot).and_then(|id| story.fetch(id))
        });
        assert_eq!(
            verdict.unwrap_err().reason,
            "the room admits no users of other servers"
        );
    }
}

#[test]
fn auth_events_are_checked_by_themselves() {
    for version in RoomVersion::ALL {
        let (mut story, branch) = Story::public_room(version);
        let message = story.draft(&branch, BOB, "m.room.message", None, json!({}));
        assert_eq!(check_independent(&message, version, |id| story.fetch(id)), Ok(()));
        // One that is not known, or was rejected.
        let missing = message.auth_events[0].clone();
        assert!(
            check_independent(&message, version, |id| (*id != missing)
                .then(|| story.fetch(id))?)
            .is_err()
        );
        // One that has no business there.
        let mut stray = message.clone();
        stray
            .auth_events
            .push(branch.state[&StateSlot::new("m.room.join_rules", "")].clone());
        assert!(check_independent(&stray, version, |id| story.fetch(id)).is_err());
        // The same one twice.
        let mut twice = message.clone();
        twice.auth_events.push(missing);
        assert!(check_independent(&twice, version, |id| story.fetch(id)).is_err());
    }
}

fn level() -> impl Strategy<Value = i64> {
    prop_oneof![Just(0), Just(49), Just(50), Just(51), Just(100), -10_i64..10]
}

prop_compose! {
    fn levels()(
        users in prop::collection::hash_map(prop::sample::select(vec![ALICE, BOB, CAROL]), level(), 0..3),
        events in prop::collection::hash_map(prop::sample::select(vec!["m.room.name", "m.room.message", "x"]), level(), 0..3),
        defaults in prop::collection::hash_map(
            prop::sample::select(vec!["users_default", "events_default", "state_default", "ban", "invite"]), level(), 0..4),
    ) -> Value {
        let mut content = json!({"users": users, "events": events});
        for (field, level) in defaults {
            content[field] = level.into();
        }
        content
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn ordinary_events_fare_as_in_ruma(
        levels in prop::option::of(levels()),
        version in prop::sample::select(RoomVersion::ALL.to_vec()),
        sender in prop::sample::select(vec![ALICE, BOB, CAROL, "@dave:a.example"]),
        event_type in prop::sample::select(vec!["m.room.name", "m.room.message", "x", "m.room.redaction", "m.room.encryption"]),
        state_key in prop::option::of(prop::sample::select(vec!["", "k", ALICE, BOB, "@"])),
        membership in prop::sample::select(vec!["join", "invite", "leave", "ban", "knock"]),
        federate in prop::option::of(any::<bool>()),
    ) {
        let (mut story, mut branch) = Story::public_room(version);
        let mut create = json!({"room_version": version.as_str(), "creator": ALICE, "additional_creators": [CAROL]});
        if let Some(federate) = federate {
            create["m.federate"] = federate.into();
        }
        let create = story_create(&mut story, create);
        let mut put = |story: &mut Story, slot: StateSlot, event: Option<Arc<Event>>| match event {
            Some(event) => {
                branch.state.insert(slot, event.id.clone());
                story.events.insert(event.id.clone(), event);
            }
            None => drop(branch.state.remove(&slot)),
        };
        let member = Arc::new(story.draft(&Branch::default(), sender, "m.room.member", Some(sender), json!({"membership": membership})));
        let levels = levels.map(|content| Arc::new(story.draft(&Branch::default(), ALICE, "m.room.power_levels", Some(""), content)));
        put(&mut story, StateSlot::new("m.room.create", ""), Some(create));
        put(&mut story, StateSlot::new("m.room.member", sender), Some(member));
        put(&mut story, StateSlot::new("m.room.power_levels", ""), levels);

        let event = story.draft(&branch, sender, event_type, state_key, json!({}));
        let state = |slot: &StateSlot| branch.state.get(slot).and_then(|id| story.fetch(id));
        let (ours, theirs) = (check_ordinary(&event, version, state), check_special(&event, version, state));
        prop_assert_eq!(ours.is_ok(), theirs.is_ok(), "{:?} {:?}", ours, theirs);
    }
}
