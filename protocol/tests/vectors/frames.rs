//! `frames.json`: one example of every frame, item, request, answer and datagram, and frames that are refused.

use maru_protocol::{
    LogId, SignedRecord,
    wire::{
        Answer, Call, Datagram, Json, LogItem, Message, Named, Octets, Part, Refused, RefusedCode, Request,
        Text, datagram, decode, encode, encode_datagram,
        frame::frame_length,
        limits::MAX_FRAME_BYTES,
        log,
        message::{self, RoomExtremities},
        request::{Nothing, devices, directory, history, media, membership, records, state},
    },
};
use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, event_id, owned_server_name, room_id, user_id};
use serde_json::{Value, json};

use crate::{
    entries, hex,
    spellings::{accepted, refusal, refused},
    unhex,
    value::value,
    vectors,
};

#[test]
fn frames_read_and_write_as_the_vectors_say() {
    let read = vectors("frames.json", &made());
    for vector in entries(&read["refused"]) {
        let error = refusal(&unhex(&vector["frame"]));
        assert_eq!(error.close_code().name(), vector["close"], "{vector}");
        assert_eq!(error.to_string(), vector["error"].as_str().unwrap());
    }
}

#[test]
fn every_kind_has_its_vector() {
    let made = made();
    let frames = |place: &str| -> Vec<String> {
        let of_place = entries(&made[place]).iter();
        of_place
            .map(|vector| vector["value"][0].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(frames("log_stream"), Message::NAMES);
    assert_eq!(frames("requests"), Request::NAMES);
    assert_eq!(frames("datagrams"), Datagram::NAMES);
    let items: Vec<_> = items().iter().map(Named::name).collect();
    assert_eq!(items, LogItem::NAMES);
}

fn made() -> Value {
    let log_stream: Vec<_> = messages().iter().map(frame).collect();
    let requests: Vec<_> = requests().iter().map(frame).collect();
    let datagrams: Vec<_> = datagrams()
        .iter()
        .map(|datagram| {
            let bytes = encode_datagram(datagram).unwrap();
            assert_eq!(decode::<Datagram>(&bytes).as_ref(), Ok(datagram));
            json!({"datagram": hex(&bytes), "value": value(&bytes)})
        })
        .collect();
    json!({
        "log_stream": log_stream,
        "requests": requests,
        "answers": answers(),
        "datagrams": datagrams,
        "accepted": accepted(),
        "refused": refused(),
    })
}

fn frame<T: Named + PartialEq + std::fmt::Debug>(frame: &T) -> Value {
    let bytes = encode(frame).unwrap();
    let (length, body) = bytes.split_first_chunk().unwrap();
    assert_eq!(frame_length(*length, MAX_FRAME_BYTES), Ok(body.len()));
    assert_eq!(decode::<T>(body).as_ref(), Ok(frame));
    json!({"frame": hex(&bytes), "value": value(body)})
}

fn room() -> OwnedRoomId {
    room_id!("!Z7rHr5qYkU4jT8xQ2m0bNn3vWc6sDe9fGg1hJkLpQrS").to_owned()
}

fn ada() -> OwnedUserId {
    user_id!("@ada:a.example").to_owned()
}

fn bob() -> OwnedUserId {
    user_id!("@bob:b.example").to_owned()
}

fn event() -> OwnedEventId {
    event_id!("$AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE").to_owned()
}

fn text<const MAX: usize>(text: &str) -> Text<MAX> {
    Text::new(text).unwrap()
}

/// In these vectors records and events are stand-ins: `records.json` and `events.json` have real ones.
fn record() -> SignedRecord {
    SignedRecord::from_bytes(b"a record").unwrap()
}

fn json_event() -> Json {
    Json::from(r#"{"type":"m.room.message"}"#)
}

fn messages() -> Vec<Message> {
    let cursor = Octets::new(&[0, 0, 0, 7]).unwrap();
    let rooms = vec![RoomExtremities {
        room_id: room(),
        extremities: vec![event()],
    }];
    vec![
        Message::Hello(message::Hello {
            name: owned_server_name!("a.example"),
            to: Some(owned_server_name!("b.example")),
            record: record(),
            log_id: LogId([1; 16]),
        }),
        Message::Ready(message::Ready {
            received: Some(message::Received {
                log_id: LogId([2; 16]),
                cursor: cursor.clone(),
            }),
            items: 1024,
            bytes: 8_388_608,
        }),
        Message::Log(message::Log {
            number: 1,
            items: items(),
            cursor,
        }),
        Message::Stored(message::Stored { number: 1 }),
        Message::Extremities(message::Extremities { rooms }),
        Message::Record(message::Record { record: record() }),
    ]
}

fn items() -> Vec<LogItem> {
    vec![
        LogItem::Event(log::Event {
            room_id: room(),
            json: json_event(),
        }),
        LogItem::Skipped(log::Skipped {
            room_id: room(),
            extremities: vec![event()],
        }),
        LogItem::ToDevice(log::ToDevice {
            message_id: text("17"),
            sender: ada(),
            user_id: bob(),
            device_id: "*".into(),
            event_type: text("m.room_key_request"),
            content: Json::from(r#"{"action":"request_cancellation"}"#),
        }),
        LogItem::DeviceList(log::DeviceList { user_id: ada() }),
        LogItem::Receipt(log::Receipt {
            room_id: room(),
            user_id: ada(),
            receipt_type: text("m.read"),
            event_id: event(),
            thread: Some(text("main")),
            ts: 1_700_000_000_000,
        }),
    ]
}

fn requests() -> Vec<Request> {
    let (room_id, user_id, event_id) = (room(), ada(), event());
    vec![
        membership::MakeMembership {
            room_id: room_id.clone(),
            user_id: user_id.clone(),
            membership: membership::Membership::Join,
            versions: vec![text("10"), text("11"), text("12")],
        }
        .into(),
        membership::SendMembership {
            room_id: room_id.clone(),
            event: json_event(),
        }
        .into(),
        membership::Invite {
            room_id: room_id.clone(),
            version: text("12"),
            event: json_event(),
            stripped_state: vec![json_event()],
            records: vec![record()],
        }
        .into(),
        history::Backfill {
            room_id: room_id.clone(),
            from: vec![event_id.clone()],
            limit: 100,
        }
        .into(),
        history::MissingEvents {
            room_id: room_id.clone(),
            earliest: vec![event_id.clone()],
            latest: vec![event_id.clone()],
            limit: 50,
        }
        .into(),
        history::Events {
            room_id: room_id.clone(),
            ids: vec![event_id.clone()],
        }
        .into(),
        history::Timestamp {
            room_id: room_id.clone(),
            ts: 1_700_000_000_000,
            direction: history::Direction::Forwards,
        }
        .into(),
        state::State {
            room_id: room_id.clone(),
            at: event_id.clone(),
            beside: Some(event_id),
        }
        .into(),
        records::Records {
            servers: vec![owned_server_name!("c.example")],
        }
        .into(),
        directory::Profile {
            user_id: user_id.clone(),
        }
        .into(),
        directory::Alias {
            alias: "#tea:a.example".try_into().unwrap(),
        }
        .into(),
        directory::PublicRooms {
            limit: 20,
            since: None,
            search: Some(text("tea")),
        }
        .into(),
        directory::Hierarchy {
            room_id,
            suggested_only: false,
        }
        .into(),
        devices::Devices {
            user_ids: vec![user_id.clone()],
        }
        .into(),
        devices::ClaimKeys {
            keys: vec![devices::ClaimKey {
                user_id,
                device_id: "PHONE".into(),
                algorithm: text("signed_curve25519"),
            }],
        }
        .into(),
        media::Media {
            media_id: text("3yK0mNqZ"),
        }
        .into(),
    ]
}

fn answer<C: Call>(to: &str, frame: Answer<C::Done>) -> Value
where
    C::Done: PartialEq + std::fmt::Debug,
{
    let mut vector = self::frame(&frame);
    vector["to"] = json!(to);
    vector
}

fn answers() -> Vec<Value> {
    let key = Json::from(r#"{"key":"abc"}"#);
    let part = Part {
        events: vec![json_event()],
        records: vec![record()],
        ..Part::default()
    };
    let file = Part {
        media: Some(media::MediaInfo {
            length: 4,
            content_type: Some(text("image/png")),
            file_name: None,
        }),
        data: Octets::new(&[1, 2, 3, 4]).unwrap(),
        ..Part::default()
    };
    vec![
        answer::<membership::MakeMembership>(
            "make_membership",
            Answer::Done(membership::Template {
                version: text("12"),
                create: json_event(),
                auth_events: vec![json_event()],
                prev_events: vec![event()],
                depth: 8,
                authorised_by: Some(bob()),
            }),
        ),
        answer::<membership::SendMembership>("send_membership", Answer::Part(part)),
        answer::<membership::SendMembership>(
            "send_membership",
            Answer::Done(membership::Admission {
                event: json_event(),
                state: vec![event()],
                extremities: vec![event()],
                stripped_state: vec![],
            }),
        ),
        answer::<membership::Invite>(
            "invite",
            Answer::Done(membership::Invited { event: json_event() }),
        ),
        answer::<history::Backfill>("backfill", Answer::Done(Nothing {})),
        answer::<history::Timestamp>(
            "timestamp",
            Answer::Done(history::Nearest {
                event_id: event(),
                ts: 1_700_000_000_001,
            }),
        ),
        answer::<state::State>(
            "state",
            Answer::Part(Part {
                extent: Some(state::Extent { state: 1, chain: 0 }),
                ..Part::default()
            }),
        ),
        answer::<state::State>(
            "state",
            Answer::Done(state::StateIds {
                state: vec![event()],
                difference: None,
            }),
        ),
        answer::<state::State>(
            "state",
            Answer::Done(state::StateIds {
                state: vec![event()],
                difference: Some(state::Difference {
                    gone: vec![event()],
                    filled: 7,
                }),
            }),
        ),
        answer::<directory::Profile>(
            "profile",
            Answer::Done(directory::UserProfile {
                profile: Json::from(r#"{"displayname":"Ada"}"#),
            }),
        ),
        answer::<directory::Alias>(
            "alias",
            Answer::Done(directory::AliasTarget {
                room_id: room(),
                servers: vec![owned_server_name!("a.example")],
            }),
        ),
        answer::<directory::PublicRooms>(
            "public_rooms",
            Answer::Done(directory::RoomList {
                rooms: vec![Json::from("{}")],
                next: Some(text("20")),
                previous: None,
                total: Some(41),
            }),
        ),
        answer::<directory::Hierarchy>(
            "hierarchy",
            Answer::Done(directory::Space {
                room: Json::from("{}"),
                children: vec![],
                inaccessible: vec![room()],
            }),
        ),
        answer::<devices::Devices>(
            "devices",
            Answer::Done(devices::DeviceLists {
                users: vec![devices::DeviceListOf {
                    user_id: ada(),
                    version: 3,
                    devices: vec![devices::Device {
                        device_id: "PHONE".into(),
                        keys: Some(key.clone()),
                        display_name: Some(text("phone")),
                    }],
                    master_key: Some(key.clone()),
                    self_signing_key: None,
                }],
            }),
        ),
        answer::<devices::ClaimKeys>(
            "claim_keys",
            Answer::Done(devices::ClaimedKeys {
                keys: vec![devices::ClaimedKey {
                    user_id: ada(),
                    device_id: "PHONE".into(),
                    key_id: text("signed_curve25519:AAAAHQ"),
                    key,
                }],
            }),
        ),
        answer::<media::Media>("media", Answer::Part(file)),
        answer::<media::Media>(
            "media",
            Answer::Refused(Refused::new(RefusedCode::NotFound, "no such file")),
        ),
    ]
}

fn datagrams() -> Vec<Datagram> {
    vec![
        Datagram::Typing(datagram::Typing {
            room_id: room(),
            user_id: ada(),
            typing: true,
            lifetime_ms: 30_000,
        }),
        Datagram::Presence(datagram::Presence {
            user_id: ada(),
            presence: datagram::PresenceState::Online,
            last_active_ago_ms: Some(1500),
            currently_active: true,
            status_msg: Some(text("tea")),
            lifetime_ms: 60_000,
        }),
    ]
}
