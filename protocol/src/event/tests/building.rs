//! Events that we build, against ruma's own hashing, signing and format check.

use proptest::prelude::*;
use ruma::{UserId, canonical_json::redact as ruma_redact};

use super::*;
use crate::{event::format::FormatError, limits::LARGE_MAX_EVENT_BYTES};

#[test]
fn kinds_whose_content_is_partly_kept_agree_with_ruma() {
    let kinds = [
        (
            "m.room.create",
            json!({"creator": "@alice:a.example", "room_version": "11", "x": 1}),
        ),
        (
            "m.room.member",
            json!({"membership": "invite", "displayname": "A", "third_party_invite": {"signed": {"a": 1}, "b": 2}, "join_authorised_via_users_server": "@b:a.example"}),
        ),
        (
            "m.room.power_levels",
            json!({"ban": 50, "invite": 1, "users": {"@a:b": 1}, "notifications": {"room": 1}, "events": {"x": 1}, "z": 1}),
        ),
        (
            "m.room.join_rules",
            json!({"join_rule": "restricted", "allow": [], "x": 1}),
        ),
        (
            "m.room.history_visibility",
            json!({"history_visibility": "shared", "x": 1}),
        ),
        ("m.room.redaction", json!({"reason": "r"})),
        ("m.room.aliases", json!({"aliases": ["#a:b"]})),
        ("m.room.server_acl", json!({"allow": ["*"]})),
        ("m.room.name", json!({"name": "n"})),
        (
            "m.room.message",
            json!({"body": "\u{0}\u{1f}\"\\ \u{2028}é한", "msgtype": "m.text"}),
        ),
        (
            "org.example.\"quoted\"",
            json!({"nested": {"b": [1, -2, null, true], "a": {}}}),
        ),
    ];
    for version in RoomVersion::ALL {
        for (event_type, content) in kinds.clone() {
            let mut draft = draft(event_type, Some("@k\"ey"), content, version);
            draft.redacts = (event_type == "m.room.redaction").then(|| id(9));
            let event = built(draft, version);
            agrees_with_ruma(&event, version);
            same(
                &event,
                &Event::parse(&event.json, version, DEFAULT_MAX_EVENT_BYTES, MAX_JSON_DEPTH).unwrap(),
            );
            same(
                &event,
                &Event::from_stored(event.id.clone(), event.room_id.clone(), event.json.clone()).unwrap(),
            );
            assert_eq!(verify(&event, version, known).unwrap(), Verified::All);

            let object: CanonicalJsonObject = serde_json::from_str(&event.json).unwrap();
            let redacted = redact(&event, version).unwrap();
            let expected = ruma_redact(object, &version.rules().redaction, None).unwrap();
            assert_eq!(&*redacted.json, serde_json::to_string(&expected).unwrap());
            let again =
                Event::parse(&redacted.json, version, DEFAULT_MAX_EVENT_BYTES, MAX_JSON_DEPTH).unwrap();
            same(&redacted, &again);
            assert_eq!(redacted.id, event.id);
        }
    }
}

fn refused(draft: Draft, links: Links, limit: usize) -> FormatError {
    match build(draft, links, RoomVersion::V12, limit, &server(), &key()) {
        Err(BuildError::Format(error)) => error,
        other => panic!("{other:?}"),
    }
}

fn message(body: &str) -> Draft {
    draft(
        "m.room.message",
        None,
        json!({"body": body, "msgtype": "m.text"}),
        RoomVersion::V12,
    )
}

#[test]
fn the_size_counts_signatures_and_is_exact() {
    let event = built(message(""), RoomVersion::V12);
    for limit in [DEFAULT_MAX_EVENT_BYTES, LARGE_MAX_EVENT_BYTES] {
        let fits = "x".repeat(limit - event.json.len());
        let largest = build(
            message(&fits),
            links(),
            RoomVersion::V12,
            limit,
            &server(),
            &key(),
        )
        .unwrap();
        assert_eq!(largest.json.len(), limit);
        assert_eq!(
            refused(message(&format!("{fits}x")), links(), limit),
            FormatError::TooLarge {
                bytes: limit + 1,
                limit
            }
        );
        let read = Event::parse(&largest.json, RoomVersion::V12, limit, MAX_JSON_DEPTH).unwrap();
        same(&largest, &read);
        assert_eq!(verify(&read, RoomVersion::V12, known).unwrap(), Verified::All);
        assert!(Event::parse(&largest.json, RoomVersion::V12, limit - 1, MAX_JSON_DEPTH).is_err());
    }
}

#[test]
fn a_hundred_thousand_hangul_syllables_fit_into_a_large_room() {
    let draft = message(&"한".repeat(100_000));
    assert!(matches!(
        refused(draft.clone(), links(), DEFAULT_MAX_EVENT_BYTES),
        FormatError::TooLarge { .. }
    ));
    let event = build(
        draft,
        links(),
        RoomVersion::V12,
        LARGE_MAX_EVENT_BYTES,
        &server(),
        &key(),
    )
    .unwrap();
    assert_eq!(verify(&event, RoomVersion::V12, known).unwrap(), Verified::All);
}

#[test]
fn what_would_break_the_format_is_refused() {
    let limit = DEFAULT_MAX_EVENT_BYTES;
    let long: Box<str> = "x".repeat(256).into();
    let fine: Box<str> = "x".repeat(255).into();
    assert!(
        build(
            Draft {
                event_type: fine.clone(),
                state_key: Some(fine),
                ..message("")
            },
            links(),
            RoomVersion::V12,
            limit,
            &server(),
            &key()
        )
        .is_ok()
    );
    for (draft, error) in [
        (
            Draft {
                event_type: long.clone(),
                ..message("")
            },
            FormatError::TooLong("type"),
        ),
        (
            Draft {
                state_key: Some(long),
                ..message("")
            },
            FormatError::TooLong("state_key"),
        ),
        (
            Draft {
                state_key: Some("a\0".into()),
                ..message("")
            },
            FormatError::Nul("state_key"),
        ),
        (
            Draft {
                event_type: "\0".into(),
                ..message("")
            },
            FormatError::Nul("type"),
        ),
        (
            Draft {
                room_id: None,
                ..message("")
            },
            FormatError::Missing("room_id"),
        ),
        (
            Draft {
                event_type: "m.room.create".into(),
                ..message("")
            },
            FormatError::Unexpected("room_id"),
        ),
        (
            Draft {
                redacts: Some(id(1)),
                ..message("")
            },
            FormatError::Unexpected("redacts"),
        ),
        (
            Draft {
                origin_server_ts: 1 << 53,
                ..message("")
            },
            FormatError::Malformed("origin_server_ts"),
        ),
    ] {
        assert_eq!(refused(draft, links(), limit), error);
    }
    let many = |n: u8| (0..n).map(id).collect::<Vec<_>>();
    let links = |prev, auth| Links {
        prev_events: many(prev),
        auth_events: many(auth),
        depth: 1,
    };
    assert_eq!(
        refused(message(""), links(21, 1), limit),
        FormatError::TooMany("prev_events")
    );
    assert_eq!(
        refused(message(""), links(1, 11), limit),
        FormatError::TooMany("auth_events")
    );

    let foreign = Draft {
        sender: "@x:b.example".try_into().unwrap(),
        ..message("")
    };
    let result = build(foreign, links(1, 1), RoomVersion::V12, limit, &server(), &key());
    assert!(matches!(result, Err(BuildError::ForeignSender)));
}

#[test]
fn a_depth_beyond_the_largest_integer_stays_there() {
    let links = Links {
        depth: u64::MAX,
        ..links()
    };
    let event = build(
        message(""),
        links,
        RoomVersion::V12,
        DEFAULT_MAX_EVENT_BYTES,
        &server(),
        &key(),
    )
    .unwrap();
    assert_eq!(event.depth, (1 << 53) - 1);
    agrees_with_ruma(&event, RoomVersion::V12);
}

#[test]
fn a_redaction_names_its_target_where_its_room_wants_it() {
    for version in RoomVersion::ALL {
        let mut draft = draft(
            "m.room.redaction",
            None,
            json!({"reason": "r", "redacts": "$other", "x": 1}),
            version,
        );
        draft.redacts = Some(id(9));
        let event = built(draft, version);
        agrees_with_ruma(&event, version);
        assert_eq!(event.redacts, Some(id(9)));
        let read = Event::parse(&event.json, version, DEFAULT_MAX_EVENT_BYTES, MAX_JSON_DEPTH).unwrap();
        assert_eq!(read.redacts, Some(id(9)));
        let json: Value = serde_json::from_str(&event.json).unwrap();
        let target = if version.redacts_in_content() {
            &json["content"]["redacts"]
        } else {
            &json["redacts"]
        };
        assert_eq!(target, id(9).as_str());
    }
}

fn any_content() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Into::into),
        (-(1_i64 << 53) + 1..(1_i64 << 53)).prop_map(Into::into),
        any::<String>().prop_map(Into::into),
    ];
    let value = leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::hash_map(any::<String>(), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    });
    let name = prop_oneof![
        any::<String>(),
        prop::sample::select(vec![
            "membership",
            "users",
            "join_rule",
            "redacts",
            "creator",
            "ban",
            "history_visibility"
        ])
        .prop_map(str::to_owned),
    ];
    prop::collection::hash_map(name, value, 0..6).prop_map(|map| Value::Object(map.into_iter().collect()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn whatever_is_built_is_what_ruma_would_build(
        version in prop::sample::select(RoomVersion::ALL.to_vec()),
        event_type in prop_oneof![
            "[^\0]{0,30}",
            prop::sample::select(vec![
                "m.room.message", "m.room.member", "m.room.power_levels", "m.room.create", "m.room.redaction",
            ]).prop_map(str::to_owned),
        ],
        state_key in prop::option::of("[^\0]{0,30}"),
        content in any_content(),
        local in "[a-z0-9._=/+-]{1,20}",
        (time, depth) in (0_u64..1 << 53, 0_u64..1 << 53),
        (prev, auth) in (prop::collection::vec(any::<u8>(), 0..20), prop::collection::vec(any::<u8>(), 0..10)),
    ) {
        let mut draft = draft(&event_type, state_key.as_deref(), content, version);
        draft.sender = UserId::parse(format!("@{local}:a.example")).unwrap();
        draft.origin_server_ts = time;
        let ids = |list: Vec<u8>| list.into_iter().map(id).collect();
        let links = Links { prev_events: ids(prev), auth_events: ids(auth), depth };
        let event = build(draft, links, version, DEFAULT_MAX_EVENT_BYTES, &server(), &key()).unwrap();
        agrees_with_ruma(&event, version);
        same(&event, &Event::parse(&event.json, version, DEFAULT_MAX_EVENT_BYTES, MAX_JSON_DEPTH).unwrap());
        prop_assert_eq!(verify(&event, version, known).unwrap_or(Verified::ContentHashMismatch), Verified::All);

        let object: CanonicalJsonObject = serde_json::from_str(&event.json).unwrap();
        let redacted = redact(&event, version).unwrap();
        let expected = ruma_redact(object, &version.rules().redaction, None).unwrap();
        prop_assert_eq!(&*redacted.json, serde_json::to_string(&expected).unwrap());
    }
}
