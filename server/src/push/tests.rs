//! The quick evaluation of the predefined rules against the rules themselves, as the library knows them.

use futures_util::FutureExt;
use maru_protocol::canonical::Content;
use maru_protocol::event::Draft;
use ruma::push::{PushConditionRoomCtx, Ruleset};
use ruma::serde::Raw;
use ruma::{OwnedUserId, UInt, UserId, owned_room_id, owned_user_id, user_id};
use serde_json::{Value, json};

use super::compiled::{Compiled, Scene, event_of};
use super::facts::EventProperties;
use super::limits::Steps;
use crate::store::rooms::events::Notify;

const SENDER: &str = "@sender:example.org";

fn draft(event_type: &str, state_key: Option<&str>, content: &Value) -> Draft {
    Draft {
        room_id: Some(owned_room_id!("!room:example.org")),
        sender: SENDER.try_into().unwrap(),
        event_type: event_type.into(),
        state_key: state_key.map(Into::into),
        content: Content::of(content).unwrap(),
        redacts: None,
        origin_server_ts: 0,
    }
}

/// What rules say, with as many steps as one user has; `allowed` are the keys of `notifications` that the sender may use.
fn by_rules(compiled: &Compiled, draft: &Draft, members: u64, allowed: &[&str]) -> Notify {
    let event = event_of(draft);
    let allowed = allowed.iter().map(ToString::to_string).collect();
    compiled.evaluate(
        &mut Scene::new(&event, members, &allowed),
        &mut Steps::new(Steps::share(1)),
    )
}

/// Events of every kind that the predefined rules tell apart, and some that they do not expect.
fn events() -> Vec<Draft> {
    let bodies = [
        json!({}),
        json!({ "msgtype": "m.text", "body": "hello" }),
        json!({ "msgtype": "m.notice", "body": "hello" }),
        json!({ "msgtype": "M.Notice" }),
        json!({ "msgtype": 5, "m.mentions": [], "m.relates_to": "x", "membership": null }),
        json!({ "m.mentions": { "user_ids": ["@me:example.org"] } }),
        json!({ "m.mentions": { "user_ids": ["@me:example.org", 7, "no id"], "room": "yes" } }),
        json!({ "m.mentions": { "user_ids": ["@me:example.org"] }, "msgtype": "m.notice" }),
        json!({ "m.mentions": { "room": true } }),
        json!({ "m.mentions": { "room": true }, "m.relates_to": { "rel_type": "m.replace" } }),
        json!({ "m.relates_to": { "rel_type": "m.replace", "event_id": "$e" } }),
        json!({ "m.relates_to": { "rel_type": "m.thread", "event_id": "$e" } }),
        json!({ "membership": "invite" }),
        json!({ "membership": "join" }),
    ];
    let kinds = [
        ("m.room.message", None),
        ("m.room.encrypted", None),
        ("m.reaction", None),
        ("m.call.invite", None),
        ("m.sticker", None),
        ("m.room.member", Some("@me:example.org")),
        ("m.room.member", Some("@other:example.org")),
        ("m.room.tombstone", Some("")),
        ("m.room.tombstone", None),
        ("m.room.server_acl", Some("")),
        ("m.room.topic", Some("")),
    ];
    let pairs = kinds
        .iter()
        .flat_map(|kind| bodies.iter().map(move |body| (kind, body)));
    pairs.map(|((kind, key), body)| draft(kind, *key, body)).collect()
}

fn by_library(rules: &Ruleset, user_id: &UserId, draft: &Draft, members: u64) -> Notify {
    let event: Raw<Value> = Raw::new(&event_of(draft)).unwrap().cast();
    let context = PushConditionRoomCtx::new(
        owned_room_id!("!room:example.org"),
        UInt::new_saturating(members),
        user_id.to_owned(),
        "Me".into(),
    );
    let actions = rules.get_actions(&event, &context).now_or_never().unwrap();
    let notifies = actions.iter().any(ruma::push::Action::should_notify);
    let highlights = actions.iter().any(ruma::push::Action::is_highlight);
    match (notifies, highlights) {
        (false, _) => Notify::Nothing,
        (true, false) => Notify::Notify,
        (true, true) => Notify::Highlight,
    }
}

#[test]
fn the_quick_way_and_the_rules_say_the_same() {
    let me: OwnedUserId = owned_user_id!("@me:example.org");
    let rules = Ruleset::server_default(&me);
    let compiled = Compiled::new(&rules);
    for draft in events() {
        for members in [2, 3] {
            let facts = EventProperties::of(&draft);
            let expected = by_library(&rules, &me, &draft, members);
            let quick = if facts.invites().as_ref() == Some(&me) {
                facts.to_invited()
            } else if facts.mentions.contains(&me) {
                facts.to_mentioned()
            } else {
                facts.to_everybody(false)
            };
            assert_eq!(quick, expected, "quickly: {draft:?}");
            // Without power levels the library lets nobody notify the whole room.
            let evaluated = by_rules(&compiled, &draft, members, &[]);
            assert_eq!(evaluated, expected, "by the rules: {draft:?}");
        }
    }
}

#[test]
fn who_may_can_notify_the_whole_room() {
    let draft = draft("m.room.message", None, &json!({ "m.mentions": { "room": true } }));
    let facts = EventProperties::of(&draft);
    assert_eq!(facts.to_everybody(true), Notify::Highlight);
    assert_eq!(facts.to_everybody(false), Notify::Notify);
    let compiled = Compiled::new(&Ruleset::server_default(user_id!("@me:example.org")));
    assert_eq!(by_rules(&compiled, &draft, 9, &["room"]), Notify::Highlight);
    assert_eq!(by_rules(&compiled, &draft, 9, &[]), Notify::Notify);
}

#[test]
fn rules_of_ones_own_are_obeyed() {
    use ruma::push::{Action, NewConditionalPushRule, NewPatternedPushRule, NewPushRule, NewSimplePushRule};
    let me = user_id!("@me:example.org");
    let evaluate = |rules: &Ruleset, draft: &Draft| by_rules(&Compiled::new(rules), draft, 9, &[]);
    let hello = draft(
        "m.room.message",
        None,
        &json!({ "msgtype": "m.text", "body": "Cake, anybody?" }),
    );
    let mut rules = Ruleset::server_default(me);
    let muted = NewSimplePushRule::new(owned_room_id!("!room:example.org"), vec![]);
    rules.insert(NewPushRule::Room(muted), None, None).unwrap();
    assert_eq!(evaluate(&rules, &hello), Notify::Nothing);
    let highlight = serde_json::from_value(json!({ "set_tweak": "highlight" })).unwrap();
    let cake = NewPatternedPushRule::new("cake".into(), "cake".into(), vec![Action::Notify, highlight]);
    rules.insert(NewPushRule::Content(cake), None, None).unwrap();
    assert_eq!(evaluate(&rules, &hello), Notify::Highlight);
    let silence = NewConditionalPushRule::new("silence".into(), vec![], vec![]);
    rules.insert(NewPushRule::Override(silence), None, None).unwrap();
    assert_eq!(evaluate(&rules, &hello), Notify::Nothing);
    rules
        .set_enabled(ruma::push::RuleKind::Override, "silence", false)
        .unwrap();
    assert_eq!(evaluate(&rules, &hello), Notify::Highlight);
}
